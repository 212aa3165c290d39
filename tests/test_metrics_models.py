"""CLIPScore and BERTScore on tiny random twins, against their formulas written out."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from PIL import Image

from mmlens import metrics
from mmlens.metrics import MetricError
from mmlens.values.errors import CapabilityError, CheckpointError, ModelError

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "the", "dog", "cat", "on", "mat", "red", "big"]
WORDS += ["bus", "here", "runs", "and"]
PICTURES = [Image.new("RGB", (48, 32), colour) for colour in ("red", "green", "black")]


def tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    made.post_processor = TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=32, **special)


@pytest.fixture(scope="module")
def bert() -> tuple[Any, Any]:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    return BertModel(config), tokenizer()


@pytest.fixture(scope="module")
def clip() -> tuple[Any, Any]:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    part = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "projection_dim": 16, "initializer_factor": 20.0,
    }  # fmt: skip
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 32, "eos_token_id": 2}
    sight = {"image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=part | text, vision_config=part | sight, projection_dim=16)
    size = {"height": 32, "width": 32}
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    processor = CLIPProcessor(image_processor=images, tokenizer=tokenizer())
    for seed in range(20):  # releases of transformers draw other weights from one seed
        torch.manual_seed(seed)
        made = CLIPModel(config), processor
        cosines = [cosine(made, text, photo) for text, photo in zip(TEXTS, PICTURES, strict=True)]
        if min(cosines) < 0 < max(cosines) and max(cosine(made, "a dog", p) for p in PICTURES) > 0:
            return made
    raise AssertionError("no twin of twenty shows both signs")


@pytest.fixture
def torchmetrics() -> Any:
    return pytest.importorskip("torchmetrics", reason="the extra `metrics` is not installed")


def cosine(clip: tuple[Any, Any], text: str, picture: Image.Image) -> float:
    model, processor = clip
    with torch.no_grad():
        out = model.eval()(**processor(text=[text], images=[picture], return_tensors="pt"))
    return float((out.image_embeds * out.text_embeds).sum())


def matched(bert: tuple[Any, Any], one: str, other: str, layer: int = 2) -> dict[str, float]:
    """Zhang et al.'s equations, special tokens left out."""
    model, words = bert
    vectors = []
    for text in (one, other):
        with torch.no_grad():
            out = model.eval()(**words(text, return_tensors="pt"), output_hidden_states=True)
        hidden = out.hidden_states[layer][0, 1:-1]
        vectors.append(hidden / hidden.norm(dim=-1, keepdim=True))
    cosines = vectors[0] @ vectors[1].T
    p, r = float(cosines.max(1).values.mean()), float(cosines.max(0).values.mean())
    return {"precision": p, "recall": r, "f1": 2 * p * r / (p + r)}


TEXTS = ["a dog", "the red bus runs here", "cat"]
SAID = ["a dog on a mat here", "a cat", "a big red bus here"]
TRUE = [["a dog", "the mat"], ["a cat runs here and here", "cat"], ["the bus runs", "dog"]]


def test_clip_score_is_a_hundred_cosines_and_never_negative(torchmetrics, clip):
    score = metrics.clip_score(TEXTS, PICTURES, backbone=clip)
    cosines = [cosine(clip, text, picture) for text, picture in zip(TEXTS, PICTURES, strict=True)]
    assert min(cosines) < 0 < max(cosines), "the twin must show both signs"
    assert score.items == pytest.approx([max(0, 100 * value) for value in cosines], abs=1e-3)
    assert score.corpus == pytest.approx(sum(score.items) / 3)
    assert score.settings["backbone"] == "CLIPModel"
    assert score.settings["torchmetrics"] == torchmetrics.__version__


def test_a_picture_and_a_text_that_come_again_are_encoded_once(torchmetrics, clip, monkeypatch):
    model, calls = clip[0], []
    for name in ("get_image_features", "get_text_features"):
        real = getattr(model, name)
        monkeypatch.setattr(
            model, name, lambda *a, n=name, f=real, **k: (calls.append(n), f(*a, **k))[1]
        )
    near = max(PICTURES, key=lambda picture: cosine(clip, "a dog", picture))
    calls.clear()
    one = metrics.clip_score(["a dog", "cat", "a dog"], [near] * 3, backbone=clip)
    assert one.items[0] == one.items[2] != one.items[1]
    assert sorted(calls) == ["get_image_features"] + ["get_text_features"] * 2


