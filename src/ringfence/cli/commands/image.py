"""``ringfence image``: the group of commands about images."""

import click

from ringfence.cli.lazy import LazyGroup

_PLACES = {
    "ls": "ringfence.cli.commands.image_ls:image_ls",
    "pull": "ringfence.cli.commands.image_pull:image_pull",
    "rm": "ringfence.cli.commands.image_rm:image_rm",
}


@click.group(cls=LazyGroup, places=_PLACES)
def image() -> None:
    """List, fetch and remove the images that machines boot."""
