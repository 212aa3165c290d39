"""Diffusion models: their own loop hooked, read, explained and changed at every step."""

from __future__ import annotations

import copy
import sys
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("diffusers")

import diffusion_twins as twins
from dual_twins import hf_clip

import mmlens as mm
from mmlens import patching, view
from mmlens.methods.activations import activations_by_layer
from mmlens.methods.denoising_attribution import attribution_by_layer
from mmlens.values.errors import (
    AddressError,
    ArgumentError,
    CapabilityError,
    CheckpointError,
    PromptError,
    TargetError,
)
from mmlens.values.labels import Marker

NAMES = ("stable_diffusion", "stable_diffusion_xl", "pixart", "stable_audio")
P, STEPS, SEED = twins.PROMPT, 3, 3
every_pipeline = pytest.mark.parametrize("name", NAMES)


@cache
def pipe(name: str = "stable_diffusion") -> Any:
    made = getattr(twins, name)()
    made.set_progress_bar_config(disable=True)
    return made


@cache
def hooked(name: str = "stable_diffusion") -> Any:
    return mm.from_model(pipe(name)).sampling(steps=STEPS, seed=SEED)


@cache
def exact(name: str = "stable_diffusion") -> Any:
    """In float64: a difference of two whole loops is small beside what float32 rounds off."""
    own = getattr(twins, name).__wrapped__().to(torch.float64)  # one that no other test shares
    own.set_progress_bar_config(disable=True)
    return mm.from_model(own).sampling(steps=STEPS, seed=SEED)


def theirs(name: str, kind: str) -> Any:
    noise = torch.Generator().manual_seed(SEED)
    own = {"use_resolution_binning": False} if name == "pixart" else {}  # of its own sizes alone
    return pipe(name)(P, num_inference_steps=STEPS, generator=noise, output_type=kind, **own)[0]


def off(ours: torch.Tensor, other: torch.Tensor) -> float:
    ours, other = ours.detach(), other.detach()
    return float((ours - other).abs().max() / other.abs().max())


def corner(made: torch.Tensor) -> torch.Tensor:
    """A number of what a model makes: a region's mean."""
    return made[0, ..., :4].mean()


def number(model: Any, prompt: str = P) -> float:
    with torch.no_grad():
        return float(corner(model.run(prompt)[0].double()))


# -- the loop -------------------------------------------------------------------------------------


@every_pipeline
def test_the_hooked_loop_makes_what_the_pipeline_makes(name):
    model = hooked(name)
    with torch.no_grad():
        assert off(model.run(P), theirs(name, "latent")) <= 1e-5
        opened = [(point, lambda tensor, hook: tensor) for point in model.hook_dict]
        with model.hooks(opened):
            assert off(model.run(P), theirs(name, "latent")) <= 1e-5


@every_pipeline
def test_what_is_decoded_is_what_the_pipeline_decodes(name):
    made = hooked(name).generate(P)
    if name == "stable_audio":
        assert off(made, theirs(name, "pt")[0]) <= 1e-5
    else:
        assert made.tobytes() == theirs(name, "pil")[0].tobytes()


def test_the_callers_pipeline_is_left_as_it_is():
    hooked()
    own = pipe()
    assert "step" not in vars(own.scheduler) and "prepare_latents" not in vars(own)
    for module in own.unet.modules():
        assert "forward" not in vars(module) and not module._forward_pre_hooks
    assert all(weight.requires_grad for weight in own.unet.parameters())


def test_several_prompts_make_what_each_makes_alone():
    model = hooked()
    both = model.run([P, "the red ball"])
    assert off(both[1:], model.run("the red ball")) < 1e-4
    assert torch.equal(model.run([P, "the red ball"], at=torch.tensor([1])), both[1:])


