"""Do units of a CLIP ResNet answer to the words that were published of them?

Of 66 region units of four models the 20 words are published, out of 10,000 common English ones,
that excite them most as rendered images (static/diagram-data/regional of the paper's repository).
Here they are probed among each other and among other English words; of each unit it is counted how
many of the published first five are among our first twenty.

    mmlens reproduce goh --model open_clip:RN50x4/openai --regions
    mmlens reproduce goh --model open_clip:RN50x4/openai --regions --site vision.resid_add

The list of 10,000 is not part of the published data, so the background differs.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from mmlens.methods.word_probe import TOWER, top_words, word_probe
from mmlens.model.capabilities import needs
from mmlens.methods.site_before_last import site_before_last
from mmlens.papers.tables import ExperimentError
from mmlens.values.arguments import choice, count
from mmlens.values.english import english_words
from mmlens.values.labels import Neuron

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_model import HookedModel

PUBLISHED = {"RN50x4": "contrastive_4x", "RN101": "contrastive_v2", "RN50": "contrastive_rn50"}
"""The models whose weights were released, by what the data call them."""
FIRST, AMONG = 5, 20


def published_words(network: str = "RN50x4") -> dict[int, list[str]]:
    """Unit -> its 20 published words, the strongest first."""
    choice(network, "network", tuple(PUBLISHED))
    file = files("mmlens.papers.goh").joinpath("published/region_words.json")
    told = json.loads(file.read_text(encoding="utf-8"))["units"]
    return {one["unit"]: one["words"] for one in told if one["model"] == PUBLISHED[network]}


@needs("pictures")
def region_check(
    model: HookedModel,
    network: str = "RN50x4",
    *,
    background: int = 500,
    layer: int = -1,
    site: str | None = None,
    **read: Any,
) -> pd.DataFrame:
    """One row per published unit: neuron, found (of the first 5 published), words, published.

    Args:
        network: which network's units: "RN50x4", "RN101" or "RN50".
        background: English words that are probed besides the published ones.
        layer, read: as in `word_probe`.
        site: where units are read; by default the last layer's map before its ReLU, as in the
            paper ("vision.resid_add" of CLIP's ResNets).

    Raises:
        ExperimentError: the layer has fewer units than were published.
    """
    import pandas as pd

    known = published_words(network)
    few, every = count(background, "background", least=0), sorted(english_words())
    step = max(1, len(every) // max(few, 1))
    more = every[step // 2 :: step][:few]
    words = dict.fromkeys([*(word for own in known.values() for word in own), *more])
    where = site_before_last(model, layer, site)
    scores = word_probe(model, list(words), layer=layer, site=where, **read)
    width, at = scores.shape[1], int(scores.about["layer"])
    if max(known) >= width:
        raise ExperimentError(
            f"Layer {at} of {model.name!r} has {width} units, and units up to {max(known)} were"
            f" published of {network}: give a model of that architecture."
        )
    rows = []
    for unit, own in known.items():
        neuron = Neuron(at, unit, TOWER)
        mine = top_words(scores, AMONG, neurons=neuron)["word"].tolist()
        found = sum(word in mine for word in own[:FIRST])
        rows.append((neuron, found, ", ".join(mine[:FIRST]), ", ".join(own[:FIRST])))
    return pd.DataFrame(rows, columns=["neuron", "found", "words", "published"])
