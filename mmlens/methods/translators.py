"""Translators from the residual stream of each layer to the last's: one affine map per layer.

Later layers change what a unit of an early layer writes before it reaches the unembedding. A
translator approximates their average effect:

    t_l(h) = h @ matrices[l] + biases[l],        the last layer: t(h) = h

`jacobian_lens` measures the maps (first order, no bias), `tuned_lens` trains them. `decode(...,
through=translators)` decodes what a unit writes, h = sign * W_out[k], by W_U t_l(h): for a
direction only the matrix is used, as the paper decodes without biases.

Layer l is the *output* of block l (`resid_post`), which is where the units of layer l write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.model.provenance import about
from mmlens.towers.fingerprints import few_numbers
from mmlens.values.arguments import path as path_of
from mmlens.values.errors import AddressError, CheckpointError, reason
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

KINDS = ("jacobian", "tuned")
STATES = ("edits", "model_dictionaries", "model_rewritten", "model_rewritten_in_sequence")
"""What, in the provenance of a result, says in which state a model with these weights was."""


@dataclass(frozen=True, eq=False)
class Translators:
    """The maps of all layers except the last.

    Attributes:
        kind: "jacobian" or "tuned".
        matrices: Float[layer, d_model, d_model], float32 on the CPU; rows are multiplied from the
            left.
        biases: Float[layer, d_model]; 0 where there are none.
        about: provenance, and `weights`, a fingerprint by which another model is refused.
    """

    kind: str
    matrices: Float[Tensor, "layer d_model d_model"] = field(repr=False)
    biases: Float[Tensor, "layer d_model"] = field(repr=False)
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def digest(self) -> str:
        """A short hash of the maps, as they are saved."""
        data = self.matrices.half().numpy().tobytes() + self.biases.half().numpy().tobytes()
        return blake2b(data, digest_size=6).hexdigest()

    def carry(
        self, layer: int, directions: Float[Tensor, "*lead d_model"]
    ) -> Float[Tensor, "*lead d_model"]:
        """Directions in the stream after a layer, mapped to the stream after the last."""
        if layer >= len(self.matrices):
            return directions
        return directions @ self.matrices[layer].to(directions)

    def translate(
        self, layer: int, resid: Float[Tensor, "*lead d_model"]
    ) -> Float[Tensor, "*lead d_model"]:
        """The residual stream itself: `carry`, and the bias."""
        moved = self.carry(layer, resid)
        return moved if layer >= len(self.biases) else moved + self.biases[layer].to(resid)

    def check(self, model: HookedVLM) -> None:
        """Refuse a model that these were not fitted for.

        Raises:
            CheckpointError: other layers, another width, other weights, or other edits.
        """
        found = len(self.matrices) + 1, self.matrices.shape[-1]
        wanted = model.cfg.n_layers, model.cfg.d_model
        if found != wanted:
            raise CheckpointError(
                f"This {self.kind} lens is one of {found[0]} layers of {found[1]}, and"
                f" {model.name!r} has {wanted[0]} of {wanted[1]}: fit one with"
                f" mm.{self.kind}_lens(model, prompts)."
            )
        known = self.about.get("weights")
        if known and not same_weights(known, fingerprint(model)):
            raise CheckpointError(
                f"This {self.kind} lens was made for {self.about.get('model', 'another model')!r},"
                f" and {model.name!r} has other weights: fit one with"
                f" mm.{self.kind}_lens(model, prompts)."
            )
        if known and not self._same_function(about(model)):
            raise CheckpointError(
                f"This {self.kind} lens was fitted with other edits or dictionaries than"
                f" {model.name!r} has now: fit one with mm.{self.kind}_lens(model, prompts), or"
                " apply this one to a stream yourself by lens.translate(layer, resid)."
            )

    def _same_function(self, now: Mapping[str, Any]) -> bool:
        """Whether a model of this provenance computes what these were fitted on.

        A dictionary alone changes no answer; one with a constant error changes gradients.
        """
        if self.about.get("edits") or now.get("edits"):
            return same_state(self.about, now)
        one, other = (_constant(told) for told in (self.about, now))
        return self.kind != "jacobian" or one == other

    def save(self, path: str | Path) -> Path:
        """Write them as safetensors, in float16 where no number overflows it."""
        from safetensors.torch import save

        parts = {"matrices": self.matrices, "biases": self.biases}
        small = {name: value.half() for name, value in parts.items()}
        fits = all(bool(value.isfinite().all()) for value in small.values())
        told = {"kind": self.kind, "about": json.dumps(dict(self.about), default=str)}
        kept = {name: value.contiguous() for name, value in (small if fits else parts).items()}
        return write_whole(path, save(kept, told))

    @classmethod
    def load(cls, path: str | Path) -> Translators:
        """Translators that `save` wrote, a Jacobian lens of TransformerLens (its .pt file), or a
        lens of the tuned-lens package (its folder, with params.pt and config.json).

        Raises:
            CheckpointError: it is none of these.
        """
        place = path_of(path, "path").expanduser()
        if place.is_dir():
            return _tuned(place)
        if not place.is_file():
            raise CheckpointError(f"There is no lens {str(place)!r}: give a file that save wrote.")
        return _theirs(place) if place.suffix == ".pt" else _ours(place)


def fingerprint(model: HookedVLM) -> list[float]:
    """A few numbers that depend on the unembedding and the output weights of the first units."""
    units = model.lm.units
    first = next(iter(i for i, one in enumerate(units.layers) if one.width), None)
    tables = [model.root.W_U[:, :8].T] + ([] if first is None else [units.written(first, slice(8))])
    return few_numbers(tables)


def same_weights(one: Any, other: list[float]) -> bool:
    """Whether two fingerprints are of the same weights, in any dtype."""
    if not one or len(one) != len(other):
        return False
    a, b = torch.tensor(one), torch.tensor(other)
    return bool((a - b).abs().max() <= 0.02 * b.abs().max())


def same_state(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two provenances are of a model with the same edits, dictionaries and weights."""
    return all((one.get(name) or None) == (other.get(name) or None) for name in STATES)


