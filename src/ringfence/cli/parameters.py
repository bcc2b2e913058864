"""Parameters that several commands have, and what click does not know about ours."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from ringfence.images import Image


class SeparatedCommand(click.Command):
    """A command that takes another one after ``--``, which click must not look into.

    It is a list under :attr:`KEY` in the context's ``meta``, or is not there.
    """

    KEY = "ringfence.command"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Takes ``--`` and all after it away before click sees the rest."""
        if "--" in args:
            at = args.index("--")
            command = args[at + 1 :]
            args = args[:at]
            if not command:
                raise click.UsageError("There is no command after --.", ctx)
            ctx.meta[self.KEY] = command
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, args)
        if rest:
            raise click.UsageError(
                f"Unexpected argument {rest[0]!r}; a command goes after --.", ctx
            )
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The usage line, with the other command."""
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


class ImageName(click.ParamType[str]):
    """The name of an image; completes those in the store and those that can be fetched."""

    name = "image"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Names that begin as typed."""
        from ringfence import images

        return [CompletionItem(name) for name in images.names() if name.startswith(incomplete)]


def description(image: "Image") -> dict[str, Any]:
    """An image in plain values."""
    return {
        "name": image.name,
        "version": image.version,
        "description": image.description,
        "size": image.size,
        "kernel": str(image.kernel),
        "initrd": str(image.initrd) if image.initrd else None,
        "append": image.append,
        "packages": list(image.packages),
    }


def echo_json(value: Any) -> None:
    """Prints ``value`` for programs."""
    import json

    click.echo(json.dumps(value, indent=2))


def table(rows: Sequence[Sequence[str]]) -> str:
    """``rows`` in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)
