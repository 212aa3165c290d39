"""The embedding of a picture as a sum of contributions, and the texts that heads vary along."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dual_twins import DUALS, MORE, TEXT, VIT, open_clip_twin
from PIL import Image

import mmlens as mm
from mmlens import Head, Patch, view
from mmlens.methods.text_span import greedy_texts
from mmlens.values.errors import AddressError, ArgumentError, CapabilityError, PictureError

pytest.importorskip("open_clip")
DRAW = np.random.default_rng(0)
PHOTOS = [Image.fromarray((DRAW.random((40, 56, 3)) * 255).astype("uint8")) for _ in range(6)]
DOGS = ["a photo of a dog", "two cats"]
MEAN_POOLED = {
    "mean, norm before": lambda: open_clip_twin(VIT | {"pool_type": "avg"}),
    "mean, norm after": lambda: open_clip_twin(
        VIT | {"pool_type": "avg", "final_ln_after_pool": True}
    ),
}
ATTENDING = [
    *("open_clip ViT", "open_clip SigLIP", "open_clip CoCa", "transformers CLIP"),
    *("transformers SigLIP", "AltCLIP", "EVA02", *MEAN_POOLED),
]
KEPT = {}


def made(name: str) -> mm.HookedDualEncoder:
    """Each twin once."""
    if name not in KEPT:
        parts = (DUALS | MORE | MEAN_POOLED)[name]()
        KEPT[name] = mm.from_model(*parts, name=name)
    return KEPT[name]


@pytest.fixture
def clip() -> mm.HookedDualEncoder:
    return made("open_clip ViT")


# -- the sum ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTENDING)
def test_the_parts_add_up_to_the_embedding_and_along_texts_to_the_cosines(name):
    model, photos = made(name), PHOTOS[:3]
    parts = mm.decompose(model, photos)
    off = parts.sum("part").values - mm.embed(model, photos)
    assert off.abs().max() < 1e-5
    along = mm.decompose(model, photos, along=DOGS, batch=2)
    cosines = mm.zero_shot(model, photos, DOGS).sel(quantity="cosine")
    assert along.axes == ("picture", "part", "text") and along.of("text") == tuple(DOGS)
    assert torch.allclose(along.sum("part").values, cosines.values, atol=1e-5)


@pytest.mark.parametrize("name", ATTENDING)
def test_heads_with_their_bias_are_attention_and_source_positions_are_heads(name):
    model, photos = made(name), PHOTOS[:2]
    heads = mm.decompose(model, photos, by="head", along=DOGS)
    patches = mm.decompose(model, photos, by="patch", along=DOGS)
    assert torch.allclose(patches.sum("pos").values, heads.values, atol=1e-5)
    part = mm.decompose(model, photos, along=DOGS)
    layers = range(len(heads.of("layer")))
    attention = torch.stack([part.sel(part=f"attn {at}").values for at in layers], 1)
    bias = attention - heads.sum("head").values
    assert bias.abs().max() > 1e-6  # every twin has one, and it isn't shared out among heads
    whole = mm.decompose(model, photos, by="pos", along=DOGS).sum("pos").values
    rest = mm.decompose(model, photos, along=DOGS).sel(part="rest").values
    assert torch.allclose(whole + rest, part.sum("part").values, atol=1e-5)


def test_what_is_behind_the_last_layer_varies_only_where_the_pooling_writes_itself():
    """SigLIP's pooling ends with an MLP, CoCa's attention has a bias before the last norm."""
    told = {name: mm.decompose(made(name), PHOTOS[0]).about["rest"] for name in ATTENDING}
    varies = {name for name, rest in told.items() if rest == "depends on the picture"}
    assert varies == {"open_clip SigLIP", "transformers SigLIP", "open_clip CoCa"}


def by_hand(model, photo) -> dict[str, torch.Tensor]:
    """Contributions in open_clip's ViT with a CLS token, from weights and eq. 3 to 8 of the paper.

    Returns:
        "head" Float[layer, head, d_embed], "mlp" Float[layer, d_embed].
    """
    visual = model.vision.whole
    n = len(visual.transformer.resblocks)
    names = [
        f"vision.blocks.{at}.{kind}" for at in range(n) for kind in ("attn.hook_z", "hook_mlp_out")
    ]
    last = f"vision.blocks.{n - 1}.hook_resid_post"
    cache = model.run_with_cache(photo, names_filter=lambda name: name in [*names, last])[1]
    norm, x = visual.ln_post, cache[last][0, 0]
    deviation = (x.var(unbiased=False) + norm.eps).sqrt()
    length = ((norm(x)) @ visual.proj).norm()

    def carried(write: torch.Tensor) -> torch.Tensor:
        centred = write - write.mean(-1, keepdim=True)
        return (centred / deviation * norm.weight) @ visual.proj / length

    heads = []
    for at, block in enumerate(visual.transformer.resblocks):
        z = cache[f"vision.blocks.{at}.attn.hook_z"][0, 0]  # head, d_head
        weight = block.attn.out_proj.weight.T.unflatten(0, z.shape)
        heads.append(carried(torch.einsum("he,hed->hd", z, weight)))
    mlps = [carried(cache[f"vision.blocks.{at}.hook_mlp_out"][0, 0]) for at in range(n)]
    return {"head": torch.stack(heads), "mlp": torch.stack(mlps)}


def test_the_shares_are_those_of_the_papers_equations(clip):
    with torch.no_grad():
        hand = by_hand(clip, PHOTOS[0])
    heads = mm.decompose(clip, PHOTOS[0], by="head")
    assert torch.allclose(heads.values, hand["head"], atol=1e-5)
    mlps = mm.decompose(clip, PHOTOS[0]).sel(part=["mlp 0", "mlp 1", "mlp 2"])
    assert torch.allclose(mlps.values, hand["mlp"], atol=1e-5)
    one = mm.decompose(clip, PHOTOS[0], by="head", layer=[2])
    assert one.of("layer") == (2,) and torch.allclose(one.values, heads.values[2:], atol=1e-6)


def test_a_layer_scale_belongs_to_what_a_head_writes():
    model = mm.from_model(*open_clip_twin(VIT | {"ls_init_value": 0.3}), name="scaled")
    heads = mm.decompose(model, PHOTOS[:2], by="head")
    part = mm.decompose(model, PHOTOS[:2])
    differs = heads.values[0].sum(1) - heads.values[1].sum(1)  # without biases, up to the length
    assert heads.values.abs().max() > 1e-4 and differs.abs().max() > 1e-6
    assert torch.allclose(part.sum("part").values, mm.embed(model, PHOTOS[:2]), atol=1e-5)


def test_an_encoder_without_heads_has_shares_by_position_and_unit():
    model = made("EfficientNet")
    units = mm.decompose(model, PHOTOS[:2], by="unit")
    spots = mm.decompose(model, PHOTOS[:2], by="pos")
    seen = mm.embed(model, PHOTOS[:2])
    assert torch.allclose(units.sum("unit").values, seen, atol=1e-5)
    assert torch.allclose(spots.sum("pos").values, seen, atol=1e-5)
    with pytest.raises(CapabilityError, match="by='pos' or by='unit'"):
        mm.decompose(model, PHOTOS[0])


def test_an_edited_model_is_decomposed_as_it_is(clip):
    silent = clip.edit(mm.Edit("vision.z", 0.0, Head(1, 1, "vision")))
    heads = mm.decompose(silent, PHOTOS[0], by="head")
    assert heads.sel(layer=1, head=1).values.abs().max() < 1e-6
    assert torch.allclose(
        mm.decompose(silent, PHOTOS[0]).sum("part").values,
        mm.embed(silent, PHOTOS[0])[0],
        atol=1e-5,
    )


# -- what is made of the shares --------------------------------------------------------------------


def test_the_heat_map_sums_to_what_the_patches_moved(clip):
    shares = mm.decompose(clip, PHOTOS[0], by="patch", along=DOGS[0])
    heat = mm.heat_map(shares)
    assert heat.axes == ("pos",) and len(heat.of("pos")) == 16
    cls = shares.values.sum((0, 1))[0]
    assert torch.allclose(heat.values.sum() + cls, shares.values.sum(), atol=1e-6)
    figure = view.show(heat, PHOTOS[0])
    assert type(figure).__name__ == "Figure"
    with pytest.raises(AddressError, match="no axis pos"):
        mm.heat_map(mm.decompose(clip, PHOTOS[0]))


def test_a_mean_ablated_part_is_its_mean_over_pictures(clip):
    shares = mm.decompose(clip, PHOTOS)
    ours = mm.mean_ablated(shares, part=["mlp 0", "attn 2"])
    hand = mm.embed(clip, PHOTOS)
    for part in ("mlp 0", "attn 2"):
        own = shares.sel(part=part).values
        hand = hand - own + own.mean(0)
    assert torch.allclose(ours.values, hand, atol=1e-5)
    heads = mm.decompose(clip, PHOTOS, by="head")
    one = mm.mean_ablated(heads, Head(2, 1, "vision"))
    own = heads.values[:, 2, 1]
    assert torch.allclose(one.values, heads.values.sum((1, 2)) - own + own.mean(0), atol=1e-5)
    single = mm.decompose(clip, PHOTOS[0])
    same = mm.mean_ablated(single, part="mlp 0", mean=shares)
    assert torch.allclose(same.values, hand_of(shares, "mlp 0"), atol=1e-5)
    with pytest.raises(AddressError, match="shares of one picture"):
        mm.mean_ablated(single, part="mlp 0")
    with pytest.raises(AddressError, match="nothing to replace"):
        mm.mean_ablated(shares)


def hand_of(shares, part: str) -> torch.Tensor:
    own = shares.sel(part=part).values
    return shares.values[0].sum(0) - own[0] + own.mean(0)


# -- TextSpan --------------------------------------------------------------------------------------


def greedily(data: torch.Tensor, texts: torch.Tensor, k: int, rank: int):
    """The authors' procedure on the data themselves: chosen texts and what is left of the data."""
    _, _, vh = torch.linalg.svd(data, full_matrices=False)
    rows = texts @ vh[:rank].T @ vh[:rank]
    left, chosen = data - data.mean(0), []
    for _ in range(k):
        j = int((left @ rows.T).var(0).argmax())
        unit = rows[j] / rows[j].norm()
        left = left - torch.outer(left @ unit, unit)
        rows = rows - torch.outer(rows @ unit, unit)
        chosen.append(j)
    return chosen, left


