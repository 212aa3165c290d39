"""`mmlens reproduce mmn`: verdicts follow the numbers, the report is whole, and it goes on."""

from __future__ import annotations

import base64
import gzip
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from axe import pages, violations
from bridges import bridge
from typer.testing import CliRunner

from mmlens import families
from mmlens.cli.app import app
from mmlens.cli.reproduce import number_or_word, pictures_of
from mmlens.datasets.sample import Sample, Samples, Thing
from mmlens.papers.claims import Row, Verdict
from mmlens.papers.mmn.report import FULL, QUICK, OpenChoices, ReproduceError, reproduce
from mmlens.papers.mmn.report.findings import finding
from mmlens.papers.mmn.report.outcomes import (
    Outcome,
    Study,
    _classes,
    _projection,
    _regions,
    _sensitive,
    _told,
    _units,
)
from mmlens.papers.mmn.report.paper import PAPER, published
from mmlens.papers.mmn.report.report_page import page
from mmlens.papers.mmn.report.reproduction import offline_scorers
from mmlens.papers.mmn.report.results import results
from mmlens.papers.mmn.report.selection import Chosen, choose, most_shown
from mmlens.papers.mmn.report.sheets import Sheet
from mmlens.papers.mmn.report.told import HOW, TITLES, Finding, Setting
from mmlens.papers.mmn.report.verdicts import CLAIMS, verdict
from mmlens.papers.page_parts import cell
from mmlens.papers.study_report import tally
from mmlens.pictos.world import World
from mmlens.sweep import SweepError
from mmlens.values.errors import ArgumentError

EVIL = "<img src=x onerror=alert(1)>"
CLOSE = "</script><script>document.title='PWNED'</script>"
ROOT = Path(__file__).parent.parent
NAME = "toy-gptj-planted"
TINY = replace(
    QUICK, scan=4, units=2, projection=2, vectors=1, concepts=1, of_concept=2, classes=2,
    choose=1, measure=1, ablation=1, ks=(0.0, 0.1), sheets=1, faithful=1, sensitive=1,
    readings=2, fitted=1,
    methods=("gradient x activation (pre)", "random"),
)  # fmt: skip
READING = OpenChoices(max_new_tokens=2, keep="all")


def picture(place: int, name: str, caption: str = "a thing") -> Sample:
    """A scene of the bundled world under a name of our own."""
    scene = World("held_out").scene(place)
    return Sample(f"s{place}", scene.image, (caption, "one thing"), (Thing(name, scene.masks[0]),))


def data(n: int = 8, names: tuple[str, ...] = ("dog", "cat"), caption: str = "a thing") -> Samples:
    return Samples(
        "eight scenes", [f"s{i}" for i in range(n)],
        lambda i: picture(i, names[i % len(names)], caption), "hash",
    )  # fmt: skip


