"""Path patching: what one part tells another directly, with everything between held still.

1. In the base run the sender is patched from the source run, and what attention and MLPs write in
   the layers from the sender's on is frozen at its base values; what arrives at the receiver is
   read.
2. In a second base run only the receiver is patched, with what arrived; the metric is the score.

(Wang et al. 2023; Goldowsky-Dill et al. 2023.) With `through="mlps"` the MLPs between are computed
instead of frozen, as in Wang et al. The receiver None is the end of the residual stream: the direct
effect on the logits.

Edges by gradient are TransformerLens' own: `edge_attribution` runs its tool on a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.edit import Edit
from mmlens.errors import AddressError, CapabilityError
from mmlens.methods.activations import activations
from mmlens.neurons import Head, Neuron
from mmlens.patching.grid import DIRECTIONS
from mmlens.patching.pairs import Pair
from mmlens.patching.variants import Metric, numbers
from mmlens.provenance import about
from mmlens.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model import HookedVLM

Part = Head | Neuron
_SITE: dict[type, str] = {Head: "z", Neuron: "neurons"}
_IN = ("q", "k", "v", "neurons")


@torch.no_grad()
def path_patching(
    model: HookedVLM,
    pair: Pair,
    metric: Metric,
    senders: Sequence[Part],
    receiver: Part | None = None,
    into: str = "v",
    *,
    pos: Any = None,
    direction: str = "denoise",
    through: str = "nothing",
) -> Scores:
    """The metric with each direct path from a sender to the receiver patched: Scores(sender).

    Args:
        senders: Heads or Neurons.
        receiver: a Head (`into` "q", "k" or "v") or a Neuron, or None: the logits.
        pos: positions of the sender that are patched (default: all).
        through: "nothing" (the direct path alone) or "mlps".

    Raises:
        AddressError: the sender does not come before the receiver, or no such direction.
    """
    if direction not in DIRECTIONS or through not in ("nothing", "mlps"):
        raise AddressError("Write direction='denoise' or 'noise', through='nothing' or 'mlps'.")
    if not senders:
        raise AddressError("There is no sender: give at least one Head or Neuron.")
    clean, corrupt = pair.read(model)
    base, source = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    last = model.cfg.n_layers - 1
    end = last if receiver is None else receiver.layer
    site = "resid_post" if receiver is None else into if isinstance(receiver, Head) else _IN[-1]
    if site not in (*_IN, "resid_post"):
        raise AddressError(f"A head reads by 'q', 'k' or 'v', not {into!r}.")
    held = {name: activations(model, base, name) for name in ("attn_out", "mlp_out")}
    address = {} if receiver is None else vars(receiver)
    scores = []
    for sender in senders:
        if receiver is not None and sender.layer >= receiver.layer:
            raise AddressError(f"{sender} does not come before {receiver}: no path leads there.")
        told = activations(model, source, _SITE[type(sender)], layer=sender.layer, pos=pos)
        inner = "head" if isinstance(sender, Head) else "unit"
        chosen = told.sel(**{inner: [vars(sender)[inner]]})
        edits = [Edit(_SITE[type(sender)], chosen, layer=sender.layer)]
        edits += _frozen(held, sender, end, through)
        layer = {"layer": last} if receiver is None else address
        arrived = activations(model.edit(*edits), base, site, **layer)
        if receiver is not None:
            axis = "head" if isinstance(receiver, Head) else "unit"
            values = arrived.values.unsqueeze(1)
            labels = {"pos": arrived.labels.get("pos"), axis: (vars(receiver)[axis],)}
            arrived = Scores(values, ("pos", axis, *arrived.axes[1:]), labels)
        patched = model.edit(Edit(site, arrived, layer=end))
        scores.append(numbers(metric, patched(base)[:, -1])[0])
    ends = {"clean": clean, "corrupt": corrupt}
    told_about = {k: float(numbers(metric, model(soft)[:, -1])[0]) for k, soft in ends.items()}
    what = about(model, method="path_patching", receiver=receiver, into=site, direction=direction,
                 through=through, prompt=clean, **told_about)  # fmt: skip
    return Scores(torch.stack(scores), ("sender",), {"sender": tuple(senders)}, what)


def _frozen(held: dict[str, Scores], sender: Part, end: int, through: str) -> list[Edit]:
    """Edits that hold what the layers between the sender and the receiver write."""
    attn = list(range(sender.layer + 1, end + 1))
    mlp = attn if isinstance(sender, Neuron) else [sender.layer, *attn]
    edits = [Edit("attn_out", held["attn_out"].sel(layer=attn), layer=attn)] if attn else []
    if mlp and through == "nothing":
        edits.append(Edit("mlp_out", held["mlp_out"].sel(layer=mlp), layer=mlp))
    return edits


def edge_attribution(model: HookedVLM, pair: Pair, metric: Metric, k: int = 100) -> pd.DataFrame:
    """The edges between heads and MLPs of largest estimated effect (Syed et al. 2023), by
    TransformerLens' tool: columns writer, reader, pos, score.

    Args:
        metric: differentiable, of the last position's logits Float[d_vocab].

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
    clean, corrupt = (model.to_tokens(soft) for soft in pair.read(model))
    switches = ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in")
    before = {name: bool(getattr(model.cfg, name, False)) for name in switches}
    try:
        for name in switches:
            getattr(model, f"set_{name}")(True)
        how = tool.EdgeAttributionConfig(granularity="edge")
        found = tool.attribution_patch(
            model, clean, corrupt, lambda logits: metric(logits[0, -1]), config=how
        )
    except (ValueError, NotImplementedError, AttributeError) as error:
        raise CapabilityError(f"TransformerLens' edge attribution refuses: {error}") from error
    finally:
        for name, value in before.items():
            getattr(model, f"set_{name}")(value)
    name = lambda node: f"L{node.layer}H{node.head} {node.kind}" if node.head is not None else (  # noqa: E731
        node.kind if node.layer is None else f"L{node.layer} {node.kind}")  # fmt: skip
    labels = model.embed(pair.clean).labels[0]
    rows = [(name(a), name(b), labels[b.position], score) for a, b, score in found.top_edges(k)]
    return pd.DataFrame(rows, columns=["writer", "reader", "pos", "score"])
