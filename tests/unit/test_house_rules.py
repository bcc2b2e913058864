"""The rules of the house that no linter knows."""

import ast
import importlib
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import ringfence
from ringfence import errors

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "ringfence"
SOURCES = sorted(PACKAGE.rglob("*.py"))

#: What each crate may depend on, of ours.
CRATES = {
    "x86": set(),
    "testkit": {"engine", "memory", "x86"},
    "memory": set(),
    "engine": {"x86", "memory"},
    "chips": {"engine", "memory", "x86"},
    "bt": {"engine", "memory", "x86"},
    "kvm": {"engine", "memory", "x86"},
    "engines": {"engine", "memory", "x86", "bt", "kvm", "chips"},
    "datapath": {"memory"},
    "py": {"engine", "memory", "x86", "kvm", "engines", "chips", "datapath"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Everything that a file imports, modules and names alike."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_module_imports_by_itself() -> None:
    for info in pkgutil.walk_packages(ringfence.__path__, "ringfence."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)


def test_public_names() -> None:
    assert len(set(ringfence.__all__)) == len(ringfence.__all__)
    for name in ringfence.__all__:
        assert getattr(ringfence, name) is not None


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_listed_names_exist(path: Path) -> None:
    module = importlib.import_module(module_name(path))
    for name in getattr(module, "__all__", ()):
        assert hasattr(module, name), f"{module.__name__}.__all__ lists {name}"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_extension_has_two_importers(path: Path) -> None:
    if any(name.startswith("ringfence._core") for name in imports(path)):
        assert path.relative_to(PACKAGE).parts[0] in {"engines", "accel"}


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.relative_to(PACKAGE).parts[0] in {"devices", "firmware"}],
    ids=module_name,
)
def test_devices_open_nothing(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "open", f"{path}:{node.lineno}"


def test_crates_depend_downwards() -> None:
    manifests = sorted((ROOT / "crates").glob("*/Cargo.toml"))
    assert manifests
    for manifest in manifests:
        crate = manifest.parent.name
        assert crate in CRATES, f"crates/{crate} has no place in the picture"
        wanted = set(tomllib.loads(manifest.read_text("utf-8"))["dependencies"])
        ours = {name.removeprefix("ringfence-") for name in wanted if name.startswith("ringfence-")}
        assert ours <= CRATES[crate], crate
        assert ("pyo3" in wanted) == (crate == "py"), crate


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert documents
    for document in documents:
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
            if "://" not in target and not target.startswith("#"):
                path = document.parent / target.partition("#")[0]
                assert path.exists(), f"{document.name}: {target}"


def error_classes() -> list[type[errors.RingfenceError]]:
    found = [errors.RingfenceError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == "ringfence.errors"]


def test_errors_are_drawn_and_listed() -> None:
    names = {kind.__name__ for kind in error_classes()}
    assert names == set(errors.__all__)
    assert names <= set(re.findall(r"[A-Z]\w+", errors.__doc__ or ""))


def test_error_codes_are_unique() -> None:
    codes = [kind.__dict__.get("code") for kind in error_classes()]
    own = [code for code in codes if code]
    assert len(own) == len(set(own))


def test_exit_statuses_are_documented() -> None:
    rows: dict[str, str] = {}
    for row in (ROOT / "docs/guide/exit-status.md").read_text("utf-8").splitlines():
        if row.startswith("| "):
            cells = [cell.strip() for cell in row.strip("|").split("|")]
            for code in re.findall(r"`([^`]+)`", cells[3]):
                rows[code] = cells[0]
    for kind in error_classes():
        if kind.code in rows and kind is not errors.CommandFailed:
            assert rows[kind.code] == str(kind.exit_status), kind.__name__
    statuses = set(rows.values())
    for kind in error_classes():
        if kind is not errors.CommandFailed:
            assert str(kind.exit_status) in statuses, kind.__name__
