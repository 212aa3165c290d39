"""Words rewritten one after the other: neuron-level sequential editing (NSE).

Jiang et al. 2025 ("Neuron-Level Sequential Editing for Large Language Models", arXiv 2410.04045).
For a prompt that is to say another word, first the value: with the weights *before any edit*

    z = h + delta,   delta minimises  -log p(word) + |delta|^2 / (2 |h|^2),   |delta| <= 0.75 |h|

at `resid_post` of the last of the layers that are changed, by Adam. Then, in passes over these
layers, the rows of W_out of the most active units are changed: with k the activations of all units
at the named positions, I the fewest units of the largest |k| that hold a share p of their sum,

    D = argmin  |K_I D - R|^2 + tr D^T C D,      C = preserve * E[k k^T]_I + sum over earlier k k^T
      = (K_I^T K_I + C)^-1 K_I^T R,              R = (z - h) / (layers left)

and so again in the next layer, with what h has become there. E[k k^T] is of the prompts that are to
be kept, at all of their positions. A pass is repeated until h is near z. The values of later
prompts do not know of earlier edits (the weights are rewound); their keys do.

In the published code the value's loss is a mean over texts that are put before the prompt, which a
picture has not: here every prompt is a row of its own, and may be given in several forms. Its
divergence term on a second prompt is left out. Of all D that fit the shortest is taken, by a ridge
of 1e-6 of the mean square of what stands in the brackets.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.jacobian_lens import prompts_in
from mmlens.methods.output_rows import add_to_rows, check_rows, prompt_up_to
from mmlens.methods.stream_values import Valued, end_of, valued, words_for
from mmlens.model import hooking
from mmlens.model.capabilities import needs, require
from mmlens.model.capture import capture
from mmlens.model.targets import finite
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.backward import wide
from mmlens.runtime.progress import tracked
from mmlens.values.addresses import places
from mmlens.values.arguments import SEEDS, choice, count, number, several
from mmlens.values.errors import AddressError, ArgumentError, NumericsError
from mmlens.values.labels import Neuron
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

KEY = "rewritten_in_sequence"
_NEAR = 0.1  # of the way from h to z that may be left
_RIDGE = 1e-6  # of the mean eigenvalue


@needs("logits", "neurons")
@ordinary()
def rewrite_in_sequence(
    model: HookedVLM,
    prompts: Any,
    of: Any,
    *,
    layer: Any,
    pos: Any = -1,
    after: str | None = None,
    keep: Any = (),
    preserve: float = 100.0,
    share: float = 0.8,
    chosen_by: str = "activation",
    passes: int = 3,
    batch: int = 1,
    steps: int = 25,
    seed: int = 0,
    original: HookedVLM | None = None,
    progress: Any = None,
) -> HookedVLM:
    """A copy of the model in which prompts say other words, rewritten one after the other (NSE).

    Args:
        prompts: one or several, at whose end a word is said; they are rewritten in this order.
        of: the word that each is to say: one for all, or a list of as many.
        layer: the layers whose W_out is changed, as in `Scores.sel`; where the pictures are read
            matters (`knockouts` and `patch` tell), and there is no good default.
        pos: the positions of each prompt whose keys and values count: the last one, or those of
            the subject (patches, the last token of its name).
        after: the words between a prompt and its word.
        keep: prompts whose keys are to be preserved, at all of their positions.
        preserve: how much these count against what is demanded (the paper's lambda).
        share: of the sum of the activations that the changed units hold, above 0 to 1: all units.
        chosen_by: "activation", or "random" for as many others, drawn by `seed`: the control.
        passes: over the layers, at most.
        batch: how many prompts are rewritten at once.
        steps: of Adam, per value.
        original: the model before any edit, whose weights give the values; by default the model
            that is given.
        progress: a function of (done, of), or whether a bar is shown.

    Returns:
        A model with weights of its own; the model that was given is not changed. Its
        `provenance["rewritten_in_sequence"]` has of each prompt, after all, whether its word leads
        ("said"), its probability ("prob"), and the share of the way to z that is "left"; of each
        layer how many rows were changed ("units") and the change over the table's length ("norm").

    Raises:
        AddressError: no such layers or positions. ArgumentError: an option out of range.
        CapabilityError: layers without plain units, or with a norm behind the MLP.
        NumericsError: the units are silent there. PromptError: as many words as prompts are needed.
    """
    layers = _layers(model, layer)
    share = number(share, "share", above=0, most=1)
    preserve = number(preserve, "preserve", least=0)
    chosen_by = choice(chosen_by, "chosen_by", ("activation", "random"))
    passes, batch = count(passes, "passes", most=100), count(batch, "batch")
    steps, seed = count(steps, "steps", most=10_000), count(seed, "seed", least=0, most=SEEDS)
    first = model if original is None else _like(original, model)
    given = prompts_in(prompts)
    tokens = words_for(model, of, len(given))
    softs = [prompt_up_to(model, prompt, after) for prompt in given]
    asked = [valued(first, soft, token, pos, layers[-1], steps)
             for soft, token in zip(softs, tokens, strict=True)]  # fmt: skip
    changed = copy.deepcopy(model)
    others = several(keep, "keep", least=0)
    kept = _moments(model, others, layers, preserve)
    draw = torch.Generator().manual_seed(seed) if chosen_by == "random" else None
    rows: dict[int, set[int]] = {at: set() for at in layers}
    parts = [asked[at : at + batch] for at in range(0, len(asked), batch)]
    for part in tracked(parts, "prompts rewritten", progress):
        for _ in range(passes):
            if not _passed(changed, part, kept, share, draw, rows):
                break
        for at, keys in zip(layers, _read(changed, part, layers, layers[-1])[0], strict=True):
            kept[at] += keys.double().cpu().T @ keys.double().cpu()
    told = {"layers": layers, "pos": str(pos), "of": [one.token for one in asked], "share": share,
            "preserve": preserve, "kept": len(others), "chosen_by": chosen_by, "batch": batch,
            "units": [len(rows[at]) for at in layers],
            "norm": [_moved(model, changed, at) for at in layers]}  # fmt: skip
    told |= _after(changed, asked, layers[-1])
    if (earlier := model.provenance.get(KEY)) is not None:
        told["earlier"] = earlier
    changed.provenance = {**model.provenance, KEY: told}
    return changed


def _passed(
    model: HookedVLM,
    part: Sequence[Valued],
    kept: dict[int, Float[Tensor, "unit unit"]],
    share: float,
    draw: torch.Generator | None,
    rows: dict[int, set[int]],
) -> bool:
    """One pass over the layers, in place; whether it was needed."""
    layers = list(kept)
    for before, at in enumerate(layers):
        keys, rest = _read(model, part, [at], layers[-1])
        if not before and max(_left(rest, part)) <= _NEAR:
            return False
        units = chosen(keys[0], share, draw)
        few, held = keys[0][:, units], kept[at][units][:, units]
        change = change_of(few, rest / (len(layers) - before), held)
        add_to_rows(model, at, units, change.to(rest))
        rows[at] |= set(units)
    return True


def chosen(
    keys: Float[Tensor, "row unit"], share: float, draw: torch.Generator | None = None
) -> list[int]:
    """The fewest units that hold this share of the sum of |k|; or as many at random.

    Raises:
        NumericsError: all are silent.
    """
    score = keys.double().abs().sum(0).cpu()
    if float(score.sum()) == 0:
        raise NumericsError(
            "The units of this layer are silent at these positions, so that nothing they write"
            " changes the stream: name other positions, or another layer."
        )
    order = score.argsort(descending=True, stable=True)
    held = score[order].cumsum(0) / score.sum()
    many = len(score) if share >= 1 else int((held < share).sum()) + 1
    if draw is not None:
        order = torch.randperm(len(score), generator=draw)
    return sorted(order[:many].tolist())


def change_of(
    keys: Float[Tensor, "row unit"],
    rest: Float[Tensor, "row d_model"],
    kept: Float[Tensor, "unit unit"],
) -> Float[Tensor, "unit d_model"]:
    """argmin |keys D - rest|^2 + tr D^T kept D in float64; of several the shortest.

    Raises:
        NumericsError: NaN or infinity in what is asked.
    """
    K, R = keys.double().cpu(), rest.double().cpu()
    whole = K.T @ K + kept.double().cpu()
    ridge = _RIDGE * whole.diagonal().mean()
    finite(whole, "the keys")
    factor = torch.linalg.cholesky(whole + ridge * torch.eye(len(whole)).to(whole))
    return finite(torch.cholesky_solve(K.T @ R, factor), "the change of W_out")


def _like(original: HookedVLM, model: HookedVLM) -> HookedVLM:
    """The model before any edit, which has to be one of the same layers."""
    require(original, "logits", "neurons")
    sizes = [(one.cfg.n_layers, one.cfg.d_model, one.lm.cfg.d_vocab) for one in (original, model)]
    if sizes[0] != sizes[1]:
        raise ArgumentError(
            f"original= has {sizes[0][0]} layers of {sizes[0][1]}, and {model.name!r} has"
            f" {sizes[1][0]} of {sizes[1][1]}: give the model that it was before it was edited."
        )
    return original


def _layers(model: HookedVLM, layer: Any) -> list[int]:
    """The layers that are changed, from first to last; each has units that can be."""
    every = list(hooking.layers(model, SITES["neurons"]))
    layers = sorted({every[i] for i in places(every, layer, "layer")})
    if layer is None or not layers:
        raise AddressError(
            f"layer={layer!r}: name the layers whose W_out is changed, as in layer=[2, 3, 4]."
        )
    check_rows(model, [Neuron(at, 0) for at in layers])
    return layers


def _moments(
    model: HookedVLM, keep: Sequence[Any], layers: list[int], preserve: float
) -> dict[int, Float[Tensor, "unit unit"]]:
    """By layer `preserve` times the mean of k k^T over all positions of all prompts, in float64."""
    names = {at: SITES["neurons"].at(at) for at in layers}
    widths = {at: model.lm.units.layers[at].width for at in layers}
    total = {at: torch.zeros(widths[at], widths[at], dtype=torch.float64) for at in layers}
    seen = 0
    for prompt in keep:
        soft = prompt_up_to(model, prompt, None)
        points = list(names.values())
        with torch.no_grad(), capture(model, points, lambda x: x[0].detach()) as kept:
            model.run(soft, at=end_of(soft))
        for at, name in names.items():
            keys = finite(kept[name].double().cpu(), f"the units of layer {at}")
            total[at] += keys.T @ keys
        seen += soft.ids.shape[1]
    return {at: one * (preserve / max(seen, 1)) for at, one in total.items()}


def _read(
    model: HookedVLM, part: Sequence[Valued], layers: Sequence[int], last: int
) -> tuple[list[Float[Tensor, "row unit"]], Float[Tensor, "row d_model"]]:
    """Of the prompts of a batch the keys of some layers, and what is left of the way to z."""
    end, names = SITES["resid_post"].at(last), [SITES["neurons"].at(at) for at in layers]
    found: list[dict[str, Tensor]] = []
    for one in part:
        with (
            torch.no_grad(),
            capture(model, [*names, end], lambda x, one=one: wide(x[0, one.at].detach())) as kept,
        ):
            model.run(one.soft, at=one.end)
        found.append(dict(kept))
    keys = [finite(torch.cat([one[name] for one in found]), f"the units at {name!r}")
            for name in names]  # fmt: skip
    return keys, torch.cat([one.z - there[end] for one, there in zip(part, found, strict=True)])


def _left(rest: Float[Tensor, "row d_model"], part: Sequence[Valued]) -> list[float]:
    """Of each prompt the share of the way from h to z that is left; 0 where there was none."""
    each = rest.split([len(one.at) for one in part])
    return [float(row.norm()) / one.far if one.far else 0.0
            for one, row in zip(part, each, strict=True)]  # fmt: skip


def _moved(model: HookedVLM, changed: HookedVLM, layer: int) -> float:
    """The length of the change of a layer's W_out over that of the table."""
    one, other = (m.lm.units.written(layer).double() for m in (model, changed))
    return float((other - one).norm() / one.norm())


def _after(model: HookedVLM, asked: Sequence[Valued], last: int) -> dict[str, Any]:
    """Of each prompt, after all edits: whether its word leads, its probability, what is left."""
    said, prob = [], []
    for one in asked:
        with torch.no_grad():
            logits = wide(model.run(one.soft, at=one.end)[0, -1])
        said.append(int(logits[: model.lm.n_words].argmax()) == one.token)
        prob.append(float(logits.softmax(-1)[one.token]))
    if not all(said):
        warnings.warn(
            f"After all edits {said.count(False)} of {len(said)} prompts do not say their word,"
            f" prompt {said.index(False)} is the first: name other layers or positions, let less be"
            " preserved, or a larger share= be changed.",
            stacklevel=5,  # of the caller, behind two decorators,
        )
    return {"said": said, "prob": prob, "left": _left(_read(model, asked, [last], last)[1], asked)}
