"""Titles of figures, from the provenance of Scores: what is asked, of what, by which method."""

from __future__ import annotations

from collections.abc import Callable

from mmlens.values.joined_labels import EACH_PAIRS
from mmlens.values.scores import Scores
from mmlens.view.style.baselines import DRAWN, NOTE, UNNAMED, metric_of
from mmlens.view.style.printed import plain

_QUANTITIES = {
    "attribute": "gradient × activation",
    "integrated_gradients": "integrated gradients",
    "prob": "probability",
    "logprob": "log probability",
    "logit": "logit",
    "direct_logits": "direct effect on the logit",
    "attribute_picture": "attribution",
    "mean_over": "mean activation",
    "unit_responses": "response",
    "word_probe": "response to the word",
    "word": "direction of the word",
    "written_by": "what the unit writes",
    "chefer": "Chefer's relevance",
    "grad_cam": "Grad-CAM",
    "grad_eclip": "Grad-ECLIP",
    "lens_map": "largest probability over layers",
    "noise_map": "turn under noise (1 - cosine)",
    "module_influence": "influence",
    "stream_before": "residual stream",
    "text_neurons": "score of T-neurons",
    "word_state": "residual stream",
    "shift_directions": "direction",
    "lrp": "relevance by LRP",
    "occlusion": "occlusion",
    "rise": "RISE",
    "rollout": "attention rollout",
    "tam": "token activation map",
}
_MAPS = ("chefer", "grad_cam", "grad_eclip", "lrp", "occlusion", "rise", "rollout", "tam")
"""Methods that ask where in a prompt something comes from."""
_METRICS: dict[str, Callable[[str], str]] = {
    "patch": str,
    "path_patching": str,
    "ablate": lambda metric: f"{metric} without it",
    "ablation_curve": lambda metric: f"{metric} without the units",
    "knockouts": lambda metric: f"{metric} without the route",
    "attribution_patching": lambda metric: f"estimated change of the {metric}",
}
_TITLES = {
    "knockouts": "What is left without each route",
    "ablate": "What is left without each place",
    "ablation_curve": "What is left without the first k units",
    "path_patching": "Which senders affect the receiver",
}
_OF_A_WORD = {
    "direct_logits": "What writes {}",
    "lens_map": "Where the lens says {}",
    "module_influence": "Which parts say {}",
    "stream_before": "The stream before {}",
    "word": "Direction of the word {}",
    "word_state": "The stream at the end of {}",
}
"""Titles with the word that is asked about."""
_OF_NO_WORD = {
    "noise_map": "Where noise turns what attention writes",
    "shift_directions": "Directions of the shift",
}
_CHANGES = {
    "knockouts": "What each route does for the answer",
    "ablate": "What each place does for the answer",
}
_SUBJECTS = {
    "attribute": "attribution",
    "integrated_gradients": "attribution",
    "attribute_picture": "attribution",
    "attribution_patching": "estimated effect of patching",
}
_NOTHING = (None, "", "None")
_ROOM = 40
"""The most letters beside an axis."""
AXES = {"pos": "position", "dim": "dimension", "key": "position", "query": "position"}


def quantity(scores: Scores) -> str:
    """The name of the numbers, with their unit where they have one."""
    about, method = scores.about, str(scores.about.get("method", ""))
    if DRAWN in about:
        return str(about[DRAWN])
    if about.get("quantity") == "recovered":
        return "share restored"
    if about.get("quantity") == "effect":  # `patching.effects`
        return f"change of the {metric_of(scores)}"
    if method == "activations":
        return _activation(scores)
    if method == "covering_curves":
        return _QUANTITIES.get(str(about.get("target")), "what is explained")
    if method == "logit_lens":
        return _QUANTITIES.get(str(about.get("quantity")), "logit lens")
    if method in _METRICS:
        return _METRICS[method](metric_of(scores))
    unit = f" ({about['target']})" if about.get("target") else ""
    return _QUANTITIES.get(method, method.replace("_", " ") or "value") + unit


