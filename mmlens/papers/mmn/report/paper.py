"""What was published: arXiv:2308.01544v2, by table and figure.

The model is LiMBeR-BEiT (BEiT large, one linear layer, GPT-J 6B), the pictures COCO's val2017. What
is printed only as a curve or a bar is not listed. Values marked "computed" are means over a printed
table.
"""

from __future__ import annotations

from typing import NamedTuple

TITLE = "Multimodal Neurons in Pretrained Text-Only Transformers"
CITED = "Schwettmann, Chowdhury, Klein, Bau and Torralba (2023), arXiv:2308.01544"


class Published(NamedTuple):
    """A number of the paper: what it is, its value as printed, and where it stands."""

    experiment: str
    what: str
    value: str
    source: str


PAPER = (
    Published("E1", "random", "BERTScore .3627; CLIPScore 21.74", "Table 1"),
    Published("E1", "neurons", "BERTScore .3848; CLIPScore 23.43", "Table 1"),
    Published("E1", "caption", "BERTScore .5251; CLIPScore 23.62", "Table 1"),
    Published("E1", "from random to caption", "14 % (BERTScore); 90 % (CLIPScore)",
              "Table 1, computed"),
    Published("E2", "random", "BERTScore .3286; CLIPScore 19.22", "Table 2"),
    Published("E2", "prompt", "BERTScore .3291; CLIPScore 19.17", "Table 2"),
    Published("E2", "caption", "BERTScore .5251; CLIPScore 23.62", "Table 2"),
    Published("E2", "nouns", "BERTScore .4470; CLIPScore 27.89", "Table 2"),
    Published("E2", "prompt ~ random", "D = .037, p > .5", "section 3.1"),
    Published("E2", "nouns ~ prompt", "D > .9, p < .001", "section 3.1"),
    Published("E3", "concepts above random", "12 of 12", "Fig. 5"),
    Published("E3", "mean map", "IoU .37, mean of 8 pictures shown", "Fig. S.1, computed"),
    Published("E4", "own class highest", "10 of 10", "Fig. S.2"),
    Published("E5", "attributed", "falls by 80 % on average", "section 3.3, Fig. 6"),
    Published("E5", "random", "largely unaffected", "section 3.3, Fig. 6"),
    Published("E6", "layers", "most between layers 5 and 10 of 28", "section S.6, Fig. S.4"),
    Published("E6", "interpretable", "50 % of the top units", "section 2.2"),
)  # fmt: skip


def published(experiment: str, what: str) -> Published | None:
    """The number of the paper that stands beside one of ours, if one was printed."""
    return next((row for row in PAPER if row[:2] == (experiment, what)), None)
