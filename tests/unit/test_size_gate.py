import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("size_gate", ROOT / "tools" / "size_gate.py")
assert spec
assert spec.loader
size_gate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(size_gate)


def write(root: Path, name: str, lines: int) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x\n" * lines)


def test_limits(tmp_path: Path) -> None:
    write(tmp_path, "src/small.py", 400)
    write(tmp_path, "src/big.py", 401)
    write(tmp_path, "crates/a/src/huge.rs", 801)
    warnings, failures = size_gate.check(tmp_path, {})
    assert [line.split(":")[0] for line in warnings] == ["src/big.py"]
    assert [line.split(":")[0] for line in failures] == ["crates/a/src/huge.rs"]


def test_tests_and_exemptions(tmp_path: Path) -> None:
    write(tmp_path, "crates/a/tests/huge.rs", 900)
    write(tmp_path, "crates/a/src/table.rs", 900)
    assert size_gate.check(tmp_path, {"crates/a/src/table.rs": "one table"}) == ([], [])


def test_stale_exemption_fails(tmp_path: Path) -> None:
    assert size_gate.check(tmp_path, {"crates/gone.rs": "one table"})[1]
