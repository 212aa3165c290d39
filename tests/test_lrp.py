"""Layer-wise relevance propagation: nothing is lost, and linear maps are divided as they add."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bridges import KINDS, bridge, prompt
from dual_twins import hf_clip
from native_twins import twin
from torch import nn

import mmlens as mm
from mmlens import relevance
from mmlens.families import toy
from mmlens.methods.relevance_rules import RelevanceRules
from mmlens.values.errors import MMLensError
from mmlens.values.labels import Patch

WORD = 7


def rest(found: mm.Scores) -> float:
    """The sum of relevance and of what is kept on the way."""
    told = found.about
    return float(found.values.sum()) + told["biases"] + told["softmax"]


@pytest.mark.parametrize("rule", ["attn", "cp"])
@pytest.mark.parametrize("kind", KINDS)
def test_relevance_and_what_biases_and_softmaxes_keep_sum_to_the_logit(kind, rule):
    model = bridge(f"toy-{kind}")
    found = relevance.lrp(model, prompt(), WORD, after="", rule=rule)
    with torch.no_grad():
        logit = float(model(prompt())[0, -1, WORD])
    assert found.about["number"] == pytest.approx(logit, abs=1e-4)
    size = float(found.values.abs().sum())
    assert rest(found) == pytest.approx(logit, abs=1e-4 * max(1, size)) and size > 0.1
    if rule == "cp":
        assert found.about["softmax"] == 0


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_without_biases_all_of_the_logit_arrives(kind):
    model = bridge(f"toy-{kind}")
    found = relevance.lrp(model, prompt(), WORD, after="", rule="cp")
    with torch.no_grad():
        logit = float(model(prompt())[0, -1, WORD])
    assert float(found.values.sum()) == pytest.approx(logit, abs=1e-4)


def test_it_is_conserved_in_both_towers_of_a_dual_encoder_up_to_the_cosine():
    made, _, tokenizer = hf_clip()
    clip: Any = mm.from_model(made, None, tokenizer)
    photo = toy.picture()
    for read, of in ((photo, "a dog"), ("a dog", photo)):
        found = relevance.lrp(clip, read, of, target="cosine")
        with torch.no_grad():
            cosine = float(mm.embed(clip, photo)[0] @ mm.embed(clip, "a dog")[0])
        assert rest(found) == pytest.approx(cosine, abs=1e-5)


def test_a_whole_vision_language_model_is_divided_too():
    found = relevance.lrp(mm.from_model(*twin("llava")), prompt(words="a"), WORD, after="")
    assert abs(found.about["missing"]) < 1e-4 * float(found.values.abs().sum())
    assert len(found.sel(pos=Patch).of("pos")) == 16


class Net(nn.Module):
    """x W + b, then what is asked."""

    def __init__(self, then: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.then = nn.Linear(4, 4), then

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.then(self.first(x))


def handed(then: Any) -> tuple[torch.Tensor, torch.Tensor, float]:
    """x * gradient under the rules, the output, and what biases keep."""
    net, rules = Net(then), RelevanceRules()
    x = torch.tensor([1.0, -2.0, 0.5, 3.0]).requires_grad_()
    with rules:
        out = net(x)
    grads = torch.autograd.grad(out.sum(), [x, *rules.biases])
    kept = sum(float((b * g).detach().sum()) for b, g in zip(rules.biases, grads[1:], strict=True))
    assert torch.allclose(out, net(x), atol=1e-5)  # values are the operation's own
    return (x * grads[0]).detach(), out.detach(), kept


@pytest.mark.parametrize(
    "then",
    [nn.GELU(), nn.SiLU(), nn.ReLU(inplace=True), nn.LayerNorm(4), nn.RMSNorm(4),
     lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
     lambda x: x * torch.sigmoid(1.702 * x), lambda x: torch.tanh(x / 3) * 3,
     lambda x: x.flip(0) * nn.functional.silu(x), lambda x: nn.functional.normalize(x, dim=0)],
    ids=["gelu", "silu", "relu", "layer norm", "rms norm", "written norm", "quick gelu", "softcap",
         "gate", "normalize"],
)  # fmt: skip
def test_every_rule_hands_down_what_it_got(then):
    relevance_, out, kept = handed(then)
    assert float(relevance_.sum()) + kept == pytest.approx(float(out.sum()), abs=1e-4)


def test_of_a_linear_map_each_input_gets_what_it_adds():
    found, _, kept = handed(nn.Identity())
    net = Net(nn.Identity())
    assert torch.allclose(found, torch.tensor([1.0, -2.0, 0.5, 3.0]) * net.first.weight.sum(0))
    assert kept == pytest.approx(float(net.first.bias.detach().sum()), abs=1e-5)


def test_a_planted_word_comes_from_the_planted_patch():
    model = bridge("toy-gptj-planted")
    found = relevance.lrp(model, prompt(), " dog", after="").sel(pos=Patch)
    assert found.argmax() == {"pos": Patch(2, 1)}


def test_what_has_no_rule_is_refused_with_what_is_lost():
    bent = bridge("toy-llama").edit()
    bent.add_hook("blocks.0.hook_mlp_out", lambda x, hook: x + 3 * x.exp())
    with pytest.raises(MMLensError, match=r"of relevance gets lost .* write relevance.chefer"):
        relevance.lrp(bent, prompt(), WORD, after="", rule="cp")
    model = bridge("toy-llama")
    with pytest.raises(MMLensError, match="no unit can be explained by it"):
        relevance.lrp(model, prompt(), mm.Neuron(1, 5))
    with pytest.raises(MMLensError, match="has every picture among the positions"):
        relevance.lrp(bridge("toy-cross"), prompt(), WORD, after="")
