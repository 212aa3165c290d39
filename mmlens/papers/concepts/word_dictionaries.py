"""Dictionaries of streams, each a way to directions, their words, and how strong they are in a row.

    semi-NMF               sums of directions, never differences (`methods.concepts`)
    k-means                the means of clusters; 1 / (1 + distance) is how strong one is
    PCA                    principal directions, each with the sign of its largest activation
    strongest pictures     the longest rows themselves (the paper's "Simple"), by cosine
    random words           semi-NMF's activations, with the words of random directions ("Rnd-Words")

How strong semi-NMF's directions are in new rows: min |z - v U|^2 over v >= 0. The words are those
of the logit lens, of at least three letters, out of the 50 most probable, as the paper filters them
(it also asks for English ones).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from mmlens.methods.concepts import clusters, concepts
from mmlens.papers.mmn.questions.explained import names_thing
from mmlens.towers.language.tokenization import word
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

NMF, MEANS, AXES = "semi-NMF", "k-means", "PCA"
LONGEST, RANDOM = "strongest pictures", "random words"
OF, LLOYD = 50, 50
"""Tokens of the lens that words are taken from; steps of k-means."""
Rows = Float[Tensor, "row dim"]


@dataclass(frozen=True, eq=False)
class WordDictionary:
    """Directions, and how strong each is in rows.

    Attributes:
        directions: Float[n, dim].
        strengths: a function of Float[row, dim] that gives Float[row, n].
    """

    directions: Float[Tensor, "n dim"] = field(repr=False)
    strengths: Callable[[Rows], Float[Tensor, "row n"]] = field(repr=False)

    def strongest(self, rows: Rows) -> list[int]:
        """Which direction is strongest in each row."""
        return self.strengths(rows).argmax(-1).tolist()


def semi_nmf_of(rows: Rows, n: int, seed: int = 0) -> WordDictionary:
    """Semi-NMF's directions, of length 1."""
    found = concepts(Scores(rows, ("prompt", "dim")), n, seed=seed)
    U = found.directions.values.double()
    return WordDictionary(U, lambda new: sums(new, U))


def sums(rows: Rows, directions: Float[Tensor, "n dim"]) -> Float[Tensor, "row n"]:
    """The weights, none below 0, of the sum of directions that is nearest to each row."""
    from scipy.optimize import nnls

    A = directions.double().T.numpy()
    return torch.from_numpy(np.stack([nnls(A, row)[0] for row in rows.double().numpy()]))


def means_of(rows: Rows, n: int, seed: int = 0) -> WordDictionary:
    """The means of k-means' clusters."""
    owner = clusters(rows.double(), n, seed, LLOYD)
    own = torch.nn.functional.one_hot(owner, n).double()
    own = own[:, own.sum(0) > 0]
    means = own.T @ rows.double() / own.sum(0)[:, None]
    return WordDictionary(means, lambda new: 1 / (1 + torch.cdist(new.double(), means)))


def axes_of(rows: Rows, n: int, seed: int = 0) -> WordDictionary:
    """Principal directions; there are no more than rows."""
    mean = rows.double().mean(0)
    _, _, axes = torch.linalg.svd(rows.double() - mean, full_matrices=False)
    axes = axes[:n]
    along = (rows.double() - mean) @ axes.T
    largest = along.gather(0, along.abs().argmax(0, keepdim=True))[0]
    axes = axes * torch.where(largest < 0, -1.0, 1.0)[:, None]
    return WordDictionary(axes, lambda new: (new.double() - mean) @ axes.T)


def longest_of(rows: Rows, n: int, seed: int = 0) -> WordDictionary:
    """The longest rows."""
    chosen = rows.norm(dim=-1).argsort(descending=True, stable=True)[:n]
    U = normalize(rows[chosen].double(), dim=-1)
    return WordDictionary(U, lambda new: normalize(new.double(), dim=-1) @ U.T)


def random_words_of(rows: Rows, n: int, seed: int = 0) -> WordDictionary:
    """Random directions, as strong as those of semi-NMF."""
    draw = torch.Generator().manual_seed(seed)
    U = normalize(torch.randn(n, rows.shape[1], generator=draw, dtype=torch.double), dim=-1)
    return WordDictionary(U, semi_nmf_of(rows, n, seed).strengths)


MADE: dict[str, Callable[..., WordDictionary]] = {
    NMF: semi_nmf_of, MEANS: means_of, AXES: axes_of, LONGEST: longest_of, RANDOM: random_words_of,
}  # fmt: skip


def words_of(model: HookedVLM, directions: Float[Tensor, "n dim"], k: int = 10) -> list[list[str]]:
    """The first k words of each direction by the logit lens; fewer where the lens has fewer."""
    with torch.no_grad():
        rows = directions.to(model.lm.device, model.lm.dtype)
        logits = model.lm.logits_of(rows).float()[:, : model.lm.n_words]
        best = logits.topk(min(OF, logits.shape[-1])).indices.tolist()
    said = []
    for row in best:
        every = [word(model.lm, token).strip().casefold() for token in row]
        said.append([one for one in dict.fromkeys(every) if one.isalpha() and len(one) > 2][:k])
    return said


def named(words: Sequence[str], things: Sequence[str]) -> bool:
    """Whether one of the words is the name of one of the things."""
    return any(names_thing(one, thing) for one in words for thing in things)


def shared_words(words: Sequence[Sequence[str]]) -> float:
    """The mean share of a direction's words that another one has (`methods.concepts.overlap`)."""
    import pandas as pd

    from mmlens.methods.concepts import overlap

    return overlap(pd.DataFrame({"words": [list(row) for row in words if row]}))


def found_again(one: Float[Tensor, "n dim"], other: Float[Tensor, "m dim"]) -> Any:
    """The cosine of each direction with its partner in the other dictionary, one to one.

    Partners are those of the largest sum of cosines (Hungarian assignment).
    """
    from scipy.optimize import linear_sum_assignment

    cosines = (normalize(one.double(), dim=-1) @ normalize(other.double(), dim=-1).T).numpy()
    return cosines[linear_sum_assignment(cosines, maximize=True)]