def axis_name(scores: Scores) -> str:
    """The name of the numbers beside an axis: without the words that a metric is about, where there
    is no room for them; the subtitle and the hover text have them.
    """
    told, metric = quantity(scores), metric_of(scores)
    if len(told) <= _ROOM:
        return told
    kind = metric.split("'")[0].removesuffix(EACH_PAIRS).removesuffix("of ").removesuffix("with ")
    kind = kind.strip()
    kind = "value" if metric == UNNAMED else kind
    said = told.replace(metric, kind)
    return said if len(said) <= _ROOM else said.replace(f" of the {kind}", "")


def _activation(scores: Scores) -> str:
    site = str(scores.about.get("site", "a site"))
    if site.endswith("pattern"):
        return "attention weight"
    if place := _place(scores):
        return f"activation at {site}, {place}" if "layer" in place else f"activation of {place}"
    return "activation of neurons" if site == "neurons" else f"activation at {site}"


def title_of(scores: Scores) -> tuple[str, str]:
    """(title, subtitle): the question, then method, narrowing and model."""
    told, place = quantity(scores), _place(scores)
    parts = [told, place if place not in told else "", str(scores.about.get(NOTE, "")),
             str(scores.about.get("model", ""))]  # fmt: skip
    return _question(scores), " · ".join(part for part in parts if part)


def _question(scores: Scores) -> str:
    about, method, name = scores.about, str(scores.about.get("method", "")), quantity(scores)
    known = [one for one in (about.get("of"), about.get("token")) if one not in _NOTHING]
    word = next((one for one in known if not isinstance(one, (list, tuple))), None)
    axes = [AXES.get(axis, axis) for axis in scores.axes if axis != "prompt"]
    by = " and ".join(dict.fromkeys(axes)) or "itself"
    if name == "attention weight":
        return "Where heads look" if "head" in scores.axes else "Where the head looks"
    if method == "activations" and _place(scores):
        return f"Where {_place(scores)} is active"
    if method == "activations" and "neuron" in axes:
        return "Where each neuron is active"
    if method == "patch":
        brings = about.get("direction") != "noise"
        return f"Where patching {'restores' if brings else 'destroys'} the answer, by {by}"
    if method in _CHANGES and DRAWN in about:
        return _CHANGES[method]
    if method in _TITLES:
        return _TITLES[method]
    if method == "covering_curves":
        return f"What covering leaves of “{plain(word)}”" if word else "What covering leaves"
    if method in _MAPS and set(scores.axes) <= {"pos", "token"}:
        whose = f"“{plain(word)}”" if word else "the answer"
        return f"Where {whose} comes from: {_QUANTITIES[method]}"
    if word and method == "logit_lens":
        return f"Where “{plain(word)}” appears: {name} by {by}"
    at = f", by {by}" if by != "position" else ""
    if method in _OF_NO_WORD:
        return _OF_NO_WORD[method] + at
    if word:
        whose, other = f"“{plain(word)}”", about.get("minus")
        whose += f" rather than “{plain(other)}”" if other not in _NOTHING else ""
        kind = "Attribution" if method in (*_SUBJECTS, "") else capital(name)
        return _OF_A_WORD.get(method, f"{kind} of {{}}").format(whose) + at
    if method in _SUBJECTS and "token" in scores.axes:
        return f"{_SUBJECTS[method].capitalize()} of each word, by {by.replace('token and ', '')}"
    return f"{capital(_SUBJECTS.get(method, name))} by {by}"


def capital(text: str) -> str:
    """The text with a capital at its front, and names inside as they are."""
    return text[:1].upper() + text[1:]


def _place(scores: Scores) -> str:
    """The address that `sel` narrowed to: `L3.17`, `layer 3` or nothing."""
    about = scores.about
    if "neuron" in about:
        return str(about["neuron"])
    layer, unit = about.get("layer"), about.get("unit")
    if layer is not None and unit is not None and str(unit).isdigit():
        return f"L{layer}.{unit}"
    return f"layer {layer}" if layer is not None else ""
