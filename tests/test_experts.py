"""Mixtures of experts: their units, their router, and Hugging Face's own modules as the truth."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from bridges import bridge, off, prompt
from language_models import make, pair, soft
from packaging.version import Version

import mmlens as mm
from mmlens import patching
from mmlens.families import toy
from mmlens.values.errors import AddressError, CapabilityError

KINDS = ("mixtral", "qwen3-moe", "olmoe", "gpt-oss", "deepseek-v3", "qwen2-moe")
LAYER, WORD, K = 1, 11, 2
every_mixture = pytest.mark.parametrize("kind", KINDS)
every_router = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            kind,
            marks=pytest.mark.skipif(
                kind == "deepseek-v3" and Version(transformers.__version__) < Version("5.24"),
                reason="older classes choose experts outside of their router",
            ),
        )
        for kind in KINDS
    ],
)


@cache
@torch.no_grad()
def truth(kind: str) -> dict[str, Any]:
    """The experts and router of one layer of Hugging Face's model, and what they read and gave."""
    hf, model = pair(kind)
    block = hf.model.layers[LAYER].mlp
    router = block.router if kind == "gpt-oss" else block.gate
    seen: dict[str, Any] = {"experts": block.experts, "router": router}
    handles = [
        router.register_forward_hook(lambda m, args, out: seen.update(routed=out)),
        block.experts.register_forward_hook(
            lambda m, args, out: seen.update(read=args[0], wrote=out)
        ),
    ]
    seen["logits"] = hf(inputs_embeds=soft(model).vectors, use_cache=False).logits
    for handle in handles:
        handle.remove()
    return seen


def units_of(kind: str, expert: int) -> torch.Tensor:
    """Units of an expert of `truth` for every token, written out: Float[token, unit]."""
    seen = truth(kind)
    m, x = seen["experts"], seen["read"]
    if kind == "gpt-oss":  # gates and values alternate, both are clamped (its model card)
        both = x @ m.gate_up_proj[expert] + m.gate_up_proj_bias[expert]
        gate, value = both[:, ::2].clamp(max=7.0), both[:, 1::2].clamp(-7.0, 7.0)
        return (value + 1) * gate * torch.sigmoid(1.702 * gate)
    gate, value = (x @ m.gate_up_proj[expert].T).chunk(2, -1)
    return torch.nn.functional.silu(gate) * value


def row_of(kind: str, expert: int, unit: int) -> torch.Tensor:
    weight = truth(kind)["experts"].down_proj[expert]
    return weight[unit] if kind == "gpt-oss" else weight[:, unit]


@every_router
@torch.no_grad()
def test_logits_are_those_of_the_class_with_its_experts_closed_and_open(kind):
    _, model = pair(kind)
    read, own = soft(model), truth(kind)["logits"]
    assert off(model(read), own) < 1e-5
    names = [name for name in model.hook_dict if "expert" in name or "router_logits" in name]
    seen: list[str] = []
    hooks = [(name, lambda x, hook: seen.append(hook.name)) for name in names]
    assert off(model.run_with_hooks(read, hooks), own) < 1e-5
    assert {"blocks.1.mlp.experts.hook_post", "blocks.1.mlp.hook_router_logits"} <= set(seen)


@every_router
@torch.no_grad()
def test_weights_and_units_are_those_of_the_class_and_0_where_a_token_is_not_routed(kind):
    _, model = pair(kind)
    seen, read = truth(kind), soft(model)
    logits, chosen_weights, chosen = seen["routed"]
    found = mm.activations(model, read, "router_logits", layer=LAYER)
    assert found.axes == ("pos", "expert") and off(found.values, logits) < 1e-5
    weights = mm.activations(model, read, "expert_weights", layer=LAYER)
    assert off(weights.values.gather(1, chosen), chosen_weights) < 1e-5
    routed = weights.values != 0
    assert torch.equal(routed.sum(1), torch.full((7,), K))
    units = mm.activations(model, read, "expert_neurons", layer=LAYER)
    assert units.axes == ("pos", "expert", "unit")
    for expert in range(4):
        own = units_of(kind, expert) * routed[:, [expert]]
        assert off(units.sel(expert=expert).values, own) < 1e-5


@every_mixture
def test_silencing_a_unit_of_an_expert_moves_the_logit_by_its_score(kind):
    _, model = pair(kind)
    read = soft(model)
    scores = mm.attribute(
        model, read, target=lambda logits: logits[WORD], site="expert_neurons", layer=LAYER
    )
    active = mm.activations(model, read, "expert_neurons", layer=[LAYER])
    assert scores.axes == ("layer", "pos", "expert", "unit")
    assert not bool(scores.values[active.values == 0].any())
    best = mm.top_neurons(scores, 3, pos=None)
    with torch.no_grad():
        for row in best.itertuples():
            less = mm.Edit("expert_neurons", lambda x: x * 0.98, row.neuron, pos=row.patch)
            change = (model(read) - model.edit(less)(read))[0, -1, WORD]
            assert float(change) / 0.02 == pytest.approx(row.score, rel=0.05, abs=1e-4)
    largest = mm.top_neurons(scores, 3, pos=None, rank_by="max")
    assert largest.iloc[0].neuron == best.iloc[0].neuron
    assert largest.iloc[0].patch == best.iloc[0].patch


