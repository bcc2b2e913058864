"""``ringfence image ls``: the images there are."""

import click

from ringfence.cli.parameters import description, echo_json, table
from ringfence.cli.progress import human_size


@click.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Print those in the store as a JSON list.")
def image_ls(as_json: bool) -> None:
    """List the images in the store, and those that can be fetched."""
    from ringfence import images

    found = images.list_images()
    if as_json:
        echo_json([description(image) for image in found])
        return
    rows = [("NAME", "VERSION", "SIZE", "DESCRIPTION")]
    rows += [
        (image.name, image.version, human_size(image.size), image.description) for image in found
    ]
    stored = {image.name for image in found}
    rows += [
        (name, "(not fetched)", "", text)
        for name, text in images.available().items()
        if name not in stored
    ]
    click.echo(table(rows))
