"""The command line as a whole: its commands, its errors, its exit status."""

import os
import signal
import sys
from collections.abc import Sequence

import click

from ringfence.cli.lazy import LazyGroup
from ringfence.cli.signals import Terminated, raised
from ringfence.errors import EmulationError, GuestError, GuestShutdown, RingfenceError

_PLACES = {
    "run": "ringfence.cli.commands.run:run",
    "screenshot": "ringfence.cli.commands.screenshot:screenshot",
    "image": "ringfence.cli.commands.image:image",
    "doctor": "ringfence.cli.commands.doctor:doctor",
    "bench": "ringfence.cli.commands.bench:bench",
    "completion": "ringfence.cli.commands.completion:completion",
}

_CONSOLE_LINES = 20  # of the guest's last words, shown with its failure
_SIGNALLED = 128  # plus the signal's number, as shells report it


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"ringfence {version('ringfence')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    places=_PLACES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and leave.",
)
def cli() -> None:
    """Run virtual machines: an unmodified Debian in a second or two.

    Needs no root and no /dev/kvm: guests run on Ringfence's own binary translator.

    \b
      ringfence run                       a shell in a fresh machine
      ringfence run debian -- uname -a    one command, its output, its exit status
      ringfence image ls                  what there is to boot
      ringfence doctor                    what this host can do
      ringfence bench                     how fast guests are on this machine
    """


def invoke(arguments: Sequence[str]) -> int:
    """Runs one command line and gives the exit status of the process.

    The guest's own failures have a status each; see docs/guide/exit-status.md.
    """
    if "_RINGFENCE_COMPLETE" in os.environ:
        cli.main(list(arguments), prog_name="ringfence")
    try:
        with raised():
            return _run(arguments)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except RingfenceError as error:
        return _report(error)
    except (KeyboardInterrupt, click.Abort):
        return _SIGNALLED + signal.SIGINT
    except Terminated as error:
        return _SIGNALLED + error.number
    except BrokenPipeError:
        # Whatever is still buffered has no reader; without this, Python complains at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _SIGNALLED + signal.SIGPIPE


def _run(arguments: Sequence[str]) -> int:
    with cli.make_context("ringfence", list(arguments)) as context:
        status = cli.invoke(context)
    sys.stdout.flush()
    return status if isinstance(status, int) else 0


def _report(error: RingfenceError) -> int:
    if isinstance(error, GuestError) and error.console not in str(error):
        for line in error.console.rstrip().splitlines()[-_CONSOLE_LINES:]:
            click.secho(f"  | {printable(line)}", err=True, dim=True)
    prefix = click.style("error:", fg="red", bold=True)
    click.echo(f"{prefix} {printable(str(error))}", err=True)
    if isinstance(error, GuestShutdown | EmulationError) and (report := error.report()):
        click.echo(report, err=True)
    return error.exit_status


def printable(text: str) -> str:
    """``text`` without control characters: the guest may have written it."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
