"""Which words does each lens read off the patches of a thing?

1. The picture shows one thing, whose name is one token; its patches are those under its mask, at
   most `most` of them, evenly spread.
2. Every lens reads the k best words of each of these patches, after about eight layers
   (`nearest_tokens` reads the soft prompt, which is layer -1 here).
3. Of each lens and layer are kept all words, with the share of the patches at which they are read.

So that the share at which the thing's own word is read can be held against the share at which the
same word is read off the patches of *other* things: `points`. 0 points is what any picture would
give, 100 a lens that names every patch and only its own.

Positions: patches. Path: none of the picture's; a patchscope also reads the target prompt. A word
is compared in small letters, without the space before it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmlens.causal.masked_patches import patches_under
from mmlens.datasets.sample import Sample
from mmlens.methods.attention_lens import heads_at
from mmlens.methods.contextual_neighbours import contextual_neighbours
from mmlens.methods.logit_lens import logit_lens
from mmlens.methods.nearest_tokens import nearest_tokens
from mmlens.methods.patchscope import patchscope
from mmlens.model.targets import one
from mmlens.papers.bootstrap import DRAWS, summarise
from mmlens.papers.lenses.lens_fits import PARTS, REFUSED, FittedLenses, asked_layers
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT
from mmlens.papers.tables import ExperimentError, finished, used
from mmlens.values.arguments import choice, count, several
from mmlens.values.errors import TargetError
from mmlens.values.labels import Patch
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

K, MOST, SHARE = 5, 8, 0.5
GROUPS = ("soft prompt", "early", "middle", "late")
COLUMNS = ("noun", "lens", "layer", "layers", "patches", "words")
UNSHOWN, UNCOVERED = "it does not show one thing with a mask", "its mask covers no patch"
PIECES = "the thing's name is not one token"
RANGES: dict[str, tuple[float, float]] = dict.fromkeys(GROUPS, (-100.0, 100.0))
Read = dict[int, list[set[str]]]
"""By layer (-1: the soft prompt), the words of each patch."""
LENSES = {
    "nearest": "nearest_tokens",
    "logit": "logit_lens",
    "tuned": "logit_lens through tuned_lens",
    "jacobian": "logit_lens through jacobian_lens",
    "identity": "patchscope, the identity prompt",
    "caption": "patchscope, the last word of a caption",
    "place": "patchscope, the picture of a caption",
    "neighbours": "contextual_neighbours",
    "centred": "contextual_neighbours, centred",
    "same": "contextual_neighbours, the same layer",
    "heads": "head_lens through attention_lens",
}
"""By what they are called here, the lenses as they are written out."""
INTO = {"identity": {}, "caption": {"into": "A picture of a"},
        "place": {"into": ", A picture of a", "into_pos": 0}}  # fmt: skip
NEAR = {"neighbours": {}, "centred": {"centred": True}, "same": {"text_layer": "same"}}


def lens_words(
    model: HookedVLM,
    sample: Sample,
    *,
    lenses: Sequence[str] = ("nearest", "logit"),
    fits: FittedLenses | None = None,
    k: int = K,
    most: int = MOST,
    share: float = SHARE,
    prompt: str = PROMPT,
) -> pd.DataFrame:
    """What every lens reads off the patches of the one thing that a picture shows.

    Args:
        lenses: some of `LENSES`.
        fits: what `fitted_lenses` returned, for those that are fitted.
        k: words that a lens reads of each patch.
        most: patches that are read.
        share: so much of a patch must lie under the mask.
        prompt: what follows the picture.

    Returns:
        noun, lens, layer, layers (of the model), patches (how many), words (JSON: by word, the
        share of the patches at which it is read), skipped, options.

    Raises:
        ExperimentError: no such lens, one whose fit is missing, or a model whose pictures are no
            positions of its language model.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    chosen = known_lenses(lenses)
    for lens in chosen:
        if lens in PARTS and PARTS[lens] not in (getattr(fits, "held", None) or {}):
            raise ExperimentError(
                f"The lens {lens!r} is fitted: give fits=, of fitted_lenses(model, pool, folder,"
                " lenses)."
            )
    most = count(most, "most", error=ExperimentError)
    soft, thing, at = _shown(model, sample, prompt, share, most)
    if not at:
        return asked.skipped(thing)
    rows = []
    for lens in chosen:
        for layer, words in read_by(model, soft, at, lens, fits, k).items():
            told = json.dumps(_shares(words))
            rows.append((thing, lens, layer, model.cfg.n_layers, len(at), told))
    return asked.answered(rows)


def known_lenses(lenses: Any) -> list[str]:
    """The lenses by name, each once.

    Raises:
        ExperimentError: none, or one that there is not.
    """
    found = several(lenses, "lenses", error=ExperimentError)
    return [choice(lens, "lenses", tuple(LENSES), error=ExperimentError)
            for lens in dict.fromkeys(found)]  # fmt: skip


def refused_by(
    model: HookedVLM, sample: Sample, lens: str, fits: FittedLenses, prompt: str = PROMPT
) -> str:
    """Why the model cannot be read by a lens; empty where it can. One patch is tried."""
    soft = _read(model, sample, prompt)
    first = next(label for label in soft.labels[0] if isinstance(label, Patch))
    try:
        read_by(model, soft, [first], lens, fits, 1)
    except REFUSED as error:
        return str(error)
    return ""


