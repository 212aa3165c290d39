"""What an MLP unit is and writes, on every architecture, against Hugging Face's own forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from bridges import bridge, off, prompt
from language_models import UNKNOWN, WITH_UNITS, WITHOUT_UNITS, bare, make, pair, soft
from torch import nn

import mmlens as mm
from mmlens import patching
from mmlens.families import toy
from mmlens.towers.language.language_model import wrap_lm
from mmlens.values.errors import AddressError, CapabilityError, MMLensError, SiteError
from mmlens.values.prompt import IMAGE_TOKEN, SoftPrompt

LAYER, POS, UNIT, WORD = 1, 5, 7, 11
every_model = pytest.mark.parametrize("kind", [*WITH_UNITS, *WITHOUT_UNITS])
every_unit = pytest.mark.parametrize("kind", WITH_UNITS)
NORMS = {
    **dict.fromkeys(("gemma2", "gemma3", "olmo2", "exaone4"), "post_feedforward_layernorm"),
    **dict.fromkeys(("opt, norms behind", "opt-350m"), "final_layer_norm"),
    "glm4": "post_mlp_layernorm",
}
"""Hugging Face's name of the norm that what the MLP writes goes through."""
DOWN = ("down_proj", "fc2", "fc_out", "dense_4h_to_h", "mlp.c_proj")
"""Its names of the matrix that the units are read by."""