def test_moments_choose_the_texts_that_the_data_choose():
    draw = torch.Generator().manual_seed(0)
    data = torch.randn(60, 6, generator=draw, dtype=torch.float64) @ torch.randn(
        6, 12, generator=draw, dtype=torch.float64
    ) + torch.linspace(-2, 3, 12)
    texts = F.normalize(torch.randn(40, 12, generator=draw, dtype=torch.float64), dim=1)
    chosen, left = greedily(data, texts, 4, 6)
    mean, spread = data.mean(0), (data - data.mean(0)).T.cov(correction=0)
    found = greedy_texts(spread, mean, texts, 4, 6)
    assert [j for j, _, _ in found] == chosen
    whole = (data - mean).square().sum()
    assert found[-1][2] == pytest.approx(float(1 - left.square().sum() / whole))


def test_moments_of_a_stream_are_those_of_all_contributions(clip):
    mean, spread = mm.head_moments(clip, (photo for photo in PHOTOS), batch=4, layer=[1, 2])
    every = mm.decompose(clip, PHOTOS, by="head", layer=[1, 2]).values.double()
    assert torch.allclose(mean.values, every.mean(0), atol=1e-6)
    away = every - every.mean(0)
    assert torch.allclose(
        spread.values, torch.einsum("blhd,blhe->lhde", away, away) / len(PHOTOS), atol=1e-6
    )
    assert mean.axes == ("layer", "head", "dim") and mean.of("layer") == (1, 2)


