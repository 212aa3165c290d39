"""One picture read by the model: the caption, its neurons, and where they activate.

    seen = look(model, "scene.png")
    seen.caption                     # ' a dog and a bicycle.'
    seen.neurons                     # the neurons behind ' dog': neuron, patch, score, words, ...
    seen.maps.sel(token=" dog")      # Scores(pos): each patch's attribution for the word
    seen.save("scene.html")          # the same as a page

One forward pass and one backward pass per explained token (gradient x activation, see
`mmlens.methods.attribute`), reduced layer by layer; one more forward pass for the activation maps.
The caption ends at its first sentence or line, and its words that name things are explained, unless
set otherwise: a language model that was not trained to stop generates thirty tokens. With
`full=True` also the logit lens at each patch and the neurons that fire there (two passes), and the
caption's probabilities without each neuron (a row of a batch per neuron; `explore.deeper`).

A model without a language model is held against texts (`of=["a photo of a dog", ...]`) or, if it is
a classifier, its classes, which stand in place of the words of a caption (`explore.encoder_look`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from mmlens.causal.picture_boxes import seen_box
from mmlens.explore.deeper import Depth, read_deeper
from mmlens.explore.domain import note
from mmlens.explore.encoder_look import read_encoder
from mmlens.explore.patches import firing, maps_of, seen_places
from mmlens.explore.strongest import Strongest, strongest_table
from mmlens.explore.things import choose, thing_tokens
from mmlens.methods.attribute import products, silencing
from mmlens.methods.decode import read_through
from mmlens.methods.translators import Translators
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import aim_caption
from mmlens.model.text_end import SENTENCE, Stop
from mmlens.runtime.autograd import ordinary
from mmlens.values.arguments import choice, count, flag
from mmlens.values.errors import ArgumentError, PromptError
from mmlens.values.labels import LM, Token
from mmlens.values.pictures import open_picture
from mmlens.values.prompt import Prompt
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES
from mmlens.values.whole_files import printable, write_whole

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Look:
    """The result of `look`.

    Attributes:
        picture: RGB.
        prompt: the words after the picture; empty without a language model.
        caption: the model's own words, or those given; of an encoder the text that fits best.
        tokens: its tokens; of an encoder the texts (or classes), in the order given.
        token: the token that `neurons` explains.
        maps: Scores(token, pos): the score of every patch for every token that is explained
            (`explained`), summed over all layers and units. A sum over layers counts an effect once
            per layer that it passes through.
        table: the top neurons of every explained token: token, neuron, patch (where its score is
            highest), score, active (its activation there), sign (-1: it is negative, so the words
            are those of minus its output row), words, probs, interpretable.
        activations: Scores(neuron, pos): how active each neuron of the tables is at each patch.
        box: (x0, y0, x1, y1), the pixels of the picture that the encoder reads.
        about: provenance.
        before: Scores(token): the probability of every token of the caption (this and what
            follows: with `full=True`, else None).
        without: Scores(neuron, token): the same with one neuron ablated, one of the first of a
            token or of `firing` (`Depth`).
        together: Scores(token): the same of an explained token without all of its first neurons.
        lens: the logit lens at every patch: layer, pos, rank, token, prob.
        firing: the most active neurons of every patch: patch, rank, neuron, value.
        decoded: what every neuron of `activations` decodes to, at the signs of its activations in
            the tables: neuron, sign, words, probs, interpretable.
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
    def explained(self) -> tuple[Token, ...]:
        """The tokens that have a map and neurons."""
        return tuple(self.maps.of("token"))

    @property
    def neurons(self) -> pd.DataFrame:
        """The rows of `table` that explain `token`, the largest score first."""
        rows: Any = self.table[self.table["token"] == self.token]
        return rows.drop(columns="token").reset_index(drop=True)

    def to_html(self, title: str = "A picture, read by the model") -> str:
        """The explorer of this picture, one HTML page that needs no network."""
        from mmlens.view.explorer_page.page import explore

        return explore(self, title=title).html

    def _repr_html_(self) -> str:
        """The explorer in a frame, for notebooks."""
        from mmlens.view.explorer_page.page import explore

        told = f"<p>{escape(self.note)}</p>" if self.note else ""
        return told + explore(self)._repr_html_()

    @property
    def note(self) -> str:
        """A sentence where the model was shown what it cannot know (`explore.domain`), or ""."""
        return str(self.about.get("note", ""))

    def save(self, path: str | Path, title: str | None = None) -> Path:
        """Write `to_html`; the title is the file's stem unless given."""
        return write_whole(path, self.to_html(title or printable(Path(path).stem)))