def test_a_seed_is_a_picture_and_settings_stay_with_their_copy():
    model = hooked()
    assert off(model.sampling(seed=4).run(P), model.run(P)) > 1e-3
    assert off(model.sampling(negative="a cat").run(P), model.run(P)) > 1e-3
    assert model.sampling(steps=2).read(P).settings["steps"] == 2
    assert hooked().settings.steps == STEPS


def test_a_copy_of_the_model_makes_the_same():
    model = hooked()
    assert torch.equal(copy.deepcopy(model).run(P), model.run(P))
    half = mm.from_model(pipe(), dtype="bfloat16").sampling(steps=STEPS, seed=SEED)
    own = copy.deepcopy(pipe()).to(torch.bfloat16)
    own.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(SEED)
    made = own(P, num_inference_steps=STEPS, generator=noise, output_type="latent")[0]
    assert half.run(P).dtype == torch.bfloat16 and torch.equal(half.run(P), made)


# -- reading --------------------------------------------------------------------------------------


@every_pipeline
def test_every_step_is_read_with_its_labels(name):
    model = hooked(name)
    units = mm.activations(model, P, "denoiser.neurons", layer=0)
    assert units.axes == ("step", "pos", "unit") and units.of("step") == (0, 1, 2)
    latents = mm.activations(model, P, "denoiser.latents")
    assert latents.of("step") == (0, 1, 2, 3)  # what each step begins with, and what is left
    assert torch.equal(latents.sel(step=3).values, model.run(P)[0])
    words = mm.activations(model, P, "denoiser.prompt_embeds", step=0)
    assert [str(one) for one in words.of("pos")][:7] == ["<start>", *P.split(), "<end>"]
    assert mm.activations(model, P, "denoiser.neurons", layer=0, step=-1).axes == ("pos", "unit")


def test_a_unit_of_a_gated_mlp_is_the_product_that_w_out_reads():
    model, kept = hooked(), {}
    block = pipe().unet.get_submodule(model.denoiser.paths[1])

    def keep(module: Any, args: Any, out: Any) -> None:
        kept.setdefault("ff", []).append(out)

    handle = block.ff.register_forward_hook(keep)
    theirs("stable_diffusion", "latent")
    handle.remove()
    units = mm.activations(model, P, "denoiser.neurons", layer=1)
    out = torch.stack([one[1] for one in kept["ff"]])  # behind the negative prompt's
    ours = units.values @ model.denoiser.w_out(1) + block.ff.net[2].bias
    assert off(ours, out) < 1e-5


def test_the_negative_prompt_is_a_branch_of_its_own():
    model = hooked().sampling(negative="the red ball")
    read = {
        name: mm.activations(model, P, "denoiser.prompt_embeds", step=0, branch=name)
        for name in model.branches
    }
    assert "red" in [str(one) for one in read["negative"].of("pos")]
    assert off(read["negative"].values, read["prompt"].values) > 1e-3
    unguided = model.sampling(guidance=1.0)
    assert mm.activations(unguided, P, layer=0).shape == (STEPS, 64, 64)
    with pytest.raises(AddressError, match="reads no branch 'negative'"):
        mm.activations(unguided, P, layer=0, branch="negative")


def test_layers_of_different_grids_are_read_one_by_one():
    model = hooked()
    assert {at: one.shape for at, one in activations_by_layer(model, P).items()} == {
        at: (STEPS, *shape) for at, shape in enumerate([(64, 64), (16, 128), (64, 64), (64, 64)])
    }
    with pytest.raises(AddressError, match=r"layer=\[0, 2, 3\] or layer=\[1\]"):
        mm.activations(model, P)


