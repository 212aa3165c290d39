"""Maps of relevance, each against its formula by another route, and where the truth is planted."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from bridges import bridge, off, prompt
from dual_twins import hf_clip

import mmlens as mm
from mmlens import patching, relevance
from mmlens.families import toy
from mmlens.methods.rise import differences
from mmlens.values.errors import MMLensError
from mmlens.values.labels import Marker, Patch, Token

PHOTO = toy.picture()
WORD = 7


@pytest.fixture(scope="module")
def clip() -> Any:
    model, _, tokenizer = hf_clip()
    return mm.from_model(model, None, tokenizer)


@pytest.fixture(scope="module")
def plain() -> Any:
    """An encoder without classes, whose answer is its features."""
    return mm.from_parts(vision=toy._vision(torch.Generator().manual_seed(0)))


def patterns(model, shown, tower: bool = False, across: bool = False) -> list[Any]:
    found = patching.attention(model, shown, tower=tower, across=across)
    return list(found.values.double().numpy())


# -- rollout ---------------------------------------------------------------------------------------


def test_rollout_of_two_layers_made_by_hand_is_the_product_of_their_matrices():
    model = bridge("toy-llama")
    shown = prompt(words="A picture of")
    n = len(model.read(shown).labels[0])
    last = torch.zeros(n, n)
    first = torch.eye(n)
    first[2] = torch.eye(n)[1]  # position 2 reads 1
    last[:, 0] = 1.0
    last[-1] = 0.25 * torch.eye(n)[2] + 0.75 * torch.eye(n)[n - 1]
    made = model.edit(
        mm.Edit("pattern", first, layer=0),
        mm.Edit("pattern", last, layer=1),
        mm.Edit("pattern", torch.eye(n), layer=2),
    )
    found = relevance.rollout(made, shown).values
    # the last row: 1/2 itself, 1/2 (1/4 position 2, 3/4 itself); position 2 is half of position 1
    expected = torch.zeros(n)
    expected[n - 1], expected[2], expected[1] = 0.5 + 0.375, 0.125 / 2, 0.125 / 2
    assert off(found, expected) < 1e-6


@pytest.mark.parametrize("kind", ["gptj", "gpt2", "opt", "llama"])
def test_rollout_is_the_product_of_the_patterns_and_sums_to_one(kind):
    model = bridge(f"toy-{kind}")
    found = relevance.rollout(model, prompt())
    R = np.eye(len(found.of("pos")))
    for pattern in patterns(model, prompt()):
        R = (pattern.mean(0) + np.eye(len(R))) / 2 @ R
    assert np.allclose(found.values, R[-1], atol=1e-6)
    assert float(found.values.sum()) == pytest.approx(1, abs=1e-5)
    assert found.of("pos") == model.read(prompt()).labels[0]


def test_through_the_encoder_patches_of_the_prompt_are_handed_on_to_its_own():
    model = bridge("toy-gpt2")
    outer, found = (
        relevance.rollout(model, prompt()),
        relevance.rollout(model, prompt(), at="pixels"),
    )
    R = np.eye(17)
    for pattern in patterns(model, prompt(), tower=True):
        R = (pattern.mean(0) + np.eye(17)) / 2 @ R
    inside = outer.sel(pos=Patch).numpy() @ R[1:]
    assert np.allclose(found.values[:17], inside, atol=1e-6)
    assert isinstance(found.of("pos")[0], Marker) and found.of("pos")[1] == Patch(0, 0)
    assert np.allclose(found.sel(pos=Token).values, outer.sel(pos=Token).values)


def test_across_a_position_holds_half_of_its_stream_and_half_of_the_pictures():
    model = bridge("toy-cross")
    found = relevance.rollout(model, prompt())
    own, across = patterns(model, prompt()), patterns(model, prompt(), across=True)
    n, k = across[0].shape[1:]
    whole = np.eye(n + k)  # pictures are states that nothing is written to
    for self_, cross in zip(own, across, strict=True):
        for block, at in ((self_.mean(0), slice(0, n)), (cross.mean(0), slice(n, n + k))):
            layer = np.eye(n + k)
            layer[:n] /= 2
            layer[:n, at] += block / 2
            whole = layer @ whole
    row = whole[n - 1]
    assert np.allclose(found.values, np.concatenate([row[n:], row[:n]]), atol=1e-6)
    assert float(found.values.sum()) == pytest.approx(1, abs=1e-5)
    assert found.of("pos")[0] == Patch(0, 0) and isinstance(found.of("pos")[-1], Token)


# -- Chefer ----------------------------------------------------------------------------------------


def slopes(model, shown, names) -> list[np.ndarray]:
    """dy/dpattern, by a number added to each entry."""
    added: dict[str, torch.Tensor] = {}

    def add(x, hook):
        added[hook.name] = torch.zeros_like(x).requires_grad_()
        return x + added[hook.name]

    with torch.enable_grad():
        model.run_with_hooks(shown, fwd_hooks=[(n, add) for n in names])[0, -1, WORD].backward()
    return [torch.Tensor(added[name].grad)[0].double().numpy() for name in names]


def weighted(pattern: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.maximum(pattern * slope, 0).mean(0)


@pytest.mark.parametrize("kind", ["gptj", "llama"])
def test_chefer_is_its_rule_by_hand(kind):
    model = bridge(f"toy-{kind}")
    found = relevance.chefer(model, prompt(), WORD, after="")
    own = patterns(model, prompt())
    names = [f"blocks.{n}.attn.hook_pattern" for n in range(len(own))]
    R = np.eye(own[0].shape[-1])
    for pattern, slope in zip(own, slopes(model, prompt(), names), strict=True):
        R = R + weighted(pattern, slope) @ R
    assert np.allclose(found.values, R[-1], rtol=1e-4, atol=1e-6)
    assert found.values.max() > 1 and found.sel(pos=Patch).values.max() > 0


def test_chefer_across_is_rule_10_by_hand():
    model = bridge("toy-cross")
    found = relevance.chefer(model, prompt(), WORD, after="")
    own, across = patterns(model, prompt()), patterns(model, prompt(), across=True)
    names = [f"blocks.{n}.{part}.hook_pattern" for n in range(3) for part in ("attn", "cross_attn")]
    moved = slopes(model, prompt(), names)
    n, k = across[0].shape[1:]
    R, K = np.eye(n), np.zeros((n, k))
    for layer in range(3):
        A = weighted(own[layer], moved[2 * layer])
        R, K = R + A @ R, K + A @ K
        rest = R - np.eye(n)
        total = rest.sum(1, keepdims=True)
        rest = np.divide(rest, total, out=np.zeros_like(rest), where=total > 0)
        K = K + (rest + np.eye(n)).T @ weighted(across[layer], moved[2 * layer + 1])
    assert np.allclose(found.values, np.concatenate([K[-1], R[-1]]), rtol=1e-4, atol=1e-6)


def test_of_a_dual_encoder_the_tower_of_the_prompt_is_explained(clip):
    seen = relevance.chefer(clip, PHOTO, "a dog")
    read = relevance.chefer(clip, "a dog", PHOTO)
    assert [type(one) for one in seen.of("pos")] == [Marker] + [Patch] * 16
    assert [one.text for one in read.of("pos")] == ["[BOS]", "a", "dog", "[EOS]"]
    assert float(seen.values[0]) > 1 and float(read.values[-1]) > 1  # what is read: CLS, EOS


def test_chefer_finds_the_planted_patch_and_rollout_asks_no_word():
    model = bridge("toy-gptj-planted")
    found = relevance.chefer(model, prompt(), " dog", after="").sel(pos=Patch)
    assert found.argmax() == {"pos": Patch(2, 1)}
    one = relevance.rollout(model, prompt(), " dog", after="")
    assert off(one.values, relevance.rollout(model, prompt(), " cat", after="").values) == 0


# -- covering --------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 3])
def test_occlusion_is_the_mean_over_the_squares_that_hold_a_patch(clip, side):
    found = relevance.occlusion(clip, PHOTO, "a dog", side=side, baseline=0.25, batch=3)
    pixels = clip.read(PHOTO).pixels
    text = clip.run("a dog")
    effects: dict[tuple[int, int], list[float]] = {}
    with torch.no_grad():
        whole = float(clip.logits(clip.run(pixels) @ text.T))
        for row, col in product(range(5 - side), repeat=2):
            covered = pixels.clone()
            covered[..., row * 8 : (row + side) * 8, col * 8 : (col + side) * 8] = 0.25
            lost = whole - float(clip.logits(clip.run(covered) @ text.T))
            for place in product(range(row, row + side), range(col, col + side)):
                effects.setdefault(place, []).append(lost)
    for (row, col), lost in effects.items():
        assert float(found.sel(pos=Patch(row, col)).values) == pytest.approx(
            np.mean(lost), abs=1e-4
        )


def test_occlusion_of_patches_alone_is_that_of_attribute_picture():
    model = bridge("toy-gpt2")
    found = relevance.occlusion(model, prompt(), WORD, after="")
    other = mm.attribute_picture(model, prompt(), WORD, after="", attribution="occlusion")
    assert off(found.values, other.values) < 1e-6 and found.of("pos") == other.of("pos")


def linear(model):
    """A number that is linear in an encoder's features, and what each patch adds to it."""
    with torch.no_grad():
        features = model.run(PHOTO)[0]
    w = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    return (lambda out: (w * out).sum()), (w * (features - features.mean(0))).sum(-1)


