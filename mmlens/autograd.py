"""Gradients also for a caller who stands inside `torch.inference_mode()`.

Tensors made there can never be part of a graph, and `enable_grad` does not lead out of it. mmlens
therefore loads and runs its models outside: what they return can be differentiated later.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def ordinary() -> Iterator[None]:
    """Inside, tensors are ordinary ones; gradients are recorded where the caller records them."""
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False), torch.no_grad():
            yield
    else:
        yield


@contextmanager
def gradients() -> Iterator[None]:
    """Inside, gradients are recorded, wherever the caller stands."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
