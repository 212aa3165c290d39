"""Files of other packages give what the formulas of their formats give, computed here once more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import mmlens as mm
from mmlens.values.errors import CheckpointError

D, N = 12, 40


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


X = draw(9, D, seed=5) * 3 + 1
W_ENC, W_DEC = draw(D, N, seed=1), draw(N, D, seed=2) * torch.linspace(0.2, 3, N)[:, None]
B_ENC, B_DEC = draw(N, seed=3), draw(D, seed=4)
THRESHOLD = draw(N, seed=6).abs()
GATED = {"b_gate": draw(N, seed=7), "r_mag": draw(N, seed=8) / 2, "b_mag": draw(N, seed=9)}
PLAIN = {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}


def largest(f: Tensor, k: int) -> Tensor:
    """All but the k largest of each row set to 0, by sorting."""
    return torch.where(f >= f.sort(-1, descending=True).values[..., k - 1 : k], f, 0.0)


def sae_lens(folder: Path, state: dict[str, Tensor], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "sae_weights.safetensors")
    told = {"d_in": D, "d_sae": N, "dtype": "float32", "device": "cpu"} | config
    (folder / "cfg.json").write_text(json.dumps(told))
    return folder


def agree(one: Any, code: Tensor, back: Tensor) -> None:
    assert (code > 0).any() and (code == 0).any()
    assert torch.allclose(one.encode(X), code, rtol=1e-5, atol=1e-5)
    assert torch.allclose(one(X), back, rtol=1e-5, atol=1e-4)


SAELENS: dict[str, tuple[dict[str, Any], dict[str, Tensor], Callable[[Tensor], Tensor]]] = {
    "standard": ({}, PLAIN, lambda x: (x @ W_ENC + B_ENC).relu()),
    "topk": ({"k": 5}, PLAIN, lambda x: largest((x @ W_ENC + B_ENC).relu(), 5)),
    "jumprelu": (
        {}, PLAIN | {"threshold": THRESHOLD},
        lambda x: (x @ W_ENC + B_ENC) * (x @ W_ENC + B_ENC > THRESHOLD)),
    "gated": (
        {}, {k: v for k, v in PLAIN.items() if k != "b_enc"} | GATED,
        lambda x: ((x @ W_ENC + GATED["b_gate"]) > 0)
        * (x @ (W_ENC * GATED["r_mag"].exp()) + GATED["b_mag"]).relu()),
}  # fmt: skip


@pytest.mark.parametrize("minus", [True, False])
@pytest.mark.parametrize("kind", SAELENS)
def test_sae_lens(tmp_path, kind, minus):
    config, state, code = SAELENS[kind]
    meta = {"hook_name": "blocks.3.hook_resid_post", "sae_lens_version": "6.1.0"}
    folder = sae_lens(tmp_path / "sae", state, architecture=kind, apply_b_dec_to_input=minus,
                      normalize_activations="none", metadata=meta, **config)  # fmt: skip
    one = mm.load_dictionary(folder)
    f = code(X - B_DEC if minus else X)
    agree(one, f, f @ W_DEC + B_DEC)
    assert one.at == "blocks.3.hook_resid_post" and one.n_units == N


def test_sae_lens_before_version_6_says_topk_by_its_activation_and_subtracts_by_default(tmp_path):
    folder = sae_lens(tmp_path / "old", PLAIN, hook_point="blocks.{layer}.hook_resid_pre",
                      hook_point_layer=4, activation_fn_str="topk",
                      activation_fn_kwargs={"k": 6})  # fmt: skip
    one = mm.load_dictionary(folder)
    f = largest(((X - B_DEC) @ W_ENC + B_ENC).relu(), 6)
    agree(one, f, f @ W_DEC + B_DEC)
    assert one.at == "blocks.4.hook_resid_pre"


def test_the_k_largest_are_chosen_by_what_they_write_where_norms_are_folded(tmp_path):
    folder = sae_lens(tmp_path / "sae", PLAIN, architecture="topk", k=5,
                      rescale_acts_by_decoder_norm=True)  # fmt: skip
    one = mm.load_dictionary(folder)
    length = W_DEC.norm(dim=-1)
    f = largest((((X - B_DEC) @ W_ENC + B_ENC) * length).relu(), 5)
    agree(one, f, (f / length) @ W_DEC + B_DEC)
    other = largest(((X - B_DEC) @ W_ENC + B_ENC).relu(), 5)
    assert ((other > 0) != (f > 0)).any()
    assert torch.allclose(one.W_dec.norm(dim=-1), torch.ones(N), atol=1e-5)


def test_norms_of_each_activation_are_taken_and_given_back(tmp_path):
    for norm in ("layer_norm", "constant_norm_rescale"):
        folder = sae_lens(tmp_path / norm, PLAIN, normalize_activations=norm)
        if norm == "layer_norm":
            mean = X.mean(-1, keepdim=True)
            spread = ((X - mean).square().sum(-1, keepdim=True) / (D - 1)).sqrt()
            read, back = (X - mean) / (spread + 1e-5), lambda y, s=spread, m=mean: y * s + m
        else:
            size = D**0.5 / X.square().sum(-1, keepdim=True).sqrt()
            read, back = X * size, lambda y, s=size: y / s
        f = ((read - B_DEC) @ W_ENC + B_ENC).relu()
        agree(mm.load_dictionary(folder), f, back(f @ W_DEC + B_DEC))


def test_a_factor_of_all_activations_is_asked_for_and_folded_into_the_weights(tmp_path):
    folder = sae_lens(tmp_path / "sae", PLAIN | {"threshold": THRESHOLD}, architecture="jumprelu",
                      normalize_activations="expected_average_only_in")  # fmt: skip
    with pytest.raises(CheckpointError, match="write scale="):
        mm.load_dictionary(folder)
    pre = (X * 0.25 - B_DEC) @ W_ENC + B_ENC
    f = pre * (pre > THRESHOLD)
    agree(mm.load_dictionary(folder, scale=0.25), f, (f @ W_DEC + B_DEC) / 0.25)


def test_a_finetuned_factor_scales_what_units_write_and_not_their_code(tmp_path):
    factor = draw(N, seed=11).abs() + 0.5
    folder = sae_lens(tmp_path / "sae", PLAIN | {"scaling_factor": factor},
                      finetuning_scaling_factor=True)  # fmt: skip
    f = ((X - B_DEC) @ W_ENC + B_ENC).relu()
    agree(mm.load_dictionary(folder), f, (f * factor) @ W_DEC + B_DEC)
    sae_lens(folder, PLAIN | {"scaling_factor": factor})
    with pytest.raises(CheckpointError, match="finetuning_scaling_factor"):
        mm.load_dictionary(folder)


@pytest.mark.parametrize("kind", ["transcoder", "jumprelu_transcoder", "skip_transcoder"])
def test_transcoders_of_sae_lens(tmp_path, kind):
    wide = 7
    W_dec, b_dec, skip = draw(N, wide, seed=1), draw(wide, seed=2), draw(wide, D, seed=3)
    state = {"W_enc": W_ENC, "W_dec": W_dec, "b_enc": B_ENC, "b_dec": b_dec}
    state |= {"threshold": THRESHOLD} if kind == "jumprelu_transcoder" else {}
    state |= {"W_skip": skip} if kind == "skip_transcoder" else {}
    meta = {"hook_name": "blocks.2.ln2.hook_normalized", "hook_name_out": "blocks.2.hook_mlp_out"}
    folder = sae_lens(tmp_path / "sae", state, architecture=kind, d_out=wide, metadata=meta,
                      apply_b_dec_to_input=False)  # fmt: skip
    pre = X @ W_ENC + B_ENC
    f = pre * (pre > THRESHOLD) if kind == "jumprelu_transcoder" else pre.relu()
    back = f @ W_dec + b_dec + (X @ skip.T if kind == "skip_transcoder" else 0)
    one = mm.load_dictionary(folder)
    agree(one, f, back)
    assert (one.at, one.out) == (meta["hook_name"], meta["hook_name_out"])


def learned(folder: Path, kind: str, state: dict[str, Tensor], **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "ae.pt")
    trainer = {"dict_class": kind, "layer": 8, "lm_name": "pythia",
               "submodule_name": "resid_post_layer_8"} | more  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
    return folder


LINEAR = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "decoder.weight": W_DEC.T}
MINUS = (X - B_DEC) @ W_ENC + B_ENC


def test_dictionary_learning_brings_the_rows_of_an_autoencoder_to_length_1(tmp_path):
    one = mm.load_dictionary(learned(tmp_path / "a", "AutoEncoder", LINEAR | {"bias": B_DEC}))
    length = W_DEC.norm(dim=1)
    f = MINUS.relu() * length
    agree(one, f, MINUS.relu() @ W_DEC + B_DEC)
    assert one.at == "blocks.8.hook_resid_post"


def test_dictionary_learning_without_a_bias_in_front(tmp_path):
    state = LINEAR | {"decoder.bias": B_DEC}
    f = (X @ W_ENC + B_ENC).relu()
    agree(mm.load_dictionary(learned(tmp_path / "a", "AutoEncoderNew", state)), f,
          f @ W_DEC + B_DEC)  # fmt: skip
    state = PLAIN | {"threshold": THRESHOLD}
    f = (X @ W_ENC + B_ENC) * (X @ W_ENC + B_ENC > THRESHOLD)
    agree(mm.load_dictionary(learned(tmp_path / "b", "JumpReluAutoEncoder", state)), f,
          f @ W_DEC + B_DEC)  # fmt: skip


def test_dictionary_learning_gated(tmp_path):
    state = {k: v for k, v in LINEAR.items() if k != "encoder.bias"} | {"decoder_bias": B_DEC}
    state |= {"gate_bias": GATED["b_gate"], "mag_bias": GATED["b_mag"], "r_mag": GATED["r_mag"]}
    read = (X - B_DEC) @ W_ENC
    f = (read + GATED["b_gate"] > 0) * (read * GATED["r_mag"].exp() + GATED["b_mag"]).relu()
    agree(mm.load_dictionary(learned(tmp_path / "a", "GatedAutoEncoder", state)), f,
          f @ W_DEC + B_DEC)  # fmt: skip


def test_dictionary_learning_top_k_and_batch_top_k(tmp_path):
    k = {"k": torch.tensor(5), "b_dec": B_DEC, "threshold": torch.tensor(-1.0)}
    f = largest(MINUS.relu(), 5)
    agree(mm.load_dictionary(learned(tmp_path / "a", "AutoEncoderTopK", LINEAR | k, k=5)), f,
          f @ W_DEC + B_DEC)  # fmt: skip
    f = MINUS * (MINUS > 1.5)
    state = LINEAR | {"b_dec": B_DEC, "threshold": torch.tensor(1.5), "k": torch.tensor(5)}
    agree(mm.load_dictionary(learned(tmp_path / "b", "BatchTopKSAE", state, k=5)), f,
          f @ W_DEC + B_DEC)  # fmt: skip
    state = PLAIN | {"threshold": torch.tensor(1.5), "group_sizes": torch.tensor([10, 30])}
    agree(mm.load_dictionary(learned(tmp_path / "c", "MatryoshkaBatchTopKSAE", state)), f,
          f @ W_DEC + B_DEC)  # fmt: skip
    with pytest.raises(CheckpointError, match="measured"):
        mm.load_dictionary(learned(tmp_path / "b", "BatchTopKSAE", LINEAR | k))
    with pytest.raises(CheckpointError, match="says of k"):
        mm.load_dictionary(learned(tmp_path / "a", "AutoEncoderTopK", LINEAR | k, k=6))


@pytest.mark.parametrize("act", ["relu", "topk", "gated"])
def test_prisma_subtracts_behind_its_norm(tmp_path, act):
    folder = tmp_path / "prisma"
    folder.mkdir()
    state = PLAIN | (GATED if act == "gated" else {})
    torch.save(state, folder / "n_images_520028.pt")
    kind = "gated" if act == "gated" else "standard"
    config = {"architecture": kind, "hook_point_layer": 9, "layer_subtype": "hook_resid_post",
              "activation_fn_str": "topk" if act == "topk" else "relu",
              "activation_fn_kwargs": {"k": 5} if act == "topk" else {},
              "normalize_activations": "layer_norm", "use_patches_only": True,
              "device": {"__type__": "torch.device", "value": "cuda"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    mean, spread = X.mean(-1, keepdim=True), X.std(-1, keepdim=True)
    read = ((X - mean) / (spread + 1e-5) - B_DEC) @ W_ENC
    f = (read + B_ENC).relu()
    f = largest(f, 5) if act == "topk" else f
    if act == "gated":
        f = (read + GATED["b_gate"] > 0) * (read * GATED["r_mag"].exp() + GATED["b_mag"]).relu()
    one = mm.load_dictionary(folder)
    agree(one, f, (f @ W_DEC + B_DEC) * spread + mean)
    assert one.at == "vision.blocks.9.hook_resid_post" and one.about["positions"] == "patches"


def overcomplete(path: Path, **more: Tensor) -> Path:
    rows = W_DEC / W_DEC.norm(dim=1, keepdim=True)
    state = {"encoder.final_block.0.weight": W_ENC.T, "encoder.final_block.0.bias": B_ENC,
             "dictionary._weights": rows, "dictionary.multiplier": torch.tensor(0.3)}  # fmt: skip
    torch.save(state | more, path)
    return path


def test_overcomplete_by_what_the_caller_says_of_its_class(tmp_path):
    path = overcomplete(tmp_path / "sae.pt")
    rows = W_DEC / W_DEC.norm(dim=1, keepdim=True) * torch.tensor(0.3).exp()
    pre = X @ W_ENC + B_ENC
    classes: list[tuple[dict[str, Any], Tensor]] = [
        ({"k": 4}, largest(pre.relu(), 4)),
        ({"threshold": 0.0}, pre.relu()),
        ({"threshold": 1.25}, pre * (pre >= 1.25)),
    ]
    for told, f in classes:
        agree(mm.load_dictionary(path, **told), f, f @ rows)
    with pytest.raises(CheckpointError, match="of which class"):
        mm.load_dictionary(path)
    jumps = draw(N, seed=20)
    path = overcomplete(tmp_path / "jump.pt", thresholds=jumps)
    f = pre.relu() * (pre.relu() >= jumps.exp())
    agree(mm.load_dictionary(path), f, f @ rows)


def test_overcomplete_folds_the_running_statistics_of_a_batch_norm(tmp_path):
    norm = torch.nn.BatchNorm1d(N).eval()
    state = {"weight": draw(N, seed=1), "bias": draw(N, seed=2), "running_mean": draw(N, seed=3),
             "running_var": draw(N, seed=4).abs() + 0.1}  # fmt: skip
    norm.load_state_dict(state, strict=False)
    named = {f"encoder.final_block.1.{name}": value for name, value in state.items()}
    one = mm.load_dictionary(overcomplete(tmp_path / "sae.pt", **named), k=4)
    with torch.no_grad():
        f = largest(norm(X @ W_ENC + B_ENC).relu(), 4)
    assert torch.allclose(one.encode(X), f, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [*SAELENS, "transcoder", "b_in"])
def test_what_is_saved_is_read_back_the_same(tmp_path, kind):
    if kind in SAELENS:
        config, state, _ = SAELENS[kind]
        one = mm.load_dictionary(sae_lens(tmp_path / "a", state, architecture=kind, **config))
    elif kind == "transcoder":
        places: dict[str, Any] = {"at": "blocks.1.hook_mlp_in", "out": "blocks.1.hook_mlp_out"}
        one = mm.Dictionary(W_ENC, draw(N, 7), b_enc=B_ENC, b_dec=draw(7), **places)
    else:  # what is subtracted is not b_dec, and goes into b_enc
        one = mm.Dictionary(
            W_ENC, W_DEC, b_enc=B_ENC, b_dec=B_DEC, b_in=B_DEC * 2, norm="unit_norm"
        )
    again = mm.load_dictionary(mm.save_dictionary(one, tmp_path / "b"))
    assert torch.allclose(again.encode(X), one.encode(X), atol=1e-4)
    assert torch.allclose(again(X), one(X), atol=1e-4)
    assert (again.at, again.out, again.kind) == (one.at, one.out, one.kind)


REFUSED: dict[str, Callable[[Path], Any]] = {
    "architecture='temporal'": lambda p: sae_lens(p, PLAIN, architecture="temporal"),
    "normalize_activations='covariance_whitening'": lambda p: sae_lens(
        p, PLAIN, normalize_activations="covariance_whitening"),
    "activation_fn='tanh-relu'": lambda p: sae_lens(p, PLAIN, activation_fn_str="tanh-relu"),
    "lacks 'threshold'": lambda p: sae_lens(p, PLAIN, architecture="jumprelu"),
    "k=": lambda p: sae_lens(p, PLAIN, architecture="topk", k="x"),
    "does not say its k": lambda p: sae_lens(p, PLAIN, architecture="topk"),
    "trainer.dict_class='IdentityDict'": lambda p: learned(p, "IdentityDict", {}),
    "lacks 'bias'": lambda p: learned(p, "AutoEncoder", LINEAR),
    "which is no dictionary": lambda p: p.mkdir() or p,
    "a pickle that holds more than tensors": lambda p: learned(p, "AutoEncoder", {"a": Path("x")}),  # type: ignore
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_not_read_is_refused_in_a_sentence(tmp_path, said):
    with pytest.raises(CheckpointError) as error:
        mm.load_dictionary(REFUSED[said](tmp_path / "sae"))
    assert said in str(error.value)
