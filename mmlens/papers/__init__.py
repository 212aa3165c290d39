"""Published studies, measured anew: one package per paper, and what their tables share.

mmn             Multimodal Neurons in Pretrained Text-Only Transformers (2023)
goh             Multimodal Neurons in Artificial Neural Networks (2021)
neo             Towards Interpreting Visual Information Processing in Vision-Language Models (2025)
neurons         lists of neurons of Pan et al., NAM, MINER and MMNeuron (2024)
labels          Object Recognition as Next Token Prediction (2024)
lenses          which lens names what a patch shows, by claims of six papers (2020 to 2026)
alignment       Implicit Multimodal Alignment (2024)
concepts        concepts of words and their shifts: CoX-LMM (2024), Khayatan et al. (2025)
circuits        circuits of units (2024) and graphs of them, silenced
editing         words rewritten and taken out: Pan et al. (2024), NSE, PROJECTAWAY (2025)
dictionaries    units of a sparse autoencoder, judged by a known truth (2024, 2025)
projection      Cross-Modal Projection Doesn't Really Project Visual Attributes (2024)
shootout        the methods of these studies, each against a control of its own
maps            maps of relevance, by the claims of their papers (2017 to 2025)
frozen_block    Frozen Transformers in Language Models Are Effective Visual Encoder Layers (2024)
bias            associations of concepts with groups, audited
hallucination   things that captions name and pictures do not have

tables          a question asked about many pictures, as one table;    swept_questions    on disk
study_folder    one page, its Markdown and its tables;    study_report    of parts and verdicts
bootstrap       intervals over pictures;    comparisons    tests of two arms
one_thing       pictures of one known thing each
contests        methods, each against a control of its own
scoring         how a caption is scored;    interval_plots dots and intervals, in figures
claims          verdicts and numbers;       page_parts, markdown_parts   what reports are made of
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers import alignment as alignment
    from mmlens.papers import bias as bias
    from mmlens.papers import bootstrap as bootstrap
    from mmlens.papers import circuits as circuits
    from mmlens.papers import comparisons as comparisons
    from mmlens.papers import concepts as concepts
    from mmlens.papers import dictionaries as dictionaries
    from mmlens.papers import editing as editing
    from mmlens.papers import frozen_block as frozen_block
    from mmlens.papers import goh as goh
    from mmlens.papers import hallucination as hallucination
    from mmlens.papers import labels as labels
    from mmlens.papers import lenses as lenses
    from mmlens.papers import maps as maps
    from mmlens.papers import mmn as mmn
    from mmlens.papers import neo as neo
    from mmlens.papers import neurons as neurons
    from mmlens.papers import projection as projection
    from mmlens.papers import scoring as scoring
    from mmlens.papers import shootout as shootout
    from mmlens.papers import tables as tables
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
