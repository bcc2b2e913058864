"""``ringfence bench``: measures this machine, natively and through each engine."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ringfence.cli.parameters import ImageName, echo_json
from ringfence.errors import ConfigError

if TYPE_CHECKING:
    from ringfence.measure import Platform


@click.command(short_help="Measure this machine: natively, on bt, on kvm.")
@click.argument("cases", nargs=-1, metavar="[CASE]...")
@click.option("--list", "show_cases", is_flag=True, help="List the cases and leave.")
@click.option("--engine", "engines", multiple=True, type=click.Choice(["bt", "kvm"]))
@click.option("--image", default="debian", type=ImageName(), show_default=True)
@click.option("--memory", "-m", default="512M", metavar="SIZE", show_default=True)
@click.option("--runs", default=3, type=click.IntRange(1), show_default=True)
@click.option(
    "--seconds",
    default=0.5,
    type=click.FloatRange(0.01, 60),
    show_default=True,
    help="How long the host works for one measurement; guests get the same work.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw a chart too: FILE.png or FILE.svg.",
)
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
def bench(
    *,
    cases: Sequence[str],
    show_cases: bool,
    engines: Sequence[str],
    image: str,
    memory: str,
    runs: int,
    seconds: float,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure CASEs (all) on this machine: natively, and in guests on each engine that it has.

    The same program does the same work everywhere, by turns, so that other load hits all alike. A
    column a/b says how many times as fast a is as b; medians are compared.

    \b
      ringfence bench
      ringfence bench shell sha256 --runs 5
      ringfence bench --engine bt --plot speed.svg
    """
    from ringfence.measure import CASES, Guest, Native, measure
    from ringfence.measure.chart import check, draw

    if show_cases:
        for case in CASES.values():
            click.echo(f"{case.name:<10}{case.about}")
        return
    if unknown := sorted(set(cases) - set(CASES)):
        raise ConfigError(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    if plot is not None:
        check(plot)
    chosen = [CASES[name] for name in cases or CASES]
    from ringfence import images
    from ringfence.cli.progress import shown

    names = _engines(engines)
    with shown() as bar:
        initrd = images.ensure(image, progress=bar).initrd
    if initrd is None:
        raise ConfigError(f"image: {image} has no initial RAM disk with a program to measure")
    with ExitStack() as stack:
        platforms: list[Platform] = [stack.enter_context(Native(initrd))]
        platforms += [stack.enter_context(Guest(image, name, memory)) for name in names]
        series = measure(platforms, chosen, runs=runs, seconds=seconds, note=_note)
    if plot is not None:
        draw(series, plot, f"{image}: guests against the host")
    if as_json:
        echo_json(series.as_json())
        return
    click.echo(series.table())
    click.echo("A column a/b says how many times as fast a is as b.")


def _engines(asked: Sequence[str]) -> list[str]:
    """The engines to measure: those asked for, else those that this host has."""
    from ringfence.engines import probe

    if asked:
        return list(dict.fromkeys(asked))
    names = []
    for name in ("bt", "kvm"):
        capabilities = probe(name)
        if capabilities.available:
            names.append(name)
        else:
            _note(f"{name}: left out: {capabilities.reason}")
    return names


def _note(text: str) -> None:
    """Tells the person at the terminal how far it is."""
    click.echo(text, err=True)
