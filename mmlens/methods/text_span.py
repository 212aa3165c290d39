"""TextSpan: the texts that a head's contributions to picture embeddings vary along.

Gandelsman, Efros and Steinhardt (2024, arXiv 2310.05916), algorithm 1. Of the direct contributions
c_i of one head to the embeddings of many pictures i, and a pool of texts with embeddings r_j: take
the mean off the c_i; project the r_j to the span of what the head can write; then, k times, choose
the text along which the c_i vary most,

    j = argmax over texts of  Var_i <c_i, r_j>,

and take its direction out of all c_i and all r_j. Each step asks for r_j^T S r_j alone, S the
covariance of the c_i. So pictures are read once and in a stream, and what is kept of them is a mean
and a covariance per head (`head_moments`), whatever their number.

    table = text_span(model, pictures, texts, layer=[10, 11])
    view.show(table)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.embed import embed
from mmlens.methods.embedding_shares import Shares
from mmlens.methods.unit_responses import chunks
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.values.arguments import count, several, text
from mmlens.values.errors import ArgumentError
from mmlens.values.labels import Head
from mmlens.values.pictures import open_picture
from mmlens.values.prompt import Prompt
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_dual_encoder import HookedDualEncoder

LAST = slice(-4, None)
"""The layers that the paper finds to matter (section 3.2), and reads."""


@needs("similarity")
def head_moments(
    model: HookedDualEncoder, pictures: Iterable[Any], *, layer: Any = LAST, batch: int = 8
) -> tuple[Scores, Scores]:
    """Mean and covariance of each head's contribution: Scores(layer, head, dim), (.., dim, along).

    Args:
        pictures: any iterable of pictures; each is looked at once.
        layer: some layers, as in `Scores.sel`.
        batch: how many pictures are run at once.

    Raises:
        ArgumentError: fewer than two pictures. What `decompose` raises besides.
    """
    step = count(batch, "batch")
    if isinstance(pictures, (str, bytes)) or not isinstance(pictures, Iterable):
        raise ArgumentError("pictures: give a list or another iterable of pictures.")
    shares, seen, axes = None, _Moments(), torch.eye(model.d_embed)
    for some in chunks(pictures, step):
        prompts = [Prompt(open_picture(one)) for one in some]
        shares = shares or Shares(model, prompts[0], "head", layer)
        seen.add(finite(shares.of(prompts, axes), "the contributions of heads").double())
    if shares is None or seen.n < 2:
        raise ArgumentError(f"{seen.n} pictures have no covariance: give at least two.")
    labels = {"layer": shares.labels["layer"]}
    told = about(model, method="head_moments", pictures=seen.n, tower="vision",
                 d_head=shares.d_head)  # fmt: skip
    return (
        Scores(seen.mean, ("layer", "head", "dim"), labels, told),
        Scores(seen.spread / seen.n, ("layer", "head", "dim", "along"), labels, told),
    )


class _Moments:
    """Mean, and sum of products of deviations, merged batch by batch (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.n, self.mean, self.spread = 0, torch.zeros(()).double(), torch.zeros(()).double()

    def add(self, rows: Float[Tensor, "picture layer head dim"]) -> None:
        m, here = len(rows), rows.mean(0)
        away, off = rows - here, here - self.mean
        self.spread = self.spread + torch.einsum("blhd,blhe->lhde", away, away)
        weight = self.n * m / (self.n + m)
        self.spread = self.spread + off[..., None] * off[..., None, :] * weight
        self.mean, self.n = self.mean + off * (m / (self.n + m)), self.n + m


@needs("similarity")
def text_span(
    model: HookedDualEncoder,
    pictures: Iterable[Any] | tuple[Scores, Scores],
    texts: Sequence[str],
    *,
    layer: Any = LAST,
    k: int = 5,
    rank: int | None = None,
    batch: int = 8,
) -> pd.DataFrame:
    """The texts that each head varies along: one row per head and text, the first chosen first.

    Args:
        pictures: any iterable of pictures, or what `head_moments` returned.
        texts: the pool; the paper has 3,498 descriptions of pictures.
        layer: some layers of the vision tower.
        k: texts per head.
        rank: the dimensions of the span that texts are projected to: the main directions of the
            contributions. None: as many as a head has, which its contributions can't exceed.
        batch: pictures that are run at once.

    Returns:
        head; place (1 is the first); text; std, of the contributions along it; explained, the share
        of the head's variance that the texts up to this one account for.

    Raises:
        ArgumentError: fewer texts than `k`, or fewer than two pictures.
    """
    pool = [text(one, "texts", empty=False) for one in several(texts, "texts")]
    k = count(k, "k", most=len(pool))
    rank = None if rank is None else count(rank, "rank", most=model.d_embed)
    given = isinstance(pictures, tuple) and all(isinstance(one, Scores) for one in pictures)
    mean, spread = pictures if given else head_moments(model, pictures, layer=layer, batch=batch)
    words = embed(model, pool).to(mean.values)
    rank = int(mean.about["d_head"]) if rank is None else rank
    rows = []
    for i, one in enumerate(mean.of("layer")):
        for head in range(mean.shape[1]):
            found = greedy_texts(spread.values[i, head], mean.values[i, head], words, k, rank)
            rows += [
                {"head": Head(one, head, "vision"), "place": place, "text": pool[j], "std": std,
                 "explained": explained}
                for place, (j, std, explained) in enumerate(found, 1)
            ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["head", "place", "text", "std", "explained"])
    table.attrs["about"] = about(model, method="text_span", k=k, rank=rank, texts=len(pool),
                                 pictures=mean.about.get("pictures"))  # fmt: skip
    return table


def greedy_texts(
    spread: Float[Tensor, "dim dim"],
    mean: Float[Tensor, " dim"],
    texts: Float[Tensor, "text dim"],
    k: int,
    rank: int,
) -> list[tuple[int, float, float]]:
    """(index of a text, standard deviation along it, share of variance explained so far), k times.

    It stops early where nothing of the contributions or of the texts is left.

    Args:
        spread, mean: covariance and mean of the contributions.
        rank: of the span that texts are projected to, that of the contributions as they are,
            mean included, as in the authors' code.
    """
    basis = torch.linalg.eigh(spread + torch.outer(mean, mean)).eigenvectors[:, -rank:]
    rows, whole = texts @ basis @ basis.T, float(spread.trace())
    found, start = [], float(rows.norm(dim=1).max())
    for _ in range(k):
        along = torch.einsum("td,de,te->t", rows, spread, rows).clamp(min=0)
        j = int(along.argmax())
        length = float(rows[j].norm())
        if length <= 1e-6 * start or whole <= 0:
            break
        unit, std = rows[j] / length, float(along[j].sqrt())
        out = torch.eye(len(unit)).to(unit) - torch.outer(unit, unit)
        spread, rows = out @ spread @ out, rows @ out
        found.append((j, std, 1.0 - max(0.0, float(spread.trace())) / whole))
    return found
