"""The lenses that are fitted, and the index of texts: made once of a pool of other pictures.

OUT/fits/made_of.json                      of which pictures, by which model
OUT/fits/tuned.safetensors, jacobian.safetensors, heads-3.safetensors, ...
OUT/fits/index/                            states of the pool's captions

A training hangs on the last bit, so a run that goes on takes the files of the run that was stopped.
Files of another model or pool are not taken: without a sweep they are made anew, and beside a sweep
that was asked with them the study is refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.checkpoints.bridge_json import read_json
from mmlens.checkpoints.weights import weights_hash
from mmlens.datasets.sample import Samples
from mmlens.methods.attention_lens import HeadMaps, attention_lens
from mmlens.methods.contextual_index import ContextualIndex, contextual_index
from mmlens.methods.jacobian_lens import jacobian_lens
from mmlens.methods.translators import Translators
from mmlens.methods.tuned_lens import tuned_lens
from mmlens.model.provenance import about
from mmlens.runtime.progress import Progress, tracked
from mmlens.sweep.record import SweepError
from mmlens.values.errors import (
    AddressError,
    CapabilityError,
    NumericsError,
    PromptError,
    writing,
)
from mmlens.values.labels import Patch
from mmlens.values.prompt import Prompt
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

FITTED, STEPS, OF_JACOBIAN = 40, 100, 2
"""Captioned pictures and steps (of each layer) that lenses are trained with; pictures of the
Jacobian, which costs d_model rows each."""
PARTS = {"tuned": "tuned", "jacobian": "jacobian", "neighbours": "index", "centred": "index",
         "same": "index", "heads": "heads"}  # fmt: skip
"""By lens, the fit that it reads through."""
REFUSED = (CapabilityError, AddressError, NumericsError, PromptError)
"""What says that a lens cannot be had of this model."""


class FittedLenses(dict[str, str]):
    """Fits by name. As a dict they are their digests, which is what a sweep records of them.

    Attributes:
        held: "tuned" and "jacobian" (Translators), "heads" (HeadMaps by layer), "index".
    """

    def __init__(self, held: Mapping[str, Any]) -> None:
        super().__init__({name: _digest(one) for name, one in held.items()})
        self.held = dict(held)


def asked_layers(model: HookedVLM) -> list[int]:
    """The layers that lenses are asked at: about eight, evenly spread."""
    return list(range(0, model.cfg.n_layers, max(1, model.cfg.n_layers // 8)))


def fitted_lenses(
    model: HookedVLM,
    pool: Samples,
    folder: Path,
    lenses: Sequence[str],
    *,
    resume: bool = True,
    progress: Progress | bool | None = None,
) -> tuple[FittedLenses, dict[str, str]]:
    """The fits that these lenses need, made or loaded, and why a fit cannot be had, by its name.

    Args:
        pool: pictures that are not asked later, with captions.
        folder: of the study.
        resume: take what the folder holds; False makes all anew.
        progress: as in `patch`, fit by fit.

    Raises:
        SweepError: the folder holds a study with fits of another pool or model.
    """
    made_of = _made_of(model, pool)
    place = folder / "fits"
    same = resume and _told(place) == made_of
    if resume and not same and (folder / "sweeps").exists():
        raise SweepError(
            f"{str(folder)!r} holds a study whose lenses were fitted to another model or on other"
            " pictures: ask for the same to go on, give another folder, or begin anew with"
            " resume=False."
        )
    with writing(place):
        if not same and place.exists():
            shutil.rmtree(place)
        place.mkdir(parents=True, exist_ok=True)
    write_whole(place / "made_of.json", json.dumps(made_of, indent=1))
    making = _Making(model, pool, place)
    needed = [name for name in dict.fromkeys(PARTS.values())
              if any(PARTS.get(lens) == name for lens in lenses)]  # fmt: skip
    held, refused = {}, {}
    for name in tracked(needed, "fitted lenses", progress):
        try:
            held[name] = making.part(name)
        except REFUSED as error:
            refused[name] = str(error)
    return FittedLenses(held), refused


def sentence(caption: str) -> str:
    """A caption as a sentence: those of the bundled world go on after "A picture of"."""
    return f"A picture of{caption}" if caption.startswith(" ") else caption


class _Making:
    """Each fit, loaded from its file where that is there."""

    def __init__(self, model: Any, pool: Samples, place: Path) -> None:
        self.model, self.pool, self.place = model, pool, place
        self.layers = asked_layers(model)

    def part(self, name: str) -> Any:
        if name == "tuned":
            make = lambda: tuned_lens(self.model, self._shown(FITTED), steps=STEPS)  # noqa: E731
            return self._kept("tuned", Translators, make)
        if name == "jacobian":
            return self._kept("jacobian", Translators, lambda: jacobian_lens(
                self.model, self._shown(OF_JACOBIAN), pos=Patch,
                batch=min(32, self.model.cfg.d_model)))  # fmt: skip
        return self._index() if name == "index" else self._heads()

    def _kept(self, name: str, kind: Any, make: Callable[[], Any]) -> Any:
        """The fit as its file holds it, so that it is the same in the run that goes on."""
        file = self.place / f"{name}.safetensors"
        if not file.is_file():
            make().save(file)
        found = kind.load(file)
        found.check(self.model)
        return found

    def _heads(self) -> dict[int, HeadMaps]:
        """By layer; a layer whose heads are not read is left out, and of none it is refused."""
        found, refused = {}, None
        for layer in self.layers:
            make = lambda layer=layer: attention_lens(  # noqa: E731
                self.model, self._shown(FITTED), layer=layer, pos=None, steps=STEPS)  # fmt: skip
            try:
                found[layer] = self._kept(f"heads-{layer}", HeadMaps, make)
            except CapabilityError as error:
                refused = error
        if refused is not None and not found:
            raise refused
        return found

    def _index(self) -> ContextualIndex:
        texts = [sentence(text) for one in self.pool for text in one.captions if text.strip()]
        if not texts:
            raise AddressError("The pool has no captions whose states could be neighbours.")
        return contextual_index(
            self.model, list(dict.fromkeys(texts)), self.place / "index", layer=self.layers
        )

    def _shown(self, most: int) -> list[Prompt]:
        """The first pictures of the pool that have a caption, with it."""
        found: list[Prompt] = []
        for one in self.pool:
            if len(found) < most and one.captions:
                found.append(Prompt(one.image, sentence(one.captions[0])))
            if len(found) == most:
                break
        if not found:
            raise AddressError("The pool has no pictures with captions to fit a lens on.")
        return found


def _made_of(model: Any, pool: Samples) -> dict[str, Any]:
    """What the fits depend on, as JSON reads it back."""
    told = {name: value for name, value in about(model).items() if name != "versions"}
    weights = {name: weights_hash(tower.module.state_dict())
               for name, tower in model.towers.items()}  # fmt: skip
    own = {"pool": pool.hash, "model": told, "weights": weights, "layers": asked_layers(model),
           "fitted": [FITTED, STEPS, OF_JACOBIAN]}  # fmt: skip
    return json.loads(json.dumps(own, default=str))


def _told(place: Path) -> Any:
    file = place / "made_of.json"
    return read_json(file) if file.is_file() else None


def _digest(one: Any) -> str:
    """A short hash of a fit; of an index, of its texts."""
    if isinstance(one, ContextualIndex):
        return str(one.about["digest"])[:12]
    if isinstance(one, Translators):
        return one.digest
    hashed = blake2b(digest_size=6)
    for layer, maps in one.items():
        hashed.update(str(layer).encode())
        hashed.update(maps.maps.numpy().tobytes())
        hashed.update(maps.bias.numpy().tobytes())
    return hashed.hexdigest()
