"""Choose the fitting view by axes and label types, never by the method that made the numbers.

    axes of Scores                        with a picture            without
    pos (patches)                         on_image                  on_image, on paper
    X, pos (patches); X, Y, key           panels                    heatmap
    pos or token, one of words            tokens                    tokens
    (arm | route | token | model), k|layer    curves                curves
    curve, step                           curves                    curves
    prompt, [X,] k|layer                  curves, with intervals    curves, with intervals
    layer, unit                           neurons (the strongest)   neurons
    [layer,] [head,] query, key           attention_on_image        attention_text, or heatmap
    any two                               heatmap                   heatmap
    any one                               bars                      bars

Tables: neuron and score: neurons; neuron and words: cards; pos, rank, token: lens; neuron and
sample: gallery, which needs pictures; head and text: head_texts;
source and target: graph, as of an AttributionGraph. What `visualise` made: visualisations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmlens.values.errors import AddressError
from mmlens.values.graph_tables import AttributionGraph
from mmlens.values.labels import Token
from mmlens.values.scores import Scores
from mmlens.values.visualisation import Visualisation
from mmlens.view.figures.attention_on_image import attention_on_image
from mmlens.view.figures.attention_text import MOST, attention_text
from mmlens.view.figures.cards import cards, gallery
from mmlens.view.figures.curves import along_axis, curves
from mmlens.view.figures.graph import graph
from mmlens.view.figures.head_texts import head_texts
from mmlens.view.figures.heatmap import bars, heatmap
from mmlens.view.figures.lens import lens
from mmlens.view.figures.neurons import neurons
from mmlens.view.figures.on_image import on_image
from mmlens.view.figures.panels import any_patch, panels, picture_axis
from mmlens.view.figures.tokens import tokens
from mmlens.view.figures.visualisations import visualisations
from mmlens.view.style import given

_VIEWS = {
    "attention_on_image": attention_on_image,
    "attention_text": attention_text,
    "bars": bars,
    "cards": cards,
    "curves": curves,
    "gallery": gallery,
    "graph": graph,
    "head_texts": head_texts,
    "heatmap": heatmap,
    "lens": lens,
    "neurons": neurons,
    "on_image": on_image,
    "panels": panels,
    "tokens": tokens,
}
_MOST_LINES = 7


def show(x: Any, picture: Any = None, **options: Any) -> Any:
    """Scores, a table or made pictures as the view that fits; the figure is returned.

    Args:
        picture: the photo that patches belong to, if there is one; for a table of top pictures, a
            mapping from samples to pictures.
        options: those of the view that is chosen, such as title.

    Raises:
        AddressError: no view fits; the error says how to narrow.
    """
    if isinstance(picture, (Scores, Visualisation)) or hasattr(picture, "columns"):
        x, picture = picture, x
    x = given.scores(x) if given.is_bare(x) else x
    if isinstance(x, Scores) and "prompt" in x.axes[:1] and x.shape[0] == 1 and len(x.axes) > 1:
        x = x.sel(prompt=x.of("prompt")[0])  # of a list of one
    if isinstance(x, Visualisation):
        return visualisations(x, **options)
    if isinstance(x, AttributionGraph):
        return graph(x, **options)
    name = chosen(x, picture is not None) if isinstance(x, Scores) else _of_table(x, picture)
    if name in ("on_image", "panels", "attention_on_image", "gallery"):
        return _VIEWS[name](x, picture, **options)
    return _VIEWS[name](x, **options)


def is_neurons(x: Any) -> bool:
    """Whether this is a table that `view.neurons` shows."""
    return {"neuron", "score"} <= set(getattr(x, "columns", ())) and len(x) > 0


def chosen(x: Scores, pictured: bool) -> str:
    """The name of the view for these Scores.

    Args:
        pictured: whether there is a picture to show patches on.

    Raises:
        AddressError: no view fits.
    """
    axes = list(x.axes)
    if axes[-2:] == ["query", "key"]:
        return _of_pattern(x, pictured)
    if len(axes) == 1:
        return _of_one(x)
    if set(axes) == {"layer", "unit"}:
        return "neurons"
    if pictured and picture_axis(x) and len(axes) in (2, 3):
        return "panels"
    if _is_lines(x):
        return "curves"
    if len(axes) == 2:
        return "heatmap"
    if not axes:
        raise AddressError(f"{x!r} is one number: scores.item() gives it.")
    raise AddressError(
        f"No view shows {len(axes)} axes at once, and {x!r} has {len(axes)}:"
        f" {given.narrower(x, 2)}."
    )


def _of_pattern(x: Scores, pictured: bool) -> str:
    """A head's pattern: on the picture, as text where all labels are words, otherwise as a map."""
    patches = any_patch(x.of("key"))
    if patches and (pictured or len(x.axes) > 2):
        return "attention_on_image"
    same = list(x.of("key")) == list(x.of("query"))
    if not patches and same and x.shape[-1] <= MOST:
        return "attention_text"
    if len(x.axes) == 2:
        return "heatmap"
    raise AddressError(
        f"{x!r} holds several patterns: narrow it to one, as in"
        f" scores.sel({next(iter(x.axes))}=...)."
    )


def _of_one(x: Scores) -> str:
    (axis,) = x.axes
    labels = x.of(axis)
    if any_patch(labels):
        return "on_image"
    words = len(labels) > 0 and all(isinstance(one, Token) for one in labels)
    if words or (axis in ("pos", "token") and all(isinstance(one, (Token, str)) for one in labels)):
        return "tokens"
    return "bars"


def _is_lines(x: Scores) -> bool:
    """Whether these are a few named lines over k or layer, optionally for several prompts."""
    along = along_axis(x)
    others = [a for a in x.axes if a not in (along, "prompt")]
    if others == ["curve"] and along == "step":
        return True
    if along not in ("k", "layer") or len(others) > 1:
        return False
    if not others:
        return "prompt" in x.axes
    labels = [str(one) for one in x.of(others[0])]
    named = all(isinstance(one, (str, Token)) for one in x.of(others[0]))
    lines = {"random" if one.startswith("random ") else one for one in labels}
    return named and others[0] != "pos" and len(lines) <= _MOST_LINES


def _several(x: Any) -> str:
    """What shows several results, where these are some."""
    held = list(x.values()) if isinstance(x, Mapping) else x
    some = isinstance(held, (list, tuple)) and any(isinstance(one, Scores) for one in held)
    return "; view.compare({'one': a, 'other': b}) shows two results" if some else ""


def _of_table(x: Any, picture: Any) -> str:
    columns = set(getattr(x, "columns", ()))
    if is_neurons(x):
        return "neurons"
    if {"neuron", "sample", "value"} <= columns:
        if picture is None:
            raise AddressError(
                "A table of top pictures needs the pictures: write view.gallery(table, pictures),"
                " with a mapping from sample to picture."
            )
        return "gallery"
    if {"neuron", "words"} <= columns:
        return "cards"
    if {"pos", "rank", "token"} <= columns:
        return "lens"
    if {"source", "target", "score"} <= columns:
        return "graph"
    if {"head", "place", "text"} <= columns:
        return "head_texts"
    there = f" with the columns {sorted(map(str, columns))}" if columns else ""
    raise AddressError(
        f"A {type(x).__name__}{there} has no view: give Scores, a table with a column 'neuron', or"
        f" what logit_lens or nearest_tokens returns{_several(x)}."
    )
