"""The model that a command asks, on a device and in a dtype: options of several commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mmlens.values.errors import ArgumentError, ModelError

Device = Annotated[
    str | None,
    typer.Option(help="Where it computes: cpu, cuda, cuda:1, mps.", show_default="the model's"),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Of the weights: float32, bfloat16, float16.", show_default="that of its files"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
DTYPES = ("float32", "bfloat16", "float16")


def loaded(model: str, device: str | None = None, dtype: str | None = None) -> Any:
    """The model by its name or folder.

    Raises:
        ModelError: no such model. ArgumentError: no such dtype or device.
    """
    from mmlens import families
    from mmlens.runtime.casting import device_of

    if dtype is not None and dtype not in DTYPES:
        raise ArgumentError(f"--dtype {dtype} is none of {', '.join(DTYPES)}.")
    place = None if device is None else device_of(device)
    options: dict[str, Any] = {
        k: v for k, v in (("dtype", dtype), ("device", place)) if v is not None
    }
    if not options:
        return families.load(model)
    try:
        return families.load(model, **options)
    except ArgumentError as error:
        if f"load({model!r}) takes no " not in str(error):
            raise
    import torch

    parts = [*([place] if place is not None else []), *([getattr(torch, dtype)] if dtype else [])]
    made = families.load(model)
    if not hasattr(made, "to"):
        raise ModelError(f"{model!r} stays where it is loaded: leave out --device and --dtype.")
    return made.to(*parts)


def as_asked(model: str, device: str | None, dtype: str | None) -> Any:
    """A model by its name, which the study loads, or loaded with what was asked of it."""
    return model if device is None and dtype is None else loaded(model, device, dtype)
