"""Concepts of a word: a dictionary of what the stream holds where the word is about to be said.

Parekh et al. (2024, "A Concept-Based Explainability Framework for Large Multimodal Models",
CoX-LMM, section 3). Of many pictures whose caption has the word, the stream after a layer at the
position that predicts it gives the rows of Z (`stream_before`). They are written as sums of few
directions, each grounded in words (its logit lens) and in pictures (those where it is strongest):

    Z = V U + rest,    V >= 0                       (semi-NMF: Ding, Li and Jordan 2010)
    U  <- (V^T V)^-1 V^T Z
    V  <- V sqrt( ((Z U^T)+ + V (U U^T)-) / ((Z U^T)- + V (U U^T)+) )      (x+, x-: the parts of x)

Neither step makes the rest larger. Directions have length 1 and are in order of what they explain.
Rows don't determine them to the last digit: any cone that holds all rows leaves no rest.

Positions: the one that predicts the word. Path: none. Two seeds give two dictionaries: what is
found with one alone is not there. `overlap` says how many words the concepts share. The control of
the words is a random direction, decoded in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmlens.methods.jacobian_lens import prompts_in
from mmlens.model.capabilities import needs, require
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.runtime.progress import Progress, tracked
from mmlens.towers.language.tokenization import word
from mmlens.values.arguments import SEEDS, count, instance
from mmlens.values.errors import AddressError, ArgumentError
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM

_LEAST, _MOST = 1e-12, 100_000
"""What is taken for nothing, and the most steps."""
_LLOYD = 10
"""How often the means are moved that the iteration begins at."""


@dataclass(frozen=True, eq=False)
class WordConcepts:
    """A dictionary of directions, and how strong each is in each prompt.

    Attributes:
        directions: Scores(concept, dim), of length 1.
        activations: Scores(prompt, concept), not negative.
        error: the share of the squared length of all rows that is left over.
    """

    directions: Scores
    activations: Scores
    error: float

    def table(self, model: HookedVLM, k: int = 10) -> pd.DataFrame:
        """What each concept says, and where it is strongest: one row per concept.

        Returns:
            Columns concept, words (of its logit lens, the most probable first), prompts (the
            numbers of those where it is strongest), share (of the squared length of activations).

        Raises:
            CapabilityError: the model has no unembedding.
        """
        import pandas as pd

        require(model, "unembed")
        k, V = count(k, "k"), self.activations.values
        with torch.no_grad():
            rows = self.directions.values.to(model.lm.device, model.lm.dtype)
            logits = model.lm.logits_of(rows).float()[:, : model.lm.n_words]
            best = logits.topk(min(k, logits.shape[-1])).indices.tolist()
        energy = V.pow(2).sum(0) / V.pow(2).sum().clamp(min=_LEAST)
        strongest = V.argsort(0, descending=True)[:k].T.tolist()
        said = [[word(model.lm, token) for token in row] for row in best]
        return pd.DataFrame({"concept": range(len(said)), "words": said, "prompts": strongest,
                             "share": energy.tolist()})  # fmt: skip


@needs("logits", "unembed")
def stream_before(
    model: HookedVLM,
    prompts: Any,
    of: str | int,
    *,
    layer: int = -1,
    after: str | None = None,
    progress: Progress | bool | None = None,
) -> Scores:
    """The stream after a layer at the position that predicts a word: Scores(prompt, dim).

    Args:
        layer: -1 is the last.
        after: as in `attribute`; by default each prompt's own caption, in which the word stands.
        progress: as in `patch`, prompt by prompt.

    Raises:
        TargetError: a caption without the word. AddressError: no such layer.
    """
    n = model.cfg.n_layers
    at = count(layer, "layer", least=-n, most=n - 1, error=AddressError) % n
    name, rows = SITES["resid_post"].at(at), []
    for prompt in tracked(prompts_in(prompts), "streams", progress):
        reading, _ = model.aim(prompt, of, "logit", after)
        with torch.no_grad(), capture(model, [name], lambda x: x[0, -1].detach()) as kept:
            model.run(reading)
        rows.append(finite(kept[name].float(), f"the stream of layer {at}"))
    said = word(model.lm, of) if isinstance(of, int) else of
    told = about(model, method="stream_before", of=said, layer=at, after=str(after))
    return Scores(torch.stack(rows), ("prompt", "dim"), {}, told)


def concepts(stream: Scores, n: int = 10, *, steps: int = 200, seed: int = 0) -> WordConcepts:
    """The directions whose sums, never differences, make up the stream of many prompts.

    Args:
        stream: Scores(prompt, dim), as `stream_before` gives it.
        n: how many; the paper has 20 of a few thousand pictures.
        steps: of the iteration.

    Raises:
        AddressError: other scores. ArgumentError: more concepts than prompts.
    """
    instance(stream, "stream", Scores, "what stream_before(model, prompts, of) returns")
    if stream.axes != ("prompt", "dim"):
        raise AddressError(f"{stream!r} has no stream by prompt: give Scores(prompt, dim).")
    n, steps = count(n, "n"), count(steps, "steps", most=_MOST)
    Z = finite(stream.values.double(), "the stream")
    if n > len(Z):
        raise ArgumentError(
            f"There are {len(Z)} prompts for {n} concepts: give more, or a lower n."
        )
    V, U = semi_nmf(Z, n, steps, count(seed, "seed", least=0, most=SEEDS))
    length = U.norm(dim=-1).clamp(min=_LEAST)
    V, U = V * length, U / length[:, None]
    order = V.pow(2).sum(0).argsort(descending=True)
    V, U = V[:, order], U[order]
    told = {**stream.about, "method": "concepts", "seed": seed, "steps": steps}
    error = float((Z - V @ U).pow(2).sum() / Z.pow(2).sum().clamp(min=_LEAST))
    return WordConcepts(Scores(U.float(), ("concept", "dim"), {}, told),
                    Scores(V.float(), ("prompt", "concept"), {}, told), error)  # fmt: skip


def semi_nmf(
    Z: Float[Tensor, "row dim"], n: int, steps: int, seed: int = 0
) -> tuple[Float[Tensor, "row n"], Float[Tensor, "n dim"]]:
    """V >= 0 and U whose product is near to Z."""
    V = torch.nn.functional.one_hot(clusters(Z, n, seed), n).to(Z) + 0.2
    U = torch.linalg.pinv(V) @ Z
    for _ in range(steps):
        V = V * (_parts(Z @ U.T, V, U @ U.T)).sqrt()
        U = torch.linalg.pinv(V) @ Z
    return V, U


def clusters(
    Z: Float[Tensor, "row dim"], n: int, seed: int, steps: int = _LLOYD
) -> Int[Tensor, " row"]:
    """The nearest of n means, which begin at rows far apart (Lloyd): where the iteration begins."""
    draw = torch.Generator().manual_seed(seed)
    means = Z[torch.randint(len(Z), (1,), generator=draw)]
    for _ in range(n - 1):
        far = torch.cdist(Z, means).amin(-1).argmax()
        means = torch.cat([means, Z[far][None]])
    for _ in range(steps):
        own = torch.nn.functional.one_hot(torch.cdist(Z, means).argmin(-1), n).to(Z)
        size = own.sum(0)[:, None]
        means = torch.where(size > 0, own.T @ Z / size.clamp(min=1), means)
    return torch.cdist(Z, means).argmin(-1)


def _parts(
    ZU: Float[Tensor, "row n"], V: Float[Tensor, "row n"], UU: Float[Tensor, "n n"]
) -> Float[Tensor, "row n"]:
    """What each weight is multiplied by, squared."""
    up = ZU.clamp(min=0) + V @ (-UU).clamp(min=0)
    down = (-ZU).clamp(min=0) + V @ UU.clamp(min=0)
    return up / down.clamp(min=_LEAST)


def overlap(table: pd.DataFrame) -> float:
    """The mean share of a concept's words that another concept has as well, over all pairs."""
    said = [set(row) for row in table["words"]]
    pairs = [(a, b) for i, a in enumerate(said) for j, b in enumerate(said) if i != j]
    if not pairs:
        raise ArgumentError("One concept alone shares its words with none: give two or more.")
    return sum(len(a & b) / len(a) for a, b in pairs) / len(pairs)
