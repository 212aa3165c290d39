"""Attention heads in words: sums that must hold, a planted head, and a lens that was trained."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
import torch
from bridges import bridge, off, prompt

import mmlens as mm
from mmlens import Patch
from mmlens.methods.attention_lens import direct_maps, heads_at
from mmlens.values.errors import AddressError, CheckpointError

KINDS = ("gptj", "llama", "gpt2")


@pytest.mark.parametrize("kind", KINDS)
def test_read_directly_the_heads_add_up_to_what_attention_writes(kind):
    model, asked = bridge(f"toy-{kind}"), prompt()
    words = list(range(model.lm.n_words))
    for layer in (0, 2):
        said = mm.head_lens(model, asked, words, layer=layer, pos=[3, -1])
        out = mm.activations(model, asked, "attn_out", layer=layer, pos=[3, -1]).values
        bias = getattr(model.root.blocks[layer].attn, "b_O", None)
        wrote = out - bias if isinstance(bias, torch.Tensor) else out
        with torch.no_grad():
            read = wrote @ model.W_U[:, : len(words)]
        assert off(said.values.sum(0), read) < 1e-4 * float(read.abs().max()) + 1e-5


def test_what_a_head_says_is_what_silencing_it_takes_from_attention():
    model, asked = bridge("toy-llama"), prompt()
    said = mm.head_lens(model, asked, [" dog", 7], layer=1)
    before = mm.activations(model, asked, "attn_out", layer=1, pos=-1).values
    for head in said.of("head"):
        silent = model.edit(mm.Edit("z", 0.0, mm.Head(1, head)))
        lost = before - mm.activations(silent, asked, "attn_out", layer=1, pos=-1).values
        read = lost @ model.W_U[:, [model.to_single_token(" dog"), 7]]
        assert off(said.sel(head=head, pos=-1).values, read) < 1e-4


def planted() -> tuple[mm.HookedVLM, int]:
    """A GPT-J whose head 2 of layer 2 writes " dog" and nothing else, as often as its sum says."""
    model = mm.load("toy-gptj")
    word = model.to_single_token(" dog")
    attention = model.lm.hf.transformer.h[2].attn
    up = model.W_U[:, word] / model.W_U[:, word].norm()
    size = model.cfg.d_head
    with torch.no_grad():
        attention.out_proj.weight[:, 2 * size : 3 * size] = 3 * up[:, None]
    return model, word


def test_a_planted_head_says_its_word():
    model, word = planted()
    z = mm.activations(model, prompt(), "z", layer=2, pos=-1).values
    sign = float(z[2].sum().sign())
    said = mm.head_lens(model, prompt(), list(range(model.lm.n_words)), layer=2, pos=-1)
    best = (sign * said.sel(head=2, pos=-1).values).argmax()
    assert int(best) == word


def test_a_trained_lens_says_what_the_model_will_say_also_of_new_pictures():
    model = bridge("toy-llama")
    seen = [prompt((row, col), "A picture of a dog") for row in range(4) for col in range(3)]
    lens = mm.attention_lens(model, seen, layer=1, pos=None, steps=150, lr=5e-3)
    assert lens.about["loss"] < 0.7 * lens.about["loss_before"]
    new = model.embed(prompt((3, 3), "A picture of a dog"))
    z, logits = heads_at(model, new, 1, list(range(new.ids.shape[1])))
    wanted = logits.log_softmax(-1)

    def away(maps: mm.HeadMaps) -> float:
        said = maps.logits(z).sum(-2).log_softmax(-1)
        return float((wanted.exp() * (wanted - said)).sum(-1).mean())

    assert away(lens) < 0.8 * away(direct_maps(model, 1))


def test_maps_of_z_are_maps_of_the_stream_behind_w_o():
    """The published lens maps a_h = z_h W_O[h] by L_h: the same loss, and by the chain rule
    d loss / d L_h = W_O[h]^T (d loss / d maps[h]), so nothing that L_h can learn is left out.
    """
    model = bridge("toy-gptj")
    soft = model.embed(prompt())
    z, logits = heads_at(model, soft, 1, [soft.ids.shape[1] - 1])
    weight, wanted = model.root.blocks[1].attn.W_O.float(), logits.log_softmax(-1)
    whole = model.W_U[:, : model.lm.n_words].float().repeat(len(weight), 1, 1).requires_grad_()
    maps = direct_maps(model, 1).maps.clone().requires_grad_()

    def loss(said: torch.Tensor) -> torch.Tensor:
        return (wanted.exp() * (wanted - said.log_softmax(-1))).sum(-1).mean()

    stream = loss(torch.einsum("phd,hdm,hmw->pw", z, weight, whole))
    ours = loss(torch.einsum("phd,hdw->pw", z, maps))
    assert off(stream.detach(), ours.detach()) < 1e-5
    of_whole, of_maps = (torch.autograd.grad(*one)[0] for one in ((stream, whole), (ours, maps)))
    assert float(of_whole.abs().max()) > 1e-4
    assert off(of_whole, torch.einsum("hdm,hdw->hmw", weight, of_maps)) < 1e-6


def test_a_lens_is_the_same_when_it_was_saved_and_is_refused_elsewhere(tmp_path):
    model = bridge("toy-gptj")
    lens = mm.attention_lens(model, [prompt()], layer=1, steps=3)
    again = mm.HeadMaps.load(lens.save(tmp_path / "heads.safetensors"))
    assert torch.equal(again.maps, lens.maps) and torch.equal(again.bias, lens.bias)
    table = mm.head_lens(model, prompt(), layer=1, through=again, head=[0, 2], k=2)
    assert list(table.columns) == ["head", "pos", "rank", "token", "logit"] and len(table) == 4
    with pytest.raises(CheckpointError, match="one of layer 1, and layer 0 is asked"):
        mm.head_lens(model, prompt(), layer=0, through=again)
    with pytest.raises(CheckpointError, match="made for 'toy-gptj', and 'toy-llama' has other"):
        mm.head_lens(bridge("toy-llama"), prompt(), layer=1, through=again)
    with pytest.raises(CheckpointError, match="is no attention lens"):
        mm.HeadMaps.load(tmp_path / "nothing.safetensors")
    with pytest.raises(AddressError, match="names nothing"):
        mm.head_lens(model, prompt(), layer=0, pos=[])
    with pytest.raises(AddressError, match="No pos here is a Patch"):
        mm.attention_lens(model, "A picture of", layer=0, pos=Patch)


def test_a_lens_of_other_edits_or_of_other_heads_is_refused():
    model = mm.load("toy-gptj")
    silent = model.edit(mm.Edit("z", 0.0, mm.Head(1, 0)))
    plain, edited = (
        mm.attention_lens(one, [prompt()], layer=1, steps=2) for one in (model, silent)
    )
    for lens, other in ((plain, silent), (edited, model)):
        with pytest.raises(
            CheckpointError, match="trained with other edits, dictionaries or rewritten weights"
        ):
            mm.head_lens(other, prompt(), layer=1, through=lens)
    again = model.edit(mm.Edit("z", 0.0, mm.Head(1, 0)))
    table = mm.head_lens(again, prompt(), layer=1, through=edited, k=1)
    assert isinstance(table, pd.DataFrame) and len(table) == 4
    with torch.no_grad():  # the last head of the layer, which no other number depends on
        model.lm.hf.transformer.h[1].attn.out_proj.weight[:, -4:] *= 2.0
    with pytest.raises(CheckpointError, match="has other weights"):
        mm.head_lens(model, prompt(), layer=1, through=plain)


def test_the_model_is_as_it_was():
    model = bridge("toy-gptj")
    before = copy.deepcopy(model.lm.hf.state_dict())
    mm.attention_lens(model, [prompt()], layer=0, steps=2)
    assert all(torch.equal(value, before[name]) for name, value in model.lm.hf.state_dict().items())
    assert all(one.grad is None for one in model.lm.hf.parameters())
