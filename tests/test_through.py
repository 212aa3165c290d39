"""What a unit writes, read through the layers behind it: against finite differences and edits."""

from __future__ import annotations

import json

import pytest
import torch
from bridges import bridge, needs_edges, off, prompt

import mmlens as mm
from mmlens import Neuron, Patch
from mmlens.families import toy
from mmlens.methods.decode import THROUGH
from mmlens.methods.translators import Translators
from mmlens.values.errors import AddressError, ArgumentError, CheckpointError

PLANTED = Neuron(1, 5)
KINDS = ("gptj", "llama", "gemma")


def final(model: mm.HookedVLM, soft: mm.Prompt, layer: int, pos: int, add: torch.Tensor):
    """The stream behind the last layer with something added behind another one."""

    def push(x: torch.Tensor, hook: object) -> torch.Tensor:
        x = x.clone()
        x[0, pos] += add
        return x

    kept = {}
    ends = [(f"blocks.{model.cfg.n_layers - 1}.hook_resid_post", lambda x, hook: kept.update(x=x))]
    with torch.no_grad():
        model.run_with_hooks(soft, fwd_hooks=[(f"blocks.{layer}.hook_resid_post", push), *ends])
    return kept["x"][0].double()


@pytest.mark.parametrize("kind", KINDS)
def test_the_jacobian_is_what_a_small_push_does_to_the_last_stream(kind):
    model, asked = bridge(f"toy-{kind}"), prompt()
    push = torch.randn(32, generator=torch.Generator().manual_seed(3)) * 1e-2
    for layer, pos in ((0, 4), (1, 17)):
        lens = mm.jacobian_lens(model, asked, pos=[pos])
        moved = final(model, asked, layer, pos, push) - final(model, asked, layer, pos, -push)
        found = lens.carry(layer, push.double())
        assert off(found, moved.sum(0) / 2) < 0.02 * float(found.abs().max())
        last = mm.jacobian_lens(model, asked, pos=[pos], destination=-1, batch=5)
        assert off(last.carry(layer, push.double()), moved[-1] / 2) < 2e-4
        assert off(last.matrices, lens.matrices) > 1e-3


def test_the_mean_jacobian_is_the_mean_over_positions_and_prompts():
    model, one, two = bridge("toy-gptj"), prompt(), prompt((0, 3))
    both = mm.jacobian_lens(model, [one, two], pos=Patch)
    apart = [mm.jacobian_lens(model, each, pos=Patch).matrices for each in (one, two)]
    assert off(both.matrices, (apart[0] + apart[1]) / 2) < 1e-6
    places = [mm.jacobian_lens(model, one, pos=[at]).matrices for at in range(16)]
    assert off(apart[0], torch.stack(places).mean(0)) < 1e-5


def test_on_text_it_is_the_jacobian_lens_of_transformerlens(monkeypatch):
    needs_edges()
    theirs = pytest.importorskip("transformer_lens.tools.analysis.jacobian_lens")
    model, text = bridge("toy-llama"), "A picture of a dog and a red ball in the house"
    ids = model.to_tokens(text)
    monkeypatch.setattr(type(model.root), "to_tokens", lambda self, text: ids)
    fitted = theirs.JacobianLens.fit(
        model.root, [text], corpus="one", skip_first_positions=0, show_progress=False
    )
    ours = mm.jacobian_lens(model, text, pos=slice(0, -1), destination=slice(0, -1))
    for layer in (0, 1):
        assert off(fitted.jacobians[layer].T, ours.matrices[layer]) < 1e-5


def test_a_jacobian_lens_of_transformerlens_is_read_from_its_file(tmp_path):
    kept = {"J": {0: torch.arange(4.0).reshape(2, 2), 1: torch.eye(2)}, "n_prompts": 7,
            "source_layers": [0, 1], "d_model": 2}  # fmt: skip
    torch.save(kept, tmp_path / "theirs.pt")
    lens = Translators.load(tmp_path / "theirs.pt")
    assert lens.carry(0, torch.tensor([1.0, 0.0])).tolist() == [0.0, 2.0]  # the first column of J
    with pytest.raises(CheckpointError, match="of 3 layers of 2, and 'toy-gptj' has 3 of 32"):
        mm.decode(bridge("toy-gptj"), PLANTED, through=lens)


