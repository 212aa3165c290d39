"""Help that cuts nothing: commands with their whole sentences, names never broken at a hyphen.

Typer ends the sentence of a command where the line ends, so that two studies may read the same; and
its lines break inside `--skip-bad` or `pictos-clip`, which then can't be copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.core import TyperGroup

_HYPHEN = "\u2011"
"""A hyphen at which no line breaks."""
_CONTEXT: Any = TyperGroup.context_class
_paragraph: Any = _CONTEXT.formatter_class.write_text


class _Formatter(_CONTEXT.formatter_class):
    def write_text(self, text: str) -> None:
        _paragraph(self, text.replace("-", _HYPHEN))

    def write_dl(self, rows: Sequence[tuple[str, str]], *args: Any, **options: Any) -> None:
        kept = [(first, second.replace("-", _HYPHEN)) for first, second in rows]
        super().write_dl(kept, *args, **options)

    def getvalue(self) -> str:
        return super().getvalue().replace(_HYPHEN, "-")


class _Context(_CONTEXT):
    formatter_class = _Formatter


class WholeHelp(TyperGroup):
    """A group of commands that are listed with their whole sentences."""

    context_class = _Context

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            command.context_class = _Context
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _first_paragraph(one.help or "")) for name, one in found if not one.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _first_paragraph(text: str) -> str:
    return " ".join(text.strip().split("\n\n")[0].split())
