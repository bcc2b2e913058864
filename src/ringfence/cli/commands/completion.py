"""``ringfence completion``: the script that makes a shell complete our command line."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    For bash, add this line to ~/.bashrc:

    \b
      eval "$(ringfence completion bash)"

    For fish, write the output to ~/.config/fish/completions/ringfence.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root().command
    click.echo(kind(root, {}, "ringfence", "_RINGFENCE_COMPLETE").source())
