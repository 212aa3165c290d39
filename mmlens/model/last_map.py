"""How a dual encoder's embedding depends on what the last layer of its tower leaves behind.

    e(x) = sum over positions p of J_p x_p + rest

x is the residual stream after the last block (in a convolutional encoder the map that is pooled). J
is the rest of the forward pass as the library runs it, with the final norm's standard deviation and
the patterns of a pooling attention held (`mmlens.runtime.held`); so nothing of the class is looked
up, and the sum is exact. `rest` is what does not come from x linearly: biases, the same for every
picture or text, and where the pooling ends with an MLP (SigLIP's map head) what that MLP writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.runtime.autograd import ordinary
from mmlens.runtime.held import Held
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.dual_reading import DualReading
    from mmlens.model.hooked_dual_encoder import HookedDualEncoder

FEATURES = SITES["features"].at()


class LastMap:
    """The affine map from the last positions of some pictures, or texts, to their embeddings.

    Args:
        reading: pictures or texts.
        entry: the hook point whose value is x.
        reads: functions of the activation at other hook points, whose results `kept` has.

    Attributes:
        embedding: Float[picture, d_embed], not of unit length.
        x: Float[picture, pos, dim].
        active: the positions that the embedding depends on, Long[k].
        kept: what `reads` returned, by hook name.
    """

    def __init__(
        self,
        model: HookedDualEncoder,
        reading: DualReading,
        entry: str,
        reads: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        held, self.kept = Held(), dict[str, Tensor]()
        x: list[Tensor] = []
        out: list[Tensor] = []

        def begin(tensor: Tensor, hook: Any) -> Tensor:
            x[:] = [tensor.detach().requires_grad_()]
            held.on = True
            return x[0]

        def end(tensor: Tensor, hook: Any) -> None:
            held.on = False
            out[:] = [tensor]

        def read(tensor: Tensor, hook: Any) -> None:
            self.kept[hook.name] = wide((reads or {})[hook.name](tensor.detach()))

        hooks = [(name, read) for name in reads or {}] + [(entry, begin), (end_of(reading), end)]
        with ordinary(), model.hooks(hooks), torch.enable_grad(), held:
            model.run(reading)
        self._x, self._out = x[0], out[0]
        self.x, self.embedding = wide(self._x.detach()), wide(self._out.detach())
        draw = torch.linspace(1.0, 2.0, self._out.shape[-1]).to(self._out)
        self.active = self._slope(draw).abs().amax((0, 2)).nonzero().flatten()

    def _slope(self, along: Float[Tensor, " d_embed"]) -> Float[Tensor, "picture pos dim"]:
        (found,) = torch.autograd.grad((self._out @ along).sum(), self._x, retain_graph=True)
        return found

    def rows(
        self, along: Float[Tensor, "k d_embed"], room: int = 2**25
    ) -> Iterator[tuple[slice, Float[Tensor, "picture some active dim"]]]:
        """J in these directions at the active positions, a few of them at a time.

        Args:
            room: how many numbers are held at once.
        """
        size = len(self.x) * len(self.active) * self.x.shape[-1]
        step = max(1, room // max(size, 1))
        for start in range(0, len(along), step):
            some = [self._slope(one.to(self._out)) for one in along[start : start + step]]
            yield slice(start, start + step), wide(torch.stack(some, 1)[:, :, self.active])


def end_of(reading: DualReading) -> str:
    """The hook point of the embeddings of what is read."""
    return SITES["text.embedding" if reading.pixels is None else "vision.embedding"].at()


def wide(values: Tensor) -> Tensor:
    """In float32, or in double precision where it is so already."""
    return values if values.dtype == torch.float64 else values.float()
