"""Multimodal Neurons in Pretrained Text-Only Transformers (Schwettmann et al. 2023).

    from mmlens.papers import mmn
    from mmlens.papers.tables import ask

    table = ask(mmn.ablation.ablations, model, mm.dataset("pictos:held_out:20"))     # one question
    report = mmn.reproduce("pictos", "pictos:held_out:4000", "runs/mmn")           # the whole study

arXiv:2308.01544. `questions` holds one experiment per file, `report` the study as one page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.mmn.questions import ablation as ablation
    from mmlens.papers.mmn.questions import classes as classes
    from mmlens.papers.mmn.questions import estimates as estimates
    from mmlens.papers.mmn.questions import faithfulness as faithfulness
    from mmlens.papers.mmn.questions import layers as layers
    from mmlens.papers.mmn.questions import project as project
    from mmlens.papers.mmn.questions import readings as readings
    from mmlens.papers.mmn.questions import regions as regions
    from mmlens.papers.mmn.questions import routes as routes
    from mmlens.papers.mmn.questions import sensitivity as sensitivity
    from mmlens.papers.mmn.questions import sheet as sheet
    from mmlens.papers.mmn.questions import translate as translate
    from mmlens.papers.mmn.report.plan import FULL as FULL
    from mmlens.papers.mmn.report.plan import QUICK as QUICK
    from mmlens.papers.mmn.report.plan import OpenChoices as OpenChoices
    from mmlens.papers.mmn.report.plan import Plan as Plan
    from mmlens.papers.mmn.report.plan import ReproduceError as ReproduceError
    from mmlens.papers.mmn.report.reproduction import Report as Report
    from mmlens.papers.mmn.report.reproduction import reproduce as reproduce
    from mmlens.papers.mmn.report.verdicts import Verdict as Verdict
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
