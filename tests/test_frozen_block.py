"""A frozen block behind an encoder: no positions, no causality; its weights stay; what stands out.

The second route is the layer of transformers itself, called with a zero mask and equal positions.
"""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import pytest
import torch
from bridges import KINDS, bridge, off
from native_twins import TWINS, twin
from PIL import Image
from torch import nn

import mmlens as mm
from mmlens.families import toy
from mmlens.towers.language.block_alone import BlockAlone
from mmlens.train import (
    DataError,
    FrozenBlock,
    fit_frozen_block,
    frozen_block_fit,
    patch_features,
)
from mmlens.train.frozen_block import ARMS
from mmlens.values.errors import (
    AddressError,
    ArgumentError,
    CapabilityError,
    CheckpointError,
    NumericsError,
)

NATIVE = ("llava_next", "gemma3", "internvl")
NEWER = ("qwen2_5_vl", "pixtral", "glm4v", "gemma4", "aya_vision")
PICTURES = [toy.picture((row, col)) for row in range(4) for col in range(4)]
LABELS = ["top" if at < 8 else "bottom" for at in range(16)]


def native(name: str) -> Any:
    """A twin, or a skip where these packages cannot read it."""
    if name not in TWINS:
        pytest.skip(f"{name} needs newer packages")
    try:
        return mm.from_model(*twin(name))
    except CapabilityError as error:
        pytest.skip(str(error))


def told_by(block: BlockAlone) -> dict[str, Any]:
    """The weights that a block computes with, under all their names."""
    return dict(block.module.named_parameters(remove_duplicate=False))


def some(model: Any, width: int | None = None, n: int = 6) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(2, n, width or int(model.lm.cfg.d_model), generator=draw)


def size(x: torch.Tensor) -> float:
    return float(x.detach().std())


ORDER = torch.tensor([4, 2, 0, 5, 1, 3])


def check_no_position(model: Any) -> None:
    """Permuted patches give permuted outputs, every patch sees every other, rows stay apart."""
    for layer in (0, -1):
        layered = FrozenBlock(model, layer)
        x = some(model, layered.before.in_features)
        with torch.no_grad():
            y = layered(x)
            assert off(y[:, ORDER], layered(x[:, ORDER])) < 1e-5 * size(y)
            assert off(y[1:], layered(x[1:])) < 1e-5 * size(y)
            for here, there in ((0, 5), (5, 0)):
                other = x.clone()
                other[:, there] += 1 + x[:, there].abs()
                assert off(layered(other)[:, here], y[:, here]) > 1e-4 * size(y)


@pytest.mark.parametrize("kind", KINDS)
def test_permuted_patches_give_permuted_outputs(kind):
    check_no_position(bridge(f"toy-{kind}"))


@pytest.mark.parametrize("name", NATIVE + NEWER)
def test_permuted_patches_give_permuted_outputs_in_whole_models(name):
    check_no_position(native(name))


@pytest.mark.parametrize("kind", ["gptj", "gpt2", "gpt-neox"])
def test_a_block_of_a_hooked_transformer_is_that_of_the_bridge(kind):
    try:
        other = bridge(f"toy-{kind}", backend="hooked_transformer")
    except CapabilityError as error:
        pytest.skip(str(error))
    check_no_position(other)
    x = some(other)
    wanted = BlockAlone(bridge(f"toy-{kind}").lm, 1)(x)
    assert off(BlockAlone(other.lm, 1)(x), wanted) < 1e-5
    first = bridge(f"toy-{kind}").run("a dog")  # and the model still looks one way
    assert off(other.run("a dog"), first) < 1e-4


LAYERS = {"gpt2": "transformer.h", "gptj": "transformer.h", "gpt-neox": "gpt_neox.layers",
          "opt": "model.decoder.layers"}  # fmt: skip


