"""Training a projection: the loss by hand, a toy that learns to name pictures, kill and resume."""

from __future__ import annotations

import math
import os
import signal
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from bridges import KINDS, bridge
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import mmlens as mm
from mmlens.datasets.caption_pairs import Listed
from mmlens.families import toy
from mmlens.runtime.sharing import share_weights
from mmlens.train import CaptionPair, DataError, cache_features, fit, open_pairs
from mmlens.train.caption_loss import Speller, count, loss_sum, sequence
from mmlens.train.feed import Feed, drop
from mmlens.train.recipe import TrainingRecipe
from mmlens.train.recompute import recompute
from mmlens.values.errors import CapabilityError, CheckpointError, NumericsError

COLOURS = {"dog": (250, 20, 20), "bird": (20, 20, 250), "car": (240, 240, 240)}
FAST: dict[str, Any] = {"steps": 80, "batch_size": 12, "lr": 5e-2, "prefix": "a"}
SHORT: dict[str, Any] = {"steps": 6, "batch_size": 4, "lr": 1e-2, "prefix": "a"}


def picture(word: str, number: int) -> Image.Image:
    image = Image.new("RGB", (32, 32), COLOURS[word])
    image.putpixel((number, number), (0, 0, 0))
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures with their captions beside them."""
    place = tmp_path / "photos"
    place.mkdir()
    for number in range(12):
        word = [*COLOURS][number % 3]
        picture(word, number).save(place / f"{number:02}.png")
        (place / f"{number:02}.txt").write_text(f"{word}\n")
    return place


def in_memory(n: int = 12) -> Listed:
    words = [[*COLOURS][i % 3] for i in range(n)]
    pairs = [CaptionPair(picture(w, i), (w, f"small {w}"), f"{i}.png") for i, w in enumerate(words)]
    return Listed(pairs)


@lru_cache
def listener(name: str = "toy-gptj") -> Any:
    """A toy that listens: small word embeddings, so that pictures decide, and loud logits."""
    model = mm.load(name)
    with torch.no_grad():
        model.lm.hf.get_input_embeddings().weight.mul_(0.3)
        model.lm.hf.get_output_embeddings().weight.mul_(8)
    return model


def weights(out: Path) -> torch.Tensor:
    return load_file(out / "projection.safetensors")["weight"]


# The sequence and its loss ------------------------------------------------------------------------


def test_labels_are_the_caption_and_the_first_eos_only():
    words = Speller(toy.tokenizer())(["a dog", "a small red bird"])
    a, dog, small, red, bird = (toy.tokenizer()(w)["input_ids"][0] for w in
                                ("a", " dog", " small", " red", " bird"))  # fmt: skip
    eos = toy.tokenizer().eos_token_id
    assert words.ids.tolist() == [[a, dog, eos, eos, eos], [a, small, red, bird, eos]]
    assert words.labels.tolist() == [[a, dog, eos, -100, -100], [a, small, red, bird, eos]]
    assert words.mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


def test_a_prefix_is_no_target_and_the_caption_follows_after_a_space():
    words = Speller(toy.tokenizer(), prefix="A picture of")(["dog"])
    prefix = toy.tokenizer()("A picture of")["input_ids"]
    dog, eos = toy.tokenizer()(" dog")["input_ids"][0], toy.tokenizer().eos_token_id
    assert words.ids[0].tolist() == [*prefix, dog, eos]
    assert words.labels[0].tolist() == [-100] * len(prefix) + [dog, eos]
    assert count(words) == 2


def test_a_cut_caption_does_not_learn_to_stop():
    words = Speller(toy.tokenizer(), limit=2)(["a small red bird", "a"])
    assert toy.tokenizer().eos_token_id not in words.labels[0].tolist()
    assert words.labels[1, -1] == toy.tokenizer().eos_token_id


def test_a_tokenizer_without_eos_is_refused():
    with pytest.raises(CapabilityError, match="Captions end with the EOS token"):
        Speller(None)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_loss_is_the_one_of_hugging_face_and_of_the_hand(kind):
    model = bridge(f"toy-{kind}")
    hf, words = model.lm.hf, Speller(model.tokenizer)(["a dog", "a small red bird"])
    soft = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0))
    ours = loss_sum(hf, soft, words) / count(words)
    vectors, mask, labels = sequence(hf, soft, words)
    theirs = hf(inputs_embeds=vectors, attention_mask=mask, labels=labels, use_cache=False)
    log_p = theirs.logits.log_softmax(-1)
    by_hand = []
    for row, length in enumerate((3, 5)):  # words and EOS; position 15 is the last of the picture
        by_hand += [-log_p[row, 15 + i, words.ids[row, i]] for i in range(length)]
    assert torch.allclose(ours, theirs.loss, atol=1e-5)
    assert torch.allclose(ours, torch.stack(by_hand).mean(), atol=1e-5)


@torch.no_grad()
def test_the_loss_is_the_one_of_the_hooked_model():
    model = bridge("toy-gptj")
    prompt = mm.Prompt(toy.picture(), "a dog<eos>")
    soft = model.projection(model.vision(model.vision.preprocess(toy.picture())[None]))
    words = Speller(model.tokenizer)(["a dog"])
    ours = loss_sum(model.lm.hf, soft, words) / count(words)
    assert torch.allclose(ours, model(prompt, return_type="loss"), atol=1e-5)


def test_the_rate_warms_up_in_the_logarithm_and_falls_to_zero():
    recipe = TrainingRecipe(steps=15000, batch_size=1)
    assert recipe.rate(0) == 0
    assert recipe.rate(9) == pytest.approx(math.log(10) / math.log(100))
    assert recipe.rate(100) == 1
    assert recipe.rate(100 + 7450) == pytest.approx(0.5)
    assert recipe.rate(15000) == 0


def test_dropout_belongs_to_the_picture_not_to_its_place_in_the_batch():
    soft = torch.ones(2, 50, 40)
    once, again = drop(soft, 0.1, [5, 7]), drop(soft, 0.1, [7, 5])
    assert torch.equal(once, again.flip(0)) and not torch.equal(once[0], once[1])
    assert once.unique().tolist() == [0.0, pytest.approx(1 / 0.9)]
    assert (once == 0).float().mean() == pytest.approx(0.1, abs=0.02)


def test_every_epoch_shows_every_picture_once_and_draws_a_caption():
    pairs = in_memory()
    stream = pairs.stream(seed=3)
    epochs = [[next(stream).key for _ in range(12)] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(p.key for p in pairs)
    assert epochs[0] != epochs[1]
    later = pairs.stream(seed=3, start=15)
    assert [next(later).key for _ in range(3)] == epochs[1][3:6]
    speller = Speller(toy.tokenizer())
    batches = iter(Feed(pairs, bridge("toy-gptj").vision.pixels, speller, 12))
    small = toy.tokenizer()("small")["input_ids"][0]
    said = [(next(batches).captions.ids[:, 0] == small).sum() for _ in range(4)]
    assert 0 < sum(said) < 48


# Learning -----------------------------------------------------------------------------------------


def test_a_toy_learns_to_say_the_captions_of_its_pictures(folder, tmp_path):
    model, pairs = listener(), open_pairs(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cached = cache_features(model.vision, pairs, tmp_path / "cache")
    trained = fit(model, cached, out=tmp_path / "run", held_out=cached, check_every=40, **FAST)
    assert trained.curve.loss.iloc[-10:].mean() < 0.2 * trained.curve.loss.iloc[0]
    said = {p.captions[0]: trained.model.generate(mm.Prompt(p.picture, "a")) for p in pairs}
    assert said == {word: f" {word}" for word in COLOURS}
    held = trained.curve.held_out.dropna()
    assert len(held) == 2 and held.iloc[-1] < trained.curve.loss.iloc[-1]  # no dropout on it
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in [*model.lm.hf.parameters(), *model.parameters()])
    again = mm.load(tmp_path / "run")
    assert again.generate(mm.Prompt(picture("dog", 0), "a")) == " dog"
    assert again.provenance["trained"]["curve"][-1][0] == 80
    assert len((tmp_path / "run" / "curve.csv").read_text().splitlines()) == 81


def test_features_from_the_cache_train_as_pictures_do(folder, tmp_path):
    model, pairs = listener(), open_pairs(folder)
    cached = cache_features(model.vision, pairs, tmp_path / "cache", batch_size=12)
    live = fit(model, pairs, out=tmp_path / "live", **SHORT)
    fast = fit(model, cached, out=tmp_path / "fast", **SHORT)
    assert torch.allclose(weights(live.folder), weights(fast.folder), atol=1e-4)


def test_micro_batches_add_up_to_the_batch(tmp_path):
    options = {**SHORT, "batch_size": 2, "accumulate": 2}
    whole = fit(listener(), in_memory(), out=tmp_path / "whole", **SHORT)
    parts = fit(listener(), in_memory(), out=tmp_path / "parts", **options)
    assert torch.allclose(weights(whole.folder), weights(parts.folder), atol=1e-4)
    assert whole.curve.loss.tolist() == pytest.approx(parts.curve.loss.tolist(), rel=1e-4)


class Deadly(Listed):
    """Kills its process at the n-th picture that is read."""

    left = 14

    def tensor(self, pair: CaptionPair, pixels: Any) -> torch.Tensor:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().tensor(pair, pixels)


@pytest.mark.skipif(torch.cuda.is_initialized(), reason="a process with CUDA cannot be forked")
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path):
    model, pairs = listener(), in_memory()
    if not (child := os.fork()):
        try:
            fit(model, Deadly([*pairs]), out=tmp_path / "killed", save_every=2, **SHORT)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert not (tmp_path / "killed" / "bridge.json").exists()
    assert len((tmp_path / "killed" / "curve.csv").read_text().splitlines()) == 1 + 3
    resumed = fit(model, pairs, out=tmp_path / "killed", save_every=2, **SHORT)
    straight = fit(model, pairs, out=tmp_path / "straight", **SHORT)
    assert torch.equal(weights(resumed.folder), weights(straight.folder))
    assert resumed.curve.step.tolist() == [1, 2, 3, 4, 5, 6]
    assert resumed.curve.loss.tolist() == straight.curve.loss.tolist()


def _one_of_several(out: Path) -> None:
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    fit(listener(), in_memory(), out=out, **(SHORT | {"batch_size": 2, "accumulate": 2}))


@pytest.mark.skipif(torch.cuda.is_initialized(), reason="a process with CUDA cannot be forked")
def test_two_processes_learn_what_one_does(tmp_path):
    from accelerate import debug_launcher

    one = fit(listener(), in_memory(), out=tmp_path / "one", **SHORT)
    debug_launcher(_one_of_several, (tmp_path / "two",), num_processes=2)
    assert torch.allclose(weights(one.folder), weights(tmp_path / "two"), atol=1e-4)
    assert mm.load(tmp_path / "two").provenance["trained"]["processes"] == 2


def _gradient(lm: Any, words: Any) -> tuple[torch.Tensor, int]:
    """Of the loss with respect to a soft prompt, and how many numbers were kept for it."""
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    soft = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_sum(lm, soft, words)
    loss.backward()
    assert soft.grad is not None and all(p.grad is None for p in lm.parameters())
    return soft.grad, sum(kept)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_activations_give_the_same_gradient_for_less_memory(kind):
    model = bridge(f"toy-{kind}")
    words = Speller(model.tokenizer)(["a dog", "a small red bird"])
    plain, most = _gradient(share_weights(model.lm.hf), words)
    again = share_weights(model.lm.hf)
    recompute(again)
    gradient, least = _gradient(again, words)
    assert torch.allclose(plain, gradient, atol=1e-5) and plain.abs().max() > 0.01
    assert least < 0.5 * most


def test_the_frozen_parts_may_be_in_bfloat16(tmp_path):
    model = mm.load("toy-gptj").to(torch.bfloat16)
    half = fit(model, in_memory(), out=tmp_path / "half", recompute=True, **SHORT)
    full = fit(mm.load("toy-gptj"), in_memory(), out=tmp_path / "full", **SHORT)
    assert half.curve.loss.tolist() == pytest.approx(full.curve.loss.tolist(), rel=0.02)
    assert half.model.projection.weight.dtype == torch.bfloat16


class Poisoned(Listed):
    """Its twelfth picture is no number."""

    left = 12

    def tensor(self, pair: CaptionPair, pixels: Any) -> torch.Tensor:
        self.left -= 1
        return super().tensor(pair, pixels) + (0 if self.left else math.nan)


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(NumericsError, match="loss is nan .* at step 3 .* of step 2 is kept"):
        fit(listener(), Poisoned([*in_memory()]), out=tmp_path, save_every=2, **SHORT)
    cured = fit(listener(), in_memory(), out=tmp_path, save_every=2, **SHORT)
    assert cured.curve.step.tolist() == [1, 2, 3, 4, 5, 6]
    assert torch.isfinite(weights(tmp_path)).all()


def test_beginning_anew_forgets_the_checkpoint(tmp_path):
    fit(listener(), in_memory(), out=tmp_path, **SHORT)
    other = fit(listener(), in_memory(), out=tmp_path, resume=False, **(SHORT | {"steps": 2}))
    assert len(other.curve) == 2 and other.provenance["steps"] == 2


def test_a_folder_of_another_training_is_refused(tmp_path):
    fit(listener(), in_memory(), out=tmp_path, **SHORT)
    with pytest.raises(CheckpointError, match="holds a training with lr=0.01, and this one asks"):
        fit(listener(), in_memory(), out=tmp_path, **(SHORT | {"lr": 0.5}))
    with pytest.raises(CheckpointError, match="holds a training with data="):
        fit(listener(), in_memory(8), out=tmp_path, **SHORT)
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"can't be read as a checkpoint"):
        fit(listener(), in_memory(), out=tmp_path, **SHORT)


@pytest.mark.parametrize("option, sentence", [
    ({"steps": 0}, "steps=0: write a whole number from 1 on"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"accumulate": -1}, "accumulate=-1"),
    ({"max_tokens": 0}, "max_tokens=0"),
    ({"warmup": -5}, "warmup=-5"),
    ({"seed": -1}, "seed=-1"),
    ({"check_every": 0}, "check_every=0"),
    ({"save_every": -2}, "save_every=-2"),
    ({"workers": -1}, "workers=-1"),
    ({"dropout": 1.0}, "no probability below 1"),
    ({"dropout": float("nan")}, "dropout=nan"),
    ({"lr": 0.0}, "teaches nothing"),
    ({"lr": float("inf")}, "lr=inf"),
    ({"clip": -1.0}, "clip=-1.0 is no length that a gradient can be cut to"),
    ({"clip": 0.0}, "clip=0.0"),
    ({"clip": float("nan")}, "clip=nan"),
    ({"weight_decay": -0.1}, "weight_decay=-0.1"),
    ({"betas": (0.9, 1.0)}, "are not two numbers from 0 to below 1"),
])  # fmt: skip
def test_numbers_that_make_no_training_are_refused(tmp_path, option, sentence):
    with pytest.raises(DataError, match=sentence):
        fit(listener(), in_memory(), out=tmp_path, **(SHORT | option))


def test_a_model_that_cannot_be_trained_is_refused(tmp_path):
    edited = listener().edit(mm.Edit("neurons", 0.0, mm.Neuron(1, 5)))
    with pytest.raises(CapabilityError, match="has 1 edits, which training would not feel"):
        fit(edited, in_memory(), out=tmp_path, **SHORT)


def test_the_command_line_trains_a_toy(folder, tmp_path):
    from mmlens.cli.app import app

    (folder / "07.png").write_bytes(b"not a picture")
    out = tmp_path / "run"
    line = (
        f"train --model toy-gptj --data {folder} --out {out} --steps 3 --batch-size 12 --device cpu"
    )
    refused = CliRunner().invoke(app, line.split())
    assert refused.exit_code == 2 and "07.png' is not a picture" in refused.output
    done = CliRunner().invoke(
        app,
        [*line.split(), "--skip-bad", "--cache", str(tmp_path / "c"), "--held-out", str(folder)],
    )
    assert done.exit_code == 0, done.output
    assert "3 steps, loss" in done.output and "1 pictures could not be used" in done.output
    assert mm.load(out).provenance["trained"]["bad_pictures"] == 1
    nothing = CliRunner().invoke(app, ["train", "--data", str(folder), "--out", str(out)])
    assert nothing.exit_code == 2 and "Say what to train" in nothing.output
