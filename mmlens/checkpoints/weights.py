"""Weights from untrusted files: no code is executed, and shapes are checked first.

A projection is small and comes in several formats: LiMBeR's `proj.ckpt` (a dict of `weight` and
`bias`), a safetensors file, a state dict whose names carry a prefix. Pickles are read with
`weights_only=True`, so one that would run code is refused, and the error for a wrong shape names
both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmlens.towers.projection import keeps_positions
from mmlens.values.arguments import SEEDS, count, shown
from mmlens.values.arguments import path as path_of
from mmlens.values.errors import CheckpointError, reason

ProjectionSource = nn.Module | Mapping[str, Tensor] | str | Path

SPARE = ("pooler", "classifier", "head.")
"""Prefixes of an encoder's tensors that nothing reads here, such as its pooler's."""


def expanded(path: str | Path, name: str = "path") -> Path:
    """A path with `~` expanded.

    Raises:
        CheckpointError: there is no such user, or no file can have this name.
    """
    place = path_of(path, name, error=CheckpointError)
    try:
        place = place.expanduser()
        place.is_dir()
    except (RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(f"{shown(str(path))} names no place: {reason(error)}") from error
    return place


def loaded_whole(told: Any, where: str, spare: tuple[str, ...] = ()) -> None:
    """Refuse a model with weights that transformers initialized randomly.

    Args:
        told: the loading info of `from_pretrained(..., output_loading_info=True)`.
        where: names the file or folder in the refusal.
        spare: prefixes of names that may be missing or unexpected, since nothing reads them.
    """
    misshapen: list[Any] = sorted(told.get("mismatched_keys") or [])
    for key, found, needed in misshapen:
        raise CheckpointError(
            f"{where} does not fit its model: {key} is {tuple(found)}, and {tuple(needed)} is"
            " needed."
        )
    missing = [key for key in sorted(told["missing_keys"]) if not key.startswith(spare or "\0")]
    if missing:
        raise CheckpointError(
            f"{where} lacks {len(missing)} of the model's tensors, for which transformers takes"
            f" random numbers: {', '.join(missing[:3])}{', ...' if len(missing) > 3 else '.'}"
        )


def plain_tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each tensor of a safetensors file, from its header.

    Raises:
        CheckpointError: it is missing or damaged, or quantised.
    """
    from safetensors import safe_open

    where = f"{path.name} of {path.parent.name!r}"
    try:
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            found = {k: (one.get_dtype(), tuple(one.get_shape())) for k, one in slices.items()}
    except Exception as error:  # safetensors has no public base class that all its errors share
        raise CheckpointError(f"{where} can't be read as safetensors: {reason(error)}") from error
    for key, (kind, _) in found.items():
        if kind.startswith("F8") or kind in ("I8", "U8", "I16", "U16", "F4", "F6"):
            raise CheckpointError(
                f"{where} holds {key} as {kind}: quantised weights are no plain numbers; save the"
                " model in float32, bfloat16 or float16."
            )
    return found


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a pickle that holds nothing but tensors.

    Raises:
        CheckpointError: no such file, unreadable, or a pickle that would execute code.
    """
    path = expanded(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint file {str(path)!r}.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            plain_tensors(path)
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # the readers raise several exception types
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise CheckpointError(
                f"{str(path)!r} is a pickle that holds more than tensors, so loading it could run "
                "code; save its tensors alone, with safetensors.torch.save_file(state, path)."
            ) from error
        raise CheckpointError(f"{str(path)!r} can't be read as a checkpoint: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{str(path)!r} holds no dict of tensors; it should be a state dict.")
    return dict(state)


def linear_from_state(state: Mapping[str, Tensor], where: str = "the checkpoint") -> nn.Linear:
    """`nn.Linear` [d_in -> d_out] in float32 from `weight` and `bias` under any one prefix.

    fp16 and bf16 are accepted: the authors' dtype is not documented and casting up is exact.
    float64 is kept.
    """
    found = {key.rsplit(".", 1)[-1]: value for key, value in state.items()}
    prefixes = {key.rpartition(".")[0] for key in state}
    if set(found) - {"bias"} != {"weight"} or len(found) != len(state) or len(prefixes) != 1:
        names = ", ".join(sorted(state)[:6]) or "nothing"
        raise CheckpointError(
            f"{where} has to hold the weight and bias of one linear map, but it has {names}."
        )
    weight, bias = found["weight"], found.get("bias")
    flat = weight.dim() == 2 and all(value.is_floating_point() for value in found.values())
    if not flat or (bias is not None and bias.shape != weight.shape[:1]):
        shapes = {name: tuple(value.shape) for name, value in found.items()}
        raise CheckpointError(f"{where} is no linear map: its shapes are {shapes}.")
    rows, cols = weight.shape
    linear = nn.Linear(cols, rows, bias=bias is not None, device="meta")
    wide = torch.promote_types(weight.dtype, torch.float32)
    state = {name: value.to(wide) for name, value in found.items()}
    linear.load_state_dict(state, assign=True)
    return linear


@contextmanager
def quietly() -> Iterator[None]:
    """A context without transformers' progress bars, which are meant for downloads."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def fresh_linear(d_in: int, d_out: int, seed: int = 0) -> nn.Linear:
    """An untrained projection: torch's default initialisation from a given seed."""
    draw = torch.Generator().manual_seed(count(seed, "seed", least=0, most=SEEDS))
    linear = nn.Linear(d_in, d_out, device="meta")
    linear.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.uniform_(-(d_in**-0.5), d_in**-0.5, generator=draw)
    return linear


