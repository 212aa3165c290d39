"""Labels by next tokens: what a picture is called, each label read without the others.

Yue et al. (2024, "Object Recognition as Next Token Prediction", section 3: one-shot sampling). The
`k` most probable first tokens after a prompt are taken at once, and each goes on greedily until a
delimiter. As a branch sees the picture, the prompt and its own tokens alone, no label depends on
the labels before it (the paper's decoupling, which needs no mask here), and

    P(label) = product of the probabilities of its tokens and of the delimiter behind it

Branches that spell the same label are added. The paper trains its decoder on lists of labels; of a
model that captions, labels are what the prompt leads to, and its grammar is in their probability:
"A picture of a" asks for other names than "A picture of two".

Positions: the last, and those that are generated. Path: the model's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.capabilities import needs
from mmlens.model.generation import end_ids
from mmlens.model.provenance import about
from mmlens.model.targets import extend, finite, one
from mmlens.model.text_end import Stop, stops
from mmlens.towers.language.tokenization import word
from mmlens.values.arguments import count

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM
    from mmlens.values.prompt import SoftPrompt

ENDS = (",", ".", " and", " in", " on", " with")
"""What ends a name in a caption."""


@needs("logits", "generate")
def next_labels(
    model: HookedVLM,
    prompt: Any,
    k: int = 10,
    *,
    stop: Stop = ENDS,
    max_new_tokens: int = 5,
) -> pd.DataFrame:
    """The labels that follow a prompt, each in a branch of its own: the most probable first.

    Args:
        k: how many first tokens are followed.
        stop: a word that ends a label, or several, besides the model's end token.
        max_new_tokens: of a label, at most.

    Returns:
        Columns label, prob (with its delimiter), ended (whether it has one), branches (how many
        spell it). First tokens that are delimiters have no label, and no row.
    """
    import pandas as pd

    k, most = count(k, "k"), count(max_new_tokens, "max_new_tokens")
    delimiters = {one.strip() for one in stops(stop)}
    soft = one(model, prompt)
    with torch.no_grad():
        first = _probabilities(model, soft)
        best = first.topk(min(k, len(first)))
        found = [
            _followed(model, soft, token, prob, delimiters, most)
            for prob, token in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
    rows = pd.DataFrame([one for one in found if one[0]], columns=["label", "prob", "ended"])
    table = rows.groupby("label", sort=False).agg(
        prob=("prob", "sum"), ended=("ended", "all"), branches=("prob", "size")
    )
    table = table.sort_values("prob", ascending=False).reset_index()
    table.attrs["about"] = about(model, method="next_labels", prompt=soft, k=k)
    return table


def _probabilities(model: HookedVLM, soft: SoftPrompt) -> torch.Tensor:
    """The probabilities of words at the end: Float[d_vocab]."""
    logits = model.run(soft)[0, -1].float()
    return finite(logits, f"the logits of {model.name!r}").softmax(-1)[: model.lm.n_words]


def _followed(
    model: HookedVLM, soft: SoftPrompt, token: int, prob: float, delimiters: set[str], most: int
) -> tuple[str, float, bool]:
    """The label that begins with a token, its probability, and whether a delimiter ends it."""
    ends, spelt = set(end_ids(model)), [token]
    if token in ends or word(model.lm, token).strip() in delimiters:
        return "", prob, True
    while True:
        following = _probabilities(model, extend(model, soft, spelt))
        token = int(following.argmax())
        over = token in ends or word(model.lm, token).strip() in delimiters
        if over or len(spelt) < most:
            prob *= float(following[token])
        if over or len(spelt) >= most:
            return "".join(word(model.lm, one) for one in spelt).strip(), prob, over
        spelt.append(token)
