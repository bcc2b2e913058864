"""Refuses source files that outgrew a reader: 400 lines is the aim, 800 the limit.

Tests are exempt. A file that has a reason to be longer is named, with that reason, under
``[tool.size-gate.exempt]`` in ``pyproject.toml``.
"""

import sys
import tomllib
from pathlib import Path

SOFT = 400
HARD = 800
SUFFIXES = {".py", ".pyi", ".rs"}
ROOTS = ("src", "crates", "tools", "bench")


def sources(root: Path) -> list[Path]:
    """The files that the gate measures, relative to ``root``."""
    return sorted(
        path.relative_to(root)
        for name in ROOTS
        for path in (root / name).rglob("*")
        if path.suffix in SUFFIXES
        and not {"tests", "target"} & set(path.relative_to(root).parts)
        and path.stem != "tests"
    )


def check(root: Path, exempt: dict[str, str]) -> tuple[list[str], list[str]]:
    """Complaints about the files under ``root``: those that only warn, and those that fail."""
    warnings: list[str] = []
    failures: list[str] = []
    for path in sources(root):
        lines = len((root / path).read_bytes().splitlines())
        if path.as_posix() in exempt:
            continue
        if lines > HARD:
            failures.append(f"{path}: {lines} lines, the limit is {HARD}; split it along a seam")
        elif lines > SOFT:
            warnings.append(f"{path}: {lines} lines, the aim is {SOFT}")
    failures.extend(
        f"{name}: exempt in pyproject.toml, but there is no such file"
        for name in exempt
        if not (root / name).is_file()
    )
    return warnings, failures


def main() -> int:
    """Checks this repository; the exit status says whether it passed."""
    root = Path(__file__).resolve().parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    exempt = project["tool"].get("size-gate", {}).get("exempt", {})
    warnings, failures = check(root, exempt)
    for line in warnings:
        print(f"size: {line}")
    for line in failures:
        print(f"size: error: {line}", file=sys.stderr)
    print(f"size: {len(sources(root))} files, {len(warnings)} over the aim, {len(failures)} errors")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
