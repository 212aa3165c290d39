"""Circuits of units, silenced and kept alone; and whether a graph of them is true of its model.

    from mmlens.papers import circuits

    circuits.reproduce("pictos", out="runs/circuits")

Automatic Discovery of Visual Circuits (CLA, Rajaram et al. 2024, arXiv 2404.14349) prunes what is
not in a circuit, and the circuit itself. Attribution graphs (Ameisen et al. 2025; here between
neurons at positions) say what a node gives to a word; silencing says
what it gave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.circuits.circuits_report import reproduce as reproduce
    from mmlens.papers.circuits.questions import graphs as graphs
    from mmlens.papers.circuits.questions import pruning as pruning
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
