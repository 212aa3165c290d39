"""One picture, read through the model: what it says, which neurons made it say so, where they look.

    seen = look(model, "scene.png")
    seen.caption                     # ' a dog and a bicycle.'
    seen.neurons                     # the neurons behind ' dog': neuron, patch, score, words, ...
    seen.maps.sel(token=" dog")      # Scores(pos): what each patch did for the word
    seen.save("scene.html")          # the same as a page

One forward pass and one backward pass per caption token (gradient x activation, see
`mmlens.methods.attribute`), reduced as it comes; one more forward pass for the activation maps.
With `full=True` also what each patch says in every layer and which neurons fire there (two passes),
and what the caption loses without each neuron (a row of a batch per neuron).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image

from mmlens.causal.picture_boxes import seen_box
from mmlens.explore.patches import firing, maps_of
from mmlens.explore.strongest import Strongest, ends_in, strongest_table
from mmlens.explore.things import choose
from mmlens.explore.without import probabilities
from mmlens.methods.attribute import products, silencing
from mmlens.methods.logit_lens import logit_lens
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import Target, aim_caption
from mmlens.runtime.autograd import ordinary
from mmlens.values.arguments import count, flag
from mmlens.values.errors import PromptError
from mmlens.values.labels import Neuron, Patch, Token
from mmlens.values.pictures import open_picture
from mmlens.values.prompt import Prompt, SoftPrompt
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES
from mmlens.values.whole_files import printable, write_whole

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM


@dataclass(frozen=True)
class Depth:
    """How much `full=True` reads.

    Attributes:
        lens: words per layer and patch.
        firing: neurons per patch.
        silenced: neurons per word that are silenced, together and one by one.
        one_by_one: which of them are silenced alone, a row of a batch each: those of the "token"
            that is explained, of the whole "caption", or of `firing` too ("all").
    """

    lens: int = 5
    firing: int = 8
    silenced: int = 10
    one_by_one: Literal["token", "caption", "all"] = "caption"


@dataclass(frozen=True, eq=False)
class Look:
    """What `look` found.

    Attributes:
        picture: RGB.
        prompt: the words after the picture.
        caption: what was explained: the model's own words, or those given.
        tokens: its tokens.
        token: the token that `neurons` explains.
        maps: Scores(token, pos): the score of every patch for every token, summed over all layers
            and units. A sum over layers counts an effect once per layer that it passes through.
        table: the top neurons of every token: token, neuron, patch (where its score is highest),
            score, active (its activation there), sign (-1: it is negative, so the words are those
            of minus its output row), words, probs, interpretable.
        activations: Scores(neuron, pos): how active each neuron of the tables is at each patch.
        box: (x0, y0, x1, y1), the pixels of the picture that the encoder sees.
        about: provenance.
        before: Scores(token): the probability of every token of the caption (this and what
            follows: with `full=True`, else None).
        without: Scores(neuron, token): the same with a neuron silenced, one of the first of a
            token or of `firing` (`Depth`).
        together: Scores(token): the same without all of a token's first neurons.
        lens: the logit lens at every patch: layer, pos, rank, token, prob.
        firing: the most active neurons of every patch: patch, rank, neuron, value.
        decoded: what every neuron of `activations` says, at the signs of its activations in the
            tables: neuron, sign, words, probs, interpretable.
    """

    picture: Image.Image = field(repr=False)
    prompt: str
    caption: str
    tokens: tuple[Token, ...] = field(repr=False)
    token: Token
    maps: Scores
    table: pd.DataFrame = field(repr=False)
    activations: Scores
    box: tuple[float, float, float, float] = field(repr=False)
    about: Mapping[str, Any] = field(repr=False)
    before: Scores | None = field(default=None, repr=False)
    without: Scores | None = field(default=None, repr=False)
    together: Scores | None = field(default=None, repr=False)
    lens: pd.DataFrame | None = field(default=None, repr=False)
    firing: pd.DataFrame | None = field(default=None, repr=False)
    decoded: pd.DataFrame | None = field(default=None, repr=False)

    @property
    def neurons(self) -> pd.DataFrame:
        """The rows of `table` that explain `token`, the largest score first."""
        rows: Any = self.table[self.table["token"] == self.token]
        return rows.drop(columns="token").reset_index(drop=True)

    def to_html(self, title: str = "A picture, read by the model") -> str:
        """The explorer of this picture, one HTML page that needs no network."""
        from mmlens.view.explorer_page.page import explore

        return explore(self, title=title).html

    def save(self, path: str | Path, title: str | None = None) -> Path:
        """Write `to_html`; the title is the file's stem unless given."""
        return write_whole(path, self.to_html(title or printable(Path(path).stem)))


