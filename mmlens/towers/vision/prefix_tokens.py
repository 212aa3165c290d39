"""The names of the tokens before the patches: CLS, distillation, registers.

They come from the encoder's parameters for these tokens, in the order of all three libraries; where
their number is not the number of positions before the patches, positions are numbered.
"""

from __future__ import annotations

from torch import nn

_CLASS = ("cls_token", "class_embedding")
_DISTILLED = ("distillation_token", "dist_token")
_REGISTERS = ("register_tokens", "reg_token")


def markers(module: nn.Module, n_prefix: int) -> tuple[str, ...]:
    """The names of the prefix tokens in order, as many as there are."""
    sizes: dict[str, int] = {}
    for path, parameter in module.named_parameters():
        name = path.rpartition(".")[2]
        positions = parameter.shape[-2] if parameter.dim() > 1 else 1
        sizes.setdefault(name, positions)
    names = ["CLS"] if any(name in sizes for name in _CLASS) else []
    names += ["distillation"] if any(name in sizes for name in _DISTILLED) else []
    registers = next((sizes[name] for name in _REGISTERS if name in sizes), 0)
    names += [f"register {number}" for number in range(registers)]
    if len(names) != n_prefix:
        names = [f"prefix {number}" for number in range(n_prefix)]
    return tuple(names)
