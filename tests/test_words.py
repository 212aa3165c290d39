"""Words and ids with every kind of tokenizer: the pieces of a prompt are its text's own."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Any

import pytest
import torch
from bridges import bridge, off
from spellings import KINDS, PREFIXED, spelling

import mmlens as mm
from mmlens.families import toy
from mmlens.towers.language import tokenization
from mmlens.towers.language.language_model import wrap_lm
from mmlens.values.errors import PromptError, TargetError

every_tokenizer = pytest.mark.parametrize("kind", KINDS)


@lru_cache
def reader(kind: str) -> Any:
    """A toy bridge that reads with this tokenizer."""
    model = bridge("toy-llama")
    lm = wrap_lm(model.lm.hf, spelling(kind))
    return mm.HookedVLM(model.vision, model.projection, lm, name=kind)


def whole(kind: str, text: str) -> list[int]:
    return spelling(kind)(text, add_special_tokens=False)["input_ids"]


def read(kind: str, prompt: Any) -> list[int]:
    return [i for i in reader(kind).embed(prompt).ids[0].tolist() if i >= 0]


@every_tokenizer
def test_words_put_behind_a_prompt_have_the_ids_of_the_whole_text(kind):
    text, photo = whole(kind, "A picture of a dog"), toy.picture()
    assert read(kind, mm.Prompt(photo, "A picture of") + " a dog") == text
    assert read(kind, mm.Prompt(photo, "A picture of", " a", " dog")) == text
    assert read(kind, mm.Prompt("A pict", "ure of a dog")) == text
    labels = reader(kind).embed(mm.Prompt(photo, "A picture of a dog")).labels[0][16:]
    assert [str(label) for label in labels][1:] == [" picture", " of", " a", " dog"]


@every_tokenizer
def test_words_before_the_explained_one_and_a_given_caption_go_on_where_the_prompt_ends(kind):
    model, prompt = reader(kind), mm.Prompt(toy.picture(), "A picture of")
    scores = mm.attribute(model, prompt, " dog", after=" a", layer=0)
    same = mm.attribute(
        model, mm.Prompt(toy.picture(), "A picture of a"), " dog", after="", layer=0
    )
    assert off(scores.values, same.values) == 0.0
    assert scores.of("pos")[-1] == mm.Token(" a", 19)
    table: Any = mm.attribute_caption(model, prompt, 1, caption=" a dog")
    assert list(dict.fromkeys(map(str, table.token))) == [" a", " dog"]
    assert [t.at for t in dict.fromkeys(table.token)] == [19, 20]


@every_tokenizer
def test_words_before_and_instead_of_the_explained_one_take_no_piece_of_their_own(kind):
    """Asked by ids, so that no word has to be found by how it prints."""
    model, prompt = reader(kind), mm.Prompt(toy.picture(), "A picture of")
    dog = whole(kind, "A picture of a dog")[-1]
    scores = mm.attribute(model, prompt, dog, after=" a", layer=0)
    assert len(scores.of("pos")) == 16 + len(whole(kind, "A picture of a"))
    table: Any = mm.attribute_caption(model, prompt, 1, caption=" a dog")
    assert len(table.token.unique()) == 2


@every_tokenizer
def test_a_space_behind_a_picture_is_the_only_one(kind):
    model, photo = reader(kind), toy.picture()
    for prompt in (mm.Prompt(photo, " a dog"), mm.Prompt(photo) + " a dog"):
        assert model.to_str_tokens(prompt)[16:] == [" a", " dog"]
    both = mm.Prompt(photo, "Both", toy.picture((0, 0)), " with a", toy.picture(), "A dog")
    said = [str(x) for x in model.embed(both).labels[0] if isinstance(x, mm.Token)]
    assert said[-4:-2] == [" with", " a"]
    assert read(kind, both)[-2:] == whole(kind, "A dog")  # a text of its own, as it was trained
    scores = mm.attribute(model, mm.Prompt(photo), " dog", after=" a", layer=0)
    assert scores.of("pos")[16:] == (mm.Token(" a", 16),)


@every_tokenizer
def test_a_word_of_one_token_is_found_by_what_it_prints(kind):
    model, tokenizer = reader(kind), spelling(kind)
    printed = {i: tokenization.word(model.lm, i) for i in range(len(tokenizer))}
    names = tokenizer.convert_ids_to_tokens(list(printed))
    whole_pieces = [
        i for i in printed if not names[i].startswith("<0x") and "\ufffd" not in printed[i]
    ]
    assert len(whole_pieces) > 60
    assert max(Counter(printed[i] for i in whole_pieces).values()) == 1
    assert [i for i in whole_pieces if model.to_single_token(printed[i]) != i] == []
    assert model.to_single_token(" dog") == whole(kind, "A dog")[-1]


@every_tokenizer
def test_every_word_of_the_vocabulary_is_found_by_how_the_labels_print_it(kind):
    model = reader(kind)
    found = []
    for word in ("picture", "of", "a", "dog"):
        try:
            found.append(model.to_single_token(f" {word}"))
        except TargetError:
            found.append(-1)
    assert found == whole(kind, "A picture of a dog")[1:]


@pytest.mark.parametrize("kind", PREFIXED)
def test_a_word_without_its_space_is_another_word(kind):
    model = reader(kind)
    assert tokenization.word(model.lm, whole(kind, "dog")[0]) == " dog"
    with pytest.raises(TargetError, match="write ' show', which is one|is 0 tokens"):
        model.to_single_token("show") if kind != "t5" else model.to_single_token("")


@every_tokenizer
def test_what_a_model_says_can_be_given_back_as_its_caption(kind):
    model, prompt = reader(kind), mm.Prompt(toy.picture(), "A picture of")
    token = model.to_single_token(" dog")
    says = model.edit(mm.Edit.steer("resid_post", 100 * model.W_U[:, token], layer=2))
    assert says.generate(prompt, 2) == " dog dog"
    ids = tokenization.ids_after(model.lm, " dog dog", read(kind, prompt))
    assert ids == says.generate(prompt, 2, return_type="tokens")[0].tolist() == [token] * 2
    with pytest.raises(TargetError, match="its caption is ' dog dog"):
        mm.attribute(says, prompt, " a")


@every_tokenizer
@torch.no_grad()
def test_words_read_on_from_a_cache_go_on_where_it_ends(kind):
    model, photo = reader(kind), toy.picture()
    if not model.lm.caching.exact:
        pytest.skip("this transformers has a cache that TransformerLens does not fill")
    _, cache = model(mm.Prompt(photo, "A picture of"), return_type="logits_and_cache")
    more = model(" a dog", past_key_values=cache)
    assert off(more, model(mm.Prompt(photo, "A picture of a dog"))[:, -2:]) < 1e-4


@every_tokenizer
def test_captions_are_learned_with_the_ids_that_are_read(kind):
    from mmlens.train.caption_loss import Speller

    speller = Speller(spelling(kind), "A picture of")
    ids = speller(["a dog"]).ids[0].tolist()
    assert ids == [*whole(kind, "A picture of a dog"), spelling(kind).eos_token_id]
    assert ids[:-1] == read(kind, mm.Prompt(toy.picture(), "A picture of") + " a dog")


@pytest.mark.parametrize(
    "typed", ["<image>", "<|image|>", "<image_soft_token>", "[IMG]", "<photo>", "<IMAGE>", "<img>"]
)
def test_a_placeholder_typed_beside_a_picture_is_refused(typed):
    model = reader("llama-2")
    if typed == "<photo>":
        from copy import deepcopy

        tokenization = deepcopy(spelling("llama-2"))
        tokenization.image_token = typed
        model = mm.HookedVLM(
            model.vision, model.projection, wrap_lm(model.lm.hf, tokenization), name="own"
        )
    with pytest.raises(PromptError, match=r"hold '.+', which would be read as words beside the"):
        model(mm.Prompt(f"A {typed}\n", toy.picture(), "dog"))
    assert model.embed(f"A {typed}").ids.shape[1] > 1  # words alone may say what they like


def test_a_prompt_that_is_no_token_is_refused():
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    raw: Any = Tokenizer(models.WordLevel({"dog": 0, "<unk>": 1}, unk_token="<unk>"))
    raw.normalizer = normalizers.Strip()
    silent = PreTrainedTokenizerFast(tokenizer_object=raw)
    model = mm.HookedVLM(None, None, wrap_lm(bridge("toy-llama").lm.hf, silent), name="silent")
    with pytest.raises(PromptError, match="is no token at all"):
        model(" ")


@torch.no_grad()
def test_an_id_is_checked_where_it_comes_in():
    model = bridge("toy-gpt2")
    rows = model.root.W_E.shape[0]
    for wrong in (rows, 10**6):
        with pytest.raises(PromptError, match=f"{wrong} has no embedding: .* from 0 to {rows - 1}"):
            model(torch.tensor([[5, wrong]]))
        with pytest.raises(TargetError, match=f"{wrong} is no token of this model"):
            mm.attribute(model, "A dog", wrong, after="")
    for wrong in (True, -1, 1.5, b"a", None):
        with pytest.raises(TargetError, match="is no token of this model"):
            tokenization.id_of(model.lm, wrong)
    assert tokenization.id_of(model.lm, torch.tensor(3)) == 3
    many: Any = torch.tensor([[1, 2]])
    for wrong in (many.bool(), many[None], many[0, 0], many.to(torch.complex64), many.float()):
        with pytest.raises(PromptError, match="holds no token ids|Token ids are whole numbers"):
            model(wrong)
    assert off(model(many.to(torch.uint8)), model(many)) == 0.0
    assert off(model(many[0]), model(many)) == 0.0


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama", "gptj"])
@torch.no_grad()
def test_a_prompt_beyond_the_models_positions_is_refused_with_the_numbers(kind):
    model = bridge(f"toy-{kind}")
    full = torch.ones(1, 128, dtype=torch.long)
    assert off(model(full), model.lm.hf(full).logits) < 1e-4
    for long in (torch.ones(1, 129, dtype=torch.long), mm.Prompt(*[toy.picture()] * 8, "A")):
        with pytest.raises(PromptError, match=f"has 129 positions and '{model.name}' has 128"):
            model(long)
    with pytest.raises(PromptError, match=r"19 positions and 111 new tokens .* 128 .*=110 or less"):
        model.generate(mm.Prompt(toy.picture(), "A picture of"), 111)
    mask = torch.ones(1, 140, dtype=torch.long)
    mask[:, :12] = 0
    padded = model(torch.ones(1, 140, dtype=torch.long), attention_mask=mask)
    assert off(padded[:, 12:], model(full)) < 1e-4  # padding takes no position


def test_rotary_scaling_gives_the_positions_it_was_made_for():
    from mmlens.model.context_length import room

    model = mm.load("toy-llama")
    assert room(model) == 128
    config = model.root.original_model.config
    config.rope_parameters = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    assert room(model) == 512
    config.rope_parameters = {"rope_type": "llama3", "factor": 4.0, "rope_theta": 1e4}
    assert room(model) == 128