def test_a_square_of_the_latents_is_where_its_label_says():
    model = hooked().sampling(size=(16, 32), guidance=1.0)
    plain = {at: mm.activations(model, P, "denoiser.resid_pre", layer=at, step=0) for at in (0, 1)}
    assert max(plain[0].of("pos")) == mm.Patch(7, 15) and max(plain[1].of("pos")) == mm.Patch(3, 7)
    other = model.edit(mm.Edit("denoiser.latents", 3.0, row=[2, 3], col=[10, 11], step=0))
    for at, square in ((0, {(2, 10), (2, 11), (3, 10), (3, 11)}), (1, {(1, 5)})):
        moved = mm.activations(other, P, "denoiser.resid_pre", layer=at, step=0).values
        change = (moved - plain[at].values).norm(dim=-1)
        where = plain[at].of("pos")[int(change.argmax())]
        assert (where.row, where.col) in square


def test_hooks_run_at_every_step_and_know_which_it_is():
    model, seen = hooked(), []
    out, cache = model.run_with_cache(P, "denoiser.blocks.1.mlp.hook_post")
    read = mm.activations(model, P, layer=1)
    assert torch.equal(cache["denoiser.blocks.1.mlp.hook_post"][:, 1], read.values)
    point = "denoiser.hook_noise"
    model.run_with_hooks(P, [(point, lambda tensor, hook: seen.append(hook.step))])
    assert seen == [0, 1, 2] and torch.equal(out, model.run(P))


def test_the_audit_finds_every_point_alive(monkeypatch):
    from mmlens.model import hooking

    model = hooked().sampling(steps=1)
    known = hooking.points(model)
    few = {name: known[name] for name in known if ".blocks." not in name or ".blocks.1." in name}
    monkeypatch.setattr(hooking, "points", lambda model: few)
    table = mm.audit(model).set_index("name")
    assert table.fires.all() and table.acts.all()
    assert table.differentiable.all()


# -- cross-attention ------------------------------------------------------------------------------


