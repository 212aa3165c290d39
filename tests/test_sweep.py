"""Sweeps: one by one or all at once, killed or not, by one process or two: the same bytes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import mmlens as mm
from mmlens.datasets import Sample, Samples
from mmlens.families import toy
from mmlens.sweep import Sweep, SweepError, sweep, top_images
from mmlens.tally import Moments, Quantiles, Top
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.scores import Scores

MODEL = "toy-gptj-planted"


N, CHUNK = 5, 2


def pictures(n: int = N) -> Samples:
    """Toy pictures; the white patch of number `i` lies at patch `i` of 16."""

    def read(i: int) -> Sample:
        return Sample(f"p{i}", toy.picture((i // 4 % 4, i % 4), seed=i), (f"caption {i}",))

    return Samples("toy pictures", [f"p{i}" for i in range(n)], read, f"toy {n}")


def model(**options: Any) -> Any:
    from bridges import bridge

    return bridge(MODEL, **options)


# Questions ----------------------------------------------------------------------------------------


def answers(model: Any, sample: Sample, k: int = 3) -> dict[str, Any]:
    """A table with labels, lists and gaps, and Scores to keep and to tally."""
    prompt = mm.Prompt(sample.image, "A picture of")
    scores = mm.activations(model, prompt, "neurons", layer=[0, 1])
    table = mm.top_neurons(scores, k)
    table["words"] = [[str(patch), "x"][: i % 3] for i, patch in enumerate(table.patch)]
    table["gap"] = [None if sample.id == "p1" else float(i) for i in range(len(table))]
    return {
        "best": table,
        "layer": scores.sel(layer=1, pos=mm.Patch),
        "all": scores.sel(pos=mm.Patch),
    }


def captions(model: Any, sample: Sample) -> pd.DataFrame:
    return pd.DataFrame({"caption": sample.captions})


def draws(model: Any, sample: Sample) -> pd.DataFrame:
    return pd.DataFrame({"draw": torch.rand(2).tolist()})


def stumbling(model: Any, sample: Sample) -> pd.DataFrame:
    if sample.id in os.environ.get("STUMBLE", "").split():
        raise ValueError("a stone")
    return captions(model, sample)


TALLIES = {"all": [Top(k=2), Moments(), Quantiles()]}


def asked(out: Path, n: int = N, **options: Any) -> Sweep:
    how: dict[str, Any] = {
        "chunk": CHUNK,
        "progress": False,
        "tallies": TALLIES,
        "options": {"k": 2},
    }
    return sweep(answers, model(), pictures(n), out, **{**how, **options})


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep that nothing interrupted."""
    return asked(tmp_path_factory.mktemp("sweep") / "whole")


# What is in it ------------------------------------------------------------------------------------


def test_a_table_is_the_answers_one_after_the_other_with_their_labels(whole):
    table, samples = whole.table("best"), pictures()
    assert list(table.columns)[:2] == ["sample", "neuron"] and len(table) == N * 2
    assert list(table["sample"]) == [name for name in samples.ids for _ in range(2)]
    for sample in samples:
        expected = answers(model(), sample, k=2)["best"]
        rows = table[table["sample"] == sample.id].reset_index(drop=True)
        for column in ("neuron", "patch", "words", "score"):
            assert list(rows[column]) == list(expected[column])
        assert rows["gap"].isna().all() if sample.id == "p1" else list(rows["gap"]) == [0.0, 1.0]


def test_scores_come_back_with_axes_labels_and_provenance(whole):
    expected = {sample.id: answers(model(), sample)["layer"] for sample in pictures()}
    for name, scores in whole.each("layer"):
        true = expected.pop(name)
        assert torch.equal(scores.values, true.values) and scores.axes == true.axes
        assert all(tuple(scores.of(axis)) == tuple(true.of(axis)) for axis in true.axes)
        assert scores.about["method"] == "activations"
        assert torch.equal(whole.scores("layer", name).values, true.values)
    assert expected == {}


def test_tallies_are_those_of_all_samples_and_take_their_scores_place(whole):
    top, moments, quantiles = whole.tallies("all")
    every = torch.stack([answers(model(), sample)["all"].values for sample in pictures()])
    assert whole.names("tensors") == ["layer"]  # what is tallied is not stored
    highest = every.amax(2).permute(1, 2, 0).sort(dim=-1, descending=True).values[..., :2]
    assert torch.equal(top.values.values, highest)
    torch.testing.assert_close(
        moments.mean.values, every.double().mean((0, 2)), rtol=1e-6, atol=1e-12
    )
    assert moments.count == quantiles.count == N * 16


