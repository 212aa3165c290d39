"""A sweep never takes one question or model for another, and goes on with the same."""

from __future__ import annotations

import functools
import inspect
import json
import os
import signal
import threading
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mmlens as mm
from mmlens.datasets import Sample, Samples
from mmlens.families import toy
from mmlens.patching import remove
from mmlens.sweep import Sweep, SweepError, sweep
from mmlens.sweep.identity import Identity
from mmlens.tally import Moments, Top
from mmlens.values.scores import Scores

SAMPLES = Samples(
    "toy", ["p0", "p1", "p2"], lambda i: Sample(f"p{i}", toy.picture((i, 1))), "toy 3"
)


def model(**options: Any) -> Any:
    from bridges import bridge

    return bridge("toy-gptj", **options)


def last(model: Any, sample: Sample) -> pd.DataFrame:
    """What the model would say next; the answer depends on all that a model is."""
    logits = model(mm.Prompt(sample.image, "A picture of"))[0, -1].detach()
    return pd.DataFrame({"top": [int(logits.argmax())], "value": [float(logits.max())]})


def ask(of: Any, out: Path, question: Any = last, **options: Any) -> Any:
    return sweep(question, of, SAMPLES[:1], out, progress=False, **options)


# Models -------------------------------------------------------------------------------------------


def times(amount: float) -> Any:
    return lambda values: values * amount


