"""Towards Interpreting Visual Information Processing in Vision-Language Models (Neo et al. 2025).

    from mmlens.papers import neo

    neo.study(mm.load("pictos"), mm.dataset("pictos:held_out:40"))     # all three tools, one table
    neo.reproduce("pictos", out="runs/neo")                            # the paper's claims, a page

arXiv 2410.07149. Three tools ask whether a thing is kept at its own patches: `object_tokens` takes
these away, `patch_words` reads them by the logit lens, `windows` cuts the attention to them in
windows of layers. Each is a question about one picture that `papers.tables.ask` and a sweep can
ask, with a `summary` of its table, and explains the first noun of the model's own caption as the
study of `mmn` does.

The paper's mean token is that of 50,000 pictures of ImageNet; here it is the mean of the same
picture's bare ground, which needs no other pictures. Its polling and question settings need a model
that answers questions: the generative one is asked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.neo.neo_report import reproduce as reproduce
    from mmlens.papers.neo.neo_study import study as study
    from mmlens.papers.neo.questions import object_tokens as object_tokens
    from mmlens.papers.neo.questions import patch_words as patch_words
    from mmlens.papers.neo.questions import windows as windows
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
