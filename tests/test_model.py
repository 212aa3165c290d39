"""Properties of the model on every class of language model."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from bridges import KINDS, bridge, off, prompt

import mmlens as mm
from mmlens.families import toy
from mmlens.runtime.sharing import share_weights
from mmlens.towers.language.language_model import wrap_lm
from mmlens.values.errors import (
    AddressError,
    CapabilityError,
    PromptError,
    SiteError,
    TargetError,
)

every_family = pytest.mark.parametrize("kind", KINDS)


@every_family
@torch.no_grad()
def test_the_soft_prompt_path_equals_hugging_faces_inputs_embeds(kind):
    model = bridge(f"toy-{kind}")
    soft = model.embed(prompt())
    assert off(model(soft), model.lm.hf(inputs_embeds=soft.vectors).logits) < 1e-5


@every_family
@torch.no_grad()
def test_a_picture_changes_what_the_model_says(kind):
    model = bridge(f"toy-{kind}")
    assert off(model(prompt((0, 0))), model(prompt((3, 3)))) > 1e-3


@every_family
@torch.no_grad()
def test_a_left_padded_batch_gives_what_each_prompt_gives_alone(kind):
    model = bridge(f"toy-{kind}")
    a, b, c = prompt(), prompt((1, 1), "A picture of a dog and a cat"), "The dog"
    together = model([a, b, c])
    for row, one in enumerate((a, b, c)):
        alone = model(one)
        assert off(together[row, -alone.shape[1] :], alone[0]) < 1e-5
    assert model.generate([a, b, c], 4) == [model.generate(p, 4) for p in (a, b, c)]


@every_family
@torch.no_grad()
def test_two_pictures_stand_in_reading_order(kind):
    model = bridge(f"toy-{kind}")
    both = mm.Prompt(toy.picture((0, 0)), " and", toy.picture((3, 3)), " are")
    labels = model.embed(both).labels[0]
    assert [label.image for label in labels if isinstance(label, mm.Patch)] == [0] * 16 + [1] * 16
    assert labels[16] == mm.Token(" and", 16)
    alone = model.embed(prompt((3, 3))).vectors[0, :16]
    assert off(model.embed(both).vectors[0, 17:33], alone) < 1e-6


@every_family
@torch.no_grad()
def test_residuals_of_one_run_patched_into_another_give_its_logits_exactly(kind):
    model = bridge(f"toy-{kind}")
    a, b = prompt((0, 0)), prompt((3, 3))
    for layer in range(model.cfg.n_layers):
        clean = mm.activations(model, a, "resid_post", layer=layer)
        patched = model.edit(mm.Edit("resid_post", clean, layer=layer))
        assert off(patched(b), model(a)) < 1e-5


@every_family
@torch.no_grad()
def test_an_edit_at_patches_reads_back_there_and_leaves_tokens_alone(kind):
    model = bridge(f"toy-{kind}")
    edited = model.edit(mm.Edit("neurons", 0.0, layer=1, pos=mm.Patch))
    before = mm.activations(model, prompt(), "neurons", layer=1)
    after = mm.activations(edited, prompt(), "neurons", layer=1)
    assert float(after.sel(pos=mm.Patch).abs().max().item()) == 0.0
    assert off(after.sel(pos=mm.Token).values, before.sel(pos=mm.Token).values) == 0.0


@every_family
@torch.no_grad()
def test_generation_with_a_cache_says_the_same_as_without_under_edits(kind):
    model = bridge(f"toy-{kind}-planted")
    n = mm.Neuron(1, 5)
    edits = [
        [],
        [mm.Edit("neurons", 0.0, n, pos=mm.Patch)],
        [mm.Edit("neurons", 0.0, n)],
        [mm.Edit.steer("resid_post", torch.linspace(-1, 1, 32), layer=1)],
        [mm.Edit("resid_post", lambda x: x * 1.5, layer=0, pos=mm.Token(" of", 18))],
    ]
    for some in edits:
        edited = model.edit(*some)
        assert edited.generate(prompt(), 6) == edited.generate(prompt(), 6, use_past_kv_cache=False)


@every_family
@torch.no_grad()
def test_an_edit_during_generation_is_the_edit_of_the_whole_text_read_at_once(kind):
    """The logits of each step equal one forward pass over prompt and caption with the same edit."""
    model = bridge(f"toy-{kind}").edit(
        mm.Edit("neurons", 0.0, layer=1, unit=[3, 4, 5]),
        mm.Edit("resid_post", lambda x: x + 1, layer=0, pos=mm.Patch(1, 1)),
    )
    said = model.generate(prompt(), 5, return_type="tokens", stop_at_eos=False)
    from mmlens.model.targets import extend

    soft = extend(model, model.embed(prompt()), said[0].tolist())
    logits = model(soft)[0]
    assert logits[18:-1].argmax(-1).tolist() == said[0].tolist()


@every_family
def test_the_callers_model_survives_wrapping(kind, tmp_path):
    from mmlens.towers.language.language_model import wrap_lm

    hf = bridge(f"toy-{kind}").lm.hf
    keys = set(hf.state_dict())
    before = {name: (p.requires_grad, p.data_ptr()) for name, p in hf.named_parameters()}
    wrapped = wrap_lm(hf)
    assert set(hf.state_dict()) == keys
    assert {name: (p.requires_grad, p.data_ptr()) for name, p in hf.named_parameters()} == before
    hf.save_pretrained(tmp_path)
    shared = {p.data_ptr() for p in hf.parameters()}
    mlp = [p for name, p in wrapped.root.named_parameters() if "mlp" in name or "fc" in name]
    assert mlp
    assert all(p.data_ptr() in shared for p in mlp)


@every_family
def test_gradients_flow_from_a_logit_to_the_pixels(kind):
    model = bridge(f"toy-{kind}")
    kept = {}

    def leaf(pixels, hook):
        kept["pixels"] = pixels.detach().requires_grad_()
        return kept["pixels"]

    logits = model.run_with_hooks(prompt(), fwd_hooks=[("vision.hook_pixels", leaf)])
    grad = torch.autograd.grad(logits[0, -1].max(), kept["pixels"])[0]
    assert grad.shape == (1, 3, 32, 32)
    assert bool(torch.isfinite(grad).all())
    assert float(grad.abs().max()) > 0


@every_family
def test_every_advertised_hook_fires_is_differentiable_and_acts(kind):
    model = bridge(f"toy-{kind}")
    table: Any = mm.audit(model)
    assert table.fires.all()
    tables = ("embed.hook_in", "rotary_emb.hook_in")  # ids and positions: whole numbers go in
    for row in table.itertuples():
        if row.name.endswith(tables):
            continue
        assert row.acts, row.name
        assert row.differentiable, row.name


@torch.no_grad()
def test_a_transformer_lens_model_wrapped_twice_keeps_its_positions():
    model = bridge("toy-gptj")
    lm = wrap_lm(wrap_lm(model.lm.root).root, model.tokenizer)
    again = mm.HookedVLM(model.vision, model.projection, lm, name="again")
    edit = mm.Edit("resid_post", 0.0, mm.Patch, layer=1)
    assert off(again.edit(edit)(prompt()), model.edit(edit)(prompt())) == 0.0
    assert off(model.edit(edit)(prompt()), model(prompt())) > 1e-3


def own_bridge(hf):
    """What a user of TransformerLens makes of a Hugging Face model."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    twin: Any = share_weights(hf)
    twin.set_attn_implementation("eager")
    return build_bridge_from_module(twin, type(hf).__name__, hf_config=twin.config)


