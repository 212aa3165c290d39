"""The rows of the table of encoders in the documentation, measured on the twins of `encoders`.

`python scripts/encoders.py` writes them; `test_vision_classes` says where they are not true any
more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from mmlens.towers.vision.encoder import HookedVision

STORED = Path(__file__).parents[1] / "docs" / "encoders.json"
_PLACES = (
    *("hook_embed", "hook_resid_pre", "hook_attn_out", "mlp.hook_pre", "mlp.hook_post"),
    *("hook_mlp_out", "conv", "hook_resid_add", "hook_resid_post"),
)


def stored_rows() -> dict[str, Any]:
    """What the documentation shows, by the name of the twin."""
    return json.loads(STORED.read_text("utf-8")) if STORED.exists() else {}


def own_features(name: str, module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """[batch, position, dim] by the library's own public call, prefix tokens left out there."""
    m = module
    if name.startswith("open_clip"):
        visual = m.visual if hasattr(m, "visual") else m
        if hasattr(visual, "trunk"):
            return visual.trunk.forward_features(x)
        normed = not getattr(visual, "final_ln_after_pool", False) and not visual.attn_pool \
            if hasattr(visual, "attn_pool") else False  # fmt: skip
        kind = "NLC" if hasattr(visual, "transformer") else "NCHW"
        more = {"normalize_intermediates": normed, "output_fmt": kind} if kind == "NLC" else {}
        return visual.forward_intermediates(x, **more)["image_intermediates"][-1]
    if name.startswith("timm"):
        return m.forward_features(x)
    for part in ("vision_model", "vision_encoder", "vit"):
        m = getattr(m, part, m) if hasattr(getattr(m, part, None), "forward") else m
    if "Siglip2" in name:
        whole = torch.nn.functional.unfold(x, 8, stride=8)  # [batch, 3 * y * x, pos]
        cut = whole.transpose(1, 2).unflatten(2, (3, 64)).transpose(2, 3).flatten(2)
        told = {"pixel_attention_mask": torch.ones(cut.shape[:2])}
        shapes = torch.tensor([[4, 4]] * len(x))
        return m(pixel_values=cut, spatial_shapes=shapes, **told).last_hidden_state
    if "Florence2" in name:
        return m(x).last_hidden_state
    if "MAE" in name:
        m.config.mask_ratio = 0.0
        return m(pixel_values=x, noise=torch.arange(16.0).expand(len(x), -1)).last_hidden_state
    return m(pixel_values=x).last_hidden_state


def in_reading_order(out: torch.Tensor, vision: HookedVision) -> torch.Tensor:
    """Maps as rows of positions, tokens without the prefix."""
    if out.dim() == 3:
        return out[:, -vision.grid[0] * vision.grid[1] :]
    rows, cols = vision.grid
    last = out.shape[1:3] == (rows, cols) and out.shape[3] == vision.d_vision
    pick = (lambda r, c: out[:, r, c]) if last else (lambda r, c: out[:, :, r, c])
    return torch.stack([pick(r, c) for r in range(rows) for c in range(cols)], 1)


def noise(vision: HookedVision) -> torch.Tensor:
    """Pixels of one picture that nothing in an encoder is made for."""
    return torch.randn(1, 3, *vision.image_size, generator=torch.Generator().manual_seed(1))


def parity(name: str, module: torch.nn.Module, vision: HookedVision) -> float:
    """The largest difference from the library's own forward pass, by its largest feature."""
    x = noise(vision)
    with torch.no_grad():
        theirs = in_reading_order(own_features(name, module, x), vision)
        return float((vision(x) - theirs).abs().max() / theirs.abs().max())


def encoder_row(name: str, found: HookedVision | str) -> dict[str, Any]:
    """What the documentation says of one encoder.

    Args:
        found: the encoder, or the sentence that it is refused with.
    """
    library, _, kind = name.partition(":")
    if isinstance(found, str):
        return {"library": library, "class": kind, "refused": found}
    inside = {point.split(".", 2)[-1] for point in found.hook_dict if point.startswith("blocks.")}
    inside |= {"hook_embed"} & set(found.hook_dict)
    inside |= {"conv"} if any(point.startswith("conv") for point in inside) else set()
    rows, cols = found.grid
    return {
        "library": library,
        "class": kind,
        "grid": f"{rows} x {cols}",
        "prefix": list(found.markers),
        "layers": found.n_layers,
        "points": [place for place in _PLACES if place in inside],
        "attention": _attention(found),
        "own grids": len(set(found.grids.values()) - {found.grid}) > 0,
    }


def _attention(vision: HookedVision) -> str:
    """Whether queries, keys, values and pattern can be read, and where they have labels."""
    queries = [point for point in vision.hook_dict if point.endswith("attn.hook_q")]
    labelled = [point for point in queries if point in vision.axes]
    if not queries:
        return "no"
    if not labelled:
        return "windows"
    return "yes" if len(labelled) == len(queries) else "some layers in windows"
