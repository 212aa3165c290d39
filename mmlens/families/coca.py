"""CoCa as a captioner: an encoder, a pooler, and two text decoders, one after the other.

    load("open_clip:coca_ViT-L-14/laion2b_s13b_b90k", captions=True)
    from_model(coca, preprocess, tokenizer, captions=True)

Jiahui Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation Models, 2022. Without
`captions` the same weights are a dual encoder. The pooler's learned queries attend to the whole
picture, and each is a key of the multimodal decoder's cross-attention, `Marker("query", n)`: it
lies nowhere in the picture. An encoder without a pooler gives its patches as keys. In open_clip's
checkpoints query 0 is the picture's embedding of the dual encoder, and no key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mmlens.families.native import SINCE, refuse_older
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.model.image_reader import CrossReader
from mmlens.model.prompt_reader import Positions, PromptReader
from mmlens.model.queries import Queries
from mmlens.runtime.sharing import share_weights
from mmlens.towers.language import measured
from mmlens.towers.language.language_model import wrap_lm
from mmlens.towers.vision.class_head import without_child
from mmlens.towers.vision.wrap import from_open_clip
from mmlens.values.arguments import shown
from mmlens.values.errors import ArgumentError, CapabilityError, PromptError, reason
from mmlens.values.labels import Label, Marker
from mmlens.values.prompt import Prompt

SINCE["coca"] = "5.24"
_SAMPLES = ("a photo of a dog", "Two cats' 3 toys, isn't it?")


class QueryKeys(Queries, CrossReader):
    """Keys that are the pooler's queries.

    Args:
        first: how many of them are no keys.
        n: how many are.
    """

    has_others = True

    def __init__(self, first: int, n: int) -> None:
        self.first, self.n = first, n

    def labels(
        self, vision: Any, picture: Image.Image, image: int, of: int = 1
    ) -> tuple[Label, ...]:
        return tuple(Marker("query", self.first + at, image) for at in range(self.n))


class Pooler(nn.Module):
    """Features with the class token [crop, 1 + patch, d] to keys [crop, query, d_model].

    Args:
        visual: open_clip's image encoder.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = without_child(without_child(visual, "transformer"), "conv1")

    def forward(self, features: Tensor) -> Tensor:
        """What open_clip's decoder is given."""
        pool: Any = self.visual
        return pool._pool(features)[1]


class CaptionReader(PromptReader):
    """A caption from its first token on.

    Args:
        pad: the id that open_clip's text encoder reads as no word at all.
    """

    written_by = (
        "open_clip writes it: torch.save(coca.state_dict(), 'coca.pt'), and"
        " mm.load('open_clip:coca_ViT-L-14/coca.pt', captions=True) reads it"
    )

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def read(self, model: HookedVLM, prompt: Prompt, bos: bool | None) -> Positions:
        positions = super().read(model, prompt, bos)
        if any(token == self.pad for token, _ in positions):
            raise PromptError(
                f"The words {prompt.text!r} hold the token {self.pad}, which CoCa reads as padding:"
                " write them otherwise."
            )
        return positions


