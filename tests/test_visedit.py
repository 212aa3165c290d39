"""VisEdit's attributions: formulas by another route, what noise does on average, planted truth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bridges import bridge, off, prompt

import mmlens as mm
from mmlens import Patch, relevance
from mmlens.methods.noise_map import windows
from mmlens.values.errors import AddressError, CapabilityError, PromptError

# -- influence of modules --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gptj", "llama"])
def test_influence_is_the_formula_on_each_modules_output(kind):
    model, asked = bridge(f"toy-{kind}"), prompt()
    word = model.to_single_token(" dog")
    found = mm.module_influence(model, asked, " dog", after="")
    v, p, parts = [], [], []
    for layer in range(3):
        for site, part in (("attn_out", "attn"), ("mlp_out", "mlp")):
            out = mm.activations(model, asked, site, layer=layer, pos=-1).values
            with torch.no_grad():
                logits = model.root.unembed(model.root.ln_final(out[None, None]))[0, 0]
            logits = logits[: model.lm.n_words].double()
            v.append(float(logits[word]))
            p.append(float(logits.softmax(-1)[word]))
            parts.append(f"{part} {layer}")
    most = max(map(abs, v))
    both = zip(v, p, strict=True)
    expected = [(1 if a > 0 else -1) * (abs(a) / most) ** 0.5 * b**0.5 for a, b in both]
    assert found.of("part") == tuple(parts)
    assert off(found.values.double(), torch.tensor(expected).double()) < 1e-4
    told = {q: mm.module_influence(model, asked, " dog", after="", quantity=q)
            for q in ("logit", "prob")}  # fmt: skip
    assert off(told["logit"].values.double(), torch.tensor(v).double()) < 1e-3
    assert off(told["prob"].values.double(), torch.tensor(p).double()) < 1e-5


def test_a_module_that_writes_the_words_direction_comes_first():
    model = mm.load("toy-gptj")
    word = model.to_single_token(" dog")
    up = model.W_U[:, word] / model.W_U[:, word].norm()
    with torch.no_grad():
        mlp = model.lm.hf.transformer.h[1].mlp
        mlp.fc_out.weight.zero_()
        mlp.fc_out.bias.copy_(0.01 * up)  # however little: it stands alone behind its own norm
    found = mm.module_influence(model, prompt(), " dog", after="")
    first, second = found.values.sort(descending=True).values[:2].tolist()
    assert found.argmax() == {"part": "mlp 1"} and first > 3 * abs(second)
    none = mm.module_influence(
        model.edit(mm.Edit("mlp_out", 0.0, layer=1)), prompt(), " dog", after=""
    )
    both: Any = [" dog", " cat"]
    shares = mm.module_influence(model, prompt(), both, after="")
    assert shares.axes == ("token", "part") and none.argmax() != {"part": "mlp 1"}


# -- noise map -------------------------------------------------------------------------------------


def attention_out(model: Any, asked: Any, layer: int, added: torch.Tensor) -> torch.Tensor:
    """What attention writes at the end with this added to what it reads, in a pass of its own."""
    kept: list[torch.Tensor] = []
    hooks = [
        (f"blocks.{layer}.ln1.hook_out", lambda x, hook: x + added),
        (f"blocks.{layer}.hook_attn_out", lambda x, hook: kept.append(x[0, -1])),
    ]
    model.run_with_hooks(asked, fwd_hooks=hooks)
    return kept[0]


def test_the_map_is_the_mean_turn_under_the_drawn_noise_whatever_the_batch():
    model, asked, layer = bridge("toy-llama"), prompt(), 1
    found = relevance.noise_map(model, asked, layer=layer, radius=1, draws=3, seed=5)
    again = relevance.noise_map(model, asked, layer=layer, radius=1, draws=3, seed=5, batch=7)
    assert off(found.values, again.values) < 1e-6
    noise = 0.7 * torch.randn(3, 16, model.cfg.d_model, generator=torch.Generator().manual_seed(5))
    n = model.embed(asked).ids.shape[1]
    with torch.no_grad():
        plain = attention_out(model, asked, layer, torch.zeros(1, n, 1)).double()
        for row, col in ((0, 0), (2, 1)):
            turns = []
            for one in noise:
                added = torch.zeros(1, n, model.cfg.d_model)
                for r in range(max(0, row - 1), min(4, row + 2)):
                    for c in range(max(0, col - 1), min(4, col + 2)):
                        added[0, 4 * r + c] = one[4 * r + c]
                out = attention_out(model, asked, layer, added).double()
                turns.append(1 - float(torch.cosine_similarity(out, plain, dim=0)))
            mean = sum(turns) / 3
            assert float(found.sel(pos=Patch(row, col)).values) == pytest.approx(mean, abs=1e-6)


def test_little_noise_turns_the_output_by_the_jacobian_across_it():
    """1 - cos -> std^2 |J across o|^2 / (2 |o|^2) on average, J from the patch to the output."""
    model, asked, layer, patch = bridge("toy-gpt2"), prompt(), 1, Patch(2, 1)
    std, draws = 1e-3, 600
    found = relevance.noise_map(model, asked, layer=layer, radius=0, std=std, draws=draws)
    n, width = model.embed(asked).ids.shape[1], model.cfg.d_model
    added = torch.zeros(1, n, width, requires_grad=True)
    with torch.enable_grad():
        out = attention_out(model, asked, layer, added)
        rows = [torch.autograd.grad(one, added, retain_graph=True)[0][0, 4 * 2 + 1] for one in out]
    J, o = torch.stack(rows).double(), out.detach().double()
    across = J - torch.outer(o, o @ J) / (o @ o)
    expected = std**2 * float((across**2).sum() / (2 * (o @ o)))
    assert float(found.sel(pos=patch).values) == pytest.approx(expected, rel=0.2)


def test_a_patch_that_attention_cannot_see_has_nothing():
    model, asked, layer = bridge("toy-llama"), prompt(), 1
    hidden = [Patch(0, 0), Patch(3, 2)]
    cut = model.edit(mm.patching.knockout(hidden, -1, layer=layer))
    found = relevance.noise_map(cut, asked, layer=layer, radius=0, draws=2)
    assert float(found.sel(pos=hidden).values.max()) < 1e-9
    rest = [one for one in found.of("pos") if one not in hidden]
    assert float(found.sel(pos=rest).values.min()) > 1e-6


def test_windows_are_squares_of_one_grid():
    patches = [Patch(r, c, crop=k) for k in range(2) for r in range(4) for c in range(4)]
    seen = windows(list(patches), 1)
    assert seen[0].nonzero()[:, 0].tolist() == [0, 1, 4, 5]  # a corner, of its own crop
    assert int(seen[16 + 5].sum()) == 9 and bool((seen == seen.T).all())


def test_what_cannot_be_asked_is_refused():
    model = bridge("toy-gpt2")
    with pytest.raises(AddressError, match="layer"):
        relevance.noise_map(model, prompt(), layer=9)
    with pytest.raises(PromptError, match="no patch among the positions"):
        relevance.noise_map(model, "A picture of", layer=1)
    with pytest.raises(CapabilityError, match="writes nothing at the explained position"):
        relevance.noise_map(model.edit(mm.Edit("attn_out", 0.0)), prompt(), layer=1)
    with pytest.raises(mm.MMLensError, match="influence"):
        mm.module_influence(model, prompt(), 5, after="", quantity="share")