def projection_from(source: ProjectionSource, where: str = "the projection") -> nn.Module:
    """A projection from a module, a state dict, a file, or a folder with projection.safetensors."""
    if isinstance(source, nn.Module):
        return source
    if isinstance(source, Mapping):
        return linear_from_state(source, where)
    path = expanded(source)
    if path.is_dir():
        path = path / "projection.safetensors"
    return linear_from_state(read_state(path), repr(str(source)))


def check_projection(
    projection: nn.Module, d_vision: int, d_model: int, parts: str, positions: int = 1
) -> None:
    """Check that a projection maps these features to this language model, on zeros.

    Args:
        projection: maps [batch, patch, d_vision] to [batch, patch, d_model].
        d_vision, d_model: the two sides.
        parts: names the two sides in the refusal, e.g. "BeitModel and GPTJForCausalLM".
        positions: the number of patches of the encoder.

    Raises:
        CapabilityError: it gives another number of positions than there are patches.
        CheckpointError: it fits between other widths.
    """
    shape = "x"
    if isinstance(projection, nn.Linear):
        shape = f"{projection.in_features} -> {projection.out_features}"
        fits = (projection.in_features, projection.out_features) == (d_vision, d_model)
    else:
        parameter = next(projection.parameters(), torch.zeros(0))
        features = torch.zeros(1, positions, d_vision).to(parameter)
        try:
            with torch.no_grad():
                out = projection(features)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            fits, shape = False, reason(error)
        else:
            keeps_positions(projection, out, positions)
            shape = f"{d_vision} -> {out.shape[-1]}"
            fits = out.shape[-1] == d_model
    if not fits:
        raise CheckpointError(
            f"The projection ({shape}) does not fit between {parts}, which need "
            f"{d_vision} -> {d_model}; it was trained for another encoder or language model."
        )


def weights_hash(state: Mapping[str, Any]) -> str:
    """sha256 over the tensors sorted by name, independent of their dtype.

    Floats are hashed as float32, so bf16 weights keep their hash when they are cast up.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu()
        if value.is_floating_point() and value.dtype != torch.float64:
            value = value.float()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_tensors(module: nn.Module, path: Path) -> None:
    """A module's tensors as one safetensors file; each is copied, since none may share memory."""
    from safetensors.torch import save_file

    save_file({k: v.detach().cpu().clone() for k, v in module.state_dict().items()}, path)
