"""A model as a HookedTransformer: each public name of TransformerLens, its options, its words."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from bridges import bridge, off, prompt
from torch import nn

import mmlens as mm
from mmlens.model import delegated, options
from mmlens.values.errors import (
    AddressError,
    ArgumentError,
    CapabilityError,
    PromptError,
    SiteError,
    TargetError,
)

P = prompt()
TEXT = "A picture of a dog"


def roots():
    """The classes of TransformerLens that there are here, each with a model of it."""
    yield bridge("toy-gpt2").root
    try:
        from transformer_lens import HookedTransformer
    except ImportError:  # TransformerLens 4 has none
        return
    ht = bridge("toy-gpt2", backend="hooked_transformer").root
    assert isinstance(ht, HookedTransformer)
    yield ht


def test_every_public_function_of_transformer_lens_is_ours_delegated_or_refused():
    known = {*dir(mm.HookedVLM), *delegated.DELEGATED, *delegated.REFUSED}
    for root in roots():
        names = {name for name in dir(root) if not name.startswith("_")} - set(dir(nn.Module))
        functions = {n for n in names if inspect.isroutine(inspect.getattr_static(root, n, None))}
        assert len(functions) > 30
        assert functions - known == set()
    assert not delegated.DELEGATED & set(delegated.REFUSED)
    assert not {*delegated.DELEGATED, *delegated.REFUSED} & set(dir(mm.HookedVLM))


def test_what_would_read_past_the_picture_or_rewrite_shared_weights_is_refused():
    model = bridge("toy-gpt2")
    model.root.__dict__["new_in_a_later_version"] = lambda: 1
    for name in (*delegated.REFUSED, "new_in_a_later_version"):
        if name in delegated.REFUSED or hasattr(model.root, name):
            with pytest.raises(CapabilityError, match=f"TransformerLens' {name}"):
                getattr(model, name)(P)
    del model.root.__dict__["new_in_a_later_version"]
    with pytest.raises(AttributeError):
        _ = model.no_such_name


def unfolded(kind: str):
    """A model whose final norm has a gain and a bias of its own."""
    model = mm.load(f"toy-{kind}")
    generator = torch.Generator().manual_seed(0)
    norm = model.root.ln_final.original_component
    with torch.no_grad():
        norm.weight.uniform_(0.3, 2.0, generator=generator)
        if getattr(norm, "bias", None) is not None:
            norm.bias.normal_(generator=generator)
    return model, getattr(norm, "bias", None)


@pytest.mark.parametrize("kind", ["gpt2", "gptj", "llama", "opt"])
@pytest.mark.parametrize("unit", ["component", "head"])
@torch.no_grad()
def test_transformer_lens_direct_logit_attribution_adds_up_on_unfolded_models(kind, unit):
    from transformer_lens.tools.analysis import direct_logit_attribution

    model, bias = unfolded(kind)
    dog, cat = (model.to_single_token(word) for word in (" dog", " cat"))
    logits = model.lm.hf(inputs_embeds=model.embed(P).vectors).logits[0, -1]
    columns = model.W_U[:, dog] - model.W_U[:, cat]
    constant = model.b_U[dog] - model.b_U[cat] + (0.0 if bias is None else bias @ columns)
    told = direct_logit_attribution(model, model.to_tokens(P), " dog", " cat", unit=unit)
    assert float(told.attribution.sum()) == pytest.approx(
        float(logits[dog] - logits[cat] - constant), abs=1e-4
    )


@torch.no_grad()
def test_the_direction_of_a_word_is_its_column_of_w_u_times_the_gain():
    model, _ = unfolded("gptj")
    ids = torch.tensor([[3, 5, 7]])
    gain = model.root.ln_final.original_component.weight
    wanted = (model.W_U * gain[:, None])[:, ids].movedim(0, -1)
    assert off(model.tokens_to_residual_directions(ids), wanted) < 1e-4
    assert off(model.tokens_to_residual_directions(5), wanted[0, 1]) < 1e-4
    assert model.W_E is model.embed.W_E
    assert torch.equal(model.embed(TEXT).vectors[0], model.W_E[model.to_tokens(TEXT)[0]])


def test_train_keeps_dropout_off_and_says_so():
    model = mm.load("toy-gpt2")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    with torch.no_grad():
        plain = model(P)
        around = nn.ModuleDict({"frozen": model})
        for part in (model, around):
            with pytest.warns(UserWarning, match="stays in eval mode"):
                part.train()
            assert off(model(P), plain) == 0.0
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda m: m(P, stop_at_layr=2), "no option 'stop_at_layr': did you mean 'stop_at_layer'"),
        (lambda m: m(P, start_at_layer=1), "no option 'start_at_layer': TransformerLens runs all"),
        (lambda m: m(P, return_type="lgits"), "return_type='lgits': did you mean 'logits'"),
        (lambda m: m.run_with_cache(P, names_filtr=None), "did you mean 'names_filter'"),
        (lambda m: m.run_with_cache(P, return_type="los"), "did you mean 'loss'"),
        (lambda m: m.run_with_hooks(P, fwd_hook=[]), "did you mean 'fwd_hooks'"),
        (lambda m: m.generate(P, 3, temprature=1.0), "temprature"),
        (lambda m: m.to_tokens(TEXT, padding_side="right"), "padded on the left"),
        (lambda m: m.get_token_position(" dog", TEXT, mode="middle"), "mode='middle'"),
    ],
)
@torch.no_grad()
def test_an_option_that_does_not_exist_is_refused_with_the_nearest(ask, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        ask(bridge("toy-gpt2"))


@torch.no_grad()
def test_a_run_stops_before_a_layer_that_there_is_or_behind_the_last():
    model = bridge("toy-gpt2")
    _, cache = model.run_with_cache(P)
    for stop in range(3):
        assert off(model(P, stop_at_layer=stop), cache["resid_pre", stop]) < 1e-5
        assert off(model(P, stop_at_layer=stop - 3), cache["resid_pre", stop]) < 1e-5
    assert off(model(P, stop_at_layer=3), cache["resid_post", 2]) < 1e-5
    _, part = model.run_with_cache(P, stop_at_layer=3)
    assert "ln_final.hook_normalized" not in part and "blocks.2.hook_resid_post" in part
    refused = pytest.raises(AddressError, match="has the layers 0 to 2; 3 stops after the last")
    for stop in (4, -4, 99, True):
        for ask in (model, model.run_with_cache):
            with refused:
                ask(P, stop_at_layer=stop)
    for stop in (1.5, "1"):
        with refused:
            options.stop_layer(model, stop)


@torch.no_grad()
def test_words_and_positions_follow_prepend_bos():
    model = bridge("toy-gpt2")
    bos = model.tokenizer.bos_token_id
    assert bos is not None
    plain = model.to_tokens(TEXT)
    begun = model.to_tokens(TEXT, prepend_bos=True)
    assert begun[0].tolist() == [bos, *plain[0].tolist()]
    assert model.to_str_tokens(TEXT) == ["A", " picture", " of", " a", " dog"]
    assert model.to_str_tokens(TEXT, prepend_bos=True)[1:] == model.to_str_tokens(TEXT)
    assert model.to_str_tokens([TEXT, "A cat"])[1] == ["A", " cat"]
    assert model.to_str_tokens(plain[0].numpy()) == model.to_str_tokens(TEXT)
    assert model.to_single_str_token(model.to_single_token(" dog")) == " dog"
    assert model.get_token_position(" dog", TEXT) == 4
    assert model.get_token_position(" dog", TEXT, prepend_bos=True) == 5
    assert model.get_token_position(" dog", P + " a dog and a dog") == 16 + 3 + 1
    assert model.get_token_position(" dog", P + " a dog and a dog", mode="last") == 16 + 3 + 4
    assert model.get_token_position(model.to_single_token(" a"), model.to_tokens(TEXT)) == 3
    assert off(model(TEXT, prepend_bos=True), model(begun)) < 1e-6
    said = model.generate(TEXT, 3, prepend_bos=True, return_type="tokens")
    assert torch.equal(said, model.generate(begun, 3, return_type="tokens", verbose=False))
    with pytest.raises(TargetError, match="' cat' is not in this prompt"):
        model.get_token_position(" cat", TEXT)
    with pytest.raises(PromptError, match="give one"):
        model.get_token_position(" a", [TEXT, TEXT])
    with pytest.raises(PromptError, match="remove_batch_dim=True is for one prompt"):
        model.run_with_cache([TEXT, TEXT], remove_batch_dim=True)


def test_the_loss_function_is_the_loss_of_the_model():
    model = bridge("toy-gpt2")
    with torch.no_grad():
        logits, loss = model(P, return_type="both")
        tokens = model.to_tokens(P)
        assert float(model.loss_fn(logits, tokens)) == float(loss)
        each = model.loss_fn(logits, tokens, per_token=True)
        words = logits[0, 15:-1].log_softmax(-1)[range(3), tokens[0, 16:].tolist()]
        assert off(each[0, 15:], -words) < 1e-6


@torch.no_grad()
def test_what_does_not_belong_to_the_prompt_or_the_model_is_refused_and_not_read():
    model = bridge("toy-gpt2")
    tokens, logits = model.to_tokens(P), model(P)
    for many in (logits.repeat(2, 1, 1), logits[:, :-1], logits[..., :9], logits[0]):
        with pytest.raises(ArgumentError, match="are none of this prompt"):
            model.loss_fn(many, tokens)
    with pytest.raises(TargetError, match="^-1 is no token of this model"):  # a patch has no word
        model.tokens_to_residual_directions(tokens)
    with pytest.raises(TargetError, match="a word as text, as in ' dog', or an id from 0 to"):
        model.tokens_to_residual_directions(10**9)
    for ids in ("nope", None, [0.5], torch.tensor([float("nan")]), 10**30):
        with pytest.raises(TargetError, match="whole numbers"):
            model.to_string(ids)
    with pytest.raises(TargetError, match="int_token=-1"):
        model.to_single_str_token(-1)
    with pytest.raises(TargetError, match="single_token=nan"):
        model.get_token_position(float("nan"), P)


@torch.no_grad()
def test_the_bias_up_to_a_layer_is_the_sum_of_what_its_layers_add():
    model = mm.load("toy-gpt2")
    for block in model.blocks:
        block.attn.b_O.fill_(1.0)
        block.mlp.b_out.fill_(10.0)
    asked = ((0, False, True, 0), (2, False, True, 22), (1, True, True, 12), (3, False, False, 3))
    for layer, mlp_input, biases, wanted in asked:
        found = model.accumulated_bias(layer, mlp_input, include_mlp_biases=biases)
        assert found.tolist() == [wanted] * 32
    with pytest.raises(ArgumentError, match="layer=3: write a whole number from 0 to 2"):
        model.accumulated_bias(3, mlp_input=True)


@torch.no_grad()
def test_positions_that_are_kept_are_those_of_the_prompt():
    model = bridge("toy-gpt2")
    name = "blocks.1.hook_resid_post"

    def kept(pos_slice):
        return model.run_with_cache(P, names_filter=name, pos_slice=pos_slice)[1][name]

    whole = kept(None)
    assert torch.equal(kept((1, 3)), whole[:, 1:3]) and torch.equal(kept(-1), whole[:, -1:])
    assert torch.equal(kept([0, 5]), whole[:, [0, 5]])
    for wrong in (99, [0, 99]):
        with pytest.raises(AddressError, match=f"not within the {whole.shape[1]} positions"):
            kept(wrong)
    for wrong in ("nope", {}, ()):
        with pytest.raises(ArgumentError, match="write a position, .start, stop., or a list"):
            kept(wrong)
    with pytest.raises(CapabilityError, match="device='nope' cannot be used here"):
        model.run_with_cache(P, device="nope")
    with pytest.raises(SiteError, match="names_filter=-1: write a hook name"):
        model.run_with_cache(P, names_filter=-1)


def test_inference_mode_gives_the_same_and_leaves_nothing_behind():
    model = mm.load("toy-gpt2")
    with torch.inference_mode():
        first = model(P)
        _, cache = model.run_with_cache(P)
        model.tokens_to_residual_directions(" dog")
    with torch.no_grad():
        assert off(model(P), first) == 0.0
        assert off(model.run_with_cache(P)[1]["resid_post", 2], cache["resid_post", 2]) == 0.0
    directions = model.tokens_to_residual_directions(" dog")
    resid = model.run_with_cache(P)[1]["resid_post", 2].requires_grad_()
    (resid @ directions).sum().backward()
    assert resid.grad is not None
    assert mm.attribute(model, P, " dog", after="").values.shape == (3, 19, 128)


@pytest.mark.parametrize("option", ["past_kv_cache", "past_key_values"])
@pytest.mark.parametrize("kind", ["gptj", "llama", "gpt2"])
@torch.no_grad()
def test_a_cache_that_hugging_face_filled_is_read_on_from(kind, option):
    from transformers import DynamicCache

    model = bridge(f"toy-{kind}")
    past = DynamicCache(config=model.lm.hf.config)
    vectors = model.embed(P + " a").vectors
    model.lm.hf(inputs_embeds=vectors, past_key_values=past, use_cache=True)
    whole = model.lm.hf(inputs_embeds=model.embed(P + " a dog").vectors, use_cache=False).logits
    assert past.get_seq_length() == whole.shape[1] - 1
    assert off(model(" dog", **{option: past})[:, -1], whole[:, -1]) < 1e-5


def test_what_differs_on_purpose_does_and_stands_on_the_page_about_transformer_lens():
    page = (Path(__file__).parents[1] / "docs/coming-from-transformerlens.md").read_text("utf-8")
    differs = page.partition("## Where it differs, and why")[2].partition("\n## ")[0]
    model = bridge("toy-gpt2")
    assert not model.generate(TEXT, 1).startswith(TEXT)
    bos = model.tokenizer.bos_token_id
    assert bos not in model.to_tokens(TEXT)[0].tolist() and not model.prepend_bos
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for words in (
        "`generate` returns the new words alone", "No BOS token unless you say so",
        "`cfg.default_prepend_bos`", "`padding_side`", "Parameters are frozen",
        "`reset_hooks(including_permanent=True)` leaves the pictures in", "`start_at_layer` is",
        "A call inside a hook is a run of its own", "`model.train()` keeps the model in eval mode",
        "`stop_at_layer` may be the number of layers", "What a hook returns is looked at",
    ):  # fmt: skip
        assert words in differs, words


@pytest.mark.parametrize("kind", ["gptj", "llama", "gpt2"])
@torch.no_grad()
def test_reading_on_from_a_cache_gives_what_reading_everything_gives(kind):
    model = bridge(f"toy-{kind}")
    silent = model.edit(mm.Edit("neurons", 0.0, layer=1), mm.Edit("z", 0.0, layer=0, pos=mm.Patch))
    for one in (model, silent):
        whole = one([P + " a dog", prompt((0, 0), "A cat and a dog")])
        past = None
        read = []
        for part in ([P, prompt((0, 0), "A cat and")], [" a", " a"], [" dog", " dog"]):
            how = {"past_key_values": past, "return_type": "logits_and_cache", "use_cache": True}
            logits, past = one(part, **how)
            read.append(logits)
        assert off(torch.cat(read, 1), whole) < 1e-5
    assert model("A", return_type=None) is None
    with pytest.raises(PromptError, match="The cache holds 2 prompts and 1 go on"):
        model(" dog", past_kv_cache=past)
    with pytest.raises(PromptError, match="is no cache of keys and values"):
        model(" dog", past_kv_cache=3.5)
