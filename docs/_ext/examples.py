"""A call that is refused, per error: the catalogue runs each and shows the sentence it gets.

A new error without an example stops the build of the site, and the test of its pages.
"""

ERRORS = {
    "before": """
from pathlib import Path

model = mm.load("toy-gptj")
prompt = mm.Prompt(Path("scenes/koala.png"), "A picture of")
scores = mm.attribute(model, prompt, of=" dog", after="")
broken = mm.load("toy-gptj", seed=1)
broken.W_U.data.fill_(float("nan"))
""",
    "AddressError": "scores.sel(layer=7)",
    "ArgumentError": """
from mmlens.papers.bootstrap import intervals

intervals([[0.2], [0.4], [0.3]], draws=0)
""",
    "CapabilityError": """
import pickle

pickle.dumps(model.edit(mm.Edit("z", lambda z: z * 2, layer=1)))
""",
    "CheckpointError": 'mm.load("scenes")',
    "DataError": 'mm.dataset("pictoos:held_out:20")',
    "ExperimentError": """
from mmlens.papers.tables import ask
from mmlens.papers.mmn.questions.decoded_units import top_units

ask(top_units, model, [])
""",
    "MetricError": 'mm.metrics.bleu(["a dog", "a cat"], [["a dog"]])',
    "ModelError": 'mm.load("toy-gpj")',
    "NumericsError": "broken.generate(prompt)",
    "PictureError": 'mm.Prompt(Path("README.md"), "A picture of")',
    "PromptError": 'mm.Prompt("scenes/koala.png", "A picture of")',
    "ReproduceError": """
from mmlens.papers.mmn.report.plan import OpenChoices

OpenChoices(point="middle")
""",
    "SampleIndexError": 'mm.dataset("pictos:held_out:20")[20]',
    "SiteError": 'mm.activations(model, prompt, "neuron")',
    "SweepError": 'mm.Sweep("scenes")',
    "WriteError": 'mm.view.save("<p>a view</p>", "no-such-folder/page.html")',
    "TargetError": 'mm.attribute(model, prompt, of=" giraffe")',
}