def _constant(told: Mapping[str, Any]) -> dict[str, Any]:
    """The dictionaries of a provenance through whose errors no gradient goes."""
    held = dict(told.get("model_dictionaries") or {})
    return {name: one for name, one in held.items() if one.get("error") == "constant"}


def _ours(place: Path) -> Translators:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(place, "pt") as file:
            told = file.metadata() or {}
            parts = {name: file.get_tensor(name).float() for name in ("matrices", "biases")}
            return Translators(told["kind"], **parts, about=json.loads(told["about"]))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{place.name!r} is no lens that mmlens wrote: {reason(error)}"
        ) from error


def _theirs(place: Path) -> Translators:
    """TransformerLens writes column vectors: out = J @ h."""
    try:
        kept = torch.load(place, map_location="cpu", weights_only=True)
        layers = sorted(kept["J"])
        matrices = torch.stack([kept["J"][layer].float().T for layer in layers])
        if layers != list(range(len(layers))):
            raise AddressError(f"it has the layers {layers} alone")
    except Exception as error:  # torch.load and an unknown dictionary may raise anything
        raise CheckpointError(
            f"{place.name!r} is no Jacobian lens of all layers: {reason(error)}"
        ) from error
    told = {"prompts": kept.get("n_prompts"), "method": "transformer_lens.JacobianLens"}
    return Translators("jacobian", matrices, torch.zeros(len(layers), matrices.shape[-1]), told)


def _tuned(folder: Path) -> Translators:
    """tuned-lens writes W and b of h + W h + b, for the stream that enters each layer.

    What enters layer l + 1 is what layer l puts out; the map of the embeddings is left out.
    """
    try:
        told = json.loads((folder / "config.json").read_text("utf-8"))
        kept = torch.load(folder / "params.pt", map_location="cpu", weights_only=True)
        layers, width = int(told["num_hidden_layers"]), int(told["d_model"])
        zero, eye = torch.zeros(width), torch.eye(width)
        changes = [kept[f"{layer}.weight"].float().T for layer in range(1, layers)]
        biases = [kept.get(f"{layer}.bias", zero).float() for layer in range(1, layers)]
        matrices, added = torch.stack(changes) + eye, torch.stack(biases)
    except Exception as error:  # torch.load and an unknown dictionary may raise anything
        raise CheckpointError(
            f"{folder.name!r} is no folder of a tuned lens, with config.json and params.pt:"
            f" {reason(error)}"
        ) from error
    source = {"method": "tuned_lens.TunedLens", "model": told.get("base_model_name_or_path")}
    return Translators("tuned", matrices, added, source)
