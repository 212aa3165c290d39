"""A page that would fetch something from elsewhere is a warning, so it stops a build with -W.

Looked at in every HTML and CSS file of the finished site: what a browser loads by itself (scripts,
style sheets, fonts, pictures, frames). Links that a reader may follow are free.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.util import logging

_TAG = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|track|input)\b[^>]*?\bsrc\s*=\s*[\"']?"
    r"(?P<src>(?:https?:)?//[^\"'\s>]+)"
    r"|<link\b(?![^>]*\brel=[\"']?(?:canonical|author|license))[^>]*?\bhref\s*=\s*[\"']?"
    r"(?P<href>(?:https?:)?//[^\"'\s>]+)",
    re.IGNORECASE,
)
_CSS = re.compile(r"(?:@import\s+[\"']?|url\(\s*[\"']?)((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)
_STYLE = re.compile(r"<style\b[^>]*>(.*?)</style>", re.DOTALL | re.IGNORECASE)


def fetched(text: str, css: bool = False) -> list[str]:
    """The addresses of other machines that a browser would ask for by itself."""
    if css:
        return _CSS.findall(text)
    found = [match["src"] or match["href"] for match in _TAG.finditer(text)]
    return found + [address for style in _STYLE.findall(text) for address in _CSS.findall(style)]


def of_site(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, address) of everything that a built site would fetch."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".html", ".css"):
            for address in fetched(path.read_text("utf-8"), css=path.suffix == ".css"):
                yield path.relative_to(folder), address


def _check(app: Any, error: Exception | None) -> None:
    if error is None:
        for path, address in of_site(Path(app.outdir)):
            logging.getLogger(__name__).warning("%s would fetch %s", path, address)


def setup(app: Any) -> dict[str, bool]:
    """Look at the finished site."""
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
