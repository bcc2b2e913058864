"""``bench compute``: one program's workloads natively and in guests, by turns."""

import argparse
from contextlib import ExitStack

from bench import platforms, report, work
from ringfence import images


def main(options: argparse.Namespace) -> int:
    """Runs the benchmark and prints it; 1 if a checksum of a guest is wrong."""
    known = work.names()
    cases = options.cases or known
    if unknown := sorted(set(cases) - set(known)):
        report.note(f"no case {', '.join(unknown)}: there are {', '.join(known)}")
        return 2
    failures: list[str] = []
    with ExitStack() as stack:
        running = start(options, stack, failures)
        failures += check(running, cases)
        series = report.Series([platform.name for platform in running], higher=True)
        for case in cases:
            for _ in range(options.runs):
                for platform in running:
                    measure(platform, case, options.seconds, series, failures)
            report.note(f"{case} done")
    report.show(series, as_json=options.json)
    for line in failures:
        report.note(f"FAILED: {line}")
    return 1 if failures or not running else 0


def measure(
    platform: platforms.Platform,
    case: str,
    seconds: float,
    series: report.Series,
    failures: list[str],
) -> None:
    """Measures a case once."""
    try:
        rate = work.parse_rate(platform.run(f"work --seconds {seconds} {case}"))
    except (*platforms.FAILURES, ValueError) as error:
        failures.append(f"{platform.name}: {case}: {error}")
    else:
        series.add(rate.name, rate.unit, platform.name, rate.value)


def start(
    options: argparse.Namespace, stack: ExitStack, failures: list[str]
) -> list[platforms.Platform]:
    """Starts the platforms that can run here; guests stay up for the whole run."""
    image = images.ensure(options.image)
    running: list[platforms.Platform] = []
    for name in options.platforms:
        try:
            platform: platforms.Platform = platforms.PLATFORMS[name](
                image=image,
                initrd=work.initrd(image),
                memory=options.memory,
                cpu=options.qemu_cpu,
                engine=options.engine,
            )
            stack.enter_context(platform)
        except platforms.UnavailableError as reason:
            report.note(f"{name}: left out: {reason}")
        except platforms.FAILURES as error:
            failures.append(f"{name}: {error}")
        else:
            running.append(platform)
    return running


def check(running: list[platforms.Platform], cases: list[str]) -> list[str]:
    """Compares checksums with the host's: a fast but wrong processor is worth nothing."""
    expected = platforms.Native().run("work --check " + " ".join(cases)).splitlines()
    failures = []
    for platform in running:
        for right in expected:
            case = right.split()[0]
            try:
                got = platform.run(f"work --check {case}").strip()
            except platforms.FAILURES as error:
                failures.append(f"{platform.name}: {case}: {error}")
                continue
            if got != right:
                failures.append(f"{platform.name}: wrong result: {got} instead of {right}")
    return failures
