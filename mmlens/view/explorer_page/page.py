"""The explorer: pictures and a model's results for them, as one HTML file without a network.

    view.explore(mm.look(model, photo, full=True))                 # in a notebook, shown inline
    view.explore(seen).save("scene.html")                          # one file to send
    view.explore(found.looks, found.names, tops=found.tops)        # many pictures, with an index

Hover a word of the caption: its neurons, and where they activate. Click a neuron: what it decodes
to, its map, the caption without it, its top pictures. Click a patch: the lens through the layers,
and the neurons that fire there. A neuron has an address, `page.html#L14.2019`.

Texts are never markup: they are escaped in the HTML, and in JSON whose `<` is escaped, from which
the script makes text nodes only. A content security policy forbids all requests and all scripts
except the page's own, listed by hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.values.arguments import number, several
from mmlens.values.errors import AddressError
from mmlens.values.whole_files import printable, write_whole
from mmlens.view.explorer_page.data import (
    LEVELS,
    TOPS,
    Detail,
    Shared,
    photo,
    picture_data,
    tops_data,
)
from mmlens.view.explorer_page.data import (
    number as number_of,
)
from mmlens.view.style import given
from mmlens.view.style.html import filled, locked
from mmlens.view.style.modules import (
    about_rows,
    data_script,
    dumped,
    script,
    shared_style,
    static_of,
)
from mmlens.view.style.printed import plain

if TYPE_CHECKING:
    import pandas as pd

BUDGET_ONE, BUDGET_MANY = 6.0, 20.0
"""The default budgets in megabytes (1,000,000 bytes): of one picture, and of several."""
MODULES = (
    "base", "paint", "state", "picture", "words", "sorting", "word", "neuron", "patch", "index",
    "saving", "main",
)  # fmt: skip
_FRAME = (
    ".mm-frame{color-scheme:light dark}"
    "[data-jp-theme-light=true] .mm-frame,[data-theme=light] .mm-frame{color-scheme:light}"
    "[data-jp-theme-light=false] .mm-frame,[data-theme=dark] .mm-frame{color-scheme:dark}"
)
"""A page in a frame is as dark as the notebook around it."""
_SAYS = {
    "words": {"says": "words", "choose": "Caption: choose the word to explain"},
    "texts": {"says": "texts", "choose": "Texts: choose the one to explain"},
}
"""What a model answers a picture with: the words of a caption, or how well texts fit it."""
_PARTS = {"src": "pictures", "maps": "maps", "active": "maps", "lens": "lens"}


@dataclass(frozen=True, eq=False)
class Explorer:
    """A page, displayed inline in notebooks.

    Attributes:
        html: the page.
        sizes: megabytes of its parts, the largest first.
        looks: what it was made of, for still pictures and tables.
    """

    html: str = field(repr=False)
    sizes: Mapping[str, float]
    looks: Sequence[Any] = field(default=(), repr=False)

    @property
    def told(self) -> str:
        """Its size in words: `3.1 MB: pictures 0.6, maps 1.2, lens 1.3`."""
        parts = ", ".join(f"{name} {size:.2f}" for name, size in self.sizes.items())
        return f"{sum(self.sizes.values()):.2f} MB: {parts}"

    def save(self, path: str | Path) -> Path:
        """Write the page."""
        return write_whole(path, self.html)

    def _repr_html_(self) -> str:
        """The page in a sandboxed frame."""
        return (
            f"<style>{_FRAME}</style>"
            '<iframe sandbox="allow-scripts allow-downloads" title="mmlens explorer" loading="lazy"'
            ' style="width:100%;height:820px;border:1px solid #8884;border-radius:8px"'
            f' class="mm-frame" srcdoc="{escape(self.html, quote=True)}"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Explorer({self.told})"


def explore(
    seen: Any,
    names: Sequence[str] | None = None,
    *,
    tops: pd.DataFrame | None = None,
    title: str | None = None,
    budget: float | int | None = None,
    traits: pd.DataFrame | None = None,
) -> Explorer:
    """A page to explore the results for one picture or several.

    Args:
        seen: what `mm.look(model, picture, full=True)` returned, or a list of such; without
            `full=True` the page has no lens, no firing neurons and no ablations.
        names: unique names of several pictures; shown, searched, and part of their addresses.
        tops: top pictures of neurons: neuron, rank (from 0), sample, value, picture (PIL), map
            (Scores(pos)), and box, if the encoder reads only a part.
        budget: megabytes; above them the page shows smaller pictures and fewer neurons and words
            (default 6 for one picture, 20 for several).
        traits: more by which neurons are sorted: a column neuron, and columns of numbers, such as z
            of `mm.cross_format` (the cross-format index).

    Raises:
        AddressError: no picture, other axes, or names that do not fit.
    """
    many = isinstance(seen, Sequence) and not isinstance(seen, str)
    looks = [given.look(one) for one in (seen if many else [seen])]
    called = range(len(looks)) if names is None else several(names, "names", least=0)
    names = [printable(name) for name in called]
    if not looks or len(names) != len(looks) or len(set(names)) < len(names):
        raise AddressError(
            f"explore() got {len(looks)} pictures and {len(set(names))} different names: give at"
            " least one picture, and each its own name."
        )
    if tops is not None:
        tops = given.table(tops, TOPS, "mmlens.explore.read_found", name="tops", empty=True)
    if traits is not None:
        traits = given.table(traits, ("neuron",), "mm.cross_format", name="traits", empty=True)
    limit = BUDGET_ONE if len(looks) == 1 else BUDGET_MANY
    limit = limit if budget is None else number(budget, "budget", above=0)
    plainly = "A picture, read by the model" if len(looks) == 1 else "Pictures, read"
    told = printable(given.title(title, plainly))
    made: Explorer | None = None
    for detail in LEVELS if len(looks) == 1 else LEVELS[1:]:
        made = _page(looks, names, tops, told, detail, traits)
        if sum(made.sizes.values()) <= limit:
            return made
    assert made is not None  # there are levels
    raise AddressError(
        f"{len(looks)} pictures do not fit into {limit:g} MB, at least {made.told}: give fewer"
        " pictures or a larger budget."
    )


def _page(
    looks: Sequence[Any],
    names: Sequence[str],
    tops: pd.DataFrame | None,
    title: str,
    detail: Detail,
    traits: pd.DataFrame | None,
) -> Explorer:
    """The page at one level of detail."""
    shared = Shared()
    sizes: dict[str, int] = dict.fromkeys(("pictures", "maps", "lens", "tops", "words"), 0)
    pictures = [
        picture_data(one, title if len(looks) == 1 else name, detail, shared)
        | {"note": _noted(one)}
        for one, name in zip(looks, names, strict=True)
    ]
    found, thumbs = tops_data(tops, names, detail, shared)
    _add_traits(shared, traits)
    index = [
        {"name": name, "caption": plain(one.caption), **photo(one.picture, detail.thumb, one.box)}
        for one, name in zip(looks, names, strict=True)
        if len(looks) > 1
    ]
    data = {
        "index": index, "neurons": shared.neurons, "tops": found, "thumbs": thumbs,
        "vocabulary": list(shared.words),
    }  # fmt: skip
    scripts = [
        data_script("data", data),
        *(data_script(f"p{i}", one) for i, one in enumerate(pictures)),
    ]
    for picture in pictures:
        for key, value in picture.items():
            sizes[_PARTS.get(key, "words")] += len(dumped(value))
    sizes["pictures"] += len(dumped(index))
    sizes["tops"] += len(dumped([found, thumbs]))
    sizes["lens"] += len(dumped(data["vocabulary"]))
    sizes["words"] += len(dumped(data["neurons"]))
    html = _filled(looks[0], title, "\n".join(scripts), len(looks) > 1)
    sizes["page"] = len(html.encode()) - sum(sizes.values())
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    return Explorer(html, {name: size / 1e6 for name, size in ordered if size > 0}, looks)


def _noted(seen: Any) -> str:
    """A sentence where the model was shown what it cannot know, else nothing."""
    return str((seen.about or {}).get("note", ""))


def _add_traits(shared: Shared, traits: pd.DataFrame | None) -> None:
    """The numbers of a table, at the neurons that the page shows."""
    for row in traits.to_dict("records") if traits is not None else []:
        known = shared.neurons.get(str(row.pop("neuron")))
        if known is not None:
            known["traits"] = {
                str(name): number_of(value)
                for name, value in row.items()
                if isinstance(value, Real)
            }


def _filled(first: Any, title: str, data: str, many: bool) -> str:
    """The skeleton with title, style, script and data in it."""
    parts = {
        "title": escape(title), "css": f"{shared_style()}\n{_static('style.css')}",
        "js": script([("mmlens.view.explorer_page", name) for name in MODULES]),
        "data": data, "about": about_rows(first.about or {}), "many": "many" if many else "one",
        **_SAYS["texts" if (first.about or {}).get("tower") == "vision" else "words"],
        "caption": escape(first.caption), "prompt": escape(first.prompt),
        "note": escape(_noted(first)), "explained": escape(plain(first.token)),
    }  # fmt: skip
    return locked(filled(_static("page.html"), parts))


def _static(name: str) -> str:
    return static_of("mmlens.view.explorer_page", name)