def planted(text: str) -> mm.HookedDualEncoder:
    """A twin whose head 1 of layer 2 can move the embedding only along that of a text."""
    parts = open_clip_twin(VIT, TEXT)
    model = mm.from_model(*parts, name="planted")
    visual = parts[0].visual
    carried = (torch.eye(24) - 1 / 24) @ torch.diag(visual.ln_post.weight) @ visual.proj
    wanted = mm.embed(model, text)[0]
    write = torch.linalg.lstsq(carried.T, wanted[:, None]).solution[:, 0]
    with torch.no_grad():
        visual.transformer.resblocks[2].attn.out_proj.weight[:, 12:] = torch.outer(
            write, torch.linspace(-1, 1, 12)
        )
    return mm.from_model(*parts, name="planted")


def test_a_planted_head_is_explained_by_its_text():
    text = "a drawing of a banana"
    pool = ["two cats", "a red dog", "a word", text, "the picture of cats"]
    table = mm.text_span(planted(text), PHOTOS, pool, layer=[1, 2], k=2)
    head = table[table["head"] == Head(2, 1, "vision")]
    assert head["text"].iloc[0] == text and head["explained"].iloc[0] > 0.999
    others = table[table["head"] == Head(2, 0, "vision")]
    assert others["explained"].iloc[0] < 0.9 and others["explained"].is_monotonic_increasing
    html = view.show(table)
    assert text in str(html) and "vision.L2H1" in str(html)


def test_heads_of_one_embedding_direction_stop_early():
    direction = torch.zeros(4, dtype=torch.float64)
    direction[0] = 1.0
    found = greedy_texts(
        torch.outer(direction, direction), direction * 0, torch.eye(4).double(), 3, 1
    )
    assert len(found) == 1 and found[0][0] == 0 and found[0][2] == pytest.approx(1.0)


