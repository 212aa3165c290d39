"""Attribution, routes, ablation, steering and paths: each checked by doing the intervention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bridges import KINDS, bridge, needs_edges, off, prompt

import mmlens as mm
from mmlens import patching
from mmlens.causal import measures
from mmlens.values.errors import AddressError, CapabilityError, NumericsError

every_family = pytest.mark.parametrize("kind", KINDS)
CLEAN, CORRUPT = prompt((2, 1)), prompt((0, 3))
PAIR = patching.Pair(CLEAN, CORRUPT)
OBJECT = [mm.Patch(2, 1), mm.Patch(2, 2)]
SOME = [mm.Neuron(i % 3, 3 * i) for i in range(8)]


def to_cat(model: Any) -> Any:
    """A metric: how much more " dog" than " cat"."""
    return measures.logit_difference(model, " dog", " cat")


# -- attribution patching ---------------------------------------------------------------------


@every_family
def test_integrated_attribution_adds_up_to_patching_the_whole_layer(kind):
    model = bridge(f"toy-{kind}")
    metric = to_cat(model)
    for site in ("attn_out", "z", "neurons", "vision.z"):
        guess = patching.attribution_patching(model, PAIR, metric, site, steps=24)
        true = patching.patch(model, PAIR, metric, site, by="layer")
        moved = true.values - true.about["corrupt"]
        rest = [axis for axis in guess.axes if axis != "layer"]
        # OPT's ReLU bends the way, and a quadrature sees corners only where it has nodes
        bar = 2e-2 if kind == "opt" else 1e-4
        assert off(guess.sum(*rest).values, moved) < bar, site


@every_family
def test_attribution_is_the_limit_of_small_patches(kind):
    """Between nearly equal prompts the first order is all there is."""
    model = bridge(f"toy-{kind}")
    metric = to_cat(model)
    near = patching.Pair(CLEAN, patching.soft_noise(model, CLEAN, 1e-3))
    for site in ("resid_pre", "mlp_out"):
        guess = patching.attribution_patching(model, near, metric, site)
        true = patching.patch(model, near, metric, site)
        moved = true.values - true.about["corrupt"]
        assert off(guess.values, moved) < 3e-6 + 0.05 * float(moved.abs().max()), site


def test_transformer_lens_own_attribution_agrees():
    tool = pytest.importorskip("transformer_lens.tools.analysis.attribution_patching")
    for kind in ("gpt2", "gptj", "llama"):
        model = bridge(f"toy-{kind}-planted")
        metric = to_cat(model)
        theirs = tool.attribution_patch(
            model,
            model.to_tokens(CLEAN),
            model.to_tokens(CORRUPT),
            lambda logits, metric=metric: metric(logits[0, -1]),
        ).node_scores
        ours = {
            "attn_head_out": patching.attribution_patching(model, PAIR, metric, "z"),
            "mlp_out": patching.attribution_patching(model, PAIR, metric, "mlp_out"),
        }
        for node, score in theirs.items():
            if node.kind in ours:
                at = (node.layer, node.position, node.head)
                mine = ours[node.kind].values[at if node.head is not None else at[:2]]
                assert float(mine) == pytest.approx(score, abs=1e-5)


def test_noising_is_attributed_on_the_clean_run():
    model = bridge("toy-llama")
    metric = to_cat(model)
    for direction in ("denoise", "noise"):
        guess = patching.attribution_patching(
            model, PAIR, metric, "mlp_out", steps=24, direction=direction
        )
        true = patching.patch(model, PAIR, metric, "mlp_out", by="layer", direction=direction)
        start = true.about["corrupt" if direction == "denoise" else "clean"]
        assert off(guess.sum("pos").values, true.values - start) < 1e-4


# -- direct logit attribution -----------------------------------------------------------------


@every_family
@torch.no_grad()
def test_direct_shares_add_up_to_the_logit(kind):
    model = bridge(f"toy-{kind}")
    parts = patching.direct_logits(model, CLEAN, " dog")
    logit = float(model(CLEAN)[0, -1, model.to_single_token(" dog")])
    assert parts.about["logit"] == pytest.approx(logit, abs=1e-4)
    assert parts.sum().item() + parts.about["bias"] == pytest.approx(logit, abs=1e-4)
    for by, part in (("head", "attn"), ("neuron", "mlp")):
        inside = patching.direct_logits(model, CLEAN, " dog", by=by).sel(layer=1).sum().item()
        block = model.root.blocks[1]
        bias = getattr(block.attn if by == "head" else block.mlp, f"b_{'O' if by == 'head' else 'out'}", None)  # noqa: E501  # fmt: skip
        whole = parts.sel(part=f"{part} 1").item()
        if bias is None:
            assert inside == pytest.approx(whole, abs=1e-4)
    difference = patching.direct_logits(model, CLEAN, " dog", minus=" cat").sum().item()
    cat = patching.direct_logits(model, CLEAN, " cat").sum().item()
    assert difference == pytest.approx(parts.sum().item() - cat, abs=1e-3)


@torch.no_grad()
def test_the_planted_neuron_writes_its_word_at_its_patch_and_heads_carry_it_on():
    model = bridge("toy-gptj-planted")
    at_patch = patching.direct_logits(model, CLEAN, " dog", by="neuron", pos=mm.Patch(2, 1))
    best = at_patch.to_frame(1).iloc[0]
    assert (best.layer, best.unit) == (1, 5)
    heads = patching.direct_logits(model, CLEAN, " dog", by="head")
    assert heads.to_frame(1).layer[0] == 2  # the layer after copies it to the last position


# -- routes -----------------------------------------------------------------------------------


@every_family
@torch.no_grad()
def test_a_knockout_equals_a_mask_made_by_hand(kind):
    model = bridge(f"toy-{kind}")
    cut = model.edit(patching.knockout(OBJECT, [-1, -2]))
    soft = model.embed(CLEAN)
    n, floor = soft.ids.shape[1], torch.finfo(torch.float32).min
    mask = torch.full((n, n), floor).triu(1)
    mask[-2:, [9, 10]] = floor
    hf = model.lm.hf
    hf.set_attn_implementation("eager")
    place = {"position_ids": torch.arange(n)[None]}
    by_hand = hf(inputs_embeds=soft.vectors, attention_mask=mask[None, None], **place).logits
    assert off(cut(CLEAN), by_hand) < 1e-5
    assert off(cut(CLEAN)[:, -2:], model(CLEAN)[:, -2:]) > 1e-4
    assert off(cut(CLEAN)[:, :-2], model(CLEAN)[:, :-2]) < 1e-5
    pattern = patching.attention(cut, CLEAN, query=-1, key=OBJECT)
    assert float(pattern.max().values) == 0.0
    assert float(patching.attention(model, CLEAN, query=-1, key=OBJECT).min().values) > 0.0
    one = model.edit(patching.knockout(OBJECT, -1, layer=1, head=2))
    cuts = patching.attention(one, CLEAN, query=-1, key=OBJECT).max("key").values == 0
    assert cuts.nonzero().tolist() == [[1, 2]]


@every_family
@torch.no_grad()
def test_a_position_never_stops_seeing_itself(kind):
    model = bridge(f"toy-{kind}").edit(patching.knockout(mm.Patch, mm.Patch))
    pattern = patching.attention(model, CLEAN, layer=0, query=mm.Patch, key=mm.Patch).values
    assert off(pattern, torch.eye(16).expand_as(pattern)) < 1e-6
    assert bool(torch.isfinite(model(CLEAN)).all())


@torch.no_grad()
def test_routes_are_cut_in_windows_of_layers():
    model = bridge("toy-gptj")
    metric = to_cat(model)
    routes = {"object": (OBJECT, -1), "image": (mm.Patch, -1), "within": (mm.Patch, mm.Patch)}
    table = patching.knockouts(model, CLEAN, metric, routes, window=2)
    assert table.axes == ("route", "layer") and table.shape == (3, 3)
    for middle, layers in ((0, [0, 1]), (1, [1, 2]), (2, [2])):
        edited = model.edit(patching.knockout(mm.Patch, -1, layers))
        wanted = float(metric(edited(CLEAN)[0, -1]))
        assert table.sel(route="image", layer=middle).item() == pytest.approx(wanted, abs=1e-5)
    every_second = patching.knockouts(model, CLEAN, metric, routes, window=2, stride=2)
    assert every_second.of("layer") == (0, 2)
    assert torch.equal(every_second.values, table.values[:, ::2])
    whole = patching.knockouts(model, CLEAN, metric, routes)
    assert whole.axes == ("route",)
    assert whole.about["clean"] == pytest.approx(float(metric(model(CLEAN)[0, -1])), abs=1e-5)


@torch.no_grad()
def test_one_pass_of_cuts_serves_several_metrics():
    model = bridge("toy-gptj")
    asks = {"cat": to_cat(model), "dog": measures.probability(model, " dog")}
    routes = {"object": (OBJECT, -1), "image": (mm.Patch, -1)}
    table = patching.knockouts(model, CLEAN, asks, routes, window=2)
    assert table.axes == ("metric", "route", "layer") and table.shape == (2, 2, 3)
    for name, metric in asks.items():
        alone = patching.knockouts(model, CLEAN, metric, routes, window=2)
        assert torch.equal(table.sel(metric=name).values, alone.values)
        assert table.about["clean"][name] == alone.about["clean"]


@torch.no_grad()
def test_the_planted_word_goes_through_its_route():
    model = bridge("toy-gptj-planted")
    metric = measures.probability(model, " dog")
    labels = model.embed(CLEAN).labels[0]
    dog = [mm.Patch(2, 1)]
    routes = {"dog": (dog, -1), "control": (patching.other_patches(labels, dog, 3), -1)}
    table = patching.knockouts(model, CLEAN, metric, routes, window=1)
    before = table.about["clean"]
    assert table.sel(route="dog", layer=2).item() < before / 2
    assert table.sel(route="control", layer=2).item() == pytest.approx(before, rel=0.2)


@torch.no_grad()
def test_captions_are_said_under_each_edit_and_searched_for_a_word():
    model = bridge("toy-gptj-planted")
    dog = [mm.Patch(2, 1)]
    cut = patching.knockout(dog, -1)
    edits = {"cut": cut, "twice": [cut, patching.knockout(mm.Patch, -1)]}
    table = patching.captions(model, CLEAN, edits, contains="Dog", max_new_tokens=4)
    assert list(table["edit"]) == ["(nothing)", "cut", "twice"]
    assert table["caption"][0] == model.generate(CLEAN, 4)
    assert table["caption"][1] == model.edit(cut).generate(CLEAN, 4)
    assert table["caption"][2] == model.edit(*edits["twice"]).generate(CLEAN, 4)
    assert list(table["contains"]) == [" dog" in said for said in table["caption"]]
    assert table["contains"][0]
    assert table.attrs["about"]["contains"] == "Dog"
    said = patching.captions(model, CLEAN, {}, contains="do", max_new_tokens=4)
    assert not said["contains"][0]  # a word is looked for as a whole


# -- ablation ---------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2", "opt", "qwen"])
def test_the_curve_is_made_of_edits(kind):
    model = bridge(f"toy-{kind}")
    metric = to_cat(model)
    curve = patching.ablation_curve(model, CLEAN, metric, SOME, k=(0, 2, 8), randoms=2)
    assert curve.of("arm") == ("ranked", "complement", "random 1", "random 2")
    at = lambda *edits: float(metric(model.edit(*edits)(CLEAN)[0, -1]))  # noqa: E731
    plain = float(metric(model(CLEAN)[0, -1]))
    for arm in ("ranked", "random 1"):
        assert curve.sel(arm=arm, k=0).item() == pytest.approx(plain, abs=1e-5)
    two = at(*(mm.Edit("neurons", 0.0, n) for n in SOME[:2]))
    assert curve.sel(arm="ranked", k=2).item() == pytest.approx(two, abs=1e-5)
    assert curve.sel(arm="complement", k=0).item() == pytest.approx(
        at(mm.Edit("neurons", 0.0)), abs=1e-5
    )
    again = patching.ablation_curve(model, CLEAN, metric, SOME, k=(0, 2, 8), randoms=2)
    assert off(again.values, curve.values) == 0.0
    heads = [mm.Head(1, 2), mm.Head(0, 1)]
    mean = patching.mean_over(model, [CLEAN, CORRUPT], "z")
    by_mean = patching.ablation_curve(model, CLEAN, metric, heads, k=(2,), value=mean, randoms=1)
    edits = [
        mm.Edit("z", mean.sel(layer=h.layer, head=h.head).values, h, pos=slice(None)) for h in heads
    ]
    assert by_mean.sel(arm="ranked", k=2).item() == pytest.approx(at(*edits), abs=1e-5)
    other = patching.ablate(model, CLEAN, metric, "neurons", CORRUPT, by="layer")
    swapped = patching.patch(model, PAIR, metric, "neurons", by="layer", direction="noise")
    assert off(other.values, swapped.values) < 1e-5


@torch.no_grad()
def test_tokens_and_the_planted_neuron_are_ablated_by_name():
    model = bridge("toy-gptj-planted")
    metric = measures.probability(model, " dog")
    gone = patching.ablate(model, CLEAN, metric, "neurons", 0.0, [mm.Neuron(1, 5), mm.Neuron(0, 5)])
    assert gone.values[0] < gone.about["clean"] / 2 < gone.values[1]
    mean = patching.mean_over(model, [CORRUPT], "resid_pre", mm.Patch)
    sets = {"dog": [mm.Patch(2, 1)], "other": [mm.Patch(0, 0)]}
    less = patching.ablate(model, CLEAN, metric, "resid_pre", mean, layer=0, by="pos", pos=sets)
    assert less.axes == ("pos",)
    assert less.values[0] < less.about["clean"] / 2 < less.values[1]
    tower = patching.mean_over(model, [CLEAN, CORRUPT], "vision.resid_post")
    assert tower.axes == ("layer", "dim")
    assert patching.ablate(model, CLEAN, metric, "vision.resid_post", tower).shape == (2, 17)


# -- steering ---------------------------------------------------------------------------------


@every_family
@torch.no_grad()
def test_cached_and_uncached_generation_agree_under_every_edit(kind):
    model = bridge(f"toy-{kind}")
    apart = patching.mean_difference(model, [CLEAN], [CORRUPT], layer=1)
    word = patching.word(model, " dog")
    edits = [
        patching.steer("resid_post", apart, layer=1, scale=5.0),
        patching.steer("resid_post", word, layer=2, scale=3.0, normalize=True),
        patching.steer("mlp_out", patching.written_by(model, SOME[1]), layer=1, pos=mm.Patch),
        patching.remove("resid_post", word, layer=[1, 2]),
        patching.remove("resid_post", apart, layer=1, pos=mm.Patch, positive=True),
        patching.knockout(mm.Patch, -1),
        patching.knockout(OBJECT, mm.Token, layer=1, head=[0, 3]),
        mm.Edit("resid_pre", mm.activations(model, CORRUPT, "resid_pre", layer=1), layer=1),
    ]
    for edit in (*edits, None):
        edited = model.edit(edit) if edit is not None else model.edit(*edits[:-1])
        assert edited.generate(CLEAN, 3) == edited.generate(CLEAN, 3, use_past_kv_cache=False), edit


@torch.no_grad()
def test_steering_adds_and_removal_takes_away():
    model = bridge("toy-gptj-planted")
    word = patching.word(model, " dog")
    dog = measures.logit(model, " dog")
    plain, moved = (
        m(CORRUPT)[0, -1]
        for m in (model, model.edit(patching.steer("resid_post", word, layer=2, scale=2.0)))
    )
    assert dog(moved) > dog(plain) + 0.5
    assert " dog" in model.generate(CLEAN, 1)
    without = model.edit(patching.remove("resid_post", word, layer=[1, 2]))
    assert " dog" not in without.generate(CLEAN, 2)
    left = mm.activations(without, CLEAN, "resid_post", layer=2).values @ word.values
    assert float(left.abs().max()) < 1e-4
    mirrored = model.edit(patching.remove("resid_post", word, layer=2, amount=2.0))
    before = mm.activations(model, CLEAN, "resid_post", layer=2).values @ word.values
    after = mm.activations(mirrored, CLEAN, "resid_post", layer=2).values @ word.values
    assert off(before, -after) < 1e-4
    half = model.edit(patching.remove("resid_post", word, layer=2, positive=True))
    after = mm.activations(half, CLEAN, "resid_post", layer=2).values @ word.values
    assert off(after, before.clamp(max=0)) < 1e-4


# -- paths ------------------------------------------------------------------------------------


@every_family
@torch.no_grad()
def test_the_direct_path_to_the_logits_is_the_sender_s_write_alone(kind):
    """All else frozen, the last residual moves by what the sender writes differently."""
    model = bridge(f"toy-{kind}")
    metric, sender = to_cat(model), mm.Head(1, 2)
    got = patching.path_patching(model, PAIR, metric, [sender])
    z = [mm.activations(model, p, "z", layer=1, head=2, pos=-1).values for p in (CLEAN, CORRUPT)]
    resid = mm.activations(model, CORRUPT, "resid_post", layer=2, pos=-1).values
    written = (z[0] - z[1]) @ model.root.blocks[1].attn.W_O[2]
    assert float(got.values[0]) == pytest.approx(
        float(metric(model.lm.logits_of(resid + written))), abs=1e-4
    )


@torch.no_grad()
def test_a_path_is_blocked_where_its_receiver_does_not_listen():
    model = bridge("toy-gptj-planted")
    metric = to_cat(model)
    paths = [
        patching.path_patching(model, PAIR, metric, [mm.Neuron(1, 5)], mm.Head(2, head), into)
        for head, into in ((0, "v"), (0, "q"), (1, "v"), (2, "v"), (3, "v"))
    ]
    moved = [abs(float(p.values[0]) - p.about["corrupt"]) for p in paths]
    heads = [moved[0], *moved[2:]]
    whole = patching.patch(model, PAIR, metric, "neurons", [mm.Neuron(1, 5)])
    assert max(heads) > 0.1 * abs(float(whole.values[0]) - whole.about["corrupt"])
    through = patching.path_patching(
        model, PAIR, metric, [mm.Head(0, 1)], mm.Neuron(2, 3), through="mlps"
    )
    assert through.axes == ("sender",)


def test_edges_are_transformer_lens_own_where_it_can():
    needs_edges()
    model = mm.load("toy-gpt2")
    table = patching.edge_attribution(model, PAIR, to_cat(model), 5)
    assert list(table.columns) == ["writer", "reader", "pos", "score"] and len(table) == 5
    assert not model.cfg.use_attn_result  # switched back
    with pytest.raises(CapabilityError, match="refuses: use_attn_result"):
        patching.edge_attribution(bridge("toy-gptj"), PAIR, to_cat(bridge("toy-gptj")))


@pytest.mark.parametrize(
    "ask, error, sentence",
    [
        (
            lambda m: patching.attribution_patching(m, PAIR, measures.rank(m, " dog")),
            NumericsError,
            "no gradient",
        ),
        (
            lambda m: patching.attribution_patching(m, PAIR, to_cat(m), steps=-1),
            AddressError,
            "steps=-1",
        ),
        (
            lambda m: patching.attribution_patching(m, PAIR, to_cat(m), "pixels"),
            mm.MMLensError,
            "no positions here",
        ),
        (lambda m: patching.direct_logits(m, CLEAN, " dog", by="unit"), AddressError, "'neuron'"),
        (
            lambda m: patching.direct_logits(m, CLEAN, " dog", pos=mm.Patch),
            AddressError,
            "one at a time",
        ),
        (
            lambda m: patching.knockouts(m, CLEAN, to_cat(m), {"back": (-1, mm.Patch)}),
            AddressError,
            "'back' has no edge",
        ),
        (
            lambda m: patching.knockouts(m, CLEAN, to_cat(m), {}),
            AddressError,
            "give a route and a metric",
        ),
        (
            lambda m: patching.knockouts(m, CLEAN, to_cat(m), {}, window=9),
            AddressError,
            "window of 9 layers",
        ),
        (
            lambda m: patching.captions(m, CLEAN, {}, contains=" "),
            mm.MMLensError,
            "contains='dog'",
        ),
        (
            lambda m: patching.ablation_curve(m, CLEAN, to_cat(m), SOME, k=(9,)),
            AddressError,
            "k=9",
        ),
        (
            lambda m: patching.ablation_curve(
                m, CLEAN, to_cat(m), [mm.Head(0, i) for i in range(3)], k=(3,)
            ),
            AddressError,
            "randoms=0",
        ),
        (
            lambda m: patching.ablate(m, CLEAN, to_cat(m), "neurons", mm.Prompt("a dog")),
            AddressError,
            "same layout",
        ),
        (
            lambda m: patching.ablate(
                m, CLEAN, to_cat(m), "z", patching.mean_over(m, [CLEAN], "neurons")
            ),
            AddressError,
            "is no mean at 'z'",
        ),
        (lambda m: patching.mean_over(m, []), AddressError, "at least one"),
        (lambda m: patching.mean_difference(m, [], [CLEAN], layer=0), AddressError, "both sides"),
        (
            lambda m: patching.mean_difference(m, [CLEAN], [CORRUPT], "z", layer=0),
            AddressError,
            "no single direction",
        ),
        (lambda m: patching.written_by(m, mm.Neuron(7, 0)), AddressError, "no neuron L7.0"),
        (
            lambda m: patching.steer("resid_post", torch.zeros(32), layer=0),
            NumericsError,
            "is no direction",
        ),
        (
            lambda m: patching.steer("resid_post", torch.ones(2, 32), layer=0),
            AddressError,
            "one axis",
        ),
        (
            lambda m: patching.path_patching(
                m, PAIR, to_cat(m), [mm.Head(2, 0)], mm.Head(1, 0), "v"
            ),
            AddressError,
            "does not come before",
        ),
        (
            lambda m: patching.path_patching(m, PAIR, to_cat(m), [], through="heads"),
            AddressError,
            "through='nothing'",
        ),
        (
            lambda m: patching.path_patching(
                m, PAIR, to_cat(m), [mm.Head(0, 0)], mm.Head(2, 0), "z"
            ),
            AddressError,
            "by 'q', 'k' or 'v'",
        ),
    ],
)
def test_bad_experiments_are_refused_in_one_sentence(ask, error, sentence):
    with pytest.raises(error, match=sentence):
        ask(bridge("toy-gpt2"))


@torch.no_grad()
def test_a_kernel_without_pattern_or_mask_says_so(monkeypatch):
    model = mm.load("toy-gptj")  # of its own: what is measured here is true of nothing else
    can = model.lm.can
    fewer = frozenset(name for name in can.fires if "pattern" not in name)
    monkeypatch.setitem(vars(model.lm), "can", type(can)(fewer, False, can.lens_error))
    with pytest.raises(CapabilityError, match="attn_implementation='eager'"):
        patching.attention(model, CLEAN)
    attn = model.root.blocks[0].attn
    handle = attn.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "attention_mask": None}), with_kwargs=True
    )
    try:
        with pytest.raises(CapabilityError, match="takes no additive mask"):
            model.edit(patching.knockout(mm.Patch, -1))(CLEAN)
    finally:
        handle.remove()


@torch.no_grad()
def test_the_method_in_the_docs_runs_and_says_what_the_bench_says():
    text = (Path(__file__).parent.parent / "docs" / "patching.md").read_text(encoding="utf-8")
    block = next(b for b in text.split("```python")[1:] if "def needed_until" in b).split("```")[0]
    assert len(block.strip().splitlines()) < 20
    known: dict[str, Any] = {"mm": mm, "torch": torch}
    exec(block, known)
    model = bridge("toy-gpt2")
    own = known["needed_until"](model, CLEAN, to_cat(model))
    ours = patching.ablate(model, CLEAN, to_cat(model), "resid_pre", 0.0, by="layer", pos=mm.Patch)
    assert own.axes == ours.axes == ("layer",)
    assert off(own.values, ours.values) < 1e-5


def test_every_call_in_the_docs_exists():
    text = (Path(__file__).parent.parent / "docs" / "patching.md").read_text(encoding="utf-8")
    called = {name for name in patching.__all__ if f"{name}(" in text}
    assert set(patching.__all__) - called <= {"metrics"}
