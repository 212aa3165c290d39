"""dictionary_learning: config.json (trainer.dict_class, trainer.k) and ae.pt, a state dict.

    AutoEncoder               relu((x - bias) @ W_enc + b_enc); rows of W_dec get length 1 when the
                              package loads it, and the code is longer by their lengths
    AutoEncoderNew            relu(x @ W_enc + b_enc): nothing is subtracted
    GatedAutoEncoder          gate and magnitude share W_enc, magnitude times exp(r_mag)
    AutoEncoderTopK           the k largest
    BatchTopKSAE, Matryoshka  those above the threshold that training measured
    JumpReluAutoEncoder       those above thresholds of each unit; nothing is subtracted

Where training scaled activations, the factor is in the saved biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmlens.checkpoints.dictionaries.tensors_of import refused, taken
from mmlens.towers.dictionaries.dictionary import Dictionary
from mmlens.values.errors import CheckpointError

BATCHED = ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")
KINDS = ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "AutoEncoderTopK", *BATCHED,
         "JumpReluAutoEncoder")  # fmt: skip
PLACES = ("resid_post", "resid_pre", "mlp_out", "attn_out")


def read(config: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> Dictionary:
    """The dictionary of a dictionary_learning checkpoint."""
    trainer = config.get("trainer") or {}
    kind = trainer.get("dict_class")
    if kind not in KINDS:
        raise refused(where, "trainer.dict_class", kind, ", ".join(KINDS))
    parts: dict[str, Any] = {}
    if kind in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        W_enc, b_enc, W_dec, b_dec = taken(state, "W_enc", "b_enc", "W_dec", "b_dec", where=where)
    else:
        W_enc, W_dec = (w.T for w in taken(state, "encoder.weight", "decoder.weight", where=where))
        bias = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias"}
        bias |= {"GatedAutoEncoder": "decoder_bias"}
        inside = "mag_bias" if kind == "GatedAutoEncoder" else "encoder.bias"
        b_dec, b_enc = taken(state, bias.get(kind, "b_dec"), inside, where=where)
    if kind == "AutoEncoder":
        length = W_dec.norm(dim=-1)
        W_enc, b_enc, W_dec = W_enc * length, b_enc * length, W_dec / length[:, None]
    if kind == "GatedAutoEncoder":
        b_gate, r_mag = taken(state, "gate_bias", "r_mag", where=where)
        parts |= {"b_gate": b_gate, "gain": r_mag.exp()}
    if kind == "JumpReluAutoEncoder":
        [parts["threshold"]] = taken(state, "threshold", where=where)
    if kind in BATCHED:
        parts["threshold"] = _threshold(state, where)
    if kind == "AutoEncoderTopK":
        parts["k"] = _k(trainer, state, where)
    plain = kind in ("AutoEncoderNew", "JumpReluAutoEncoder")
    return Dictionary(
        W_enc, W_dec, b_enc=b_enc, b_dec=b_dec, b_in=None if plain else b_dec, **parts,
        at=_hook(trainer),
        about={"format": "dictionary_learning", "architecture": kind, "of": trainer.get("lm_name")},
    )  # fmt: skip


def _threshold(state: Mapping[str, Tensor], where: str) -> float:
    """The threshold of BatchTopK, which training measures; -1 before it has."""
    [found] = taken(state, "threshold", where=where)
    if float(found) < 0:
        raise CheckpointError(
            f"{where!r} has the threshold {float(found)}: its training ended before one was"
            " measured, and every positive unit would be active."
        )
    return float(found)


def _k(trainer: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> int:
    known = {int(one) for one in (trainer.get("k"), state.get("k")) if one is not None}
    if len(known) != 1:
        raise CheckpointError(f"{where!r} says of k {sorted(known) or 'nothing'}: it takes one.")
    return known.pop()


def _hook(trainer: Mapping[str, Any]) -> str | None:
    """The hook name of `submodule_name`, such as "resid_post_layer_8", where it is one."""
    name, layer = str(trainer.get("submodule_name") or ""), trainer.get("layer")
    place = next((one for one in PLACES if one in name), None)
    return None if place is None or layer is None else f"blocks.{layer}.hook_{place}"
