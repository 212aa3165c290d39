"""A prompt as notebooks show it: its pictures as thumbnails between its words, all escaped."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from mmlens.values.prompt import Prompt

_SIDE = 112
_WORDS = "white-space:pre-wrap;border-bottom:1px dotted currentColor"


def prompt_html(prompt: Prompt) -> str:
    """The turns of a prompt, one a line, as HTML."""
    lines = [f"<i>{escape(prompt.system)}</i>"] if prompt.system else []
    lines += ["".join(map(_part, turn)) for turn in prompt.turns]
    raw = "" if prompt.template else " <small>template=False</small>"
    return f'<div class="mm-prompt">{"<br>".join(lines)}{raw}</div>'


def _part(part: Image.Image | str) -> str:
    if isinstance(part, str):
        return f'<span style="{_WORDS}">{escape(part)}</span>'
    small, file = part.copy(), BytesIO()
    small.thumbnail((_SIDE, _SIDE))
    small.save(file, "png")
    size = f"{part.width} x {part.height}"
    data = b64encode(file.getvalue()).decode()
    return (
        f'<img src="data:image/png;base64,{data}" alt="picture of {size} pixels" title="{size}"'
        ' style="vertical-align:middle;margin:2px 6px">'
    )
