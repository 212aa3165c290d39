"""A hooked model: towers by name, edits, hooks, and one way to a forward pass.

    model.towers                       {"vision": ..., "projection": ..., "lm": ...}
    model.sites                        what can be read and edited, as a table
    reading = model.read(prompt)       inputs and labels
    model.run(reading)                 its output: logits of tokens, of classes, ...
    model.card                         what it was trained on, as a page
    model.can("logits")                whether it has what a question needs

Every verb of mmlens takes a `HookedModel` and checks its capabilities, never its class.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from html import escape
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model import activation_cache, dictionary_sites, hooking, options
from mmlens.model.capabilities import abilities
from mmlens.model.card import Card, card_of
from mmlens.model.crossed_edits import check_keys
from mmlens.model.kept_hooks import KeepsHooks
from mmlens.model.listed_sites import site_table
from mmlens.runtime.casting import Movable
from mmlens.runtime.hook_calls import Hook
from mmlens.values.arguments import shown
from mmlens.values.edit import Edit
from mmlens.values.edit_lists import one_by_one
from mmlens.values.errors import ArgumentError, SiteError
from mmlens.values.labels import LM

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.image_reader import ImageReader
    from mmlens.model.reading import Rows
    from mmlens.model.targets import Target
    from mmlens.towers.tower import Tower
    from mmlens.values.prompt import Prompt
    from mmlens.values.sites import Site

Input = Any
"""A Prompt, text, a picture, a list of these, or what `read` returned."""


class HookedModel(KeepsHooks, Movable, ABC):
    """Towers, edits and a readout.

    Args:
        name: what the model is called in results.
        provenance: where its parts come from (ids, revisions, hashes), kept in every result.

    Attributes:
        image_reader: what it makes of a picture.
    """

    image_reader: ImageReader

    def __init__(self, name: str, provenance: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.name, self.provenance = name, dict(provenance or {})
        self.edits: tuple[Edit, ...] = ()
        self._added: list[Hook] = []

    # -- what there is ------------------------------------------------------------------------

    @property
    @abstractmethod
    def towers(self) -> Mapping[str, Tower]:
        """The towers by name, in the order in which they run."""

    @property
    def sites(self) -> pd.DataFrame:
        """Every site: its name, tower, hook point, axes, layers, and whether edits act there."""
        return site_table(self)

    @property
    def card(self) -> Card:
        """What it was trained on and what it cannot know: the bundled card, or its parts."""
        return card_of(self)

    def can(self, what: str) -> bool:
        """Whether the model has what a question needs: "logits", "neurons", "classes", ...

        Raises:
            ArgumentError: no capability has this name; `mmlens.model.capabilities` has them all.
        """
        return abilities(self, what)

    # -- running ------------------------------------------------------------------------------

    @abstractmethod
    def read(self, input: Input) -> Any:
        """What the model reads: inputs and labels of every position.

        Raises:
            PromptError: the model cannot read this.
        """

    @abstractmethod
    def prompts_of(self, input: Input) -> tuple[Prompt, ...]:
        """The prompts in an input, without reading it; none when it is made of ids or tensors."""

    def reading_tower(self, input: Input) -> str:
        """The name of the tower that reads this input first, whose units are asked for."""
        return LM if LM in self.towers else next(iter(self.towers))

    @abstractmethod
    def running(self, input: Input, *args: Any, **how: Any) -> AbstractContextManager[Any]:
        """A context in which hooks and edits are attached and the input is being read."""

    @abstractmethod
    def run(
        self, input: Input, *, at: torch.Tensor | None = None, grad: bool = False, **how: Any
    ) -> torch.Tensor:
        """One forward pass with hooks and edits: Float[row, ...], the model's output.

        Args:
            at: positions (of a language model) or rows (of a classifier) whose output alone is
                computed.
            grad: whether a graph starts at the inputs; hooks may start one anywhere.
        """

    def forward(self, input: Input, return_type: str | None = "logits", **how: Any) -> Any:
        """The output of `run`; `return_type` is "logits", or None for no output."""
        if return_type not in ("logits", None):
            raise ArgumentError(
                f"return_type={return_type!r}: {self.name!r} gives 'logits', or nothing (None)."
            )
        out = self.run(input, grad=True, **how)
        return None if return_type is None else out

    @abstractmethod
    def run_to(self, tower: str, input: Input) -> None:
        """Run the towers up to this one, with hooks and edits, for what the hooks record."""

    @abstractmethod
    def aim(
        self, prompt: Input, of: Any, target: Any = "logit", after: str | None = None
    ) -> tuple[Any, Target]:
        """One prompt as it is read, and the scalar that is explained."""

    @abstractmethod
    def answer_rows(self, reading: Any, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the model's output for one prompt, Float[k, ...]; only these are computed."""

    @abstractmethod
    def one(self, prompt: Input) -> Any:
        """One prompt as it is read, without padding.

        Raises:
            PromptError: several prompts.
        """

    @abstractmethod
    def side_by_side(
        self, reading: Any, n: int, *, position: int = -1, tower: str = "", grad: bool = False
    ) -> torch.Tensor:
        """A row of the output of each of `n` copies of one prompt, in one pass: Float[n, ...].

        Args:
            reading: what `one` returned.
            position: whose output a language model gives.
            tower: whose hooks get the copies as their batch; by default that which reads.
            grad: as in `run`.
        """

    @property
    def answer_dtype(self) -> torch.dtype:
        """The number format of the tower that answers, which is the last."""
        return [*self.towers.values()][-1].dtype

    @abstractmethod
    def picture_rows(self, prompts: Sequence[Prompt], site: Site, layer: int | None = None) -> Rows:
        """The label of each position of a site in pictures: one row per picture (or crop)."""

    def run_with_cache(
        self,
        input: Input,
        return_cache_object: bool = True,
        remove_batch_dim: bool = False,
        names_filter: Any = None,
        device: Any = None,
        incl_bwd: bool = False,
        pos_slice: Any = None,
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **more: Any,
    ) -> tuple[Any, Any]:
        """Output and an ActivationCache of the named hook points (all when `names_filter` is None).

        With `incl_bwd` (and `return_type="loss"`) gradients are cached as `<name>_grad`; with
        `pos_slice` only these positions of the language model are kept.
        """
        options.refuse_unknown("run_with_cache", more, [*options.CACHE, *options.FORWARD])
        below = options.stop_layer(self, more.get("stop_at_layer"))
        how = (names_filter, device, incl_bwd, remove_batch_dim, return_cache_object, pos_slice)
        contexts = (reset_hooks_end, clear_contexts)
        return activation_cache.run_with_cache(self, input, *how, contexts, below, more)

    # -- edits --------------------------------------------------------------------------------

    def edit(self, *edits: Edit | Sequence[Any]) -> Any:
        """This model with edits: a model like any other, sharing the weights.

        Args:
            edits: one by one, or in lists, as some functions return them.

        Raises:
            SiteError, AddressError: a site, layer or unit that does not exist, or a dead hook.
            CapabilityError: the site can be read but not written on this architecture.
        """
        changes = one_by_one(edits)
        for change in changes:
            if not isinstance(change, Edit):
                raise SiteError(f"{shown(change)} is no Edit: write mm.Edit(site, value, address).")
            check_keys(self, change)
            hooking.check_edit(self, change)
        out = copy.copy(self)
        out.edits = (*self.edits, *changes)
        out._added = list(self._added)
        return out

    def attach(
        self, dictionary: Any, at: str | None = None, out: str | None = None, *, error: str = "live"
    ) -> Any:
        """This model with a dictionary: its units are at the sites "sae", or "vision.sae".

        It answers as before: what the dictionary does not reconstruct is kept, as an error term.

        Args:
            dictionary: what `mmlens.load_dictionary` returns.
            at: the hook name of what it reads, "blocks.12.hook_resid_post"; by default its own.
            out: of a transcoder, the hook name of what it reconstructs, "blocks.12.hook_mlp_out".
            error: "live" lets gradients pass through the error, as edits of what is before it act;
                "constant" passes them through the code alone.

        Raises:
            SiteError: no such hook, or one of other vectors. CapabilityError: a tower or a place
                that takes no dictionary, or a layer that has one.
        """
        return dictionary_sites.attach(self, dictionary, at, out, error)

    def __copy__(self) -> Any:
        """Another model that shares the parts; `edit` adds edits to such a copy."""
        kind: Any = type(self)
        out = kind.__new__(kind)
        out.__dict__.update(self.__dict__)
        return out

    def edit_hooks(self, prompts: Sequence[Prompt]) -> list[Hook]:
        """The edits as hooks, for one run of these prompts."""
        return hooking.edit_hooks(self, prompts)

    # -- shown --------------------------------------------------------------------------------

    def __repr__(self) -> str:
        towers = ", ".join(f"{name} {tower.n_layers}" for name, tower in self.towers.items())
        edits = f", {len(self.edits)} edits" if self.edits else ""
        return f"{type(self).__name__}({self.name!r}, layers: {towers}{edits})"

    def _repr_html_(self) -> str:
        """A card of the model for notebooks: its towers, and where they come from."""
        rows = "".join(
            f"<tr><td><b>{escape(name)}</b></td><td>{tower.n_layers} layers</td>"
            f"<td>{len(tower.points)} hook points</td></tr>"
            for name, tower in self.towers.items()
        )
        edits = f"<p>{len(self.edits)} edits</p>" if self.edits else ""
        head = f"<b>{type(self).__name__}</b> {escape(self.name)}"
        return f"<div>{head}<table>{rows}</table>{self._origins()}{edits}</div>"

    def _origins(self) -> str:
        """The source of each part as HTML, where the provenance records it."""
        lines = []
        for part, told in dict(self.provenance.get("parts") or {}).items():
            licence = f" ({told['licence']})" if "licence" in told else ""
            lines.append(f"<li>{escape(part)}: {escape(str(told['source']) + licence)}</li>")
        return f"<ul>{''.join(lines)}</ul>" if lines else ""
