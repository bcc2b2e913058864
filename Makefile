# The doors to this repository. Each target sets up what it needs; nothing else has to be run first.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Read by maturin: the environment into which the package is installed.
export VIRTUAL_ENV := $(abspath $(VENV))

RUST_SOURCES := Cargo.toml Cargo.lock $(shell find crates -name '*.rs' -o -name Cargo.toml)
BENCH ?= start boot compute
PYTEST_ARGS ?=

.PHONY: help setup build host run test test-rust test-python soak lint format bench wheel clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: host build ## Make all that the other targets need: .venv, the extension, host packages

build: $(VENV)/.built ## Make .venv and build the extension into it

host: ## Install the host packages that tests use (as root, where apt-get exists, if missing)
	@tools/host-packages

$(VENV)/.tools: pyproject.toml tools/host-packages
	@tools/host-packages --minimal
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'maturin>=1.9,<2'
	@touch $@

$(VENV)/.built: $(VENV)/.tools $(RUST_SOURCES)
	PIP_QUIET=1 $(BIN)/maturin develop --release --extras dev --quiet
	@touch $@

run: build ## Boot Debian's kernel on the bt engine and run `uname -a` in it
	$(BIN)/ringfence image pull debian
	$(BIN)/ringfence run debian -- uname -a

test: setup test-rust test-python ## Run all tests: Rust, then Python with real guests

test-rust: build
	cargo test --workspace --release

test-python: build
	$(BIN)/python -m pytest $(PYTEST_ARGS)

soak: setup ## Run the tests that repeat a thousandfold
	$(BIN)/python -m pytest --soak -m soak --timeout=7200 $(PYTEST_ARGS)

lint: build ## Check formatting, lints, types, import layers and file sizes
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest ringfence._core
	$(BIN)/lint-imports
	$(BIN)/python tools/size_gate.py
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --release --quiet -- -D warnings

format: build ## Format all sources
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format
	cargo fmt --all

bench: setup ## Measure against QEMU and the host: `make bench BENCH=boot`
	for name in $(BENCH); do $(BIN)/python -m bench $$name; done

wheel: build ## Build a wheel into dist/
	$(BIN)/maturin build --release --out dist

clean: ## Remove what the build made
	rm -rf $(VENV) target dist src/ringfence/_core*.so