def test_the_manifest_says_what_was_asked_of_what(whole):
    told = whole.manifest
    assert told["question"]["name"] == "test_sweep.answers" and told["options"] == {"k": 2}
    assert told["model"]["model"] == MODEL and set(told["model"]["weights"]) == {
        "vision",
        "projection",
        "lm",
    }
    assert told["data"] == {"name": "toy pictures", "samples": N, "hash": f"toy {N}"}
    assert {"mmlens", "torch", "pyarrow"} <= set(told["versions"])
    assert whole.complete and len(whole) == 3 and whole.failed.empty
    assert repr(whole) == "Sweep(test_sweep.answers, 3 of 3 chunks)"
    text = b"".join(data for name, data in files(whole.folder).items() if name.endswith("json"))
    assert str(whole.folder.parent).encode() not in text


def test_a_chunk_whose_samples_answer_nothing_leaves_no_gap(tmp_path):
    done = sweep(only_odd, model(), pictures(4), tmp_path, chunk=1, progress=False)
    assert list(done.table("odd")["n"]) == [1, 3] and done.complete
    with pytest.raises(SweepError, match="has no tables 'even': did you mean|there is 'odd'"):
        done.table("even")


def only_odd(model: Any, sample: Sample) -> dict[str, pd.DataFrame]:
    n = int(sample.id[1:])
    return {"odd": pd.DataFrame({"n": [n]})} if n % 2 else {}


# Killed and gone on with --------------------------------------------------------------------------


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number: int, function: Callable[..., Any], after: bool) -> Callable[..., Any]:
    """`function`, but for a kill before or after its `number`-th call."""
    calls = iter(range(1, 10_000))

    def called(*args: Any, **options: Any) -> Any:
        last = next(calls) == number
        if last and not after:
            kill()
        result = function(*args, **options)
        return kill() if last else result

    return called


def killed(out: Path, where: str, number: int, after: bool) -> None:
    """In a process of its own: begin or go on, and be killed at one call."""
    from mmlens.sweep import sweeping

    if where == "asking":
        real = sweeping._Work._ask
        sweeping._Work._ask = at_call(number, real, after)  # type: ignore[method-assign]
    else:
        os.replace = at_call(number, os.replace, after)  # type: ignore[assignment]
    asked(out)


# files come in this order: the manifest; then for each chunk table, tensors, tallies, marker
KILLS = [
    ("replace", 1, False), ("replace", 1, True), ("asking", 4, True), ("replace", 3, True),
    ("replace", 4, True), ("replace", 5, True), ("replace", 9, False), ("replace", 13, False),
]  # fmt: skip


