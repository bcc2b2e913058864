"""Boots a guest, lets it idle, and prints the monitor's resident KiB and share of a processor."""

import re
import sys
import time
from pathlib import Path

import ringfence

SECONDS = 3


def main() -> None:
    image, memory = sys.argv[1:]
    with ringfence.VM(image, memory=memory, timeout=100) as vm:
        vm.run("true").check()
        before = time.process_time()
        time.sleep(SECONDS)
        used = (time.process_time() - before) / SECONDS
        status = Path("/proc/self/status").read_text("ascii")
        resident = re.search(r"VmRSS:\s+(\d+)", status)
        assert resident
        print(resident[1], f"{used:.3f}")


if __name__ == "__main__":
    main()