class Run:
    """Hugging Face's forward, and what stands at one layer of it: [pos, ...], without a batch.

    Args:
        change: what is done in place to the units, Float[pos, unit].
    """

    def __init__(self, hf: Any, read: Any, kind: str, layer: int = LAYER, change: Any = None):
        base = getattr(hf.base_model, "decoder", getattr(hf.base_model, "model", hf.base_model))
        block = next(getattr(base, n) for n in ("layers", "h", "blocks") if hasattr(base, n))[layer]
        down = next(m for n, m in block.named_modules() if n.endswith(DOWN))
        self.seen: dict[str, torch.Tensor] = {}

        def units(module: Any, inputs: Any) -> Any:
            values = inputs[0].clone()
            flat = values.reshape(-1, values.shape[-1])
            if change is not None:
                change(flat)
            self.seen["units"] = flat
            return (values, *inputs[1:])

        handles = [down.register_forward_pre_hook(units)]
        handles.append(block.register_forward_hook(self._keep("stream")))
        if kind in NORMS:
            handles.append(getattr(block, NORMS[kind]).register_forward_hook(self._keep("norm")))
        with torch.no_grad():
            self.logits = hf(inputs_embeds=read.vectors, use_cache=False).logits[0]
        for handle in handles:
            handle.remove()

    def _keep(self, name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            self.seen[name] = value = value.reshape(-1, value.shape[-1])
            if name == "norm":
                read = inputs[0].reshape(-1, value.shape[-1])
                centred = isinstance(module, nn.LayerNorm)
                read = read - read.mean(-1, keepdim=True) if centred else read
                bias = module.bias if centred else 0.0
                self.seen["unscaled"] = (value - bias) * read.pow(2).mean(-1, keepdim=True).sqrt()

        return hook

    @property
    def stream(self) -> torch.Tensor:
        """The stream behind the layer; behind a norm, with the norm's scale taken off again."""
        return self.seen.get("unscaled", self.seen["stream"])


def true_direction(kind: str, layer: int = LAYER, hf: Any = None) -> torch.Tensor:
    """What one more unit of activation changes in the stream, in Hugging Face's own forward."""
    own, model = pair(kind)
    hf, read = hf or own, soft(model)

    def more(units: torch.Tensor) -> None:
        units[POS, UNIT] += 1.0

    return (Run(hf, read, kind, layer, more).stream - Run(hf, read, kind, layer).stream)[POS]


def words_of(hf: Any, direction: torch.Tensor) -> list[str]:
    """The words that a direction raises, the most first, by Hugging Face's own head."""
    out = getattr(getattr(hf.base_model, "decoder", None), "project_out", None)
    read = direction if out is None else out(direction)
    return [
        str(i) for i in (hf.get_output_embeddings().weight @ read).argsort(descending=True).tolist()
    ]


# Vectors go in -----------------------------------------------------------------------------------


@every_model
@torch.no_grad()
def test_a_soft_prompt_is_what_hugging_faces_inputs_embeds_receives(kind):
    hf, model = pair(kind)
    read = soft(model)
    assert off(model(read), hf(inputs_embeds=read.vectors, use_cache=False).logits) < 1e-5
    ids = torch.tensor([[5, 9, 3, 11]])
    words = hf(inputs_embeds=model.lm.embed(ids), use_cache=False).logits
    assert off(words, hf(ids, use_cache=False).logits) < 1e-5
    shown = model.run_with_cache(ids, names_filter="embed.hook_out")[1]["embed.hook_out"]
    assert off(shown, model.lm.embed(ids) * model.lm.entrance.scale) < 1e-6


@pytest.mark.parametrize("kind", ["opt, projected", "opt-350m"])
@torch.no_grad()
def test_a_patch_stands_at_one_position_where_embeddings_are_narrower_than_the_stream(kind):
    from mmlens.families.parts import from_parts

    hf, eye = make(kind, vocab_size=len(toy.tokenizer()) + 1), bridge("toy-gpt2").vision
    model = from_parts(eye, nn.Linear(16, 16), hf, toy.tokenizer())
    read = model.embed(prompt())
    patches = model.projection(eye(eye.preprocess(toy.picture())[None]))
    assert off(read.vectors[0, :16], patches[0]) < 1e-6
    assert off(model(prompt()), hf(inputs_embeds=read.vectors, use_cache=False).logits) < 1e-5
    with pytest.raises(MMLensError, match="16 -> 16"):
        from_parts(eye, nn.Linear(16, 32), hf, toy.tokenizer())


@pytest.mark.parametrize("kind", ["granite", "falcon-h1", "gemma", "llama"])
@torch.no_grad()
def test_a_vector_that_is_the_embedding_of_a_word_is_read_as_the_word(kind):
    hf, model = pair(kind)
    ids, read = torch.tensor([[5, 9, 3, 11, 7, 2, 30]]), soft(model)
    same = SoftPrompt(model.lm.embed(ids), read.ids, read.mask, read.labels)
    assert int((read.ids[0] == IMAGE_TOKEN).sum()) == 3
    assert off(model(same), hf(ids, use_cache=False).logits) < 1e-5


@pytest.mark.parametrize("kind", ["granite", "falcon-h1", "gemma", "llama"])
@torch.no_grad()
def test_a_projection_that_was_trained_through_inputs_embeds_is_read_in_its_units(kind):
    from mmlens.families.parts import from_parts

    hf, eye = make(kind, vocab_size=len(toy.tokenizer()) + 1), bridge("toy-gpt2").vision
    torch.manual_seed(5)
    trained = nn.Linear(16, 32)
    model = from_parts(eye, trained, hf, toy.tokenizer())
    patches = trained(eye(eye.preprocess(toy.picture())[None]))
    words = hf.get_input_embeddings()(torch.tensor([toy.tokenizer()("A picture of")["input_ids"]]))
    words = words * 3.0 if kind == "falcon-h1" else words  # it scales words alone, before
    theirs = hf(inputs_embeds=torch.cat([patches, words], 1), use_cache=False).logits
    assert off(model(prompt()), theirs) < 1e-5


# What units are ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Falcon", "OPT"])
def test_the_width_of_an_mlp_is_that_of_its_matrix_where_it_is_not_four_times_the_stream(kind):
    small: dict[str, Any] = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 4}
    small |= {"ffn_hidden_size": 80} if kind == "Falcon" else {"ffn_dim": 80}
    small |= {"word_embed_proj_dim": 32} if kind == "OPT" else {}
    hf = getattr(transformers, f"{kind}ForCausalLM")(
        getattr(transformers, f"{kind}Config")(**small)
    )
    assert wrap_lm(hf).root.cfg.d_mlp == 80


