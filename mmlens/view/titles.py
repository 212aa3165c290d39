"""What a figure shows, in words, from the provenance that Scores carry."""

from __future__ import annotations

from mmlens.scores import Scores
from mmlens.view.words import plain

_QUANTITIES = {
    "attribute": "gradient × activation",
    "integrated_gradients": "integrated gradients",
    "prob": "probability",
    "logprob": "log probability",
    "logit": "logit",
}


def quantity(scores: Scores) -> str:
    """The name of the numbers, with their unit where they have one."""
    method = str(scores.about.get("method", ""))
    if method == "activations":
        return f"activation at {scores.about.get('site', 'a site')}"
    if method == "logit_lens":
        return _QUANTITIES.get(str(scores.about.get("unit")), "logit lens")
    unit = f" ({scores.about['target']})" if scores.about.get("target") else ""
    return _QUANTITIES.get(method, method.replace("_", " ") or "value") + unit


def title_of(scores: Scores) -> tuple[str, str]:
    """(title, subtitle): the question, then method, narrowing and model."""
    about = scores.about
    word = about.get("of") or about.get("token")
    if about.get("method") == "activations":
        place = _place(scores)
        title = f"Where {place} is active" if place else quantity(scores).capitalize()
    elif word and about.get("method") == "logit_lens":
        title = f"Where “{plain(word)}” appears: {quantity(scores)} by {' and '.join(scores.axes)}"
    elif word:
        title = f"What speaks for “{plain(word)}”"
    else:
        title = f"{quantity(scores).capitalize()} by {' and '.join(scores.axes) or 'itself'}"
    parts = [quantity(scores), _place(scores), str(about.get("model", ""))]
    return title, " · ".join(part for part in parts if part)


def _place(scores: Scores) -> str:
    """What `sel` narrowed: `L3.17`, `layer 3` or nothing."""
    about = scores.about
    if "neuron" in about:
        return str(about["neuron"])
    layer, unit = about.get("layer"), about.get("unit")
    if layer is not None and unit is not None and str(unit).isdigit():
        return f"L{layer}.{unit}"
    return f"layer {layer}" if layer is not None else ""
