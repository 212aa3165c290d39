"""The lists that do not read the explained word: of modalities (MINER), of a thing (MMNeuron).

Both are made of a pool of pictures, others than those that are asked later. MINER's are the units
that matter at the picture's positions and at those of words, half and half, with the paper's
weights. MMNeuron's domains are here the things that are in the picture: the units of a domain are
all that are assigned to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mmlens.datasets.sample import Sample
from mmlens.methods.domain_neurons import active_share, domain_neurons
from mmlens.methods.modality_neurons import modality_importance, modality_neurons
from mmlens.papers.tables import by_id
from mmlens.runtime.progress import Progress
from mmlens.values.arguments import count, number
from mmlens.values.labels import Patch
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

MODALITY, DOMAIN = "modality neurons (MINER)", "domain neurons (MMNeuron)"
Lists = dict[str, list[str] | dict[str, list[str]]]
"""By name, neurons as they print; or such lists by the noun that they are for."""


def pool_lists(
    model: HookedVLM,
    pool: Iterable[Sample],
    *,
    share: float = 0.02,
    some: int = 20,
    prompt: str,
    progress: Progress | bool | None = None,
) -> Lists:
    """Neurons of the two modalities, and of each thing in the pool.

    Args:
        pool: pictures whose things are known, for the second list.
        share: of all units, so many are MINER's.
        some: MINER reads the first so many pictures.
        prompt: what follows the picture.
        progress: as in `patch`, prompt by prompt.

    Returns:
        `MODALITY`, and `DOMAIN` by the name of a thing where two things are in the pool.
    """
    samples = list(by_id(pool).values())
    share, some = number(share, "share", above=0, most=1), count(some, "some")
    prompts: dict[str, list[Prompt]] = defaultdict(list)
    for sample in samples:
        for name in {thing.name for thing in sample.things}:
            prompts[name].append(Prompt(sample.image, prompt))
    first = [Prompt(sample.image, prompt) for sample in samples[:some]]
    found = modality_importance(model, first, metrics=["mean", "max", "attended"],
                                progress=progress)  # fmt: skip
    k = max(2, round(share * model.cfg.n_layers * model.cfg.d_mlp))
    table = modality_neurons(found, k).sort_values("score", ascending=False, kind="stable")
    lists: Lists = {MODALITY: list(dict.fromkeys(map(str, table["neuron"])))}  # some are in both
    if len(prompts) > 1:
        shares = active_share(model, prompts, pos=Patch, progress=progress)
        each: Any = domain_neurons(shares, share=1.0)
        lists[DOMAIN] = {str(domain): [str(neuron) for neuron in rows["neuron"]]
                         for domain, rows in each.groupby("domain", sort=False)}  # fmt: skip
    return lists
