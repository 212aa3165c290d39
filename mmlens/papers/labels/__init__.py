"""Object Recognition as Next Token Prediction (Yue et al. 2024): names read one by one.

    from mmlens.papers import labels

    labels.reproduce("pictos", out="runs/labels")

arXiv 2312.02142. `mmlens.next_labels` reads the most probable names of a picture, each without the
others; here they are held against the things that the picture has, and against the model's own
caption. The paper trains its decoder on lists of names: a model that captions was not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.labels.labels_report import reproduce as reproduce
    from mmlens.papers.labels.questions.label_names import named_things as named_things
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
