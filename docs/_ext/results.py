"""What a page's code gives, shown below it: the directive `result`.

    ```{result} view.heatmap(lens)
    ```

The page's own Python blocks above it are run, in order and in one namespace, in a folder with the
repository's scenes; then the expression is evaluated and shown: a figure in a light and a dark
version that follow the reader's theme, a table, a picture, the page of `mmlens look` in a frame,
else its repr. So a page cannot show what its code doesn't give.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from snippets import blocks, compiled
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]


@contextmanager
def workplace() -> Iterator[Path]:
    """Inside: a fresh working directory with the repository's scenes in it, as examples expect."""
    before = Path.cwd()
    with TemporaryDirectory() as folder:
        for name in ("scenes", "README.md"):
            (Path(folder) / name).symlink_to(ROOT / name)
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


class Page:
    """The namespace of one page, and how far its blocks have been run."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.blocks = [b for b in blocks(Path(path).read_text("utf-8")) if b.why_not is None]

    def run_until(self, line: int) -> None:
        """Run the blocks above a line that have not been run yet."""
        while self.blocks and self.blocks[0].line < line:
            exec(compiled(self.blocks.pop(0), self.path), self.names)


class Result(SphinxDirective):
    """`{result} expression`, with `:height:` in pixels for a framed page."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar = {"height": directives.nonnegative_int, "name": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """The shown value."""
        pages = self.env.temp_data.setdefault("mmlens_pages", {})
        page = pages.setdefault(self.env.docname, None) or Page(
            str(self.env.doc2path(self.env.docname))
        )
        pages[self.env.docname] = page
        with workplace():
            page.run_until(self.lineno)
            return self._shown(page, self.arguments[0])

    def _shown(self, page: Page, expression: str) -> list[nodes.Node]:
        value = eval(expression, page.names)
        kind = type(value).__name__
        if any(base.__name__ == "BaseFigure" for base in type(value).__mro__):
            return [_raw(figure(*_in_both_themes(expression, page.names)))]
        if any(base.__name__ == "DataFrame" for base in type(value).__mro__):
            table = _table(getattr(value, "shown", lambda: value)())  # as a notebook shows it
            return [_raw(f'<div class="mm-table">{table}</div>')]
        if kind == "Look":
            return [_raw(self._frame(value))]
        if hasattr(value, "save") and kind.endswith("Image"):
            return [_raw(_image(value, expression))]
        if hasattr(value, "_repr_html_"):
            return [_raw(value._repr_html_())]
        text = repr(value)
        return [nodes.literal_block(text, text, language="python", classes=["mm-result"])]

    def _frame(self, seen: Any) -> str:
        name = f"{self.options.get('name', 'look')}.html"
        folder = Path(self.env.app.outdir) / "_look"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(seen.to_html(), encoding="utf-8")
        to_root = "../" * self.env.docname.count("/")
        height = self.options.get("height", 900)
        return (
            f'<iframe class="mm-frame" src="{to_root}_look/{name}" style="height:{height}px"'
            ' title="The page that mmlens look writes"></iframe>'
            f'<p class="mm-below"><a href="{to_root}_look/{name}">The page by itself</a></p>'
        )


def figure(light: Any, dark: Any = None) -> str:
    """A plotly figure as data, which `figures.js` draws in the theme of the page."""
    versions = [("light", light)] + ([("dark", dark)] if dark is not None else [])
    data = "".join(
        f'<script type="application/json" data-for="{theme}">{_json(one)}</script>'
        for theme, one in versions
    )
    layout = light["layout"] if isinstance(light, dict) else light.to_plotly_json()["layout"]
    height = layout.get("height") or 450
    return f'<div class="mm-figure" style="min-height:{height}px">{data}</div>'


def _json(one: Any) -> str:
    text = json.dumps(one) if isinstance(one, dict) else one.to_json()
    return text.replace("<", "\\u003c")


def _in_both_themes(expression: str, names: dict[str, Any]) -> list[Any]:
    from mmlens import view

    made = []
    for theme in ("light", "dark"):
        view.use_theme(theme)
        made.append(eval(expression, names))
    view.use_theme("light")
    return made


def _table(frame: Any) -> str:
    """Lists as code spans, numbers to three digits; every text is escaped."""
    shown = frame.map(_cell)
    return shown.to_html(index=False, border=0, escape=False)


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(f"<code>{escape(str(one))}</code>" for one in value)
    return f"{value:.3g}" if isinstance(value, float) else escape(str(value))


def _image(value: Any, expression: str) -> str:
    buffer = io.BytesIO()
    value.save(buffer, "png")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    alt = escape(expression, quote=True)
    return f'<img class="mm-image" alt="{alt}" src="data:image/png;base64,{data}">'


def _raw(html: str) -> nodes.raw:
    return nodes.raw("", html, format="html")


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("result", Result)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
