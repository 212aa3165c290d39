"""Tiny random bridges, one per class of language model, built in a second without any file.

    load("toy-gptj")             random weights: every property must hold here as on a real model
    load("toy-gptj-planted")     one neuron with known ground truth: `model.provenance["planted"]`

The planted neuron fires at white patches (fitted by least squares), writes the unembedding
direction of " dog", and the next layer's attention copies what it wrote to the last position. So
attribution must find it first, `decode` must say " dog", its map must peak at the white patch, and
silencing it must cost the word its probability.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import nn

from mmlens.families import family
from mmlens.families.anatomy import anatomy
from mmlens.values.arguments import SEEDS, count
from mmlens.values.labels import Neuron
from mmlens.values.least_squares import least_squares

WORDS = (  # noqa: SIM905
    "a an the of in on and with two three picture dog cat bird fish tree house car boat red blue "
    "green white black big small left right photo drawing word this is it was man woman child "
    "horse cow sheep apple cup book ball sun moon star"
).split()
_SIDE, _PATCH = 32, 8
_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
_GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
_CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {**_GPT, "tie_word_embeddings": False}),
    "gpt-neox": ("GPTNeoX", _SMALL),
    "gptj": ("GPTJ", {**_GPT, "rotary_dim": 4, "tie_word_embeddings": False}),
    "opt": ("OPT", {**_SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "llama": ("Llama", _SMALL),
    "qwen": ("Qwen2", _SMALL),
    "gemma": ("Gemma", _SMALL),
}
PLANTED = Neuron(1, 5)
KINDS = tuple(_CLASSES)


_TOLD = {f"toy-{k}": f"a tiny random bridge: ViT - linear - {_CLASSES[k][0]}" for k in KINDS}
_PLANTED = {f"{name}-planted": f"{line}, with a planted neuron" for name, line in _TOLD.items()}


@family(_TOLD | _PLANTED)
def toy(
    name: str,
    *,
    seed: int = 0,
    d_model: int = 32,
    backend: str = "bridge",
    fold_ln: bool = False,
    rows: int = 2,
) -> Any:
    """A tiny random bridge: ViT (32 px, 16 patches) - linear - LM (3 layers of 32).

    Args:
        seed: of all weights.
        backend: `"bridge"`, or `"hooked_transformer"` where TransformerLens 3.x has one.
        rows: vocabulary rows beyond the tokenizer's words, as real checkpoints have.
    """
    from mmlens.model.hooked_vlm import HookedVLM
    from mmlens.towers.language.language_model import wrap_lm
    from mmlens.towers.vision.wrap import wrap_vision

    seed = count(seed, "seed", least=0, most=SEEDS)
    kind = name.removeprefix("toy-").removesuffix("-planted")
    generator = torch.Generator().manual_seed(seed)
    words = tokenizer()
    hf = _language_model(kind, len(words) + rows, generator)
    vision = wrap_vision(_vision(generator), _pixels())
    projection = nn.Linear(16, 32)
    _fill(projection, generator, 0.3)
    provenance: dict[str, Any] = {"family": "toy", "seed": seed, "class": type(hf).__name__}
    if name.endswith("-planted"):
        provenance["planted"] = str(PLANTED)
        direction = _clear_word(hf, projection, tokenizer()(" dog")["input_ids"][0])
        places = [(row, col) for row in range(4) for col in range(4)]
        with torch.no_grad():
            seen = [vision.preprocess(picture(at, seed=i)) for i, at in enumerate(places)]
            soft = projection(vision(torch.stack(seen)))
        _plant(hf, kind, soft, [row * 4 + col for row, col in places], direction)
    if backend == "hooked_transformer":
        from mmlens.families.hooked_transformer import hooked_transformer

        lm = wrap_lm(hooked_transformer(hf, fold_ln=fold_ln), words)
    else:
        lm = wrap_lm(hf, words, fold_ln=fold_ln)
    return HookedVLM(vision, projection, lm, name=name, provenance=provenance)


def picture(white: tuple[int, int] = (2, 1), seed: int = 0) -> Image.Image:
    """A 32 x 32 picture of dark noise with one white patch of the 4 x 4 grid."""
    generator = torch.Generator().manual_seed(seed)
    pixels = (torch.rand(_SIDE, _SIDE, 3, generator=generator) * 60).byte()
    row, col = white[0] * _PATCH, white[1] * _PATCH
    pixels[row : row + _PATCH, col : col + _PATCH] = 255
    return Image.fromarray(pixels.numpy())


@lru_cache
def tokenizer() -> Any:
    """A byte-level BPE in which every word of `WORDS` with a leading space is one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<eos>"],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    raw.train_from_iterator(
        [f" {word}" for word in WORDS for _ in range(4)] + ["A picture of"] * 4, trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<eos>",
        bos_token="<eos>",
        pad_token="<eos>",
        padding_side="left",
    )


