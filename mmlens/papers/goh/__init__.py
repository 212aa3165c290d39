"""Multimodal Neurons in Artificial Neural Networks (Goh et al. 2021, Distill).

    from mmlens.papers import goh

    report = goh.reproduce("pictos", out="runs/goh")               # the whole study
    goh.region_check(mm.load("open_clip:RN50x4/openai"))           # units against published words
    goh.feeding_study("pictos-clip-bridge")                        # what feeds translating neurons

doi:10.23915/distill.00030. `questions` holds what is asked of a model, `report` the study as one
page. Any model with a vision tower can be asked; what needs texts is left out where there are none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.goh.questions.feeding import feeding_study as feeding_study
    from mmlens.papers.goh.questions.region_check import region_check as region_check
    from mmlens.papers.goh.report.goh_study import reproduce as reproduce
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