# -- texts, and means ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["open_clip ViT", "transformers CLIP", "transformers SigLIP"])
def test_the_shares_of_texts_add_up_to_their_embeddings_and_cosines(name):
    model = made(name)
    parts = mm.decompose(model, DOGS, tower="text")
    assert (parts.sum("part").values - mm.embed(model, DOGS)).abs().max() < 1e-5
    cosines = mm.zero_shot(model, PHOTOS[:2], DOGS).sel(quantity="cosine").values
    along = mm.decompose(model, DOGS, tower="text", along=PHOTOS[:2], batch=1)
    assert along.axes == ("prompt", "part", "picture")
    assert torch.allclose(along.sum("part").values, cosines.T, atol=1e-5)
    heads = mm.decompose(model, DOGS, tower="text", by="head", along=PHOTOS[0])
    words = mm.decompose(model, DOGS, tower="text", by="patch", along=PHOTOS[0])
    assert torch.allclose(words.sum("pos").values, heads.values, atol=1e-5)
    one = mm.decompose(model, DOGS[0], tower="text", by="pos", along=PHOTOS[0])
    rest = along.sel(prompt=0, picture=0, part="rest").values
    assert torch.allclose(one.sum("pos").values + rest, cosines[0, 0], atol=1e-5)
    assert "dog" in map(str, one.of("pos"))


def test_a_head_of_a_text_is_its_value_through_open_clips_own_weights(clip):
    text, tower, ids = clip.text.module, clip.text, clip.read(DOGS[0]).ids
    last, end = tower.n_layers - 1, int(ids[0].argmax())
    names = [f"text.blocks.{last}.{point}" for point in ("attn.hook_z", "hook_resid_post")]
    cache = clip.run_with_cache(DOGS[0], names_filter=lambda name: name in names)[1]
    z, x = cache[names[0]][0, end], cache[names[1]][0, end]
    weight = tower._blocks[last].attn.out_proj.weight.T.unflatten(0, z.shape)[1]
    norm = text.ln_final
    deviation = (x.var(unbiased=False) + norm.eps).sqrt()
    write = z[1] @ weight
    hand = ((write - write.mean()) / deviation * norm.weight) @ text.text_projection
    hand = hand / (norm(x) @ text.text_projection).norm()
    head = mm.decompose(clip, DOGS[0], tower="text", by="head", layer=[last]).values[0, 1]
    assert torch.allclose(head, hand.detach(), atol=1e-5)


def test_a_mean_over_a_stream_is_that_of_all_shares(clip):
    every = mm.decompose(clip, PHOTOS, by="part")
    mean = mm.decompose(clip, iter(PHOTOS), mean=True, batch=4)
    assert mean.axes == ("part", "dim") and mean.about["mean of"] == 6
    assert torch.allclose(mean.values, every.mean("picture").values, atol=1e-6)
    ablated = mm.mean_ablated(every, part="mlp 0", mean=mean)
    assert torch.allclose(ablated.values, mm.mean_ablated(every, part="mlp 0").values, atol=1e-6)


# -- refusals --------------------------------------------------------------------------------------


def test_what_cannot_be_decomposed_is_refused_in_a_sentence(clip):
    with pytest.raises(CapabilityError, match="no units"):
        mm.decompose(clip, PHOTOS[0], by="unit")
    with pytest.raises(ArgumentError, match="by="):
        mm.decompose(clip, PHOTOS[0], by="layer")
    with pytest.raises(ArgumentError, match="16 numbers"):
        mm.decompose(clip, PHOTOS[0], along=torch.ones(3))
    with pytest.raises(PictureError):
        mm.decompose(clip, "no-such-picture.png")
    with pytest.raises(ArgumentError, match="at least two"):
        mm.head_moments(clip, PHOTOS[:1])
    with pytest.raises(ArgumentError, match="k="):
        mm.text_span(clip, PHOTOS, DOGS, k=3)
    with pytest.raises(CapabilityError, match="compares pictures with texts"):
        mm.decompose(mm.load("toy-gptj"), PHOTOS[0])


def test_a_norm_over_heads_is_noticed(clip):
    model = mm.from_model(*open_clip_twin(VIT), name="normed")
    attn = model.vision._blocks[1].attn
    attn.register_forward_hook(
        lambda module, args, out: (F.layer_norm(out[0], out[0].shape[-1:]), None)
    )
    with pytest.raises(CapabilityError, match="does not add up"):
        mm.decompose(model, PHOTOS[0], by="head")
    assert Patch in {type(one) for one in mm.decompose(model, PHOTOS[0], by="pos").of("pos")}
