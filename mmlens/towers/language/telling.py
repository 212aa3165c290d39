"""What some vision-language classes tell their language model of a picture, besides its vectors.

    Qwen2-VL      rotary positions of time, row and column
    Gemma 3       which positions are a picture's, among which attention looks both ways
    Gemma 4       the same in some of its models; and in some a token for each layer, also there
    PaliGemma     where the answer begins; before it attention looks both ways

All of it follows from the labels of the prompt that is being read, so nothing is stored with a
prompt that could be out of date. A hook in front of the model adds it to every forward pass, under
Hugging Face's own `generate` as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmlens.runtime.run import current
from mmlens.values.labels import Label, Padding, Patch

if TYPE_CHECKING:
    from mmlens.towers.language.language_model import LanguageModel

Row = Sequence[Label]


class Telling:
    """The arguments that a class takes of the pictures of a prompt.

    Attributes:
        both_ways: whether a position may attend to later ones, so that what stands before a change
            may change as well.
    """

    both_ways = False

    def __init__(self, config: Any) -> None:
        self.config = config

    def arguments(self, rows: Sequence[Row], start: int, width: int) -> dict[str, Tensor]:
        """Arguments of a forward pass over `width` positions from `start` on.

        Args:
            rows: the labels of each prompt; positions behind them are new words.
        """
        raise NotImplementedError

    def given(self, module: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        """The forward pre-hook of the model."""
        run = current()
        if run is None:
            return None
        ids = options["input_ids"] if options.get("input_ids") is not None else args[0]
        found = self.arguments(run.soft.labels, run.begins(ids.shape[1]), ids.shape[1])
        beams = ids.shape[0] // len(run.soft)
        return args, options | {
            name: value.to(ids.device).repeat_interleave(beams, value.dim() - 2)
            for name, value in found.items()
        }


class RowsAndColumns(Telling):
    """Rotary positions of a picture: one time, and its rows and columns (Qwen2-VL, section 2.1).

    What follows a picture of `rows` x `cols` positions goes on at its start + max(rows, cols).
    """

    def arguments(self, rows: Sequence[Row], start: int, width: int) -> dict[str, Tensor]:
        stop = start + width
        places = {id(row): self._places(row, stop)[start:stop] for row in rows}
        each = torch.tensor([places[id(row)] for row in rows])  # [batch, pos, 3]
        return {"position_ids": each.permute(2, 0, 1)}

    @staticmethod
    def _places(row: Row, stop: int) -> list[tuple[int, int, int]]:
        places: list[tuple[int, int, int]] = []
        now, image, begun, far = 0, None, 0, 0
        for label in row[:stop]:
            if isinstance(label, Padding):
                places.append((0, 0, 0))
                continue
            if isinstance(label, Patch):
                if label.image != image:
                    image, begun, far = label.image, now, 0
                far = max(far, label.row + 1, label.col + 1)
                places.append((begun, begun + label.row, begun + label.col))
                now = begun + far
                continue
            image = None
            places.append((now, now, now))
            now += 1
        return places + [(at, at, at) for at in range(now, now + stop - len(places))]


class PicturesBothWays(Telling):
    """Gemma 3: attention looks both ways among the positions of one picture."""

    both_ways = True

    def arguments(self, rows: Sequence[Row], start: int, width: int) -> dict[str, Tensor]:
        kinds = [[int(isinstance(label, Patch)) for label in row] for row in rows]
        return {"token_type_ids": _from(kinds, start, width, 0)}


class PicturesArePadding(Telling):
    """Gemma 4: each layer reads a vector of its own for the token at a position.

    At a picture's positions that is the padding's, whatever stands for the picture among the ids.
    Layers that read the keys of an earlier one skip positions whose logits are not asked for, which
    an edit may be meant for: so the logits that are kept are named one by one.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        text = config.get_text_config()
        self.pad = text.pad_token_id or 0
        self.each_layer = bool(text.hidden_size_per_layer_input)
        self.both_ways = text.use_bidirectional_attention == "vision"

    def arguments(self, rows: Sequence[Row], start: int, width: int) -> dict[str, Tensor]:
        if not self.both_ways:
            return {}
        kinds = [[int(isinstance(label, Patch)) for label in row] for row in rows]
        return {"mm_token_type_ids": _from(kinds, start, width, 0)}

    def given(self, module: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        run = current()
        if options.get("inputs_embeds") is not None and self.each_layer:
            vectors = options["inputs_embeds"]  # which say no ids
            ids = torch.full(vectors.shape[:2], self.pad, device=vectors.device)
            inside: Any = module.model.language_model  # type: ignore[union-attr]
            return args, options | {"per_layer_inputs": inside.get_per_layer_inputs(ids, None)}
        if run is None:
            return None
        ids = options["input_ids"] if options.get("input_ids") is not None else args[0]
        start, width = run.begins(ids.shape[1]), ids.shape[1]
        args, options = super().given(module, args, options)
        pictures = nn.functional.pad(
            run.soft.is_picture[:, start : start + width].int(), (0, width)
        )
        beams = ids.shape[0] // len(run.soft)
        where = pictures[:, :width].repeat_interleave(beams, 0).bool().to(ids.device)
        options = options | {"input_ids": ids.masked_fill(where, self.pad)}
        kept = options.get("logits_to_keep")
        if isinstance(kept, int) and kept:
            options["logits_to_keep"] = torch.arange(width - kept, width, device=ids.device)
        return args[1:] if args else args, options


class PrefixBothWays(Telling):
    """PaliGemma: attention looks both ways up to the newline that ends the prompt.

    Its positions are counted from 1, those of padding not.
    """

    both_ways = True

    def arguments(self, rows: Sequence[Row], start: int, width: int) -> dict[str, Tensor]:
        ends = [_end(row) for row in rows]
        kinds = [
            [int(at >= end) for at in range(len(row))] for row, end in zip(rows, ends, strict=True)
        ]
        pads = [sum(isinstance(label, Padding) for label in row) for row in rows]
        at = torch.arange(start, start + width)
        places = torch.stack([(at - pad).clamp(min=0) + 1 for pad in pads])
        return {"token_type_ids": _from(kinds, start, width, 1), "position_ids": places}


_KINDS: dict[str, type[Telling]] = {
    "qwen2_vl": RowsAndColumns,
    "qwen2_5_vl": RowsAndColumns,
    "qwen3_vl": RowsAndColumns,
    "qwen3_vl_moe": RowsAndColumns,
    "qwen3_5": RowsAndColumns,
    "qwen3_5_moe": RowsAndColumns,
    "cosmos3_omni": RowsAndColumns,
    "glm4v": RowsAndColumns,
    "glm46v": RowsAndColumns,
    "glm_ocr": RowsAndColumns,
    "glm4v_moe": RowsAndColumns,
    "gemma3": PicturesBothWays,
    "gemma4": PicturesArePadding,
    "paligemma": PrefixBothWays,
}


def open_telling(lm: LanguageModel) -> Telling | None:
    """What the class of a language model is told of pictures; None for most."""
    config = lm.root.original_model.config
    kind = _KINDS.get(getattr(config, "model_type", ""))
    if kind is None:
        return None
    telling = kind(config)
    lm.root.original_model.register_forward_pre_hook(telling.given, with_kwargs=True)
    return telling


def _end(row: Row) -> int:
    """How many positions the prompt of a picture has; 0 for words alone, which are only causal."""
    if not any(isinstance(label, Patch) for label in row):
        return 0
    ends = (at + 1 for at, label in enumerate(row) if getattr(label, "text", "") == "\n")
    return next(ends, len(row))


def _from(kinds: Sequence[Sequence[int]], start: int, width: int, new: int) -> Tensor:
    """Int[batch, width]: the kinds of positions from `start` on; those behind are `new`."""
    stop = start + width
    return torch.tensor([[*row, *[new] * (stop - len(row))][start:stop] for row in kinds])