def _fill(module: nn.Module, generator: torch.Generator, std: float) -> None:
    """Random matrices; norms keep gain 1, biases become small noise so that none is dead."""
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            parameter.data = noise * std
        elif "norm" in name or ".ln_" in name or "layernorm" in name:
            parameter.data = parameter.data + noise * 0.05
        else:
            parameter.data = noise * 0.05


def _language_model(kind: str, d_vocab: int, generator: torch.Generator) -> Any:
    import transformers

    stem, options = _CLASSES[kind]
    config = getattr(transformers, f"{stem}Config")(
        vocab_size=d_vocab, bos_token_id=0, eos_token_id=0, pad_token_id=0, **options
    )
    dropouts = "resid_pdrop embd_pdrop attn_pdrop dropout attention_dropout hidden_dropout"
    for dropout in dropouts.split():
        if hasattr(config, dropout):
            setattr(config, dropout, 0.0)
    name = "GPT2LMHeadModel" if stem == "GPT2" else f"{stem}ForCausalLM"
    model = getattr(transformers, name)(config)
    _fill(model, generator, 0.15)
    return model.eval()


def _vision(generator: torch.Generator) -> Any:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=_SIDE,
        patch_size=_PATCH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = ViTModel(config, add_pooling_layer=False)
    _fill(model, generator, 0.2)
    return model.eval()


def _pixels() -> Any:
    from transformers import ViTImageProcessor

    return ViTImageProcessor(size={"height": _SIDE, "width": _SIDE})


def _clear_word(hf: Any, projection: nn.Linear, word: int) -> torch.Tensor:
    """The unit unembedding direction of a word, centred, and taken out of all that is read."""
    with torch.no_grad():
        row = hf.get_output_embeddings().weight[word]
        row -= row.mean()
        direction = row / row.norm()
        for module in hf.modules():
            if isinstance(module, nn.Embedding):
                module.weight -= torch.outer(module.weight @ direction, direction)
        for name, parameter in hf.named_parameters():
            if parameter.shape == row.shape and name.endswith("weight"):
                parameter.fill_(parameter.mean().round())  # the gain of a norm: 1 (Gemma keeps 0)
            elif parameter.shape == row.shape:
                parameter -= (parameter @ direction) * direction
        projection.weight -= torch.outer(direction, direction @ projection.weight)
        projection.bias -= (projection.bias @ direction) * direction
    return direction


def _plant(
    hf: Any, kind: str, soft: torch.Tensor, white: list[int], direction: torch.Tensor
) -> None:
    """Write the known neuron into the weights (see the module's text).

    Args:
        soft: Float[picture, patch, d_model], soft prompts of pictures with one white patch each.
        white: the index of that patch, per picture.
        direction: Float[d_model], what to write.
    """
    with torch.no_grad():
        parts = anatomy(hf, kind)
        for parameter in parts.quiet:  # what else is written to the stream: next to nothing
            parameter.mul_(0.05)
            parameter -= torch.outer(direction, direction @ parameter)
        words = hf.get_input_embeddings()(
            torch.tensor([tokenizer()("A picture of a")["input_ids"]])
        )
        seen: list[torch.Tensor] = []
        handle = parts.mlps[PLANTED.layer].register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].reshape(-1, soft.shape[-1]))
        )
        hf(inputs_embeds=torch.cat([soft, words.expand(len(soft), -1, -1)], 1), use_cache=False)
        handle.remove()
        wanted = torch.zeros(len(soft), soft.shape[1] + words.shape[1])
        wanted[range(len(soft)), white] = 2.0
        parts.read(PLANTED, least_squares(seen[0], wanted.reshape(-1, 1))[:, 0])
        parts.write(PLANTED, 0.4 * direction)
        parts.copy_by_attention(PLANTED.layer + 1, direction, 45.0)
