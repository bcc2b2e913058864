"""``bench profile``: what the translator's time goes into, during a boot and in each workload.

Shares of the processors' time by what the engine does: translated code itself, its slow paths and
stubs, translation, TLB misses, the interpreter, the dispatcher, and what is outside the engine
(device models). With ``--blocks``, the hottest blocks follow, as guest and host code.
"""

import argparse
import json
import sys
from typing import Any

from bench import report, work
from ringfence import VM, images
from ringfence.errors import RingfenceError

BOOT = "boot"
_GUEST_LINES = 24


def main(options: argparse.Namespace) -> int:
    """Runs the benchmark and prints it."""
    known = [BOOT, *work.names()]
    cases = options.cases or known
    if unknown := sorted(set(cases) - set(known)):
        report.note(f"no case {', '.join(unknown)}: there are {', '.join(known)}")
        return 2
    image = images.ensure(options.image)
    initrd = work.initrd(image)
    results: dict[str, dict[str, Any]] = {}
    for case in cases:
        vm = VM(image.name, initrd=initrd, memory=options.memory, engine=options.engine)
        try:
            results[case] = measure(vm, case, options)
        except RingfenceError as error:
            report.note(f"FAILED: {case}: {error}")
        finally:
            vm.stop()
        report.note(f"{case} done")
    if options.json:
        json.dump(results, sys.stdout, indent=1)
        print()
    else:
        show(results)
    return 0 if len(results) == len(cases) else 1


def measure(vm: VM, case: str, options: argparse.Namespace) -> dict[str, Any]:
    """Shares of one case by phase, and its hottest blocks."""
    vm.start(profile=options.hertz if case == BOOT else 0)
    vm.run("true").check()
    if case != BOOT:
        vm.machine.start_profile(options.hertz)
        vm.run(f"work --seconds {options.seconds} {case}").check()
    profiles = vm.machine.profile(options.blocks)
    phases: dict[str, int] = {}
    for profile in profiles:
        for name, samples in profile["phases"].items():
            phases[name] = phases.get(name, 0) + samples
    blocks = sorted(
        (block for profile in profiles for block in profile["blocks"]),
        key=lambda block: -block["samples"],
    )
    return {"samples": sum(phases.values()), "phases": phases, "blocks": blocks[: options.blocks]}


def show(results: dict[str, dict[str, Any]]) -> None:
    """A row per case, then the blocks."""
    names = list(dict.fromkeys(name for entry in results.values() for name in entry["phases"]))
    print(f"{'case':<11}{'samples':>8}" + "".join(f"{name:>12}" for name in names) + "   (percent)")
    for case, entry in results.items():
        total = max(entry["samples"], 1)
        shares = (100 * entry["phases"].get(name, 0) / total for name in names)
        print(f"{case:<11}{entry['samples']:>8}" + "".join(f"{share:>12.1f}" for share in shares))
    for case, entry in results.items():
        for block in entry["blocks"]:
            share = 100 * block["samples"] / max(entry["samples"], 1)
            where = "user" if block["user"] else "kernel"
            print(f"\n{case}: {share:.1f} % in the block at {block['address']:#x} ({where})")
            print("\n".join(f"  {line}" for line in block["guest"][:_GUEST_LINES]))
            print("\n".join(f"    {line}" for line in block["host"]))
