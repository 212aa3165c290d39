"""Path patching: the direct effect of one part on another, with everything between frozen.

1. In the base run the sender is patched from the source run, and the outputs of attention and MLPs
in the layers from the sender's on are frozen at their base values; the receiver's input is
recorded. 2. In a second base run only the receiver is patched, with that input; the metric is the
score.

(Wang et al. 2023; Goldowsky-Dill et al. 2023.) With `through="mlps"` the MLPs between are computed
instead of frozen, as in Wang et al. The receiver None is the end of the residual stream: the direct
effect on the logits.

Edges by gradient are TransformerLens' own: `edge_attribution` runs its tool on a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.causal.many_pairs import over_pairs
from mmlens.causal.measures import name_of
from mmlens.causal.pairs import A_PAIR, Pair
from mmlens.causal.prefix_reuse import edited
from mmlens.causal.variants import Metric, differentiable, measured, numbers
from mmlens.methods.activations import activations
from mmlens.methods.patch import DIRECTIONS
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.progress import Progress, tracked
from mmlens.values.addresses import places
from mmlens.values.arguments import count, instance
from mmlens.values.edit import Edit
from mmlens.values.errors import AddressError, CapabilityError, MMLensError
from mmlens.values.labels import Head, Neuron
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES, readers
from mmlens.values.unit_lists import one_unit, units_in

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM

Part = Head | Neuron
_SITE: dict[type, str] = {Head: "z", Neuron: "neurons"}


@needs("logits", "blocks")
@over_pairs()
@torch.no_grad()
def path_patching(
    model: HookedVLM,
    pair: Pair,
    metric: Metric,
    senders: Any,
    receiver: Any = None,
    into: str = "v",
    *,
    pos: Any = None,
    direction: str = "denoise",
    through: str = "nothing",
    progress: Progress | bool | None = None,
) -> Scores:
    """The metric with each direct path from a sender to the receiver patched: Scores(sender).

    Args:
        senders: Heads or Neurons: one, a list, a Series, or a table of them.
        receiver: a Head (`into` "q", "k" or "v") or a Neuron, or None: the logits. Where several
            heads share a key and a value (grouped-query attention), all of them receive it.
        pos: positions of the sender that are patched (default: all).
        through: "nothing" (the direct path alone) or "mlps".
        progress: as in `patch`.

    Raises:
        AddressError: the sender does not come before the receiver, or no such direction.
    """
    senders = units_in(senders, "senders")
    receiver = receiver if receiver is None else one_unit(receiver, "receiver", (Head, Neuron))
    site = _way_in(senders, receiver, into, direction, through)
    clean, corrupt = instance(pair, "pair", Pair, A_PAIR).read(model)
    base, source = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    end = model.cfg.n_layers - 1 if receiver is None else receiver.layer
    inner = _inner(model, receiver, site)
    where = places(base.labels[0], pos, "pos")
    writes = ("attn_out", "mlp_out", *(["cross_attn_out"] if base.picture_keys is not None else []))
    held = {name: activations(model, base, name) for name in writes}
    scores = []
    for sender in tracked(senders, "path_patching", progress):
        kind = _SITE[type(sender)]
        sent = activations(model, source, kind, layer=sender.layer, pos=where)
        here = {**sent.labels, "pos": tuple(base.labels[0][i] for i in where)}  # the base's
        sent = Scores(sent.values, sent.axes, here, sent.about)
        sent = sent.sel(**{_axis(sender): [vars(sender)[_axis(sender)]]})
        frozen = _frozen(held, sender, end, through)
        sending = edited(model, Edit(kind, sent, layer=sender.layer), *frozen)
        arrived = activations(sending, base, site, layer=end, **inner)
        patched = edited(model, Edit(site, arrived, layer=end))
        scores.append(numbers(metric, patched(base)[:, -1])[0])
    ends = {"clean": clean, "corrupt": corrupt}
    told = {name: float(numbers(metric, model(soft)[:, -1])[0]) for name, soft in ends.items()}
    told |= {"method": "path_patching", "receiver": receiver, "into": site, "prompt": clean}
    told |= {"direction": direction, "through": through, "metric": name_of(metric)}
    return Scores(
        torch.stack(scores), ("sender",), {"sender": tuple(senders)}, about(model, **told)
    )


def _inner(model: HookedVLM, receiver: Part | None, site: str) -> dict[str, list[int]]:
    """The index of the site's inner axis that the receiver reads."""
    if receiver is None:
        return {}
    number, size, share = _index(receiver), model.cfg.d_mlp, 1
    if isinstance(receiver, Head):
        share, size = readers(SITES[site], model.cfg), int(model.cfg.n_heads)
    [index] = places(range(size), number, _axis(receiver))
    return {_axis(receiver): [index // share]}


def _index(part: Part) -> int:
    return part.head if isinstance(part, Head) else part.unit


def _axis(part: Part) -> str:
    return "head" if isinstance(part, Head) else "unit"


def _way_in(
    senders: Sequence[Part], receiver: Part | None, into: str, direction: str, through: str
) -> str:
    """The site of the receiver's input, after the arguments were checked."""
    if direction not in DIRECTIONS or through not in ("nothing", "mlps"):
        raise AddressError("Write direction='denoise' or 'noise', through='nothing' or 'mlps'.")
    if not senders:
        raise AddressError("There is no sender: give at least one Head or Neuron.")
    for part in (*senders, *([] if receiver is None else [receiver])):
        if min(part.layer, _index(part)) < 0:
            raise AddressError(f"{part} is no part of a model: numbers count from 0.")
    late = [s for s in senders if receiver is not None and s.layer >= receiver.layer]
    if late:
        raise AddressError(f"{late[0]} does not come before {receiver}: no path leads there.")
    if isinstance(receiver, Head) and into not in ("q", "k", "v"):
        raise AddressError(f"A head reads by 'q', 'k' or 'v', not {into!r}.")
    return "resid_post" if receiver is None else into if isinstance(receiver, Head) else "neurons"


def _frozen(held: dict[str, Scores], sender: Part, end: int, through: str) -> list[Edit]:
    """Edits that freeze the outputs of the layers between the sender and the receiver."""
    attn = list(range(sender.layer + 1, end + 1))
    mlp = attn if isinstance(sender, Neuron) else [sender.layer, *attn]
    edits = _held("attn_out", held, [at for at in attn if at in held["attn_out"].of("layer")])
    if through == "nothing":
        edits += _held("mlp_out", held, mlp)
    if "cross_attn_out" in held:
        edits += _held("cross_attn_out", held, mlp)
    return edits


def _held(site: str, held: dict[str, Scores], layers: list[int]) -> list[Edit]:
    """Edits that freeze the activations at a site in those of some layers that have it."""
    layers = [layer for layer in layers if layer in held[site].of("layer")]
    return [Edit(site, held[site].sel(layer=layers), layer=layers)] if layers else []


@needs("logits", "blocks", "positions")
@over_pairs()
@ordinary()
def edge_attribution(model: HookedVLM, pair: Pair, metric: Metric, k: int = 100) -> pd.DataFrame:
    """The edges between heads and MLPs of largest estimated effect (Syed et al. 2023), by
    TransformerLens' tool: columns writer, reader, pos, score.

    Args:
        metric: a differentiable function of the last position's logits Float[d_vocab].

    Raises:
        CapabilityError: this TransformerLens has no such tool, or it refuses the model.
    """
    import pandas as pd

    try:
        from transformer_lens.tools.analysis import attribution_patching as tool
    except ImportError:
        raise CapabilityError(
            "Edge attribution is TransformerLens' own and came with version 4: update it, or"
            " patch paths with patching.path_patching(...)."
        ) from None
    k = count(k, "k")
    instance(pair, "pair", Pair, A_PAIR)

    def judged(logits: torch.Tensor) -> torch.Tensor:
        return differentiable(measured(metric, logits[0, -1]))

    clean, corrupt = (model.to_tokens(soft) for soft in pair.read(model))
    switches = ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in")
    before = {name: bool(getattr(model.cfg, name, False)) for name in switches}
    try:
        for name in switches:
            getattr(model, f"set_{name}")(True)
        how = tool.EdgeAttributionConfig(granularity="edge")
        found = tool.attribution_patch(model, clean, corrupt, judged, config=how)
    except MMLensError:
        raise
    except (ValueError, NotImplementedError, AttributeError) as error:
        raise CapabilityError(f"TransformerLens' edge attribution refuses: {error}") from error
    finally:
        for name, value in before.items():
            getattr(model, f"set_{name}")(value)
    name = lambda node: f"L{node.layer}H{node.head} {node.kind}" if node.head is not None else (  # noqa: E731
        node.kind if node.layer is None else f"L{node.layer} {node.kind}")  # fmt: skip
    labels = model.embed(pair.clean).labels[0]
    rows = [(name(a), name(b), labels[b.position], score) for a, b, score in found.top_edges(k)]
    finite(torch.tensor([score for *_, score in rows]), "the scores of edges")
    return pd.DataFrame(rows, columns=["writer", "reader", "pos", "score"])
