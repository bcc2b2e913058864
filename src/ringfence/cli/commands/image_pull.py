"""``ringfence image pull``: fetches an image."""

from pathlib import Path

import click

from ringfence.cli.parameters import ImageName, description, echo_json
from ringfence.cli.progress import human_size, shown


@click.command("pull")
@click.argument("name", default="debian", type=ImageName())
@click.option("--mirror", metavar="URL", help="Fetch packages here, not by the host's apt.")
@click.option("--suite", metavar="NAME", help="Release at the mirror.  [default: bookworm]")
@click.option(
    "--deb",
    "debs",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Use this package; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the image as JSON.")
def image_pull(
    name: str, mirror: str | None, suite: str | None, debs: tuple[Path, ...], as_json: bool
) -> None:
    """Fetch the image NAME (debian) into the store.

    Packages come from the host's apt where it has one. What is fetched is checked against the
    package index, and an interrupted download goes on where it stopped.
    """
    from ringfence import images

    with shown() as bar:
        image = images.pull(name, bar, mirror=mirror, suite=suite, deb=debs)
    if as_json:
        echo_json(description(image))
    else:
        click.echo(f"{image.name} {image.version}, {human_size(image.size)}", err=True)
