"""Where a number comes from: model, weights, edits, options, versions, kept with every result."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmlens.model import HookedVLM


def about(model: HookedVLM, **options: Any) -> dict[str, Any]:
    """The provenance of a result: JSON-able, `options` first."""
    from mmlens import __version__

    return {
        **{
            name: option if isinstance(option, (int, float, bool)) else str(option)
            for name, option in options.items()
        },
        "model": model.name,
        **{f"model_{key}": value for key, value in model.provenance.items()},
        "edits": [repr(edit) for edit in model.edits],
        "versions": {
            "mmlens": __version__,
            **{name: version(name) for name in ("transformer-lens", "torch", "transformers")},
        },
    }
