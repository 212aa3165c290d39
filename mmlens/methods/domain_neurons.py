"""Domain-specific neurons: units that are active in few of several domains.

Huo et al. (2024, "MMNeuron: Discovering Neuron-Level Domain-Specific Interpretation in Multimodal
Large Language Model", section 3.2), after the LAPE of Tang et al. (2024). Over all positions of
the prompts of each domain d,

    P[d, l, n] = share of positions where a[l, n] > 0                 (`active_share`)
    q = P / sum over d of P,       H[l, n] = - sum over d of q log q  (in nats: `domain_neurons`)

Units whose largest P does not exceed the `quantile` of all P are left out as seldom active; of the
others the `share` of all units with the least H are domain-specific. A unit belongs to each domain
whose P exceeds that quantile, and in the table to the one where it is most active.

A unit can be specific to words, lengths or positions that only one domain's prompts have. The
control is to divide the prompts of one domain at random and to ask again: that list is as long, and
its entropies are what chance gives.

Positions: those of the prompts (`pos=Patch`: the picture's). Path: none; what is counted is
activity, and not an effect. Counts alone are kept, never activations.

    shares = active_share(model, {"dogs": with_dogs, "none": without}, pos=Patch)
    domain_neurons(shares)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.jacobian_lens import prompts_in
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import finite, one
from mmlens.runtime.progress import Progress, tracked
from mmlens.values.addresses import places
from mmlens.values.arguments import choice, instance, number
from mmlens.values.errors import AddressError, ArgumentError
from mmlens.values.labels import Neuron
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM

_SITES = {"pre": "neurons_pre", "post": "neurons"}


@needs("neurons")
def active_share(
    model: HookedVLM,
    domains: Mapping[str, Sequence[Any]],
    *,
    point: str = "pre",
    pos: Any = None,
    progress: Progress | bool | None = None,
) -> Scores:
    """The share of positions at which each unit is active (above 0): Scores(domain, layer, unit).

    Args:
        domains: prompts by the name of what they have in common.
        point: "pre" or "post" the activation function; of a gated MLP "pre" is the gate's input
            (as in the paper), "post" its product with the value.
        pos: the positions that are counted, as in `Scores.sel` (default: all).
        progress: as in `patch`, of the prompts of all domains.

    Raises:
        ArgumentError: fewer than two domains. AddressError: a prompt without such a position.
    """
    choice(point, "point", tuple(_SITES))
    domains = instance(domains, "domains", Mapping, "a mapping, {'indoors': prompts, ...}")
    if len(domains) < 2:
        raise ArgumentError(
            f"domains={list(domains)}: units are specific to one of several domains; give two."
        )
    model.lm.units.need(model.name, point=point)
    many = [prompts_in(prompts) for prompts in domains.values()]
    every = [(at, prompt) for at, prompts in enumerate(many) for prompt in prompts]
    counts: list[Any] = [0] * len(many)
    positions = [0] * len(many)
    for at, prompt in tracked(every, "domains", progress):
        found, n = _active(model, prompt, _SITES[point], pos)
        counts[at] = counts[at] + found
        positions[at] += n
    shares = [(found / n).float() for found, n in zip(counts, positions, strict=True)]
    told = about(model, method="active_share", point=point, pos=pos)
    labels = {"domain": tuple(map(str, domains)), "layer": tuple(range(model.cfg.n_layers))}
    return Scores(torch.stack(shares), ("domain", "layer", "unit"), labels, told)


def _active(
    model: HookedVLM, prompt: Any, site: str, pos: Any
) -> tuple[Float[Tensor, "layer unit"], int]:
    """At how many of a prompt's positions each unit is above 0, and of how many."""
    names = [SITES[site].at(layer) for layer in range(model.cfg.n_layers)]
    soft = one(model, prompt)
    where = places(soft.labels[0], pos, "pos")
    look = lambda x: (finite(x[0, where], "the activations") > 0).sum(0)  # noqa: E731
    with torch.no_grad(), capture(model, names, look) as kept:
        model.run(soft)
    return torch.stack([kept[at] for at in names]).double(), len(where)


def domain_neurons(shares: Scores, *, share: float = 0.01, quantile: float = 0.95) -> pd.DataFrame:
    """The units that are active in few domains: one row each, the most specific first.

    Args:
        shares: what `active_share` returns.
        share: of all units, how many are listed at most.
        quantile: of all shares; what a unit exceeds in no domain is seldom active, and left out.

    Returns:
        Columns neuron, domain (where it is most active), entropy, and the share of each domain by
        its name.

    Raises:
        AddressError: other scores. ArgumentError: a share or quantile outside of 0 to 1.
    """
    import pandas as pd

    instance(shares, "shares", Scores, "what active_share(model, domains) returns")
    if shares.axes != ("domain", "layer", "unit"):
        raise AddressError(
            f"{shares!r} has no shares by domain: give what active_share(model, domains) returns."
        )
    number(share, "share", above=0, most=1)
    number(quantile, "quantile", least=0, most=1)
    active = shares.values.double().flatten(1)  # domain, unit of any layer
    entropy = entropies(active)
    ordered = active.flatten().sort().values
    bar = ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]
    entropy = entropy.masked_fill(active.amax(0) <= bar, torch.inf)
    listed = entropy.argsort(stable=True)[: max(1, round(share * len(entropy)))]
    listed = listed[entropy[listed].isfinite()].tolist()
    names, layers, width = shares.of("domain"), shares.of("layer"), shares.shape[-1]
    rows = [
        (Neuron(layers[at // width], at % width), names[int(active[:, at].argmax())],
         float(entropy[at]), *active[:, at].tolist())
        for at in listed
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["neuron", "domain", "entropy", *names])


def entropies(shares: Float[Tensor, "*domain"]) -> Float[Tensor, "*rest"]:
    """The entropy of each unit's shares over the domains, in nats; infinite where all are 0."""
    total = shares.sum(0)
    q = shares / total.clamp(min=1e-12)
    return torch.special.entr(q).sum(0).masked_fill(total == 0, torch.inf)
