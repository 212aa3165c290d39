"""An index of hidden states in context: every position of your own texts, layer by layer, on disk.

    index = contextual_index(model, "captions.txt", "runs/index")        # one text a line
    index = ContextualIndex.open("runs/index")

What `contextual_neighbours` compares positions of pictures with (LatentLens, McGill NLP 2026: the
nearest contextual states of text name image tokens better than the unembedding does). Special
tokens, such as the one that begins a text, are left out. Texts are read in shards, and each shard
is written whole before the next one begins, so a run that was stopped goes on where it was. A
folder holds

    index.json              model, texts and options, by which another index is refused
    texts.json              the texts
    rows-00000.npy          Int[row, 3]: text, position, token
    scales-00000.npy        Float32[layer, row]: root mean square of each state
    states-00000.npy        Float[layer, row, d_model]: states divided by it, memory-mapped
    sums-00000.npy          Float64[layer, d_model]: sums of the states, for the mean

States lose their length, not their direction, in float16.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmlens.methods.jacobian_lens import progress_of
from mmlens.methods.translators import STATES, fingerprint, same_state, same_weights
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.values.addresses import places
from mmlens.values.arguments import count, flag, several
from mmlens.values.arguments import path as path_of
from mmlens.values.errors import CheckpointError, PromptError, reason
from mmlens.values.labels import Token
from mmlens.values.sites import SITES
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

TABLE = "index.json"
KINDS = ("rows", "scales", "sums", "states")
"""The files of a shard; the last one is there when the shard is whole."""


@dataclass(frozen=True, eq=False)
class ContextualIndex:
    """States of texts in a folder; nothing is read until it is asked for.

    Attributes:
        layer: the layers whose output was kept.
        texts: what was read.
        about: provenance, and how many texts a shard has.
    """

    folder: Path
    layer: tuple[int, ...]
    texts: tuple[str, ...] = field(repr=False)
    about: Mapping[str, Any] = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> ContextualIndex:
        """The index that `contextual_index` wrote.

        Raises:
            CheckpointError: there is none, or it is not finished.
        """
        place = path_of(folder, "folder").expanduser()
        try:
            told = json.loads((place / TABLE).read_text("utf-8"))
            texts = tuple(json.loads((place / "texts.json").read_text("utf-8")))
            found = cls(place, tuple(told["layer"]), texts, told)
            done = sum(found.has(shard) for shard in found.shards)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{str(place)!r} holds no index of contexts: {reason(error)}"
            ) from error
        if done < len(found.shards):
            raise CheckpointError(
                f"{str(place)!r} has {done} of {len(found.shards)} shards: write"
                " mm.contextual_index(model, texts, folder) again, which goes on from there."
            )
        return found

    @property
    def shards(self) -> range:
        """The numbers of the shards."""
        return range(-(-len(self.texts) // int(self.about["shard"])))

    def has(self, shard: int) -> bool:
        """Whether a shard is whole."""
        return self._place(KINDS[-1], shard).is_file()

    def read(self, kind: str, shard: int) -> np.ndarray:
        """One of `KINDS`, memory-mapped."""
        return np.load(self._place(kind, shard), mmap_mode="r", allow_pickle=False)

    def write(self, shard: int, parts: Mapping[str, np.ndarray]) -> None:
        """A shard, file by file, the states last."""
        for kind in KINDS:
            data = BytesIO()
            np.save(data, parts[kind])
            write_whole(self._place(kind, shard), data.getvalue())

    def mean(self, layer: int) -> torch.Tensor:
        """Float[d_model]: the mean state of a layer."""
        sums = sum(self.read("sums", shard)[self.layer.index(layer)] for shard in self.shards)
        return torch.from_numpy(np.asarray(sums / len(self))).float()

    def blocks(self, layer: int, size: int = 4096) -> Iterator[tuple[int, int, torch.Tensor]]:
        """(shard, first row, Float[row, d_model]) of a layer, some rows at a time."""
        at = self.layer.index(layer)
        for shard in self.shards:
            states, scales = self.read("states", shard), self.read("scales", shard)
            for start in range(0, states.shape[1], size):
                part = np.array(states[at, start : start + size], dtype=np.float32)
                scale = np.array(scales[at, start : start + size])[:, None]
                yield shard, start, torch.from_numpy(part * scale)

    def __len__(self) -> int:
        return sum(len(self.read("rows", shard)) for shard in self.shards)

    def check(self, model: HookedVLM) -> None:
        """Refuse a model that did not make it.

        Raises:
            CheckpointError: other weights, other edits, or another dictionary.
        """
        if not same_weights(self.about.get("weights"), fingerprint(model)):
            raise CheckpointError(
                f"This index was made with {self.about.get('model')!r}, and {model.name!r} has"
                " other weights: make one with mm.contextual_index(model, texts, folder)."
            )
        if not same_state(self.about, about(model)):
            raise CheckpointError(
                "This index was made with other edits, dictionaries or rewritten weights than"
                f" {model.name!r} has now: make one with mm.contextual_index(model, texts, folder)."
            )

    def _place(self, kind: str, shard: int) -> Path:
        return self.folder / f"{kind}-{shard:05}.npy"


@needs("unembed")
def contextual_index(
    model: HookedVLM,
    texts: Sequence[str] | str | Path,
    out: str | Path,
    *,
    layer: Any = None,
    per_token: int | None = None,
    half: bool = True,
    shard: int = 256,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> ContextualIndex:
    """Read texts and keep the residual stream of each position in a folder; goes on if stopped.

    Args:
        texts: the texts, or a file with one a line.
        out: the folder.
        layer: whose output is kept; by default all, which takes layers x positions x d_model
            numbers.
        per_token: keep at most so many contexts of one token, the first ones.
        half: in float16, otherwise in float32.
        shard: texts that are written, and lost by an interruption, together.
        batch: texts read side by side.
        progress: called with the texts done and their number.

    Raises:
        PromptError: no text, or one that is empty. CheckpointError: the folder has another index.
    """
    lines = _texts(texts)
    called, most = progress_of(progress), 1_000_000
    limit = None if per_token is None else count(per_token, "per_token")
    size, batch = count(shard, "shard", most=most), count(batch, "batch", most=most)
    chosen = sorted(places(range(model.cfg.n_layers), layer, "layer"))
    told = about(model, method="contextual_index", half=flag(half, "half"))
    digest = sha256(json.dumps(lines).encode("utf-8", "backslashreplace")).hexdigest()
    told |= {"layer": chosen, "per_token": limit, "shard": size, "digest": digest}
    told |= {"weights": fingerprint(model)}
    index = ContextualIndex(path_of(out, "out").expanduser(), tuple(chosen), tuple(lines), told)
    _begin(index)
    counts: Counter[int] = Counter()
    for number in index.shards:
        first = number * size
        if not index.has(number):
            few = lines[first : first + size]
            index.write(number, _shard(model, few, first, index, counts, batch))
        counts.update(index.read("rows", number)[:, 2].tolist())
        called(min(first + size, len(lines)), len(lines))
    return index


def _texts(texts: Any) -> list[str]:
    if isinstance(texts, (str, Path)):
        try:
            lines = Path(texts).expanduser().read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise PromptError(
                f"{str(texts)!r} is no file of texts, one a line: {reason(error)}"
            ) from error
        texts = [line.strip() for line in lines if line.strip()]
    found = several(texts, "texts", error=PromptError)
    wrong = next((one for one in found if not isinstance(one, str) or not one.strip()), None)
    if wrong is not None:
        raise PromptError(f"{wrong!r} among texts is no text.")
    return found


def _begin(index: ContextualIndex) -> None:
    """The folder with its table; an index of other texts, weights or options is refused."""
    table = index.folder / TABLE
    if table.exists():
        try:
            there = json.loads(table.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{str(table)!r} cannot be read: {reason(error)}") from error
        for name in ("weights", "digest", "layer", "per_token", "half", "shard", *STATES):
            kept, asked = there.get(name), json.loads(json.dumps(index.about.get(name)))
            if not (same_weights(kept, asked) if name == "weights" else kept == asked):
                what = name.removeprefix("model_")
                raise CheckpointError(
                    f"{str(index.folder)!r} has an index with other {what}: give another folder."
                )
        return
    index.folder.mkdir(parents=True, exist_ok=True)
    write_whole(index.folder / "texts.json", json.dumps(list(index.texts)))
    write_whole(table, json.dumps(dict(index.about), default=str, indent=1))


def _shard(
    model: HookedVLM,
    texts: list[str],
    first: int,
    index: ContextualIndex,
    counts: Counter[int],
    batch: int,
) -> dict[str, np.ndarray]:
    """The arrays of a shard, by their kind."""
    limit, seen = index.about["per_token"], counts.copy()
    special = set(getattr(model.tokenizer, "all_special_ids", ()))
    rows: list[tuple[int, int, int]] = []
    states: list[torch.Tensor] = []
    for start in range(0, len(texts), batch):
        found, labels, ids = _states(model, texts[start : start + batch], index.layer)
        for i, row in enumerate(labels):
            kept = []
            for place, label in enumerate(row):
                token = int(ids[i, place])
                full = limit is not None and seen[token] >= limit
                if isinstance(label, Token) and token not in special and not full:
                    seen[token] += 1
                    kept.append(place)
                    rows.append((first + start + i, label.at, token))
            states.append(found[:, i, kept])
    whole = finite(torch.cat(states, 1), "the states of the texts")
    scales = whole.square().mean(-1).sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    kind = torch.float16 if index.about["half"] else torch.float32
    return {
        "rows": np.array(rows, dtype=np.int32).reshape(-1, 3),
        "scales": scales.numpy(),
        "sums": whole.double().sum(1).numpy(),
        "states": (whole / scales[..., None]).to(kind).numpy(),
    }


def _states(
    model: HookedVLM, texts: list[str], layers: Sequence[int]
) -> tuple[torch.Tensor, Any, torch.Tensor]:
    """Float[layer, text, pos, d_model], and the labels and ids of every position."""
    names = [SITES["resid_post"].at(layer) for layer in layers]
    with torch.no_grad():
        soft = model.read(texts)
        end = torch.tensor([soft.ids.shape[1] - 1], device=model.lm.device)
        with capture(model, names, lambda x: x.detach().float().cpu()) as kept:
            model.run(soft, at=end)
    return torch.stack([kept[name] for name in names]), soft.labels, soft.ids.cpu()
