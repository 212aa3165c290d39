"""The image half of TransformerLens: mechanistic interpretability of models that see.

Importing mmlens is cheap: a name is imported from its module on first use (PEP 562), so that
`import mmlens` loads neither torch nor transformers. To publish a name, add one line to the imports
below: they are the list that type checkers, `__getattr__`, `dir` and `__all__` read.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

__version__ = "0.1.0.dev0"

# tqdm says it in red below the first cell of a notebook without ipywidgets, and draws bars of text
warnings.filterwarnings("ignore", message="IProgress not found")

if TYPE_CHECKING:
    from mmlens import datasets as datasets
    from mmlens import decoding as decoding
    from mmlens import metrics as metrics
    from mmlens import papers as papers
    from mmlens import patching as patching
    from mmlens import pictos as pictos
    from mmlens import relevance as relevance
    from mmlens import sweep as sweep
    from mmlens import tally as tally
    from mmlens import view as view
    from mmlens.checkpoints.dictionaries.dictionary_files import load_dictionary as load_dictionary
    from mmlens.checkpoints.dictionaries.dictionary_files import save_dictionary as save_dictionary
    from mmlens.datasets.sample import Sample as Sample
    from mmlens.datasets.spec import dataset as dataset
    from mmlens.doctor.memory_plan import MemoryPlan as MemoryPlan
    from mmlens.doctor.memory_plan import plan as plan
    from mmlens.explore.look import Look as Look
    from mmlens.explore.look import look as look
    from mmlens.explore.microscope import microscope as microscope
    from mmlens.families import fetch as fetch
    from mmlens.families import load as load
    from mmlens.families import models as models
    from mmlens.families.named import from_model as from_model
    from mmlens.families.parts import from_parts as from_parts
    from mmlens.methods.activations import activations as activations
    from mmlens.methods.alignment import alignment as alignment
    from mmlens.methods.attention_lens import HeadMaps as HeadMaps
    from mmlens.methods.attention_lens import attention_lens as attention_lens
    from mmlens.methods.attribute import attribute as attribute
    from mmlens.methods.attribute import attribute_caption as attribute_caption
    from mmlens.methods.attribute_picture import attribute_picture as attribute_picture
    from mmlens.methods.attribution_graph import attribution_graph as attribution_graph
    from mmlens.methods.audit import audit as audit
    from mmlens.methods.bilinear_attribution import bilinear_attribution as bilinear_attribution
    from mmlens.methods.blank_check import blank_check as blank_check
    from mmlens.methods.check_graph import check_graph as check_graph
    from mmlens.methods.compare_outputs import compare_outputs as compare_outputs
    from mmlens.methods.concepts import WordConcepts as WordConcepts
    from mmlens.methods.concepts import concepts as concepts
    from mmlens.methods.concepts import stream_before as stream_before
    from mmlens.methods.conditional_probability import (
        activation_given_label as activation_given_label,
    )
    from mmlens.methods.conditional_probability import (
        label_given_activation as label_given_activation,
    )
    from mmlens.methods.conditional_probability import to_label as to_label
    from mmlens.methods.contextual_index import ContextualIndex as ContextualIndex
    from mmlens.methods.contextual_index import contextual_index as contextual_index
    from mmlens.methods.contextual_neighbours import contextual_neighbours as contextual_neighbours
    from mmlens.methods.contributions import contributions as contributions
    from mmlens.methods.cross_attention_maps import cross_attention_maps as cross_attention_maps
    from mmlens.methods.cross_format import cross_format as cross_format
    from mmlens.methods.cross_format import cross_format_index as cross_format_index
    from mmlens.methods.decode import decode as decode
    from mmlens.methods.decode import interpretable as interpretable
    from mmlens.methods.decompose import decompose as decompose
    from mmlens.methods.domain_neurons import active_share as active_share
    from mmlens.methods.domain_neurons import domain_neurons as domain_neurons
    from mmlens.methods.embed import embed as embed
    from mmlens.methods.head_lens import head_lens as head_lens
    from mmlens.methods.information_filtering import information_filtering as information_filtering
    from mmlens.methods.information_filtering import token_activity as token_activity
    from mmlens.methods.integrated_gradients import integrated_gradients as integrated_gradients
    from mmlens.methods.jacobian_lens import jacobian_lens as jacobian_lens
    from mmlens.methods.linear_probe import LinearProbe as LinearProbe
    from mmlens.methods.linear_probe import linear_probe as linear_probe
    from mmlens.methods.linear_probe import sparse_probe as sparse_probe
    from mmlens.methods.logit_lens import logit_lens as logit_lens
    from mmlens.methods.modality_neurons import modality_importance as modality_importance
    from mmlens.methods.modality_neurons import modality_neurons as modality_neurons
    from mmlens.methods.module_influence import module_influence as module_influence
    from mmlens.methods.nearest_tokens import nearest_tokens as nearest_tokens
    from mmlens.methods.neuron_graph import neuron_graph as neuron_graph
    from mmlens.methods.next_labels import next_labels as next_labels
    from mmlens.methods.patchscope import patchscope as patchscope
    from mmlens.methods.picture_similarity import picture_similarity as picture_similarity
    from mmlens.methods.projection_probe import projection_probe as projection_probe
    from mmlens.methods.representation_shift import concept_shifts as concept_shifts
    from mmlens.methods.representation_shift import shift_consistency as shift_consistency
    from mmlens.methods.sink_units import sink_units as sink_units
    from mmlens.methods.stream_map import StreamMap as StreamMap
    from mmlens.methods.stream_map import stream_map as stream_map
    from mmlens.methods.stroop import stroop as stroop
    from mmlens.methods.stroop import stroop_probs as stroop_probs
    from mmlens.methods.stroop import stroop_rates as stroop_rates
    from mmlens.methods.sums_of_shares import heat_map as heat_map
    from mmlens.methods.sums_of_shares import mean_ablated as mean_ablated
    from mmlens.methods.text_neurons import text_neurons as text_neurons
    from mmlens.methods.text_span import head_moments as head_moments
    from mmlens.methods.text_span import text_span as text_span
    from mmlens.methods.top_neurons import top_neurons as top_neurons
    from mmlens.methods.translators import Translators as Translators
    from mmlens.methods.tuned_lens import tuned_lens as tuned_lens
    from mmlens.methods.typographic_attack import typographic_attack as typographic_attack
    from mmlens.methods.unit_responses import unit_responses as unit_responses
    from mmlens.methods.visual_circuit import visual_circuit as visual_circuit
    from mmlens.methods.visualise import visualise as visualise
    from mmlens.methods.word_probe import top_words as top_words
    from mmlens.methods.word_probe import word_probe as word_probe
    from mmlens.methods.word_vectors import word_analogy as word_analogy
    from mmlens.methods.word_vectors import word_association as word_association
    from mmlens.methods.word_vectors import word_neighbours as word_neighbours
    from mmlens.methods.zero_shot import zero_shot as zero_shot
    from mmlens.model.hooked_diffusion import HookedDiffusion as HookedDiffusion
    from mmlens.model.hooked_dual_encoder import HookedDualEncoder as HookedDualEncoder
    from mmlens.model.hooked_multimodal_encoder import (
        HookedMultimodalEncoder as HookedMultimodalEncoder,
    )
    from mmlens.model.hooked_vlm import HookedVLM as HookedVLM
    from mmlens.papers.bias.bias_report import audit_bias as audit_bias
    from mmlens.papers.hallucination.chair_study import hallucination as hallucination
    from mmlens.sweep.sweep_folder import Sweep as Sweep
    from mmlens.sweep.top_pictures import top_images as top_images
    from mmlens.towers.dictionaries.dictionary import Dictionary as Dictionary
    from mmlens.values.edit import Edit as Edit
    from mmlens.values.errors import MMLensError as MMLensError
    from mmlens.values.graph_tables import AttributionGraph as AttributionGraph
    from mmlens.values.labels import Head as Head
    from mmlens.values.labels import Neuron as Neuron
    from mmlens.values.labels import Patch as Patch
    from mmlens.values.labels import Token as Token
    from mmlens.values.prompt import Prompt as Prompt
    from mmlens.values.scores import Scores as Scores
    from mmlens.values.visualisation import Visualisation as Visualisation
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
