"""Training of dictionaries: planted directions come back, and a stop changes no bit."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import mmlens as mm
from mmlens import train
from mmlens.cli.app import app
from mmlens.train.dictionaries.dictionary_learner import DictionaryLearner
from mmlens.train.dictionaries.dictionary_recipe import KINDS, DictionaryRecipe
from mmlens.values.errors import CheckpointError, MMLensError, NumericsError

D, PLANTED = 16, 24
AT = "blocks.1.hook_resid_post"


def planted() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(PLANTED, D, generator=draw), dim=1)


def rows(seed: int, n: int = 512) -> Tensor:
    """Sums of two of the planted directions, of random sizes, far from 0 and of another scale."""
    draw = torch.Generator().manual_seed(100 + seed)
    which = torch.rand(n, PLANTED, generator=draw).topk(2).indices
    sizes = torch.rand(n, 2, generator=draw) + 0.5
    f = torch.zeros(n, PLANTED).scatter(1, which, sizes)
    return (f @ planted()) * 7 + 3


def recipe(kind: str, **more: Any) -> DictionaryRecipe:
    told: dict[str, Any] = {"units": 48, "k": 2, "steps": 500, "batch_size": 512, "lr": 4e-3}
    told |= {"warmup": 20, "dead_after": 4000, "buffer": 8, "seed": 0}
    return DictionaryRecipe(kind, **told | more)


@pytest.fixture(scope="module", params=KINDS)
def learner(request) -> DictionaryLearner:
    made = DictionaryLearner(recipe(request.param), rows(0, 2048))
    for step in range(500):
        made.learn(rows(step))
    return made


def test_planted_directions_come_back(learner):
    found = learner.dictionary(AT, {})
    cosine = torch.nn.functional.normalize(found.W_dec, dim=1) @ planted().T
    best = cosine.max(0).values
    start = torch.randn(48, D, generator=torch.Generator().manual_seed(1))
    chance = (torch.nn.functional.normalize(start, dim=1) @ planted().T).max(0).values
    coarse = learner.recipe.kind == "matryoshka"  # its first units stand for several directions
    assert float(best.mean()) > (0.9 if coarse else 0.95) > 0.75 > float(chance.mean())


def test_what_comes_out_reads_activations_as_they_are_and_keeps_k_of_them(learner):
    found, x = learner.dictionary(AT, {}), rows(9999, 2000)
    w, s = {name: value.detach() for name, value in learner.weights.items()}, learner.scale
    pre = (x * s - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    code = found.encode(x)
    active = code > 0
    assert torch.allclose(code[active], pre[active], atol=1e-3)
    assert torch.allclose(found(x), (code @ w["W_dec"] + w["b_dec"]) / s, atol=1e-3)
    assert torch.allclose(w["W_dec"].norm(dim=1), torch.ones(48), atol=1e-5)
    l0 = float(active.sum(1).float().mean())
    assert l0 == 2.0 if found.kind == "topk" else 1.5 < l0 < 2.6
    missing = (x - found(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert float(missing) < 0.1


def test_the_loss_of_a_matryoshka_is_the_mean_over_its_prefixes():
    one = DictionaryLearner(recipe("matryoshka"), rows(0))
    x = rows(1) * one.scale
    f = torch.rand(512, 48, generator=torch.Generator().manual_seed(0))
    loss, whole = one._reconstructed(x, f)
    W_dec, b = one.weights["W_dec"], one.weights["b_dec"]
    each = [(x - f[:, :m] @ W_dec[:m] - b).square().mean() for m in (3, 6, 12, 24, 48)]
    assert one.recipe.prefixes == (3, 6, 12, 24, 48)
    assert torch.allclose(loss, torch.stack(each).mean(), rtol=1e-5)
    assert torch.allclose(whole, f @ W_dec + b, atol=1e-4)


def test_batchtopk_keeps_so_many_of_the_whole_batch_and_topk_of_each_row():
    f = torch.rand(6, 48, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)[:, None]
    every = DictionaryLearner(recipe("batchtopk", k=3), rows(0))._kept(f)
    assert int((every > 0).sum()) == 18
    assert float(every[every > 0].min()) > float(f[every == 0].max())
    assert ((DictionaryLearner(recipe("topk", k=3), rows(0))._kept(f) > 0).sum(1) == 3).all()


def test_the_auxiliary_loss_teaches_dead_latents_alone_what_the_others_miss():
    one = DictionaryLearner(recipe("topk"), rows(0))
    one.idle[5:25] = 10_000
    x = rows(1) * one.scale
    w = one.weights
    pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    whole = (pre.relu() * 0.1) @ w["W_dec"]
    loss = one._revived(x, whole, pre)
    f = pre[:, 5:25].relu()
    f = torch.where(f >= f.sort(1, descending=True).values[:, D // 2 - 1, None], f, 0.0)
    missed = (x - whole - f @ w["W_dec"][5:25]).square().mean()
    assert torch.allclose(loss, missed, rtol=1e-5)
    steps = torch.autograd.grad(loss, [w["W_enc"], w["W_dec"]])
    for moved in (steps[0].abs().sum(0), steps[1].abs().sum(1)):
        assert (moved[5:25] > 0).all() and moved[:5].sum() == moved[25:].sum() == 0
    with torch.no_grad():
        for name, step in zip(("W_enc", "W_dec"), steps, strict=True):
            w[name] -= 0.05 * step
        again = one._revived(x, whole, (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    assert float(again) < float(loss.detach())
    one.idle[:] = 0
    assert float(one._revived(x, whole, pre)) == 0


def fitted(out: Any, **more: Any) -> Any:
    told: dict[str, Any] = {"at": AT, "units": 64, "k": 4, "steps": 8, "batch_size": 40}
    told |= {"buffer": 5, "save_every": 3, "note_every": 1, "batch": 3, "progress": False}
    return train.fit_dictionary(mm.load("toy-gptj"), "pictos:train:7", out=out, **told | more)


def test_a_training_that_was_stopped_gives_the_same_bits(tmp_path, monkeypatch):
    whole = fitted(tmp_path / "whole", held_out="pictos:held_out:3")
    learn = DictionaryLearner.learn

    def dying(self: DictionaryLearner, x: Tensor) -> Any:
        if self.step == 5:
            raise KeyboardInterrupt
        return learn(self, x)

    monkeypatch.setattr(DictionaryLearner, "learn", dying)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "stopped")
    monkeypatch.setattr(DictionaryLearner, "learn", learn)
    again = fitted(tmp_path / "stopped")
    for name, value in whole.dictionary.state_dict().items():
        assert torch.equal(value, again.dictionary.state_dict()[name]), name
    assert whole.curve.equals(again.curve) and list(whole.curve["step"]) == list(range(1, 9))
    read = mm.load_dictionary(tmp_path / "whole")
    assert read.at == AT and read.about["mmlens"]["trained"]["k"] == 4
    x = torch.randn(5, read.d_in, generator=torch.Generator().manual_seed(0)) * 4
    assert torch.allclose(read.encode(x), whole.dictionary.encode(x), atol=1e-5)
    assert set(whole.figures) > {"explained", "l0", "dead", "recovered_mean"}
    with pytest.raises(CheckpointError, match="k=4"):
        fitted(tmp_path / "whole", k=5)


def test_figures_of_dictionaries_whose_figures_are_known():
    model, data = mm.load("toy-gptj"), "pictos:held_out:3"
    d = model.cfg.d_model
    eye = torch.eye(d)
    perfect = mm.Dictionary(torch.cat([eye, -eye], 1), torch.cat([eye, -eye]), at=AT)
    told = train.dictionary_figures(model, perfect, data)
    assert told["explained"] == pytest.approx(1.0, abs=1e-6) and told["l0"] == pytest.approx(d)
    assert told["recovered_zero"] == pytest.approx(1.0, abs=1e-3)
    assert told["recovered_mean"] == pytest.approx(1.0, abs=1e-3) and told["dead"] == 0
    stream = [
        mm.activations(model, mm.Prompt(sample.image), "resid_post", layer=1, pos=mm.Patch).values
        for sample in mm.dataset(data)
    ]
    mean = torch.cat(stream).mean(0)
    none = mm.Dictionary(torch.zeros(d, 8), torch.zeros(8, d), b_dec=mean, at=AT)
    told = train.dictionary_figures(model, none, data)
    assert told["explained"] == pytest.approx(0.0, abs=1e-5)
    assert told["dead"] == 1.0 and told["l0"] == 0.0
    assert told["recovered_mean"] == pytest.approx(0.0, abs=1e-3)


def test_a_loss_that_is_no_number_ends_the_training():
    one = DictionaryLearner(recipe("topk"), rows(0))
    with pytest.raises(NumericsError, match="step 1"):
        one.learn(rows(0) * float("nan"))


@pytest.mark.parametrize("wrong", [{"kind": "l1"}, {"k": 0}, {"k": 99}, {"lr": 0.0}, {"steps": 0}])
def test_numbers_that_train_nothing_are_refused(wrong, tmp_path):
    with pytest.raises(MMLensError):
        fitted(tmp_path, **wrong)


def test_the_command_trains_and_says_its_figures(tmp_path):
    asked = ["train-sae", "toy-gptj", "--data", "pictos:train:4", "--at", AT, "--out",
             str(tmp_path / "sae"), "--units", "32", "--k", "4", "--steps", "2", "--batch-size",
             "32", "--buffer", "4", "--kind", "topk", "--json"]  # fmt: skip
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["last_step"]["l0"] == 4.0
    assert mm.load_dictionary(told["folder"]).k == 4
