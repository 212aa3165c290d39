"""What Scores are asked for under the names that pandas, xarray, torch and NumPy have for it."""

from __future__ import annotations

from difflib import get_close_matches

from mmlens.values.errors import AddressError

_HERE = {
    "T": "numpy().T",
    "all": "bool(scores.values.all())",
    "any": "bool(scores.values.any())",
    "argsort": "to_frame(5), the largest first",
    "astype": "values.to(dtype)",
    "attrs": "about",
    "clip": "with_values(scores.values.clamp(low, high))",
    "clone": "scores itself, which never changes",
    "columns": "axes",
    "coords": "labels",
    "copy": "scores itself, which never changes",
    "cpu": "with_values(scores.values.cpu())",
    "describe": "to_frame().score.describe()",
    "detach": "values.detach()",
    "device": "values.device",
    "dims": "axes",
    "dtype": "values.dtype",
    "fillna": "with_values(scores.values.nan_to_num())",
    "flatten": "values.flatten()",
    "float": "float(scores), where one value is left",
    "groupby": "to_frame().groupby(axis)",
    "head": "to_frame(5), the largest first",
    "heatmap": "mmlens.view.heatmap(scores)",
    "iloc": "scores[0, :5], by number",
    "index": "of(axis)",
    "int": "int(scores), where one value is left",
    "isnull": "values.isnan()",
    "isel": "scores[0, :5], by number",
    "loc": "sel(layer=3)",
    "median": "numpy() and numpy.median",
    "ndim": "len(scores.axes)",
    "nlargest": "to_frame(5), the largest first",
    "norm": "values.norm()",
    "permute": "numpy().transpose(1, 0)",
    "plot": "mmlens.view.show(scores)",
    "prod": "values.prod()",
    "reshape": "values.reshape(...)",
    "round": "round(scores, 2)",
    "show": "mmlens.view.show(scores)",
    "size": "values.numel()",
    "sort": "to_frame(5), the largest first",
    "sort_values": "to_frame(5), the largest first",
    "squeeze": "scores[0]",
    "tensor": "values",
    "to": "with_values(scores.values.to(device))",
    "to_csv": "to_frame().to_csv(path)",
    "to_dataframe": "to_frame()",
    "to_numpy": "numpy()",
    "to_pandas": "to_frame()",
    "tolist": "values.tolist()",
    "to_list": "values.tolist()",
    "top_neurons": "mmlens.top_neurons(scores, 5)",
    "topk": "to_frame(5), the largest first",
    "transpose": "numpy().transpose(1, 0)",
    "var": "std(axis) ** 2",
    "view": "values.view(...), or mmlens.view.show(scores)",
    "where": "scores * (scores > 0)",
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
