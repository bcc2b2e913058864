"""Output of commands is exact, in whatever pieces it comes."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ringfence.machine.agent import _Output

MARK = b"\x00abcd\x00"


@given(
    st.lists(st.sampled_from([b"\0", b"\0abcd", b"abcd\0", b"x", b"\0\0", b"\xff"]), max_size=20),
    st.lists(st.integers(0, 200), max_size=20),
)
def test_marks_are_found_in_any_pieces(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    end = (data + MARK).index(MARK)
    text = data + MARK
    output = _Output(MARK)
    taken = bytearray()
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for start, stop in pairwise(places):
        output.feed(text[start:stop])
        taken += output.take()
    assert taken == data[:end]
    assert output.complete


@given(st.binary(max_size=100))
def test_nothing_is_held_back_for_long(data: bytes) -> None:
    output = _Output(MARK)
    output.feed(data)
    assert len(data) - len(output.data) < len(MARK)
