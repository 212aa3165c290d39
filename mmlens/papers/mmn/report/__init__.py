"""A published study, measured anew on any bridge and any pictures, as one page.

    from mmlens.papers import mmn

    report = mmn.reproduce("pictos", "pictos:held_out:4000", "runs/mmn", quick=True)
    report.verdicts                  # claim by claim: holds or not, and with which numbers
    report.page                      # runs/mmn/report.html, one file that needs no network

`reproduce` measures "Multimodal Neurons in Pretrained Text-Only Transformers" (Schwettmann et al.
2023, arXiv:2308.01544). On the command line it is `mmlens reproduce mmn`.

    plan          how many pictures each question is asked about, and how the paper is read
    selection     which pictures
    outcomes      the sweeps and their summaries (`mmlens.papers.mmn.questions`)
    verdicts      whether each claim holds, from the summaries alone
    paper         what was published;    told    the questions, and what is said of each
    findings      what the numbers say, beside the paper's, in words
    open_choices  the table of what each choice changes that the paper leaves open
    figures       a figure of each summary;    sheets    of E7
    report_page   the page;    results    the same as Markdown
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
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
