"""``ringfence run``: boots a machine, for its shell or for one command."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ringfence.cli.parameters import ImageName, SeparatedCommand
from ringfence.errors import ConfigError, GuestError

if TYPE_CHECKING:
    from ringfence import VM

DEFAULT_IMAGE = "debian"
#: With one of these, a machine starts by firmware instead of an image.
_BOOTABLE = ("firmware", "disks", "cdroms", "floppies")
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=SeparatedCommand, short_help="Boot a machine, for its shell or one command.")
@click.argument("image", required=False, type=ImageName())
@click.option("--kernel", type=_FILE, help="Boot this bzImage, or ELF vmlinux with a PVH note.")
@click.option("--initrd", type=_FILE, help="Initial RAM disk.")
@click.option("--append", default="", metavar="TEXT", help="More for the kernel's command line.")
@click.option(
    "--disk",
    "disks",
    multiple=True,
    metavar="FILE",
    help="Hard disk: a raw image; ,readonly ,ephemeral (writes are forgotten) ,if=ide|ahci.",
)
@click.option("--cdrom", "cdroms", multiple=True, metavar="FILE", help="CD-ROM or DVD image.")
@click.option("--floppy", "floppies", multiple=True, metavar="FILE", help="Floppy disk image.")
@click.option(
    "--memory", "-m", default="512M", metavar="SIZE", show_default=True, help="Guest memory."
)
@click.option("--cpus", default=1, metavar="N", show_default=True, help="Processors.")
@click.option(
    "--cpu",
    default="host",
    metavar="MODEL",
    show_default=True,
    help="What they are: x86-64-v2, host,-avx, EPYC,+gfni.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "bt", "kvm"]),
    default="auto",
    show_default=True,
    help="What runs the guest: bt is the binary translator.",
)
@click.option(
    "--firmware", metavar="WHAT", help="Boot from disks by bios, uefi, or a firmware file."
)
@click.option("--uefi-vars", type=_FILE, help="File in which UEFI keeps its variables.")
@click.option(
    "--boot", default="", metavar="ORDER", help="What firmware boots from: cdrom,disk,floppy,net."
)
@click.option("--boot-menu", is_flag=True, help="Firmware shows a menu of what to boot.")
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="NAME[,OPTION=VALUE]",
    help="Put one more device on the board.",
)
@click.option(
    "--display",
    type=click.Choice(["auto", "none", "vga"]),
    default="auto",
    show_default=True,
    help="What shows pictures.",
)
@click.option(
    "--screen",
    type=click.Choice(["text", "window"]),
    help="Show the display: in this terminal, or in a window.",
)
@click.option(
    "--vnc",
    metavar="[HOST:]DISPLAY",
    help="Serve the display to VNC viewers; ,password-file=FILE ,tls ,cert=FILE,key=FILE"
    " ,view-only.",
)
@click.option("--record-screen", metavar="FILE", help="Record the display: out.gif or out.mp4.")
@click.option(
    "--keyboard-layout",
    default="us",
    metavar="NAME",
    show_default=True,
    help="The guest's keyboard: us, uk, de, fr, es, it, se, ch.",
)
@click.option("--name", metavar="NAME", help="Name, for ringfence screenshot NAME.")
@click.option(
    "--board",
    type=click.Choice(["pc", "q35", "micro"]),
    default="pc",
    show_default=True,
    help="pc runs any system; q35 has PCI Express; micro has virtio only.",
)
@click.option(
    "--net",
    "nets",
    multiple=True,
    metavar="END[,model=NAME][,mac=ADDR]",
    help="A network card and its cable's end: tap:tap0.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="Count time in executed instructions, so that every run is the same.",
)
@click.option("--seed", default=0, metavar="N", help="Random numbers of a deterministic machine.")
@click.option("--timeout", metavar="TIME", help="Stop the machine after 30, 90s or 5m.")
@click.option("--verbose", "-v", is_flag=True, help="Show the kernel's messages.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    image: str | None,
    kernel: Path | None,
    verbose: bool,
    screen: str | None,
    record_screen: str | None,
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
    if image is None and kernel is None and not any(map(options.get, _BOOTABLE)):
        image = DEFAULT_IMAGE
    if image is not None:
        _fetch(image)
        if verbose:
            options["append"] = f"loglevel=7 {options['append']}".strip()
    from ringfence import VM

    if verbose and options["engine"] == "auto":
        from ringfence.engines import choice

        click.echo(choice()[1], err=True)
    shell = image is not None and command is None
    if (screen or record_screen) and options["display"] == "auto":
        options["display"] = "vga"
    vm = VM(image, kernel=kernel, shell=shell, pull=False, **options)
    with _recorded(vm, record_screen):
        if command is not None:
            return _run_command(vm, command, verbose=verbose)
        if screen == "text":
            return _run_screen(vm)
        if screen == "window":
            return _run_window(vm)
        return _run_console(vm)


def _fetch(image: str) -> None:
    """Sees to it that the image is in the store, before the terminal is the guest's."""
    from ringfence import images
    from ringfence.cli.progress import shown

    with shown() as bar:
        images.ensure(image, progress=bar)


