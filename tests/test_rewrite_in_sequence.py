"""Words rewritten in sequence: the closed form, what stays, a planted word that is exchanged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bridges import bridge, off, prompt
from native_twins import twin

import mmlens as mm
from mmlens.methods.rewrite_in_sequence import KEY, change_of, chosen
from mmlens.methods.stream_values import valued
from mmlens.methods.translators import same_state
from mmlens.model.provenance import about
from mmlens.patching import rewrite, rewrite_in_sequence
from mmlens.values.errors import (
    AddressError,
    ArgumentError,
    CapabilityError,
    NumericsError,
    PromptError,
)

CAT, DOG = " cat", " dog"
pytestmark = pytest.mark.filterwarnings("ignore:After all edits")  # random toys say few words


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def probability(model: Any, asked: Any, word: str) -> float:
    with torch.no_grad():
        return float(model(asked)[0, -1].softmax(-1)[model.to_single_token(word)])


def written(model: Any, layer: int) -> torch.Tensor:
    return model.root.blocks[layer].mlp.W_out.detach().clone()


# -- the closed form ------------------------------------------------------------------------------


def test_the_change_is_that_of_the_whole_linear_system():
    """Every entry of D written out as an unknown: rows demanded, and rows to be kept, weighted."""
    keys, rest, kept = draw(2, 6), draw(2, 3, seed=1), draw(9, 6, seed=2)
    ours = change_of(keys, rest, 5.0 * kept.T @ kept / 9)
    eye = torch.eye(3, dtype=torch.double)
    system = torch.cat([torch.kron(keys, eye), (5.0 / 9) ** 0.5 * torch.kron(kept, eye)])
    wanted = torch.cat([rest.flatten(), torch.zeros(27, dtype=torch.double)])
    whole = torch.linalg.lstsq(system, wanted).solution
    assert off(ours.flatten(), whole) < 1e-5 * float(whole.abs().max())
    assert off(keys @ ours, rest) > 0.01  # what is kept is felt


def test_without_kept_keys_the_demand_is_met_by_the_shortest_change():
    keys, rest = draw(2, 6), draw(2, 3, seed=1)
    ours = change_of(keys, rest, torch.zeros(6, 6))
    assert off(keys @ ours, rest) < 1e-5
    assert off(ours, torch.linalg.pinv(keys) @ rest) < 1e-5


def test_kept_keys_write_what_they_wrote_where_the_others_leave_room():
    keys, rest, kept = draw(2, 8), draw(2, 3, seed=1), draw(4, 8, seed=2)
    ours = change_of(keys, rest, kept.T @ kept)
    assert off(keys @ ours, rest) < 1e-4 and off(kept @ ours, torch.zeros(4, 3)) < 1e-4
    assert off(kept @ change_of(keys, rest, torch.zeros(8, 8)), torch.zeros(4, 3)) > 0.1


def test_the_fewest_units_that_hold_the_share_are_chosen():
    keys = torch.tensor([[4.0, -1.0, 0.0, 2.0], [-2.0, 0.0, 0.0, 1.0]])  # sums 6, 1, 0, 3 of 10
    assert chosen(keys, 0.6) == [0] and chosen(keys, 0.61) == [0, 3]
    assert chosen(keys, 0.95) == [0, 1, 3] and chosen(keys, 1.0) == [0, 1, 2, 3]
    assert len(chosen(keys, 0.61, torch.Generator().manual_seed(0))) == 2
    with pytest.raises(NumericsError, match="silent at these positions"):
        chosen(torch.zeros(2, 4), 0.5)


# -- the value ------------------------------------------------------------------------------------


def test_the_value_is_one_after_which_the_model_says_the_word_and_no_further_than_it_may_be():
    model = bridge("toy-gptj")
    soft, word = model.read(prompt()), model.to_single_token(CAT)
    found = valued(model, soft, word, -1, 1, 25)
    start = mm.activations(model, prompt(), "resid_post", layer=1, pos=-1).values
    put = model.edit(mm.Edit("resid_post", found.z[0], layer=1, pos=-1))
    assert probability(put, prompt(), CAT) > 4 * probability(model, prompt(), CAT)
    assert 0 < found.far <= 0.7501 * float(start.norm())
    assert off(found.z[0] - start, torch.zeros(1)) > 1e-3


def test_values_do_not_know_of_earlier_edits():
    """Rewound: two prompts in a row give the second what it has alone, from the original model."""
    model = bridge("toy-gptj")
    some, words = [prompt(), prompt((0, 3), "the red house")], [CAT, DOG]
    how: dict[str, Any] = {"layer": [1], "share": 1.0}
    first = rewrite_in_sequence(model, some[0], words[0], **how)
    rewound = rewrite_in_sequence(first, some[1], words[1], original=model, **how)
    both = rewrite_in_sequence(model, some, words, **how)
    anew = rewrite_in_sequence(first, some[1], words[1], **how)
    soft = model.read(some[1])
    token = model.to_single_token(DOG)
    z = valued(model, soft, token, -1, 1, 25).z[0]
    for one in (rewound, both):
        at = mm.activations(one, some[1], "resid_post", layer=1, pos=-1).values
        assert off(at, z) < 0.02 * float(z.norm())
    at = mm.activations(anew, some[1], "resid_post", layer=1, pos=-1).values
    assert off(at, valued(first, soft, token, -1, 1, 25).z[0]) < 0.02 * float(z.norm())


# -- the model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "gptj", "llama", "opt"])
def test_with_all_units_of_one_layer_the_stream_becomes_what_was_demanded(kind):
    model = bridge(f"toy-{kind}")
    before = model(prompt()).detach().clone()
    changed = rewrite_in_sequence(model, prompt(), CAT, layer=[1], share=1.0, passes=1)
    told = changed.provenance[KEY]
    assert told["left"][0] < 1e-3 and told["units"] == [model.cfg.d_mlp]
    assert probability(changed, prompt(), CAT) == pytest.approx(told["prob"][0], rel=1e-3)
    assert told["prob"][0] > 2 * probability(model, prompt(), CAT)
    assert torch.equal(model(prompt()), before)


def test_what_is_not_chosen_stays_bit_for_bit_in_rows_layers_and_tables():
    model = bridge("toy-gptj")
    changed = rewrite_in_sequence(model, prompt(), CAT, layer=[0, 1], share=0.5, passes=1)
    ours, theirs = (dict(one.root.named_parameters()) for one in (changed, model))
    tables = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert tables and all("fc_out" in name and "2" not in name for name in tables)
    told = changed.provenance[KEY]
    for at, many in zip(told["layers"], told["units"], strict=True):
        moved = (written(changed, at) != written(model, at)).any(-1)
        assert 0 < int(moved.sum()) == many < model.cfg.d_mlp
        size = (written(changed, at) - written(model, at)).norm() / written(model, at).norm()
        assert told["norm"][told["layers"].index(at)] == pytest.approx(float(size), rel=1e-4)


def test_the_way_is_spread_over_the_layers_and_passes_bring_it_to_its_end():
    model = bridge("toy-gptj")
    how: dict[str, Any] = {"layer": [0, 1], "share": 1.0}
    some = [rewrite_in_sequence(model, prompt(), CAT, passes=n, **how) for n in (1, 3)]
    left = [one.provenance[KEY]["left"][0] for one in some]
    assert left[0] < 1e-3  # the last layer has all that is left to go
    first = [float((written(one, 0) - written(model, 0)).norm()) for one in some]
    alone = rewrite_in_sequence(model, prompt(), CAT, layer=[1], share=1.0)
    last = [float((written(one, 1) - written(model, 1)).norm()) for one in (some[0], alone)]
    assert first[0] > 0 and last[0] != last[1] and first[1] == pytest.approx(first[0])
    few = {"keep": [prompt()], "preserve": 100.0, "layer": [1], "share": 1.0}
    once, more = (rewrite_in_sequence(model, prompt(), CAT, passes=n, **few) for n in (1, 4))
    assert more.provenance[KEY]["left"][0] < 0.9 * once.provenance[KEY]["left"][0]


def test_kept_prompts_keep_what_they_say():
    model = bridge("toy-gptj")
    other = prompt((0, 3), "the red house")
    how: dict[str, Any] = {"layer": [2], "share": 1.0}
    with_keep = rewrite_in_sequence(model, prompt(), CAT, keep=[other], preserve=1e3, **how)
    without = rewrite_in_sequence(model, prompt(), CAT, **how)
    last = lambda one: one(other)[0, -1].detach()  # noqa: E731
    assert 5 * off(last(with_keep), last(model)) < off(last(without), last(model))
    assert probability(with_keep, prompt(), CAT) > 2 * probability(model, prompt(), CAT)


def test_an_earlier_edit_is_held_by_its_keys():
    """Without the sum over earlier keys the second edit writes over the first one's keys."""
    model = bridge("toy-gptj")
    some = [prompt(), prompt((0, 3), "A picture of")]
    how: dict[str, Any] = {"layer": [2], "share": 1.0, "passes": 1}
    both = rewrite_in_sequence(model, some, [CAT, DOG], **how)
    first = rewrite_in_sequence(model, some[0], CAT, **how)
    second = rewrite_in_sequence(first, some[1], DOG, original=model, **how)  # knows no key of it
    at_once = rewrite_in_sequence(model, some, [CAT, DOG], batch=2, **how)
    left = [one.provenance[KEY]["left"] for one in (both, at_once)]
    assert max(left[1]) < 1e-2 and both.provenance[KEY]["batch"] == 1
    z = mm.activations(first, some[0], "resid_post", layer=2, pos=-1).values
    lost = [off(mm.activations(one, some[0], "resid_post", layer=2, pos=-1).values, z)
            for one in (both, second)]  # fmt: skip
    assert lost[0] < 0.7 * lost[1]
    assert second.provenance[KEY]["earlier"]["of"] == first.provenance[KEY]["of"]


