"""`mmlens reproduce goh`: a whole report of a small model, its verdicts, the published words."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from clip_twins import classifier, flat
from dual_twins import RESNET, TEXT, open_clip_twin
from encoders import shake
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

import mmlens as mm
from mmlens.cli.app import app
from mmlens.methods.site_before_last import site_before_last
from mmlens.papers import goh
from mmlens.papers.goh.questions.attacks import by_paper, by_width
from mmlens.papers.goh.questions.formats import against_others, folder, spread_things, world
from mmlens.papers.goh.questions.matched_units import matched_units
from mmlens.papers.goh.report import goh_sections as told
from mmlens.papers.goh.report.goh_texts import CLAIMS, HOW, TITLES
from mmlens.papers.tables import ExperimentError
from mmlens.values.english import english_words

regions = importlib.import_module("mmlens.papers.goh.questions.region_check")
GOLDEN = Path(__file__).parent / "data" / "goh"
CONCEPTS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 220)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """FORMAT/CONCEPT/*.png: two formats of three colours."""
    root = tmp_path_factory.mktemp("formats")
    for seed, name in enumerate(("photo", "<b>drawing")):
        for concept, colour in CONCEPTS.items():
            (root / name / concept).mkdir(parents=True)
            for i, one in enumerate(flat(colour, 4, seed)):
                one.save(root / name / concept / f"{i}.png")
    return root


def test_a_report_is_whole_and_every_experiment_is_measured_or_says_why_not(data, tmp_path):
    report = goh.reproduce(classifier(), data, tmp_path, draws=60, against=classifier(1))
    assert [one.key for one in report.sections] == list(TITLES)
    assert list(report.verdicts["experiment"]) == list(CLAIMS)
    assert report.verdicts["holds"].isin([True, False, None]).all()
    page, text = report.page.read_text(), report.results.read_text()
    assert "<b>drawing" not in page and "reproduce goh" in page and "{{" not in page[:5000]
    assert not re.search(r'src="http|href="http', page)
    for one in report.sections:
        assert f'id="{one.key}"' in page and HOW[one.key] in text
    best = pd.read_csv(tmp_path / "tables" / "T2.csv")
    assert set(best["concept"]) == set(CONCEPTS) and len(report.units) == 3
    stroop = next(one for one in report.sections if one.key == "T4")
    assert stroop.says.startswith("Not measured")  # its head has not all colours
    told_attack = json.loads((tmp_path / "golden" / "typographic_attacks.json").read_text())
    golden = json.loads((GOLDEN / "goh_typographic_attacks.json").read_text())
    assert set(told_attack["attacks"][0]) == set(golden["attacks"][0])
    assert told_attack["n"] == 6


def planted(units: int = 30, things: int = 12, each: int = 12) -> dict[str, dict[str, np.ndarray]]:
    """Noise; unit 3 answers to thing 5 in every format, unit 4 to thing 6 as a drawing alone, unit
    5 to three different things, and unit 6 to whatever is written.
    """
    draw = np.random.default_rng(0)
    names = [f"thing {i}" for i in range(things)]
    out = {f: {n: draw.normal(size=(each, units)) for n in names} for f in ("a", "b", "c")}
    for place, own in enumerate(out.values()):
        own["thing 5"][:, 3] += 4
        own[f"thing {7 + place}"][:, 5] += 8
    out["a"]["thing 6"][:, 4] += 8
    for rows in out["c"].values():
        rows[:, 6] += 8
    return out


def test_the_unit_of_a_concept_is_found_on_one_half_and_judged_on_the_other():
    own = planted()
    found = matched_units(own, judged=12, draws=200)
    first = found.iloc[0]
    assert (first["concept"], first["unit"]) == ("thing 5", 3)
    second = {f: {n: x[1::2, 3] for n, x in rows.items()} for f, rows in own.items()}
    rest = {f: np.concatenate([x for n, x in rows.items() if n != "thing 5"])
            for f, rows in second.items()}  # fmt: skip
    spread = np.sqrt(np.mean([x.var(ddof=1) for x in rest.values()]))
    z = min((second[f]["thing 5"].mean() - rest[f].mean()) / spread for f in rest)
    assert abs(first["z"] - z) < 1e-9 and first["z_low"] < z < first["z_high"]
    assert found["passes"].tolist() == [True] + [False] * 11
    assert 0 < first["bar"] < first["z_low"]


def test_a_unit_does_not_pass_where_the_matched_unit_of_the_other_encoder_answers_as_well():
    own, other = planted(), planted()
    for rows in other.values():
        rows["thing 5"][:, 9] += 6  # of the other encoder another unit
    found = matched_units(own, other, judged=3, draws=200).iloc[0]
    assert (found["unit"], found["other_unit"]) == (3, 9)
    assert found["other_z_high"] > found["z_low"] and not found["passes"]


def judged(passes: int, n: int, p: float = 0.001) -> pd.DataFrame:
    row = {"neuron": mm.Neuron(1, 2, "vision"), "z": 2.0, "z_low": 1.0, "z_high": 3.0, "bar": 0.5,
           "auroc": 0.9, "auroc_low": 0.8, "auroc_high": 0.95, "weakest": "photo", "p": p,
           "other_z": 0.1, "other_z_low": 0.0, "other_z_high": 0.3}  # fmt: skip
    rows = [{"concept": f"c{i}", "unit": i, **row, "passes": i < passes} for i in range(n)]
    return pd.DataFrame(rows)


def test_units_of_concepts_are_claimed_if_three_pass_after_correction():
    assert told.formats_told(judged(3, 12), "pictos").verdict.holds is True
    assert told.formats_told(judged(3, 12, p=0.01), "pictos").verdict.holds is False
    assert told.formats_told(judged(2, 12)).verdict.holds is False
    one = judged(4, 12).assign(unit=7)  # one unit of four concepts is no three units
    assert told.formats_told(one).verdict.holds is False
    assert told.formats_told(judged(2, 4)).verdict.holds is None
    assert told.formats_told(judged(3, 12), "pictos").draw() is not None


def test_stroop_holds_where_words_are_read_by_a_model_that_knows_inks():
    def rates(ink, word, neutral):
        rows = [{"condition": kind, "n": 49, "ink": value, "ink_low": value - 0.1,
                 "ink_high": value + 0.1, "word": word, "word_low": word - 0.1,
                 "word_high": word + 0.1}
                for kind, value in (("congruent", 1.0), ("incongruent", ink),
                                    ("neutral", neutral))]  # fmt: skip
        return told.stroop_told(pd.DataFrame(rows), 1 / 8).verdict.holds

    assert [rates(0.1, 0.8, 0.9), rates(0.8, 0.1, 0.9), rates(0.4, 0.5, 0.9)] == [True, False, None]
    assert rates(0.0, 0.9, 0.125) is None  # inks are not known: the word wins over nothing


def test_a_word_decides_only_if_it_does_more_than_a_control_word():
    row = {
        "target": "dog",
        "text": "dog",
        "fraction_changed_to": 0.5,
        "accuracy": 0.3,
        "avg_img_l0_norm_diff": 0.07,
        "baseline_accuracy": 0.9,
        "classifier": "zero-shot",
    }
    control = {**row, "target": "(control)"}
    both = [{**one, "way": way} for way in ("paper", "large") for one in (row, control)]
    table = pd.DataFrame(both)
    gaps = ([0.4, 0.2, 0.6], [-0.4, -0.6, -0.2], [0.1, -0.1, 0.3])
    verdicts = [told.attack_told(table, {"paper": gap, "large": [0.9, 0.8, 1.0]}).verdict.holds
                for gap in gaps]  # fmt: skip
    assert verdicts == [True, False, None]  # by the paper's way of writing


def test_a_large_word_is_inside_the_picture_and_wider_than_the_papers():
    blank = Image.new("RGB", (288, 288), "grey")
    for word in ("dog", "motorcycle"):
        changed = np.asarray(by_width(blank, word)) != np.asarray(blank)
        cols = np.flatnonzero(changed.any((0, 2)))
        assert cols[0] > 0 and cols[-1] < 287 and cols[-1] - cols[0] > 180
    assert by_paper(blank, "dog") == mm.datasets.written_over(blank, "dog")


def test_units_of_convolutions_are_read_before_the_last_nonlinearity():
    twin = resnet_twin()
    assert site_before_last(twin) == "vision.resid_add"
    assert site_before_last(twin, site="vision.resid_post") == "vision.resid_post"
    assert site_before_last(classifier()) == "vision.neurons"


def test_formats_are_folders_of_the_same_concepts(data, tmp_path):
    assert set(folder(data)) == {"photo", "<b>drawing"}
    (tmp_path / "photo" / "dog").mkdir(parents=True)
    with pytest.raises(ExperimentError, match="two formats"):
        folder(tmp_path)
    seen = world(["dog", "rose"], 2)
    concept, others = against_others(seen, "dog")["written"]
    assert len(concept) == len(others) == 2 and set(seen) == {"drawing", "symbol", "written"}
    assert len(spread_things()) == 223 and len(set(spread_things(30))) == 30
    with pytest.raises(ExperimentError, match="no 'dinosaur hat'"):
        world(["dinosaur hat"], 2)


def test_the_published_words_are_those_of_the_released_networks():
    words = regions.published_words("RN50x4")
    assert words[862][:4] == ["americans", "american", "america", "usa"]
    assert words[1317][0] == "zimbabwe" and all(len(own) == 20 for own in words.values())


def test_units_that_answer_to_their_published_words_are_found(monkeypatch):
    model = classifier()
    probed = mm.word_probe(model, ["dog", "cat", "house", "tree", "moon", "river"])
    order = np.argsort(-probed.values[:, 3].numpy()).tolist()
    own = [probed.of("word")[i] for i in order]
    monkeypatch.setattr(regions, "published_words", lambda network: {3: own})
    table = goh.region_check(model, background=0)
    assert table["found"].tolist() == [5] and table["neuron"][0] == mm.Neuron(1, 3, "vision")
    monkeypatch.setattr(regions, "published_words", lambda network: {862: own})
    with pytest.raises(ExperimentError, match="862"):
        goh.region_check(model, background=0)


@cache
def resnet_twin():
    """A random CLIP ResNet of open_clip, of the class of the paper's RN50x4."""
    pytest.importorskip("open_clip")
    model, preprocess, tokenizer = open_clip_twin(RESNET)
    return mm.from_model(model, preprocess, tokenizer, name="RN-twin")


def cached(cache: str, home: Path, patch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A twin whose weights lie where RN50x4's would: in the hub's cache, or in OpenAI's own."""
    open_clip = pytest.importorskip("open_clip")
    config = {"embed_dim": 16, "vision_cfg": RESNET, "text_cfg": {**TEXT, "vocab_size": 49408}}
    patch.setitem(open_clip.factory._MODEL_CONFIGS, "RN50x4", config)
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    patch.setenv("HOME", str(home))
    twin = shake(open_clip.CLIP(**config, quick_gelu=True)).eval()
    if cache == "hub":
        here = home / "hub" / "models--timm--resnet50x4_clip.openai"
        (here / "snapshots" / "1").mkdir(parents=True)
        (here / "refs").mkdir()
        (here / "refs" / "main").write_text("1")
        save_file(twin.state_dict(), here / "snapshots" / "1" / "open_clip_model.safetensors")
        return twin
    file = home / ".cache" / "clip" / "RN50x4.pt"
    file.parent.mkdir(parents=True)
    archive, pixels = copy.deepcopy(twin), torch.zeros(1, 3, 64, 64)
    for name in ("input_resolution", "context_length", "vocab_size"):  # as OpenAI's have them
        vars(archive).pop(name, None)
        archive.register_buffer(name, torch.tensor(64))
    del archive.attn_mask  # tracing would store it; theirs have none
    torch.jit.trace_module(archive, {"encode_image": pixels}, check_trace=False).save(str(file))
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    tag = open_clip.pretrained._PRETRAINED["RN50x4"]["openai"]
    url = f"https://openaipublic.azureedge.net/clip/models/{sha}/RN50x4.pt"
    patch.setitem(tag, "url", url)
    return twin


@pytest.mark.parametrize(("cache", "site"), [("hub", None), ("openai", "vision.resid_add")])
def test_the_documented_command_compares_cached_weights_with_the_published_words(
    monkeypatch, tmp_path, cache, site
):
    """Published of one unit are the words that excite it most, of another those that do least."""
    twin = cached(cache, tmp_path, monkeypatch)
    model, pixels = mm.load("open_clip:RN50x4/openai"), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model._image(pixels), twin.encode_image(pixels))
        ids = torch.tensor([[49406, 320, 1929, 49407] + [0] * 8])  # "a dog"
        torch.testing.assert_close(model.text(ids), twin.encode_text(ids))
    words = sorted(english_words())[::1500][:30]
    values = mm.word_probe(model, words, site="vision.resid_add").numpy()
    best = [words[i] for i in np.argsort(-values[:, 7])[:5]]
    worst = [words[i] for i in np.argsort(values[:, 9])[:5]]
    monkeypatch.setattr(regions, "published_words", lambda network: {7: best, 9: worst})
    monkeypatch.setattr(regions, "english_words", lambda: frozenset(words))
    asked = ["reproduce", "goh", "--model", "open_clip:RN50x4/openai", "--regions"]
    done = CliRunner().invoke(app, asked + (["--site", site] if site else []))
    assert done.exit_code == 0, done.output
    assert "1 of 2 units have 3 or more" in done.output
    assert "vision.L3.7" in done.output