def asked_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The places of the samples that are asked about from now on."""
    from mmlens.sweep import sweeping

    seen: list[int] = []
    real = sweeping._Work._ask
    patched = lambda self, place, count: seen.append(place) or real(self, place, count)  # noqa: E731
    monkeypatch.setattr(sweeping._Work, "_ask", patched)
    return seen


def be_killed(out: Path, *where: Any) -> None:
    process = multiprocessing.get_context("fork").Process(target=killed, args=(out, *where))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no kill -9")
@pytest.mark.parametrize("where", KILLS, ids=lambda where: f"{where[0]} {where[1]} {where[2]}")
def test_killed_at_any_point_and_run_again_gives_the_same_bytes(whole, tmp_path, where):
    be_killed(tmp_path, *where)
    asked(tmp_path)
    assert files(tmp_path) == files(whole.folder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no kill -9")
def test_killed_again_and_again_it_computes_only_what_is_missing(whole, tmp_path, monkeypatch):
    for where in [("asking", 3, True), ("asking", 1, False), ("replace", 4, True)]:
        be_killed(tmp_path, *where)
    before = files(tmp_path)
    seen = asked_of(monkeypatch)
    asked(tmp_path)
    assert seen == [4]  # two chunks were finished, the second just before the last kill
    after = files(tmp_path)
    assert after == files(whole.folder)
    assert all(after[name] == data for name, data in before.items() if name.startswith("tables"))


def test_what_is_finished_is_not_asked_again(whole, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in whole.folder.rglob("*")}
    seen = asked_of(monkeypatch)
    asked(whole.folder)
    assert seen == []
    assert {p: p.stat().st_mtime_ns for p in whole.folder.rglob("*")} == before


def test_a_file_that_was_lost_or_cut_is_made_again(whole, tmp_path):
    asked(tmp_path)
    (tmp_path / "tables" / "best" / "00001.parquet").unlink()
    (tmp_path / "tensors" / "layer" / "00002.safetensors").write_bytes(b"cut")
    asked(tmp_path)
    assert files(tmp_path) == files(whole.folder)


def test_random_numbers_are_those_of_the_sample_whatever_came_before(tmp_path):
    state = torch.get_rng_state()
    tables = [
        sweep(draws, model(), pictures(6), tmp_path / str(n), chunk=n, progress=False, seed=seed)
        .table("draws")
        for n, seed in [(1, 0), (4, 0), (5, 1)]
    ]  # fmt: skip
    assert tables[0].equals(tables[1]) and not tables[0].equals(tables[2])
    assert tables[0].draw.is_unique and torch.equal(torch.get_rng_state(), state)


# Refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"options": {"k": 3}}, r"holds a sweep with options.k = 2, and this one asks for 3: ask"),
        ({"chunk": 5}, "with chunk = 2, and this one asks for 5"),
        ({"seed": 1}, "with seed = 0, and this one asks for 1"),
        ({"n": 9}, "with data.samples = 5, and this one asks for 9"),
        ({"tallies": {}}, "with tallies.all = "),
    ],
)
def test_a_folder_of_another_sweep_is_refused(whole, change, sentence):
    with pytest.raises(SweepError, match=sentence) as refused:
        asked(whole.folder, **change)
    assert "or begin anew with resume=False." in str(refused.value)


def test_another_model_edit_or_question_is_refused_too(whole, monkeypatch):
    how: Any = {"chunk": CHUNK, "progress": False, "tallies": TALLIES, "options": {"k": 2}}
    for other, name in [
        (mm.load(MODEL, seed=1), "model_seed"),
        (model().edit(mm.Edit("neurons", 0.0, mm.Neuron(1, 5))), "edits"),
    ]:
        with pytest.raises(SweepError, match=f"with model.{name} = "):
            sweep(answers, other, pictures(), whole.folder, **how)
    with pytest.raises(
        SweepError, match=r"question.name = 'test_sweep.answers', .* for 'test_sweep.d"
    ):
        sweep(draws, model(), pictures(), whole.folder, **how | {"options": {}})


def test_two_edits_that_write_other_values_are_two_models(tmp_path):
    direction = torch.arange(32.0)
    one, two = (model().edit(mm.Edit.steer("resid_post", direction * i, layer=0)) for i in (1, 2))
    sweep(captions, one, pictures(2), tmp_path, progress=False)
    with pytest.raises(SweepError, match=r"with model\.edits = "):
        sweep(captions, two, pictures(2), tmp_path, progress=False)
    done = sweep(captions, two, pictures(2), tmp_path, progress=False, resume=False)
    assert done.complete and list(done.table("captions").caption) == ["caption 0", "caption 1"]


def broken(model: Any, sample: Sample, what: str) -> Any:
    frames = {"objects": [object()], "sample": [1]}
    return {
        "number": 3.5,
        "dict": {"a/b": pd.DataFrame()},
        "tally": {"all": pd.DataFrame({"a": [1]})},
        **{name: pd.DataFrame({name: cells}) for name, cells in frames.items()},
    }[what]


@pytest.mark.parametrize(
    "what, sentence",
    [
        ("number", "broken answers 'broken' with a float: return a DataFrame, Scores"),
        ("dict", "broken calls an answer 'a/b', which cannot name a file"),
        ("tally", "A tally of 'all' takes in Scores, not a DataFrame"),
        (
            "objects",
            "The column 'objects' of the table 'broken' holds object, which Parquet cannot",
        ),
        ("sample", "has a column 'sample', which a sweep adds: rename it"),
    ],
)
def test_an_answer_that_cannot_be_kept_is_told_what_to_return(tmp_path, what, sentence):
    with pytest.raises(SweepError, match=sentence):
        sweep(broken, model(), pictures(2), tmp_path, options={"what": what}, tallies=TALLIES,
              progress=False)  # fmt: skip


def test_a_question_an_option_or_a_folder_that_cannot_be_recorded_is_refused(tmp_path):
    def inner(model: Any, sample: Sample) -> None: ...

    for question in (inner, lambda model, sample: None):
        with pytest.raises(SweepError, match="cannot be recorded as a question: define it with"):
            sweep(question, model(), pictures(), tmp_path)
    with pytest.raises(
        SweepError, match=r"The option k=Neuron\(.* cannot be recorded: give numbers"
    ):
        asked(tmp_path, options={"k": mm.Neuron(1, 2)})
    with pytest.raises(SweepError, match="chunk=0: write a whole number from 1 on"):
        asked(tmp_path, chunk=0)
    with pytest.raises(SweepError, match=r"holds no sweep: there is no manifest\.json"):
        Sweep(tmp_path)
    (tmp_path / "tables").mkdir()
    with pytest.raises(
        SweepError, match="holds 'tables' but no sweep: give a folder of the sweep's"
    ):
        asked(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "an app"}))
    with pytest.raises(SweepError, match="is not the manifest of a sweep"):
        asked(tmp_path)


# A sample that fails ------------------------------------------------------------------------------


def test_a_failing_sample_is_named_and_what_is_finished_is_kept(tmp_path, monkeypatch):
    how: Any = {"chunk": 2, "progress": False}
    monkeypatch.setenv("STUMBLE", "p3 p4")
    with pytest.raises(
        SweepError, match=r"Sample 'p3' of toy pictures failed \(ValueError: a stone"
    ) as e:
        sweep(stumbling, model(), pictures(6), tmp_path, **how)
    assert isinstance(e.value.__cause__, ValueError)
    assert list(Sweep(tmp_path).table("stumbling")["sample"]) == ["p0", "p1"]
    done = sweep(stumbling, model(), pictures(6), tmp_path, **how, on_error="record")
    assert done.complete and list(done.table("stumbling")["sample"]) == ["p0", "p1", "p2", "p5"]
    assert done.failed.to_dict("list") == {
        "sample": ["p3", "p4"],
        "error": ["ValueError: a stone"] * 2,
    }
    monkeypatch.delenv("STUMBLE")
    again = sweep(stumbling, model(), pictures(6), tmp_path, **how)
    assert again.failed.empty
    clean = sweep(stumbling, model(), pictures(6), tmp_path.parent / "clean", **how)
    assert files(clean.folder) == files(tmp_path)


def tallied(model: Any, sample: Sample) -> dict[str, Scores]:
    stumbling(model, sample)
    return {"n": Scores(torch.tensor([[float(sample.id[1:])]]), ("layer", "unit"))}


def test_a_sample_that_failed_is_tallied_once_it_succeeds_and_no_other_twice(tmp_path, monkeypatch):
    how: Any = {"chunk": 2, "progress": False, "tallies": {"n": [Moments()]}, "on_error": "record"}
    for stumble, seen in [("p1 p2", [0, 3]), ("p2", [0, 1, 3]), ("", [0, 1, 2, 3])]:
        monkeypatch.setenv("STUMBLE", stumble)
        done = sweep(tallied, model(), pictures(4), tmp_path, **how)
        (moments,) = done.tallies("n")
        assert isinstance(moments, Moments) and moments.count == len(seen)
        assert moments.mean.values.item() == pytest.approx(sum(seen) / len(seen))
    with pytest.raises(SweepError, match="has no tallies of 'm': there is 'n'"):
        done.tallies("m")


# Several processes --------------------------------------------------------------------------------


def launched(out: Path, rank: int, port: int) -> None:
    """One of two processes, with what `accelerate launch` and `torchrun` tell theirs."""
    from accelerate import PartialState

    PartialState._reset_state()  # an earlier test's, which the fork copied
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    os.environ |= {name: str(value) for name, value in told.items()}
    asked(out)
    assert PartialState().num_processes == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="two imports of everything take a minute")
def test_two_processes_give_the_files_of_one(whole, tmp_path):
    pytest.importorskip("accelerate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = multiprocessing.get_context("fork").Process
    both = [start(target=launched, args=(tmp_path / "two", rank, port)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(200)
    assert [process.exitcode for process in both] == [0, 0]
    two = Sweep(tmp_path / "two")
    one, other = ({n: d for n, d in files(f).items() if not n.startswith("tallies")}
                  for f in (whole.folder, two.folder))  # fmt: skip
    assert one == other
    assert len(list((two.folder / "tallies").iterdir())) == 2  # each worked on a part
    for mine, theirs in zip(whole.tallies("all"), two.tallies("all"), strict=True):
        for (key, value), also in zip(
            mine.state()[0].items(), theirs.state()[0].values(), strict=True
        ):
            exact = not (isinstance(mine, Moments) and key in ("mean", "m2"))
            torch.testing.assert_close(value, also, rtol=0 if exact else 1e-6, atol=0)
        assert mine.count == theirs.count
    asked(two.folder)  # and one process can go on with, and reads, what two began
    assert {n: d for n, d in files(two.folder).items() if not n.startswith("tallies")} == one


def test_processes_that_accelerate_does_not_see_are_refused(monkeypatch):
    pytest.importorskip("accelerate")
    alone = type("Alone", (), {"num_processes": 1})()
    monkeypatch.setattr("accelerate.PartialState", lambda **options: alone)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        SweepError, match="WORLD_SIZE says 2 processes and accelerate sees 1: start"
    ):
        sweep(captions, model(), pictures(2), "never written")


def test_one_process_needs_no_accelerate_and_several_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert sweep(captions, model(), pictures(2), tmp_path, progress=False).complete
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CapabilityError, match=r"needs the package 'accelerate'.*mmlens\[train\]"):
        sweep(captions, model(), pictures(2), tmp_path, progress=False)


def test_the_bar_shows_how_many_how_fast_and_how_much(tmp_path, capsys):
    sweep(captions, model(), pictures(3), tmp_path)
    shown = capsys.readouterr()
    assert shown.out == "" and "3/3" in shown.err and "/s" in shown.err and "bytes" in shown.err


# The pictures of a neuron -------------------------------------------------------------------------


def test_the_planted_neurons_pictures_are_those_with_a_white_patch_and_show_where_it_is():
    def read(i: int) -> Sample:
        image = toy.picture((i % 4, 2), seed=i)
        dark = image.point(lambda value: min(value, 60))
        return Sample(f"{'white' if i % 3 == 0 else 'dark'} {i}", image if i % 3 == 0 else dark)

    samples = Samples("mixed", [read(i).id for i in range(12)], read, "mixed")
    table = top_images(model(), samples, toy.PLANTED, k=4)
    assert list(table.columns) == ["neuron", "rank", "sample", "place", "value"]
    assert set(table["sample"]) == {"white 0", "white 3", "white 6", "white 9"}
    for row in table.itertuples():
        assert row.place == mm.Patch(int(str(row.sample).split()[1]) % 4, 2)
    others = top_images(model(), samples, toy.PLANTED, k=12)
    assert others.value[3] > 2 * others.value[4:].max()


def test_top_images_are_a_sort_of_all_activations_for_every_neuron(tmp_path):
    samples = pictures(7)
    every = torch.stack([
        mm.activations(model(), mm.Prompt(s.image), "neurons", pos=mm.Patch).values for s in samples
    ]).amax(2)  # fmt: skip
    table = top_images(model(), samples, k=3)
    n_layers, n_units = every.shape[1:]
    assert len(table) == n_layers * n_units * 3
    order = every.argsort(dim=0, descending=True, stable=True)[:3]
    expected = [f"p{i}" for i in order.permute(1, 2, 0).flatten().tolist()]
    assert list(table["sample"]) == expected
    layer = top_images(model(), samples, 1, k=3, out=tmp_path)
    rows = table[[neuron.layer == 1 for neuron in table.neuron]].reset_index(drop=True)
    assert layer.equals(rows)
    some = [mm.Neuron(2, 7), mm.Neuron(0, 7), mm.Neuron(2, 3)]
    few = top_images(model(), samples, some, k=2)
    assert list(few.neuron) == [neuron for neuron in some for _ in range(2)]
    assert top_images(model(), samples, few.neuron.unique(), k=2).equals(few)


def test_a_neuron_that_is_not_there_is_refused_before_anything_is_read():
    with pytest.raises(AddressError, match="There is no neuron L0.999"):
        top_images(model(), pictures(), mm.Neuron(0, 999))
    with pytest.raises(AddressError, match="There is no layer 9"):
        top_images(model(), pictures(), 9)
    with pytest.raises(AddressError, match="give neurons, as Neuron"):
        top_images(model(), pictures(), "dog")