def test_the_mean_over_all_masks_is_exactly_what_a_linear_number_is_made_of():
    true = torch.tensor([3.0, -1.0, 0.5, 0.0])
    keep = torch.tensor(list(product((0.0, 1.0), repeat=4)))
    assert off(differences(keep, keep @ true + 7)[0], true) < 1e-5


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_rise_is_within_its_error_of_what_a_linear_number_is_made_of(plain, share):
    number, true = linear(plain)
    found = relevance.rise(
        plain, PHOTO, target=number, at="features", masks=2000, share=share, batch=500
    )
    assert off(found.values, true) < 4 * found.about["error"] < 3 * float(true.abs().max())
    assert np.corrcoef(found.values, true)[0, 1] > 0.9
    again = relevance.rise(
        plain, PHOTO, target=number, at="features", masks=2000, share=share, batch=77
    )
    assert off(found.values, again.values) < 1e-4


def test_cells_of_a_mask_are_squares_that_are_shifted(plain):
    from mmlens.methods.picture_places import place_in
    from mmlens.methods.rise import drawn

    place = place_in(plain, PHOTO, None, lambda out: out.sum(), None, "features")
    keep = drawn(place, place.read(), 600, 0.5, 2, 0).view(600, 4, 4).float()
    assert not bool((keep[::2] == keep[1::2]).any())  # complements
    same = lambda a, b: float((keep[:, *a] == keep[:, *b]).float().mean())  # noqa: E731
    assert same((1, 1), (1, 2)) == pytest.approx(0.75, abs=0.06)  # in one cell half of the time
    assert same((0, 0), (0, 3)) == pytest.approx(0.5, abs=0.06)


