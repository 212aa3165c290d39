"""Pictures made by optimisation show what a unit reads, and reach more than other pictures do."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

import mmlens as mm
from mmlens import Neuron, view
from mmlens.families import toy
from mmlens.methods.facets import Facet, facet
from mmlens.methods.fourier_pictures import as_seen, moves, normalised, pictures, start
from mmlens.methods.picture_goals import UnitGoal
from mmlens.methods.visualise import likeness
from mmlens.model.vision_pass import vision_pass
from mmlens.towers.vision.pixels import Pixels
from mmlens.values.errors import (
    AddressError,
    ArgumentError,
    CapabilityError,
    CheckpointError,
    TargetError,
)

RED, VERTICAL, HORIZONTAL, OFF = (Neuron(0, unit, "vision") for unit in range(4))


def vit(**more) -> ViTForImageClassification:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_attention_heads=2, intermediate_size=24, image_size=32, patch_size=8,
        num_labels=5, initializer_range=0.3, **{"num_hidden_layers": 3, **more},
    )  # fmt: skip
    return ViTForImageClassification(config).eval()


@cache
def planted() -> mm.HookedVLM:
    """One layer of rectified units: of red, of upright and of lying stripes, and one always off.

    Three dimensions of a patch hold how red it is and how much of a wave of 8 pixels there is in
    it; a fourth is constant, so that the layer norm keeps their size. Nothing else writes.
    """
    net = vit(num_hidden_layers=1, hidden_act="relu")
    x = torch.arange(8) / 8
    wave = torch.cos(2 * torch.pi * x).expand(8, 8)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        for norm in net.modules():
            if isinstance(norm, torch.nn.LayerNorm):
                norm.weight.fill_(1.0)
        conv = net.vit.embeddings.patch_embeddings.projection
        for channel, sign in enumerate((1.0, -0.5, -0.5)):
            conv.weight[0, channel] = sign / 64
        conv.weight[1], conv.weight[2] = wave / 96, wave.T / 96
        conv.bias[15] = 1.0
        into = next(m for m in net.modules() if getattr(m, "out_features", 0) == 24)
        for unit in range(3):
            into.weight[unit, unit] = 1.0
        into.bias[
            0
        ] = -0.3  # off on noise: only the input of the activation function has a gradient
        into.bias[3] = -1.0
    return mm.from_parts(vision=net)


@cache
def random_vit() -> mm.HookedVLM:
    return mm.from_parts(vision=vit().double())


def random_pictures(n: int) -> list[Image.Image]:
    """Noise of several scales, from four even squares on."""
    draw = np.random.default_rng(0)
    return [
        Image.fromarray((draw.random((side, side, 3)) * 255).astype("uint8")).resize((32, 32), 2)
        for side in (2, 4, 8, 32)
        for _ in range(n // 4)
    ]


def best(model, pictures_, neuron) -> float:
    """The largest mean activation of a unit over these pictures."""
    found = mm.activations(model, pictures_, f"{neuron.tower}.neurons", neuron)
    return float(found.values.mean(-1).max())


@cache
def made() -> mm.Visualisation:
    return mm.visualise(planted(), [RED, VERTICAL, HORIZONTAL], steps=200, robustness=0.3)


def wave_energy(picture: Image.Image) -> tuple[float, float]:
    """The energy of the waves of 8 pixels across and down a picture of 32 pixels."""
    spectrum = np.abs(np.fft.fft2(np.asarray(picture.convert("L"), float))) ** 2
    return float(spectrum[0, 4]), float(spectrum[4, 0])


def test_a_unit_that_reads_red_gets_a_red_picture():
    red, green, blue = np.asarray(made().picture(RED), float).mean((0, 1))
    assert red > 170 and red - max(green, blue) > 100


def test_units_that_read_stripes_get_stripes_of_their_orientation():
    across, down = wave_energy(made().picture(VERTICAL))
    assert across > 20 * down
    across, down = wave_energy(made().picture(HORIZONTAL))
    assert down > 20 * across


def test_the_picture_excites_its_unit_more_than_hundreds_of_random_pictures():
    some = random_pictures(400)
    for i, neuron in enumerate(made().labels):
        more = 1.0 if neuron == RED else 2.0  # four squares may be red, no noise is striped
        assert made().activation[i, 0] > more * best(planted(), some, neuron)
    assert np.abs(made().start).max() < 0.1


def test_the_activation_is_that_of_the_picture_as_any_verb_reads_it():
    for i, neuron in enumerate(made().labels):
        assert best(planted(), [made().picture(i)], neuron) == pytest.approx(
            made().activation[i, 0], abs=1e-6
        )


def test_a_picture_of_a_trained_unit_excites_it_more_than_the_best_scene_of_its_world():
    from mmlens.datasets.bundled import pictos

    model = mm.load("pictos")
    scenes = [mm.Prompt(sample.image) for sample in pictos(n=48)]
    found = mm.activations(model, scenes, "vision.neurons", layer=5, unit=slice(0, 32))
    top = found.values.mean(1).amax(0)
    unit = int(top.argmax())
    seen = mm.visualise(model, Neuron(5, unit, "vision"), steps=40)
    assert seen.activation[0, 0] > 1.5 * float(top[unit])


def test_a_dead_unit_is_said_to_be_dead():
    with pytest.warns(UserWarning, match=r"One unit is dead .* vision\.L0\.3\."):
        seen = mm.visualise(planted(), [RED, OFF], steps=24)
    assert seen.dead.tolist() == [False, True]
    assert "dead" in repr(seen) and "no step moved it" in view.show(seen)
    silent = random_vit().edit(mm.Edit("vision.neurons", 0.0, Neuron(1, 4, "vision")))
    with pytest.warns(UserWarning, match="dead"):
        assert mm.visualise(silent, Neuron(1, 4, "vision"), steps=3).dead.all()


def test_the_same_seed_makes_the_same_pictures_whatever_is_made_beside_them():
    a, b = Neuron(1, 3, "vision"), Neuron(2, 7, "vision")
    both = mm.visualise(random_vit(), [a, b], steps=6, variants=2, seed=4)
    again = mm.visualise(random_vit(), [a, b], steps=6, variants=2, seed=4)
    alone = mm.visualise(random_vit(), b, steps=6, variants=2, seed=4, batch=1)
    other = mm.visualise(random_vit(), b, steps=6, variants=2, seed=5)
    assert (both.pixels == again.pixels).all()
    assert np.abs(both.pixels[1].astype(int) - alone.pixels[0]).max() <= 1
    assert (both.pixels[1] != other.pixels[0]).mean() > 0.5


def test_the_gradient_through_spectrum_colours_and_moves_is_that_of_finite_differences():
    spectra = start([1, 2], (6, 6)).double()
    recipe = Pixels((5, 5), resize="shortest", scale=(7, 7), mean=(0.4, 0.5, 0.6), channels="BGR")
    move = moves([1, 2], 3, 1.0)[1].double()
    weights = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)).double()

    def number(spectra: torch.Tensor) -> torch.Tensor:
        return (as_seen(pictures(spectra * 30, (6, 6)), recipe, move) * weights).sum()

    assert torch.autograd.gradcheck(number, (spectra.requires_grad_(),), atol=1e-6)


@pytest.mark.parametrize("resize, scale", [("squash", None), ("shortest", (40, 40))])
def test_an_unmoved_view_is_what_the_encoders_recipe_gives(resize, scale):
    recipe = Pixels((32, 32), resize=resize, scale=scale, mean=(0.4, 0.5, 0.6))
    rgb = pictures(30 * start([3], (32, 32)), (32, 32))
    eight = (rgb[0] * 255).round().byte().permute(1, 2, 0).numpy()
    seen = as_seen(rgb, recipe, torch.zeros(1, 4))[0]
    assert (seen - recipe(Image.fromarray(eight))).abs().max() < (0.02 if scale is None else 0.1)
    assert torch.allclose(normalised(rgb, recipe)[0], seen, atol=1e-5) == (scale is None)


def test_a_facet_adds_what_its_formula_says():
    model, layer, unit = random_vit(), 0, Neuron(2, 5, "vision")
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    weights = torch.randn(16, generator=torch.Generator().manual_seed(2)).double()
    goal = UnitGoal(model, [unit], "vision.resid_post", "mean", None)
    pixels.requires_grad_()
    made_facet = Facet("vision.resid_post", layer, weights, strength=1.5, rectified=False)
    told = goal(pixels, [0, 0], made_facet).facet
    g = vision_pass(model, pixels, [made_facet.point])[made_facet.point].detach()

    def f(values: torch.Tensor) -> torch.Tensor:
        point = "vision.blocks.2.hook_resid_post"
        with torch.no_grad(), model.hooks([(made_facet.point, lambda x, hook: values)]):
            seen = vision_pass(model, pixels[:1].expand(len(values), -1, -1, -1), [point])
        return seen[point][:, :, 5].mean(-1)

    steps = 1e-5 * torch.eye(g[0].numel(), dtype=torch.float64).reshape(-1, *g[0].shape)
    for i in range(2):
        gradient = ((f(g[i] + steps) - f(g[i] - steps)) / 2e-5).reshape(g[i].shape)
        assert told[i].item() == pytest.approx(1.5 * float((weights * g[i] * gradient).sum()), 1e-5)
        up = Facet("vision.resid_post", layer, weights)
        positive = float((weights * g[i] * gradient.clamp(min=0)).sum())
        assert goal(pixels, [0, 0], up).facet[i].item() == pytest.approx(positive, 1e-4)


def test_a_facet_is_a_probe_of_its_pictures_and_pulls_towards_them():
    model, draw = random_vit(), np.random.default_rng(1)
    dark, light = (
        [Image.fromarray((low + draw.random((32, 32, 3)) * 90).astype("uint8")) for _ in range(15)]
        for low in (0, 160)
    )
    lit = facet(model, light, dark, layer=0, strength=20.0)
    assert lit.about["accuracy"] == 1.0
    unit = Neuron(2, 5, "vision")
    plain = mm.visualise(model, unit, steps=24)
    pulled = mm.visualise(model, unit, steps=24, facet=lit)
    away = mm.visualise(
        model, unit, steps=24, facet=Facet(lit.site, 0, -lit.weights, strength=20.0)
    )

    def side(seen: mm.Visualisation) -> float:
        """On which side of the probe a picture lies."""
        values = mm.activations(model, seen.picture(), lit.site, layer=0).values
        return float((values.mean(0) * lit.weights).sum())

    assert side(pulled) > side(plain) > side(away)


def test_variants_are_kept_apart_by_the_cosine_of_their_gram_matrices():
    maps = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    gram = [one.T @ one for one in maps]
    cosine = float((gram[0] * gram[2]).sum() / (gram[0].norm() * gram[2].norm()))
    told = likeness(maps, [0, 1, 0])
    assert told.tolist() == pytest.approx([cosine, 0.0, cosine], rel=1e-4)
    unit, point = Neuron(1, 3, "vision"), "vision.blocks.1.mlp.hook_post"

    def alike(diversity: float) -> float:
        seen = mm.visualise(random_vit(), unit, variants=2, diversity=diversity, steps=24)
        pixels = torch.stack(
            [random_vit().vision.preprocess(seen.picture(0, j)) for j in range(2)]
        ).double()
        return float(likeness(vision_pass(random_vit(), pixels, [point])[point], [0, 0])[0])

    assert alike(4.0) < alike(0.0) - 0.02


def test_a_class_a_word_and_a_unit_of_the_language_model_can_be_asked_for():
    model = random_vit()
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    some = [*random_pictures(40), grey]
    seen = mm.visualise(model, 2, steps=40)
    assert seen.activation[0, 0] > float(model(some)[:, 2].detach().max())
    bridge, other = mm.load("toy-gptj"), {"prompt": "A picture of", "steps": 12}
    for of in (" dog", Neuron(1, 5)):
        seen = mm.visualise(bridge, of, **other)
        assert seen.activation[0, 0] > seen.start[0, 0]
    told = mm.visualise(bridge, " dog", target="prob", **other)
    prompt = mm.Prompt(told.picture(), "A picture of")
    word = bridge.to_single_token(" dog")
    prob = float(bridge(prompt)[0, -1].softmax(-1)[word].detach())
    assert prob == pytest.approx(told.activation[0, 0], rel=1e-4)


def test_a_text_and_a_unit_of_a_dual_encoder_get_pictures():
    pytest.importorskip("open_clip")
    from dual_twins import DUALS

    model = mm.from_model(*DUALS["open_clip ViT"]())
    seen = mm.visualise(model, "a photo of a dog", target="cosine", steps=16)
    cosine = float(mm.embed(model, seen.picture()) @ mm.embed(model, "a photo of a dog").T)
    assert seen.activation[0, 0] == pytest.approx(cosine, abs=1e-5)
    assert cosine > seen.start[0, 0] + 0.02
    unit = Neuron(1, 5, "vision")
    made_of_unit = mm.visualise(model, unit, steps=4)
    read = mm.activations(model, made_of_unit.picture(), "vision.neurons", unit)
    assert made_of_unit.activation[0, 0] == pytest.approx(float(read.values.mean()), abs=1e-5)


def test_any_site_any_reduction_and_both_signs():
    model, unit = random_vit(), Neuron(1, 5, "vision")
    for site in ("vision.resid_post", "vision.z", "vision.mlp_out", "vision.neurons_pre"):
        seen = mm.visualise(model, unit, site=site, steps=4)
        values = mm.activations(model, seen.picture(), site, layer=1).values.flatten(1)
        assert seen.activation[0, 0] == pytest.approx(float(values[:, 5].mean()), abs=1e-5)
    at = mm.visualise(model, 5, site="vision.blocks.1.hook_resid_post", pos="[CLS]", steps=4)
    read = mm.activations(model, at.picture(), "vision.resid_post", layer=1).values
    assert at.activation[0, 0] == pytest.approx(float(read[0, 5]), abs=1e-5)
    low, high = (mm.visualise(model, unit, sign=sign, steps=12) for sign in (-1, 1))
    assert low.activation[0, 0] < low.start[0, 0] < high.activation[0, 0]
    largest = mm.visualise(model, unit, target="max", steps=4)
    found = mm.activations(model, largest.picture(), "vision.neurons", unit)
    assert largest.activation[0, 0] == pytest.approx(float(found.values.max()), abs=1e-5)
    mine = mm.visualise(model, unit, target=lambda x: x[3], steps=4)
    found = mm.activations(model, mine.picture(), "vision.neurons", unit)
    assert mine.activation[0, 0] == pytest.approx(float(found.values[3]), abs=1e-5)


def test_channels_of_a_convolution_are_units_and_a_bridge_gives_the_picture_of_its_encoder():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    bare = timm.create_model("resnet10t", pretrained=False, num_classes=4)
    for module in bare.modules():  # blocks end in a norm that starts at zero
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 0.7)
    net, some = mm.from_parts(vision=bare), random_pictures(4)[0]
    lit = mm.activations(net, some, "vision.resid_post", layer=1).values.mean((1, 2))
    unit = Neuron(1, int(lit.argmax()), "vision")
    seen = mm.visualise(net, [unit, Neuron(2, 9, "vision")], steps=3, size=32)
    read = mm.activations(net, seen.picture(unit), "vision.resid_post", unit)
    assert seen.activation[0, 0] == pytest.approx(float(read.values.mean()), abs=1e-4)
    assert seen.activation[0, 0] > 0 and seen.pixels.shape[2:] == (32, 32, 3)
    bridge = mm.load("toy-gptj")
    alone = mm.from_parts(vision=bridge.vision)
    one, other = (mm.visualise(model, Neuron(0, 5, "vision"), steps=4) for model in (bridge, alone))
    assert (one.pixels == other.pixels).all() and one.curve.tolist() == other.curve.tolist()


def test_it_is_saved_as_a_sheet_and_read_back(tmp_path):
    seen = mm.visualise(random_vit(), [Neuron(0, 1, "vision"), Neuron(1, 2, "vision")],
                        variants=3, steps=2, size=16)  # fmt: skip
    path = seen.save(tmp_path / "units.png")
    again = mm.Visualisation.load(path)
    assert (again.pixels == seen.pixels).all() and again.labels == seen.labels
    assert (again.curve == seen.curve).all() and again.about["seed"] == 0
    assert (again.activation == seen.activation).all() and again.dead.dtype == bool
    assert Image.open(path).size == (3 * 16 + 4, 2 * 16 + 2)
    table = seen.to_frame()
    assert list(table.columns) == ["neuron", "variant", "activation", "start", "dead"]
    assert seen.picture(1, 2).tobytes() == seen.pixels[1, 2].tobytes()
    strongest = int(seen.activation[0].argmax())
    assert seen.picture(0).tobytes() == seen.pixels[0, strongest].tobytes()
    page = view.save(view.show(seen), tmp_path / "units.html").read_text()
    assert page.count("<figure>") == 6 and "vision.L1.2" in page
    random_pictures(4)[0].save(tmp_path / "other.png")
    with pytest.raises(CheckpointError, match="does not hold a saved Visualisation"):
        mm.Visualisation.load(tmp_path / "other.png")


@pytest.mark.parametrize(
    "error, said, of, options",
    [
        (AddressError, "the layer has 24 units", Neuron(0, 99, "vision"), {}),
        (AddressError, "layer", Neuron(9, 0, "vision"), {}),
        (TargetError, "'mean', 'max', 'sum'", Neuron(0, 1, "vision"), {"target": "median"}),
        (TargetError, "no class to explain", None, {}),
        (CapabilityError, "no units", Neuron(0, 1, "vision"), {"site": "vision.pattern"}),
        (AddressError, "write Neuron(layer, 5, 'vision')", 5, {"site": "vision.resid_post"}),
        (ArgumentError, "from 16 to 32", Neuron(0, 1, "vision"), {"size": 64}),
        (ArgumentError, "sign=0", Neuron(0, 1, "vision"), {"sign": 0}),
        (AddressError, "a facet of an earlier layer", Neuron(0, 1, "vision"),
         {"facet": Facet("vision.resid_post", 2, torch.ones(16))}),
        (ArgumentError, "one weight per dimension", Neuron(2, 1, "vision"),
         {"facet": Facet("vision.resid_post", 0, torch.ones(3))}),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_in_one_sentence(error, said, of, options):
    with pytest.raises(error) as caught:
        mm.visualise(random_vit(), of, steps=2, **options)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_bridge_whose_pictures_are_read_in_several_crops_gives_pictures_of_units_alone():
    model = mm.load("toy-tiled")
    assert len(mm.visualise(model, Neuron(0, 5, "vision"), steps=2)) == 1
    with pytest.raises(CapabilityError, match="crops"):
        mm.visualise(model, " dog", steps=2)
    assert toy.picture().size  # the toys read small pictures
