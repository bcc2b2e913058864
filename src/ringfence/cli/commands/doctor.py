"""``ringfence doctor``: what this host can do."""

import click

from ringfence.cli.parameters import echo_json

_MARKS = {"ok": ("ok", "green"), "lacking": ("--", "yellow"), "failed": ("no", "red")}


@click.command(short_help="Tell what this host can do, and how to mend what it can't.")
@click.option("--json", "as_json", is_flag=True, help="Print it as a JSON object.")
def doctor(as_json: bool) -> int:
    """Look at this host: processor, KVM, memory, network rights, packages.

    What machines can do without has a mark and a way to mend it. The exit status is 1 if no machine
    can run here.
    """
    from ringfence.doctor import examine

    found = examine()
    if as_json:
        echo_json(found.to_mapping())
        return 0 if found.healthy else 1
    width = max(len(finding.name) for finding in found.findings)
    for finding in found.findings:
        mark, colour = _MARKS[finding.verdict]
        click.echo(f"{click.style(mark, fg=colour)}  {finding.name:<{width}}  {finding.text}")
        if finding.mend:
            click.echo(f"{'':<{width + 6}}to mend it: {finding.mend}")
    return 0 if found.healthy else 1