@every_unit
def test_units_are_what_hugging_faces_last_matrix_reads(kind):
    hf, model = pair(kind)
    run = Run(hf, soft(model), kind)
    read = mm.activations(model, soft(model), "neurons", layer=LAYER)
    assert off(read.values, run.seen["units"]) < 1e-5
    assert model.cfg.d_mlp == run.seen["units"].shape[-1]


@every_unit
def test_a_neuron_writes_the_direction_that_the_stream_really_takes(kind):
    hf, model = pair(kind)
    true, neuron = true_direction(kind), mm.Neuron(LAYER, UNIT)
    written = patching.written_by(model, neuron)
    assert float(torch.cosine_similarity(written.values, true, dim=0)) > 0.9999
    if kind not in NORMS:  # behind a norm the length depends on the run
        assert off(written.values, true) < 1e-4
    assert ("run" in written.about["norm"]) == (kind in NORMS)
    said = mm.decode(model, [neuron, neuron], 5, active=[0.5, -0.5])
    wanted = words_of(hf, true)
    assert said.words[0] == wanted[:5] and said.words[1] == wanted[::-1][:5]
    assert said.sign.tolist() == [1, -1]


@every_unit
def test_the_words_of_a_neuron_are_those_that_its_direction_raises(kind):
    hf, model = pair(kind)
    wanted = words_of(hf, true_direction(kind))[:10]
    assert mm.decode(model, mm.Neuron(LAYER, UNIT), 10).words[0] == wanted


@every_unit
def test_silencing_a_neuron_moves_hugging_faces_logit_by_its_score(kind):
    hf, model = pair(kind)
    read = soft(model)
    scores = mm.attribute(
        model, read, target=lambda logits: logits[WORD], point="post", layer=[0]
    ).sel(layer=0)
    pos, unit = divmod(int(scores.values.abs().argmax()), scores.values.shape[-1])

    def less(units: torch.Tensor) -> None:
        units[pos, unit] *= 0.99

    change = Run(hf, read, kind, 0, less).logits - Run(hf, read, kind, 0).logits
    score = float(scores.values[pos, unit])
    assert float(change[-1, WORD]) == pytest.approx(-0.01 * score, rel=0.05, abs=2e-6)


@pytest.mark.parametrize("kind", ["opt, projected", "opt-350m", "opt, norms behind", "granite"])
@torch.no_grad()
def test_the_lens_at_the_last_layer_is_hugging_faces_own_prediction(kind):
    hf, model = pair(kind)
    lens = mm.logit_lens(model, soft(model), [3, WORD], quantity="logit", layer=[LAYER])
    own = hf(inputs_embeds=soft(model).vectors, use_cache=False).logits[0]
    assert off(lens.values[0], own[:, [3, WORD]]) < 1e-5


@pytest.mark.parametrize("kind", ["gemma3", "olmo2", "glm4", "llama", "opt, projected"])
def test_shares_of_neurons_add_up_to_what_the_mlp_writes_towards_the_word(kind):
    _, model = pair(kind)
    whole = patching.direct_logits(model, soft(model), WORD, by="part")
    units = patching.direct_logits(model, soft(model), WORD, by="neuron")
    bias = getattr(model.blocks[LAYER].mlp, "b_out", None)
    if bias is None:
        mlp = whole.sel(part=f"mlp {LAYER}").item()
        assert float(units.values[LAYER].sum()) == pytest.approx(mlp, abs=1e-4)
    assert float(units.values.abs().max()) > 1e-3


def test_a_norm_behind_the_stream_gives_no_shares_and_says_so():
    _, model = pair("opt-350m")
    with pytest.raises(CapabilityError):
        patching.direct_logits(model, soft(model), WORD, by="neuron")


