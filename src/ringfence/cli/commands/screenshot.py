"""``ringfence screenshot``: what a running machine shows."""

from io import BytesIO
from pathlib import Path

import click


@click.command(short_help="Save what a running machine shows.")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--text", "as_text", is_flag=True, help="Print the characters of a text mode.")
def screenshot(name: str, file: Path | None, as_text: bool) -> None:
    """Save the screen of the running machine NAME to FILE, a picture.

    The machine was started with --name NAME and has a display.

    \b
      ringfence run --name web --display vga debian
      ringfence screenshot web out.png
    """
    from ringfence.machine.control import ask

    if as_text:
        click.echo(ask(name, "text").decode())
        if file is None:
            return
    if file is None:
        raise click.UsageError("Missing argument 'FILE'.")
    data = ask(name, "screenshot")
    from ringfence.display.images import open_image_bytes, save_image

    save_image(open_image_bytes(BytesIO(data)), file)
