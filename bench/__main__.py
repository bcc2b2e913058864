"""The command line of the benchmarks."""

import argparse
import sys

from bench import boot, compute, disk, exits, firmware, paravirt, platforms, profile, screen, start


def main() -> int:
    """Parses the command line and runs one benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__import__("bench").__doc__
    )
    commands = parser.add_subparsers(
        required=True, metavar="start|boot|firmware|disk|compute|paravirt|exits|profile|screen"
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--image", default="debian", help="image to boot (debian)")
    common.add_argument("--runs", type=int, default=3, help="measurements of each kind (3)")
    common.add_argument("--memory", default="512M", help="guest memory (512M)")
    common.add_argument("--engine", default="bt", help="engine of the column ringfence (bt)")
    common.add_argument("--qemu-cpu", default="max", help="QEMU's processor model (max)")
    common.add_argument("--json", action="store_true", help="print for programs")
    common.add_argument(
        "--platforms",
        type=lambda text: text.split(","),
        default=list(platforms.PLATFORMS),
        help=f"comma-separated choice of {','.join(platforms.PLATFORMS)}",
    )
    starting = commands.add_parser("start", parents=[common], help=start.__doc__)
    starting.set_defaults(command=start.main)
    booting = commands.add_parser("boot", parents=[common], help=boot.__doc__)
    booting.set_defaults(command=boot.main)
    reading = commands.add_parser("disk", parents=[common], help=disk.__doc__)
    reading.add_argument("--size", type=int, default=256, help="MiB to read (256)")
    reading.set_defaults(command=disk.main)
    starting_firmware = commands.add_parser("firmware", parents=[common], help=firmware.__doc__)
    starting_firmware.add_argument("cases", nargs="*", help="seabios, ovmf (both)")
    starting_firmware.set_defaults(command=firmware.main)
    computing = commands.add_parser("compute", parents=[common], help=compute.__doc__)
    computing.add_argument("cases", nargs="*", help="workloads (all)")
    computing.add_argument(
        "--seconds", type=float, default=0.3, help="least time of a measurement (0.3)"
    )
    computing.set_defaults(command=compute.main)
    knowing = commands.add_parser("paravirt", parents=[common], help=paravirt.__doc__)
    knowing.add_argument("cases", nargs="*", default=["getpid", "pipe", "fork"], help="workloads")
    knowing.add_argument("--size", type=int, default=128, help="MiB of disk (128)")
    knowing.add_argument("--seconds", type=float, default=0.3, help="of each workload (0.3)")
    knowing.set_defaults(command=paravirt.main)
    exiting = commands.add_parser("exits", parents=[common], help=exits.__doc__)
    exiting.set_defaults(command=exits.main)
    profiling = commands.add_parser("profile", parents=[common], help=profile.__doc__)
    profiling.add_argument("cases", nargs="*", help="boot, and workloads (all)")
    profiling.add_argument(
        "--seconds", type=float, default=1.0, help="least time of a measurement (1.0)"
    )
    profiling.add_argument("--hertz", type=int, default=2000, help="samples per second (2000)")
    profiling.add_argument(
        "--blocks", type=int, default=0, help="list this many of the hottest blocks (0)"
    )
    profiling.set_defaults(command=profile.main)
    drawing = commands.add_parser("screen", parents=[common], help=screen.__doc__)
    drawing.add_argument("--seconds", type=float, default=3.0, help="length of a measurement (3.0)")
    drawing.set_defaults(command=screen.main)
    options = parser.parse_args()
    try:
        platforms.check_names(options.platforms)
    except ValueError as error:
        parser.error(str(error))
    if options.runs < 1:
        parser.error("--runs takes a number above 0")
    status: int = options.command(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