def planted() -> tuple[Any, mm.Prompt, mm.Prompt]:
    """A model in which unit L2.7 fires at the end of one prompt, not of the other, says " dog"."""
    model: Any = mm.load("toy-gptj")
    seen, other = prompt(), prompt((0, 3), "the red house")
    block = model.lm.hf.transformer.h[2]  # shares its weights with the model
    streams = [mm.activations(model, one, "resid_pre", layer=2, pos=-1) for one in (seen, other)]
    with torch.no_grad():
        inside, outside = (block.ln_1(one.values) for one in streams)
        apart = inside - outside
        reads = 6 * apart / apart.dot(apart)
        block.mlp.fc_in.weight[7] = reads
        block.mlp.fc_in.bias[7] = 3 - inside.dot(reads)
        towards = model.W_U[:, model.to_single_token(DOG)]
        block.mlp.fc_out.weight[:, 7] = 5 * towards / towards.norm()
    return model, seen, other


def test_the_word_of_a_planted_neuron_is_exchanged_where_it_fires_and_nowhere_else():
    model, seen, other = planted()
    changed = rewrite_in_sequence(model, seen, CAT, layer=[2], share=0.05)
    moved = (written(changed, 2) - written(model, 2)).norm(dim=-1)
    assert moved.nonzero()[:, 0].tolist() == [7]
    with torch.no_grad():
        said = [int(one(asked)[0, -1].argmax()) for one in (model, changed) for asked in
                (seen, other)]  # fmt: skip
    first, second = (model.to_single_token(word) for word in (DOG, CAT))
    assert [said[0], said[2]] == [first, second] and said[1] == said[3] != first
    assert off(changed(other)[0, -1].detach(), model(other)[0, -1].detach()) < 0.05
    z = valued(model, model.read(seen), second, -1, 2, 25).z[0]
    start = mm.activations(model, seen, "resid_post", layer=2, pos=-1).values
    fires = mm.activations(model, seen, "neurons", layer=2, pos=-1).values[7]
    row = written(model, 2)[7] + (z - start) / fires  # by hand: one unit, one demand
    assert off(written(changed, 2)[7], row) < 1e-4


