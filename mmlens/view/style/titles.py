"""Titles of figures, from the provenance of Scores."""

from __future__ import annotations

from mmlens.values.scores import Scores
from mmlens.view.style.printed import plain

_QUANTITIES = {
    "attribute": "gradient × activation",
    "integrated_gradients": "integrated gradients",
    "prob": "probability",
    "logprob": "log probability",
    "logit": "logit",
    "patch": "metric",
    "path_patching": "metric",
    "ablate": "metric without it",
    "ablation_curve": "metric without the units",
    "knockouts": "metric without the route",
    "attribution_patching": "estimated change of the metric",
    "direct_logits": "direct effect on the logit",
}
_TITLES = {
    "knockouts": "What is left without each route",
    "ablate": "What is left without each place",
    "ablation_curve": "What is left without the first k units",
    "path_patching": "Which senders affect the receiver",
}
_AXES = {"pos": "position", "dim": "dimension", "key": "position", "query": "position"}


def quantity(scores: Scores) -> str:
    """The name of the numbers, with their unit where they have one."""
    method, site = str(scores.about.get("method", "")), str(scores.about.get("site", "a site"))
    if method == "activations":
        return "attention weight" if site.endswith("pattern") else f"activation at {site}"
    if method == "logit_lens":
        return _QUANTITIES.get(str(scores.about.get("quantity")), "logit lens")
    if scores.about.get("quantity") == "recovered":
        return "share recovered"
    unit = f" ({scores.about['target']})" if scores.about.get("target") else ""
    return _QUANTITIES.get(method, method.replace("_", " ") or "value") + unit


def title_of(scores: Scores) -> tuple[str, str]:
    """(title, subtitle): the question, then method, narrowing and model."""
    parts = [quantity(scores), _place(scores), str(scores.about.get("model", ""))]
    return _question(scores), " · ".join(part for part in parts if part)


def _question(scores: Scores) -> str:
    about, method, name = scores.about, str(scores.about.get("method", "")), quantity(scores)
    word = about.get("of") or about.get("token")
    axes = [_AXES.get(axis, axis) for axis in scores.axes if axis != "prompt"]
    by = " and ".join(dict.fromkeys(axes)) or "itself"
    if name == "attention weight":
        return "Where heads look" if "head" in scores.axes else "Where the head looks"
    if method == "activations" and _place(scores):
        return f"Where {_place(scores)} is active"
    if method == "patch":
        brings = about.get("direction") != "noise"
        return f"Where patching {'restores' if brings else 'destroys'} the answer, by {by}"
    if method in _TITLES:
        return _TITLES[method]
    if word and method == "logit_lens":
        return f"Where “{plain(word)}” appears: {name} by {by}"
    if word:
        return f"Attribution of “{plain(word)}”"
    return f"{name.capitalize()} by {by}"


def _place(scores: Scores) -> str:
    """The address that `sel` narrowed to: `L3.17`, `layer 3` or nothing."""
    about = scores.about
    if "neuron" in about:
        return str(about["neuron"])
    layer, unit = about.get("layer"), about.get("unit")
    if layer is not None and unit is not None and str(unit).isdigit():
        return f"L{layer}.{unit}"
    return f"layer {layer}" if layer is not None else ""
