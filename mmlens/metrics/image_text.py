"""CLIPScore: how near a text is to a picture in the space of a CLIP model (Hessel et al., 2021).

    CLIPScore = max(0, 100 * cos(E_picture, E_text))

as torchmetrics scales it (Hessel et al. write 2.5 instead of 100), which computes it here too. Each
pair is clipped before the mean is taken, as in the paper; torchmetrics' own corpus value clips the
mean. The two differ only where a cosine is negative.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mmlens.metrics.backbone import load_backbone, torchmetrics_function
from mmlens.metrics.result import MetricResult, check_pairs, mean
from mmlens.values.pictures import open_picture

_KNOWN = [
    "openai/clip-vit-large-patch14",
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-base-patch16",
    "openai/clip-vit-large-patch14-336",
]


def clip_score(
    candidates: Sequence[str],
    pictures: Sequence[Any],
    *,
    backbone: Any,
    device: str | torch.device | None = None,
) -> MetricResult:
    """CLIPScore of each text with its picture, [item] in [0, 100], and the mean.

    Pictures and texts that occur several times are encoded once. Of a text longer than the model
    reads (CLIP: 77 tokens) the end is cut, and the end token that CLIP reads it by put behind.

    Args:
        candidates: one text per item.
        pictures: one picture per item, anything that `mmlens.values.pictures.open_picture` reads.
        backbone: a folder, a name such as "openai/clip-vit-large-patch14", or (CLIP model,
            processor). Only a remote name reaches the network.
        device: where a backbone loaded by name computes; objects stay where they are.

    Raises:
        MetricError: no candidates, or another number of pictures.
        CapabilityError: the extra `metrics` is not installed.
        ModelError, CheckpointError: no such backbone.

    Source: Hessel et al. 2021, arXiv:2104.08718; torchmetrics.
    """
    check_pairs("clip_score", candidates, pictures, "pictures")
    score = torchmetrics_function("multimodal", "clip_score")
    model, processor, recorded = load_backbone(backbone, "AutoProcessor", _KNOWN, device)
    clip, words = _Features(model), _Processor(processor, model)
    last, pixels = None, torch.empty(0)
    items = []
    with torch.no_grad():
        for text, picture in zip(candidates, pictures, strict=True):
            if picture is not last:
                pixels = torch.from_numpy(np.array(open_picture(picture))).permute(2, 0, 1)
                last = picture
            # one pair a call: of several, torchmetrics returns only the mean
            items.append(float(score(pixels, text, lambda: (clip, words))))
    settings = recorded | {"scale": 100, "clipped": "each pair"}
    if words.cut:
        settings |= {"texts_cut": len(words.cut), "max_tokens": words.most}
        warnings.warn(
            f"clip_score: {len(words.cut)} texts are longer than the {words.most} tokens that this"
            " model reads; their ends are left out.",
            stacklevel=2,
        )
    return MetricResult("CLIPScore", mean(items), tuple(items), settings)


class _Processor:
    """A CLIP processor that cuts long texts before their end token is put behind them.

    torchmetrics cuts the ids, and with them the end token, at whose place CLIP reads the text.

    Attributes:
        most: how many tokens the model reads.
        cut: the texts that were longer.
    """

    def __init__(self, processor: Any, model: Any) -> None:
        self.processor = processor
        told = getattr(model.config, "text_config", None)
        self.most: int | None = getattr(told, "max_position_embeddings", None)
        self.cut: set[str] = set()

    def __call__(self, **given: Any) -> Any:
        out = self.processor(**given)
        if "text" not in given or self.most is None or out["input_ids"].shape[-1] <= self.most:
            return out
        self.cut.update(given["text"])  # one a call
        return self.processor(**given, truncation=True, max_length=self.most)


class _Features:
    """A CLIP model as torchmetrics asks it, each input encoded once.

    transformers 5 returns features inside a model output, which torchmetrics 1.9 takes for the
    features themselves and fails on.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.config, self.device = model, model.config, model.device
        self._seen: dict[bytes, torch.Tensor] = {}

    def to(self, device: torch.device) -> _Features:
        """Nothing: the caller's model stays where it is."""
        return self

    def get_image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Float[1, feature] of one picture, on the CPU."""
        return self._once(
            pixels, lambda: self.model.get_image_features(pixel_values=pixels.to(self.device))
        )

    def get_text_features(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Float[1, feature] of one text, on the CPU."""
        return self._once(
            ids,
            lambda: self.model.get_text_features(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device)
            ),
        )

    def _once(self, given: torch.Tensor, encode: Callable[[], Any]) -> torch.Tensor:
        key = hashlib.sha256(given.cpu().numpy().tobytes()).digest()
        if key not in self._seen:
            features = encode()
            features = getattr(features, "pooler_output", features)
            self._seen[key] = features.float().cpu()
        return self._seen[key]
