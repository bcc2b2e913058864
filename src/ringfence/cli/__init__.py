"""The ``ringfence`` command."""

import sys


def main() -> None:
    """Runs the command line of this process and leaves with its exit status."""
    # Nothing else is imported here: the time to the guest's first instruction counts.
    from ringfence.cli.app import invoke

    sys.exit(invoke(sys.argv[1:]))


__all__ = ["main"]
