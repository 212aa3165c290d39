"""Casting a part to another dtype as Hugging Face loads it in that dtype.

`torch.nn.Module.to(torch.bfloat16)` casts everything, the tables of rotary frequencies too: the
eight bits left of a frequency give an error of a quarter of a radian at position 600.
`from_pretrained(dtype=torch.bfloat16)` keeps these tables in float32, and the weights that a class
names in `_keep_in_fp32_modules`; so do `cast` and every `Movable`, by `.to(...)`, `.bfloat16()` or
`.half()`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from mmlens.values.arguments import shown
from mmlens.values.errors import ArgumentError, CapabilityError, nearest

NAMES = ("float32", "bfloat16", "float16", "float64")
_ROTARY = re.compile(r"rotary|rope|inv_freq|embed_positions", re.IGNORECASE)
_HALF = (torch.float16, torch.bfloat16)


class Movable(nn.Module):
    """A module whose casts keep in float32 what Hugging Face keeps in float32."""

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Any:
        return super()._apply(_sparing(self, fn), recurse)

    def to(self, *args: Any, **options: Any) -> Any:
        """Moved and cast, as torch's own.

        Raises:
            CapabilityError: a device that this machine does not have. ArgumentError: neither a
                device, a dtype nor a tensor.
        """
        for place in (*args[:1], options.get("device")):
            if isinstance(place, int | str | torch.device) and not isinstance(place, bool):
                device_of(place)
        try:
            return super().to(*args, **options)
        except TypeError as error:
            said = ", ".join([*map(shown, args), *(f"{k}={shown(v)}" for k, v in options.items())])
            raise ArgumentError(
                f".to({said}) names no place: write a device, a number format, or both, as in"
                " .to('cuda', torch.bfloat16)."
            ) from error


def cast(
    module: nn.Module,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """The module itself, moved and cast as a `Movable` is; None leaves things as they are."""
    if device is None and dtype is None:
        return module

    def move(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    return module._apply(_sparing(module, move))


def dtype_of(value: Any, name: str = "dtype") -> torch.dtype | None:
    """A dtype for weights from a `torch.dtype`, its name, or None."""
    said = str(value).removeprefix("torch.")
    if value is None:
        return None
    if said not in NAMES:
        raise ArgumentError(
            f"{name}={said!r} is no number format of weights: {nearest(said, NAMES)}"
        )
    return getattr(torch, said)


def device_of(value: Any, name: str = "device") -> torch.device | None:
    """An available device from torch's name of it; None for None."""
    if value is None:
        return None
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0].rstrip(".:")
        raise CapabilityError(
            f"{name}={str(value)!r} cannot be used here ({reason}): there is {_devices()}."
        ) from error
    return device


def stays(module: nn.Module) -> Iterator[torch.Tensor]:
    """The tensors of a module tree that a cast to half precision leaves in float32.

    Computed tables of rotary embeddings (non-persistent buffers), and the weights that classes of
    transformers name.
    """
    for path, part in module.named_modules():
        loose = part._non_persistent_buffers_set
        for name, buffer in part._buffers.items():
            where = f"{path.rpartition('.')[2]}.{type(part).__name__}.{name}"
            if buffer is not None and name in loose and _ROTARY.search(where):
                yield buffer
        named = getattr(type(part), "_keep_in_fp32_modules_strict", None)
        if named:
            pattern = re.compile("|".join(str(one).replace("*", ".*") for one in named))
            for name, tensor in (*part.named_parameters(), *part.named_buffers()):
                if pattern.search(name.replace("_original_component.", "")):
                    yield tensor


def _sparing(module: nn.Module, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`fn`, except that tensors which stay in float32 are only moved."""
    spared = {id(tensor) for tensor in stays(module)}

    def move(tensor: torch.Tensor) -> torch.Tensor:
        new = fn(tensor)
        narrower = new.dtype in _HALF and tensor.dtype not in _HALF
        return tensor.to(new.device) if narrower and id(tensor) in spared else new

    return move


def _devices() -> str:
    """The devices of this machine, as error messages list them."""
    found = ["'cpu'"]
    if torch.cuda.is_available():
        found += [f"'cuda:{i}'" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("'mps'")
    return ", ".join(found)
