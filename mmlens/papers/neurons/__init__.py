"""Claims of four papers about lists of neurons, measured on one model (2024).

    from mmlens.papers import neurons

    neurons.reproduce("pictos", out="runs/neurons")

Finding and Editing Multi-Modal Neurons (Pan et al., arXiv 2311.07470), Towards Neuron Attributions
in Multi-Modal Large Language Models (NAM, Fang et al.), MINER (Huang et al., arXiv 2410.04819) and
MMNeuron (Huo et al., arXiv 2406.11193) each list neurons and say what they are. Here all lists are
asked the same: what is lost of a word without the first K, beside as many others of their layers
(`lists.silenced_lists`), and beside gradient x activation and integrated gradients.

Of the papers' own measures are kept: how many are silenced (MINER's 2 % of all), and where the
neurons lie. Pan et al. add noise to W_out, Huo et al. and Huang et al. count right answers; here a
share of the noun's probability is lost, which needs no model that answers questions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.neurons.neurons_report import reproduce as reproduce
    from mmlens.papers.neurons.pools import pool_lists as pool_lists
    from mmlens.papers.neurons.questions import lists as lists
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
