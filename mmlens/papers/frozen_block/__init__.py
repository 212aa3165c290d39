"""Frozen Transformers in Language Models Are Effective Visual Encoder Layers (Pang et al. 2024).

    from mmlens.papers import frozen_block

    frozen_block.reproduce("pictos", out="runs/frozen-block")

arXiv 2310.12973. `block_answers` trains what the paper compares and asks it of held-out pictures,
`block_claims` judges. The paper trains the encoder as well, on ImageNet; here it stays as it is,
and only the two linears and the head learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.frozen_block.block_report import reproduce as reproduce
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
