"""BERTScore: texts matched token by token in a language model's space (Zhang et al., 2020).

    P = mean over candidate tokens of the largest cosine to a reference token, R vice versa
    F1 = 2 P R / (P + R),    rescaled with a baseline b: (F1 - b) / (1 - b)

torchmetrics computes it, one pair at a time: of several texts of different lengths, torchmetrics
1.9 sorts candidates and references by length and puts them back by the wrong permutation, so that
candidates meet other items' references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan
from typing import Any

import torch

from mmlens.metrics.backbone import load_backbone, torchmetrics_function
from mmlens.metrics.counts import combined
from mmlens.metrics.result import MetricError, MetricResult, check_references, mean

_KNOWN = ["roberta-large", "bert-base-uncased", "microsoft/deberta-xlarge-mnli"]
_MOST_TOKENS = 512


def bert_score(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    backbone: Any,
    part: str = "f1",
    layer: int | None = None,
    over: str = "best",
    baseline: float | None = None,
    device: str | torch.device | None = None,
) -> MetricResult:
    """BERTScore of each candidate, [item] in [-1, 1] and seldom below 0, and the mean.

    Args:
        candidates: one text per item.
        references: one or more texts per item.
        backbone: a folder, a name such as "roberta-large", or (model, tokenizer); the tokenizer
            puts one special token before and one after the text. Only a remote name reaches the
            network.
        part: "f1", "precision" or "recall".
        layer: whose output is compared, 0 (embeddings) to the number of layers; by default the
            last, as in torchmetrics. The bert-score package takes others, roberta-large's 17th.
        over: "best" of an item's references, as torchmetrics and bert-score do, or their "mean".
        baseline: the value that becomes 0; None leaves the cosines as they are.
        device: where a backbone loaded by name computes; objects stay where they are.

    Returns:
        Texts without a token score 0 (before rescaling).

    Raises:
        MetricError: no candidates, as many references are not given, an item has none, no such
            layer.
        CapabilityError: the extra `metrics` is not installed.
        ModelError, CheckpointError: no such backbone.

    Source: Zhang et al. 2020, arXiv:1904.09675; torchmetrics.
    """
    if part not in ("f1", "precision", "recall"):
        raise MetricError(f"bert_score: no {part!r}: write 'f1', 'precision' or 'recall'.")
    combine = combined("bert_score", over)
    check_references("bert_score", candidates, references)
    score = torchmetrics_function("text.bert", "bert_score")
    model, tokenizer, recorded = load_backbone(backbone, "AutoTokenizer", _KNOWN, device)
    depth = int(model.config.num_hidden_layers)
    if layer is not None and not 0 <= layer <= depth:
        raise MetricError(f"bert_score: there is no layer {layer}: write 0 to {depth}.")
    at = depth if layer is None else layer
    options = {
        "model": model,
        "user_tokenizer": _reader(model, tokenizer),
        "user_forward_fn": _embedder(at),
        "device": model.device,
    }
    items = []
    for text, texts in zip(candidates, references, strict=True):
        values = [float(score([text], [other], **options)[part]) for other in texts]
        value = combine([0.0 if isnan(value) else value for value in values])
        items.append(value if baseline is None else (value - baseline) / (1 - baseline))
    settings = {"part": part, "layer": at, "over": over, "baseline": baseline}
    return MetricResult(f"BERTScore {part}", mean(items), tuple(items), recorded | settings)


def _reader(model: Any, tokenizer: Any) -> Callable[..., Any]:
    """The tokenizer as torchmetrics calls it, padding to the longest text instead of to 512."""
    places = getattr(model.config, "max_position_embeddings", _MOST_TOKENS)
    most = min(tokenizer.model_max_length, places, _MOST_TOKENS)

    def read(texts: list[str], **_: Any) -> Any:
        return tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")

    return read


def _embedder(layer: int) -> Callable[[Any, dict[str, torch.Tensor]], torch.Tensor]:
    """Float[1, token, feature] of one text, each text computed once."""
    seen: dict[tuple[int, ...], torch.Tensor] = {}

    def embed(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        key = tuple(batch["input_ids"][0].tolist())
        if key not in seen:
            out = model(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
            seen[key] = out.hidden_states[layer]
        return seen[key].clone()  # torchmetrics normalises in place

    return embed
