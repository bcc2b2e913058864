"""``ringfence image rm``: removes images."""

import click

from ringfence.cli.parameters import ImageName, echo_json


@click.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=ImageName())
@click.option("--json", "as_json", is_flag=True, help="Print the names removed as a JSON list.")
def image_rm(names: tuple[str, ...], as_json: bool) -> None:
    """Remove images from the store."""
    from ringfence import images

    for name in names:
        images.remove(name)
    if as_json:
        echo_json(list(names))