def test_a_lens_of_the_tuned_lens_package_is_read_from_its_folder(tmp_path):
    """It keeps W and b of h + W h + b for what enters each layer, so map l + 1 is our layer l."""
    model, draw = bridge("toy-gptj"), torch.Generator().manual_seed(0)
    shapes = {f"{at}.weight": (32, 32) for at in range(3)} | {
        f"{at}.bias": (32,) for at in range(3)
    }
    kept = {name: torch.randn(*shape, generator=draw) * 0.1 for name, shape in shapes.items()}
    torch.save(kept, tmp_path / "params.pt")
    told = {"base_model_name_or_path": "gpt", "d_model": 32, "num_hidden_layers": 3, "bias": True}
    (tmp_path / "config.json").write_text(json.dumps(told), "utf-8")
    lens = Translators.load(tmp_path)
    entering = mm.activations(model, prompt(), "resid_pre").values
    for layer in (0, 1):
        theirs = torch.nn.Linear(32, 32)
        theirs.load_state_dict({name: kept[f"{layer + 1}.{name}"] for name in ("weight", "bias")})
        with torch.no_grad():
            moved = entering[layer + 1] + theirs(entering[layer + 1])
            wanted = model.lm.logits_of(moved)[:, 5]
        said = mm.logit_lens(model, prompt(), [5], layer=layer, quantity="logit", through=lens)
        assert off(said.values[0, :, 0], wanted) < 1e-4
    (tmp_path / "config.json").write_text("{}", "utf-8")
    with pytest.raises(CheckpointError, match="is no folder of a tuned lens"):
        Translators.load(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gain", [False, True])
def test_in_the_last_layer_every_lens_is_the_unembedding(kind, gain):
    model, asked = bridge(f"toy-{kind}"), prompt()
    last = [Neuron(2, unit) for unit in range(6)]
    plain = mm.decode(model, last, gain=gain, active=[1.0, -1.0] * 3)
    for through in ("jacobian", "tuned"):
        read = mm.decode(
            model, last, gain=gain, active=[1.0, -1.0] * 3, through=through, prompt=asked
        )
        assert read.equals(plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("through", THROUGH)
def test_the_planted_neuron_decodes_to_its_word_however_it_is_read(kind, through):
    model = bridge(f"toy-{kind}-planted")
    said = mm.decode(model, PLANTED, 3, through=through, prompt=prompt()).iloc[0]
    assert said.words[0] == " dog" and said.probs[0] >= said.probs[1]


@pytest.mark.parametrize("through", ["unembed", "jacobian", "tuned"])
def test_a_negative_activation_turns_the_words_around(through):
    model = bridge("toy-llama-planted")
    ends = mm.decode(model, [PLANTED] * 2, 300, active=[2.0, -2.0], through=through,
                     prompt=prompt()).set_index("sign")  # fmt: skip
    assert ends.loc[1, "words"][0] == " dog" and " dog" not in ends.loc[-1, "words"][:200]
    assert (
        ends.loc[-1, "words"][0] in ends.loc[1, "words"][-100:]
        or len(ends.loc[1, "words"]) < model.lm.n_words
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_effect_is_the_difference_that_an_edit_makes(kind):
    model, asked = bridge(f"toy-{kind}-planted"), prompt()
    neurons = [PLANTED, Neuron(0, 3), Neuron(2, 9)]
    said = mm.decode(model, neurons, 5, through="effect", prompt=asked)
    with torch.no_grad():
        whole = model(asked)[0, -1, : model.lm.n_words]
        for neuron, row in zip(neurons, said.to_dict("records"), strict=True):
            silent = model.edit(mm.Edit("neurons", 0.0, neuron))
            lost = whole - silent(asked)[0, -1, : model.lm.n_words]
            best = lost.topk(5)
            assert torch.allclose(torch.tensor(row["moved"]), best.values, atol=1e-4)
            assert row["words"] == [model.to_string([i]) for i in best.indices.tolist()]


def test_a_unit_that_is_off_moves_no_logit_in_whatever_batch_it_is():
    model, asked = bridge("toy-llama-planted"), prompt()
    off = model.edit(mm.Edit("neurons", 0.0, Neuron(0, 3)))
    others = [Neuron(2, unit) for unit in range(20)]
    said = mm.decode(off, [Neuron(0, 3), *others], 5, through="effect", prompt=asked)
    assert said["moved"][0] == [0.0] * 5 and said["moved"][1][0] > 0.0


def test_the_effect_has_the_sign_of_the_activation_by_itself():
    """With the activation turned around, the unit lowers its word instead of raising it."""
    model, asked = bridge("toy-gptj-planted"), prompt()
    turned = model.edit(mm.Edit("neurons", lambda active: -active, PLANTED))
    assert mm.decode(model, PLANTED, 3, through="effect", prompt=asked).words[0][0] == " dog"
    assert " dog" not in mm.decode(turned, PLANTED, 50, through="effect", prompt=asked).words[0]


def test_the_tuned_lens_says_what_the_model_will_say_better_than_the_logit_lens():
    model = bridge("toy-llama")
    seen = [prompt((row, col), "A picture of a dog") for row in range(4) for col in range(3)]
    lens = mm.tuned_lens(model, seen, steps=150)
    for trained, plain in zip(lens.about["loss"], lens.about["logit_lens_loss"], strict=True):
        assert trained < 0.7 * plain
    new = mm.Prompt(toy.picture((3, 3), seed=8), "A picture of a dog")  # a picture it never saw
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(3)]
    with torch.no_grad():
        logits, cache = model.run_with_cache(new, names_filter=names)
        wanted = logits[0].log_softmax(-1)

        def away(resid: torch.Tensor) -> float:
            said = model.lm.logits_of(resid).log_softmax(-1)
            return float((wanted.exp() * (wanted - said)).sum(-1).mean())

        for layer in (0, 1):
            resid = cache[names[layer]][0]
            assert away(lens.translate(layer, resid)) < away(resid)
            read = mm.logit_lens(model, new, [5], layer=layer, quantity="logprob", through=lens)
            own = model.lm.logits_of(lens.translate(layer, resid)).log_softmax(-1)[:, 5]
            assert off(read.values[0, :, 0], own) < 1e-5
    last = mm.logit_lens(model, new, [5], layer=2, quantity="logprob", through=lens)
    assert off(last.values[0, :, 0], wanted[:, 5]) < 1e-5


def test_a_lens_is_the_same_when_it_was_saved(tmp_path):
    model = bridge("toy-gptj")
    for lens in (mm.jacobian_lens(model, prompt()), mm.tuned_lens(model, prompt(), steps=5)):
        again = Translators.load(lens.save(tmp_path / "lens.safetensors"))
        assert again.kind == lens.kind and again.about["model"] == "toy-gptj"
        assert off(again.matrices, lens.matrices) < 1e-3 and off(again.biases, lens.biases) < 1e-3
        mm.decode(model, PLANTED, through=again)


def test_a_lens_of_other_weights_is_refused():
    lens = mm.jacobian_lens(bridge("toy-gptj"), "A picture of")
    with pytest.raises(CheckpointError, match="made for 'toy-gptj', and 'toy-llama' has other"):
        mm.decode(bridge("toy-llama"), PLANTED, through=lens)
    with pytest.raises(CheckpointError, match="There is no lens 'nowhere.safetensors'"):
        Translators.load("nowhere.safetensors")


def test_a_reading_without_its_prompt_and_one_that_is_none_are_refused():
    model = bridge("toy-gptj")
    with pytest.raises(ArgumentError, match="through='effect' needs prompt=..., on which"):
        mm.decode(model, PLANTED, through="effect")
    with pytest.raises(ArgumentError, match="did you mean 'jacobian'"):
        mm.decode(model, PLANTED, through="jacobean")
    with pytest.raises(AddressError, match="No pos here is a Patch"):
        mm.jacobian_lens(model, "A picture of", pos=Patch)


@pytest.mark.parametrize("fit", [mm.jacobian_lens, lambda m, p: mm.tuned_lens(m, p, steps=2)])
def test_a_lens_of_other_edits_is_refused_and_one_of_the_same_is_taken(fit, tmp_path):
    model = bridge("toy-gptj")
    silent = mm.Edit("neurons", 0.0, Neuron(1, 5))
    edited = model.edit(silent)
    plain, other = fit(model, prompt()), fit(edited, prompt())
    other = Translators.load(other.save(tmp_path / "lens.safetensors"))
    for lens, wrong in ((plain, edited), (other, model)):
        with pytest.raises(CheckpointError, match="fitted with other edits or dictionaries"):
            mm.logit_lens(wrong, prompt(), through=lens)
        with pytest.raises(CheckpointError, match=r"lens\.translate"):
            mm.decode(wrong, PLANTED, through=lens)
    zeros, ones = (model.edit(mm.Edit("neurons", value, layer=1, unit=5))
                   for value in (torch.zeros(1), torch.ones(1)))  # fmt: skip
    with pytest.raises(CheckpointError, match="fitted with other edits"):  # which print alike
        mm.logit_lens(ones, prompt(), through=fit(zeros, prompt()))
    read = mm.logit_lens(model.edit(silent), prompt(), [5], through=other)
    assert off(read.values, mm.logit_lens(edited, prompt(), [5], through=other).values) == 0


def test_a_dictionary_that_changes_no_answer_changes_no_lens():
    model = bridge("toy-gptj")
    weight = torch.randn(32, 48, generator=torch.Generator().manual_seed(0))
    code, at = mm.Dictionary(weight, weight.T.contiguous(), k=4), "blocks.1.hook_resid_post"
    live, constant = model.attach(code, at=at), model.attach(code, at=at, error="constant")
    tuned, jacobian = mm.tuned_lens(model, prompt(), steps=2), mm.jacobian_lens(model, prompt())
    for lens in (tuned, jacobian):
        assert mm.decode(live, mm.Neuron(1, 3, "sae"), through=lens) is not None
    assert mm.decode(constant, PLANTED, through=tuned) is not None
    assert off(mm.jacobian_lens(live, prompt()).matrices, jacobian.matrices) < 1e-5
    with pytest.raises(CheckpointError, match="other edits or dictionaries"):
        mm.decode(constant, PLANTED, through=jacobian)
    silenced = live.edit(mm.Edit("sae", 0.0, mm.Neuron(1, 3, "sae")))
    with pytest.raises(CheckpointError, match="other edits or dictionaries"):
        mm.decode(silenced, PLANTED, through=jacobian)