@needs("generate", "pictures", "grid")
@ordinary()
def look(
    model: HookedVLM,
    picture: Any,
    prompt: str = "A picture of",
    *,
    of: str | None = None,
    caption: str | None = None,
    k: int = 10,
    max_new_tokens: int = 30,
    full: bool | Depth = False,
) -> Look:
    """Caption a picture and explain every token of the caption by its `k` strongest neurons.

    A neuron counts once per token, by its largest score over the patches.

    Args:
        picture: anything that `open_picture` reads.
        prompt: the words between the picture and the caption.
        of: a word of the caption, with or without its leading space; by default the first that
            names a thing.
        caption: explain these words instead of the model's own caption.
        max_new_tokens: length of that caption at most.
        full: also the lens, the neurons that fire at each patch, and what is lost without each
            neuron, for `view.explore`; a `Depth` says how much of it.

    Raises:
        PictureError: it cannot be read. PromptError: the model sees no pictures, or `k` is below 1.
        NumericsError: NaN in the attribution.
        TargetError: the caption is empty, or the word is not one of its tokens.
    """
    k = count(k, "k", error=PromptError)
    depth = full if isinstance(full, Depth) else Depth() if flag(full, "full") else None
    photo = open_picture(picture)
    soft, targets = aim_caption(
        model, Prompt(photo, prompt), given=caption, max_new_tokens=max_new_tokens
    )
    tokens = tuple(aimed.token for aimed in targets if aimed.token is not None)
    chosen = choose(model, tokens, of)

    labels = soft.labels[0]
    places = [i for i, label in enumerate(labels) if isinstance(label, Patch)]
    patches = tuple(labels[i] for i in places)
    at = torch.tensor(places, device=model.lm.device)
    maps = torch.zeros(len(tokens), len(places))
    best = [Strongest(k) for _ in tokens]

    def receive(index: int, layer: int, product: torch.Tensor) -> None:
        seen = product[at].float()
        maps[index] += seen.sum(-1).cpu()
        best[index].add(layer, seen)

    every = range(model.cfg.n_layers)
    products(model, soft, targets, receive, SITES["neurons_pre"], every)
    told = about(model, method="attribute", target="logit", point="pre", prompt=soft,
                 silencing=silencing(model, "pre"))  # fmt: skip
    found = [one.rows() for one in best]
    active = firing(model, soft, depth.firing) if depth else None
    every = [[neuron for rows in found for _, neuron, _ in rows]]
    every += [active["neuron"]] if active is not None else []
    neurons = tuple(dict.fromkeys(neuron for column in every for neuron in column))
    acts = maps_of(model, soft, neurons, at)
    table = strongest_table(model, tokens, found, patches, dict(zip(neurons, acts, strict=True)))
    more = _more(model, soft, targets, table, active, neurons, chosen, depth) if depth else {}
    return Look(
        photo,
        prompt,
        "".join(token.text for token in tokens),
        tokens,
        chosen,
        Scores(maps, ("token", "pos"), {"token": tokens, "pos": patches}, told),
        table,
        Scores(
            acts,
            ("neuron", "pos"),
            {"neuron": neurons, "pos": patches},
            about(model, method="activations", site="neurons", prompt=soft),
        ),
        seen_box(model, *photo.size),
        told,
        firing=active,
        **more,
    )


def _more(
    model: HookedVLM,
    soft: SoftPrompt,
    targets: Sequence[Target],
    table: pd.DataFrame,
    active: pd.DataFrame | None,
    neurons: tuple[Neuron, ...],
    token: Token,
    depth: Depth,
) -> dict[str, Any]:
    """What `full=True` adds: the lens, and the caption without each neuron."""
    tokens = tuple(aimed.token for aimed in targets if aimed.token is not None)
    first: Any = table.groupby("token", sort=False).head(depth.silenced)
    groups = [list(first.loc[first["token"] == token, "neuron"]) for token in tokens]
    alone = groups[tokens.index(token)] if depth.one_by_one == "token" else first["neuron"]
    of_words = set(table["neuron"])
    others = [n for n in neurons if n not in of_words] if depth.one_by_one == "all" else []
    silent = tuple(dict.fromkeys([*alone, *others]))
    prob = probabilities(model, soft, targets, [[], *groups, *([one] for one in silent)])
    told = about(model, method="silencing", site="neurons", value=0.0, at="all positions",
                 prompt=soft)  # fmt: skip
    end, words = 1 + len(groups), {"token": tokens}
    return {
        "before": Scores(prob[0], ("token",), words, told),
        "together": Scores(prob[1:end].diagonal().clone(), ("token",), words, told),
        "without": Scores(prob[end:], ("neuron", "token"), {"neuron": silent} | words, told),
        "lens": logit_lens(model, soft, k=depth.lens, pos=Patch),
        "decoded": ends_in(model, table, active),
    }
