"""What a newcomer writes: each call answers with what it says, or with one sentence that helps.

The calls are those of somebody who knows NumPy, pandas, xarray, torch and TransformerLens. A
sentence is compared by the part that says what to write instead. They run in a process of their
own, because the tests check annotations at run time, and a user does not.
"""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import re
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mmlens as mm
from mmlens import patching, view
from mmlens.families import toy
from mmlens.values.errors import MMLensError

VALUES = torch.arange(6.0).view(2, 3) - 2
WORDS = "A picture of"


def cells() -> dict[str, Any]:
    """What stands in the cells of a notebook."""
    model = mm.load("toy-gptj-planted")
    photo = toy.picture((2, 1))
    prompt = mm.Prompt(photo, WORDS)
    scores = mm.attribute(model, prompt, of=" dog", after="")
    best = mm.top_neurons(scores, 3)
    cut = partial(patching.knockout, mm.Patch, -1)
    attention = partial(patching.attention, model, prompt)
    small = mm.Scores(VALUES, ("layer", "unit"), {"layer": (3, 5)}, {"method": "attribute"})
    return {
        "mm": mm, "np": np, "pd": pd, "torch": torch, "patching": patching, "view": view,
        "math": math, "copy": copy, "pickle": pickle, "cut": cut, "WORDS": WORDS,
        "attention": attention,
        "edit": mm.Edit("neurons", 0.0, best.neuron[0]),
        "model": model, "photo": photo, "prompt": prompt, "scores": scores,
        "best": best, "neuron": best.neuron[0], "s": small, "flat": scores.sum("unit"),
        "pair": patching.Pair(prompt, mm.Prompt(toy.picture((0, 0)), WORDS)),
        "metric": patching.metrics.logit(model, " dog"), "VALUES": VALUES,
    }  # fmt: skip