@needs("pictures", "positions")
@ordinary()
def look(
    model: Any,
    picture: Any,
    prompt: str | None = None,
    *,
    of: str | int | Sequence[str | int] | None = None,
    caption: str | None = None,
    k: int = 10,
    max_new_tokens: int = 30,
    stop: Stop = SENTENCE,
    explain: str = "things",
    through: str | Translators = "unembed",
    full: bool | Depth = False,
) -> Look:
    """Caption a picture and explain the words of the caption by their `k` strongest neurons each.

    A neuron counts once per token, by its largest score over the patches.

    Args:
        picture: anything that `open_picture` reads.
        prompt: the words between the picture and the caption (default: "A picture of").
        of: a word of the caption, with or without its leading space; by default the first that
            names a thing. Of a dual encoder a text, or several, of which the best is explained
            first; of a classifier its classes (default: the most probable ones).
        caption: explain these words instead of the model's own caption.
        max_new_tokens: the most tokens of that caption.
        stop: what ends the model's own caption, as in `generate`; None for no stop string.
        explain: the tokens that are explained: those of the words that may name "things" (and
            `of`), or "all".
        through: how neurons are decoded, as in `decode`: "unembed", "effect" (measured where the
            token is predicted, a row of a batch per neuron), or a fitted lens.
        full: also the lens, the neurons that fire at each patch, and ablation of each neuron, for
            `view.explore`; a `Depth` sets how much of it.

    Raises:
        PictureError: it cannot be read. PromptError: the model reads no pictures, or `k` is below
            1.
        NumericsError: NaN in the attribution.
        TargetError: the caption is empty, or the word is not one of its tokens.
    """
    k = count(k, "k", error=PromptError)
    choice(explain, "explain", ("things", "all"))
    depth = full if isinstance(full, Depth) else Depth() if flag(full, "full") else None
    photo = open_picture(picture)
    if LM not in model.towers:
        return _noted(_encoder(model, photo, prompt, caption, of, k, depth), note(model, photo))
    read_through(model, through, "what is looked at")
    prompt = "A picture of" if prompt is None else prompt
    soft, aims = aim_caption(
        model, Prompt(photo, prompt), given=caption, max_new_tokens=max_new_tokens, stop=stop
    )
    tokens = tuple(aimed.token for aimed in aims if aimed.token is not None)
    chosen = choose(model, tokens, of)  # a list of words is refused there
    wanted = {*(tokens if explain == "all" else thing_tokens(tokens)), chosen}
    targets = [aimed for aimed in aims if aimed.token in wanted]
    explained = tuple(token for token in tokens if token in wanted)

    labels = soft.labels[0]
    places = seen_places(labels)
    patches: tuple[Any, ...] = tuple(labels[i] for i in places)
    at = torch.tensor(places, device=model.lm.device)
    maps = torch.zeros(len(targets), len(places))
    best = [Strongest(k) for _ in targets]

    def receive(index: int, layer: int, product: torch.Tensor) -> None:
        seen = product[at].float()
        maps[index] += seen.sum(-1).cpu()
        best[index].add(layer, seen)

    every = range(model.cfg.n_layers)
    products(model, soft, targets, receive, SITES["neurons_pre"], every)
    named = through if isinstance(through, str) else through.kind
    told = about(model, method="attribute", target="logit", point="pre", prompt=soft,
                 silencing=silencing(model, "pre"), decoded=named)  # fmt: skip
    found = [one.rows() for one in best]
    active = firing(model, soft, depth.firing) if depth else None
    every = [[neuron for rows in found for _, neuron, _ in rows]]
    every += [active["neuron"]] if active is not None else []
    neurons = tuple(dict.fromkeys(neuron for column in every for neuron in column))
    acts = maps_of(model, soft, neurons, at)
    at_patches = dict(zip(neurons, acts, strict=True))
    table = strongest_table(model, soft, targets, found, patches, at_patches, through)
    more: dict[str, Any] = {}
    if depth is not None:
        more = read_deeper(
            model, soft, aims, table, active, neurons, chosen, depth, through, list(patches)
        )
    seen = Look(
        photo,
        prompt,
        "".join(token.text for token in tokens),
        tokens,
        chosen,
        Scores(maps, ("token", "pos"), {"token": explained, "pos": patches}, told),
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
    return _noted(seen, note(model, photo))


def _noted(seen: Look, told: str) -> Look:
    return replace(seen, about={**seen.about, "note": told}) if told else seen


def _encoder(
    model: Any,
    photo: Image.Image,
    prompt: Any,
    caption: Any,
    of: Any,
    k: int,
    depth: Depth | None,
) -> Look:
    """The same of a model that says nothing.

    Raises:
        ArgumentError: words for it to go on with, or to explain as its own.
    """
    for name, given in (("prompt", prompt), ("caption", caption)):
        if given is not None:
            raise ArgumentError(
                f"{model.name!r} says nothing and takes no {name}=: write the texts (or classes)"
                " that the picture is held against as of=."
            )
    parts = read_encoder(model, photo, of, k, depth)
    return Look(picture=photo, prompt="", box=seen_box(model, *photo.size), **parts)
