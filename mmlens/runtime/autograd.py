"""Gradients for callers inside `torch.inference_mode()`.

Tensors made there can never be part of a graph, and `enable_grad` does not leave that mode. mmlens
therefore loads and runs its models outside, and so do the methods that differentiate.

    @ordinary()
    def attribute(...)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mmlens.values.errors import CapabilityError


def differentiable(module: nn.Module) -> None:
    """Refuse weights through which nothing can be differentiated.

    Raises:
        CapabilityError: the module was made inside `torch.inference_mode()`.
    """
    if any(parameter.is_inference() for parameter in module.parameters()):
        raise CapabilityError(
            f"This {type(module).__name__} was made inside torch.inference_mode(), so nothing can"
            " be differentiated through it: make it outside."
        )


@contextmanager
def ordinary() -> Iterator[None]:
    """A context outside of inference mode; gradients are recorded where the caller records them."""
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False), torch.no_grad():
            yield
    else:
        yield