@every_mixture
@torch.no_grad()
def test_a_unit_decodes_through_its_own_experts_output_weights(kind):
    hf, model = pair(kind)
    neurons = [mm.Neuron(LAYER, 7, expert=expert) for expert in (0, 2)]
    said = mm.decode(model, neurons, 5)
    for neuron, words in zip(said.neuron, said.words, strict=True):
        row = row_of(kind, neuron.expert, 7)
        assert off(patching.written_by(model, neuron).values, row) < 1e-6
        raised = (hf.get_output_embeddings().weight @ row).argsort(descending=True)
        assert words == [str(i) for i in raised[:5].tolist()]
    read = soft(model)
    weights = mm.activations(model, read, "expert_weights", layer=LAYER)
    expert = int(weights.values[5].argmax())
    more = mm.Edit("expert_neurons", 1.0, mm.Neuron(LAYER, 7, expert=expert), pos=[5], add=True)
    after, before = (
        mm.activations(one, read, "resid_post", layer=LAYER).values
        for one in (model.edit(more), model)
    )
    moved = float(weights.values[5, expert]) * row_of(kind, expert, 7)
    assert off((after - before)[5], moved) < 1e-5
    assert float((after - before)[:5].abs().max()) == 0.0


@every_mixture
@torch.no_grad()
def test_a_knocked_out_expert_is_one_whose_output_weights_are_0(kind):
    hf, model = pair(kind)
    read, metric = soft(model), lambda logits: logits[WORD]
    found = patching.ablate(model, read, metric, "expert_weights", by=("layer", "expert"))
    assert found.axes == ("layer", "expert")
    for expert in range(4):
        maimed = copy.deepcopy(hf)
        experts = maimed.model.layers[LAYER].mlp.experts
        experts.down_proj[expert] = 0.0
        if kind == "gpt-oss":
            experts.down_proj_bias[expert] = 0.0
        own = maimed(inputs_embeds=read.vectors, use_cache=False).logits
        out = model.edit(mm.Edit("expert_weights", 0.0, layer=LAYER, expert=expert))
        assert off(out(read), own) < 1e-5
        score = float(found.sel(layer=LAYER, expert=expert).values)
        assert score == pytest.approx(float(own[0, -1, WORD]), abs=1e-4)


@every_router
@torch.no_grad()
def test_written_logits_are_chosen_from_by_the_classs_own_rule(kind):
    _, model = pair(kind)
    read = soft(model)
    plain = mm.activations(model, read, "expert_weights", layer=LAYER).values
    expert = int((plain != 0).sum(0).argmax())
    never = model.edit(mm.Edit("router_logits", -50.0, layer=LAYER, expert=expert))
    weights = mm.activations(never, read, "expert_weights", layer=LAYER).values
    if kind != "deepseek-v3":  # it chooses a group of experts first, which may have no other
        assert not bool(weights[:, expert].any())
        assert torch.equal((weights != 0).sum(1), torch.full((7,), K))
    if kind in ("mixtral", "gpt-oss"):  # of k logits the softmax
        assert torch.allclose(weights.sum(1), torch.ones(7), atol=1e-5)
    assert off(never(read), model(read)) > 1e-4
    logits = mm.activations(model, read, "router_logits", layer=LAYER)
    same = model.edit(mm.Edit("router_logits", logits, layer=LAYER))
    assert off(same(read), model(read)) < 1e-6


@every_mixture
@torch.no_grad()
def test_an_expert_that_is_given_a_weight_runs(kind):
    _, model = pair(kind)
    read, seen = soft(model), truth(kind)
    even = model.edit(mm.Edit("expert_weights", 0.25, layer=LAYER))
    chosen = torch.arange(4).expand(7, -1)
    whole = seen["experts"](seen["read"], chosen, torch.full((7, 4), 0.25))
    after, before = (
        mm.activations(one, read, "mlp_out", layer=LAYER).values for one in (even, model)
    )
    assert off(after - before, whole - seen["wrote"]) < 1e-5