# -- Grad-CAM --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net() -> Any:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm.create_model("resnet10t", pretrained=False, num_classes=3).eval()


@pytest.mark.parametrize("weights", ["mean", "each"])
def test_grad_cam_is_the_formula_on_the_net_itself(net, weights):
    model: Any = mm.from_parts(vision=net)
    found = relevance.grad_cam(model, PHOTO, 1, weights=weights, signed=True)
    pixels = model.read(PHOTO).pixels
    A = net.forward_features(pixels).detach().requires_grad_()
    slope = torch.autograd.grad(net.forward_head(A)[0, 1], A)[0]
    gain = slope.mean((2, 3), keepdim=True) if weights == "mean" else slope
    expected = (gain * A).sum(1).flatten().detach()
    assert off(found.values, expected) < 1e-5 * max(1.0, float(expected.abs().max()))
    cut = relevance.grad_cam(model, PHOTO, 1, weights=weights)
    assert off(cut.values, expected.clamp(min=0)) < 1e-5
    assert found.about["layer"] == model.vision.n_layers - 1


def test_grad_cam_asks_the_last_layer_whose_patches_are_read(clip):
    found = relevance.grad_cam(clip, PHOTO, "a dog")
    assert found.about["layer"] == clip.vision.n_layers - 2  # CLS alone is read behind the last
    assert all(isinstance(one, Patch) for one in found.of("pos"))
    with pytest.raises(MMLensError, match="depends on no patch at 'vision.resid_post'"):
        relevance.grad_cam(clip, PHOTO, "a dog", layer=clip.vision.n_layers - 1)


