"""What is told of an experiment: its question, way, rule, and numbers beside the paper's."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmlens.papers.claims import Row, Verdict

TITLES = {
    "E1": "Do neurons say what is in the picture?",
    "E2": "Does the projection say it already?",
    "E3": "Do neurons look at the thing that they name?",
    "E4": "Are they quiet on pictures of other classes?",
    "E5": "Does the caption depend on them?",
    "E6": "In which layers are they?",
    "E7": "Pictures, their neurons, and where these look",
    "faithfulness": "Which attribution method tells the truth?",
    "sensitivity": "What does each reading of the paper change?",
    "readings": "How is what a unit writes to be read?",
}
HOW = {
    "E1": "Of each picture's 100 strongest (unit, patch) pairs for the caption's first noun, the"
    " units that decode to words are scored against what people said of the picture; the best one"
    " counts. Baseline: the same units with other pictures, drawn several times.",
    "E2": "Each projected patch is read by its 5 nearest tokens, and so are random vectors of the"
    " same length. If the projection translated, its tokens would fit the picture better.",
    "E3": "A unit's map over the patches, cut to its top 5 %, is compared with the mask of the"
    " thing; so are random units of the same layers.",
    "E4": "Units that are often on top for pictures of one class are shown other pictures of"
    " every class.",
    "E5": "The top units are silenced, more and more of them, and as many random ones of the same"
    " layers. The word's probability and the new caption are compared with the old ones.",
    "E6": "The layers of the different units among each picture's 100 strongest pairs.",
    "E7": "The five strongest units of a picture, what they say, and their mean activation; what"
    " lies outside its top 5 % is dimmed.",
    "faithfulness": "Each method ranks all units; the top ones of each ranking are silenced. The"
    " more of the probability is lost, the truer the ranking. Not in the paper.",
    "sensitivity": "Where the paper can be read in several ways, one way at a time is changed.",
    "readings": "Each picture's 20 strongest units are decoded in several ways, at the sign of"
    " their activation: by the unembedding (the paper), through the mean Jacobian of the layers"
    " behind them, through a tuned lens, and by the words that silencing the unit lowers here."
    " A unit fits if the explained noun is among its first 10 tokens. Controls: the units of"
    " pictures of other things against this word, and random units of the same layers. Only"
    " captions that name what is there count. Units are strong because they raise this word, so"
    " what silencing them lowers is no independent witness. Not in the paper.",
}
RULES = {
    "E1": "it holds if the interval of neurons minus wrong pictures lies above 0 by every metric,"
    " and fails if it lies below 0 by one.",
    "E2": "Kolmogorov-Smirnov's D of projected patches and random vectors, paired by picture. It"
    " holds if D is shown to be below 0.2 by every metric, for the mean and for the best patch, and"
    " fails if one is shown to be above (p <= .05, corrected after Holm). Where the interval of"
    " projected patches minus random vectors lies below 0, they fit less, and translate nothing"
    " whatever D is.",
    "E3": "it holds if top units lie above random ones in at least 10 of 12 concepts, in as many"
    " that chance would do it in at most 5 %, and the interval over all pictures lies above 0; it"
    " fails if that lies below 0, or those of more than 2 of 12 concepts do.",
    "E5": "at the largest number of units. It holds if the interval of the fall lies above 80 %,"
    " that with as many random units within 10 % of no change, and that of the difference above 0;"
    " it fails if one lies on the other side.",
}
UNDECIDED = "What the numbers do not decide, and what fewer than 8 pictures say, is undecided."
READ = (
    "Every mean is one over pictures; its interval is the studentised 95 % bootstrap over"
    " pictures, and a difference is taken picture by picture. “Holds”, “fails” and"
    " “undecided” are computed from these numbers by the rule that stands under the claim. A"
    " picture whose caption names nothing is counted as skipped and never dropped in"
    " silence."
)
"""How the page is read."""

PICTOS_DIFFERS = {
    "E2": [
        "The bundled language model was trained on text with lists of names, which a linear map can"
        " imitate; GPT-J's was not made so."
    ],
    "E5": [
        "Here a part of the word gets past the units: silencing every one of them at the picture"
        " takes no more than the top 200 do (see the model card), because a linear map into a"
        " small model learns soft prompts that look like what units write."
    ],
}
"""Why the bundled model differs, where a claim fails on it."""


@dataclass(frozen=True)
class Finding:
    """What is told of one experiment.

    Attributes:
        says: what was found, in a sentence; of a claim, its verdict's.
        rows: numbers beside the paper's.
        differs: what is unlike the paper, and why.
        table: another table, its head first.
        pictures: how many were asked about, and how many had no answer.
    """

    key: str
    says: str
    verdict: Verdict | None = None
    rows: list[Row] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)
    pictures: str = ""

    @property
    def title(self) -> str:
        return TITLES[self.key]


@dataclass(frozen=True)
class Setting:
    """What the words depend on beside the numbers: whether metrics are offline ones, the family."""

    offline: bool = True
    family: str = ""
    units: int = 0
    layers: int = 0