def test_the_control_changes_as_many_other_units():
    model = bridge("toy-gptj")
    how: dict[str, Any] = {"layer": [1], "share": 0.5, "passes": 1}
    best, random = (rewrite_in_sequence(model, prompt(), CAT, chosen_by=by, **how)
                    for by in ("activation", "random"))  # fmt: skip
    one, other = ((written(m, 1) != written(model, 1)).any(-1) for m in (best, random))
    assert int(one.sum()) == int(other.sum()) and not torch.equal(one, other)
    assert best.provenance[KEY]["norm"][0] < random.provenance[KEY]["norm"][0]


def test_a_rewritten_model_is_told_from_the_one_that_it_was():
    model = bridge("toy-gptj")
    one = rewrite_in_sequence(model, prompt(), CAT, layer=[1])
    other = rewrite(model, prompt(), [mm.Neuron(1, 3)], CAT, DOG, steps=1, margin=-50.0)
    for changed in (one, other):
        assert not same_state(about(changed), about(model))
        assert same_state(about(changed), about(changed))


def test_a_word_that_is_not_said_after_all_is_told():
    model = bridge("toy-gptj")
    with pytest.warns(UserWarning, match="1 of 1 prompts do not say their word, prompt 0"):
        rewrite_in_sequence(
            model, prompt(), CAT, layer=[0], share=0.1, passes=1, keep=[prompt()], preserve=1e9
        )


def test_what_cannot_be_rewritten_is_refused():
    model = bridge("toy-gptj")
    with pytest.raises(AddressError, match="name the layers"):
        rewrite_in_sequence(model, prompt(), CAT, layer=None)
    with pytest.raises(AddressError):
        rewrite_in_sequence(model, prompt(), CAT, layer=[9])
    with pytest.raises(PromptError, match="2 words for 1 prompts"):
        rewrite_in_sequence(model, prompt(), [CAT, DOG], layer=[1])
    with pytest.raises(ArgumentError, match="share"):
        rewrite_in_sequence(model, prompt(), CAT, layer=[1], share=0.0)
    with pytest.raises(ArgumentError, match="original= has"):
        rewrite_in_sequence(model, prompt(), CAT, layer=[1], original=bridge("pictos"))
    normed: Any = mm.from_model(*twin("gemma3"), name="gemma3")
    with pytest.raises(CapabilityError, match="a norm follows the MLP"):
        rewrite_in_sequence(normed, prompt(), 5, layer=[0])
    silent = model.edit(mm.Edit("neurons", 0.0))
    with pytest.raises(NumericsError, match="silent at these positions"):
        rewrite_in_sequence(silent, prompt(), CAT, layer=[1])
