"""Shifts of concepts between two models, and what a model says when they are added.

The pool gives the concepts (semi-NMF), to which of them a picture belongs, the mean shift of each,
and the directions between nouns; the other pictures are asked. Three kinds of direction are added
to the stream of the last layer:

    shift of the concept       mean over the concept's pictures of (b - a)
    difference of means        mean a of the pictures of the new word, less that of the old
    difference of concepts     of the k-means clusters in which most of their pictures are
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from mmlens.methods.concepts import WordConcepts
from mmlens.methods.representation_shift import concept_shifts, shift_consistency
from mmlens.papers.concepts.word_dictionaries import WordDictionary, means_of
from mmlens.papers.concepts.word_streams import WordStreams
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

SHIFT, COARSE, FINE = "shift of the concept", "difference of means", "difference of concepts"
RANDOM, DRAWN = "random, as long", 8


def longer(arm: str) -> str:
    """The arm of random directions that are as long as those of an arm."""
    return f"{RANDOM} as the {arm}"


class WordShifts:
    """The shifts of a study's concepts.

    Args:
        streams: of both models. made: the concepts of the pool of the first.
    """

    def __init__(
        self, model: HookedVLM, streams: WordStreams, made: WordDictionary, n: int, seed: int
    ) -> None:
        assert streams.after is not None
        self.model, self.streams, self.made = model, streams, made
        self.n, self.seed = n, seed
        self.asked = (~streams.pool).nonzero().flatten().tolist()
        self.moved = streams.after.double() - streams.before.double()
        self.strengths = made.strengths(streams.before)
        self.owner = self.strengths.argmax(-1).tolist()
        own = [self.owner[at] for at in streams.pool.nonzero().flatten().tolist()]
        self.sizes = [own.count(concept) for concept in range(len(made.directions))]
        told = self._told
        self.mean: Float[Tensor, "concept dim"] = concept_shifts(*told).values.double()
        self.now, self.later = self.said(streams.before), self.said(streams.after)

    @property
    def _told(self) -> tuple[Scores, Scores, WordConcepts]:
        """The pool's streams in both models, and its concepts, as the methods take them."""
        pool, axes = self.streams.pool, ("prompt", "dim")
        after: Any = self.streams.after
        strengths = self.strengths[pool].float()
        found = WordConcepts(Scores(self.made.directions.float(), ("concept", "dim")),
                             Scores(strengths, ("prompt", "concept")), 0.0)  # fmt: skip
        return Scores(self.streams.before[pool], axes), Scores(after[pool], axes), found

    def consistency(self) -> pd.DataFrame:
        """`shift_consistency` of the pool."""
        return shift_consistency(*self._told)

    @property
    def contributions(self) -> Float[Tensor, "concept dim"]:
        """What each concept is in its own pictures of the pool, on average."""
        pool = self.streams.pool.nonzero().flatten().tolist()
        rows = []
        for concept, direction in enumerate(self.made.directions):
            own = [at for at in pool if self.owner[at] == concept]
            mean = self.strengths[own, concept].mean() if own else torch.zeros(()).double()
            rows.append(mean * direction)
        return torch.stack(rows)

    def alike(self, at: int) -> tuple[float | None, float | None]:
        """The cosine of a picture's shift with that of its concept, and with those of others.

        None where there is no shift to compare.
        """
        there = [k for k, size in enumerate(self.sizes) if size and bool(self.mean[k].any())]
        if not bool(self.moved[at].any()):
            return None, None
        unit = normalize(self.moved[at], dim=-1)
        cosines = {k: float(normalize(self.mean[k], dim=-1) @ unit) for k in there}
        others = [cosine for k, cosine in cosines.items() if k != self.owner[at]]
        if self.owner[at] not in cosines or not others:
            return None, None
        return cosines[self.owner[at]], sum(others) / len(others)

    def said(self, rows: Float[Tensor, "row dim"]) -> list[int]:
        """The most probable token of each stream of the last layer."""
        lm = self.model.lm
        with torch.no_grad():
            logits = lm.logits_of(rows.to(lm.device, lm.dtype))
        return logits[..., : lm.n_words].argmax(-1).tolist()

    # -- what is said with a direction ---------------------------------------------------------

    def said_new(self) -> pd.DataFrame:
        """Of pictures of which the changed model says another word: sample, arm, value.

        Value is 1 where the first model says that word with the direction of the arm, else 0.
        """
        rows = []
        for at in self.asked:
            if self.later[at] == self.now[at]:
                continue
            vectors = {SHIFT: self.mean[self.owner[at]], **self._between(at)}
            for arm, said in self._with(at, vectors):
                rows.append((self.streams.ids[at], arm, float(said == self.later[at])))
        return pd.DataFrame(rows, columns=["sample", "arm", "value"])

    def words_changed(self) -> pd.DataFrame:
        """Of pictures of which both models say the same: whether what others get changes the word.

        Value is 1 where the first model says another word with a direction that `said_new` adds to
        pictures of another noun and of another concept, else 0.
        """
        moved = [at for at in self.asked if self.later[at] != self.now[at]]
        rows = []
        for at in self.asked:
            if self.later[at] != self.now[at]:
                continue
            for other in self._unlike(at, moved):
                vectors = {SHIFT: self.mean[self.owner[other]], **self._between(other)}
                for arm, said in self._with(at, vectors):
                    rows.append((self.streams.ids[at], arm, float(said != self.now[at])))
        return pd.DataFrame(rows, columns=["sample", "arm", "value"])

    def _unlike(self, at: int, moved: list[int]) -> list[int]:
        """One picture of each way to be moved, of those of another noun and concept than this."""
        nouns, found = self.streams.nouns, {}
        for other in moved:
            if nouns[other] != nouns[at] and self.owner[other] != self.owner[at]:
                way = (self.owner[other], self.streams.tokens[other], self.later[other])
                found.setdefault(way, other)
        return list(found.values())

    def _with(self, at: int, vectors: dict[str, Tensor]) -> list[tuple[str, int]]:
        """What is said of a picture with each vector, and with random ones as long."""
        draw = torch.Generator().manual_seed(self.seed + at)
        noise = normalize(torch.randn(DRAWN, self.mean.shape[1], generator=draw).double(), dim=-1)
        arms = [arm for arm in vectors for _ in range(1 + DRAWN)]
        arms = [longer(arm) if i % (1 + DRAWN) else arm for i, arm in enumerate(arms)]
        added = torch.cat([torch.cat([v[None], v.norm() * noise]) for v in vectors.values()])
        return list(zip(arms, self.said(self.streams.before[at].double() + added), strict=True))

    def _between(self, at: int) -> dict[str, Tensor]:
        """From the noun of a picture to the word that the changed model says, where it is known."""
        old = self.streams.tokens[at]
        new = self.later[at]
        pool = self.streams.pool.tolist()
        rows = {token: [i for i, one in enumerate(self.streams.tokens) if one == token and pool[i]]
                for token in (old, new)}  # fmt: skip
        if not rows[old] or not rows[new]:
            return {}
        mean = {token: self.streams.before[own].double().mean(0) for token, own in rows.items()}
        most = {token: Counter(self._cluster[i] for i in own).most_common(1)[0][0]
                for token, own in rows.items()}  # fmt: skip
        centre = self._clusters.directions
        return {COARSE: mean[new] - mean[old], FINE: centre[most[new]] - centre[most[old]]}

    @cached_property
    def _cluster(self) -> list[int]:
        """The cluster of each picture."""
        return self._clusters.strongest(self.streams.before)

    @cached_property
    def _clusters(self) -> WordDictionary:
        return means_of(self.streams.before[self.streams.pool], self.n, self.seed)
