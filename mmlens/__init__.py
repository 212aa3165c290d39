"""The image half of TransformerLens: mechanistic interpretability of models that see.

Importing mmlens is cheap: a name is looked up in its module on first use (PEP 562), so that
`import mmlens` loads neither torch nor transformers. To publish a name, add one line to `_HOME`
and the same to the imports below it, which only type checkers read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

__version__ = "0.1.0.dev0"

_HOME = {
    "Prompt": "values.prompt",
    "Patch": "values.labels",
    "Token": "values.labels",
    "Neuron": "values.labels",
    "Head": "values.labels",
    "Scores": "values.scores",
    "Edit": "values.edit",
    "HookedVLM": "model.hooked",
    "load": "families",
    "from_parts": "families",
    "models": "families",
    "activations": "methods.activations",
    "attribute": "methods.attribute",
    "attribute_caption": "methods.attribute",
    "attribute_picture": "methods.attribute_picture",
    "integrated_gradients": "methods.integrated_gradients",
    "top_neurons": "methods.top_neurons",
    "decode": "methods.decode",
    "interpretable": "methods.decode",
    "logit_lens": "methods.logit_lens",
    "nearest_tokens": "methods.nearest_tokens",
    "audit": "methods.audit",
    "look": "explore.look",
    "Look": "explore.look",
    "dataset": "datasets.spec",
    "Sample": "datasets.sample",
    "Sweep": "sweep.sweep_folder",
    "top_images": "sweep.images",
    "MMLensError": "values.errors",
}
_SUBMODULES = (
    "datasets",
    "metrics",
    "papers",
    "patching",
    "pictos",
    "sweep",
    "tally",
    "view",
)

__all__ = [*_HOME, *_SUBMODULES]

if TYPE_CHECKING:
    from mmlens import datasets as datasets
    from mmlens import metrics as metrics
    from mmlens import papers as papers
    from mmlens import patching as patching
    from mmlens import pictos as pictos
    from mmlens import sweep as sweep
    from mmlens import tally as tally
    from mmlens import view as view
    from mmlens.datasets.sample import Sample as Sample
    from mmlens.datasets.spec import dataset as dataset
    from mmlens.explore.look import Look as Look
    from mmlens.explore.look import look as look
    from mmlens.families import from_parts as from_parts
    from mmlens.families import load as load
    from mmlens.families import models as models
    from mmlens.methods.activations import activations as activations
    from mmlens.methods.attribute import attribute as attribute
    from mmlens.methods.attribute import attribute_caption as attribute_caption
    from mmlens.methods.attribute_picture import attribute_picture as attribute_picture
    from mmlens.methods.audit import audit as audit
    from mmlens.methods.decode import decode as decode
    from mmlens.methods.decode import interpretable as interpretable
    from mmlens.methods.integrated_gradients import integrated_gradients as integrated_gradients
    from mmlens.methods.logit_lens import logit_lens as logit_lens
    from mmlens.methods.nearest_tokens import nearest_tokens as nearest_tokens
    from mmlens.methods.top_neurons import top_neurons as top_neurons
    from mmlens.model.hooked import HookedVLM as HookedVLM
    from mmlens.sweep.images import top_images as top_images
    from mmlens.sweep.sweep_folder import Sweep as Sweep
    from mmlens.values.edit import Edit as Edit
    from mmlens.values.errors import MMLensError as MMLensError
    from mmlens.values.labels import Head as Head
    from mmlens.values.labels import Neuron as Neuron
    from mmlens.values.labels import Patch as Patch
    from mmlens.values.labels import Token as Token
    from mmlens.values.prompt import Prompt as Prompt
    from mmlens.values.scores import Scores as Scores

__getattr__, __dir__ = on_first_use(__name__, _HOME, _SUBMODULES)
