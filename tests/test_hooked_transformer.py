"""A real HookedTransformer and a TransformerBridge give the same numbers, pictures and all.

TransformerLens 4.0 removed HookedTransformer, so this needs 3.9, for which `.ci/run` has an
environment.
"""

from __future__ import annotations

import pytest
import torch
from bridges import bridge, off, prompt

import mmlens as mm

try:
    from transformer_lens import HookedTransformer
except ImportError:  # its message tells how to migrate
    pytest.skip("TransformerLens 4 has no HookedTransformer", allow_module_level=True)

every_class = pytest.mark.parametrize("kind", ["gpt2", "gpt-neox", "gptj", "opt", "llama", "qwen"])


def both(kind: str, **options):
    """The same weights in a HookedTransformer and in a bridge."""
    name = f"toy-{kind}"  # the planted ones amplify rounding 45-fold
    return bridge(name, backend="hooked_transformer", **options), bridge(name, **options)


@every_class
@torch.no_grad()
def test_logits_activations_and_weights_agree(kind):
    ht, bridged = both(kind)
    assert isinstance(ht.root, HookedTransformer)
    prompts = [prompt(), prompt((0, 1), "A picture of a dog and")]
    assert off(ht(prompts)[1], bridged(prompts)[1]) < 1e-5
    assert off(ht(prompts)[0, 3:], bridged(prompts)[0, 3:]) < 1e-5
    for site in ("resid_pre", "neurons", "neurons_pre", "z", "resid_post", "attn_out", "mlp_out"):
        a, b = (mm.activations(m, prompt(), site).values for m in (ht, bridged))
        assert off(a, b) < 1e-5, site
    assert off(ht.W_out, bridged.W_out) == 0.0
    assert off(ht.W_U, bridged.W_U) == 0.0


@every_class
def test_attribution_and_integrated_gradients_agree(kind):
    ht, bridged = both(kind)
    for ask in (mm.attribute, mm.integrated_gradients):
        a, b = (ask(m, prompt(), " dog", after="").values for m in (ht, bridged))
        assert off(a, b) < 1e-5
    best = [mm.top_neurons(mm.attribute(m, prompt(), " dog", after=""), 10) for m in (ht, bridged)]
    assert best[0].neuron.tolist() == best[1].neuron.tolist()
    assert (
        mm.decode(ht, best[0].neuron).words.tolist()
        == mm.decode(bridged, best[0].neuron).words.tolist()
    )


@every_class
@torch.no_grad()
def test_edits_lens_and_generation_agree(kind):
    ht, bridged = both(kind)
    clean = mm.activations(bridged, prompt((0, 0)), "resid_post", layer=1)
    for change in (
        mm.Edit("neurons", 0.0, mm.Neuron(1, 5), pos=mm.Patch),
        mm.Edit("resid_post", clean, layer=1),
        mm.Edit("z", 0.0, layer=2, head=1),
        mm.Edit("soft_prompt", 0.0, pos=mm.Patch(0, 0)),
    ):
        a, b = (m.edit(change) for m in (ht, bridged))
        assert off(a(prompt()), b(prompt())) < 1e-5
        assert a.generate(prompt(), 4) == b.generate(prompt(), 4)
    a, b = (mm.logit_lens(m, prompt(), [" dog"]).values for m in (ht, bridged))
    assert off(a, b) < 1e-5


@torch.no_grad()
def test_patching_agrees():
    from transformer_lens import patching

    ht, bridged = both("gptj")
    dog = ht.to_single_token(" dog")
    results = []
    for model in (ht, bridged):
        clean, corrupt = (model.to_tokens(prompt(white)) for white in ((2, 1), (0, 3)))
        _, cache = model.run_with_cache(clean)
        results.append(
            patching.get_act_patch_resid_pre(model, corrupt, cache, lambda out: out[0, -1, dog])
        )
    assert results[0].shape == (3, 19)
    assert off(*results) < 1e-5


@torch.no_grad()
def test_folding_changes_weights_and_not_what_the_model_says():
    ht, bridged = both("gpt2", fold_ln=True)
    plain = bridge("toy-gpt2")
    for model in (ht, bridged):
        logits = model(prompt())
        assert off(logits, plain(prompt())) < 1e-4
    assert off(ht.W_U, bridged.W_U) < 1e-5
