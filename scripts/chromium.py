"""Pages as Chromium shows them, offline; every error and request on a page is one of the script.

with opened(html, width=390, dark=True) as tab: picture = screenshot(tab)
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright


@contextmanager
def opened(
    html: str, width: int, height: int = 900, *, dark: bool = False, narrow: bool = False
) -> Iterator[Any]:
    """A page in a tab, two and a half seconds after it was loaded.

    Args:
        html: the whole page.
        width, height: of the window, in pixels.
        narrow: refuse a page that is wider than the window.

    Raises:
        SystemExit: with the errors of the page and the addresses that it asked for.
    """
    wrong: list[str] = []
    with sync_playwright() as play, TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(html, encoding="utf-8")
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        tab = browser.new_context(
            offline=True, viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        ).new_page()  # fmt: skip
        tab.set_default_timeout(300_000)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        tab.on("request", lambda one: wrong.append(one.url) if one.url[:4] == "http" else None)
        tab.goto(file.as_uri(), timeout=300_000)
        tab.wait_for_timeout(2500)
        over = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
        if narrow and over > 0:
            wrong.append(f"at {width} pixels the page is {over} pixels too wide")
        yield tab
        browser.close()
    if wrong:
        raise SystemExit("\n".join(wrong))


def screenshot(of: Any, **options: Any) -> Image.Image:
    """A tab, or an element of one, as a picture.

    Args:
        options: of playwright's `screenshot`, such as `full_page=True`.
    """
    return Image.open(io.BytesIO(of.screenshot(**options))).convert("RGB")
