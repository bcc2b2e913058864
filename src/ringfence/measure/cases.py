"""What is measured: shell scripts for busybox, which the host and every guest have the same of.

The program is the image's own, statically linked, so host and guest execute the same bytes, and
nothing has to be compiled where Ringfence is used.
"""

from dataclasses import dataclass

__all__ = ["CASES", "Case"]


@dataclass(frozen=True, slots=True)
class Case:
    """A piece of work.

    Attributes:
        name: what it is asked for by.
        unit: of the rate: what is done ``scale`` times per ``$N``, per second.
        about: one line.
        script: does it ``$N`` times and prints nothing that matters.
        first: ``$N`` of the first try, from which the host's speed is told.
        scale: units per ``$N``.
    """

    name: str
    unit: str
    about: str
    script: str
    first: int
    scale: int = 1


_TEXT = "seq 1 $N"

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            "shell",
            "loops/s",
            "an interpreter's loop: the shell counts",
            "i=0; while [ $i -lt $N ]; do i=$((i + 1)); done",
            20_000,
        ),
        Case(
            "awk",
            "steps/s",
            "double-precision arithmetic in an interpreter",
            "awk -v n=$N 'BEGIN { for (i = 1; i < n; i++) s += i / (i + 0.5) }'",
            50_000,
        ),
        Case(
            "sha256",
            "MiB/s",
            "a hash of zeros",
            "dd if=/dev/zero bs=1048576 count=$N 2>/dev/null | sha256sum >/dev/null",
            8,
        ),
        Case(
            "gzip",
            "lines/s",
            "compression of numbers",
            f"{_TEXT} | gzip -c >/dev/null",
            20_000,
        ),
        Case("sort", "lines/s", "sorting of numbers as text", f"{_TEXT} | sort >/dev/null", 20_000),
        Case(
            "sed",
            "lines/s",
            "regular expressions",
            f"{_TEXT} | sed -e 's/\\([0-9]\\)7/<\\1>/g' >/dev/null",
            20_000,
        ),
        Case(
            "copy",
            "MiB/s",
            "copies between kernel and program, 1 MiB each",
            "dd if=/dev/zero of=/dev/null bs=1048576 count=$N 2>/dev/null",
            64,
        ),
        Case(
            "syscall",
            "calls/s",
            "read and write of one byte each",
            "dd if=/dev/zero of=/dev/null bs=1 count=$N 2>/dev/null",
            50_000,
            2,
        ),
        Case(
            "pipe",
            "KiB/s",
            "two processes that pass blocks of 1 KiB",
            "dd if=/dev/zero bs=1024 count=$N 2>/dev/null | cat >/dev/null",
            10_000,
        ),
        Case(
            "fork",
            "processes/s",
            "processes that end at once",
            "i=0; while [ $i -lt $N ]; do (:); i=$((i + 1)); done",
            200,
        ),
        Case(
            "exec",
            "programs/s",
            "programs that end at once",
            "i=0; while [ $i -lt $N ]; do env true; i=$((i + 1)); done",
            100,
        ),
    )
}
