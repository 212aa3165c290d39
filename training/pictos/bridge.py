"""The bridge as the trainings see it: encoder, linear projection, language model, all frozen.

Read and written in the folder format that mmlens loads:

    bridge.json   vision/{config.json, model.safetensors}   projection.safetensors (weight, bias)
    lm/{config.json, model.safetensors, tokenizer.json, tokenizer_config.json}
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BeitModel, GPTJForCausalLM, PreTrainedTokenizerFast

from mmlens.pictos.scene_captions import plural

PROMPT = "A picture of"


@dataclass(frozen=True)
class Bridge:
    """The three parts; `soft` makes the soft prompt, `say` continues it in words."""

    vision: BeitModel
    projection: nn.Module  # Linear, or what folds into one
    lm: GPTJForCausalLM
    tokenizer: PreTrainedTokenizerFast

    @classmethod
    def read(cls, folder: Path, device: str = "cpu") -> "Bridge":
        """From an exported folder."""
        weights = load_file(folder / "projection.safetensors")
        projection = nn.Linear(*weights["weight"].shape[::-1])
        projection.load_state_dict({k: v.float() for k, v in weights.items()})
        return cls.of(folder / "vision", folder / "lm", projection, device)

    @classmethod
    def of(
        cls, vision: Path, lm: Path, projection: nn.Linear | None, device: str = "cpu"
    ) -> "Bridge":
        """From the folders of both ends; a new projection if there is none yet."""
        see = BeitModel.from_pretrained(vision, add_pooling_layer=False, dtype=torch.float32)
        read = GPTJForCausalLM.from_pretrained(lm, dtype=torch.float32)
        joint = projection or nn.Linear(see.config.intermediate_size, read.config.n_embd)
        parts = [part.to(device).eval() for part in (see, joint, read)]
        see.requires_grad_(False), read.requires_grad_(False)
        return cls(*parts, PreTrainedTokenizerFast.from_pretrained(lm))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Images in [0, 1] -> Float[batch, patch, d_vision], the class token dropped."""
        return units_of(self.vision, images)

    def soft(self, features: Tensor, ids: Tensor | None = None) -> Tensor:
        """Features and token ids -> Float[batch, position, d_model], what the LM reads."""
        seen = self.projection(features)
        return seen if ids is None else torch.cat([seen, self.lm.transformer.wte(ids)], 1)

    def ids(self, text: str, batch: int) -> Tensor:
        """Long[batch, token]: the same text for each."""
        device = self.projection.weight.device
        return torch.tensor([self.tokenizer.encode(text)], device=device).expand(batch, -1)

    @torch.no_grad()
    def say(self, images: Tensor, prompt: str = PROMPT, most: int = 18) -> list[str]:
        """Greedy continuations of picture and prompt, up to the end of text."""
        enter = self.soft(self.features(images), self.ids(prompt, len(images)))
        cache, said = None, []
        for _ in range(most):
            out = self.lm(inputs_embeds=enter, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            said.append(out.logits[:, -1].argmax(-1))
            enter = self.lm.transformer.wte(said[-1])[:, None]
            if all((torch.stack(said) == self.tokenizer.eos_token_id).any(0)):
                break
        rows = torch.stack(said, 1).tolist()
        end = self.tokenizer.eos_token_id
        return [self.tokenizer.decode(r[: r.index(end)] if end in r else r) for r in rows]


def units_of(vision: BeitModel, images: Tensor) -> Tensor:
    """Float[batch, patch, unit]: the units of the last MLP after GELU; images in [0, 1]."""
    seen: list[Tensor] = []
    kept = vision.layers[-1].mlp.fc2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    vision(images * 2 - 1)
    kept.remove()
    return seen[0][:, 1:]


def names_in(text: str, names: Sequence[str]) -> set[str]:
    """Which of these things a caption names, in singular or plural."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return {n for n in names if n in words or plural(n) in words}


def style_of(text: str) -> str:
    """The style that a caption tells: "drawing" symbolic, "word" written, else literal."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return (
        "symbolic" if "drawing" in words else "written" if words & {"word", "words"} else "literal"
    )