# Where there are none ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WITHOUT_UNITS)
def test_a_layer_without_units_is_refused_in_a_sentence_by_every_question(kind):
    _, model = pair(kind)
    last = model.cfg.n_layers - 1
    neuron, read = mm.Neuron(last, 3), soft(model)
    number = lambda logits: logits[WORD]  # noqa: E731
    for ask in (
        lambda: mm.attribute(model, read, target=number),
        lambda: mm.attribute(model, read, target=number, point="post"),
        lambda: mm.integrated_gradients(model, read, target=number),
        lambda: mm.activations(model, read, "neurons"),
        lambda: mm.activations(model, read, "neurons_pre", layer=last),
        lambda: model.edit(mm.Edit("neurons", 0.0, neuron)),
        lambda: model.edit(mm.Edit(f"blocks.{last}.mlp.hook_post", 0.0, unit=3)),
        lambda: mm.decode(model, neuron),
        lambda: patching.written_by(model, neuron),
        lambda: patching.direct_logits(model, read, WORD, by="neuron"),
    ):
        with pytest.raises(CapabilityError, match=r"^Layer \d of '.*' has no MLP units: .*\.$"):
            ask()


@pytest.mark.parametrize("kind", ["deepseek-v3", "llama4", "qwen2-moe", "jamba"])
def test_dense_layers_beside_expert_layers_are_right(kind):
    hf, model = pair(kind)
    written = patching.written_by(model, mm.Neuron(0, UNIT)).values
    true = true_direction(kind, 0)
    assert float(torch.cosine_similarity(written, true, dim=0)) > 0.9999
    number = lambda logits: logits[WORD]  # noqa: E731
    scores = mm.attribute(model, soft(model), target=number, point="post", layer=[0])
    assert scores.shape[-1] == len(model.blocks[0].mlp.W_out)
    with pytest.raises(CapabilityError, match=r"Layers with units: 0; .*layer=\[0\]"):
        mm.attribute(model, soft(model), target=number)
    assert words_of(hf, written)[0] == mm.decode(model, mm.Neuron(0, UNIT)).words[0][0]


def test_a_cache_leaves_out_points_that_hand_on_no_tensor():
    _, model = pair("jamba")
    kept = model.run_with_cache(soft(model))[1]
    assert all(isinstance(kept[name], torch.Tensor) for name in kept)
    [name] = [one for one in model.hook_dict if one not in kept][:1]
    with pytest.raises(SiteError, match="hands on a tuple and no tensor"):
        model.run_with_cache(soft(model), names_filter=name)


@pytest.mark.parametrize("kind", UNKNOWN)
def test_an_architecture_that_transformer_lens_does_not_know_is_refused(kind):
    with pytest.raises(CapabilityError, match=r"TransformerLens has no hooks for \w+ForCausalLM"):
        bare(make(kind))


# Which end ---------------------------------------------------------------------------------------


def test_what_a_negative_activation_says_is_what_minus_the_row_raises():
    model = bridge("toy-llama")
    read = mm.activations(model, prompt(), "neurons")
    scores = mm.attribute(model, prompt(), " dog", after="", point="post")
    best = mm.top_neurons(scores, 40, active=read)
    assert {-1, 1} == {-1 if a < 0 else 1 for a in best.active}
    said: Any = mm.decode(model, best, 3)
    ends = {(n, -1 if a < 0 else 1) for n, a in zip(best.neuron, best.active, strict=True)}
    assert set(zip(said.neuron, said.sign, strict=True)) == ends
    for row in said.itertuples():
        written = row.sign * model.blocks[row.neuron.layer].mlp.W_out[row.neuron.unit]
        highest = int((written @ model.W_U)[: model.lm.n_words].argmax())
        assert row.words[0] == model.to_string([highest])
    with pytest.raises(AddressError, match="2 neurons and 1 activations"):
        mm.decode(model, [mm.Neuron(0, 1), mm.Neuron(0, 2)], active=[1.0])