def test_grad_cam_in_the_language_model_finds_the_planted_patch():
    model = bridge("toy-gptj-planted")
    found = relevance.grad_cam(model, prompt(), " dog", after="", site="resid_post", weights="each")
    assert found.argmax() == {"pos": Patch(2, 1)} and found.about["layer"] == 1


# -- refusals --------------------------------------------------------------------------------------


def test_what_a_method_cannot_do_is_refused_in_one_sentence(clip, plain, net):
    model = bridge("toy-gpt2")
    with pytest.raises(MMLensError, match="no unit can be explained by it"):
        relevance.chefer(model, prompt(), mm.Neuron(1, 5))
    with pytest.raises(MMLensError, match="puts no picture into a prompt"):
        relevance.rollout(clip, PHOTO, at="soft_prompt")
    with pytest.raises(MMLensError, match="never holds an attention pattern"):
        relevance.rollout(mm.from_parts(vision=net), PHOTO)
    with pytest.raises(MMLensError, match="not the patches of its encoder one by one"):
        relevance.rollout(bridge("toy-tiled"), prompt(), at="pixels")
    with pytest.raises(MMLensError, match="does not fit into 4 x 4|side"):
        relevance.occlusion(model, prompt(), WORD, after="", side=5)
    with pytest.raises(MMLensError, match="a share between 0 and 1"):
        relevance.rise(model, prompt(), WORD, after="", share=1.0)
    with pytest.raises(MMLensError, match="show or cover some patch not once"):
        relevance.rise(model, prompt(), WORD, after="", masks=3, share=0.9)


# -- token activation map --------------------------------------------------------------------------


def test_the_token_activation_map_is_its_formula_word_by_word():
    model = bridge("toy-gpt2")
    with torch.no_grad():
        logits = model(prompt())[0].double().numpy()
    word = int(logits.clip(0).sum(0).argmax())  # said at most positions
    found = relevance.tam(model, prompt(), word, after="", denoise=False)
    ids = model.to_tokens(prompt())[0].tolist()
    own = np.maximum(logits[:16, word], 0)
    weights = [max(0.0, logits[at, word]) for at in range(16, len(ids))]
    maps = [np.maximum(logits[:16, ids[at]], 0) for at in range(16, len(ids))]
    mixed = np.array(weights) @ np.stack(maps) / sum(weights)
    scale = (own * mixed).sum() / (mixed**2).sum()
    assert np.allclose(found.values, np.maximum(own - scale * mixed, 0), atol=1e-4)
    assert found.about["interference"] == pytest.approx(scale, rel=1e-3)
    assert found.of("pos") == tuple(Patch(row, col) for row in range(4) for col in range(4))


