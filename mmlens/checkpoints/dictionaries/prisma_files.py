"""Prisma (vit-prisma): config.json and the state dict of a sparse autoencoder on a vision tower.

    x' = norm(x) - b_dec,   f = act(x' @ W_enc + b_enc),   x^ = norm^-1(f @ W_dec + b_dec)

with norm "layer_norm" (the default), "constant_norm_rescale" or none, act relu or topk, and the
architectures standard and gated. b_dec is always subtracted. Some are trained on the class token or
on patches alone, which `about["positions"]` says: at other positions their units mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmlens.checkpoints.dictionaries.tensors_of import refused, taken
from mmlens.towers.dictionaries.dictionary import Dictionary
from mmlens.values.errors import CheckpointError

NORMS = {"none": "none", "layer_norm": "layer_norm", "constant_norm_rescale": "unit_norm"}


def read(config: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> Dictionary:
    """The dictionary of a Prisma checkpoint."""
    kind = config.get("architecture", "standard")
    if kind not in ("standard", "gated"):
        raise refused(where, "architecture", kind, "standard and gated")
    if config.get("is_transcoder"):
        raise refused(where, "is_transcoder", True, "an autoencoder")
    act, more = config.get("activation_fn_str", "relu"), config.get("activation_fn_kwargs") or {}
    if act not in ("relu", "topk"):
        raise refused(where, "activation_fn_str", act, "relu and topk")
    if act == "topk" and "k" not in more:
        raise CheckpointError(f"{where!r} has the activation topk and does not say its k.")
    norm = config.get("normalize_activations") or "none"
    if norm not in NORMS:
        raise refused(where, "normalize_activations", norm, ", ".join(NORMS))
    W_enc, W_dec, b_dec = taken(state, "W_enc", "W_dec", "b_dec", where=where)
    parts: dict[str, Any] = {"k": int(more["k"])} if act == "topk" else {}
    if kind == "gated":
        if act == "topk":
            raise refused(where, "activation_fn_str", act, "relu in a gated dictionary")
        b_gate, r_mag, b_enc = taken(state, "b_gate", "r_mag", "b_mag", where=where)
        parts |= {"b_gate": b_gate, "gain": r_mag.exp()}
    else:
        [b_enc] = taken(state, "b_enc", where=where)
    only = {"cls_token_only": "the class token", "use_patches_only": "patches"}
    about = {"format": "Prisma", "architecture": kind, "of": config.get("model_name")}
    where_trained = [said for name, said in only.items() if config.get(name)]
    about |= {"positions": where_trained[0]} if where_trained else {}
    return Dictionary(
        W_enc, W_dec, b_enc=b_enc, b_dec=b_dec, b_in=b_dec, norm=NORMS[norm], **parts,
        at=_hook(config), about=about,
    )  # fmt: skip


def _hook(config: Mapping[str, Any]) -> str | None:
    """The hook name in the vision tower."""
    layer, place = config.get("hook_point_layer"), config.get("layer_subtype")
    name = config.get("hook_point")
    if not name and layer is not None and place:
        name = f"blocks.{layer}.{place}"
    return f"vision.{name}" if name else None