def _run_command(vm: "VM", command: list[str], *, verbose: bool) -> int:
    """Runs one command to its end; gives its exit status."""
    from ringfence.cli.attach import console_output, wait_for_call
    from ringfence.cli.signals import deferred
    from ringfence.cli.terminal import write_all

    def out(data: bytes) -> None:
        write_all(1, data)

    def err(data: bytes) -> None:
        write_all(2, data)

    def run_it() -> int:
        return vm.run(command, stdout=out, stderr=err).exit_status

    with ExitStack() as stack:
        stack.enter_context(_told_once(verbose))
        signals = stack.enter_context(deferred())
        stack.enter_context(vm)
        if verbose:
            stack.enter_context(console_output(vm, err))
        return wait_for_call(run_it, vm.stop, signals)


def _run_console(vm: "VM") -> int:
    """Connects the console with our terminal, or pipes, until the machine ends."""
    from ringfence.cli.attach import attach_pipe, attach_terminal
    from ringfence.cli.signals import deferred
    from ringfence.cli.terminal import Terminal

    with _told_once(True), deferred() as signals:
        if os.isatty(0):
            terminal = Terminal(0, 1)
            with terminal.raw(), vm:
                ended = attach_terminal(vm, terminal, signals)
            if not ended:
                return 0
        else:
            with vm:
                attach_pipe(vm, 0, 1, signals)
        vm.wait()
    return 0


def _run_screen(vm: "VM") -> int:
    """Shows the machine's display in our terminal until it ends."""
    from ringfence.cli.screen import attach_screen
    from ringfence.cli.signals import deferred
    from ringfence.cli.terminal import Terminal

    if not os.isatty(0) or not os.isatty(1):
        raise ConfigError("--screen text needs a terminal")
    with _told_once(False), deferred() as signals:
        terminal = Terminal(0, 1)
        with terminal.raw(), vm:
            ended = attach_screen(vm, terminal, signals)
        if not ended:
            return 0
        vm.wait()
    return 0


def _run_window(vm: "VM") -> int:
    """Shows the machine's display in a window until it ends."""
    from ringfence.cli.signals import deferred
    from ringfence.display.source import Desk
    from ringfence.display.window import Window

    window = Window(vm.config.name or vm.config.image or "ringfence", vm.config.keyboard_layout)
    with _told_once(False), deferred() as signals, vm:
        machine = vm.machine
        desk = Desk(machine.screen, machine.keyboard, machine.mouse)
        ended = window.show(desk, machine.hub, lambda: vm.exit is not None, signals.check)
        if not ended:
            return 0
        vm.wait()
    return 0


@contextmanager
def _recorded(vm: "VM", path: str | None) -> Iterator[None]:
    """Records the display, if a path is given, from the machine's start to its end."""
    if path is None:
        yield
        return
    vm.record_at_start(path)
    yield
    vm.close_recording()


@contextmanager
def _told_once(seen: bool) -> Iterator[None]:
    """Takes the console out of an error whose reader has seen it already."""
    try:
        yield
    except GuestError as error:
        if seen:
            error.console = ""
        raise
