"""The hooks that a model keeps: added, in a context, permanent, or for one call.

TransformerLens keeps hooks on the hook points, which an edited copy and its original share. Here a
model keeps its own, and they are attached only while it runs (`model.hooking`); names,
options and their meaning are TransformerLens'. A hook that is added to a HookPoint directly acts on
every model that shares the point, and `reset_hooks` removes it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mmlens.model import activation_cache, hooking
from mmlens.model.hooking import Pairs
from mmlens.model.options import FORWARD, HOOKS, refuse_unknown
from mmlens.runtime.hook_calls import DIRECTIONS, Hook, busy, within
from mmlens.runtime.turns import running, turn
from mmlens.values.arguments import choice, function
from mmlens.values.errors import SiteError
from mmlens.values.labels import LM
from mmlens.values.sites import tower_of

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel


class KeepsHooks:
    """The hook methods of a HookedTransformer."""

    _added: list[Hook]

    @property
    def hook_dict(self: Any) -> dict[str, Any]:
        """Every hook point that fires, by name; dead and gated ones are left out."""
        return hooking.points(self)

    def hook_points(self: Any) -> list[Any]:
        """The hook points that fire, each once."""
        return list({id(point): point for point in self.hook_dict.values()}.values())

    def get_hook_point(self: Any, hook_name: str) -> Any:
        """The hook point of that name, or None."""
        return self.hook_dict.get(hook_name)

    @property
    def context_level(self) -> int:
        """How many contexts of `hooks()` are open on this model, in this thread."""
        return len(within.get().get(id(self), ()))

    @property
    def watches_vision(self) -> bool:
        """Whether a current hook is on the vision encoder or the projection."""
        return any(tower_of(hook.name) != LM for hook in self._hooks_now())

    def _hooks_now(self) -> list[Hook]:
        opened = [hook for level in within.get().get(id(self), ()) for hook in level]
        called = busy.get()
        return [hook for hook in (*self._added, *opened) if hook not in called]

    def list_hooks(
        self,
        name_filter: Any = None,
        dir: str = "both",
        including_permanent: bool = True,
    ) -> dict[str, list[Hook]]:
        """The hooks of this model by the name of their hook point; points without one are left out.

        Args:
            name_filter: a hook name, a list of names, a function of names, or None for all.
            dir: "fwd", "bwd" or "both".
        """
        choice(dir, "dir", (*DIRECTIONS, "both"), error=SiteError)
        wanted = [name_filter] if isinstance(name_filter, str) else name_filter
        if callable(wanted):
            function(wanted, "name_filter", "a function of a name", takes=1, error=SiteError)
        found: dict[str, list[Hook]] = {}
        for hook in self._hooks_now():
            named = wanted(hook.name) if callable(wanted) else wanted is None or hook.name in wanted
            if named and hook.meets(dir, including_permanent, None):
                found.setdefault(hook.name, []).append(hook)
        return found

    def add_hook(
        self: Any,
        name: Any,
        hook: Callable[..., Any],
        dir: str = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """A hook that stays until `reset_hooks()`, on this model and copies made of it later.

        Args:
            name: a hook name, or a function of names.
            hook: a function `fn(tensor, hook)`; what it returns replaces the tensor.
            dir: "fwd", or "bwd" for the gradient.
            is_permanent: it stays until `reset_hooks(including_permanent=True)`.
            level: which `reset_hooks(level=)` removes it.
            prepend: it runs before the hooks that are there.

        Raises:
            SiteError: a name that does not exist or never fires, or a function that takes no hook.
        """
        options = {"is_permanent": is_permanent, "level": level}
        new = hooking.hooks_of(self, [(name, hook)], dir, **options)
        self._added = [*new, *self._added] if prepend else [*self._added, *new]

    def add_perma_hook(self: Any, name: Any, hook: Callable[..., Any], dir: str = "fwd") -> None:
        """A hook that only `reset_hooks(including_permanent=True)` removes."""
        self.add_hook(name, hook, dir, is_permanent=True)

    def remove_all_hook_fns(
        self: Any,
        direction: str = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Remove the hooks of this model, and those added to its hook points directly.

        Args:
            direction: "fwd", "bwd" or "both".
            including_permanent: permanent ones as well; pictures can still be read.
            level: only those of the context of this level, 1 being the outermost.
        """
        choice(direction, "direction", (*DIRECTIONS, "both"), error=SiteError)
        which = (direction, including_permanent, level)
        self._added = [hook for hook in self._added if not hook.meets(*which)]
        opened = tuple(
            tuple(hook for hook in hooks if not hook.meets(*which))
            for hooks in within.get().get(id(self), ())
        )
        within.set({**within.get(), id(self): opened})
        if not running():  # else the hooks on the points belong to the run
            with turn(*self._shared()):
                for point in self._every_point():
                    point.remove_hooks(*which)
                self._open()

    def reset_hooks(
        self: Any,
        clear_contexts: bool = True,
        direction: str = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Remove hooks, as `remove_all_hook_fns`, and what hooks have kept in `hook.ctx`."""
        if clear_contexts:
            self.clear_contexts()
        self.remove_all_hook_fns(direction, including_permanent, level)

    def clear_contexts(self: Any) -> None:
        """Empty the dictionary `hook.ctx` of every hook point."""
        for point in self._every_point():
            point.clear_context()

    def _every_point(self: Any) -> list[Any]:
        every = [point for tower in self.towers.values() for point in tower.every_point.values()]
        return list({id(point): point for point in every}.values())

    def _shared(self: Any) -> list[Any]:
        """The modules that other models may share; one thread at a time runs them."""
        return [tower.shared for tower in self.towers.values() if tower.shared is not None]

    def _open(self) -> None:
        """Put back the hooks that every run needs; by default there are none."""

    @contextmanager
    def hooks(
        self: Any,
        fwd_hooks: Pairs = (),
        bwd_hooks: Pairs = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[HookedModel]:
        """Within this context (and this thread) every call runs with these hooks.

        Args:
            reset_hooks_end: remove them at the end; else they stay until `reset_hooks()`.
            clear_contexts: empty `hook.ctx` of their points at the end.

        Raises:
            SiteError: a name that does not exist or never fires; the sentence names the nearest.
        """
        level, key = self.context_level + 1, id(self)
        new = (
            *hooking.hooks_of(self, fwd_hooks, "fwd", level=level),
            *hooking.hooks_of(self, bwd_hooks, "bwd", level=level),
        )
        within.set({**within.get(), key: (*within.get().get(key, ()), new)})
        try:
            yield self
        finally:
            *outer, mine = within.get()[key]  # `reset_hooks` may have taken some away
            within.set({**within.get(), key: tuple(outer)})
            if not reset_hooks_end:
                self._added = [*self._added, *mine]
            if clear_contexts and new:
                known = self.hook_dict
                for hook in new:
                    if hook.name in known:
                        known[hook.name].clear_context()

    def run_with_hooks(
        self: Any,
        input: Any,
        fwd_hooks: Pairs = (),
        bwd_hooks: Pairs = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **options: Any,
    ) -> Any:
        """One forward pass with hooks `fn(tensor, hook)`; what one returns replaces the tensor.

        Backward hooks are bound in the forward pass and run whenever its result is differentiated.
        """
        refuse_unknown("run_with_hooks", options, [*HOOKS, *FORWARD])
        with self.hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts):
            return self(input, **options)

    def get_caching_hooks(
        self: Any,
        names_filter: Any = None,
        incl_bwd: bool = False,
        device: Any = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Any] | None = None,
        pos_slice: Any = None,
    ) -> tuple[dict[str, Any], list[Any], list[Any]]:
        """A cache, and forward and backward hooks for `hooks()` that fill it."""
        how = (names_filter, incl_bwd, device, remove_batch_dim, cache, pos_slice)
        return activation_cache.caching_hooks(self, *how)

    def add_caching_hooks(
        self: Any,
        names_filter: Any = None,
        incl_bwd: bool = False,
        device: Any = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """A cache that every run fills until `reset_hooks()`."""
        how = (names_filter, incl_bwd, device, remove_batch_dim, cache)
        found, fwd, bwd = activation_cache.caching_hooks(self, *how)
        for dir, pairs in (("fwd", fwd), ("bwd", bwd)):
            self._added = [*self._added, *hooking.hooks_of(self, pairs, dir)]
        return found
