"""The nonlinearities inside of a block of convolutions, in the order in which it declares them.

Those of attention, of MLPs and of gates (squeeze-and-excite) are not among them: what they hold is
no map of features, or has a point of its own.
"""

from __future__ import annotations

from torch import nn

_HOMES = (
    *("torch.nn.modules.activation", "transformers.activations"),
    *("timm.layers.activations", "timm.models.nfnet", "open_clip.transformer"),
)
_OTHER = ("MultiheadAttention", "Softmax", "Softmin", "Softmax2d", "LogSoftmax")
_APART = {
    *("attn", "attention", "self_attn", "transformer", "intermediate", "attn_block", "attn_grid"),
    *("mlp", "ffn", "feed_forward", "mlp_tokens", "mlp_channels", "cpb_mlp"),
    *("se", "se_module", "attn_layer", "downsample", "shortcut", "residual"),
}


def is_activation(module: nn.Module) -> bool:
    """Whether a module is a nonlinearity of torch, timm or transformers."""
    kind = type(module)
    return kind.__module__.startswith(_HOMES) and kind.__name__ not in _OTHER and _elementwise(kind)


def _elementwise(kind: type) -> bool:
    """In a home that holds more than nonlinearities, those by name."""
    shared = kind.__module__ in ("timm.models.nfnet", "open_clip.transformer")
    return not shared or kind.__name__ in ("GammaAct", "QuickGELU")


def block_acts(block: nn.Module) -> list[nn.Module]:
    """The nonlinearities between the convolutions of a block; none where it has no convolution."""
    if not any(isinstance(part, nn.Conv2d) for part in block.modules()):
        return []
    return [
        part
        for path, part in block.named_modules()
        if path and is_activation(part) and not _APART & set(path.split("."))
    ]
