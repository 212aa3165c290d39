"""The pretrained models behind CLIPScore and BERTScore, and torchmetrics, which computes with them.

A backbone is always named by the caller and always recorded: published values are those of one
backbone, and another gives other numbers. Only the name of a remote model reaches the network.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mmlens.values.errors import ModelError
from mmlens.values.hub_errors import unfound
from mmlens.values.optional_packages import package


def torchmetrics_function(module: str, name: str) -> Any:
    """A function of torchmetrics."""
    return getattr(package(f"torchmetrics.functional.{module}", "metrics", name), name)


def load_backbone(
    backbone: Any, reader: str, known: list[str], device: str | torch.device | None = None
) -> tuple[Any, Any, dict[str, Any]]:
    """(model in evaluation mode, its tokenizer or processor, what to record of them).

    Args:
        backbone: a local folder, the name of a model on the Hugging Face Hub, or the two objects
            (model, reader).
        reader: "AutoTokenizer" or "AutoProcessor".
        known: names to suggest.
        device: where a model loaded here computes; an object stays where it is.
    """
    if isinstance(backbone, tuple) and len(backbone) == 2:
        model, words = backbone
        return model.eval(), words, _recorded(type(model).__name__, model)
    if not isinstance(backbone, str | Path):
        raise ModelError(
            f"A {type(backbone).__name__} is no backbone: give a folder, a name such as"
            f" {known[0]!r}, or (model, {reader.removeprefix('Auto').lower()})."
        )
    import transformers

    local = Path(backbone).is_dir()
    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    try:
        model = transformers.AutoModel.from_pretrained(str(backbone), **options)
        words = getattr(transformers, reader).from_pretrained(str(backbone), **options)
    except (OSError, ValueError) as error:
        raise unfound("backbone", str(backbone), error, known) from error
    return (
        model.to(device).eval() if device is not None else model.eval(),
        words,
        _recorded(Path(backbone).name if local else str(backbone), model),
    )


def _recorded(label: str, model: Any) -> dict[str, Any]:
    commit = getattr(getattr(model, "config", None), "_commit_hash", None)
    known = {"backbone": label, "torchmetrics": version("torchmetrics")}
    return known | ({"commit": commit} if commit else {})
