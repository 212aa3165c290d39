"""The core properties on every family that is not a toy: LiMBeR's six (as tiny twins of the same
classes) and the bundled model. The toys have them in test_model.py and test_questions.py.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from bridges import off
from PIL import Image

import mmlens as mm

NAMES = [name for name in mm.models() if not name.startswith("toy-") and name != "pictos-clip"]
every_family = pytest.mark.parametrize("name", NAMES)


@cache
def family(name: str):
    """A model, made once."""
    return mm.load(name, twin=True) if name.startswith(("limber", "smol")) else mm.load(name)


def prompt(words: str = "A picture of", turned: bool = False) -> mm.Prompt:
    """A picture with structure, and words."""
    picture = Image.radial_gradient("L").convert("RGB").resize((96, 96))
    picture.paste((200, 30, 30), (8, 8, 40, 32))
    return mm.Prompt(picture.rotate(180) if turned else picture, words)


@every_family
@torch.no_grad()
def test_logits_equal_hugging_faces_and_depend_on_the_picture(name):
    # trained logits reach 12, where single precision itself rounds at 1e-6 a step
    model = mm.load(name, dtype=torch.float64) if name == "pictos" else family(name)
    soft = model.embed(prompt())
    assert off(model(soft), model.lm.hf(inputs_embeds=soft.vectors).logits) < 1e-5
    assert off(model(prompt()), model(prompt(turned=True))) > 1e-5


@every_family
@torch.no_grad()
def test_patching_everything_gives_the_other_run_and_the_last_lens_the_model(name):
    model = family(name)
    last = model.cfg.n_layers - 1
    clean = mm.activations(model, prompt(), "resid_post", layer=last)
    patched = model.edit(mm.Edit("resid_post", clean, layer=last))
    assert off(patched(prompt(turned=True)), model(prompt())) < 1e-4
    lens = mm.logit_lens(model, prompt(), [5], layer=last, pos=-1)
    assert lens.values.item() == pytest.approx(
        float(model(prompt())[0, -1].softmax(-1)[5]), abs=1e-6
    )


@every_family
def test_attribution_is_the_gradient(name):
    model = family(name)
    scores = mm.attribute(model, prompt(), 5, after="")
    layer = model.cfg.n_layers // 2
    best = mm.top_neurons(scores.sel(layer=[layer]), 1).iloc[0]
    score = float(best.score)
    edit = mm.Edit("neurons_pre", lambda z: z * 1.02, best.neuron, pos=best.patch)
    with torch.no_grad():
        moved = float(
            model.edit(edit)(prompt())[0, -1, 5].double() - model(prompt())[0, -1, 5].double()
        )
    assert moved == pytest.approx(0.02 * score, abs=2e-6 + 0.002 * abs(score))


@every_family
@torch.no_grad()
def test_generation_with_a_cache_says_the_same_as_without(name):
    model = family(name)
    edited = model.edit(mm.Edit("neurons", 0.0, layer=0, pos=mm.Patch))
    for some in (model, edited):
        assert some.generate(prompt(), 4) == some.generate(prompt(), 4, use_past_kv_cache=False)


@every_family
def test_every_advertised_hook_of_vision_and_projection_acts(name):
    model = family(name)
    vision = [h for h in model.hook_dict if h.startswith(("vision", "projection"))]
    with torch.no_grad():
        plain = model(prompt())
        for hook in vision:
            noise = torch.Generator().manual_seed(0)

            def change(x, hook, noise=noise):
                return x * (0.5 + torch.rand(x.shape, generator=noise))

            assert off(model.run_with_hooks(prompt(), [(hook, change)]), plain) > 0, hook


def test_a_known_name_wins_over_a_folder_that_is_no_bridge(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy-gpt2").mkdir()
    (tmp_path / "mine").mkdir()
    assert mm.load("toy-gpt2").name == "toy-gpt2"
    with pytest.raises(mm.MMLensError, match=r"bridge\.json"):
        mm.load("mine")
    with pytest.raises(mm.MMLensError, match="did you mean 'toy-gptj'"):
        mm.load("toy-gpj")
