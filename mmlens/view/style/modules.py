"""The parts of a page of our own scripts: modules as one script, data, style, provenance.

The sources are ES modules, so that editors and `node --check` read them; in a page they are one
script, because modules cannot be imported from a file that was opened without a server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any

from mmlens.values.crops import CROPS, told
from mmlens.view.style.html import static
from mmlens.view.style.printed import one_line


def script(modules: Iterable[tuple[str, str]]) -> str:
    """Modules as one script: each is a function that returns its exports.

    Args:
        modules: package and name of each, in an order in which each imports earlier ones only.
    """
    return '"use strict";\n' + "\n".join(_module(package, name) for package, name in modules)


def _module(package: str, name: str) -> str:
    text = re.sub(
        r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', r"const \1 = $\2;",
        static_of(package, f"{name}.js"), flags=re.MULTILINE,
    )  # fmt: skip
    exports = ", ".join(re.findall(r"^export const (\w+)", text, flags=re.MULTILINE))
    inside = re.sub(r"^export ", "", text, flags=re.MULTILINE)
    return f"const ${name} = (() => {{\n{inside}\nreturn {{ {exports} }};\n}})();"


@lru_cache
def static_of(package: str, name: str) -> str:
    """A file of the folder `static` of a package, without its last line ends."""
    return files(package).joinpath("static", name).read_text(encoding="utf-8").rstrip("\n")


def shared_style() -> str:
    """Rules that pages share: colours, type, buttons, chips, the foot."""
    return static("page.css").rstrip("\n")


def data_script(name: str, value: Any) -> str:
    """A value in a page, read by its id."""
    return f'<script type="application/json" id="{name}">{dumped(value)}</script>'


def dumped(value: Any) -> str:
    """JSON that cannot end a script element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def about_rows(about: Mapping[str, Any]) -> str:
    """Provenance as rows of a description list."""
    return "\n".join(
        f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(one_line(value))}</dd></div>"
        for name, value in (dict(about) | _told(about)).items()
    )


def _told(about: Mapping[str, Any]) -> dict[str, str]:
    return {CROPS: told(about[CROPS])} if about.get(CROPS) else {}
