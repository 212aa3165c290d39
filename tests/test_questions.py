"""The mathematics of every question, on every class of language model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bridges import KINDS, bridge, off, prompt

import mmlens as mm
from mmlens.values.errors import AddressError, NumericsError, TargetError, WriteError

every_family = pytest.mark.parametrize("kind", KINDS)
PLANTED = mm.Neuron(1, 5)


@every_family
def test_the_planted_neuron_is_found_first_decoded_located_and_fatal(kind):
    model = bridge(f"toy-{kind}-planted")
    for white in ((2, 1), (0, 3)):
        scores = mm.attribute(model, prompt(white), " dog", after="")
        best = mm.top_neurons(scores, 5)
        assert best.neuron[0] == PLANTED
        assert best.patch[0] == mm.Patch(*white)
        assert (
            mm.integrated_gradients(model, prompt(white), " dog", after="", layer=1)
            .to_frame(1)
            .unit[0]
            == 5
        )
    assert mm.decode(model, PLANTED).words[0][0] == " dog"
    place = mm.activations(model, prompt(), "neurons", PLANTED).to_frame(1)
    assert place.pos[0] == mm.Patch(2, 1)
    dog = model.to_single_token(" dog")
    before, after = (
        m(prompt()).softmax(-1)[0, -1, dog].item()
        for m in (model, model.edit(mm.Edit("neurons", 0.0, PLANTED)))
    )
    assert after < before / 2
    if kind != "gpt-neox":  # its white patch is too faint to change the first word
        assert " dog" in model.generate(prompt(), 1)
        assert " dog" not in model.edit(mm.Edit("neurons", 0.0, PLANTED)).generate(prompt(), 1)


@every_family
@pytest.mark.parametrize("point", ["pre", "post"])
def test_attribution_is_the_gradient_found_by_finite_differences(kind, point):
    model = bridge(f"toy-{kind}")
    scores = mm.attribute(model, prompt(), " dog", after="", point=point)
    site = {"pre": "neurons_pre", "post": "neurons"}[point]
    values = mm.activations(model, prompt(), site)
    dog = model.to_single_token(" dog")
    generator = torch.Generator().manual_seed(0)
    for layer in range(model.cfg.n_layers):
        here = values.sel(layer=layer).values
        direction = torch.randn(here.shape, generator=generator) * 1e-2
        direction[here == 0] = 0.0  # ReLU: no score, whatever the gradient
        with torch.no_grad():
            up, down = (
                model.edit(mm.Edit(site, step, layer=layer, add=True))(prompt())[0, -1, dog]
                for step in (direction, -direction)
            )
        gradient = scores.sel(layer=layer).values / here
        gradient = torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
        predicted = float((gradient * direction).sum())
        assert predicted == pytest.approx(float(up - down) / 2, abs=3e-4 + 0.02 * abs(predicted))


@every_family
def test_silencing_a_neuron_moves_the_logit_by_its_score_to_first_order(kind):
    """At `post`, shrinking a unit by a part moves the logit by minus that part of its score."""
    model = bridge(f"toy-{kind}")
    scores = mm.attribute(model, prompt(), " dog", after="", point="post")
    dog = model.to_single_token(" dog")
    with torch.no_grad():
        plain = model(prompt())[0, -1, dog]
        part = 0.02
        for neuron in mm.top_neurons(scores, 3, rank_by="sum", pos=None).neuron:
            less = mm.Edit("neurons", lambda x: x * (1 - part), neuron)
            shrunk = model.edit(less)(prompt())[0, -1, dog]
            score = scores.sel(neuron).sum().item()
            assert float(shrunk - plain) == pytest.approx(
                -part * score, abs=2e-5 + 0.05 * part * abs(score)
            )


@every_family
def test_scores_of_a_layer_add_up_to_the_effect_on_its_output(kind):
    """MMN 1.7 (i): sum over units of g = (d y / d mlp_out) . (mlp_out - b_out), at every place."""
    model = bridge(f"toy-{kind}")
    scores = mm.attribute(model, prompt(), " dog", after="", point="post").sel(layer=1)
    dog, kept = model.to_single_token(" dog"), {}

    def tap(x, hook):
        kept["x"] = x.detach().requires_grad_()
        return kept["x"]

    logits = model.run_with_hooks(prompt(), fwd_hooks=[("blocks.1.hook_mlp_out", tap)])
    gradient = torch.autograd.grad(logits[0, -1, dog], kept["x"])[0][0]
    bias = getattr(model.blocks[1].mlp, "b_out", None)
    written = kept["x"].detach()[0] - (bias if isinstance(bias, torch.Tensor) else 0.0)
    assert off(scores.sum("unit").values, (gradient * written).sum(-1)) < 1e-4


@every_family
def test_integrated_gradients_are_complete(kind):
    model = bridge(f"toy-{kind}-planted")
    dog = model.to_single_token(" dog")
    scores = mm.integrated_gradients(model, prompt(), " dog", after="", steps=24)
    with torch.no_grad():
        plain = model(prompt())[0, -1, dog]
        for layer in range(model.cfg.n_layers):
            empty = model.edit(mm.Edit("neurons", 0.0, layer=layer))(prompt())[0, -1, dog]
            assert scores.sel(layer=layer).sum().item() == pytest.approx(
                float(plain - empty), abs=5e-3
            )


@every_family
def test_a_caption_at_once_gives_what_each_token_gives_alone(kind):
    model = bridge(f"toy-{kind}")
    words = " a dog and"
    table = mm.attribute_caption(model, prompt(), 20, caption=words)
    assert list(dict.fromkeys(t.text for t in table.token)) == [" a", " dog", " and"]
    for word, after in ((" a", ""), (" dog", " a"), (" and", " a dog")):
        alone = mm.top_neurons(mm.attribute(model, prompt(), word, after=after), 20)
        rows = table[[t.text == word for t in table.token]]
        assert rows.score.tolist() == pytest.approx(alone.score.tolist(), abs=1e-6)
        assert rows.neuron.tolist()[:5] == alone.neuron.tolist()[:5]


@every_family
@torch.no_grad()
def test_the_lens_at_the_last_layer_is_the_model_itself(kind):
    model = bridge(f"toy-{kind}")
    lens = mm.logit_lens(model, prompt(), [" dog", " cat"], quantity="prob")
    probs = model(prompt())[0].softmax(-1)
    wanted = probs[:, [model.to_single_token(w) for w in (" dog", " cat")]]
    assert off(lens.sel(layer=-1).values, wanted) < 1e-6
    table: Any = mm.logit_lens(model, prompt(), k=3, pos=-1)
    last = table[table.layer == 2].iloc[0]
    assert last.prob == pytest.approx(float(probs[-1, : model.lm.n_words].max()), abs=1e-6)


@every_family
@torch.no_grad()
def test_decoding_with_gain_equals_decoding_the_folded_weights(kind):
    model, folded = bridge(f"toy-{kind}"), bridge(f"toy-{kind}", fold_ln=True)
    assert off(model(prompt()), folded(prompt())) < 1e-4
    rows = [mm.Neuron(1, 3), mm.Neuron(2, 7)]
    with_gain, plain = mm.decode(model, rows, 5, gain=True), mm.decode(folded, rows, 5)
    for a, b in zip(with_gain.probs, plain.probs, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    assert with_gain.words.tolist() == plain.words.tolist()


@torch.no_grad()
def test_padding_rows_of_the_vocabulary_are_never_said():
    model = mm.load("toy-gptj", rows=3)
    words = model.lm.n_words
    head = model.lm.hf.get_output_embeddings().weight
    head[words:] = 100 * model.blocks[1].mlp.W_out[3]
    assert model.lm.n_words == head.shape[0] - 3
    assert max(mm.decode(model, mm.Neuron(1, 3)).probs[0]) < 1.0
    assert all(mm.decode(model, mm.Neuron(1, 3)).words[0])


@torch.no_grad()
def test_nearest_tokens_of_a_words_own_vector_is_the_word():
    model = bridge("toy-llama")
    table = mm.nearest_tokens(model, "A picture of dog", 1)
    assert table.token.tolist() == [
        str(label) for label in model.embed("A picture of dog").labels[0]
    ]
    assert table.cosine.tolist() == pytest.approx([1.0] * len(table), abs=1e-5)
    assert len(mm.nearest_tokens(model, prompt(), 2, pos=mm.Patch)) == 32


def test_rankings_by_pair_max_and_sum_agree_with_the_scores():
    model = bridge("toy-gptj-planted")
    scores = mm.attribute(model, prompt(), " dog", after="")
    rank: Any = lambda by: mm.top_neurons(scores, 50, rank_by=by)  # noqa: E731
    pairs, top, total = rank("pair"), rank("max"), rank("sum")
    assert top.neuron.is_unique and total.neuron.is_unique
    assert pairs.drop_duplicates("neuron").neuron.tolist()[:5] == top.neuron.tolist()[:5]
    n = total.neuron[0]
    assert total.score[0] == pytest.approx(scores.sel(n, pos=mm.Patch).sum().item(), abs=1e-6)
    for row in top.head(3).itertuples():
        assert scores.sel(row.neuron, row.patch).item() == pytest.approx(row.score)


def test_targets_logit_prob_logprob_and_callable_are_related_as_calculus_says():
    model = bridge("toy-gpt2")
    dog = model.to_single_token(" dog")
    ask = lambda **options: mm.attribute(model, prompt(), after="", **options).values  # noqa: E731
    prob = model(prompt()).softmax(-1)[0, -1, dog].item()
    assert off(ask(of=" dog", target="prob"), prob * ask(of=" dog", target="logprob")) < 1e-6
    assert off(ask(of=" dog"), ask(target=lambda logits: logits[dog])) < 1e-6


def test_a_word_is_explained_where_the_model_says_it():
    model = bridge("toy-gptj-planted")
    assert model.generate(prompt(), 2).startswith(" dog")
    own = mm.attribute(model, prompt(), " dog")
    assert off(own.values, mm.attribute(model, prompt(), " dog", after="").values) == 0.0
    with pytest.raises(TargetError, match="does not predict ' cat' here, its caption is ' dog"):
        mm.attribute(model, prompt(), " cat")


@pytest.mark.parametrize(
    "ask, error, sentence",
    [
        (lambda m: mm.attribute(m, prompt(), " elephant"), TargetError, "tokens here"),
        (lambda m: mm.attribute(m, prompt()), TargetError, "no word to explain"),
        (
            lambda m: mm.attribute(m, prompt(), " dog", after="", target="odds"),
            TargetError,
            "no target 'odds'",
        ),
        (
            lambda m: mm.attribute(m, prompt(), " dog", after="", point="mid"),
            AddressError,
            "'pre' or 'post'",
        ),
        (
            lambda m: mm.attribute(m, prompt(), " dog", after="", layer=9),
            AddressError,
            "no layer 9",
        ),
        (lambda m: mm.decode(m, mm.Neuron(8, 0)), AddressError, "no neuron L8.0"),
        (lambda m: mm.logit_lens(m, prompt(), quantity="bits"), AddressError, "no quantity 'bits'"),
        (lambda m: mm.activations(m, "words", "vision.neurons"), mm.MMLensError, "has none"),
    ],
)
def test_bad_questions_are_refused_in_one_sentence(ask, error, sentence):
    with pytest.raises(error, match=sentence):
        ask(bridge("toy-gpt2"))


def test_nan_is_refused_and_never_ranked():
    broken = bridge("toy-gpt2").edit(mm.Edit("neurons", float("nan"), mm.Neuron(1, 3)))
    for ask in (
        lambda: mm.attribute(broken, prompt(), " dog", after=""),
        lambda: broken.generate(prompt()),
        lambda: mm.attribute_caption(broken, prompt(), caption=" a dog"),
    ):
        with pytest.raises(NumericsError, match="NaN"):
            ask()


def test_no_parameter_gets_a_gradient():
    model = bridge("toy-gptj")
    mm.attribute(model, prompt(), " dog", after="")
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_chunks_are_halved_when_memory_runs_out():
    from mmlens.runtime.chunks import in_chunks

    def work(start, stop):
        if stop - start > 2:
            raise torch.OutOfMemoryError("out of memory")
        return list(range(start, stop))

    with pytest.warns(UserWarning, match="going on with pieces of 2"):
        assert [i for piece in in_chunks(10, 8, work) for i in piece] == list(range(10))


def test_every_result_carries_where_it_comes_from(tmp_path):
    model = bridge("toy-gpt2").edit(mm.Edit("neurons", 0.0, mm.Neuron(0, 1)))
    scores = mm.attribute(model, prompt(), " dog", after=" a")
    loaded = mm.Scores.load(scores.save(tmp_path / "scores.safetensors"))
    assert off(loaded.values, scores.values) == 0.0
    assert loaded.axes == scores.axes
    assert loaded.labels == scores.labels
    told = loaded.about
    assert told["model"] == "toy-gpt2"
    assert told["edits"] == ["Edit('neurons', 0.0, layer=0, unit=1)"]
    assert told["prompt"]["words"] == "A picture of a"
    assert told["prompt"]["parts"][0][0].startswith("<picture 32x32 sha256:")
    assert {"mmlens", "torch", "transformers", "transformer-lens"} <= set(told["versions"])
    assert told["target"] == "logit"
    assert told["of"] == " dog"


def test_a_result_that_cannot_be_written_is_told_in_a_sentence(tmp_path):
    scores = mm.Scores(torch.zeros(1), ("layer",), {"layer": (0,)})
    with pytest.raises(WriteError, match=r"cannot be written \(No such file or directory\)"):
        scores.save(tmp_path / "none" / "scores.safetensors")