TRUE = """
float(s.sum()) == 3 and round(float(s.mean()), 1) == 0.5
len(s) == 2 and len(list(s)) == 2
torch.equal(abs(s).values, s.values.abs()) and torch.equal(abs(s).values, s.abs().values)
torch.equal((s ** 2).values, s.values ** 2)
torch.equal((1 / (s + 9)).values, 1 / (s.values + 9))
torch.equal((2 - s).values, 2 - s.values)
torch.equal((s == 0).values, (s.values == 0).float())
torch.equal((s != s + 1).values, torch.ones(2, 3))
not (s == None) and s != "dog" and s in [s] and {s: 1}[s] == 1
bool(s.sum()) and not bool(s.sum() * 0)
s.std("unit").values.tolist() == s.values.std(1).tolist()
math.isnan(float(s.sum().std()))
s.sum(["layer", "unit"]).item() == s.sum().item() == s.sum("unit", "layer").item()
s.argmax() == {"layer": 5, "unit": 2} and s.argmin() == {"layer": 3, "unit": 0}
s.sel(**s.argmin()).item() == s.min().item()
np.asarray(s).tolist() == VALUES.tolist() and np.asarray(s, dtype=int).sum() == 3
isinstance(np.float64(2) * s, mm.Scores) and isinstance(torch.tensor(2.0) * s, mm.Scores)
torch.equal((np.float64(2) / (s + 9)).values, 2 / (s.values + 9))
torch.equal(np.subtract(1.0, s).values, 1 - s.values)
torch.equal(np.less(0.0, s).values, (0 < s.values).float())
torch.equal(np.exp(s).values, s.values.exp()) and np.exp(s).of("layer") == (3, 5)
torch.equal(np.abs(s).values, s.values.abs()) and np.mean(s).item() == 0.5
sum([s, s]).values.tolist() == (s * 2).values.tolist()
(1 - s).about["computed"] == "negated + 1" and (2 / s).about["computed"] == "inverted * 2"
not hasattr(s, "dims") and getattr(s, "plot", None) is None
mm.Neuron("L4.138") == mm.Neuron(4, 138) == mm.Neuron(np.int64(4), torch.tensor(138))
repr(mm.Neuron(np.int64(4), np.int64(138))) == "Neuron(4, 138)"
repr(mm.Patch(np.int64(5), np.int64(2))) == "Patch(5, 2)"
mm.Patch("(5, 2)") == mm.Patch((5, 2)) == mm.Patch(5, 2) and str(mm.Patch(5, 2)) == "(5, 2)"
all(mm.Patch(str(p)) == p for p in (mm.Patch(5, 2), mm.Patch(1, 0, 2), mm.Patch(1, 0, 2, 3)))
list(mm.decode(model, best.iloc[0]).neuron) == [neuron]
mm.activations(model, prompt, best.iloc[0]).axes == ("neuron", "pos")
list(mm.decode(model, best.head(2)).neuron) == list(best.neuron.head(2))
scores.sel(best.iloc[1]).of("neuron") == (best.neuron[1],)
set(mm.attribute(model, prompt, of=mm.Neuron(2, 3)).of("layer")) == {0, 1}
set(mm.attribute(model, prompt, of=["L2.3", "L1.5"]).of("layer")) == {0}
set(mm.attribute(model, prompt, of="L0.3").of("layer")) == {0}
mm.attribute(model, prompt, of=(" dog", " cat"), after="").axes[0] == "token"
patching.attention(model, prompt, mm.Head(1, 0)).axes == ("query", "key")
bool((patching.attention(model, prompt, "L1H0") == patching.attention(model, prompt, 1)[0]).min())
len(model.edit([mm.Edit("neurons", 0.0, neuron), mm.Edit("z", 0.0, mm.Head(1, 0))]).edits) == 2
len(model.edit(mm.Edit("neurons", 0.0, best.iloc[0])).edits) == 1
view.show(flat, prompt).to_json() == view.show(flat, photo).to_json()
patching.patch(model, pair, metric, "neurons", best.iloc[0]).axes == ("neuron",)
int(s.sum()) == 3 and f"{s.sum():.2f}" == "3.00" and f"{s}" == str(s)
round(s / 3, 2).values.tolist() == torch.round(VALUES / 3, decimals=2).tolist()
round(s.sum() / 4).item() == 1
torch.equal(((s > -2) & (s < 2)).values, ((VALUES > -2) & (VALUES < 2)).float())
torch.equal(((s < -1) | (s > 1)).values, ((VALUES < -1) | (VALUES > 1)).float())
torch.equal((~(s > 0)).values, (VALUES <= 0).float())
torch.equal(((s > -2) & (s < 2) | (s > 2)).values, ((VALUES != -2) & (VALUES != 2)).float())
2.0 in s and 2 in s and not 7 in s and s.max() in s
torch.equal(torch.tensor(s), VALUES) and torch.equal(torch.as_tensor(s), VALUES)
torch.as_tensor(s.sum()).shape == () and torch.asarray(s).shape == (2, 3)
torch.equal((torch.tensor(2.0) - s).values, 2 - VALUES)
s[np.int64(1)].values.tolist() == s[torch.tensor(1)].values.tolist() == VALUES[1].tolist()
np.where(s > 0)[0].tolist() == [1, 1, 1] and np.argmax(s) == 5
max(flat.sum("layer")).item() == flat.sum("layer").max().item()
[one.item() for one in sorted(s[0])] == [-2, -1, 0] and sum(s[0]).item() == -3
copy.deepcopy(s).axes == pickle.loads(pickle.dumps(s)).axes == s.axes and hash(s) == hash(s)
pickle.loads(pickle.dumps(prompt)).text == copy.deepcopy(prompt).text == WORDS
pickle.loads(pickle.dumps(neuron)) == copy.deepcopy(neuron) == neuron
repr(copy.deepcopy(edit)) == repr(pickle.loads(pickle.dumps(edit))) == repr(edit)
{neuron: 1}[mm.Neuron(str(neuron))] == 1 and mm.Patch("(1, 2)") in {mm.Patch(1, 2)}
mm.Neuron("L4.138", tower="vision") == mm.Neuron("vision.L4.138") == mm.Neuron(4, 138, "vision")
mm.Head("L4H1", tower="vision") == mm.Head("vision.L4H1")
mm.Neuron("L4.138", expert=0) == mm.Neuron("L4.e0.138") != mm.Neuron("L4.138")
mm.Patch(np.array([5, 2])) == mm.Patch(torch.tensor([5, 2])) == mm.Patch(5, 2)
mm.Token(" of", np.int64(3)) == mm.Token(" of", 3)
torch.equal(attention(head="L1H3").values, attention(1, head=3).values)
torch.equal(model.edit(cut(mm.Head(1, 0)))(prompt), model.edit(cut(layer=1, head=0))(prompt))
torch.equal(model.edit(cut(["L1H0", "L2H1"]))(prompt), model.edit(cut(1, 0), cut(2, 1))(prompt))
not torch.equal(model.edit(cut(head="L1H0"))(prompt), model(prompt))
""".strip().splitlines()  # fmt: skip


