"""The grid of patched runs, on every class of language model: exact ends, and the plain loop."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from bridges import KINDS, bridge, off, prompt

import mmlens as mm
from mmlens import patching
from mmlens.causal import measures, prefix_reuse
from mmlens.families.parts import from_parts
from mmlens.runtime.run import current
from mmlens.values.errors import (
    AddressError,
    NumericsError,
    PictureError,
    PromptError,
    SiteError,
    TargetError,
)

every_family = pytest.mark.parametrize("kind", KINDS)
CLEAN, CORRUPT = prompt((2, 1)), prompt((0, 3))
PAIR = patching.Pair(CLEAN, CORRUPT)
PLAIN = ("embed", "resid_pre", "resid_post", "attn_out", "mlp_out", "neurons", "q", "k", "v", "z")
WHOLE = ("resid_pre", "resid_post", "vision.resid_pre", "vision.resid_post")  # each layer is all
AT_ONCE = ("embed", "soft_prompt", "features", "pixels", "final")


def to_cat(model: Any) -> Any:
    """A metric: how much more " dog" than " cat"."""
    return measures.logit_difference(model, " dog", " cat")


def far_from(logits: torch.Tensor) -> Any:
    """A metric: the largest difference to these logits."""
    return lambda row: (row - logits).abs().max()


@every_family
@torch.no_grad()
def test_patching_everything_gives_the_clean_logits_and_nothing_the_corrupt_ones(kind):
    model = bridge(f"toy-{kind}")
    clean, corrupt = (far_from(model(p)[0, -1]) for p in (CLEAN, CORRUPT))
    for site in (*WHOLE, *AT_ONCE):
        by = "layer" if site in WHOLE else ()
        whole = patching.patch(model, PAIR, clean, site, by=by)
        assert float(whole.max().values) < 1e-5, site
    for site in ("resid_pre", "vision.resid_post"):
        back = patching.patch(model, PAIR, corrupt, site, by="layer", direction="noise")
        assert float(back.max().values) < 1e-5, site
    for site in (*PLAIN, "vision.neurons", "vision.z", "features"):
        none = patching.patch(model, PAIR, corrupt, site, by=(), pos={"none": []})
        assert float(none.values.max()) < 1e-5, site
    acts = [mm.Edit(s, mm.activations(model, CLEAN, s)) for s in ("embed", "z", "neurons")]
    assert off(model.edit(*acts)(CORRUPT)[:, -1], model(CLEAN)[:, -1]) < 1e-5


@every_family
@torch.no_grad()
def test_the_grid_is_the_plain_loop_of_edits(kind):
    model = bridge(f"toy-{kind}")
    assert (
        prefix_reuse.measured(model) == prefix_reuse.BOTH
    )  # else this would compare a loop with a loop
    _same_as_loop(model, PLAIN, 2)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2", "gptj", "llama"])
def test_the_bench_works_on_a_model_that_is_already_edited(kind):
    plain = bridge(f"toy-{kind}")
    edits = [
        mm.Edit("neurons", 0.0, layer=1, pos=mm.Patch),
        mm.Edit.steer("resid_post", torch.ones(32), layer=0, scale=0.3),
        mm.Edit("vision.mlp_out", 0.5, layer=1),
    ]
    model = plain.edit(*edits)
    assert prefix_reuse.allowed(model) == prefix_reuse.BOTH
    assert off(model(CLEAN), plain(CLEAN)) > 1e-3
    _same_as_loop(model, ("resid_pre", "resid_post", "mlp_out", "z", "vision.resid_post"), 2)
    odd = plain.edit(mm.Edit("mlp_out", lambda x: x - x.mean(0, keepdim=True), layer=1))
    assert prefix_reuse.allowed(odd) == prefix_reuse.LAYERS
    _same_as_loop(odd, ("resid_pre", "z"), 2)
    hooked = plain.edit()
    hooked.add_hook("blocks.1.hook_mlp_out", lambda x, hook: x * 2)
    assert prefix_reuse.allowed(hooked) == prefix_reuse.NOTHING
    _same_as_loop(hooked, ("resid_pre", "z"), 2)
    cut = plain.edit(patching.knockout(mm.Patch, -1, layer=1))
    _same_as_loop(cut, ("resid_pre", "v"), 2)


def _same_as_loop(model: Any, sites: tuple[str, ...], samples: int) -> None:
    """Compare `patch` with single edits at some places drawn at random."""
    metric, draw = to_cat(model), random.Random(0)
    for site in sites:
        grid = patching.patch(model, PAIR, metric, site)
        for _ in range(samples):
            at = {axis: draw.randrange(len(grid.of(axis))) for axis in grid.axes}
            layer = {"layer": at["layer"]} if "layer" in at else {}
            source = mm.activations(model, CLEAN, site, **layer)
            source = source.sel(**{axis: [i] for axis, i in at.items() if axis != "layer"})
            looped = metric(model.edit(mm.Edit(site, source, **layer))(CORRUPT)[0, -1])
            assert abs(float(looped) - float(grid.values[tuple(at.values())])) < 1e-5, (site, at)


@torch.no_grad()
def test_transformer_lens_own_patching_agrees():
    from transformer_lens import patching as theirs

    for kind in ("gpt2", "gptj", "llama"):
        model = bridge(f"toy-{kind}-planted")
        metric = to_cat(model)
        tokens, (_, cache) = model.to_tokens(CORRUPT), model.run_with_cache(CLEAN)
        last = lambda logits, metric=metric: metric(logits[0, -1])  # noqa: E731
        grid = theirs.get_act_patch_resid_pre(model, tokens, cache, last)
        assert off(grid, patching.patch(model, PAIR, metric).values) < 1e-4
        grid = theirs.get_act_patch_attn_head_out_all_pos(model, tokens, cache, last)
        assert off(grid, patching.patch(model, PAIR, metric, "z").values) < 1e-4


@torch.no_grad()
def test_the_planted_neuron_and_its_patch_are_found():
    model = bridge("toy-gptj-planted")
    metric = measures.probability(model, " dog")
    pair = patching.Pair.corrupted(
        CLEAN, patching.only_at(model, patching.grey(20), [mm.Patch(2, 1)])
    )
    grid = patching.recovered(patching.patch(model, pair, metric, layer=[0, 1]))
    best = grid.to_frame(1).iloc[0]
    assert best.pos == mm.Patch(2, 1)
    assert best.score == pytest.approx(1.0, abs=0.2)
    some = [mm.Neuron(1, 5), mm.Neuron(1, 6), mm.Neuron(0, 5)]
    units = patching.recovered(patching.patch(model, pair, metric, "neurons", some))
    assert units.axes == ("neuron",)
    assert units.to_frame(1).neuron[0] == mm.Neuron(1, 5)
    each = patching.patch(model, pair, metric, "neurons", by=("layer", "unit"), unit=[5, 6])
    assert each.shape == (3, 2)
    assert float(each.values[1, 0]) == pytest.approx(
        float(patching.patch(model, pair, metric, "neurons", some[:1]).values[0]), abs=1e-6
    )


@torch.no_grad()
def test_named_sets_of_positions_are_patched_together():
    model = bridge("toy-gpt2")
    metric, patches = to_cat(model), [mm.Patch(2, 1), mm.Patch(0, 3)]
    sets = {"two": patches, "image": mm.Patch, "text": mm.Token, "last": -1}
    grid = patching.patch(model, PAIR, metric, pos=sets, layer={"early": [0, 1], "late": [2]})
    assert grid.labels == {"layer": ("early", "late"), "pos": tuple(sets)}
    clean = mm.activations(model, CLEAN, "resid_pre")
    edit = mm.Edit("resid_pre", clean.sel(layer=[0, 1], pos=patches))
    looped = metric(model.edit(edit)(CORRUPT)[0, -1])
    assert float(grid.values[0, 0]) == pytest.approx(float(looped), abs=1e-5)
    assert float(grid.sel(layer="early", pos="image").item()) == pytest.approx(
        grid.about["clean"], abs=1e-5
    )


@torch.no_grad()
def test_two_pictures_are_patched_each_at_its_own_patches():
    model = bridge("toy-llama")
    both = lambda a, b: mm.Prompt(*prompt(a).pictures, " and", *prompt(b).pictures, " of")  # noqa: E731
    pair = patching.Pair(both((2, 1), (1, 1)), both((2, 1), (0, 0)))
    metric = to_cat(model)
    second = [mm.Patch(r, c, 1) for r in range(4) for c in range(4)]
    sets = {"first": [mm.Patch(r, c, 0) for r in range(4) for c in range(4)], "second": second}
    for site in ("soft_prompt", "features", "pixels", "vision.resid_post"):
        grid = patching.patch(model, pair, metric, site, by=(), pos=sets)
        assert float(grid.values[0]) == pytest.approx(grid.about["corrupt"], abs=1e-5)
        if site != "vision.resid_post":  # [CLS] of the second picture is in neither set
            assert float(grid.values[1]) == pytest.approx(grid.about["clean"], abs=1e-5)


@torch.no_grad()
def test_positions_of_a_shortened_pass_are_those_of_the_prompt():
    model = bridge("toy-gptj")
    kept = prefix_reuse.keep(model, CORRUPT)
    seen = []

    def look(x, hook):
        run = current()
        seen.append((x.shape[1], run.start if run is not None else None))

    prefix_reuse.go_on(model, kept, 2, [("blocks.2.hook_resid_post", look)], 1, 11)
    assert seen == [(8, 11)]
    assert off(model(CORRUPT)[0, -1], kept.logits) < 1e-5  # nothing is left behind


@torch.no_grad()
def test_corrupters_change_the_picture_as_they_say():
    model, picture = bridge("toy-gpt2"), CLEAN.pictures[0]
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[16:24, 8:16] = True
    assert patching.patches_under(model, mask, picture) == [mm.Patch(2, 1)]
    made = {
        "another": patching.another(CORRUPT.pictures[0]),
        "mean": patching.mean_picture([*CLEAN.pictures, *CORRUPT.pictures]),
        "grey": patching.grey(),
        "blur": patching.blur(3.0),
        "noise": patching.pixel_noise(0.2),
        "erased": patching.erased(mask),
        "shuffled": patching.shuffled(model),
        "only": patching.only_at(model, patching.grey(20), [mm.Patch(2, 1)]),
    }
    as_tensor = lambda image: model.vision.preprocess(image)  # noqa: E731
    for name, corrupter in made.items():
        changed = corrupter(picture)
        assert changed.size == picture.size, name
        assert off(as_tensor(changed), as_tensor(picture)) > 0.01, name
        assert off(as_tensor(corrupter(picture)), as_tensor(changed)) == 0.0, name  # seeded
    rest = ~mask
    for name in ("erased", "only"):
        moved = (as_tensor(made[name](picture)) - as_tensor(picture)).abs()
        assert float(moved[:, rest].max()) == 0.0, name
    white = lambda image: sorted(map(tuple, np.asarray(image).reshape(-1, 3).tolist()))  # noqa: E731
    assert white(made["shuffled"](picture)) == white(picture)
    others = patching.other_patches(model.embed(CLEAN).labels[0], [mm.Patch(2, 1)], seed=1)
    assert len(others) == 1 and others != [mm.Patch(2, 1)]
    noised = patching.soft_noise(model, CLEAN, 0.5)
    moved = (noised.vectors - model.embed(CLEAN).vectors).abs().sum(-1)[0]
    assert float(moved[:16].min()) > 0 and float(moved[16:].max()) == 0
    pair = patching.Pair(CLEAN, noised)
    whole = patching.patch(model, pair, to_cat(model), "soft_prompt", by=())
    assert float(whole.values) == pytest.approx(whole.about["clean"], abs=1e-5)


@torch.no_grad()
def test_metrics_agree_with_their_definitions():
    model = bridge("toy-gpt2")
    logits, dog = model(CLEAN)[0, -1], model.to_single_token(" dog")
    p = logits.softmax(-1)
    assert float(measures.probability(model, " dog")(logits)) == pytest.approx(float(p[dog]))
    assert float(measures.log_probability(model, dog)(logits)) == pytest.approx(float(p[dog].log()))
    assert float(measures.rank(model, " dog")(logits)) == int((p > p[dog]).sum())
    assert float(measures.kl(model, CLEAN)(logits)) == pytest.approx(0.0, abs=1e-6)
    other = model(CORRUPT)[0, -1].softmax(-1)
    wanted = float((p * (p / other).log()).sum())
    assert float(measures.kl(model, CLEAN)(other.log())) == pytest.approx(wanted, abs=1e-6)
    batch = model([CLEAN, CORRUPT])[:, -1]
    assert measures.logit(model, dog)(batch).shape == (2,)


@torch.no_grad()
def test_how_it_was_computed_is_told():
    model = bridge("toy-gpt2")
    steps: list[tuple[int, int]] = []
    grid = patching.patch(
        model, PAIR, to_cat(model), batch=5, progress=lambda done, of: steps.append((done, of))
    )
    assert grid.about["rows"] == 5 and grid.about["reuse"] == "layers and positions"
    assert steps[-1] == (57, 57) and steps == sorted(steps)
    whole = patching.patch(model, PAIR, to_cat(model))
    assert off(grid.values, whole.values) < 1e-5
    assert {"clean", "corrupt", "direction", "site", "model"} <= set(whole.about)


@pytest.mark.parametrize(
    "ask, error, sentence",
    [
        (lambda m: patching.Pair(CLEAN, "A picture of").read(m), PromptError, "19 positions"),
        (
            lambda m: patching.Pair.corrupted(mm.Prompt("words"), patching.grey()),
            PromptError,
            "no picture to corrupt",
        ),
        (lambda m: patching.soft_noise(m, "words"), PromptError, "no picture whose vectors"),
        (lambda m: patching.patch(m, PAIR, to_cat(m), "pattern"), SiteError, "patching.knockout"),
        (lambda m: patching.patch(m, PAIR, to_cat(m), by="head"), AddressError, "no axis 'head'"),
        (
            lambda m: patching.patch(m, PAIR, to_cat(m), direction="up"),
            AddressError,
            "'denoise' or 'noise'",
        ),
        (lambda m: patching.patch(m, PAIR, to_cat(m), head=1), AddressError, "not 'head'"),
        (
            lambda m: patching.patch(m, PAIR, to_cat(m), "z", [mm.Neuron(0, 1)]),
            AddressError,
            "Heads at 'z'",
        ),
        (
            lambda m: patching.patch(m, PAIR, to_cat(m), "neurons", [mm.Neuron(9, 1)]),
            AddressError,
            "no layer 9",
        ),
        (lambda m: patching.patch(m, PAIR, lambda x: x[0, -1, 3]), TargetError, "last position"),
        (lambda m: patching.patch(m, PAIR, lambda x: x), TargetError, "reduce them to"),
        (
            lambda m: patching.patch(m, patching.Pair("a dog", "a cat"), to_cat(m), "pixels"),
            PromptError,
            "in pictures",
        ),
        (
            lambda m: patching.recovered(patching.patch(m, PAIR, lambda x: 1.0)),
            NumericsError,
            "no effect to scale",
        ),
        (
            lambda m: patching.recovered(mm.activations(m, CLEAN, "embed")),
            AddressError,
            "only scores of a pair",
        ),
        (
            lambda m: patching.patches_under(m, torch.ones(3, 3), CLEAN.pictures[0]),
            PictureError,
            "does not fit",
        ),
        (
            lambda m: patching.erased(torch.ones(3, 3))(CLEAN.pictures[0]),
            PictureError,
            "does not fit",
        ),
        (lambda m: patching.mean_picture([]), PictureError, "at least one"),
        (
            lambda m: patching.only_at(m, patching.grey(), [mm.Patch(9, 0)])(CLEAN.pictures[0]),
            AddressError,
            "outside the grid",
        ),
        (
            lambda m: patching.other_patches([mm.Patch(0, 0)], [mm.Patch(0, 0)]),
            AddressError,
            "too few for a control",
        ),
    ],
)
def test_bad_patches_are_refused_in_one_sentence(ask, error, sentence):
    with pytest.raises(error, match=sentence):
        ask(bridge("toy-gpt2"))


@torch.no_grad()
def test_an_encoder_that_ends_early_has_the_sites_before_its_end():
    whole = bridge("toy-gptj")
    early = from_parts(whole.vision, None, whole.lm, feature_layer="blocks.1.mlp.hook_post")
    clean = far_from(early(CLEAN)[0, -1])
    for site, layers in (("vision.resid_pre", (0, 1)), ("vision.neurons", (1,))):
        grid = patching.patch(early, PAIR, clean, site, by="layer", layer=list(layers))
        assert float(grid.max().values) < 1e-5, site
    assert patching.patch(early, PAIR, clean, "vision.resid_post", by="layer").of("layer") == (0,)
    assert mm.activations(early, CLEAN, "vision.resid_post").of("layer") == (0,)
    silent = early.edit(mm.Edit("vision.resid_post", 0.0))  # wherever there is one
    assert off(silent(CLEAN), early(CLEAN)) > 1e-3
    with pytest.raises(AddressError):
        early.edit(mm.Edit("vision.resid_post", 0.0, layer=1))


def test_every_hook_of_an_encoder_that_ends_early_acts():
    whole = bridge("toy-gptj")
    early = from_parts(whole.vision, None, whole.lm, feature_layer="blocks.1.mlp.hook_post")
    table = mm.audit(early, CLEAN)
    seen = table[table["name"].str.startswith("vision.")]
    assert "vision.blocks.1.mlp.hook_post" in set(seen["name"])
    assert seen[["fires", "differentiable", "acts"]].all(axis=None)
