"""The bridges that properties are tested on: every kind of toy, made once per session."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import pytest
import torch
from packaging.version import Version

import mmlens as mm
from mmlens.families import toy

KINDS = toy.KINDS


@cache
def bridge(name: str, **options: Any) -> Any:
    """A model by name, made once."""
    return mm.load(name, **options)


def prompt(white: tuple[int, int] = (2, 1), words: str = "A picture of") -> mm.Prompt:
    """A picture with one white patch, and words."""
    return mm.Prompt(toy.picture(white), words)


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference."""
    return float((a - b).abs().max())


def needs_edges() -> None:
    """Skip where TransformerLens has no edge attribution, which came with its release 4."""
    pytest.importorskip("transformer_lens.tools.analysis.attribution_patching")
    if Version(version("transformer-lens")) < Version("4"):
        pytest.skip("TransformerLens 3 attributes to nodes alone")
