"""Running statistics over pictures that are seen once: memory does not grow with the data.

    top = Top(k=9)                                   # per neuron, the nine strongest pictures
    for at, sample in enumerate(samples):
        top.add(activations(model, Prompt(sample.image), pos=Patch), at)
    top.table(Neuron(3, 17), ids=samples.ids)        # neuron, rank, sample, place, value

A tally keeps some axes (a *cell* is one index of these, a neuron) and takes all values along the
others as observations. `Moments` are those of Chan, Golub & LeVeque (1979), merged pairwise in
float64; `Quantiles` is a DDSketch (Masson et al., VLDB 2019, arXiv:1908.10693); `Top` orders by
value and, where values are equal, by sample, so its result does not depend on the order of the
data; `TopMaps` keeps besides where on each picture the value was high. Two tallies of different
samples merge into the tally of both: exactly for `Top`, `Quantiles`, counts, minima and maxima, up
to rounding for mean and variance.
"""

from __future__ import annotations

from mmlens.tally.cells import Tally
from mmlens.tally.statistics import Moments, Quantiles
from mmlens.tally.top import Top, TopMaps

__all__ = ["Moments", "Quantiles", "Tally", "Top", "TopMaps"]
