"""Last words of a kernel, in whatever pieces they come."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ringfence.machine.watch import ConsoleWatch

TEXT = (
    b"[1] Out of memory: Killed process 12 (tail)\r\n"
    b"[2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\r\n"
    b"Call Trace:\r\n"
    b"[3] Out of memory: Killed process 13 (sh)\r\n"
    b"[4] ---[ end Kernel panic - not syncing: Attempted to kill init! ]---\r\n"
    b"[5] Kernel panic - not syncing: again\r\n"
)


@given(st.lists(st.integers(0, len(TEXT)), max_size=30))
def test_pieces_make_no_difference(cuts: list[int]) -> None:
    heard: list[str] = []
    watch = ConsoleWatch(heard.append, lambda: heard.append("end"))
    places = [0, *sorted(cuts), len(TEXT)]
    for start, end in pairwise(places):
        watch.feed(TEXT[start:end])
    assert heard == ["Attempted to kill init! exitcode=0x0000000b", "end"]
    assert watch.panic == heard[0]
    assert watch.kills == 2


def test_a_message_without_end_is_cut() -> None:
    heard: list[str] = []
    watch = ConsoleWatch(heard.append, lambda: None)
    watch.feed(b"Kernel panic - not syncing: ")
    assert watch.panic == ""
    for _ in range(100):
        watch.feed(b"x" * 100)
    assert [len(message) <= 500 for message in heard] == [True]


def test_quiet_consoles() -> None:
    watch = ConsoleWatch(lambda message: 1 / 0, lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    watch.feed(b"")
    watch.feed(b"Kernel pan")
    watch.feed(b"cake - not syncing")
    assert watch.panic is None
