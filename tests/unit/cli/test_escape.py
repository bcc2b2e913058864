import pytest

from ringfence.cli.escape import Action, EscapeKey


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        (b"ls\r", [b"ls\r"]),
        (b"\x01x", [Action.QUIT]),
        (b"\x01p", [Action.PAUSE]),
        (b"\x01h", [Action.HELP]),
        (b"\x01?", [Action.HELP]),
        (b"\x01\x01", [b"\x01"]),
        (b"a\x01\x01b", [b"a\x01b"]),
        (b"a\x01pb", [b"a", Action.PAUSE, b"b"]),
        (b"\x01\x01x", [b"\x01x"]),
        (b"\x03\x1a\x1c", [b"\x03\x1a\x1c"]),
        (b"", []),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_parts(typed: bytes, parts: list[bytes | Action], split: bool) -> None:
    key = EscapeKey()
    chunks = [typed[i : i + 1] for i in range(len(typed))] if split else [typed]
    got: list[bytes | Action] = []
    for chunk in chunks:
        for part in key.feed(chunk):
            if isinstance(part, bytes) and got and isinstance(got[-1], bytes):
                got[-1] += part
            else:
                got.append(part)
    assert got == parts