class Times:
    def __init__(self, amount: float) -> None:
        self.amount = amount

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.amount

    def method(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.amount


def scaled(values: torch.Tensor, amount: float) -> torch.Tensor:
    return values * amount


def by_default(amount: float) -> Any:
    def scale(values: torch.Tensor, by: float = amount) -> torch.Tensor:
        return values * by

    return scale


def edited(value: Any, **options: Any) -> Any:
    return model().edit(mm.Edit("resid_post", value, layer=1, **options))


def hooked(amount: float, dir: str = "fwd") -> Any:
    out = model().edit()
    out.add_hook("blocks.1.hook_resid_post", lambda values, hook: values * amount, dir)
    return out


def with_bos(whether: bool) -> Any:
    out = model().edit()
    out.prepend_bos = whether
    return out


def with_mean(mean: float) -> Any:
    out = mm.load("toy-gptj")
    out.vision.pixels = replace(out.vision.pixels, mean=(mean,) * 3)
    return out


def in_type(dtype: torch.dtype) -> Any:
    rounded = mm.load("toy-gptj").to(torch.bfloat16)  # the same values in both
    return rounded.to(dtype)


def network(slope: float) -> torch.nn.Module:
    return torch.nn.LeakyReLU(slope)


MODELS = {
    "a closure": lambda n: edited(times(1.0 + n)),
    "a partial": lambda n: edited(functools.partial(scaled, amount=1.0 + n)),
    "a callable object": lambda n: edited(Times(1.0 + n)),
    "a bound method": lambda n: edited(Times(1.0 + n).method),
    "a default": lambda n: edited(by_default(1.0 + n)),
    "a module without weights": lambda n: edited(network(0.1 + n)),
    "two lambdas of a line": lambda n: edited([lambda x: x * 2, lambda x: x * 3][n]),
    "an amount": lambda n: edited(float(n)),
    "how much is removed": lambda n: model().edit(
        remove("resid_post", torch.ones(32), layer=1, amount=0.5 + 0.5 * n)
    ),
    "a tensor": lambda n: edited(torch.full((32,), float(n))),
    "adding": lambda n: edited(1.0, **({"add": True} if n else {})),
    "the place of a tensor": lambda n: edited(torch.ones(32), pos=[1, 2][n]),
    "labels of Scores": lambda n: edited(
        Scores(torch.ones(1, 32), ("pos", "dim"), {"pos": (mm.Patch(n, 1),)})
    ),
    "a hook": lambda n: hooked(1.0 + n),
    "prepend_bos": lambda n: with_bos(bool(n)),
    "pixel means": lambda n: with_mean(0.4 + 0.1 * n),
    "the number format": lambda n: in_type([torch.float32, torch.bfloat16][n]),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_differs_in_one_thing_is_another_and_one_made_again_is_the_same(
    kind, tmp_path
):
    make = MODELS[kind]
    done = ask(make(0), tmp_path)
    kept = done.table("last")
    assert ask(make(0), tmp_path).table("last").equals(kept)  # made anew, it is the same
    with pytest.raises(SweepError, match=r"holds a sweep with model\..* ask for the same to go on"):
        ask(make(1), tmp_path)


def test_a_hook_of_the_language_model_itself_counts_too(tmp_path):
    one = mm.load("toy-gptj")
    ask(one, tmp_path)
    one.root.add_perma_hook("blocks.1.hook_resid_post", lambda values, hook: values * 2)
    with pytest.raises(SweepError, match=r"with model\.lasting_hooks = "):
        ask(one, tmp_path)


def test_a_hook_of_the_context_counts_too(tmp_path):
    ask(model(), tmp_path)
    within = model().hooks([("blocks.1.hook_resid_post", lambda values, hook: values * 2)])
    with within, pytest.raises(SweepError, match=r"with model\.hooks = "):
        ask(model(), tmp_path)


# Questions ----------------------------------------------------------------------------------------

BODY = """
from dataclasses import dataclass
import functools
import pandas as pd

LIMIT = {limit}
{extra}

def helper(n):
    return n + {step}

@dataclass
class Settings:
    width: int = {width}

    def area(self):
        return self.width * {height}

SETTINGS = Settings()

def decorated(amount):
    def around(function):
        @functools.wraps(function)
        def call(model, sample):
            return function(model, sample) * amount
        return call
    return around

@decorated({amount})
def question(model, sample, more={more}):{comment}
    inner = lambda: helper(LIMIT) + SETTINGS.area()
    return pd.DataFrame({{"n": [inner() + more]}})
"""
PLAIN: dict[str, Any] = {"limit": "[1, 2.5, 'a']", "step": 1, "width": 3, "height": 2, "amount": 1}
PLAIN |= {"more": 0, "comment": "", "extra": ""}


def question(**changes: Any) -> Any:
    """The question of a module that is written like this."""
    import sys

    module = types.ModuleType("asking")
    sys.modules["asking"] = module
    exec(compile(BODY.format(**{**PLAIN, **changes}), "asking.py", "exec"), module.__dict__)
    return module.question


def hash_of(thing: Any) -> tuple[str, list[str]]:
    found = Identity()
    return found.of(thing, "it"), found.unknown


@pytest.mark.parametrize(
    "change", [{"limit": "[1, 2.5, 'b']"}, {"step": 2}, {"width": 4}, {"height": 3}, {"amount": 2},
               {"more": 1}],
    ids=["a global", "a function it calls", "an object's state", "a method", "what its decorator"
         " encloses", "a default"],
)  # fmt: skip
def test_a_question_is_all_that_its_answer_depends_on(change):
    assert hash_of(question()) == hash_of(question()) and hash_of(question())[1] == []
    assert hash_of(question(**change))[0] != hash_of(question())[0]


def test_comments_lines_and_what_it_does_not_name_are_no_part_of_a_question():
    same = question(comment="  # a remark\n", extra="OTHER = object()\n\n\n")
    assert hash_of(same) == hash_of(question())


@pytest.mark.parametrize(
    "make",
    [
        lambda n: float("nan") if n else 0.0,
        lambda n: [1, True][n],
        lambda n: ["1", 1][n],
        lambda n: {"a": n},
        lambda n: [{1}, {1, 2}][n],
        lambda n: [(1, 2), (2, 1)][n],
        lambda n: np.arange(3 + n),
        lambda n: np.arange(3, dtype=["int32", "int64"][n]),
        lambda n: torch.arange(3.0).to([torch.float32, torch.bfloat16][n]),
        lambda n: pd.DataFrame({"a": [1, 2 + n]}),
        lambda n: mm.Prompt(toy.picture((n, 1)), "a"),
        lambda n: Path("ab"[n]),
        lambda n: [torch.relu, torch.tanh][n],
        lambda n: [len, sorted][n],
        lambda n: functools.lru_cache(by_default(n)),
        lambda n: [mm.Patch, mm.Token][n],
        lambda n: slice(n, 3),
    ],
)
def test_things_of_other_content_have_other_hashes_and_equal_ones_the_same(make):
    assert hash_of(make(0)) == hash_of(make(0)) and hash_of(make(0))[1] == []
    assert hash_of(make(0))[0] != hash_of(make(1))[0]


def test_a_thing_that_holds_itself_has_a_hash():
    ring: list[Any] = [1]
    ring.append(ring)
    again: list[Any] = [1]
    again.append(again)
    assert hash_of(ring) == hash_of(again)


# What cannot be compared, and options -------------------------------------------------------------


def test_what_cannot_be_compared_runs_once_and_is_never_gone_on_with(tmp_path):
    lock = threading.Lock()

    def guarded(values: torch.Tensor) -> torch.Tensor:
        with lock:
            return values * 2

    named = r"the edit of 'resid_post'|what .*guarded.* encloses"
    with pytest.warns(UserWarning, match="cannot be gone on with once it has stopped"):
        done = ask(edited(guarded), tmp_path)
    assert done.complete
    with pytest.raises(SweepError, match=f"cannot be gone on with: whether .*({named})"):
        ask(edited(guarded), tmp_path)


def with_options(model: Any, sample: Sample, **options: Any) -> pd.DataFrame:
    return pd.DataFrame({"n": [1]})


def test_a_sweep_whose_option_is_no_number_goes_on(tmp_path):
    for _ in range(2):
        done = ask(model(), tmp_path, with_options, options={"k": float("nan"), "d": {}})
    assert done.complete
    for other in ({"k": 0.0, "d": {}}, {"k": float("nan")}, {"k": float("nan"), "d": {"a": 1}}):
        with pytest.raises(SweepError, match="holds a sweep with options"):
            ask(model(), tmp_path, with_options, options=other)


def test_one_and_true_are_two_options_and_keys_are_words(tmp_path):
    ask(model(), tmp_path, with_options, options={"k": 1})
    with pytest.raises(SweepError, match=r"options.k = 1, and this one asks for True"):
        ask(model(), tmp_path, with_options, options={"k": True})
    with pytest.raises(SweepError, match="dicts whose keys are words"):
        ask(model(), tmp_path / "b", with_options, options={"k": {1: 2}})


@pytest.mark.parametrize(
    "options",
    [
        {"chunk": 0},
        {"chunk": -2},
        {"chunk": 2.5},
        {"chunk": True},
        {"seed": "a"},
        {"on_error": "records"},
    ],
)
def test_numbers_that_make_no_sweep_are_refused(options, tmp_path):
    with pytest.raises(
        SweepError, match="(chunk|seed|on_error)=.*: (write a whole number|did you)"
    ):
        inspect.unwrap(sweep)(last, model(), SAMPLES, tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


# Damage -------------------------------------------------------------------------------------------


def both(model: Any, sample: Sample) -> dict[str, Any]:
    scores = Scores(torch.full((2, 4), float(sample.id[1:])), ("layer", "unit"))
    return {"rows": pd.DataFrame({"n": [int(sample.id[1:])]}), "kept": scores, "told": scores}


def finished(out: Path) -> Sweep:
    return sweep(both, model(), SAMPLES, out, chunk=1, tallies={"told": [Moments()]},
                 progress=False)  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    every = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in every}


@pytest.mark.parametrize(
    "name",
    ["tables/rows/00001.parquet", "tensors/kept/00002.safetensors", "chunks/00000.json",
     "tallies/000.safetensors"],
)  # fmt: skip
@pytest.mark.parametrize("damage", ["one bit", "cut", "zeros"])
@pytest.mark.filterwarnings("ignore:.*is damaged")
def test_a_damaged_file_is_made_again_whatever_its_size(name, damage, tmp_path):
    finished(tmp_path)
    before = files(tmp_path)
    data = bytearray(before[name])
    if damage == "one bit":
        data[-3] ^= 1
    data = data[: len(data) // 2] if damage == "cut" else data
    data = bytearray(len(data)) if damage == "zeros" else data
    (tmp_path / name).write_bytes(data)
    if name.startswith(("tables", "chunks")):
        assert not Sweep(tmp_path).complete
        with pytest.warns(UserWarning, match="is damaged and left out: run the sweep again"):
            assert len(Sweep(tmp_path).table("rows")) == 2
    again = finished(tmp_path)
    assert files(tmp_path) == before and again.complete
    moments: Any = again.tallies("told")[0]
    assert moments.count == 3 and moments.mean.values.unique().tolist() == [1.0]


# Two at once --------------------------------------------------------------------------------------


def nested(model: Any, sample: Sample, out: str) -> pd.DataFrame:
    sweep(last, model, SAMPLES[:1], out, progress=False)
    return pd.DataFrame({"n": [1]})


def test_two_sweeps_never_work_in_one_folder(tmp_path):
    pytest.importorskip("fcntl", reason="this system locks no folders")
    with pytest.raises(SweepError, match="Another sweep is working in .*: wait for its end"):
        ask(model(), tmp_path, nested, options={"out": str(tmp_path)})
    with pytest.raises(SweepError, match="asks for"):  # and when it has ended, nothing is locked
        ask(model(), tmp_path)


ENTERED, GO_ON = threading.Event(), threading.Event()


def waiting(model: Any, sample: Sample) -> pd.DataFrame:
    ENTERED.set()
    GO_ON.wait(60)
    return pd.DataFrame({"n": [1]})


def test_the_same_sweep_in_two_threads_is_made_by_the_first_alone(tmp_path):
    pytest.importorskip("fcntl", reason="this system locks no folders")
    first = threading.Thread(target=ask, args=(model(), tmp_path, waiting))
    first.start()
    assert ENTERED.wait(60)
    threading.Timer(1.0, GO_ON.set).start()  # a second one that is let in ends, too
    with pytest.raises(SweepError, match="Another sweep is working"):
        ask(model(), tmp_path, waiting)
    GO_ON.set()
    first.join()
    assert list(Sweep(tmp_path).table("waiting")["n"]) == [1]


def held(folder: Path, ready: Any) -> None:
    from mmlens.sweep.sweep_folder import alone

    with alone(folder):
        ready.set()
        signal.pause()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no kill -9")
def test_a_killed_sweep_leaves_its_folder_free(tmp_path):
    import multiprocessing

    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=held, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(SweepError, match="Another sweep is working"):
        ask(model(), tmp_path)
    process.kill()
    process.join(60)
    assert ask(model(), tmp_path).complete


# Tallies that nothing feeds -----------------------------------------------------------------------


def test_a_tally_that_no_answer_feeds_is_told_at_once_and_refused_at_the_end(tmp_path):
    told = pytest.warns(UserWarning, match=r"No answer is called 'tld', .* did you mean 'told'\?")
    with told, pytest.raises(SweepError, match="No answer is called 'tld', so nothing goes into"):
        sweep(both, model(), SAMPLES, tmp_path, tallies={"tld": [Moments()]}, progress=False)


@pytest.mark.parametrize("tallies", [{"told": []}, {"told": Top()}, {"told": ["Top"]}])
def test_what_are_no_tallies_is_refused(tallies, tmp_path):
    with pytest.raises(SweepError, match="give a list of tallies, as in"):
        inspect.unwrap(sweep)(both, model(), SAMPLES, tmp_path, tallies=tallies, progress=False)


def test_a_manifest_of_a_sweep_says_what_was_asked_in_words(tmp_path):
    ask(model(), tmp_path)
    told = json.loads((tmp_path / "manifest.json").read_text())
    assert told["model"]["prepend_bos"] is False and told["unknown"] == []
    assert told["model"]["preprocessing"]["mean"] == list(model().vision.pixels.mean)


def test_tables_that_no_checkpoint_holds_are_part_of_a_model():
    one, other = network(0.1), network(0.1)
    for net, base in ((one, 10_000.0), (other, 500_000.0)):
        net.register_buffer("inv_freq", base ** -torch.arange(0, 1, 0.25), persistent=False)
    assert hash_of(one) != hash_of(other)
