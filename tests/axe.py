"""What axe-core finds on a page: what a keyboard or a screen reader cannot use, and pale colours.

Skipped unless the environment variable AXE_CORE names its file (`npm pack axe-core`,
`package/axe.min.js`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def pages(browser: Any) -> Iterator[dict[str, Any]]:
    """A tab for each colour scheme, into which a script may be put."""
    if not os.environ.get("AXE_CORE"):
        pytest.skip("AXE_CORE names no axe.min.js")
    contexts = {
        scheme: browser.new_context(bypass_csp=True, color_scheme=scheme)
        for scheme in ("light", "dark")
    }
    for context in contexts.values():
        context.set_default_timeout(120_000)
    yield {scheme: context.new_page() for scheme, context in contexts.items()}
    for context in contexts.values():
        context.close()


def violations(tab: Any) -> list[tuple[str, str]]:
    """The rules that the open page breaks, each with the first place."""
    if not tab.evaluate("typeof axe !== 'undefined'"):
        tab.add_script_tag(path=os.environ["AXE_CORE"])
    found = tab.evaluate("axe.run()")["violations"]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found]
