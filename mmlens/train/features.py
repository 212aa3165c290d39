"""Features of the frozen encoder, computed once and kept on disk.

    cached = cache_features(model.vision, pairs, "cache")     # goes on where it was stopped
    fit(model, cached, ...)                                   # the encoder no longer runs

    cache/<key>/manifest.json               what made them, which shards there are, what was bad
    cache/<key>/features-00000.safetensors  Float[pair, patch, d_vision]
    cache/<key>/pairs-00000.jsonl           key and captions of the same pairs

The key is the hash of the encoder's weights, its preprocessing, the data and the number format, so
what was computed for another encoder is never mistaken for this one's. One shard is held in memory
while writing; reading maps the files and takes one picture's row. A stream becomes a list thereby:
its cache can be shuffled as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from mmlens.checkpoints.weights import weights_hash
from mmlens.datasets.caption_pairs import CaptionPair, CaptionPairs, DataError, Listed
from mmlens.towers.vision.wrap import HookedVision
from mmlens.values.arguments import count
from mmlens.values.errors import CheckpointError, NumericsError, PictureError, writing
from mmlens.values.placeless import placeless
from mmlens.values.whole_files import remove_leftovers, spelled, write_whole

FORMAT = 1


class CachedPairs(Listed):
    """Pairs whose pictures are features already; made by `cache_features`."""

    holds = "features"

    def __init__(self, folder: Path, manifest: dict[str, Any], skip_bad: bool) -> None:
        pairs = []
        for number, shard in enumerate(manifest["shards"]):
            lines = (folder / shard["pairs"]).read_bytes().splitlines()
            try:
                said = [json.loads(line) for line in lines]
                found = [(tuple(one["captions"]), one["key"]) for one in said]
            except (ValueError, KeyError, TypeError) as error:
                raise _damaged(folder / shard["pairs"], error) from error
            pairs += [CaptionPair((number, row), *one) for row, one in enumerate(found)]
        super().__init__(pairs, f"the cache {folder.name!r}", skip_bad)
        self.folder, self.manifest = folder, manifest
        self.bad = dict(manifest["bad"])
        self._open: dict[int, Any] = {}

    @property
    def fingerprint(self) -> str:
        return str(self.manifest["key"])

    def tensor(self, pair: CaptionPair, pixels: Any) -> Tensor:
        """Float[patch, d_vision], in float32 whatever is on the disk."""
        number, row = pair.source
        if number not in self._open:
            from safetensors import SafetensorError, safe_open

            file = self.folder / self.manifest["shards"][number]["features"]
            try:
                with spelled(file) as real:
                    self._open[number] = safe_open(real, framework="pt").get_slice("features")
            except (OSError, SafetensorError) as error:
                raise _damaged(file, error) from error
        return self._open[number][row].float()

    def check(self, vision: HookedVision) -> None:
        """Refuse an encoder that these features are not of."""
        if encoder_hash(vision) != self.manifest["encoder"]:
            raise CheckpointError(
                f"The features in {self.name} are of another encoder or preprocessing than this"
                " model's: run cache_features(model.vision, pairs, folder) with it."
            )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # a worker process opens its own files


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(
        f"{str(file)!r} is damaged ({error}): delete {str(file.parent)!r}, and the features are"
        " computed again."
    )


def encoder_hash(vision: HookedVision) -> str:
    """Of the encoder's weights and of how it is fed and read."""
    spec = json.dumps(vision.spec(), sort_keys=True)
    return hashlib.sha256((weights_hash(vision.module.state_dict()) + spec).encode()).hexdigest()


