"""One thing that was looked at."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Verdict"]


class Verdict(StrEnum):
    """What it comes to."""

    #: It is there.
    OK = "ok"
    #: It is not, and something is slower or missing for it.
    LACKING = "lacking"
    #: Without it no machine runs.
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing.

    Attributes:
        name: A short and stable name: ``processor``, ``kvm``.
        verdict: What it comes to.
        text: In words.
        mend: What the user can do about it, if it is not OK.
    """

    name: str
    verdict: Verdict
    text: str
    mend: str = ""

    def to_mapping(self) -> dict[str, str]:
        """For programs."""
        return {
            "name": self.name,
            "verdict": self.verdict.value,
            "text": self.text,
            "mend": self.mend,
        }