def test_tables_and_the_explorer_show_the_end_that_is_written():
    from mmlens.view import cards, explore
    from mmlens.view.explorer_page.data import Detail, Shared, picture_data

    model = bridge("toy-llama")
    seen = mm.look(model, toy.picture(), caption=" a dog", full=True)
    table: Any = seen.table
    minus = table[table.sign < 0].iloc[0]
    active = mm.activations(model, mm.Prompt(toy.picture(), "A picture of a"), "neurons")
    here = active.sel(minus.neuron, pos=minus.patch).item()
    assert here < 0 and minus.active == pytest.approx(here, abs=1e-6)
    row = model.blocks[minus.neuron.layer].mlp.W_out[minus.neuron.unit]
    lowest = int((row @ model.W_U)[: model.lm.n_words].argmin())
    assert minus.words[0] == model.to_string([lowest])
    shared = Shared()
    data = picture_data(seen, "one", Detail(320, 10, 3, 5, 6, 96), shared)
    known = shared.neurons[str(minus.neuron)]["minus"]
    assert known["says"][0].strip("·") == minus.words[0].strip()
    shown = [one for top in data["tops"] for one in top if one["neuron"] == str(minus.neuron)]
    assert -1 in {one.get("sign", 1) for one in shown}
    assert "minus its output raises" in str(cards(table[table.sign < 0].head(2)))
    assert '"minus"' in explore(seen).html


def test_a_look_shows_the_words_that_each_neuron_writes_with_the_sign_that_it_has_there():
    model = bridge("toy-llama")
    table: Any = mm.look(model, toy.picture(), caption=" a dog", full=True).table
    active = mm.activations(model, mm.Prompt(toy.picture(), "A picture of a"), "neurons")
    signs = []
    for row in table.itertuples():
        here = active.sel(row.neuron, pos=row.patch).item()
        signs.append(1 if here > 0 else -1)
        written = here * model.blocks[row.neuron.layer].mlp.W_out[row.neuron.unit]
        highest = int((written @ model.W_U)[: model.lm.n_words].argmax())
        assert row.words[0] == model.to_string([highest])
    assert signs.count(-1) > len(signs) / 4  # about half


def test_pages_say_when_words_are_those_of_a_negative_activation():
    from mmlens.view import cards, explore

    model = bridge("toy-llama")
    seen = mm.look(model, toy.picture(), caption=" a dog", full=True)
    active = mm.activations(model, mm.Prompt(toy.picture(), "A picture of a"), "neurons")
    here = [active.sel(row.neuron, pos=row.patch).item() for row in seen.table.itertuples()]
    minus = seen.table[[value < 0 for value in here]]
    assert "minus its output raises" in str(cards(minus.head(2)))
    assert '"minus"' in explore(seen).html


def test_scores_before_the_activation_function_predict_what_they_say_they_predict():
    model = bridge("toy-llama")
    dog = model.to_single_token(" dog")
    ask = lambda point: mm.attribute(model, prompt(), " dog", after="", point=point)  # noqa: E731
    pre, post = ask("pre"), ask("post")
    assert "the gate's input alone" in pre.about.get("silencing", "")
    assert post.about["silencing"] == "Edit('neurons', 0.0, ...)"
    assert (
        "alone"
        not in mm.attribute(bridge("toy-gpt2"), prompt(), " dog", after="", point="pre").about[
            "silencing"
        ]
    )
    for scores, site in ((pre, "neurons_pre"), (post, "neurons")):
        best = mm.top_neurons(scores, 1, pos=None).iloc[0]
        less = mm.Edit(site, lambda x: x * 0.99, best.neuron, pos=best.patch)
        change = model.edit(less)(prompt())[0, -1, dog] - model(prompt())[0, -1, dog]
        score = best.score
        assert float(change) == pytest.approx(-0.01 * score, rel=0.05)


# Weights that are not `.weight`, and weights that change -----------------------------------------