def cache_features(
    vision: HookedVision,
    pairs: CaptionPairs,
    folder: str | Path,
    *,
    half: bool = False,
    batch_size: int = 32,
    shard_size: int = 512,
    progress: bool = False,
) -> CachedPairs:
    """Pairs of features instead of pictures; only what is not on disk yet is computed.

    Args:
        vision: the encoder of the model to be trained.
        pairs: what `open_pairs` returns.
        folder: holds any number of caches, each in a folder named by its key.
        half: store float16, half the size (196 x 1024 of BEiT: 0.4 MB a picture).
        batch_size: pictures that the encoder sees at once.
        shard_size: pictures in a file, and so in memory.
        progress: show a bar.

    Raises:
        PictureError: a picture cannot be read (with `pairs.skip_bad` it is listed in `.bad`).
        NumericsError: a feature is NaN, or too large for float16.
    """
    batch_size = count(batch_size, "batch_size", error=DataError)
    shard_size = count(shard_size, "shard_size", error=DataError)
    identity = {"format": FORMAT, "encoder": encoder_hash(vision), "data": pairs.fingerprint}
    identity |= {"dtype": "float16" if half else "float32"}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = Path(folder) / key[:16]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder, idle=3600.0)  # another training may be filling it too
    manifest = _manifest(folder, {**identity, "key": key, "preprocessing": vision.spec()})
    rest = islice(pairs, manifest["taken"], None)
    if not manifest["complete"]:
        groups = iter(lambda: list(islice(rest, shard_size)), [])
        todo = len(pairs) - manifest["taken"] if isinstance(pairs, Listed) else None
        total = None if todo is None else -(-todo // shard_size)
        for group in track(groups, "features of the encoder", total, disable=not progress):
            _write_shard(folder, manifest, group, vision, pairs, half, batch_size)
        manifest["bad"] |= pairs.bad
        manifest["complete"] = True
        write_whole(folder / "manifest.json", json.dumps(manifest, indent=1).encode())
    if not manifest["shards"]:
        raise DataError(f"Not one picture of {pairs.name} can be read.")
    return CachedPairs(folder, manifest, pairs.skip_bad)


def _manifest(folder: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """What is there already, or a new beginning."""
    path = folder / "manifest.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # what is damaged is made again
        there = json.loads(path.read_text(encoding="utf-8"))
        parts = [
            folder / shard[name] for shard in there["shards"] for name in ("features", "pairs")
        ]
        if there["key"] == identity["key"] and all(part.is_file() for part in parts):
            return there
    return {**identity, "taken": 0, "complete": False, "shards": [], "bad": {}}


def _write_shard(
    folder: Path,
    manifest: dict[str, Any],
    group: list[CaptionPair],
    vision: HookedVision,
    pairs: CaptionPairs,
    half: bool,
    batch_size: int,
) -> None:
    from safetensors.torch import save

    good: list[CaptionPair] = []
    features = [f.cpu() for f in _features(group, good, vision, pairs, batch_size)]
    manifest["taken"] += len(group)
    manifest["bad"] |= pairs.bad
    if features:
        stack = torch.cat(features).to(torch.float16 if half else torch.float32)
        if not bool(stack.isfinite().all()):
            raise NumericsError(
                "The encoder gives NaN or infinite features"
                + (", or ones too large for float16: use half=False." if half else ".")
            )
        number = len(manifest["shards"])
        names = {
            "features": f"features-{number:05d}.safetensors",
            "pairs": f"pairs-{number:05d}.jsonl",
        }
        lines = [json.dumps({"key": p.key, "captions": p.captions}) + "\n" for p in good]
        write_whole(folder / names["pairs"], "".join(lines).encode())
        write_whole(folder / names["features"], save({"features": stack}))
        manifest["shards"].append({**names, "count": len(good)})
        manifest["shape"] = list(stack.shape[1:])
    write_whole(folder / "manifest.json", json.dumps(manifest, indent=1).encode())


def _features(
    group: list[CaptionPair],
    good: list[CaptionPair],
    vision: HookedVision,
    pairs: CaptionPairs,
    batch_size: int,
) -> Iterator[Tensor]:
    """Float[pair, patch, d_vision] batch by batch; what could be read is put into `good`."""
    todo = iter(group)
    while batch := list(islice(todo, batch_size)):
        pixels = []
        for pair in batch:
            try:
                pixels.append(pairs.tensor(pair, vision.preprocess))
                good.append(pair)
            except PictureError as error:
                if not pairs.skip_bad:
                    raise
                pairs.bad[pair.key] = placeless(str(error))
        if pixels:
            with torch.no_grad():
                yield vision(torch.stack(pixels).to(vision.device, vision.dtype))
