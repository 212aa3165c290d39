"""What Scores are asked for under the names that pandas, xarray, torch and NumPy have for it."""

from __future__ import annotations

from difflib import get_close_matches

from mmlens.values.errors import AddressError

_HERE = {
    "T": "numpy().T",
    "attrs": "about",
    "columns": "axes",
    "coords": "labels",
    "dims": "axes",
    "dtype": "values.dtype",
    "head": "to_frame(5), the largest first",
    "heatmap": "mmlens.view.heatmap(scores)",
    "iloc": "scores[0, :5], by number",
    "isel": "scores[0, :5], by number",
    "loc": "sel(layer=3)",
    "median": "numpy() and numpy.median",
    "ndim": "len(scores.axes)",
    "nlargest": "to_frame(5), the largest first",
    "plot": "mmlens.view.show(scores)",
    "round": "round(float(scores), 2)",
    "show": "mmlens.view.show(scores)",
    "size": "values.numel()",
    "sort_values": "to_frame(5), the largest first",
    "squeeze": "scores[0]",
    "tensor": "values",
    "to_csv": "to_frame().to_csv(path)",
    "to_dataframe": "to_frame()",
    "to_numpy": "numpy()",
    "to_pandas": "to_frame()",
    "tolist": "values.tolist()",
    "to_list": "values.tolist()",
    "topk": "to_frame(5), the largest first",
    "var": "std(axis) ** 2",
}
"""Another package's name: what to write of Scores."""
_OWN = ("about", "abs", "argmax", "argmin", "axes", "concat", "item", "labels", "load", "max",
        "mean", "min", "numpy", "of", "save", "sel", "shape", "std", "sum", "to_frame", "to_xarray",
        "values", "with_values")  # fmt: skip
_AXES = ("layer", "pos", "unit", "head", "neuron", "token", "dim", "query", "key", "pair", "prompt")


class _NoSuchName(AddressError, AttributeError):
    """So that `hasattr` and `getattr(scores, name, None)` read it as Python's own."""


def other_word(name: str) -> AttributeError:
    """The error for an attribute that Scores do not have; one of Python's own says no more."""
    if name.startswith("_"):
        return AttributeError(f"'Scores' object has no attribute {name!r}")
    if name in _HERE:
        more = f"write {_HERE[name]}"
    elif name in _AXES:
        more = f"labels of an axis are of({name!r}), and a part is sel({name}=...)"
    else:
        close = get_close_matches(name, _OWN, n=2, cutoff=0.6)
        near = ", ".join(map(repr, close))
        more = f"did you mean {near}?" if near else "values is its tensor, to_frame() its table"
    return _NoSuchName(f"Scores have no {name!r}: {more}{'' if more[-1] == '?' else '.'}")
