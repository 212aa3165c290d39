"""The API of a HookedTransformer besides running and hooks: tokens, weights, devices.

Words and positions are those that the model reads, with pictures, and with a BOS token only if it
prepends one; weights are the language model's own, and `mmlens.model.delegated` lists the names
that are passed through to it.
"""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmlens.model import loss
from mmlens.model.delegated import DELEGATED, REFUSED, refusal
from mmlens.towers.language import tokenization
from mmlens.values.arguments import choice, count, flag
from mmlens.values.errors import ArgumentError, CapabilityError, PromptError, TargetError
from mmlens.values.prompt import SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


class Embed:
    """`model.embed(prompt)`: the prompt as the language model receives it.

    One vector and one label per position (`SoftPrompt`). Attributes are those of the language
    model's embedding: `model.embed.W_E`.
    """

    def __init__(self, model: HookedVLM) -> None:
        self._model = model

    def __call__(self, input: Any, prepend_bos: bool | None = None) -> SoftPrompt:
        """The soft prompt of an input, read under the edits and hooks of the model."""
        with self._model.running(input, None, prepend_bos) as soft:
            return soft

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._model.root.embed, name)


class Surface(nn.Module):
    """The API of a HookedTransformer besides running and hooks: tokens, weights, devices."""

    root: Any
    lm: Any
    prepend_bos: bool

    @property
    def cfg(self) -> Any:
        """TransformerLens' configuration of the language model."""
        return self.lm.cfg

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""
        return self.lm.tokenizer

    @property  # protocols look for these on the class (Python 3.12), not in __getattr__
    def blocks(self) -> Any:
        """The transformer blocks."""
        return self.root.blocks

    @property
    def ln_final(self) -> Any:
        """The final norm."""
        return self.root.ln_final

    @property
    def embed(self: Any) -> Embed:
        """`model.embed(prompt)`, the soft prompt; `model.embed.W_E`, the embedding of words."""
        return Embed(self)

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> torch.Tensor:
        """TransformerLens' own: the sum of output biases up to a layer."""
        ends = int(self.cfg.n_layers) - int(flag(mlp_input, "mlp_input"))
        layer = count(layer, "layer", least=0, most=ends)
        whole = flag(include_mlp_biases, "include_mlp_biases")
        return self.root.accumulated_bias(layer, mlp_input, include_mlp_biases=whole)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            own = hasattr(type(self), name)  # a property of ours that failed
            if own or name.startswith("_") or "root" not in self.__dict__.get("_modules", {}):
                raise
        if name in REFUSED:
            return refusal(name, REFUSED[name])
        value = getattr(self.root, name)
        if inspect.isroutine(value) and name not in DELEGATED:
            return refusal(name, "it is not known to respect pictures, edits and hooks")
        return self.lm.switch(value) if name.startswith("set_use_") else value

    def tokens_to_residual_directions(self: Any, tokens: Any) -> torch.Tensor:
        """The directions Float[..., d_model] whose dot product with a normalized stream is a logit.

        As TransformerLens gives them for a final norm folded into W_U: columns of W_U, times the
        gain of the norm where it is not folded. So `logit_attrs` and direct logit attribution are
        right on both.

        Args:
            tokens: a string of one token, an id, or ids Int[...].

        Raises:
            CapabilityError: the logits of this model are not the normed stream times W_U.
            TargetError: what is given, or one of the ids, is no token of the model.
        """
        exact = self.lm.dtype in (torch.float32, torch.float64)
        if self.lm.can.lens_error > (1e-3 if exact else 0.1):
            raise CapabilityError(
                f"The logits of {self.name!r} are not its final norm and W_U of the last residual"
                f" stream (off by {self.lm.can.lens_error:.3g}), so no direction stands for a word."
            )
        many = isinstance(tokens, torch.Tensor) and tokens.numel() != 1
        ids = (
            tokenization.checked_ids(self.lm, tokens)
            if many
            else tokenization.id_of(self.lm, tokens)
        )
        columns = self.root.tokens_to_residual_directions(ids)
        gain, _ = self.lm.final_gain
        return columns * gain.to(columns)

    def loss_fn(
        self: Any,
        logits: torch.Tensor,
        tokens: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        per_token: bool = False,
    ) -> torch.Tensor:
        """Cross entropy of the next token; patches and masked positions are no targets."""
        with self.running(tokens, attention_mask) as soft:
            return loss.loss(logits, soft, "loss", per_token)

    # -- words --------------------------------------------------------------------------------

    def to_str_tokens(
        self: Any, input: Any, prepend_bos: bool | None = None, padding_side: str | None = None
    ) -> Any:
        """The label of every position, as text: one list, or one per prompt of a list."""
        check_left(padding_side)
        if isinstance(input, (list, tuple)):
            return [self.to_str_tokens(one, prepend_bos) for one in input]
        arrays = hasattr(input, "__array__") and not hasattr(input, "iloc")
        ids = torch.as_tensor(input) if arrays else input
        ids = ids.reshape(1) if isinstance(ids, torch.Tensor) and ids.ndim == 0 else ids
        return [str(label) for label in self.embed(ids, prepend_bos).labels[0]]

    def to_string(self, tokens: Any) -> Any:
        """Text of ids [pos], or a list of texts of ids [batch, pos]; patches are left out."""
        return tokenization.text(self.lm, tokens)

    def to_single_token(self, string: str) -> int:
        """The id of a word that is exactly one token; else a TargetError shows its pieces."""
        return tokenization.single_token(self.lm, string)

    def to_single_str_token(self, int_token: int) -> str:
        """The text of one token."""
        token = count(int_token, "int_token", least=0, error=TargetError)
        return self.to_str_tokens(torch.tensor([token]))[0]

    def get_token_position(
        self: Any,
        single_token: Any,
        input: Any,
        mode: str = "first",
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
    ) -> int:
        """The position of a token in a prompt (or its ids): the first, or the last with `mode`.

        Raises:
            TargetError: the token is not there.
        """
        choice(mode, "mode", ("first", "last"))
        check_left(padding_side)
        ids = self.to_tokens(input, prepend_bos)
        if len(ids) != 1:
            raise PromptError(f"A position is one in one prompt, not in {len(ids)}: give one.")
        wanted = (
            self.to_single_token(single_token)
            if isinstance(single_token, str)
            else count(single_token, "single_token", least=-1, error=TargetError)
        )
        hits = (ids.as_subclass(torch.Tensor)[0] == wanted).nonzero().flatten().tolist()
        if not hits:
            raise TargetError(
                f"The token {self.to_single_str_token(wanted)!r} is not in this prompt:"
                f" {self.to_str_tokens(input, prepend_bos)}."
            )
        return hits[0 if mode == "first" else -1]

    # -- devices and modes --------------------------------------------------------------------

    def train(self, mode: bool = True) -> Any:
        """A model stays in eval mode, without dropout: its parameters are frozen.

        An enclosing module may call this on all its parts, so it warns and does not fail.
        """
        if mode:
            warnings.warn(
                "A HookedVLM stays in eval mode, without dropout, because all of it is frozen: a"
                " projection is trained by mmlens.train, a language model before it is wrapped.",
                stacklevel=2,
            )
        return super().train(False)

    def cpu(self) -> Any:
        """This model on the CPU."""
        return self.to("cpu")

    def cuda(self, device: Any = None) -> Any:
        """This model on a CUDA device."""
        return self.to(f"cuda:{device}" if isinstance(device, int) else device or "cuda")

    def mps(self) -> Any:
        """This model on Apple's GPU."""
        return self.to("mps")

    def float(self) -> Any:
        """This model in float32."""
        return self.to(torch.float32)

    def double(self) -> Any:
        """This model in float64."""
        return self.to(torch.float64)

    def half(self) -> Any:
        """This model in float16."""
        return self.to(torch.float16)

    def bfloat16(self) -> Any:
        """This model in bfloat16."""
        return self.to(torch.bfloat16)


def check_left(padding_side: str | None) -> None:
    """Refuse any side but the left.

    Raises:
        ArgumentError: another side.
    """
    if padding_side not in (None, "left"):
        raise ArgumentError(
            f"padding_side={padding_side!r}: prompts are padded on the left, so that the last"
            " position of every row is the one that predicts the next token."
        )