class Lora(nn.Module):
    """A layer as peft wraps it: the base beside two thin matrices, `.weight` the base's."""

    def __init__(self, base_layer: nn.Module, d_in: int, d_out: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lora_A = nn.ModuleDict({"default": nn.Linear(d_in, 4, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(4, d_out, bias=False)})

    @property
    def weight(self) -> Any:
        return self.base_layer.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


def adapted(kind: str) -> Any:
    hf = make(kind)
    torch.manual_seed(3)
    for module in list(hf.modules()):
        for name, layer in list(module.named_children()):
            if name in ("down_proj", "v_proj", "c_proj") and not isinstance(module, Lora):
                sizes = (layer.nx, layer.nf) if hasattr(layer, "nx") else layer.weight.shape[::-1]
                setattr(module, name, Lora(layer, *sizes))
    return hf


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_the_weights_that_are_read_are_those_of_the_adapted_model_that_runs(kind, tmp_path):
    hf = adapted(kind)
    model = bare(hf, kind)
    with torch.no_grad():
        same = hf(inputs_embeds=soft(model).vectors, use_cache=False).logits
        assert off(model(soft(model)), same) < 1e-5
        assert off(same, pair(kind)[0](inputs_embeds=soft(model).vectors).logits) > 1e-2
    true = true_direction(kind, LAYER, hf)
    written = patching.written_by(model, mm.Neuron(LAYER, UNIT)).values
    assert float(torch.cosine_similarity(written, true, dim=0)) > 0.9999
    assert any(isinstance(module, Lora) for module in hf.modules())  # the caller's stays
    saved = type(model.lm.hf).from_pretrained(model.lm.hf.save_pretrained(tmp_path) or tmp_path)
    assert off(saved(inputs_embeds=soft(model).vectors, use_cache=False).logits, same) < 1e-5


def test_what_peft_makes_is_read_merged():
    peft = pytest.importorskip("peft")
    base = make("llama")
    made = peft.get_peft_model(
        base, peft.LoraConfig(r=4, target_modules=["down_proj", "q_proj"], init_lora_weights=False)
    ).eval()
    for given in (made, made.get_base_model()):
        model = bare(given, "llama")
        with torch.no_grad():
            same = made(inputs_embeds=soft(model).vectors, use_cache=False).logits
            assert off(model(soft(model)), same) < 1e-5
        merged = base.model.layers[LAYER].mlp.down_proj
        delta = merged.get_delta_weight("default") + merged.base_layer.weight
        assert off(model.blocks[LAYER].mlp.W_out, delta.T) < 1e-5


def test_an_adapter_that_is_no_linear_map_is_refused():
    class Curved(Lora):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).tanh()

    hf = make("llama")
    mlp = hf.model.layers[0].mlp
    mlp.down_proj = Curved(mlp.down_proj, 48, 32)
    with pytest.raises(CapabilityError, match="'down_proj' is adapted by something that is no"):
        bare(hf)


def test_decode_reads_the_weights_as_they_are_now():
    model = mm.load("toy-gemma")
    neuron = mm.Neuron(1, 3)
    before = mm.decode(model, neuron, gain=True)
    for change in (
        lambda: model.blocks[1].mlp.out.weight.data.neg_(),
        lambda: model.root.unembed.weight.data.copy_(model.root.unembed.weight.data.roll(7, 0)),
        lambda: model.ln_final.weight.data.copy_(torch.linspace(-3, 3, 32)),
    ):
        change()
        after = mm.decode(model, neuron, gain=True)
        assert after.words[0] != before.words[0]
        row = model.blocks[1].mlp.W_out[3] * (1 + model.ln_final.weight)
        best = int((row @ model.W_U)[: model.lm.n_words].argmax())
        assert after.words[0][0] == model.to_string([best])
        before = after


# Half precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [mm.attribute, mm.integrated_gradients, mm.attribute_picture])
def test_an_unlikely_words_probability_has_its_gradients_in_float16(ask):
    from mmlens.families.parts import from_parts

    whole = mm.load("toy-llama")
    hf = whole.lm.hf
    with torch.no_grad():
        hf.lm_head.weight *= 4.0
    parts = (whole.vision, whole.projection, hf, toy.tokenizer())
    wide, half = from_parts(*parts), from_parts(*parts, dtype=torch.float16)
    with torch.no_grad():
        probs = wide(prompt())[0, -1].softmax(-1)
    word = int((probs.log() - torch.tensor(1e-6).log()).abs().argmin())
    assert 1e-7 < float(probs[word]) < 1e-5
    true = ask(wide, prompt(), word, after="", target="prob").values.flatten()
    found = ask(half, prompt(), word, after="", target="prob").values.flatten().float()
    assert float((found[true != 0] != 0).float().mean()) > 0.99
    assert float(torch.corrcoef(torch.stack([true, found]))[0, 1]) > 0.99
    assert float(found.norm() / true.norm()) == pytest.approx(1.0, abs=0.1)
