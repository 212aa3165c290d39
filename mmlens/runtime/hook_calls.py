"""One hook: a function that is called at a point, with its result checked.

    def fn(tensor, hook): ...      # None leaves the tensor as it is, a tensor replaces it

A wrong shape, type or device of the result is refused with the hook's name, instead of causing an
error in a later layer. While the function runs, the hooks of the contexts around it are inactive
(`within`), and so is the hook itself (`busy`): a model that it calls runs with its own hooks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from mmlens.runtime.denoising import loop_now
from mmlens.values.arguments import shown
from mmlens.values.errors import SiteError

DIRECTIONS = ("fwd", "bwd")


@dataclass(frozen=True, eq=False)
class Hook:
    """`call(tensor, hook)` at the hook point `name`, in the forward or the backward pass.

    Attributes:
        is_permanent: whether `reset_hooks()` keeps it.
        level: how many contexts of `model.hooks()` were open where it was added by one; None: it
            was added by `add_hook`.
    """

    name: str
    call: Callable[..., Any]
    dir: str = "fwd"
    is_permanent: bool = False
    level: int | None = None

    def meets(self, direction: str, including_permanent: bool, level: int | None) -> bool:
        """Whether TransformerLens' `reset_hooks` with these options applies to this hook."""
        return (
            direction in (self.dir, "both")
            and (including_permanent or not self.is_permanent)
            and level in (None, self.level)
        )


within: ContextVar[Mapping[int, tuple[tuple[Hook, ...], ...]]] = ContextVar(
    "mmlens_hooks",
    default={},  # noqa: B039
)
"""By id of a model, the hooks of each context of `model.hooks()` that is open, outermost first."""
busy: ContextVar[tuple[Hook, ...]] = ContextVar("mmlens_busy", default=())
"""The hooks whose functions are being called now."""


class Named:
    """The `hook` argument of a hook function: the point under the name that was given."""

    def __init__(self, name: str, point: Any) -> None:
        self.name, self._point = name, point

    def layer(self) -> int:
        """The layer in the name `blocks.3...`."""
        parts = self.name.split(".")
        return int(parts[parts.index("blocks") + 1])

    @property
    def step(self) -> int | None:
        """In a diffusion model the step that is being computed."""
        loop = loop_now()
        return None if loop is None else loop.step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._point, name)


def check_function(call: Any, name: str) -> None:
    """Refuse an object that could not be called as a hook at `name`.

    Raises:
        SiteError: no function, or one without an argument `hook`.
    """
    if not callable(call):
        raise SiteError(f"The hook at {name!r} is {shown(call)}: give a function (tensor, hook).")
    try:
        inspect.signature(call).bind(None, hook=None)
    except TypeError:
        raise SiteError(
            f"The hook {told(call)} at {name!r} cannot be called as fn(tensor, hook=...): write"
            " `def fn(tensor, hook)`, also when it does not use `hook`."
        ) from None
    except ValueError:
        return  # implemented in C, without a signature


def told(call: Any) -> str:
    """The name of a hook function in error messages."""
    return repr(getattr(getattr(call, "func", call), "__name__", None) or shown(call))


def called(point: Any, hook: Hook) -> Callable[..., Any]:
    """The function as a hook point calls it: in its own scope, with its result checked."""
    view, mine = Named(hook.name, point), hook

    def call(tensor: Any, hook: Any) -> Any:
        inside, outer = busy.set((*busy.get(), mine)), within.set({})
        try:
            new = mine.call(tensor, hook=view)
        finally:
            within.reset(outer)
            busy.reset(inside)
        return new if new is None else _fitting(new, tensor, mine)

    return call


def _fitting(new: Any, old: Any, hook: Hook) -> Any:
    """A hook's result, checked to fit the tensor that it replaces."""
    if not isinstance(old, torch.Tensor):
        return new
    is_gradient = hook.dir == "bwd" and isinstance(new, tuple) and len(new) == 1
    one = new[0] if is_gradient else new
    what = f"The hook {told(hook.call)} at {hook.name!r} returned"
    if not isinstance(one, torch.Tensor):
        raise SiteError(
            f"{what} {shown(one)}: return the new tensor, of shape {tuple(old.shape)}, or None to"
            " leave it as it is."
        )
    if one.shape != old.shape:
        raise SiteError(
            f"{what} a tensor of shape {tuple(one.shape)} for one of shape {tuple(old.shape)}:"
            " return all of it, changed where you want."
        )
    if (one.dtype, one.device) != (old.dtype, old.device):
        raise SiteError(
            f"{what} {one.dtype} on {one.device} for {old.dtype} on {old.device}: write"
            " `.to(tensor)`, with the tensor that the hook gets."
        )
    return new


@contextmanager
def on_point(point: Any, hook: Hook) -> Iterator[None]:
    """A context in which the hook is attached to this hook point."""
    point.add_hook(called(point, hook), dir=hook.dir)
    kept = point.fwd_hooks if hook.dir == "fwd" else point.bwd_hooks
    handle = kept[-1]
    try:
        yield
    finally:
        handle.hook.remove()
        kept[:] = [other for other in kept if other is not handle]