def made(out: Path, **options: Any) -> Any:
    options = {"plan": TINY, "choices": READING, "draws": 20, "progress": False} | options
    return reproduce(bridge(NAME), options.pop("data", data()), out, **options)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One whole report, of hostile captions."""
    return made(tmp_path_factory.mktemp("mmn"), data=data(caption=f"a dog {EVIL} {CLOSE}"))


# -- verdicts --------------------------------------------------------------------------------------


def row(arm: str, metric: str, mean: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    given = {"arm": arm, "metric": metric, "mean": mean, "low": low, "high": high, "n": 9}
    return given | more


def holds(key: str, *rows: dict[str, Any]) -> bool | None:
    return verdict(key, pd.DataFrame(rows)).holds


def apart(equal: float, beyond: float, metric: str = "F1", **more: Any) -> dict[str, Any]:
    found = {"p": 0.5, "p_equal": equal, "p_beyond": beyond, "margin": 0.2, "over": "max"}
    return row("prompt ~ random", f"D of {metric}", 0.1, 0.0, 0.15, **found, **more)


def gaps(up: int, low: float = 0.01, high: float = 0.2, of: int = 12) -> list[dict[str, Any]]:
    each = [1.0] * up + [-1.0] * (of - up)
    rows = [row("attributed - random", "IoU", v, v - 0.5, v + 0.5, concept=f"c{i}", n=2)
            for i, v in enumerate(each)]  # fmt: skip
    return [*rows, row("attributed - random", "IoU", 0.1, low, high, concept="all")]


def drops(
    own: tuple[float, float], random: tuple[float, float], gap: tuple[float, float], n: int = 9
) -> list[dict[str, Any]]:
    arms = {"attributed": own, "random": random, "attributed - random": gap}
    few = [row(arm, "drop", 0.3, 0.2, 0.4, k=5) for arm in arms]
    return [*few, *(row(arm, "drop", sum(at) / 2, *at, k=114, n=n) for arm, at in arms.items())]


def test_e1_holds_above_zero_fails_below_and_is_undecided_across_it():
    above = row("neurons - random", "F1", 0.2, 0.1, 0.3)
    assert holds("E1", above) is True
    assert holds("E1", above, row("neurons - random", "world", 0.2, -0.01, 0.3)) is None
    assert holds("E1", above, row("neurons - random", "world", -0.2, -0.3, -0.1)) is False


def test_e2_holds_only_if_the_distance_is_shown_to_be_small():
    assert holds("E2", apart(0.01, 1.0)) is True
    assert (
        holds("E2", apart(0.01, 1.0), apart(0.2, 0.4, "world")) is None
    )  # not to differ: no proof
    assert holds("E2", apart(0.01, 1.0), apart(1.0, 0.001, "world")) is False
    assert holds("E2", apart(0.01, 1.0), apart(1.0, 0.001, "cosine")) is True  # no decoding
    assert "p < .001" in verdict("E2", pd.DataFrame([apart(1.0, 1e-9)])).says
    # further apart, but because patches fit less than random vectors do: they translate nothing
    below, over = (
        row("prompt - random", "world", at, at - 0.1, at + 0.1, over="max") for at in (-0.2, 0.2)
    )
    assert holds("E2", apart(1.0, 0.001, "world"), below) is True
    assert holds("E2", apart(1.0, 0.001, "world"), over) is False
    assert holds("E2", apart(1.0, 0.001, "world"), below, apart(0.2, 0.4)) is None


def test_e3_holds_from_ten_of_twelve_concepts_on():
    assert holds("E3", *gaps(10)) is True
    assert holds("E3", *gaps(9)) is False  # three lie below random units with their intervals
    assert holds("E3", *gaps(12, low=-0.01)) is None
    assert holds("E3", *gaps(12, low=-0.2, high=-0.1)) is False
    assert holds("E3", *gaps(4, of=4)) is None  # chance does that once in sixteen times
    assert holds("E3", *gaps(5, of=5)) is True
    assert "10 of 12 concepts" in verdict("E3", pd.DataFrame(gaps(10))).says


@pytest.mark.parametrize(
    "own, random, gap, wanted",
    [
        ((0.81, 0.9), (-0.05, 0.05), (0.7, 0.9), True),
        ((0.7, 0.9), (-0.05, 0.05), (0.7, 0.9), None),
        ((0.6, 0.79), (-0.05, 0.05), (0.6, 0.8), False),
        ((0.81, 0.9), (0.0, 0.12), (0.7, 0.9), None),
        ((0.81, 0.9), (0.11, 0.2), (0.7, 0.9), False),
        ((0.81, 0.9), (-0.3, -0.11), (0.7, 0.9), False),
        ((0.81, 0.9), (-0.05, 0.05), (-0.1, 0.9), None),
    ],
)
def test_e5_asks_the_intervals_of_the_fall_and_of_the_control(own, random, gap, wanted):
    assert holds("E5", *drops(own, random, gap)) is wanted


@pytest.mark.parametrize("n", [1, 2, 7])
def test_few_pictures_decide_no_claim_whatever_their_numbers_are(n):
    clear = {
        "E1": [row("neurons - random", "F1", 0.2, 0.1, 0.3, n=n)],
        "E2": [apart(0.0, 1.0, n=n)],
        "E3": [
            *gaps(12)[:-1],
            row("attributed - random", "IoU", 0.1, 0.1, 0.2, concept="all", n=n),
        ],
        "E5": drops((0.9, 0.95), (0.0, 0.01), (0.8, 0.9), n=n),
    }
    for key, rows in clear.items():
        found = verdict(key, pd.DataFrame(rows))
        assert found.word == "undecided" and f"Measured on {n} picture" in found.says
        enough = [{**one, "n": 8} for one in rows]
        assert verdict(key, pd.DataFrame(enough)).word == "holds"


def test_what_was_not_measured_is_undecided_and_says_why():
    for key, claim in CLAIMS.items():
        one = verdict(key, pd.DataFrame(), why="There are no masks.")
        assert (one.holds, one.claim, one.word) == (None, claim, "undecided")
        assert one.says == "Not measured: There are no masks."
    some = [
        Verdict("E1", "a", True, ""),
        Verdict("E2", "b", False, ""),
        Verdict("E3", "c", None, ""),
    ]
    assert tally(some) == "1 of the paper's 3 claims holds here; E2 fails; 1 is undecided"


# -- words -----------------------------------------------------------------------------------------


def test_words_about_the_projection_follow_its_verdict():
    def told(beyond: float, family: str = "pictos") -> str:
        rows = [apart(0.5, beyond)]
        rows += [row(arm, "F1", 0.1, 0.0, 0.2, over="max") for arm in ("prompt", "random")]
        found = finding(Outcome("E2", pd.DataFrame(rows)), Setting(True, family))
        return " ".join(found.differs)

    assert "Unlike in the paper" in told(0.001) and "lists of names" in told(0.001)
    assert "lists of names" not in told(0.001, "limber")
    assert "Unlike in the paper" not in told(0.5)


def test_readings_are_told_only_where_they_differ_after_correction():
    rows = [row(arm, "drop", 0.5, 0.4, 0.6, p=float("nan")) for arm in ("default", "a", "b")]
    rows += [
        row(f"{arm} - default", "drop", 0.1, 0.05, 0.2, p=p) for arm, p in (("a", 0.01), ("b", 0.3))
    ]
    found = finding(Outcome("sensitivity", pd.DataFrame(rows)), Setting())
    assert found.says == "Results of E1, E3 or E5 change with a."
    assert found.table[2:] == [["a", "0.500 (+0.100)"], ["b", "0.500"]]
    assert "all 2 comparisons" in found.differs[0]


def test_the_docs_name_as_many_pictures_as_the_plans():
    text = (Path(__file__).parent.parent / "docs" / "reproduce.md").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    table = {line.split("|")[1].strip(): line for line in lines[::-1]}  # the first of a name counts
    counts = {"E1, E6": "units", "E2": "projection", "E5": "ablation", "E7": "sheets",
              "methods": "faithful", "choices": "sensitive", "readings": "readings"}  # fmt: skip
    for name, field in counts.items():
        full, quick = (re.match(r"[\d,]+", cell.strip()) for cell in table[name].split("|")[3:5])
        assert full and int(full[0].replace(",", "")) == getattr(FULL, field), name
        assert quick and int(quick[0].replace(",", "")) == getattr(QUICK, field), name
    assert f"first {FULL.scan:,} (quick: {QUICK.scan:,})" in text
    assert f"{FULL.concepts} concepts of up to {FULL.of_concept}" in table["E3"]
    assert f"{FULL.classes} classes, {FULL.choose} + {FULL.measure} each" in table["E4"]


def test_words_about_layers_follow_the_histogram():
    def told(first: float) -> Finding:
        rows = [row("all", "share", v, v, v, layer=i) for i, v in enumerate((first, 1 - first))]
        rows += [row(arm, "units", 4.0, 0, 0, layer=0) for arm in ("all", "interpretable")]
        return finding(Outcome("E6", pd.DataFrame(rows)), Setting())

    assert "layer 0 of 0 to 1: 90 %" in told(0.9).says and told(0.9).differs
    assert "layer 1" in told(0.2).says and not told(0.2).differs


def test_the_paper_is_quoted_with_its_places():
    found = published("E2", "prompt ~ random")
    assert found and found.value == "D = .037, p > .5" and found.source == "section 3.1"
    assert published("E2", "cosine") is None
    assert all(one.source and one.experiment in TITLES for one in PAPER)


# -- which pictures --------------------------------------------------------------------------------


def test_concepts_are_those_that_most_pictures_show():
    shown = [("dog",), ("cat", "dog"), ("cat",), ("owl",), ("dog",)]
    assert most_shown(shown, 2, 2) == {"cat": [1, 2], "dog": [0, 1]}
    assert most_shown(shown, 9, 9, least=2).keys() == {"cat", "dog"}


def test_no_picture_serves_to_choose_units_and_to_measure_them():
    chosen = choose(data(), replace(TINY, scan=8, concepts=2))
    assert chosen.concepts == {"cat": [1, 3], "dog": [0, 2]}
    assert chosen.first == {"cat": [1], "dog": [0]} and chosen.second == {"cat": [3], "dog": [2]}
    assert list(offline_scorers(chosen.known)) == ["word overlap F1", "world score"]
    assert list(offline_scorers(frozenset({"dog", "gearbox"}))) == ["word overlap F1"]


def test_numbers_of_units_are_the_papers_as_shares():
    assert [round(k * 458_752) for k in FULL.ks] == [0, 50, 100, 200, 400, 800, 1600, 3200, 6400]
    assert round(FULL.ks[-1] * 8192) == 114


def test_pictures_are_the_most_of_every_question_or_those_of_one():
    assert pictures_of(QUICK, []) == QUICK
    few = pictures_of(QUICK, ["E5=50", "3"])
    assert (few.units, few.choose, few.ablation) == (3, 2, 50)
    assert pictures_of(QUICK, ["E4=7"]) == replace(QUICK, choose=7, measure=7)
    assert pictures_of(QUICK, ["choices=0"]).sensitive == 0
    for wrong, says in (
        ("E8=5", "no question 'E8'"), ("1", "2 or more"), ("E5=x", "E5=x is no"), ("E5=0", "2 or"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=says):
            pictures_of(QUICK, [wrong])


# -- the report ------------------------------------------------------------------------------------


def test_the_report_holds_every_section_table_and_verdict(report):
    html, text = report.page.read_text("utf-8"), report.results.read_text("utf-8")
    for key, title in TITLES.items():
        assert f'id="{key}"' in html and title in text, key
        assert not report.measured[key].why, report.measured[key].why
        assert (report.page.parent / "tables" / f"{key}.csv").stat().st_size > 100
    assert report.verdicts["experiment"].tolist() == list(CLAIMS)
    for one in report.findings:
        assert one.says and HOW[one.key] in text
        if one.verdict is not None:
            assert f"**{one.verdict.word}**" in text
    assert "D = .037, p > .5" in text and "| in the paper |" in text
    for column in ("mean", "low", "high", "n", "options"):
        assert column in pd.read_csv(report.page.parent / "tables" / "E5.csv").columns
    assert html.count('class="sheet"') == 1
    assert "point pre; target logit; rank_by pair" in html


def test_every_figure_is_there_in_both_themes(report):
    html = report.page.read_text("utf-8")
    figures = json.loads(re.findall(r'id="figures">(.*?)</script>', html, re.DOTALL)[0])
    assert set(figures) == set(TITLES) - {"E7"}
    for key, one in figures.items():
        light, dark = one["light"]["layout"], one["dark"]["layout"]
        assert light["template"]["layout"]["paper_bgcolor"] == "#ffffff", key
        assert dark["template"]["layout"]["paper_bgcolor"] != "#ffffff", key
        assert one["light"]["data"]


def test_no_text_becomes_markup_and_nothing_is_loaded(report):
    html = report.page.read_text("utf-8")
    assert "<img src=x" not in html and "PWNED'</script>" not in html
    assert html.count("<script") == html.count("</script>") == 3
    assert re.findall(r'<(?:link|iframe|object|embed)\b|src="(?!data:image/)', html) == []
    assert "default-src 'none'" in html
    packed = re.findall(r'id="plotly">(.*?)</script>', html, re.DOTALL)[0]
    assert b"plotly.js" in gzip.decompress(base64.b64decode(packed))[:300]


def test_a_browser_draws_the_report_by_its_own_scripts_alone(report, browser):
    html = report.page.read_text("utf-8")
    scripts = re.findall(r"script-src ([^;]*);", html)
    assert len(scripts) == 1 and "unsafe" not in scripts[0] and scripts[0].count("sha256-") == 2
    context = browser.new_context(offline=True)
    tab, wrong = context.new_page(), []
    tab.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    tab.goto(report.page.as_uri())
    tab.wait_for_selector("html[data-ready=yes]")
    assert tab.locator(".js-plotly-plot").count() == tab.locator(".figure").count() > 0
    assert wrong == []
    context.close()


def test_axe_finds_nothing_wrong_in_the_report(report, browser):
    with pages(browser) as tabs:
        for tab in tabs.values():
            tab.goto(report.page.as_uri())
            tab.wait_for_selector("html[data-ready=yes]")
            assert violations(tab) == []


def test_a_hostile_caption_token_or_name_is_text():
    evil = Finding("E7", EVIL, None, [Row(EVIL, CLOSE, "|", "`x`")], [CLOSE])
    found = Outcome("E7", why="")
    sheet = Sheet(EVIL, CLOSE, EVIL, "data:image/png;base64,", "data:image/png;base64,", True,
                  [("L0.1", EVIL, True)])  # fmt: skip
    html = page([evil], {"E7": found}, [sheet], title=EVIL, lead=CLOSE, about={EVIL: "{{js}}"})
    assert "<img src=x" not in html and "PWNED'</script>" not in html and "{{js}}" in html
    text = results([evil], title=EVIL, lead=CLOSE, command="x", about={EVIL: CLOSE})
    assert "\\<img src=x" in text and "<script" not in text.replace("\\<script", "")
    assert "| \\| | \\`x\\` |" in text
    assert (cell(float("nan")), cell(3.0), cell(0.123456), cell("a")) == ("", "3", "0.1235", "a")


def test_what_the_data_cannot_answer_is_told_and_goes_on(tmp_path):
    scene = World("held_out").scene(0)
    bare = Samples("bare", ["a", "b"], lambda i: Sample("ab"[i], scene.image), "h")
    nothing = Chosen({}, {}, {}, frozenset())
    study = Study(
        bridge(NAME), bare, replace(TINY, sensitive=0), READING, nothing, tmp_path,
        offline_scorers(frozenset()), {},
        draws=20, progress=False, tell=lambda line: None,
    )  # fmt: skip
    first, layers = _units(study)
    found = [first, _told("E2", _projection, study), _told("E3", _regions, study)]
    found.append(_told("E4", _classes, study))
    assert not layers.why and layers.asked == {"units": 2}
    assert _told("sensitivity", _sensitive, study).why == "This study leaves the question out."
    for one, part in zip(found, ("reference", "reference", "mask", "two classes"), strict=True):
        assert part in one.why
        told = finding(one, Setting())
        assert told.says == f"Not measured: {one.why}"
        assert told.verdict is None or told.verdict.says == told.says
        assert told.verdict is None or told.verdict.holds is None
    html = page(
        [finding(one, Setting()) for one in found], {one.key: one for one in found}, [],
        title="t", lead="l", about={},
    )  # fmt: skip
    assert html.count("– undecided") == 6 and "are undecided" in html


# -- going on --------------------------------------------------------------------------------------


class Killed(BaseException):
    """What no `except Exception` stops, as no kill is."""


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(report, tmp_path, monkeypatch):
    evil, asked = data(caption=f"a dog {EVIL} {CLOSE}"), []
    from mmlens.sweep import sweeping

    whole = sweeping._Work._ask

    def dies(self: Any, place: int, count: bool) -> Any:
        asked.append(place)
        if len(asked) == 9:
            raise Killed
        return whole(self, place, count)

    monkeypatch.setattr(sweeping._Work, "_ask", dies)
    with pytest.raises(Killed):
        made(tmp_path, data=evil)
    assert not (tmp_path / "report.html").exists()
    made(tmp_path, data=evil)
    before = len(asked)
    assert before < 9 + 14  # of the 14 pictures asked about, what was finished not again
    folder = report.page.parent
    for path in ("report.html", "results.md", "tables/E1.csv", "tables/E5.csv"):
        assert (tmp_path / path).read_bytes() == (folder / path).read_bytes(), path
    with pytest.raises(SweepError, match="begin anew with resume=False"):
        made(tmp_path, data=evil, seed=1)
    assert len(asked) == before


# -- the command -----------------------------------------------------------------------------------


def run(*args: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["reproduce", *args], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    "args, sentence",
    [
        (["--point", "prae"], "There is no point 'prae': did you mean 'pre'?"),
        (["--value", "median"], "There is no value 'median': did you mean 'mean'?"),
        (["--data", "pictos:nowhere:9"], "there is no such split"),
        (["--data", "no-such-folder"], "'no-such-folder' is neither a data set nor a folder"),
        (["--model", "pictoss", "--data", "pictos:held_out:2"], "There is no model 'pictoss'"),
        (["--out", "file.txt/x"], "'file.txt/x' cannot be written (Not a directory)"),
    ],
)
def test_what_is_refused_is_refused_in_one_sentence(tmp_path, monkeypatch, args, sentence):
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("no folder")
    code, out, err = run("mmn", *args)
    assert code == 2 and out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("mmlens: ")]
    assert sentence in line and "Traceback" not in err


def test_the_command_writes_the_report_and_says_the_verdicts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = bridge(NAME)
    monkeypatch.setattr(families, "load", lambda name: model)
    monkeypatch.setattr("mmlens.papers.mmn.report.plan.QUICK", TINY)
    monkeypatch.setattr("mmlens.papers.mmn.report.plan.OpenChoices", lambda *a: READING)
    code, out, err = run(
        "mmn", "--model", NAME, "--data", "pictos:held_out:6", "--quick", "--out", "o",
        "--results", "docs/results.md", "--pictures", "2",
    )  # fmt: skip
    assert code == 0, err
    assert out.count(": ") >= 5 and "E1 " in out and "Page: o/report.html" in out
    said = f"mmlens reproduce mmn --model {NAME} --data pictos:held_out:6 --quick --pictures 2"
    assert f"Written by `{said}`" in Path("o/results.md").read_text("utf-8")
    assert "units: 2 pictures" in err and "writing the report" in err
    assert Path("docs/results.md").read_text("utf-8") == Path("o/results.md").read_text("utf-8")
    other = ("--model", NAME, "--data", "pictos:held_out:6", "--quick", "--out", "o")
    code, _, err = run("mmn", *other, "--pictures", "2", "--seed", "1")
    assert code == 2 and "or begin anew with --anew." in err


def test_a_value_is_a_number_or_a_word():
    assert (number_or_word("0"), number_or_word("mean")) == (0.0, "mean")
    with pytest.raises(ReproduceError, match="There is no where 'text'"):
        OpenChoices(where="text")
    assert OpenChoices(value=-1).value == -1


def test_the_page_of_both_models_says_what_their_own_pages_say():
    joined = runpy.run_path(str(ROOT / "scripts" / "results.py"))["joined"]()
    assert (ROOT / "docs" / "results.md").read_text("utf-8") == joined
    for name in ("pictos", "smol"):
        page = (ROOT / "docs" / f"results-{name}.md").read_text("utf-8")
        for key, claim in CLAIMS.items():
            word, says = re.findall(rf"^\| {key} \| {claim} \| (\S+) \| (.*) \|$", page, re.M)[0]
            assert f"{word} {says}" in joined
