"""Words that are rewritten, and words that are taken out, in one model (2024, 2025).

    from mmlens.papers import editing

    editing.reproduce("pictos", out="runs/editing")

Finding and Editing Multi-Modal Neurons (Pan et al., arXiv 2311.07470) rewrites a word in the rows
of a few neurons, Neuron-Level Sequential Editing (NSE, Jiang et al., arXiv 2410.04045) rewrites
words one after the other, and PROJECTAWAY (Jiang et al., arXiv 2410.02762) takes a word's vector
out of the picture. Any units can be made to say any word of one picture: what an edit is judged by
is another picture of the thing, another prompt, other things, and the same with other units.

NSE was made for texts, and its measures are questions in other words; here another prompt is one of
the questions, and another picture of the thing the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.editing.editing_report import reproduce as reproduce
    from mmlens.papers.editing.questions import removals as removals
    from mmlens.papers.editing.questions import rewriting as rewriting
    from mmlens.papers.editing.questions import sequences as sequences
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