@every_mixture
@torch.no_grad()
def test_edits_of_experts_hold_in_batches_and_with_a_cache(kind):
    _, model = pair(kind)
    edits = [
        mm.Edit("expert_weights", 0.0, layer=LAYER, expert=1),
        mm.Edit("expert_neurons", 0.5, [mm.Neuron(1, 3, expert=0), mm.Neuron(1, 9, expert=2)]),
    ]
    edited = model.edit(*edits)
    ids = torch.tensor([[5, 9, 3, 11, 7, 2]])
    options = {"stop_at_eos": False, "return_type": "tokens", "verbose": False}
    said = [
        edited.generate(ids, 6, use_past_kv_cache=cached, **options) for cached in (True, False)
    ]
    assert torch.equal(*said)
    both = torch.cat([ids, ids.flip(1)])
    assert off(edited(both)[1], edited(ids.flip(1))[0]) < 1e-5


@torch.no_grad()
def test_a_list_of_units_silences_each_in_its_own_expert():
    _, model = pair("mixtral")
    listed = [mm.Neuron(0, 3, expert=0), mm.Neuron(1, 3, expert=2), mm.Neuron(1, 5, expert=1)]
    off_ = mm.activations(
        model.edit(mm.Edit("expert_neurons", 9.0, listed)), soft(model), "expert_neurons"
    )
    at = off_.values[1] == 9.0
    assert {tuple(place) for place in at.nonzero()[:, 1:].tolist()} == {(2, 3), (1, 5)}
    assert at.all(0).sum() == 2


@every_mixture
def test_shares_of_experts_are_what_each_writes_into_the_logit(kind):
    _, model = pair(kind)
    read, seen = soft(model), truth(kind)
    shares = patching.direct_logits(model, read, WORD, by="expert", pos=5)
    assert shares.axes == ("layer", "expert") and shares.of("layer")[-1] == LAYER
    parts = patching.direct_logits(model, read, WORD, pos=5)
    weights = mm.activations(model, read, "expert_weights", layer=LAYER).values[5]
    assert torch.equal(shares.sel(layer=LAYER).values != 0, weights != 0)
    if kind not in ("deepseek-v3", "qwen2-moe"):  # whose MLP has an expert of all tokens as well
        whole = float(parts.sel(part=f"mlp {LAYER}").values)
        assert float(shares.sel(layer=LAYER).values.sum()) == pytest.approx(whole, abs=1e-4)
    final = mm.activations(model, read, "resid_post", layer=LAYER).values[5]
    with torch.no_grad():
        wrote = seen["wrote"].view(7, -1)[5]
        scale = final.pow(2).mean().add(1e-6).sqrt()
        gain, _ = model.lm.final_gain
        truly = float(wrote / scale * gain @ model.W_U[:, WORD])
    assert float(shares.sel(layer=LAYER).values.sum()) == pytest.approx(truly, rel=1e-2, abs=1e-4)