def ending() -> tuple[Any, Any]:
    """A CLIP twin that reads a text at its end token, the largest id, as OpenAI's do."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        PreTrainedTokenizerFast,
    )

    torch.manual_seed(4)
    ids = {word: i for i, word in enumerate([*WORDS, "[START]", "[END]"])}
    made = Tokenizer(WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    special = [(name, ids[name]) for name in ("[START]", "[END]")]
    made.post_processor = TemplateProcessing(  # type: ignore[assignment]
        single="[START] $A [END]", special_tokens=special
    )
    words = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", bos_token="[START]", eos_token="[END]"
    )
    part = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "projection_dim": 16, "initializer_factor": 20.0}  # fmt: skip
    text = {"vocab_size": len(ids), "max_position_embeddings": 12, "eos_token_id": ids["[END]"]}
    sight = {"image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=part | text, vision_config=part | sight, projection_dim=16)
    size = {"height": 32, "width": 32}
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    return CLIPModel(config), CLIPProcessor(image_processor=images, tokenizer=words)


def test_of_a_text_beyond_the_model_s_length_the_end_token_stays(torchmetrics, recwarn):
    model, processor = ending()
    long, short = "a dog on a mat " * 9, "a dog"
    scores = []
    for picture in PICTURES:
        given = processor(text=[long], images=[picture], return_tensors="pt", truncation=True,
                          max_length=12)  # fmt: skip
        assert given["input_ids"].shape == (1, 12)
        assert int(given["input_ids"][0, -1]) == processor.tokenizer.eos_token_id
        with torch.no_grad():
            out = model.eval()(**given)
        scores.append(max(0.0, 100 * float((out.image_embeds * out.text_embeds).sum())))
    assert max(scores) > 1
    score = metrics.clip_score([long] * len(PICTURES), PICTURES, backbone=(model, processor))
    assert score.items == pytest.approx(scores, abs=1e-3)
    assert any("1 texts are longer than the 12 tokens" in str(one.message) for one in recwarn)
    assert score.settings["texts_cut"] == 1 and score.settings["max_tokens"] == 12
    whole = metrics.clip_score([short] * len(PICTURES), PICTURES, backbone=(model, processor))
    assert "texts_cut" not in whole.settings


@pytest.mark.parametrize("part", ["f1", "precision", "recall"])
@pytest.mark.parametrize("layer", [0, 1, None])
def test_bert_score_is_the_published_matching_at_any_layer(torchmetrics, bert, part, layer):
    score = metrics.bert_score(SAID, TRUE, backbone=bert, part=part, layer=layer)
    at = 2 if layer is None else layer
    for item, said, true in zip(score.items, SAID, TRUE, strict=True):
        best = max(matched(bert, said, text, at)[part] for text in true)
        assert item == pytest.approx(best, abs=1e-5)
    assert (score.name, score.settings["layer"]) == (f"BERTScore {part}", at)


def test_no_item_of_bert_score_depends_on_the_others(torchmetrics, bert):
    """torchmetrics 1.9 gives candidates of several lengths each other's references."""
    together = metrics.bert_score(SAID, TRUE, backbone=bert).items
    alone = [
        metrics.bert_score([said], [true], backbone=bert).corpus
        for said, true in zip(SAID, TRUE, strict=True)
    ]
    assert together == pytest.approx(alone)


def test_bert_score_of_a_text_with_itself_is_one_and_of_no_words_zero(torchmetrics, bert):
    score = metrics.bert_score(["a red bus", ""], [["a red bus"], ["a dog"]], backbone=bert)
    assert score.items == pytest.approx((1, 0), abs=1e-5)


def test_bert_score_averages_references_and_rescales_when_asked(torchmetrics, bert):
    values = [matched(bert, SAID[0], text)["f1"] for text in TRUE[0]]
    mean = metrics.bert_score(SAID[:1], TRUE[:1], backbone=bert, over="mean", baseline=0.2)
    assert mean.corpus == pytest.approx((sum(values) / 2 - 0.2) / 0.8, abs=1e-5)
    assert mean.settings["baseline"] == 0.2


def test_a_backbone_in_a_folder_gives_the_values_of_the_objects(torchmetrics, clip, bert, tmp_path):
    for part, folder in ((clip, tmp_path / "eye"), (bert, tmp_path / "words")):
        for thing in part:
            thing.save_pretrained(folder)
    seen = metrics.clip_score(TEXTS, PICTURES, backbone=tmp_path / "eye")
    assert seen.items == pytest.approx(
        metrics.clip_score(TEXTS, PICTURES, backbone=clip).items, abs=1e-3
    )
    read = metrics.bert_score(SAID, TRUE, backbone=str(tmp_path / "words"))
    assert read.items == pytest.approx(metrics.bert_score(SAID, TRUE, backbone=bert).items)
    assert (seen.settings["backbone"], read.settings["backbone"]) == ("eye", "words")


def test_a_backbone_that_cannot_be_found_is_named_with_the_nearest(torchmetrics, tmp_path):
    with pytest.raises(ModelError, match=r"no backbone 'roberta-lrage'.*did you mean 'roberta-l"):
        metrics.bert_score(SAID, TRUE, backbone="roberta-lrage")
    with pytest.raises(ModelError, match=r"no backbone 'openai/clip-vit-base-patch23'.*patch32"):
        metrics.clip_score(TEXTS, PICTURES, backbone="openai/clip-vit-base-patch23")
    with pytest.raises(CheckpointError, match=f"The folder .*{tmp_path.name}' holds no backbone"):
        metrics.bert_score(SAID, TRUE, backbone=tmp_path)
    with pytest.raises(ModelError, match="A Linear is no backbone: give a folder, a name such as"):
        metrics.clip_score(TEXTS, PICTURES, backbone=torch.nn.Linear(1, 1))


def test_what_does_not_fit_is_refused_before_a_model_is_read(torchmetrics, bert):
    with pytest.raises(MetricError, match="1 candidates and 3 pictures"):
        metrics.clip_score(TEXTS[:1], PICTURES, backbone="nothing")
    with pytest.raises(MetricError, match="there are no candidates"):
        metrics.bert_score([], [], backbone="nothing")
    with pytest.raises(MetricError, match="there is no layer 3: write 0 to 2"):
        metrics.bert_score(SAID, TRUE, backbone=bert, layer=3)
    with pytest.raises(MetricError, match="write 'f1', 'precision' or 'recall'"):
        metrics.bert_score(SAID, TRUE, backbone=bert, part="f2")


def test_without_the_extra_the_sentence_says_how_to_get_it(monkeypatch, bert, clip):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchmetrics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(
        CapabilityError, match=r"clip_score needs .*pip install 'mmlens\[metrics\]'"
    ):
        metrics.clip_score(TEXTS, PICTURES, backbone=clip)
    with pytest.raises(
        CapabilityError, match=r"bert_score needs .*pip install 'mmlens\[metrics\]'"
    ):
        metrics.bert_score(SAID, TRUE, backbone=bert)
