"""Views in HTML: text, small pictures, and where needed a little script.

An `Html` is a string that notebooks display and `view.save` writes as a page. It requests nothing:
pictures are data addresses, scripts are inline, and the page forbids everything else by its content
security policy, which lists each script by its hash (`locked`). Colours are light or dark as the
page around a view is, unless `use_theme` was told; on their own background, so that a view is
legible in any notebook. Under a view are buttons that save it as PNG, SVG and CSV.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from PIL import Image

from mmlens.view.style import theme
from mmlens.view.style.numbers import csv_of

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.view.still.marks import Still

_POLICY = (
    "default-src 'none'; img-src {images}; style-src 'unsafe-inline'; script-src {scripts};"
    " base-uri 'none'; form-action 'none'"
)
_SCRIPT = re.compile(r"<script([^>]*)>(.*?)</script", re.DOTALL | re.IGNORECASE)


class Html(str):
    """HTML text that notebooks display as such.

    Attributes:
        rows: makes a table of its numbers.
        still: makes its still picture: size, page, marks, title.
        later: scripts that its own scripts create, which a page has to name.
    """

    rows: Callable[[], pd.DataFrame] | None = None
    still: Callable[[], Still] | None = None
    later: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        return str(self)


def framed(
    title: str,
    subtitle: str,
    body: str,
    css: str = "",
    name: str = "",
    *,
    rows: Callable[[], pd.DataFrame],
    still: Callable[[], Still],
    large: bool = False,
) -> Html:
    """A view: title and subtitle (text, escaped here) over its body (HTML), in the theme's colours.

    Args:
        css: rules for `body`; every selector has to begin with the view's own class.
        name: the view's own class.
        rows: makes the table of the view's numbers, for CSV.
        large: the numbers do not go into the page a second time; its script gives them.
        still: makes its still picture, for `view.save`.
    """
    head = f'<div class="mm-title">{escape(title)}</div>' if title else ""
    head += f'<div class="mm-about">{escape(subtitle)}</div>' if subtitle else ""
    numbers = (
        ""
        if large
        else f'<script type="application/json" class="mm-numbers">{props(csv_of(rows()))}</script>'
    )
    made = Html(
        f'<div class="mm-view {name}" {_scheme()}><style>{palette()}{_CSS}{css}</style>'
        f"{head}{body}{numbers}{_tools(title)}</div>"
    )
    made.rows, made.still = rows, still
    return made


def palette() -> str:
    """Rules for the colours of a view: as the page around it is, or as `use_theme` was told."""
    light, dark = theme.both()
    pairs = ";".join(
        f"--{name}:light-dark({light[name]},{dark[name]})"
        for name in ("page", "ink", "muted", "line", "raises", "lowers")
    )
    rules = f".mm-view{{color-scheme:light dark;{pairs}}}"
    for scheme, places in _PLACES.items():
        rules += ",".join(f"{place} .mm-view" for place in places) + f"{{color-scheme:{scheme}}}"
    return rules + "".join(f".mm-view[data-scheme={one}]{{color-scheme:{one}!important}}"
                           for one in ("light", "dark"))  # fmt: skip


_PLACES = {
    "light": ("[data-jp-theme-light=true]", "[data-theme=light]", ".vscode-light"),
    "dark": ("[data-jp-theme-light=false]", "[data-theme=dark]", ".vscode-dark"),
}
"""What a page that chose its theme says: JupyterLab, the documentation, VS Code."""


def _scheme() -> str:
    return "" if theme.chosen() == "auto" else f'data-scheme="{theme.chosen()}"'


def _tools(title: str) -> str:
    """Buttons that save the view as it is shown, and its numbers."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-").lower()[:60] or "view"
    buttons = "".join(f'<button type="button" data-as="{one}">{one.upper()}</button>'
                      for one in ("png", "svg", "csv"))  # fmt: skip
    return (
        f'<div class="mm-tools" data-name="{name}"><span>Save as</span>{buttons}</div>'
        f"<script>{static('saving.js')}</script>"
    )


