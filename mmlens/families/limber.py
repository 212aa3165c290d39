"""LiMBeR: a frozen encoder, one linear map, a frozen GPT-J (Merullo et al., arXiv 2209.15162).

    caption ~ GPT-J([P E(I); words]),   P = nn.Linear(d_vision, 4096) with bias; it alone is trained

    model = load("limber-beit", proj="limber_weights/beit_linear/proj.ckpt")
    model = load("limber-clip", twin=True)          # tiny random parts, the same code, offline

What is fed and how it is loaded follows the authors' code (github.com/jmerullo/limber), minus its
pitfalls: everything is in eval mode, so no dropout falls on the soft prompt at inference and no
batch statistics or stochastic depth act in the encoder (the released maps were *trained* under
those; small differences are theirs); decoding is mmlens's own (temperature 0 works, top-p keeps the
likely words); pad is the EOS token; `<|image|>` is token 50257 and the embedding has 50258 rows.

NF-ResNet50 differs most: the authors have no evaluation transform (random crop and flip, no
normalisation, also at inference). Here a picture is resized to 384 on its short side (bicubic),
cropped in the centre and left un-normalised, which is the mean of what the map was trained on.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmlens.checkpoints.language import load_lm, load_tokenizer
from mmlens.checkpoints.weights import (
    ProjectionSource,
    check_projection,
    projection_from,
    read_state,
)
from mmlens.families import family
from mmlens.families.limber_twins import (
    seeded,
    tiny_encoder,
    tiny_gptj,
    tiny_projection,
    words_of_twins,
)
from mmlens.families.parts import find_vision, label
from mmlens.runtime.casting import cast, device_of, dtype_of
from mmlens.runtime.sharing import share_weights
from mmlens.towers.language.language_model import wrap_lm
from mmlens.towers.vision.wrap import HookedVision, from_hf, from_open_clip, from_timm
from mmlens.values.arguments import SEEDS, count
from mmlens.values.errors import CheckpointError
from mmlens.values.optional_packages import package

IMAGE_WORD = "<|image|>"
IMAGE_ID = 50257
GPTJ = "EleutherAI/gpt-j-6B"
_NF_PIXELS = {"resize": "shortest", "interpolation": "bicubic", "rounding": "even"}
_NF_PIXELS |= {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


@dataclass(frozen=True)
class Recipe:
    """One of the six configurations: which encoder, where from, and how many soft prompts."""

    kind: str
    encoder: str | None
    positions: int
    d_vision: int


_BEIT = "microsoft/beit-large-patch16-224-pt22k"
RECIPES = {
    "limber-beit": Recipe("beit", _BEIT, 196, 1024),
    "limber-beit-ft": Recipe("beit-ft", _BEIT + "-ft22k", 196, 1024),
    "limber-beit-random": Recipe("beit", None, 196, 1024),
    "limber-clip": Recipe("clip", "open_clip:RN50x16/openai", 144, 3072),
    "limber-nfrn50": Recipe("nfrn50", "timm:nf_resnet50.ra2_in1k", 1, 2048),
    "limber-nfrn50-random": Recipe("nfrn50", None, 1, 2048),
}


_TOLD = {
    name: f"{recipe.encoder or f'a random {recipe.kind} encoder'} - linear - GPT-J 6B"
    for name, recipe in RECIPES.items()
}


@family(_TOLD)
def limber(
    name: str,
    *,
    proj: ProjectionSource | None = None,
    encoder: Any = None,
    lm: Any = None,
    tokenizer: Any = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device = "cpu",
    twin: bool = False,
    seed: int = 0,
    fold_ln: bool = False,
) -> Any:
    """One of LiMBeR's models.

    Args:
        proj: the trained map: `proj.ckpt` (weight [4096, d_vision], bias [4096]; fp16, bf16 or
            fp32, names with or without `proj.`), a safetensors file, a dict, or an nn.Linear.
        encoder: a module, folder, file of weights or name; None is the paper's (downloaded). The
            random encoders were never published, so those two ask for the file, or for
            "random:SEED" to begin an experiment.
        lm: a GPT-J, a folder or a hub id; None is EleutherAI/gpt-j-6B (downloaded).
        tokenizer: None is GPT-2's, to which `<|image|>` is added.
        dtype: of all parts; None is float32 on a CPU, bfloat16 (the authors') elsewhere.
        twin: tiny random parts of the same classes instead, for tests; any part given is kept.
        seed: of the twin's weights.
        fold_ln: as in TransformerLens' `from_pretrained`.

    Raises:
        CheckpointError: a missing, unsafe or unfitting checkpoint.
    """
    from mmlens.model.hooked_vlm import HookedVLM

    recipe, seed = RECIPES[name], count(seed, "seed", least=0, most=SEEDS - 2)
    if twin:
        encoder = encoder if encoder is not None else tiny_encoder(recipe.kind, seed)
        lm = lm if lm is not None else tiny_gptj(seed)
        tokenizer = tokenizer if tokenizer is not None else words_of_twins()
        proj = proj if proj is not None else tiny_projection(encoder, lm, seed)
    if proj is None:
        raise CheckpointError(
            f"{name} needs its trained projection, which mmlens does not ship: write "
            f'load("{name}", proj="path/to/proj.ckpt"), or twin=True for a tiny random model.'
        )
    place, kind = device_of(device) or torch.device("cpu"), dtype_of(dtype)
    kind = kind or (torch.float32 if place.type == "cpu" else torch.bfloat16)
    vision = _encoder(name, recipe, encoder)
    hf, words = _language_model(lm, tokenizer, kind)
    projection = projection_from(proj, "proj")
    d_model = int(hf.config.hidden_size)
    parts = f"{type(vision.module).__name__} and {type(hf).__name__}"
    grid = vision.grid[0] * vision.grid[1]
    check_projection(projection, vision.d_vision, d_model, parts, grid)
    if not twin and grid != recipe.positions:
        raise CheckpointError(
            f"{name} reads {recipe.positions} positions, but this encoder gives {grid}; use "
            f"{recipe.encoder or 'an encoder of the same shape'}."
        )
    provenance = {
        "family": "limber",
        "vision": label(encoder) or str(recipe.encoder),
        "lm": label(lm) or f"{GPTJ}@float16",
        "projection": label(proj),
    } | ({"twin": True, "seed": seed} if twin else {})
    language = wrap_lm(cast(hf, place), words, fold_ln=fold_ln)
    vision, projection = cast(vision, place, kind), cast(projection, place, kind)
    return HookedVLM(vision, projection, language, name=name, provenance=provenance)


def _encoder(name: str, recipe: Recipe, encoder: Any) -> HookedVision:
    """The encoder with the recipe's own pixels and pooling."""
    if isinstance(encoder, HookedVision):
        return encoder
    source = encoder if encoder is not None else recipe.encoder
    if source is None:
        raise CheckpointError(
            f"{name} was trained on one particular random encoder, and a projection fits no other: "
            'give encoder="path/to/its/weights", or encoder="random:0" to train a new one.'
        )
    if isinstance(source, str) and source.startswith("random:"):
        source = seeded(recipe.kind, int(source.partition(":")[2]))
    elif isinstance(source, (str, Path)) and Path(source).is_file():
        module = seeded(recipe.kind, 0)
        _load_encoder(module, source)
        source = module
    if isinstance(source, (str, Path)):
        if recipe.kind != "nfrn50" or not str(source).startswith("timm:"):
            return find_vision(source)
        source = package("timm", "vision").create_model(str(source)[5:], pretrained=True)
    if recipe.kind == "nfrn50":
        kwargs = getattr(source, "mmlens_kwargs", {})
        size = getattr(source, "mmlens_size", 384)
        pixels = {"image_size": size} | _NF_PIXELS
        return from_timm(source, pixels, pooled=True, kwargs=kwargs)
    return from_open_clip(source) if recipe.kind == "clip" else from_hf(source)


def _load_encoder(module: nn.Module, path: str | Path) -> None:
    """Encoder weights by name; only a head or pooler may be missing."""
    state = {key.removeprefix("visual."): value for key, value in read_state(path).items()}
    own = module.state_dict()
    unknown, missing = set(state) - set(own), set(own) - set(state)
    lost = sorted(key for key in missing if not key.startswith(("head", "pooler", "attnpool")))
    odd = sorted(key for key in set(own) & set(state) if own[key].shape != state[key].shape)
    if lost or odd or (unknown and len(unknown) == len(state)):
        what = f"lacks {lost[0]}" if lost else f"has another shape of {odd[0]}"
        raise CheckpointError(f"{str(path)!r} does not fit a {type(module).__name__}: it {what}.")
    module.load_state_dict({key: state[key] for key in own if key in state}, strict=False)


def _language_model(lm: Any, tokenizer: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    """GPT-J with one embedding row per word (50400 -> 50258), and the tokenizer."""
    hf: Any
    if lm is None or isinstance(lm, (str, Path)):
        revision = "float16" if lm is None else None
        hf = load_lm(lm if lm is not None else GPTJ, dtype=dtype, revision=revision)
    else:
        hf = share_weights(lm)  # rows are cut from our copy only
    words = load_tokenizer(tokenizer if tokenizer is not None else "gpt2")
    if words is tokenizer:
        words = copy.deepcopy(words)  # gets a word more
    if IMAGE_WORD not in words.get_vocab():
        words.add_special_tokens({"cls_token": IMAGE_WORD})
    words.pad_token, words.padding_side = words.eos_token, "right"
    if tokenizer is None and words.convert_tokens_to_ids(IMAGE_WORD) != IMAGE_ID:
        raise CheckpointError(f"GPT-2's tokenizer should have {IMAGE_WORD} at {IMAGE_ID}.")
    if hf.get_input_embeddings().num_embeddings != len(words):
        hf.resize_token_embeddings(len(words), mean_resizing=False)
    hf.config.pad_token_id = words.pad_token_id
    return cast(hf, dtype=dtype).eval().requires_grad_(False), words
