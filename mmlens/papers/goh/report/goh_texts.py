"""The sentences of the study: titles, ways, rules, claims.

T1 words     T2 formats     T3 attack     T4 Stroop     T5 conditional     T6 vectors     T7 blank
"""

from __future__ import annotations

P = 0.05
ENOUGH = 3
"""So many units are asked for."""
CITED = (
    "Goh, Cammarata, Voss, Carter, Petrov, Schubert, Radford and Olah (2021), Multimodal Neurons in"
    " Artificial Neural Networks, Distill, doi:10.23915/distill.00030"
)
TITLE = "Multimodal Neurons in Artificial Neural Networks, measured again"
TITLES = {
    "T1": "Which written words excite the units?",
    "T2": "Do units answer to a concept in every format?",
    "T3": "Does a written word change what a picture is called?",
    "T4": "Is the ink named, or the word read?",
    "T5": "What does a unit's activation say of a picture?",
    "T6": "How near are written words to one another?",
    "T7": "Does raising a unit on a blank picture raise its text?",
    "probes": "Can concepts be read off a few units?",
}
HOW = {
    "T1": "Every concept's name is drawn as a picture, in two sizes, at four places. The response"
    " is the mean over sizes of the maximum over places. Listed are the words of the units of T2.",
    "T2": "The cross-format index of a unit for a concept: the least, over formats, of how far"
    " pictures of the concept exceed those of other concepts in the same format (z, in standard"
    " deviations). A unit that answers to one format, or to any printed word, is near 0. On one"
    " half of the pictures each concept gets the unit of the largest index; the concepts of the"
    " largest indices are judged on the other half. The matched unit is the other encoder's unit"
    " for the same concept, chosen on the same pictures in the same way. For the bar, concepts are"
    " mixed up between formats (the drawing of one, the symbol of another, the word of a third):"
    " it is the highest index that any unit has for such a mixture, once in twenty draws.",
    "T3": "Each word is written over every picture: eight times in the paper's way (letters of 20"
    " pixels on 288), and once as large as the picture is wide. A control writes a word that names"
    " no class.",
    "T4": "Names of colours in coloured ink; the question is the ink's colour.",
    "T5": "The share of pictures that show the concept, by bucket of the activation of a unit of"
    " T2, in standard deviations from zero, on the half of the pictures that did not choose it.",
    "T6": "Cosines of the units' responses to different words, with and without the mean over all"
    " words taken out.",
    "T7": "The unit of each concept of T2 is raised at every position of a grey picture; so are"
    " other units of the layer.",
    "probes": "Probes fitted on half of the pictures of each format, asked about the other half.",
}
RULES = {
    "T2": f"a concept passes if the interval of its unit lies above 0 (p at most {P}, after Holm),"
    f" above the bar, and above that of the matched unit. It holds if at least {ENOUGH} different"
    f" units pass; it fails if fewer do, and of fewer than {2 * ENOUGH} concepts it is undecided.",
    "T3": "in the paper's way of writing. It holds if the interval of (changed to the word's class"
    " - changed to it by the control) lies above 0, and fails if it lies below.",
    "T4": "of pictures in which ink and word disagree. It holds if the interval of the share in"
    " which the word is read lies above that in which the ink is named, and inks are known: of a"
    " word that names no colour the ink is named above chance. It fails if the interval lies below."
    " Of a model that does not know inks it is undecided, for nothing competes with the word.",
    "T7": f"it holds if at least {ENOUGH} different units raise their own concept's text more than"
    f" other units do (p at most {P}, after Holm); fewer leave it undecided.",
}
CLAIMS = {
    "T2": "Units answer to one concept in every format",
    "T3": "A written word decides what a picture is called",
    "T4": "The word is read, and the ink is not named",
    "T7": "Such units raise the text of their concept by themselves",
}
READ = (
    "Intervals are exact for shares, and bootstrap intervals over pictures elsewhere (95 %)."
    " “Holds”, “fails” and “undecided” are computed from these numbers by the rule that stands"
    " under the claim. What a model cannot be asked is told in its section."
)