def read_by(model: Any, soft: Any, at: list[Patch], lens: str, fits: Any, k: int = K) -> Read:
    """The words that one lens reads off some patches of a prompt, layer by layer."""
    held = {} if fits is None else fits.held
    how: dict[str, Any] = {"layer": asked_layers(model), "pos": at, "k": k}
    if lens == "nearest":
        return _words(nearest_tokens(model, soft, k, pos=at))
    if lens in INTO:
        return _words(patchscope(model, soft, **INTO[lens], **how))
    if lens in NEAR:
        return _words(contextual_neighbours(model, soft, held["index"], **NEAR[lens], **how))
    if lens == "heads":
        return {layer: _of_heads(model, soft, at, maps, k) for layer, maps in held["heads"].items()}
    through = {} if lens == "logit" else {"through": held[lens]}
    return _words(logit_lens(model, soft, **through, **how))


def _of_heads(model: Any, soft: Any, at: list[Patch], maps: Any, k: int) -> list[set[str]]:
    """The words that the heads of a layer say together."""
    places = [soft.labels[0].index(patch) for patch in at]
    z, _ = heads_at(model, soft, maps.layer, places)
    best = maps.logits(z).sum(1).topk(min(k, maps.maps.shape[-1])).indices.tolist()
    return [{_spelt(model.to_string([token])) for token in row} for row in best]


def _words(table: Any) -> Read:
    """The words of each layer and patch of a lens's table."""
    table = table if "layer" in table.columns else table.assign(layer=-1)
    told = table.assign(token=[_spelt(token) for token in table["token"]])
    found: Read = {}
    for (layer, _), rows in told.groupby(["layer", "pos"], sort=False):
        found.setdefault(int(layer), []).append(set(rows["token"]))
    return found


def _spelt(token: str) -> str:
    return token.strip().lower()


def _shares(words: list[set[str]]) -> dict[str, float]:
    """By word, the share of the patches at which it is read."""
    every = sorted(set().union(*words))
    return {word: sum(word in some for some in words) / len(words) for word in every}


def _read(model: Any, sample: Sample, prompt: str) -> Any:
    """The picture with its words, as positions.

    Raises:
        ExperimentError: the picture is none.
    """
    soft = one(model, Prompt(sample.image, prompt))
    if not any(isinstance(label, Patch) for label in soft.labels[0]):
        raise ExperimentError(
            f"{model.name!r} reads pictures beside its positions, so no lens can be asked at a"
            " patch: give a model whose pictures are positions."
        )
    return soft


def _shown(
    model: Any, sample: Sample, prompt: str, share: float, most: int
) -> tuple[Any, str, list[Patch]]:
    """The prompt, the thing's word and its patches; without patches, the reason in its place."""
    things = [thing for thing in sample.things if thing.mask is not None]
    if len(sample.things) != 1 or not things:
        return None, UNSHOWN, []
    name = things[0].name.strip()
    try:
        model.to_single_token(f" {name}")
    except TargetError:
        return None, PIECES, []
    soft = _read(model, sample, prompt)
    there = set(soft.labels[0])
    under = patches_under(model, things[0].mask, sample.image, share)
    at = [patch for patch in under if patch in there]
    return soft, name.lower() if at else UNCOVERED, at[:: -(-len(at) // most)] if at else []


def points(table: pd.DataFrame) -> pd.DataFrame:
    """Every lens at every picture, against the pictures of other things.

    Args:
        table: of `lens_words`.

    Returns:
        sample, arm (the lens), metric (soft prompt, or the third of the layers), own (the share of
        the patches at which the thing's word is read, in percent), other (that at which the same
        word is read in pictures of other things, the mean over these), value (own - other).

    Raises:
        ExperimentError: all pictures show the same thing.
    """
    rows = used(table, *COLUMNS)
    n_layers = int(rows["layers"].iloc[0])
    nouns = sorted(set(rows["noun"]))
    if len(nouns) < 2:
        raise ExperimentError(
            f"All pictures show a {nouns[0]}, so no word can be compared with those of other"
            " things: give pictures of several things."
        )
    found = []
    for (lens, layer), here in rows.groupby(["lens", "layer"], sort=False):
        read = [json.loads(words) for words in here["words"]]
        said = np.array([[words.get(noun, 0.0) for noun in nouns] for words in read])
        own = np.array([nouns.index(noun) for noun in here["noun"]])
        others = own[:, None] != own[None, :]  # picture i shows another thing than picture j
        there = others.sum(1)
        chance = (others * said.T[own]).sum(1) / np.where(there, there, 1)
        mine = said[np.arange(len(own)), own]
        part = pd.DataFrame({"sample": here["sample"], "arm": lens,
                             "metric": third(int(layer), n_layers), "own": 100 * mine,
                             "other": 100 * chance})  # fmt: skip
        found.append(part[there > 0])
    every: Any = pd.concat(found, ignore_index=True)
    every = every.groupby(["sample", "arm", "metric"], sort=False, as_index=False).mean()
    return every.assign(value=every["own"] - every["other"])


def third(layer: int, n_layers: int) -> str:
    """The third of the layers that a layer is in; -1 is the soft prompt."""
    return GROUPS[0] if layer < 0 else GROUPS[1 + min(2, 3 * layer // n_layers)]


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """By arm (the lens) and metric (the third of the layers), the mean points over pictures."""
    rows: Any = points(table)[["sample", "arm", "metric", "value"]]
    out = summarise(rows, ["arm", "metric"], ranges=RANGES, draws=draws, seed=seed)
    return finished(out, "lenses", table, draws=draws, seed=seed)