SAID = {
    "bool(s > 0)": r"6 values.*\.values\.any\(\)",
    "float(s)": "6 values, not one",
    "s + np.ones(3)": "write a finite number",
    "s == np.ones((2, 3))": r"has no labels.*scores\.values",
    "np.ones((2, 3)) == s": r"has no labels.*scores\.values",
    "s == VALUES": r"has no labels.*scores\.values",
    "s != VALUES": r"has no labels.*scores\.values",
    "VALUES + s": r"has no labels.*scores\.values",
    "s[s > 0]": r"scores \* \(scores > 0\)",
    "s[np.array([0, 1])]": r"\.sel\(layer=",
    "s[True]": "no number",
    "VALUES[s > 0]": r"scores\.values|float\(scores\)",
    "list(s.sum())": r"float\(scores\)",
    "int(s)": "6 values, not one",
    "f'{s:.2f}'": "6 values, not one",
    "neuron in s": r"in scores\.of\(axis\)",
    "'layer' in s": r"in scores\.axes",
    "s & 3": "write each in brackets",
    "s > 0 & s < 2": "write each in brackets",
    "(s > 0) & (s + 5)": "write each in brackets",
    "~s": "write each in brackets",
    "max(s)": r"scores\.max\(\) is the largest",
    "sorted(s)": r"to_frame\(5\)",
    "torch.stack([s, s])": r"torch\.stack keeps no labels.*scores\.values",
    "torch.topk(s, 2)": r"torch\.topk keeps no labels.*scores\.values",
    "torch.abs(s)": r"torch\.abs keeps no labels.*scores\.values",
    "np.any(s > 0)": r"numpy\.any keeps no labels",
    "np.std(s)": "n - 1",
    "s.argmax('layer')": r"values\.argmax\(dim\)",
    "s.float()": r"float\(scores\)",
    "s.any()": r"values\.any\(\)",
    "s.groupby('layer')": r"to_frame\(\)\.groupby",
    "mm.Neuron('vision.L4.138', tower='text')": "leave tower= out",
    "mm.Neuron('L4.e1.138', expert=2)": "leave expert= out",
    "mm.Neuron(4, 138, 3)": "name of a tower",
    "mm.Head(4, 1, 3)": "name of a tower",
    "mm.Neuron(None, 3)": "whole number",
    "mm.Patch(1, 2, None)": "whole number",
    "mm.Token(3, ' of')": r"Token\(' dog', 3\)",
    "mm.Token(' of', '3')": "whole number",
    "mm.attribute(model, prompt, of=mm.Neuron(1, 3), layer=2)": "name earlier layers",
    "mm.attribute(model, prompt, of=best.head(0))": "at least 1",
    "patching.attention(model, prompt, ['L1H0', 'L1H1'])": r"layer=Head\(3, 5\)",
    "patching.attention(model, prompt, 'L1H0', head=3)": "leave head= out",
    "cut(2, head=mm.Head(1, 0))": "leave layer= out",
    "patching.patch(model, pair, None)": r"write lambda logits: logits\[5\]",
    "patching.patch(model, pair)": r"metric=patching\.metrics\.logit\(model",
    "patching.patch(model, pair, ' dog')": r"patching\.metrics\.logit\(model, ' dog'\)",
    "patching.patch(model, pair, metric, neuron)": "units=",
    "patching.patch(model, pair, metric, 'neurons', [])": "at least one",
    "patching.ablate(model, prompt, metric, 'neurons', 'mean')": r"mean_over\(model, prompts\)",
    "view.heatmap(flat.sum('layer'))": r"view\.bars\(scores\)",
    "np.ones(3) * s": "write a finite number",
    "np.maximum(s, 0)": r"scores\.numpy\(\)",
    "len(s.sum())": r"float\(scores\)",
    "s.sum(0)": "there is 'layer', 'unit'",
    "s.mean(axis='layer')": r"scores\.mean\('layer'\)",
    "s.mean(dim='layer')": r"scores\.mean\('layer'\)",
    "s.mean('layers')": "did you mean 'layer'",
    "s.topk(3)": r"to_frame\(5\)",
    "s.dims": "write axes",
    "s.isel(layer=0)": r"scores\[0, :5\]",
    "s.plot()": r"view\.show\(scores\)",
    "s.to_numpy()": r"numpy\(\)",
    "s.layer": r"of\('layer'\).*sel\(layer=",
    "s.shap": "did you mean 'shape'",
    "s['layer']": r"\.sel\(layer=",
    "s.sel(layers=3)": "did you mean 'layer'",
    "mm.Neuron(4, '138')": "whole number",
    "mm.Neuron(4.0, 138)": "whole number",
    "mm.Neuron(True, 138)": "whole number",
    "mm.Head(1, 0.5)": "whole number",
    "mm.Patch(5)": r"Patch\(5, 2\)",
    "mm.Patch('5')": r"'\(5, 2\)'",
    "mm.Patch(5, 2.5)": "whole number",
    "model(photo)": r"Prompt\(picture, ",
    "model.generate(photo)": r"Prompt\(picture, ",
    "mm.logit_lens(model, photo)": r"Prompt\(picture, ",
    "mm.attribute(model, photo, of=' dog')": r"Prompt\(picture, ",
    "mm.Prompt([photo, 'A picture of'])": "one after another",
    "mm.Prompt('nope.png', 'A picture of')": r"there is none here.*Path\(",
    "mm.Edit(neuron, 0.0)": r"Edit\('neurons', 0\.0, Neuron",
    "mm.Edit('neurons', 0.0, layers=3)": "it has layer",
    "model.edit('neurons', 0.0, neuron)": r"mm\.Edit\(site, value, address\)",
    "patching.ablate(model, prompt, metric, 'neurons', neuron)": "units=",
    "patching.ablate(model, prompt, metric, 'neurons', best.neuron)": "units=",
    "patching.patch(model, pair, metric, layers=1)": "write layer=",
    "mm.attribute(model, prompt, of=' dog', layers=1)": "write layer=",
    "view.heatmap(scores)": r"scores\.sel\(layer=\.\.\.\).*scores\.sum\('unit'\)",
    "view.bars(flat)": r"scores\.sum\('pos'\)",
    "view.show(scores)": r"scores\.sum\('unit'\)",
    "view.on_image(flat, photo)": r"view\.panels\(scores, picture\)",
    "view.show([flat, flat])": r"view\.compare\(",
    "view.show({'a': flat, 'b': flat})": r"view\.compare\(",
    "mm.decode(model, flat)": "is none; write",
}


def answers() -> dict[str, list[str]]:
    """Each call, the kind of its answer and the text of it."""
    names, found = cells(), {}
    for call in (*TRUE, *SAID):
        try:
            found[call] = ["answer", str(eval(call, dict(names)))]
        except MMLensError as error:
            found[call] = ["sentence", str(error)]
        except Exception as error:
            found[call] = [type(error).__name__, str(error)]
    return found


@pytest.fixture(scope="module")
def answered() -> dict[str, list[str]]:
    told = subprocess.run(
        [sys.executable, "-W", "ignore", __file__], capture_output=True, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}, check=True,
    )  # fmt: skip
    return json.loads(told.stdout)


@pytest.mark.parametrize("call", TRUE)
def test_a_natural_call_answers_with_what_it_says(answered, call):
    assert answered[call] == ["answer", "True"]


@pytest.mark.parametrize("call", SAID)
def test_a_call_that_cannot_be_meant_is_answered_with_what_to_write(answered, call):
    kind, told = answered[call]
    assert kind == "sentence" and re.search(SAID[call], told) and "\n" not in told, told


if __name__ == "__main__":
    print(json.dumps(answers()))