def directly(hf: Any, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The layer of transformers with a mask of zeros and the same position everywhere."""
    n = x.shape[1]
    told: dict[str, Any] = {"attention_mask": torch.zeros(len(x), 1, n, n)}
    known = inspect.signature(layer.forward).parameters
    places = torch.full((len(x), n), 3)
    if "position_ids" in known:
        told["position_ids"] = places
    rotary = [m for name, m in hf.named_modules() if name.endswith("rotary_emb")]
    if rotary and "position_embeddings" in known:
        told["position_embeddings"] = rotary[0](x, places)
    with torch.no_grad():
        out = layer(x, **told)
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_is_the_layer_of_transformers_without_mask_and_positions(kind):
    model = bridge(f"toy-{kind}")
    layers = model.lm.hf.get_submodule(LAYERS.get(kind, "model.layers"))
    x = some(model)
    for at in range(model.cfg.n_layers):
        assert off(BlockAlone(model.lm, at)(x), directly(model.lm.hf, layers[at], x)) < 1e-5


@pytest.mark.parametrize("arm", ["block", "random block"])
def test_a_gradient_passes_the_block_and_leaves_its_weights(arm):
    model = copy.deepcopy(bridge("toy-llama"))
    model.lm.root.double()
    layered = FrozenBlock(model, 1, arm=arm).double()
    weights = {name: one.clone() for name, one in model.lm.root.named_parameters()}
    x = some(model, layered.before.in_features).double()
    loss = lambda: layered(x).pow(2).sum()  # noqa: E731
    value = loss()
    value.backward()
    gradient = layered.before.weight.grad
    assert gradient is not None
    weight, step = layered.before.weight, 1e-3  # norms and softmax are taken in float32
    with torch.no_grad():
        for row, col in ((0, 0), (7, 3), (31, 15)):
            weight[row, col] += step
            up = float(loss())
            weight[row, col] -= 2 * step
            down = float(loss())
            weight[row, col] += step
            wanted = (up - down) / (2 * step)
            assert float(gradient[row, col]) == pytest.approx(wanted, rel=1e-2, abs=1e-2)
    assert all(one.grad is None for one in model.lm.root.parameters())
    torch.optim.AdamW(layered.parameters(), lr=0.1).step()
    assert all(torch.equal(one, weights[n]) for n, one in model.lm.root.named_parameters())
    assert set(layered.state_dict()) == {"before.weight", "after.weight"}


@pytest.mark.parametrize("kind", ["llama", "gptj", "gpt2"])
def test_a_block_that_writes_nothing_is_the_two_linears_alone(kind):
    model = copy.deepcopy(bridge(f"toy-{kind}"))
    last = ("o_proj", "down_proj", "c_proj", "out_proj", "fc_out")
    hf = model.lm.hf
    silent = 0
    with torch.no_grad():
        for name, weight in model.lm.root.blocks[1].named_parameters():
            if name.replace("_original_component.", "").split(".")[-2] in (*last, "out", "o"):
                weight.zero_()
                silent += 1
    assert silent >= 2 and hf is not None
    layered, plain = (FrozenBlock(model, 1, arm=arm) for arm in ("block", "linears"))
    x = some(model, layered.before.in_features)
    assert off(layered(x), plain(x)) < 1e-6
    assert off(FrozenBlock(model, 0)(x), plain(x)) > 0.01


def test_a_random_block_has_the_spread_of_the_weights_and_a_seed():
    lm = bridge("toy-gptj").lm
    one, same, other = (BlockAlone(lm, 1, drawn=seed) for seed in (0, 0, 1))
    x, own, held = some(bridge("toy-gptj")), BlockAlone(lm, 1), told_by(one)
    before = own(x)
    assert torch.equal(one(x), same(x)) and off(one(x), other(x)) > 0.1
    assert torch.equal(own(x), before)  # the model's own block is as it was
    assert all(weight is held[name] for name, weight in told_by(one).items())
    assert off(one(x), BlockAlone(lm, 1)(x)) > 0.1 and one.weights is not None
    for name, drawn in one.weights.items():
        own = dict(one.module.named_parameters())[name]
        assert drawn.shape == own.shape
        if own.numel() > 500:
            assert float(drawn.std()) == pytest.approx(float(own.std()), rel=0.1)


def test_arms_begin_with_the_same_linears():
    arms = [FrozenBlock(bridge("toy-qwen"), arm=arm, seed=3).state_dict() for arm in ARMS]
    assert all(torch.equal(arms[0][name], one[name]) for one in arms[1:] for name in one)


@pytest.mark.parametrize(
    ("name", "layer"), [("qwen3_5", 0), ("lfm2_vl", 0), ("mllama", 1), ("idefics", 0)]
)
def test_a_block_of_another_kind_is_refused(name, layer):
    model = native(name)
    with pytest.raises(CapabilityError, match=f"Block {layer} .* something else with positions"):
        FrozenBlock(model, layer)


def test_what_has_no_block_is_refused():
    with pytest.raises(CapabilityError, match="something else with positions"):
        FrozenBlock(mm.load("toy-cross"))
    model = bridge("toy-gptj")
    with pytest.raises(AddressError):
        FrozenBlock(model, 3)
    with pytest.raises(ArgumentError, match="arm"):
        FrozenBlock(model, arm="none")
    with pytest.raises(CapabilityError, match="edits"):
        FrozenBlock(model.edit(mm.Edit("mlp_out", 0.0, layer=0)))
    with pytest.raises(ArgumentError, match="Float"):
        FrozenBlock(model).states(torch.zeros(2, 3, 5))
    with pytest.raises(CapabilityError, match="encoder"):
        FrozenBlock(mm.load("pictos-clip"))


# -- training -------------------------------------------------------------------------------------

HOW: dict[str, Any] = {"steps": 12, "batch_size": 6, "save_every": 4, "progress": False}


def planted() -> tuple[list[Any], list[str]]:
    """Plain pictures of two colours: what differs in every patch."""
    colours = ("red", "white", "white", "white")
    pictures = [Image.new("RGB", (32, 32), colour) for colour in colours]
    return pictures, ["a", "b", "b", "b"]


@pytest.mark.parametrize("arm", ARMS)
def test_a_training_learns_and_says_where_it_is_from(arm, tmp_path):
    from safetensors import safe_open

    pictures, labels = planted()
    more = HOW | {"steps": 60, "lr": 0.03, "batch_size": 4}
    found = fit_frozen_block(bridge("toy-llama"), pictures, labels, out=tmp_path / "new", arm=arm,
                             layer=1, **more)  # fmt: skip
    assert found.curve["loss"].iloc[-1] < 0.3 < found.curve["loss"].iloc[0]
    assert found.predict(pictures) == labels and found.logits(pictures).shape == (4, 2)
    trained = found.about["trained"]
    assert (trained["arm"], trained["layer"], trained["classes"]) == (arm, 1, ["a", "b"])
    with safe_open(tmp_path / "new" / "frozen_block.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("layer.after.weight"), found.layer.after.weight)
        assert "toy-llama" in file.metadata()["about"]


def test_a_stopped_training_goes_on_to_the_same_bits_and_reads_no_picture_again(
    tmp_path, monkeypatch
):
    model = bridge("toy-gptj")
    whole = fit_frozen_block(model, PICTURES, LABELS, out=tmp_path / "a", **HOW)
    read: list[int] = []
    real = patch_features.features_of
    monkeypatch.setattr(patch_features, "features_of", lambda *args: read.append(1) or real(*args))
    steps: list[int] = []
    loss = frozen_block_fit._loss

    def stopping(*args: Any) -> float:
        if len(steps) == 6:
            raise KeyboardInterrupt
        steps.append(1)
        return loss(*args)

    monkeypatch.setattr(frozen_block_fit, "_loss", stopping)
    again: dict[str, Any] = {"out": tmp_path / "b", "cache": tmp_path / "cache", **HOW}
    with pytest.raises(KeyboardInterrupt):
        fit_frozen_block(model, PICTURES, LABELS, **again)
    assert len(read) == len(PICTURES)
    steps.clear()
    monkeypatch.setattr(frozen_block_fit, "_loss", lambda *args: steps.append(1) or loss(*args))
    found = fit_frozen_block(model, PICTURES, LABELS, **again)
    assert len(steps) == 8 and len(read) == len(PICTURES)  # from the checkpoint at step 4
    for name, one in whole._whole.state_dict().items():
        assert torch.equal(one, found._whole.state_dict()[name])
    assert whole.curve.equals(found.curve)
    fit_frozen_block(model, PICTURES, LABELS, **again)
    assert len(steps) == 8
    with pytest.raises(CheckpointError, match="seed"):
        fit_frozen_block(model, PICTURES, LABELS, **again, seed=1)
    with pytest.raises(CheckpointError, match="labels"):
        fit_frozen_block(model, PICTURES, LABELS[::-1], **again)


def test_a_mean_loss_does_not_hang_on_how_pictures_of_several_sizes_are_grouped():
    model = bridge("toy-opt")
    whole = frozen_block_fit._Classifier(FrozenBlock(model), 2, 0)
    draw = torch.Generator().manual_seed(0)
    width = whole.layer.before.in_features
    features = [torch.randn(n, width, generator=draw) for n in (4, 6, 4, 5)]
    target = torch.tensor([0, 1, 1, 0])
    value = frozen_block_fit._loss(whole, features, target)
    alone = [
        nn.functional.cross_entropy(whole(one[None]), target[[at]])
        for at, one in enumerate(features)
    ]
    assert value == pytest.approx(float(torch.stack(alone).mean()), abs=1e-5)


def test_every_picture_is_seen_once_before_one_is_seen_again():
    recipe = frozen_block_fit.TrainingRecipe(8, 6)
    rows = [at for step in range(8) for at in frozen_block_fit._rows(16, recipe, step)]
    assert [sorted(rows[at : at + 16]) for at in (0, 16, 32)] == [list(range(16))] * 3
    assert rows[:16] != rows[16:32]


def test_what_trains_nothing_is_refused(tmp_path):
    model = bridge("toy-gptj")
    for labels in (LABELS[:3], ["a"] * 16):
        with pytest.raises(DataError, match="classes"):
            fit_frozen_block(model, PICTURES, labels, out=tmp_path, **HOW)
    with pytest.raises(DataError, match="steps"):
        fit_frozen_block(model, PICTURES, LABELS, out=tmp_path, steps=0)
    more: dict[str, Any] = {**HOW, "lr": 1e30}
    with pytest.raises(NumericsError, match="lr="):
        fit_frozen_block(model, PICTURES, LABELS, out=tmp_path, **more)


# -- what stands out ------------------------------------------------------------------------------


def tokens(n: int = 40, dim: int = 24, apart: float = 4.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens around one vector, of which some lie elsewhere: features and mask."""
    draw = torch.Generator().manual_seed(0)
    f = torch.randn(dim, generator=draw) * 3 + 0.1 * torch.randn(n, dim, generator=draw)
    mask = torch.zeros(n, dtype=torch.bool)
    mask[5:11] = True
    f[mask] += apart * torch.randn(dim, generator=draw)
    return f, mask


def test_planted_tokens_stand_out_in_both_quantities():
    f, mask = tokens()
    found = mm.information_filtering(f, mask, [0.3, 0.5])
    assert list(found["iou"]) == [1.0] * 4 and set(found["high"]) == {6}
    part = mask.clone()
    part[5:8] = False
    assert list(mm.information_filtering(f, part)["iou"]) == [0.5, 0.5]
    assert list(mm.information_filtering(f, ~mask)["iou"]) == [0.0, 0.0]


def test_activity_is_the_closed_form():
    """By loops: |f - mean|, and distances of the phases of a Fourier sum written out."""
    f, _ = tokens(7, 5)
    f = f.double()
    found = mm.token_activity(f)
    magnitude, frequency = found.values
    n, dim = f.shape
    phases = torch.zeros(n, dim, dtype=torch.complex128)
    for t in range(n):
        for k in range(dim):
            turn = [complex(math.cos(a), -math.sin(a)) for a in
                    (2 * math.pi * k * d / dim for d in range(dim))]  # fmt: skip
            total = sum(complex(float(f[t, d])) * turn[d] for d in range(dim))
            phases[t, k] = torch.tensor(total / abs(total), dtype=phases.dtype)
    for t in range(n):
        wanted = float((f[t] - f.mean(0)).norm())
        assert float(magnitude[t]) == pytest.approx(wanted, rel=1e-5)
        wanted = float((phases[t] - phases.mean(0)).abs().pow(2).sum().sqrt())
        assert float(frequency[t]) == pytest.approx(wanted, rel=1e-5)
    assert found.axes == ("quantity", "pos") and found.of("quantity") == ("magnitude", "frequency")


def test_magnitude_knows_the_scale_and_frequency_does_not():
    f, _ = tokens()
    one, other = mm.token_activity(f).values, mm.token_activity(2 * f).values
    assert torch.allclose(other[0], 2 * one[0]) and torch.allclose(other[1], one[1], atol=1e-5)


def test_where_no_token_differs_none_is_high():
    for f in (torch.zeros(4, 8), torch.full((4, 8), 0.1), torch.randn(1, 8).expand(4, 8)):
        assert not mm.token_activity(f).values.any()
        found = mm.information_filtering(f, torch.tensor([True, False, False, False]))
        assert list(found["high"]) == [0, 0] and list(found["iou"]) == [0.0, 0.0]


def test_what_is_no_picture_of_tokens_is_refused():
    f, mask = tokens()
    with pytest.raises(ArgumentError, match="token"):
        mm.token_activity(torch.zeros(0, 3))
    with pytest.raises(NumericsError):
        mm.token_activity(f * float("nan"))
    for wrong in (mask[:3], torch.zeros_like(mask), mask.float()):
        with pytest.raises(ArgumentError, match="mask"):
            mm.information_filtering(f, wrong)
    with pytest.raises(ArgumentError, match="threshold"):
        mm.information_filtering(f, mask, 1.0)