def by_hand(name: str) -> dict[int, list[torch.Tensor]]:
    """Per layer softmax(q k / sqrt d) of the prompt's branch at every step, from its weights."""
    found: dict[int, list[torch.Tensor]] = {}
    handles = []
    for layer, path in enumerate(hooked(name).denoiser.paths):

        def look(module: Any, args: Any, kwargs: Any, layer: int = layer) -> None:
            q = module.to_q(args[0])[1].unflatten(-1, (module.heads, -1)).transpose(0, 1)
            words = module.to_k(kwargs["encoder_hidden_states"])[1]
            k = words.unflatten(-1, (-1, q.shape[-1])).transpose(0, 1)
            k = k.repeat_interleave(len(q) // len(k), 0)
            k = k[:, :7] if name == "pixart" else k  # its padding is masked
            scores = torch.einsum("hqd,hkd->hqk", q, k) / q.shape[-1] ** 0.5
            found.setdefault(layer, []).append(scores.softmax(-1).detach())

        model = pipe(name).unet if hasattr(pipe(name), "unet") else pipe(name).transformer
        attn = model.get_submodule(path).attn2
        handles.append(attn.register_forward_pre_hook(look, with_kwargs=True))
    theirs(name, "latent")
    for handle in handles:
        handle.remove()
    return found


@every_pipeline
def test_attention_to_words_is_what_its_weights_give(name):
    hand = by_hand(name)
    for layer in (0, 1):
        ours = patching.attention(hooked(name), P, layer=layer, across=True)
        assert ours.axes == ("step", "head", "query", "key")
        assert off(ours.values, torch.stack(hand[layer])) < 1e-4
        assert torch.allclose(ours.sum("key").values, torch.ones(()), atol=1e-5)


def test_maps_are_the_mean_of_all_brought_to_the_largest_grid():
    hand = by_hand("stable_diffusion")
    pictures = []
    for layer, patterns in hand.items():
        side = 4 if layer == 1 else 8
        for pattern in patterns:
            grid = pattern.mT.unflatten(-1, (side, side))
            big = F.interpolate(grid, size=(8, 8), mode="bicubic").clamp(min=0)
            pictures += list(big if side == 4 else grid)
    maps, mean = mm.cross_attention_maps(hooked(), P), torch.stack(pictures).mean(0)
    assert maps.axes == ("key", "pos") and off(maps.values, mean.flatten(1)) < 1e-4
    steps = mm.cross_attention_maps(hooked(), P, by=("head", "step"), layer=[0, 2, 3])
    assert steps.axes == ("step", "head", "key", "pos")
    mean = torch.stack([torch.stack(hand[at]) for at in (0, 2, 3)]).mean(0)
    assert off(steps.values, mean.mT) < 1e-4
    with pytest.raises(ArgumentError, match="by='lyer': did you mean 'layer'"):
        mm.cross_attention_maps(hooked(), P, by="lyer")


def test_maps_and_scores_are_drawn_by_the_views_there_are(tmp_path):
    picture, maps = hooked().generate(P), mm.cross_attention_maps(hooked(), P)
    view.save(view.on_image(picture, maps.sel(key="dog")), tmp_path / "dog.svg")
    scores = mm.attribute(hooked(), P, target=corner, site="denoiser.prompt_embeds")
    view.save(view.show(scores.sum("dim")), tmp_path / "steps.svg")
    drawn = [(tmp_path / f"{name}.svg").read_text() for name in ("dog", "steps")]
    assert all("<svg" in one for one in drawn) and "dog" in drawn[1]


def test_a_knockout_takes_a_word_from_the_positions_and_steps_that_it_names():
    model = hooked()
    where = mm.Patch(2, 3)
    cut = patching.knockout("dog", where, layer=0, across=True, tower="denoiser", step=[1])
    before = patching.attention(model, P, layer=0, across=True)
    after = patching.attention(model.edit(cut), P, layer=0, across=True)
    assert torch.equal(after.sel(step=0).values, before.sel(step=0).values)
    assert float(before.sel(step=1, key="dog", query=where).values.min()) > 0
    assert float(after.sel(step=1, key="dog", query=where).abs().max().item()) == 0
    there = [other for other in after.of("query") if other != where]
    assert float(after.sel(step=1, key="dog", query=there).values.min()) > 0
    assert torch.allclose(after.sum("key").values, torch.ones(()), atol=1e-5)
    everywhere = model.edit(patching.knockout("dog", None, across=True, tower="denoiser"))
    assert off(everywhere.run(P), model.run(P)) > 1e-3
    with pytest.raises(AddressError, match="There is no key 'ball'"):
        model.edit(patching.knockout("ball", None, across=True, tower="denoiser")).run(P)


# -- attribution ----------------------------------------------------------------------------------


def scaled(model: Any, factor: float, site: str = "denoiser.neurons", **address: Any) -> Any:
    return model.edit(mm.Edit(site, lambda x: x * factor, **address))


def effect(model: Any, site: str, size: float = 0.01, **address: Any) -> float:
    """What silencing would take if it stayed linear: a central difference."""
    up, down = (scaled(model, 1 + sign * size, site, **address) for sign in (1, -1))
    return (number(up) - number(down)) / (2 * size)


@every_pipeline
def test_scores_of_units_are_finite_differences_of_the_whole_loop(name):
    model = exact(name)
    scores = mm.attribute(model, P, target=corner, layer=[1])
    assert scores.axes == ("step", "layer", "pos", "unit")
    for step in range(STEPS):
        best = scores.sel(step=step, layer=1).abs().argmax()
        told = scores.sel(step=step, layer=1, **best).item()
        assert told == pytest.approx(
            effect(model, "denoiser.neurons", layer=1, step=step, **best), rel=0.02
        )


@every_pipeline
def test_scores_of_words_are_finite_differences(name):
    model = exact(name)
    scores = mm.attribute(model, P, target=corner, site="denoiser.prompt_embeds").sum("dim")
    assert scores.axes == ("step", "pos")
    for step in (0, STEPS - 1):
        told = scores.sel(step=step, pos="dog").item()
        moved = effect(model, "denoiser.prompt_embeds", 1e-2, pos="dog", step=step, branch="prompt")
        assert told == pytest.approx(moved, rel=0.03, abs=1e-6)


def test_the_sum_over_steps_is_what_silencing_throughout_does():
    model = exact()
    scores = mm.attribute(model, P, target=corner, layer=[0]).sel(layer=0).sum("pos", "step")
    unit = int(scores.values.abs().argmax())
    moved = effect(model, "denoiser.neurons", 1e-3, layer=0, unit=unit)
    assert scores.values[unit].item() == pytest.approx(moved, rel=0.03)


def test_steps_that_are_computed_again_give_the_gradient_of_one_whole_graph():
    model = hooked().edit(mm.Edit("denoiser.neurons", 0.0, layer=0, unit=[3, 4], step=[1]))
    scores = mm.attribute(model, P, target=corner, layer=[1]).sel(layer=1)
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        kept.append(tensor if tensor.requires_grad else tensor.detach().requires_grad_())
        return kept[-1]

    with torch.enable_grad():
        out = model.run_with_hooks(P, [("denoiser.blocks.1.mlp.hook_post", keep)])
        grads = torch.autograd.grad(corner(out[0]), kept)
    whole = torch.stack([(x * g).sum(0) for x, g in zip(kept, grads, strict=True)])
    assert off(scores.values, whole.detach()) < 1e-4
    late = mm.attribute(model, P, target=corner, layer=[1], step=[1, 2])
    assert late.of("step") == (1, 2) and off(late.sel(layer=1).values, scores.values[1:]) < 1e-4


def test_all_layers_are_explained_in_one_backward_pass():
    model = hooked()
    each = attribution_by_layer(model, P, target=corner, step=[1, 2])
    assert [one.shape for one in each.values()] == [
        (2, 64, 64), (2, 16, 128), (2, 64, 64), (2, 64, 64)
    ]  # fmt: skip
    alone = mm.attribute(model, P, target=corner, layer=[1], step=[1, 2]).sel(layer=1)
    assert off(each[1].values, alone.values) < 1e-5 and each[1].axes == alone.axes
    with pytest.raises(AddressError, match="layers 0 and 1 of 'denoiser.neurons' have different"):
        mm.attribute(model, P, target=corner)
    with pytest.raises(AddressError, match="has no layers"):
        attribution_by_layer(model, P, target=corner, site="denoiser.latents")


def test_a_picture_is_explained_as_its_latents_are():
    model = hooked()
    scores = mm.attribute(model, P, of="picture", target=corner, layer=[0], step=[2])
    best = scores.sum("pos").abs().argmax()
    size, made = 1e-2, []
    for sign in (1, -1):
        other = scaled(model, 1 + sign * size, **best)
        with torch.no_grad(), other.running(P) as reading:
            made.append(float(corner(other.made(reading, "picture")[0])))
    told = scores.sum("pos").sel(**best).item()
    assert told == pytest.approx((made[0] - made[1]) / (2 * size), rel=0.1, abs=1e-5)


def test_a_picture_is_explained_by_its_similarity_with_a_text():
    encoder, _, tokenizer = hf_clip()
    model, clip = hooked(), mm.from_model(encoder, None, tokenizer)
    like = mm.picture_similarity(clip, "a dog")
    with torch.no_grad(), model.running(P) as reading:
        picture = model.made(reading, "picture")[0]
    big = F.interpolate(picture[None], scale_factor=8)[0]  # as large as the encoder reads, or more
    there = mm.zero_shot(clip, to_pil(big), ["a dog"]).sel(quantity="cosine")
    assert float(like(big).detach()) == pytest.approx(float(there.values.flatten()[0]), abs=0.05)
    scores = mm.attribute(model, P, of="picture", target=like, layer=[2], step=[2])
    best = scores.sum("pos").abs().argmax()
    made = []
    for sign in (1, -1):
        other = scaled(model, 1 + sign * 0.1, **best)
        with torch.no_grad(), other.running(P) as reading:
            made.append(float(like(other.made(reading, "picture")[0])))
    told = scores.sum("pos").sel(**best).item()
    assert told == pytest.approx((made[0] - made[1]) / 0.2, rel=0.1, abs=1e-6)
    with pytest.raises(TargetError, match="no picture"):
        mm.attribute(model, P, target=like, layer=[0])


def to_pil(picture: torch.Tensor) -> Any:
    from PIL import Image

    return Image.fromarray((picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())


def test_a_step_can_be_computed_again_by_a_thread_of_torchs_own(monkeypatch):
    """On a GPU the backward pass has threads of its own, which know nothing of the loop."""
    from concurrent.futures import ThreadPoolExecutor

    model = hooked().edit(mm.Edit("denoiser.neurons", 0.0, layer=0, unit=[3, 4], step=[1]))
    here = mm.attribute(model, P, target=corner, layer=[1])
    plain = torch.autograd.grad

    def elsewhere(*args: Any, **options: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(plain, *args, **options).result()

    monkeypatch.setattr(torch.autograd, "grad", elsewhere)
    assert off(mm.attribute(model, P, target=corner, layer=[1]).values, here.values) < 1e-5


@cache
def planted() -> Any:
    """Unit 5 of layer 2 is always 3 and writes a direction that is far larger than any other's."""
    made = copy.copy(pipe())
    made.unet = copy.deepcopy(pipe().unet)
    ff = made.unet.get_submodule(hooked().denoiser.paths[2]).ff
    with torch.no_grad():
        proj, half = ff.net[0].proj, ff.net[2].in_features
        proj.weight[[5, half + 5]] = 0
        proj.bias[5], proj.bias[half + 5] = 1.0, 3.0  # value 1, gate gelu(3)
        ff.net[2].weight[:, 5] = torch.linspace(-1, 1, ff.net[2].out_features)
    return mm.from_model(made).sampling(steps=STEPS, seed=SEED)


def test_a_planted_unit_is_found_first_and_turning_it_down_moves_the_number_by_its_score():
    model = planted()
    units = mm.activations(model, P, layer=2, unit=5)
    assert torch.allclose(units.values, F.gelu(torch.tensor(3.0)), atol=1e-5)
    scores = mm.attribute(model, P, target=corner, layer=[2]).sel(layer=2).sum("pos")
    assert all(scores.sel(step=at).abs().argmax() == {"unit": 5} for at in range(STEPS))
    for step in range(STEPS):
        moved = effect(model, "denoiser.neurons", 1e-3, layer=2, unit=5, step=step)
        assert scores.sel(step=step, unit=5).item() == pytest.approx(moved, rel=0.03)
    neuron = mm.Neuron(2, 5, "denoiser")
    silent = model.edit(mm.Edit("denoiser.neurons", 0.0, neuron))
    assert float(mm.activations(silent, P, "denoiser.neurons", neuron).values.abs().max()) == 0


# -- patching -------------------------------------------------------------------------------------


def test_the_noise_of_another_run_gives_that_run():
    model, other = hooked(), hooked().sampling(seed=9)
    started = mm.activations(other, P, "denoiser.latents", step=[0])
    assert torch.equal(model.edit(mm.Edit("denoiser.latents", started)).run(P), other.run(P))
    middle = mm.activations(other, P, "denoiser.latents", step=[2])
    assert off(model.edit(mm.Edit("denoiser.latents", middle)).run(P), other.run(P)) < 1e-5


def test_everything_that_another_prompt_predicts_gives_its_picture():
    model, prompt = hooked(), "the red ball"
    assert off(model.run(prompt), model.run(P)) > 1e-3
    edits = [
        mm.Edit("denoiser.noise", mm.activations(model, prompt, "denoiser.noise", branch=one),
                branch=one)
        for one in model.branches
    ]  # fmt: skip
    assert off(model.edit(*edits).run(P), model.run(prompt)) < 1e-5
    words = mm.activations(model, prompt, "denoiser.prompt_embeds")
    swapped = mm.Edit("denoiser.prompt_embeds", words.values[0], branch="prompt")
    assert off(model.edit(swapped).run(P), model.run(prompt)) < 1e-5


def test_an_edit_acts_in_its_branch_alone():
    model = hooked()
    edited = model.edit(mm.Edit("denoiser.neurons", 0.0, layer=0, step=0, branch="negative"))
    for branch, zero in (("negative", True), ("prompt", False)):
        read = mm.activations(edited, P, layer=0, step=0, branch=branch)
        assert (float(read.values.abs().max()) == 0) == zero
    assert off(edited.run(P), model.run(P)) > 1e-4


# -- files and refusals ---------------------------------------------------------------------------


def test_a_folder_that_diffusers_wrote_is_loaded_from_safetensors_alone(tmp_path):
    pipe().save_pretrained(tmp_path / "sd")
    model = mm.load(tmp_path / "sd").sampling(steps=STEPS, seed=SEED)
    assert off(model.run(P), hooked().run(P)) < 1e-5
    assert model.provenance["source"] == "sd"
    pipe().save_pretrained(tmp_path / "pickled", safe_serialization=False)
    with pytest.raises(CheckpointError, match="no pipeline that can be loaded from safetensors"):
        mm.load(tmp_path / "pickled")
    index = tmp_path / "sd/model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "FluxPipeline"))
    with pytest.raises(CapabilityError, match="is a FluxPipeline, and mmlens loads"):
        mm.load(tmp_path / "sd")


@pytest.mark.parametrize(
    "verb, needs",
    [
        ("decode", "has an unembedding"), ("logit_lens", "has an unembedding"),
        ("attribute_caption", "predicts the next token"), ("look", "reads pictures"),
        ("embed", "compares pictures with texts"), ("integrated_gradients", "one forward pass"),
        ("patching.patch", "one forward pass"), ("patching.ablate", "one forward pass"),
        ("patching.knockouts", "predicts the next token"), ("top_images", "one forward pass"),
    ],
)  # fmt: skip
def test_what_it_cannot_answer_is_refused_by_what_it_lacks(verb, needs):
    home, _, name = verb.rpartition(".")
    with pytest.raises(CapabilityError, match=f"{needs}.*it can: denoise"):
        getattr(patching if home else mm, name)(hooked(), P, P)


def test_wrong_questions_are_refused_in_a_sentence():
    model, picture = hooked(), hooked().generate(P)
    with pytest.raises(PromptError, match="is given words alone"):
        model.generate(mm.Prompt(picture, "a dog"))
    both = mm.attribute(model, [P, P], target=corner, layer=0)
    assert both.axes[0] == "prompt" and torch.equal(both.values[0], both.values[1])
    with pytest.raises(PromptError, match="has 10 tokens and StableDiffusionPipeline reads 8"):
        model.run("a dog and a cat and a ball")
    with pytest.raises(TargetError, match="has no 'logit' to explain: write a function"):
        mm.attribute(model, P, layer=0)
    with pytest.raises(TargetError, match="of='sound'"):
        mm.attribute(model, P, of="sound", target=corner, layer=0)
    with pytest.raises(AddressError, match="There is no step 7"):
        model.edit(mm.Edit("denoiser.neurons", 0.0, layer=0, step=7)).run(P)
    with pytest.raises(AddressError, match="no axis 'branch'"):
        mm.Edit("denoiser.latents", 0.0, branch="prompt")
    with pytest.raises(AddressError, match="no axis 'step'"):
        mm.Edit("neurons", 0.0, step=1)
    with pytest.raises(ArgumentError, match="multiples of 8"):
        model.sampling(size=(12, 16))
    with pytest.raises(ArgumentError, match="sounds, which have no size"):
        hooked("stable_audio").sampling(size=(16, 16))
    with pytest.raises(ArgumentError, match="has all its parts: leave tokenizer="):
        mm.from_model(pipe(), tokenizer=pipe().tokenizer)
    with pytest.raises(ArgumentError, match="answers in one pass and has no step="):
        mm.attribute(mm.load("toy-gpt2"), "a dog", of=5, after="", step=1)


def test_attention_that_cannot_be_opened_is_refused():
    from diffusers.models.attention_processor import AttnProcessor

    made = copy.copy(pipe())
    made.unet = copy.deepcopy(pipe().unet)
    made.unet.set_attn_processor(AttnProcessor())
    model = mm.from_model(made).sampling(steps=2, seed=SEED)
    assert off(model.run(P), hooked().sampling(steps=2).run(P)) < 1e-4
    for ask in (mm.cross_attention_maps, patching.attention):
        with pytest.raises(CapabilityError, match="AttnProcessor2_0, its default"):
            ask(model, P)


def test_a_pipeline_that_needs_more_than_a_prompt_is_refused():
    from diffusers import StableDiffusionInpaintPipeline

    made = StableDiffusionInpaintPipeline(**pipe().components, requires_safety_checker=False)
    with pytest.raises(CapabilityError, match="InpaintPipeline cannot be run from a prompt alone"):
        mm.from_model(made)


@pytest.mark.parametrize("make", [twins.stable_diffusion_3, twins.flux])
def test_attention_of_words_and_squares_together_is_refused(make):
    module = make()
    made = copy.copy(pipe())
    made.unet, made.transformer = None, module
    with pytest.raises(CapabilityError, match=f"a {type(module).__name__} words and squares are"):
        mm.from_model(made)


def test_a_pipeline_that_is_moved_while_it_runs_is_refused():
    made = copy.copy(pipe())
    made.vae = copy.deepcopy(pipe().vae)
    made.vae._hf_hook = object()
    with pytest.raises(CapabilityError, match=r"moved between devices while it runs \(offload\)"):
        mm.from_model(made)


def test_without_diffusers_a_folder_is_refused_with_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "model_index.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(CapabilityError, match=r"pip install 'mmlens\[diffusion\]'"):
        mm.load(tmp_path)


def test_gates_behind_the_parts_of_a_block_are_measured_and_leave_no_points_of_what_is_added():
    points, gated = hooked().hook_dict, hooked("pixart").hook_dict
    for part in ("attn", "cross_attn", "mlp"):
        name = f"denoiser.blocks.0.hook_{part}_out"
        assert name in points and name not in gated
    assert "denoiser.blocks.0.mlp.hook_pre" in gated  # and none where a gate multiplies
    assert "denoiser.blocks.0.mlp.hook_pre" not in points
    with pytest.raises(ArgumentError, match="ends a loop of one step in another way"):
        hooked("pixart").sampling(steps=1)


def test_masked_padding_has_no_place_in_an_answer():
    read = mm.activations(hooked("pixart"), P, "denoiser.prompt_embeds", step=0)
    assert [str(one) for one in read.of("pos")] == ["<start>", *P.split(), "<end>"]


def test_a_sound_has_moments_and_its_seconds_are_read_beside_the_words():
    model = hooked("stable_audio")
    units = mm.activations(model, P, layer=0)
    assert units.of("pos")[0] == Marker("global", 0) and units.of("pos")[16] == mm.Patch(0, 15)
    weights = patching.attention(model, P, layer=0, across=True)
    assert [str(one) for one in weights.of("key")][-2:] == ["[seconds_start]", "[seconds_end]"]
    maps = mm.cross_attention_maps(model, P)
    assert maps.of("pos")[0] == mm.Patch(0, 0) and maps.shape == (10, 16)
