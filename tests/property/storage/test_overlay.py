"""An overlay behaves as the bytes that it stands for, whatever is done to it."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.storage import open_disk

SIZE = 5 * 65536 + 512
actions = st.lists(
    st.tuples(
        st.sampled_from(["write", "read", "discard"]),
        st.integers(0, SIZE - 1),
        st.integers(1, 150_000),
        st.integers(1, 255),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(actions)
def test_overlay_is_its_bytes(steps: list[tuple[str, int, int, int]]) -> None:
    base = bytes(range(251)) * (SIZE // 251) + bytes(SIZE % 251)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "base"
        path.write_bytes(base)
        model = bytearray(base)
        with open_disk(path, ephemeral=True) as image:
            for what, offset, length, byte in steps:
                length = min(length, SIZE - offset)
                if what == "write":
                    half = length // 2
                    data = bytes([byte]) * length
                    image.write_from(offset, [data[:half], data[half:]])
                    model[offset : offset + length] = data
                elif what == "read":
                    first, second = bytearray(length // 2), bytearray(length - length // 2)
                    image.read_into(offset, [first, second])
                    assert first + second == model[offset : offset + length]
                else:
                    image.discard(offset, length)
                    # Zeros, or what was there.
                    now = image.read(offset, length)
                    was = model[offset : offset + length]
                    assert all(
                        new in (0, old, below)
                        for new, old, below in zip(
                            now, was, base[offset : offset + length], strict=True
                        )
                    )
                    model[offset : offset + length] = now
            assert image.read(0, SIZE) == model
        assert path.read_bytes() == base