def captioner(
    coca: Any,
    preprocess: Any = None,
    tokenizer: Any = None,
    *,
    name: str | None = None,
    told: Mapping[str, Any] | None = None,
) -> HookedVLM:
    """An open_clip CoCa as a model that writes captions; the caller's stays as it is.

    Args:
        preprocess: its evaluation transform; None for the model's own.
        tokenizer: open_clip's, or one of transformers; None for open_clip's own where the
            vocabulary is its size, and token ids alone elsewhere.
        told: where it came from, for the provenance.

    Raises:
        CapabilityError: it has no text decoder, one that this layout has no place for, or other
            logits than open_clip's own.
    """
    if isinstance(coca, tuple) and coca and isinstance(coca[0], nn.Module):
        coca, preprocess = coca[0], preprocess or coca[-1]
    given: Any = coca
    cls = type(given).__name__
    if not isinstance(getattr(given, "text_decoder", None), nn.Module):
        raise CapabilityError(
            f"A {cls} has no text decoder, so it writes no captions: leave captions= out for the"
            " dual encoder, or give a CoCa of open_clip."
        )
    refuse_older(SINCE["coca"], f"{cls} that writes captions")
    from mmlens.towers.language.coca_words import words_of

    own: Any = share_weights(given).eval()
    words, pool = words_of(own), own.visual
    spelled = _spelled(tokenizer, words.config.vocab_size)
    pad = int(getattr(own, "pad_id", 0))
    if spelled is not None:
        words.generation_config.eos_token_id = [spelled.eos_token_id, pad]
    queries = getattr(pool, "attn_pool", None) is not None
    vision = from_open_clip(pool, preprocess, keep_prefix=queries, class_names=())
    reader: Any = CrossReader()
    if queries:
        n = _keys(own, vision)
        reader = QueryKeys(len(pool.attn_pool.query) - n, n)
    model = HookedVLM(
        vision, Pooler(pool) if queries else nn.Identity(), wrap_lm(words, spelled),
        name=name or cls, provenance={"family": "coca", "source": cls} | dict(told or {}),
        prepend_bos=True, image_reader=reader, prompt_reader=CaptionReader(pad),
    )  # fmt: skip
    _refuse_unfaithful(model, own, cls)
    return model


@torch.no_grad()
def _keys(coca: Any, vision: Any) -> int:
    """How many keys the decoder is given."""
    pixels = torch.zeros(1, 3, *vision.image_size, device=vision.device, dtype=vision.dtype)
    return coca._encode_image(pixels)[1].shape[1]


def _spelled(tokenizer: Any, n_words: int) -> Any:
    """The tokenizer as one of transformers.

    Raises:
        ArgumentError: it is of another kind.
    """
    if tokenizer is None and n_words == 49408:
        import open_clip

        tokenizer = open_clip.SimpleTokenizer()
    inner: Any = getattr(tokenizer, "tokenizer", tokenizer)
    if inner is None or hasattr(inner, "convert_ids_to_tokens"):
        return inner
    if not hasattr(inner, "bpe_ranks") or not hasattr(inner, "encoder"):
        raise ArgumentError(
            f"tokenizer={shown(tokenizer)} can't spell a caption word by word: give open_clip's"
            " tokenizer of this model, or one of transformers."
        )
    from transformers import CLIPTokenizer

    start, end = (inner.decoder[token] for token in (inner.sot_token_id, inner.eot_token_id))
    found = CLIPTokenizer(
        vocab=dict(inner.encoder), merges=list(inner.bpe_ranks), bos_token=start, eos_token=end,
        unk_token=end, pad_token=end,
    )  # fmt: skip
    for text in _SAMPLES:
        if found(text, add_special_tokens=False)["input_ids"] != inner.encode(text):
            raise ArgumentError(
                f"tokenizer={shown(tokenizer)} reads {text!r} otherwise than transformers'"
                " CLIPTokenizer with its words: give one of transformers for this model."
            )
    return found


def _refuse_unfaithful(model: HookedVLM, coca: Any, cls: str) -> None:
    """Compare the logits for a picture with those of open_clip's own forward pass.

    Raises:
        CapabilityError: they differ by more than rounding.
    """
    rows, cols = model.vision.image_size
    picture = Image.radial_gradient("L").convert("RGB").resize((cols, rows))
    n_words = model.lm.n_words
    ids = (1 + torch.arange(4, device=model.lm.device)) % max(1, n_words)
    project: Any = model.projection
    try:
        with torch.no_grad():
            pixels = model.vision.preprocess(picture)[None].to(model.vision.device)
            pixels = pixels.to(model.vision.dtype)
            theirs = coca(pixels, ids[None], output_labels=False)["logits"]
            keys, ones = project(model.vision(pixels)), torch.ones_like(ids)[None]
            ours = model.lm.forward(ids[None], ones, encoder_hidden_states=keys)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CapabilityError(
            f"The encoder and the decoders of this {cls} do not run together: {reason(error)}"
        ) from error
    found = measured.Measured(measured.apart(ours, theirs), measured.tolerance(model.lm))
    if not found.exact:
        raise CapabilityError(
            f"With hooks this {cls} gives other logits for a picture than without ({found}):"
            " it is built in a way that mmlens does not know."
        )