def test_single_units_of_experts_are_patched_and_ablated():
    _, model = pair("mixtral")
    read, metric = soft(model), lambda logits: logits[WORD]
    active = mm.activations(model, read, "expert_neurons", layer=LAYER)
    best = active.values[-1].abs().flatten().topk(3).indices.tolist()
    units = [mm.Neuron(LAYER, at % active.shape[2], expert=at // active.shape[2]) for at in best]
    found = patching.ablate(model, read, metric, "expert_neurons", units=units)
    assert found.axes == ("neuron",) and found.of("neuron") == tuple(units)
    for unit in units:
        with torch.no_grad():
            own = float(model.edit(mm.Edit("expert_neurons", 0.0, unit))(read)[0, -1, WORD])
        assert float(found.sel(neuron=unit).values) == pytest.approx(own, abs=1e-5)
    other = model.embed(torch.tensor([[5, 9, 3, 11, 7, 2]]))
    pair_of = patching.Pair(model.embed(torch.tensor([[4, 9, 3, 11, 7, 2]])), other)
    moved = patching.patch(model, pair_of, metric, "expert_neurons", units=units[:1], pos=-1)
    clean = mm.activations(model, pair_of.clean, "expert_neurons", units[0], pos=-1).values
    edit = mm.Edit("expert_neurons", float(clean), units[0], pos=-1)
    with torch.no_grad():
        truly = float(model.edit(edit)(other)[0, -1, WORD])
    assert float(moved.values[0]) == pytest.approx(truly, abs=1e-5)
    with pytest.raises(AddressError, match="names no expert"):
        patching.ablate(model, read, metric, "expert_neurons", units=[mm.Neuron(LAYER, 3)])
    wrong = mm.Neuron(LAYER, 3, expert=4)
    with pytest.raises(AddressError, match="up to L1.e3.47"):
        patching.ablate(model, read, metric, "expert_neurons", units=[wrong])


def test_a_layer_that_stays_closed_says_why_and_a_mistake_of_ours_is_raised(monkeypatch):
    from mmlens.towers.language import mixture
    from mmlens.towers.language.language_model import wrap_lm
    from mmlens.values.errors import MMLensError

    hf = make("mixtral")

    def wrong(self, hidden, expert):
        raise AttributeError("no such part")

    monkeypatch.setattr(mixture.Mixture, "_units", wrong)
    lm = wrap_lm(hf)
    assert not lm.mixtures and set(lm.closed) == {0, 1}
    assert lm.units.layers[0].reason.endswith(
        "(opened, its experts give other values: no such part)"
    )

    def ours(self, hidden, expert):
        raise MMLensError("a mistake")

    monkeypatch.setattr(mixture.Mixture, "_units", ours)
    with pytest.raises(MMLensError, match="a mistake"):
        wrap_lm(hf)


def test_a_units_own_activation_is_explained():
    _, model = pair("mixtral")
    active = mm.activations(model, soft(model), "expert_neurons", layer=1)
    place = active.argmax()
    neuron = mm.Neuron(1, place["unit"], expert=place["expert"])
    scores = mm.attribute(model, soft(model), neuron, target="sum", site="resid_post", layer=[0])
    with torch.no_grad():
        less = model.edit(mm.Edit("resid_post", lambda x: x * 0.99, layer=0, pos=[5]))
        now = mm.activations(less, soft(model), "expert_neurons", neuron).values.sum()
        change = float(active.sel(expert=neuron.expert, unit=neuron.unit).values.sum() - now)
    # a norm reads the stream, so its length moves little: what is left is small and must agree
    assert change / 0.01 == pytest.approx(float(scores.sel(pos=5).values.sum()), abs=5e-2)


def test_units_of_experts_print_parse_sort_and_are_refused_where_there_are_none():
    neuron = mm.Neuron(14, 2019, expert=3)
    assert str(neuron) == "L14.e3.2019" and mm.Neuron.parse("L14.e3.2019") == neuron
    assert mm.Neuron.parse("vision.L3.17") == mm.Neuron(3, 17, "vision")
    assert sorted([neuron, mm.Neuron(14, 2019, expert=1)])[0].expert == 1
    _, model = pair("deepseek-v3")
    with pytest.raises(AddressError, match=r"names no expert, .* write Neuron\(1, 3, expert=0\)"):
        mm.Edit("expert_neurons", 0.0, mm.Neuron(1, 3))
    with pytest.raises(AddressError, match="no axis 'expert'"):
        mm.Edit("neurons", 0.0, mm.Neuron(1, 3, expert=0))
    with pytest.raises(AddressError, match="4 experts of 24 units, up to L1.e3.23"):
        mm.decode(model, mm.Neuron(1, 3, expert=4))
    with pytest.raises(CapabilityError, match="Layer 0 .* no experts whose units are read"):
        mm.decode(model, mm.Neuron(0, 3, expert=0))
    with pytest.raises(AddressError, match="There is no unit 24"):
        model.edit(mm.Edit("expert_neurons", 0.0, layer=1, expert=0, unit=24))
    with pytest.raises(AddressError):
        model.edit(mm.Edit("expert_neurons", 0.0, layer=0))
    with pytest.raises(CapabilityError, match=r"mixture of 4 experts. .*Neuron\(0, 5, expert=0\)"):
        mm.attribute(pair("mixtral")[1], soft(pair("mixtral")[1]), target=lambda x: x[3])
    with pytest.raises(CapabilityError, match="experts beside a shared one, whose units have no"):
        mm.attribute(model, soft(model), target=lambda x: x[3], layer=1)
    table = model.sites.set_index("site")
    assert table.loc["expert_neurons", "layers"] == (1,)
    assert "expert_neurons" not in set(mm.load("toy-gpt2").sites["site"])


@torch.no_grad()
def test_a_mixture_reads_pictures_as_the_language_model_of_a_bridge():
    from mmlens.families.parts import from_parts

    eye = bridge("toy-gpt2").vision
    hf = make("mixtral", vocab_size=len(toy.tokenizer()) + 1)
    model = from_parts(eye, torch.nn.Linear(16, 32), hf, toy.tokenizer())
    weights = mm.activations(model, prompt(), "expert_weights", layer=1, pos=mm.Patch)
    assert weights.shape == (16, 4) and torch.allclose(weights.values.sum(1), torch.ones(16))
    scores = mm.attribute(model, prompt(), " dog", after="", site="expert_neurons")
    best = mm.top_neurons(scores, 5)
    assert all(isinstance(place, mm.Patch) for place in best.patch)
    out = model.edit(mm.Edit("expert_weights", 0.0, expert=best.iloc[0].neuron.expert))
    assert torch.equal(copy.deepcopy(model)(prompt()), model(prompt()))
    assert off(copy.deepcopy(out)(prompt()), model(prompt())) > 1e-4
    assert model.generate(prompt(), 4) == model.generate(prompt(), 4, use_past_kv_cache=False)
