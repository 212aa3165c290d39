"""A frozen block of a language model as a layer behind a vision encoder (Pang et al. 2024).

    y = F_L2 block(F_L1 x)          x: Float[picture, patch, d_vision], and so is y

arXiv 2310.12973, section 3: F_L1 (d_vision -> d_model) and F_L2 (back) are linear and learn, the
block does not. It sees patches without causal mask and without positions (`BlockAlone`). Their
linears have no bias, and so have these. Controls are the same two linears with nothing between
them, and a block of the same kind whose weights are random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlens.model.capabilities import require
from mmlens.towers.language.block_alone import BlockAlone
from mmlens.values.arguments import SEEDS, choice, count
from mmlens.values.errors import ArgumentError, CapabilityError

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

BLOCK, RANDOM, LINEARS = "block", "random block", "linears"
ARMS = (BLOCK, RANDOM, LINEARS)
Features = Float[Tensor, "picture patch d_vision"]
States = Float[Tensor, "picture patch d_model"]


class FrozenBlock(nn.Module):
    """F_L1, a frozen block, F_L2: patch vectors to patch vectors.

    Its parameters are the two linears', `before` and `after`: the block is the model's own and is
    in no state dict.

    Args:
        model: any bridge or vision-language model; it is not changed.
        layer: the block of its language model; negative ones count from the last.
        arm: "block", "random block" (every weight a random number with the mean and the standard
            deviation of those of its tensor), or "linears" (nothing between the two).
        seed: of the linears, which are the same in all arms, and of the random block.

    Raises:
        AddressError: no such layer. CapabilityError: the model has no encoder or no language model,
            has edits, or its block does something else with positions than attend among them.
    """

    block: BlockAlone

    def __init__(
        self, model: HookedVLM, layer: int = -1, *, arm: str = BLOCK, seed: int = 0
    ) -> None:
        super().__init__()
        require(model)
        self.arm = choice(arm, "arm", ARMS)
        seed = count(seed, "seed", least=0, most=SEEDS)
        towers: Any = model.towers
        if "vision" not in towers or "lm" not in towers:
            raise CapabilityError(
                f"{model.name!r} has {' and '.join(towers)}: a block of a language model behind an"
                " encoder needs a vision and a lm tower, as bridges have."
            )
        if model.edits:
            raise CapabilityError(
                f"{model.name!r} has {len(model.edits)} edits, which its block alone would not"
                " feel: take the model without them."
            )
        lm, d_vision = towers["lm"], int(towers["vision"].d_vision)
        drawn = seed if arm == RANDOM else None
        vars(self)["block"] = BlockAlone(lm, layer, drawn=drawn)
        self.layer = self.block.layer
        draw = torch.Generator().manual_seed(seed)
        d_model = int(lm.cfg.d_model)
        self.before, self.after = (
            _linear(*sizes, draw, lm.device) for sizes in ((d_vision, d_model), (d_model, d_vision))
        )

    def states(self, features: Features) -> tuple[States, States]:
        """What enters the block, and what leaves it; without a block the same."""
        if features.dim() != 3 or features.shape[-1] != self.before.in_features:
            raise ArgumentError(
                f"features of shape {tuple(features.shape)}: give Float[picture, patch,"
                f" {self.before.in_features}], as the encoder gives them."
            )
        entering = self.before(features.to(self.before.weight))
        return entering, entering if self.arm == LINEARS else self.block(entering)

    def forward(self, features: Features) -> Features:
        """F_L2 of what leaves the block."""
        return self.after(self.states(features)[1])


def _linear(d_in: int, d_out: int, draw: torch.Generator, device: Any) -> nn.Linear:
    """A linear map without bias, with torch's default spread."""
    linear = nn.Linear(d_in, d_out, bias=False, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        linear.weight.uniform_(-(d_in**-0.5), d_in**-0.5, generator=draw)
    return linear.to(device)
