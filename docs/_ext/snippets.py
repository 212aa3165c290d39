"""The Python of a Markdown page: its fenced blocks, and which of them are run.

    from snippets import blocks
    for block in blocks(text):  block.line, block.code, block.why_not

A block that stands right below `<!-- not run: reason -->` is read but not run; a comment
`<!-- run first: ... -->` holds code that the reader doesn't need to see. Comments are invisible on
the site and on code hosts alike.

In the docstring of a module, an indented block is code if it parses as Python (`docstring_blocks`).
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

_FENCED = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]*?) -->\n+)?^(?P<fence>`{3,})python\n(?P<code>.*?)^(?P=fence)$"
    r"|^<!-- run first:\n(?P<hidden>.*?)^-->$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A block of Python, and the line of the page on which its code begins (from 1)."""

    line: int
    code: str
    why_not: str | None = None


def blocks(text: str) -> list[Block]:
    """The Python blocks of a page, in order."""
    found = []
    for match in _FENCED.finditer(text):
        part = "code" if match["code"] is not None else "hidden"
        line = text.count("\n", 0, match.start(part)) + 1
        found.append(Block(line, match[part], match["why"]))
    return found


def compiled(block: Block, path: str) -> object:
    """The block's code, whose tracebacks name the page and its line."""
    return compile("\n" * (block.line - 1) + block.code, path, "exec")


def docstring_blocks(doc: str) -> list[Block]:
    """The indented blocks of a module's docstring that are Python; lines count from its first."""
    found: list[Block] = []
    lines: list[str] = []
    for number, line in enumerate([*doc.split("\n"), "end"], 1):
        if line.startswith("    ") or (lines and not line):
            lines.append(line[4:])
            continue
        code = "\n".join(lines).rstrip()
        if code and is_python(code):
            found.append(Block(number - len(lines), code + "\n"))
        lines = []
    return found


def is_python(code: str) -> bool:
    """Whether it parses."""
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True
