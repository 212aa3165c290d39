"""The additions of `look(full=True)` to the attribution: the lens, and ablation of neurons.

The lens is one pass, ablation one row of a batch per variant; a `Depth` sets how much is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mmlens.explore.silenced_words import probabilities
from mmlens.explore.strongest import ends_in
from mmlens.methods.logit_lens import logit_lens
from mmlens.model.provenance import about
from mmlens.model.targets import Target
from mmlens.values.arguments import count
from mmlens.values.labels import Neuron, Patch, Token
from mmlens.values.prompt import SoftPrompt
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM


@dataclass(frozen=True)
class Depth:
    """How much `full=True` computes.

    Attributes:
        lens: words per layer and patch.
        lens_layers: the most layers that the lens reads, evenly spaced and including the last:
            logits are computed for each of them at each patch.
        firing: neurons per patch.
        silenced: neurons per word that are ablated, together and one by one.
        one_by_one: which of them are ablated alone, a row of a batch each: those of the "token"
            that `look` explains first, of all tokens of the "caption" that it explains, or of
            `firing` too ("all").
    """

    lens: int = 5
    lens_layers: int = 16
    firing: int = 8
    silenced: int = 10
    one_by_one: Literal["token", "caption", "all"] = "caption"


def read_deeper(
    model: HookedVLM,
    soft: SoftPrompt,
    targets: Sequence[Target],
    table: pd.DataFrame,
    active: pd.DataFrame | None,
    neurons: tuple[Neuron, ...],
    token: Token,
    depth: Depth,
    through: Any,
    pos: Any = Patch,
) -> dict[str, Any]:
    """The parts of a `Look` that it adds, by name.

    Args:
        targets: of every token of the caption, explained or not.
        table: the strongest neurons of the tokens that are explained.
        pos: the positions that the lens reads.
    """
    tokens = tuple(aimed.token for aimed in targets if aimed.token is not None)
    explained = tuple(dict.fromkeys(table["token"]))
    first: Any = table.groupby("token", sort=False).head(depth.silenced)
    groups = [list(first.loc[first["token"] == one, "neuron"]) for one in explained]
    alone = groups[explained.index(token)] if depth.one_by_one == "token" else first["neuron"]
    of_words = set(table["neuron"])
    others = [n for n in neurons if n not in of_words] if depth.one_by_one == "all" else []
    silent = tuple(dict.fromkeys([*alone, *others]))
    prob = probabilities(model, soft, targets, [[], *groups, *([one] for one in silent)])
    told = about(model, method="silencing", site="neurons", value=0.0, at="all positions",
                 prompt=soft)  # fmt: skip
    end, words = 1 + len(groups), {"token": tokens}
    own = prob[1:end][range(len(explained)), [tokens.index(one) for one in explained]]
    return {
        "before": Scores(prob[0], ("token",), words, told),
        "together": Scores(own, ("token",), {"token": explained}, told),
        "without": Scores(prob[end:], ("neuron", "token"), {"neuron": silent} | words, told),
        "lens": logit_lens(
            model,
            soft,
            k=depth.lens,
            layer=spread(model.cfg.n_layers, depth.lens_layers),
            pos=pos,
        ),
        "decoded": ends_in(model, table, active, through),
    }


def spread(layers: int, most: int) -> list[int]:
    """At most `most` of the layers, evenly spaced and including the last."""
    step = -(-layers // count(most, "lens_layers"))
    return list(range(layers - 1, -1, -step))[::-1]