def test_an_edit_that_would_be_ignored_is_refused():
    model = bridge("toy-gptj")
    model.edit(mm.Edit("pattern", 0.0, layer=0))
    lm = wrap_lm(own_bridge(model.lm.hf), model.tokenizer)  # which mmlens does not change
    theirs = mm.HookedVLM(model.vision, model.projection, lm, name="theirs")
    with pytest.raises(CapabilityError, match="ignores edits of 'pattern'"):
        theirs.edit(mm.Edit("pattern", 0.0, layer=0))


@pytest.mark.parametrize(
    "make, error, sentence",
    [
        (lambda m: mm.Edit("neurns", 0.0), SiteError, "did you mean 'neurons'"),
        (lambda m: mm.Edit("neurons", 0.0, head=1), AddressError, "has no axis 'head'"),
        (
            lambda m: m.edit(mm.Edit("neurons", 0.0, layer=9)),
            AddressError,
            "no layer 9: there are 3",
        ),
        (lambda m: m.edit(mm.Edit("neurons", 0.0, mm.Neuron(0, 999))), AddressError, "no unit 999"),
        (lambda m: m.edit(mm.Edit("resid_mid", 0.0, layer=0)), SiteError, "no hook"),
        (
            lambda m: m.run_with_hooks("a", fwd_hooks=[("blocks.0.hook_resid_prre", print)]),
            SiteError,
            "resid_pre",
        ),
        (
            lambda m: m.run_with_cache("a", names_filter="blocks.7.mlp.hook_post"),
            SiteError,
            "no hook",
        ),
        (lambda m: m.add_hook("hook_embd", print), SiteError, "did you mean"),
        (lambda m: m.to_single_token(" elephant"), TargetError, "tokens here"),
        (lambda m: m.to_single_token("dog"), TargetError, "write ' dog', which is one"),
        (lambda m: m.to_single_token(""), TargetError, "is 0 tokens"),
        (lambda m: m(torch.tensor([[5, -1, 7]])), PromptError, "whose picture was lost"),
        (lambda m: m(torch.zeros(1, 0, dtype=torch.long)), PromptError, "no token ids"),
        (lambda m: m(torch.zeros(1, 3, 7)), PromptError, r"no soft prompt: \[batch, pos, 32\]"),
        (lambda m: m(3.5), PromptError, "is no prompt"),
        (lambda m: m(mm.Prompt("")), PromptError, "is empty"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(make, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        make(bridge("toy-gptj"))
    assert isinstance(caught.value, mm.MMLensError)


def test_an_edit_at_a_position_that_the_prompt_does_not_have_is_refused():
    model = bridge("toy-gpt2").edit(mm.Edit("neurons", 0.0, layer=0, pos=mm.Patch(9, 9)))
    with pytest.raises(AddressError, match=r"no pos '\(9, 9\)'"):
        model(prompt())
    model = bridge("toy-gpt2").edit(mm.Edit("neurons", torch.zeros(7), layer=0))
    with pytest.raises(AddressError, match="does not fit"):
        model(prompt())


@torch.no_grad()
def test_edits_in_the_vision_tower_and_the_projection_act_on_their_patches():
    model = bridge("toy-gptj")
    for site in ("vision.resid_post", "vision.neurons"):
        edited = model.edit(mm.Edit(site, 0.0, layer=1, pos=mm.Patch(1, 2)))
        values = mm.activations(edited, prompt(), site, layer=1)
        assert values.sel(pos=mm.Patch(1, 2)).abs().max().item() == 0.0
        assert values.sel(pos=mm.Patch(1, 1)).abs().max().item() > 0.0
        assert off(edited(prompt()), model(prompt())) > 1e-5
    edited = model.edit(mm.Edit("soft_prompt", 0.0, pos=mm.Patch(0, 0)))
    soft = edited.embed(prompt())
    assert float(soft.vectors[0, 0].abs().max()) == 0.0
    assert off(soft.vectors[0, 1:], model.embed(prompt()).vectors[0, 1:]) == 0.0
    assert off(edited(model.embed(prompt())), edited(prompt())) < 1e-6  # pictures are read again


@torch.no_grad()
def test_an_edited_model_and_its_original_do_not_see_each_other():
    model = bridge("toy-llama")
    plain = model(prompt())
    edited = model.edit(mm.Edit("neurons", 0.0, layer=0))
    edited.add_hook("blocks.2.hook_resid_post", lambda x, hook: x * 0)
    assert off(model(prompt()), plain) == 0.0
    assert off(edited(prompt()), plain) > 1e-3
    edited.reset_hooks()
    assert off(edited(prompt()), model.edit(*edited.edits)(prompt())) == 0.0
    with pytest.raises(RuntimeError, match="boom"), model.hooks([("hook_embed", _boom)]):
        model(prompt())
    assert off(model(prompt()), plain) == 0.0


def _boom(tensor, hook):
    raise RuntimeError("boom")


def test_threads_read_their_own_prompts_with_their_own_hooks():
    model = bridge("toy-gpt2")
    prompts = [prompt((i, i), "A picture of" + " a" * i) for i in range(4)]
    with torch.no_grad():
        wanted = [model.run_with_hooks(p, fwd_hooks=[_scale(i)]) for i, p in enumerate(prompts)]
    wrong = []

    def work(i):
        with torch.no_grad():
            for _ in range(5):
                got = model.run_with_hooks(prompts[i], fwd_hooks=[_scale(i)])
                if off(got, wanted[i]) > 1e-6:
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert not any(point.fwd_hooks for name, point in model.hook_dict.items() if "mlp" in name)


def _scale(i):
    return ("blocks.1.hook_resid_post", lambda x, hook: x * (1 + i))


@torch.no_grad()
def test_a_cache_holds_vision_projection_and_language_model_under_their_names():
    model = bridge("toy-gpt2")
    logits, cache = model.run_with_cache(prompt())
    assert cache["blocks.1.mlp.hook_post"].shape == (1, 19, 128)
    assert cache["resid_post", 2].shape == (1, 19, 32)
    assert cache["vision.blocks.0.hook_resid_post"].shape == (1, 17, 16)
    assert off(cache["projection.hook_out"], cache["hook_embed"][:, :16]) < 1e-6
    parts = cache.decompose_resid(layer=-1, return_labels=False)
    assert off(parts.sum(0), cache["resid_post", 2]) < 1e-5
    assert off(model(prompt(), stop_at_layer=2), cache["resid_pre", 2]) < 1e-5
    assert off(model.unembed(model.ln_final(cache["resid_post", 2])), logits) == 0.0


def test_cached_gradients_are_those_of_the_loss():
    model = bridge("toy-gpt2")
    _, cache = model.run_with_cache(
        prompt(), names_filter="blocks.1.mlp.hook_post", incl_bwd=True, return_type="loss"
    )
    gradient = cache["blocks.1.mlp.hook_post_grad"]
    with torch.no_grad():
        bump = torch.zeros_like(gradient)
        bump[0, 17, 4] = 1e-2
        name = "blocks.1.mlp.hook_post"
        up = model.run_with_hooks(prompt(), [(name, lambda x, hook: x + bump)], return_type="loss")
        down = model.run_with_hooks(
            prompt(), [(name, lambda x, hook: x - bump)], return_type="loss"
        )
    assert float((up - down) / 2e-2) == pytest.approx(float(gradient[0, 17, 4]), abs=2e-4)


@torch.no_grad()
def test_the_loss_counts_words_and_neither_patches_nor_padding():
    model = bridge("toy-gpt2")
    logits, loss = model(prompt(), return_type="both")
    ids = model.to_tokens(prompt())[0, 16:].as_subclass(torch.Tensor)
    log_probs = logits[0, 15:-1].log_softmax(-1)
    by_hand = -log_probs[torch.arange(3), ids].mean()
    assert float(loss) == pytest.approx(float(by_hand), abs=1e-6)
    padded = model(
        [prompt(), prompt((1, 1), "A picture of a dog")], return_type="loss", loss_per_token=True
    )
    assert int((padded[0] != 0).sum()) == 3


@torch.no_grad()
def test_sampling_repeats_with_a_seed_and_respects_top_k():
    model = bridge("toy-llama")
    sampled = [
        model.generate(prompt(), 8, do_sample=True, temperature=2.0, seed=s) for s in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]
    assert model.generate(prompt(), 5, do_sample=True, top_k=1, seed=3) == model.generate(
        prompt(), 5
    )


@torch.no_grad()
def test_half_precision_says_nearly_the_same():
    model = mm.load("toy-llama")
    full = model(prompt())
    assert off(model.to(torch.bfloat16)(prompt()).float(), full) < 0.3


@torch.no_grad()
def test_generation_stops_at_the_end_of_text_unless_told_not_to():
    model = bridge("toy-gptj")
    eos = model.tokenizer.eos_token_id
    ending = model.edit(mm.Edit.steer("resid_post", 100 * model.W_U[:, eos], layer=2))
    assert ending.generate(prompt(), 5) == ""
    assert ending.generate(prompt(), 5, return_type="tokens").shape == (1, 1)
    for cached in (True, False):
        on = ending.generate(
            prompt(), 5, stop_at_eos=False, return_type="tokens", use_past_kv_cache=cached
        )
        assert on.tolist() == [[eos] * 5]


@torch.no_grad()
def test_beams_read_the_picture_and_keep_their_edits():
    model = bridge("toy-gptj-planted")
    assert model.generate(prompt(), 3, num_beams=2).startswith(" dog")
    quiet = model.edit(mm.Edit("neurons", 0.0, mm.Neuron(1, 5), pos=mm.Patch))
    assert not quiet.generate([prompt(), prompt((0, 1))], 3, num_beams=2)[1].startswith(" dog")


@torch.no_grad()
def test_an_attention_mask_is_obeyed_whatever_the_input_is():
    model = bridge("toy-llama")
    tokens = model.to_tokens(prompt())
    mask = torch.ones(1, 19)
    mask[0, :3] = 0
    masked = model(tokens, attention_mask=mask)
    assert off(masked, model(prompt())) > 1e-4
    assert off(masked[:, 3:], model(prompt(), attention_mask=mask)[:, 3:]) == 0.0
    with pytest.raises(PromptError, match="does not fit this prompt"):
        model(prompt(), attention_mask=mask[:, 1:])


@torch.no_grad()
def test_an_edit_of_every_unit_by_name_equals_the_edit_of_the_layer():
    model = bridge("toy-gptj")
    units = [mm.Neuron(layer, unit) for layer in (0, 2) for unit in range(model.cfg.d_mlp)]
    named = model.edit(mm.Edit("neurons", 0.0, units))
    assert off(named(prompt()), model.edit(mm.Edit("neurons", 0.0, layer=[0, 2]))(prompt())) == 0.0
    with pytest.raises(AddressError, match="must return the new values"):
        model.edit(mm.Edit("neurons", lambda x: None, layer=0))(prompt())


def test_the_audit_says_so_when_a_hook_never_fires():
    model = mm.load("toy-gptj")
    dead = "blocks.0.attn.hook_rot_k"
    claims = replace(model.lm.can, fires=model.lm.can.fires | {dead})
    model.lm.__dict__["can"] = claims
    table = mm.audit(model).set_index("name")
    assert not table.fires[dead]
    assert not table.acts[dead]
    assert table.fires["blocks.0.attn.hook_k"]