_CSS = f"""
.mm-view{{background:var(--page);color:var(--ink);font:13px/1.45 {theme.FONT};padding:14px 16px;
max-width:900px;box-sizing:border-box;overflow-x:auto;text-align:left}}
.mm-view *{{box-sizing:border-box}}
.mm-view .mm-title{{font-size:16px;font-weight:600;line-height:1.3;color:var(--ink)}}
.mm-view .mm-about{{font-size:12.5px;color:var(--muted);margin:2px 0 10px}}
.mm-view .mm-tools{{display:flex;gap:6px;align-items:baseline;margin-top:12px;font-size:12px;
color:var(--muted)}}
.mm-view .mm-tools button{{font:inherit;color:var(--muted);background:none;cursor:pointer;
border:1px solid var(--line);border-radius:5px;padding:1px 8px}}
.mm-view .mm-tools button:hover{{color:var(--ink)}}
.mm-view .mm-tools button:focus-visible{{outline:2px solid var(--raises);outline-offset:2px}}
@media (max-width:600px){{.mm-view{{padding:12px 10px}}}}
@media print{{.mm-view .mm-tools{{display:none}}}}
"""


def whole_page(html: str, title: str) -> str:
    """A view as a standalone document, which may not load anything."""
    light, dark = (one["page"] for one in theme.both())
    page = {"auto": f"light-dark({light},{dark})", "light": light, "dark": dark}[theme.chosen()]
    return locked(
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title></head>"
        f'<body style="margin:0;background:{page}">'
        f"<main>{heading(title)}{html}</main></body></html>",
        *getattr(html, "later", ()),
    )


def heading(title: str) -> str:
    """A page's heading for who reads it by ear; the view has a title that is seen."""
    hidden = "position:absolute;width:1px;height:1px;margin:0;overflow:hidden;clip-path:inset(50%)"
    return f'<h1 style="{hidden}">{escape(title)}</h1>'


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A page whose `{{names}}` are filled in one pass, so that no part is taken as template.

    Args:
        parts: HTML by name, `title` and `css` of the `{{head}}` among them.
    """
    head = (
        '<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{parts['title']} · mmlens</title>\n<style>\n{parts['css']}\n</style>\n</head>"
    )
    whole = {**parts, "head": head}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: whole[found[1]], template)


def locked(page: str, *later: str, beside: bool = False) -> str:
    """A whole page that may not request anything and runs only the scripts it contains.

    Args:
        page: with `<meta charset="utf-8">` in its head; scripts of other types are data and need no
            permission.
        later: scripts that a script of the page creates.
        beside: pictures and scripts of the page's own site are allowed too, from a server and from
            a disk.
    """
    found = [text.replace("\r\n", "\n") for kind, text in _SCRIPT.findall(page) if _runs(kind)]
    hashes = [hashlib.sha256(text.encode()).digest() for text in (*found, *later)]
    named = [f"'sha256-{base64.b64encode(one).decode('ascii')}'" for one in dict.fromkeys(hashes)]
    if beside:  # 'self' is a server's; what lies beside a file that was opened is file:
        named += ["'self'", "file:"]
    images = "data: blob: 'self' file:" if beside else "data: blob:"
    policy = _POLICY.format(scripts=" ".join(named) or "'none'", images=images)
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    charset = re.compile(r'<meta charset="utf-8" ?/?>')
    page, n = charset.subn(lambda found: found[0] + meta, page, count=1)
    assert n, "the page has no charset to put its policy behind"
    return page


def _runs(attributes: str) -> bool:
    kind = re.search(r'type="([^"]*)"', attributes)
    return kind is None or kind[1] in ("module", "text/javascript")


def data_address(picture: Image.Image, sharp: bool = True) -> str:
    """A picture as a data address: PNG where it has to be exact, otherwise JPEG."""
    buffer = io.BytesIO()
    picture = picture if picture.mode == "RGBA" and sharp else picture.convert("RGB")
    picture.save(buffer, **({"format": "PNG", "optimize": True} if sharp
                                           else {"format": "JPEG", "quality": 85}))  # fmt: skip
    kind = "png" if sharp else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def props(value: Any) -> str:
    """JSON that can stand inside a script: no `<` is left in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def static(name: str) -> str:
    """A file of `mmlens/view/static`."""
    return files("mmlens.view").joinpath("static", name).read_text(encoding="utf-8")
