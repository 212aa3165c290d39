"""Labels and captions beside what a picture shows, and the study of them."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from bridges import bridge
from judging import all_judged

import mmlens as mm
from mmlens.papers import labels
from mmlens.papers.labels.labels_claims import (
    AS_MANY,
    CAPTION_OF_OTHERS,
    CLAIMS,
    OF_OTHERS,
    judged,
    recalls,
)
from mmlens.papers.labels.questions.label_names import CAPTION, LABELS
from mmlens.papers.tables import ask
from mmlens.sweep.record import SweepError

FEW: Any = {"draws": 50, "progress": False, "max_new_tokens": 4, "k": 3}


def table(by_labels: Any, by_caption: Any, n: int = 12) -> pd.DataFrame:
    """A table of pictures of two things each; `by_...` give what is named from these."""
    rows = []
    for at in range(n):
        things = [f"thing {at}", f"other {at}"]
        for arm, named in ((LABELS, by_labels), (CAPTION, by_caption)):
            rows.append({"sample": str(at), "arm": arm, "named": json.dumps(named(at, things)),
                         "there": json.dumps(things), "text": "", "skipped": "",
                         "options": "{}"})  # fmt: skip
    return pd.DataFrame(rows)


def both(at: int, things: list[str]) -> list[str]:
    return things


def first(at: int, things: list[str]) -> list[str]:
    return things[: 1 + (at == 0)]  # of one picture both, so that not all are the same


def late(at: int, things: list[str]) -> list[str]:
    return ["sky", "tree", *things]


def none(at: int, things: list[str]) -> list[str]:
    return ["thing 0", "other 0"]


@pytest.mark.parametrize(
    ("named", "said", "verdicts"),
    [
        (both, first, [True, True, True]),
        (late, first, [None, True, False]),
        (none, first, [None, False, False]),
        (both, both, [True, None, None]),
    ],
)
def test_claims_are_decided_by_what_is_named_and_in_which_order(named, said, verdicts):
    given = table(named, said)
    told = [judged(key, given, draws=300, seed=0).verdict for key in CLAIMS]
    assert [one and one.holds for one in told] == verdicts


def test_recall_by_other_pictures_is_the_mean_over_them():
    found = recalls(table(none, both, 4)).set_index(["arm", "sample"])["value"]
    assert found[OF_OTHERS].tolist() == [1.0, 0.0, 0.0, 0.0]  # all say the first picture's things
    assert found[AS_MANY].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert found[CAPTION_OF_OTHERS].tolist() == [0.0] * 4


def test_one_picture_has_no_others_and_is_told():
    part = judged("L1", table(both, both, 1), draws=50, seed=0)
    assert "Not measured" in part.says and part.verdict is not None and part.verdict.holds is None


def test_what_is_named_is_what_the_model_says():
    model = mm.load("pictos")
    sample = mm.datasets.pictos("held_out", 1, things=3)[0]
    rows: Any = ask(labels.named_things, model, [sample], k=5, progress=False).set_index("arm")
    own = mm.next_labels(model, mm.Prompt(sample.image, "A picture of a"), 5)["label"]
    assert rows.loc[LABELS, "text"] == ", ".join(own)
    named = json.loads(rows.loc[LABELS, "named"])
    assert named and all(any(thing in one for one in own) for thing in named)
    assert named[0] in own[0]  # in the labels' order
    caption = model.generate(mm.Prompt(sample.image, "A picture of"), 30, stop="sentence")
    assert rows.loc[CAPTION, "text"] == caption
    for thing in json.loads(rows.loc[CAPTION, "named"]):
        assert thing in caption
    assert json.loads(rows.loc[LABELS, "there"]) == sorted(sample.names)


def test_the_study_is_a_page_of_its_claims_and_goes_on_where_it_was(tmp_path):
    tmp_path, model = tmp_path / "new", bridge("toy-gptj")
    three = mm.datasets.pictos("held_out", 3, things=2)
    report = labels.reproduce(model, three, tmp_path, command="mmlens x", **FEW)
    assert list(report.verdicts["experiment"]) == list(CLAIMS)
    assert "`mmlens x`" in report.results.read_text() and "L3" in report.page.read_text()
    assert set(all_judged(report.contests, draws=50)["method"]) == {AS_MANY, CAPTION}
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}
    assert before
    labels.reproduce(model, three, tmp_path, **FEW)
    assert all(file.stat().st_mtime_ns == at for file, at in before.items())
    with pytest.raises(SweepError):
        labels.reproduce(model, three, tmp_path, **{**FEW, "k": 4})
