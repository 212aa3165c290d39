"""SAELens: cfg.json and sae_weights.safetensors (W_enc, W_dec, b_enc, b_dec, ...), versions 3 to 6.

    x'  = norm(x) - b_dec                      where apply_b_dec_to_input, which is the default
    f   = the architecture's code of x' @ W_enc + b_enc
    x^  = norm^-1(f @ W_dec + b_dec)

Its settings and what becomes of them here:

    rescale_acts_by_decoder_norm    rows of W_dec get length 1 and W_enc, b_enc their lengths, so
                                    that the k largest are chosen as there
    normalize_activations           "layer_norm", "constant_norm_rescale": the norms "layer_norm"
                                    and "unit_norm". "expected_average_only_in": one factor, which
                                    is not in the files; the caller gives it
    finetuning_scaling_factor       a factor of each unit, into the rows of W_dec
    reshape_activations="hook_z"    heads one after the other, as everywhere here
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmlens.checkpoints.dictionaries.tensors_of import refused, taken
from mmlens.towers.dictionaries.dictionary import Dictionary
from mmlens.values.arguments import count
from mmlens.values.errors import CheckpointError

KINDS = ("standard", "topk", "jumprelu", "gated")
CROSSING = ("transcoder", "jumprelu_transcoder", "skip_transcoder")
NORMS = {"none": "none", "layer_norm": "layer_norm", "constant_norm_rescale": "unit_norm"}
SCALED = "expected_average_only_in"
WRITES = "6.0.0"
"""The version whose settings are written."""


def read(
    config: Mapping[str, Any], state: Mapping[str, Tensor], where: str, scale: float | None
) -> Dictionary:
    """The dictionary of a SAELens checkpoint.

    Args:
        scale: of the activations, for "expected_average_only_in".
    """
    told = {**config, **(config.get("metadata") or {})}
    kind, k = _kind(told, where)
    norm, factor = _norm(told, where, scale)
    W_enc, W_dec, b_dec = taken(state, "W_enc", "W_dec", "b_dec", where=where)
    crosses = kind in CROSSING
    parts: dict[str, Any] = {}
    if kind == "gated":
        b_gate, r_mag, b_enc = taken(state, "b_gate", "r_mag", "b_mag", where=where)
        parts |= {"b_gate": b_gate, "gain": r_mag.exp()}
    else:
        [b_enc] = taken(state, "b_enc", where=where)
    if kind.startswith("jumprelu"):
        [parts["threshold"]] = taken(state, "threshold", where=where)
    if kind == "skip_transcoder":
        [skip] = taken(state, "W_skip", where=where)
        parts["W_skip"] = skip.T
    if kind == "topk" and told.get("rescale_acts_by_decoder_norm"):
        length = W_dec.norm(dim=-1)
        W_enc, b_enc, W_dec = W_enc * length, b_enc * length, W_dec / length[:, None]
    W_dec = W_dec * _finetuned(told, state, where, W_dec)
    if factor != 1.0:  # read scaled, and written back
        W_enc, W_dec, b_dec = W_enc * factor, W_dec / factor, b_dec / factor
    minus = b_dec if told.get("apply_b_dec_to_input", True) and not crosses else None
    return Dictionary(
        W_enc, W_dec, b_enc=b_enc, b_dec=b_dec, b_in=minus, k=k, norm=norm, **parts,
        at=_hook(told.get("hook_name") or told.get("hook_point"), told),
        out=_hook(told.get("hook_name_out"), told),
        about={"format": "SAELens", "architecture": kind, "of": told.get("model_name")}
        | {key: told[key] for key in ("mmlens",) if key in told},
    )  # fmt: skip


def _kind(told: Mapping[str, Any], where: str) -> tuple[str, int | None]:
    """The architecture, and how many units a position keeps."""
    kind = told.get("architecture") or "standard"
    act = told.get("activation_fn_str") or told.get("activation_fn") or "relu"
    more = told.get("activation_fn_kwargs") or {}
    if act == "topk" and kind == "standard":
        kind = "topk"
    elif act not in ("relu", "topk"):
        raise refused(where, "activation_fn", act, "relu and topk")
    if kind not in (*KINDS, *CROSSING):
        raise refused(where, "architecture", kind, ", ".join((*KINDS, *CROSSING)))
    if kind != "topk":
        return kind, None
    k = more.get("k", told.get("k"))
    if k is None:
        raise CheckpointError(f"{where!r} is of the architecture topk and does not say its k.")
    return kind, count(k, "k", error=CheckpointError)


def _norm(told: Mapping[str, Any], where: str, scale: float | None) -> tuple[str, float]:
    """The norm of each vector, and the factor of all."""
    norm = told.get("normalize_activations") or "none"
    norm = SCALED if norm is True else norm
    if norm == SCALED:
        if scale is None:
            raise CheckpointError(
                f"{where!r} was trained on activations scaled to a mean length of sqrt(d_in), and"
                " the factor is not in its files: write scale=, that root over their mean length,"
                " or scale=1.0 where it was folded into the weights."
            )
        return "none", float(scale)
    if scale is not None:
        raise CheckpointError(f"{where!r} has normalize_activations={norm!r} and needs no scale=.")
    if norm not in NORMS:
        raise refused(where, "normalize_activations", norm, ", ".join((*NORMS, SCALED)))
    return NORMS[norm], 1.0


def _finetuned(
    told: Mapping[str, Any], state: Mapping[str, Tensor], where: str, rows: Tensor
) -> Tensor:
    """The factor of each row of W_dec: Float[unit, 1]."""
    factor = state.get("finetuning_scaling_factor", state.get("scaling_factor"))
    ones = torch.ones(len(rows), 1)
    if factor is None or bool((factor == 1).all()):
        return ones
    if not told.get("finetuning_scaling_factor"):
        raise CheckpointError(
            f"{where!r} holds a scaling factor that its configuration does not use"
            " (finetuning_scaling_factor is not set): remove one of both."
        )
    return ones * factor.float().reshape(-1, 1)


def _hook(name: Any, told: Mapping[str, Any]) -> str | None:
    """A hook name; `{layer}` stands for the layer in old files."""
    if not isinstance(name, str) or not name:
        return None
    layer = told.get("hook_layer", told.get("hook_point_layer"))
    return name.replace("{layer}", str(layer)) if layer is not None else name


def written(dictionary: Dictionary) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors of a dictionary.

    Raises:
        CheckpointError: a transcoder of a kind that the format does not have.
    """
    one, crosses = dictionary, dictionary.out is not None
    kind = {"relu": "standard", "topk": "topk", "threshold": "jumprelu", "gate": "gated"}[one.kind]
    if crosses:
        names = {("standard", False): "transcoder", ("jumprelu", False): "jumprelu_transcoder",
                 ("standard", True): "skip_transcoder"}  # fmt: skip
        if (kind, one.W_skip is not None) not in names:
            raise CheckpointError(
                f"SAELens has no transcoder of the kind {one.kind!r}"
                f"{' with a skip connection' if one.W_skip is not None else ''}."
            )
        kind = names[(kind, one.W_skip is not None)]
    minus = not crosses and torch.equal(one.b_in, one.b_dec) and bool(one.b_in.any())
    shift = torch.zeros(one.n_units).to(one.W_enc) if minus else one.b_in @ one.W_enc
    gain = torch.ones_like(one.b_enc) if one.gain is None else one.gain
    state = {"W_enc": one.W_enc, "W_dec": one.W_dec, "b_dec": one.b_dec}
    if one.b_gate is not None:
        state |= {"b_gate": one.b_gate - shift, "r_mag": gain.log()}
        state |= {"b_mag": one.b_enc - shift * gain}
    else:
        state |= {"W_enc": one.W_enc * gain, "b_enc": one.b_enc - shift * gain}
    state |= {} if one.threshold is None else {"threshold": one.threshold}
    state |= {} if one.W_skip is None else {"W_skip": one.W_skip.T}
    back = {ours: theirs for theirs, ours in NORMS.items()}
    config: dict[str, Any] = {
        "architecture": kind, "d_in": one.d_in, "d_sae": one.n_units, "device": "cpu",
        "dtype": str(one.dtype).removeprefix("torch."), "apply_b_dec_to_input": minus,
        "normalize_activations": back[one.norm], "reshape_activations": "none",
        "metadata": {"sae_lens_version": WRITES, "hook_name": one.at, "mmlens": one.about},
    }  # fmt: skip
    config |= {"k": one.k, "rescale_acts_by_decoder_norm": False} if kind == "topk" else {}
    config |= {"d_out": one.d_out} if crosses else {}
    config["metadata"] |= {"hook_name_out": one.out} if crosses else {}
    return config, {name: value.cpu().contiguous().clone() for name, value in state.items()}
