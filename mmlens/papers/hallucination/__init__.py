"""Things that captions name and pictures do not have, with and without what is said to help.

    report = mm.hallucination(model, "pictos:held_out:200", edited={"quiet": [Edit(...)]})
    report.summary       # arm, metric (CHAIR-s, CHAIR-i, ...), mean, low, high, n, ...

Rohrbach et al. (2018, arXiv:1809.02156) for what is counted, Jiang et al. (2024, arXiv:2410.02762)
for the internal confidence of what is named. `questions` asks one picture, `chair_summary` makes
the table, `decoders` names ways of decoding for arms of the study, `arms_of_papers` has those of
papers, `decoding_report` judges their claims as one page, `told_apart` is the AUROC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.hallucination.arms_of_papers import known_arms as known_arms
    from mmlens.papers.hallucination.chair_study import HallucinationReport as HallucinationReport
    from mmlens.papers.hallucination.chair_study import hallucination as hallucination
    from mmlens.papers.hallucination.chair_summary import summary as summary
    from mmlens.papers.hallucination.decoding_report import reproduce as reproduce
    from mmlens.papers.hallucination.questions.said_things import said_things as said_things
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
