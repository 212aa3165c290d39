"""Attention between words, drawn by CircuitsVis, offline and without injected markup.

CircuitsVis 1.43 contacts google.com on every display to test the network, and if it is there loads
from a CDN; it repeats 1.3 MB per output, leaves its `div` open, and puts tokens into the page as
markup. Here its wheel's own bundle goes into the page, gzipped (0.45 MB), and is run once per page;
tokens and values are JSON without `<`, and in tokens `<`, `>` and `&` are replaced by signs that
look alike. After `view.notebook()` the bundle is in the notebook once, and views leave it out.
"""

from __future__ import annotations

import base64
import gzip
from functools import lru_cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.scores import Scores
from mmlens.view.still.row_sheet import SheetRow, sheet
from mmlens.view.style import given
from mmlens.view.style.html import Html, framed, props
from mmlens.view.style.printed import label

MOST = 120
_HARMLESS = str.maketrans({"<": "‹", ">": "›", "&": "＆"})
_ids = count(1)
in_notebook = False
"""Whether `view.notebook()` has put the bundle into the page."""
_SIDE, _NUMBERS = 420, 400_000
_AXES = (("query", "key"), ("head", "query", "key"), ("layer", "head", "query", "key"))
_CSS = """
.mm-circles .mm-circuits{background:#fff;color:#000;padding:6px;border-radius:4px;overflow-x:auto}
.mm-circles .mm-circuits h4{color:#10151b!important;
background-image:linear-gradient(#ffffffb0,#ffffffb0)!important}
[data-jp-theme-light=false] .mm-circles .mm-circuits,[data-theme=dark] .mm-circles .mm-circuits,
.mm-view[data-scheme=dark] .mm-circuits{filter:invert(.92) hue-rotate(180deg)}
@media (prefers-color-scheme:dark){.mm-circles:not([data-scheme=light]) .mm-circuits{
filter:invert(.92) hue-rotate(180deg)}
[data-jp-theme-light=true] .mm-circles .mm-circuits{filter:none}}
"""

_LOADER = """
globalThis.mmlensCircuits ??= (async () => {
  const bytes = Uint8Array.from(atob("%s"), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  return globalThis.CircuitsVis;
})();
"""
_MOUNT = """
(async () => {
  const place = document.getElementById("%s");
  for (let i = 0; i < 100 && !globalThis.mmlensCircuits; i++)
    await new Promise((done) => setTimeout(done, 50));
  if (!globalThis.mmlensCircuits) {
    place.textContent = "Run view.notebook() again: this page does not hold CircuitsVis.";
    return;
  }
  const circuits = await globalThis.mmlensCircuits;
  circuits.render("%s", circuits.AttentionHeads, %s);
})();
"""


def attention_text(scores: Scores, *, title: str = "Which word attends to which") -> Html:
    """Attention between words, head by head, as HTML drawn by CircuitsVis.

    Args:
        scores: Scores([[layer,] head,] query, key), the same positions on both axes; narrow a
            prompt with a picture to its words: `.sel(query=Token, key=Token)`.

    Raises:
        AddressError: other axes, different queries and keys, more than 120 positions, or more
            numbers than a page can carry.
        CapabilityError: circuitsvis is not installed.
    """
    scores = given.scores(scores)
    if scores.axes not in _AXES or scores.values.numel() > _NUMBERS:
        raise AddressError(
            "Attention as text has the axes layer, head, query and key, and at most"
            f" {_NUMBERS} numbers; {scores!r} has {scores.values.numel()}: narrow it, as in"
            " scores.sel(layer=3)."
        )
    keys = list(scores.of("key"))
    if keys != list(scores.of("query")) or len(keys) > MOST:
        raise AddressError(
            f"Attention as text shows up to {MOST} positions, the same as queries and keys, and"
            f" {scores!r} has {scores.shape[-2]} and {scores.shape[-1]}: narrow both, as in"
            " scores.sel(query=Token, key=Token)."
        )
    values = np.nan_to_num(scores.numpy().reshape(-1, len(keys), len(keys)))
    heads = [scores.about.get("head", "")]
    if "head" in scores.axes:
        heads = list(scores.of("head"))
    if "layer" in scores.axes:
        heads = [f"{head}, layer {layer}" for layer in scores.of("layer") for head in heads]
    told = {
        "attention": [[[round(float(x), 4) for x in row] for row in one] for one in values],
        "tokens": [harmless(one) for one in keys],
        "attentionHeadNames": [f"head {harmless(one)}".strip() for one in heads],
        "maskUpperTri": bool((np.triu(values[0], 1) == 0).all()),
    }
    name = f"mm-circuits-{next(_ids)}"
    loader = "" if in_notebook else f"<script>{_LOADER % bundle()}</script>"
    body = (
        f'<div class="mm-circuits" id="{name}"></div>'
        f"{loader}<script>{_MOUNT % (name, name, props(told))}</script>"
    )
    layer = f"layer {scores.about['layer']}" if "layer" in scores.about else ""
    parts = ["attention weight, from the word on the left to that above", layer,
             str(scores.about.get("model", "")), "drawn by CircuitsVis"]  # fmt: skip
    head, about = given.title(title), " · ".join(part for part in parts if part)
    names = [f"head {one}".strip() for one in heads]
    made = framed(
        head, about, body, _CSS, "mm-circles",
        rows=scores.to_frame,
        still=lambda: sheet(head, about, [_patterns(names, values, [label(k) for k in keys])]),
    )  # fmt: skip
    made.later = (_script(),)
    return made


def _patterns(names: list[str], values: np.ndarray, words: list[str]) -> SheetRow:
    """Every head's pattern, queries downwards, and the words along both sides."""
    pictures = []
    for name, pattern in zip(names, values, strict=True):
        shade = 1 - pattern / (float(pattern.max()) or 1.0)
        low, high = np.array([33, 102, 172]), np.array([247, 247, 247])
        pixels = np.uint8(low + shade[..., None] * (high - low))
        size = _SIDE // len(words) * len(words) or _SIDE
        image = Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST)
        pictures.append((image, f"{name}, at most {float(pattern.max()):.2f}"))
    return SheetRow("", [(word, "", 1.0) for word in words], pictures, 210)


def harmless(token: object) -> str:
    """A token that is plain text both on a canvas and in markup."""
    return label(token).translate(_HARMLESS)


def loader() -> Html:
    """The bundle alone, as `view.notebook()` puts it into a page."""
    return Html(f"<script>{_LOADER % bundle()}</script>")


@lru_cache(1)
def bundle() -> str:
    """The script, gzipped, in base64.

    Raises:
        CapabilityError: circuitsvis is not installed, or lacks its script.
    """
    return base64.b64encode(gzip.compress(_script().encode("utf-8"), 9, mtime=0)).decode("ascii")


@lru_cache(1)
def _script() -> str:
    """The wheel's own script, which leaves what it defines where views find it."""
    found = find_spec("circuitsvis")  # importing it would only load torch
    path = (
        Path(found.origin).parent / "dist" / "cdn" / "iife.js" if found and found.origin else None
    )
    if path is None or not path.is_file():
        raise CapabilityError(
            "Attention as text is drawn by circuitsvis, which is not installed here: write"
            " pip install circuitsvis, or take view.heatmap(scores.sel(head=0))."
        )
    text = path.read_text(encoding="utf-8").partition("\n//# sourceMappingURL")[0]
    return text + ";globalThis.CircuitsVis=CircuitsVis"
