"""``ringfence run``: boots a machine, for its shell or for one command."""

import sys
from pathlib import Path
from typing import Any

import click

from ringfence.cli.parameters import ImageName, SeparatedCommand

DEFAULT_IMAGE = "debian"
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=SeparatedCommand, short_help="Boot a machine, for its shell or one command.")
@click.argument("image", required=False, type=ImageName())
@click.option("--kernel", type=_FILE, help="Boot this bzImage, or ELF vmlinux with a PVH note.")
@click.option("--initrd", type=_FILE, help="Initial RAM disk.")
@click.option("--append", default="", metavar="TEXT", help="More for the kernel's command line.")
@click.option(
    "--memory", "-m", default="512M", metavar="SIZE", show_default=True, help="Guest memory."
)
@click.option("--cpus", default=1, metavar="N", show_default=True, help="Processors.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "bt", "kvm"]),
    default="auto",
    show_default=True,
    help="What runs the guest: bt is the binary translator.",
)
@click.option("--timeout", metavar="TIME", help="Stop the machine after 30, 90s or 5m.")
@click.option("--verbose", "-v", is_flag=True, help="Show the kernel's messages.")
@click.pass_context
def run(
    ctx: click.Context,
    image: str | None,
    kernel: Path | None,
    verbose: bool,
    **options: Any,
) -> int:
    """Boot IMAGE (debian) in a fresh machine, for its shell or for COMMAND.

    With COMMAND, which is run as given and not by a shell, its output is our output and its exit
    status ours. Without, the terminal is the machine's: Ctrl-A x leaves, Ctrl-A h helps.

    \b
      ringfence run
      ringfence run debian -- uname -a
      ringfence run -- sh -c 'ls | wc -l'
      ringfence run --kernel bzImage --initrd initrd.img --append console=ttyS0
    """
    command: list[str] | None = ctx.meta.get(SeparatedCommand.KEY)
    if image is None and kernel is None:
        image = DEFAULT_IMAGE
    print(image, kernel, verbose, options, command, sys.argv)
    return 0
