"""The error tree: drawn, coded, with exit statuses."""

import ringfence
from ringfence import errors
from ringfence.errors import GuestShutdown, RingfenceError


def kinds(base: type[RingfenceError] = RingfenceError) -> list[type[RingfenceError]]:
    return [base, *(kind for sub in base.__subclasses__() for kind in kinds(sub))]


def test_all_are_public_and_drawn() -> None:
    assert errors.__doc__
    for kind in kinds():
        assert kind.__name__ in errors.__all__
        assert kind.__name__ in ringfence.__all__
        assert kind.__name__ in errors.__doc__


def test_codes_are_unique_and_statuses_fit() -> None:
    codes = [kind.__dict__["code"] for kind in kinds()]
    assert len(set(codes)) == len(codes)
    assert all(0 < kind.exit_status < 128 for kind in kinds())


def test_guest_errors_have_statuses_of_their_own() -> None:
    ends = ["GuestPanic", "GuestShutdown", "GuestOutOfMemory", "GuestStopped", "GuestTimeout"]
    statuses = [getattr(errors, name).exit_status for name in ends]
    assert sorted(statuses) == list(range(120, 125))


def test_report_of_a_triple_fault() -> None:
    error = GuestShutdown(
        "x",
        registers={"rip": 0x1234, "rax": 1 << 63},
        system_registers={"cr3": 0x9000, "cs": {"base": 0, "selector": 16}},
        disassembly=["0000000000001234 ud2"],
    )
    assert error.report().splitlines() == [
        "   rip=0000000000001234    rax=8000000000000000",
        "   cr3=0000000000009000",
        "    cs: base=0 selector=10",
        "last instructions:",
        "  0000000000001234 ud2",
    ]
    assert GuestShutdown("x").report() == ""
