"""What this host can do for virtual machines, in words, and how to mend what it can't."""

from ringfence.doctor.examination import Examination, examine
from ringfence.doctor.finding import Finding, Verdict
from ringfence.doctor.host import Host

__all__ = ["Examination", "Finding", "Host", "Verdict", "examine"]