def test_the_rank_filter_keeps_a_plain_map_and_weighs_sorted_neighbours_by_their_spread():
    from mmlens.methods.token_activation_map import rank_filtered

    labels = tuple(Patch(row, col) for row in range(3) for col in range(4))
    assert off(rank_filtered(torch.full((12,), 2.0), labels), torch.full((12,), 2.0)) < 1e-5
    values = torch.rand(12, generator=torch.Generator().manual_seed(0))
    grid = np.pad(values.view(3, 4).double().numpy(), 1, mode="reflect")
    window = np.sort(grid[1:4, 2:5].flatten())  # around (1, 2)
    weights = np.exp(-((np.arange(9) - 4) ** 2) / (2 * (window.std() / window.mean()) ** 2))
    expected = (window * weights / weights.sum()).sum()
    assert float(rank_filtered(values, labels)[6]) == pytest.approx(expected, rel=1e-4)
    corner = np.sort(grid[0:3, 0:3].flatten())
    weights = np.exp(-((np.arange(9) - 4) ** 2) / (2 * (corner.std() / corner.mean()) ** 2))
    assert float(rank_filtered(values, labels)[0]) == pytest.approx(
        (corner * weights / weights.sum()).sum(), rel=1e-4
    )


# -- measures --------------------------------------------------------------------------------------


def drawn_map(values: dict[Patch, float], side: int = 4) -> mm.Scores:
    labels = tuple(Patch(row, col) for row in range(side) for col in range(side))
    return mm.Scores(
        torch.tensor([values.get(one, 0.0) for one in labels]), ("pos",), {"pos": labels}
    )


def test_energy_is_the_share_of_a_map_on_the_thing_and_pointing_its_peak():
    model, mask = bridge("toy-gpt2"), np.zeros((32, 32), bool)
    mask[16:24, 12:24] = True  # half of the patch (2, 1), all of (2, 2)
    found = drawn_map({Patch(2, 1): 4.0, Patch(2, 2): 1.0, Patch(0, 0): 3.0, Patch(3, 3): -9.0})
    told = relevance.in_mask(model, found, mask, PHOTO)
    assert told == pytest.approx({"energy": 3 / 8, "pointing": 1.0, "area": 96 / 1024})
    coarse = drawn_map({Patch(1, 0): 1.0, Patch(1, 1): 2.0}, side=2)
    told = relevance.in_mask(model, coarse, mask, PHOTO)
    assert told["energy"] == pytest.approx((32 / 256 + 2 * 64 / 256) / 3)
    assert told["pointing"] == 0.0 and told["area"] == pytest.approx(96 / 1024)
    with pytest.raises(MMLensError, match="is no mask of this picture"):
        relevance.in_mask(model, found, mask[:8], PHOTO)


def test_the_curves_cover_and_show_a_linear_number_patch_by_patch(plain):
    number, true = linear(plain)
    labels = tuple(Patch(row, col) for row in range(4) for col in range(4))
    best = mm.Scores(true, ("pos",), {"pos": labels})
    curves = relevance.covering_curves(plain, PHOTO, best, target=number, at="features", steps=17)
    with torch.no_grad():
        whole = float(number(plain.run(PHOTO)[0]))
    bare = whole - float(true.sum())  # of the mean features alone
    gained = torch.cat([torch.zeros(1), true.sort(descending=True).values.cumsum(0)])
    assert off(curves.sel(curve="insertion").values, bare + gained) < 1e-3
    assert off(curves.sel(curve="deletion").values, whole - gained) < 1e-3
    worst = relevance.covering_curves(
        plain, PHOTO, best.with_values(-true), target=number, at="features", steps=17
    )
    area = lambda found, curve: found.sel(curve=curve).mean().item()  # noqa: E731
    assert area(curves, "deletion") < area(worst, "deletion")
    assert area(curves, "insertion") > area(worst, "insertion")
