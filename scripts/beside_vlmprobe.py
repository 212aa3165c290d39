"""Do mmlens and vlmprobe give the same numbers on the same model? Tables in docs/vlmprobe.md.

    python -m venv beside && beside/bin/pip install "vlmprobe[transformers]==1.0.1"
    python scripts/beside_vlmprobe.py --python beside/bin/python [--print]

vlmprobe's adapters take transformers 5.3 alone, TransformerLens 5.9 or later, so each has its own
environment: this process has mmlens, makes a small LLaVA with random weights, saves it, and asks;
a second process (this file again, with `--theirs`) opens the same folder and asks vlmprobe. Both
write what each question answered and what it cost: CPU seconds on one thread, medians of rounds,
as a multiple of one forward pass of the same model in the same process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "vlmprobe.md"
BEGIN, END = "<!-- table: python scripts/beside_vlmprobe.py -->", "<!-- end -->"
ROUNDS, NEW, LAYER, WORD, OTHER = 3, 12, 2, 21, 34
"""Rounds that are timed; tokens that are written; the layer that is steered and read by another
prompt; ids of the word that is explained, and of another."""
Answers = dict[str, Callable[[], torch.Tensor]]


def timed(answers: Answers) -> dict[str, tuple[torch.Tensor, float]]:
    """What each question answers, and the median of its CPU seconds over interleaved rounds."""
    found = {name: ask() for name, ask in answers.items()}
    spent: dict[str, list[float]] = {name: [] for name in answers}
    for _ in range(ROUNDS):
        for name, ask in answers.items():
            began = time.process_time()
            ask()
            spent[name].append(time.process_time() - began)
    return {name: (found[name], statistics.median(spent[name])) for name in answers}


def renamed(state: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Weights under the names of the older transformers, whose encoder has one more module."""
    own = set(model.state_dict())
    deeper = {name: name.replace("vision_tower.", "vision_tower.vision_model.") for name in state}
    return {name if name in own else deeper[name]: value for name, value in state.items()}


def imported(folder: Path) -> Any:
    """The dictionary of SAELens' files, as vlmprobe reads it; the binding is its own record."""
    from vlm_probing.sae import importers  # pyright: ignore[reportMissingImports]

    ids = ("model_id", "tokenizer_id", "preprocessing_id", "calibration_id")
    module = f"model.language_model.layers.{LAYER + 1}"
    hook = {"module": module, "kind": "input", "selector": 0, "tensor_slice": None}
    binding = {**dict.fromkeys(ids, "twin"), "site": f"residual.{LAYER}", "layer": LAYER,
               "hook": hook, "backend_hook_name": f"blocks.{LAYER}.hook_resid_post"}  # fmt: skip
    file = folder / "sae_weights.safetensors"
    return importers.import_checkpoint(source_format="saelens", path=file, binding=binding)


def theirs(folder: Path) -> None:
    """vlmprobe's answers, into theirs.pt of the folder."""
    import transformers as hf
    import vlmprobe  # pyright: ignore[reportMissingImports]
    from vlm_probing.metrics import TokenMargin  # pyright: ignore[reportMissingImports]

    config = hf.LlavaConfig.from_pretrained(folder, attn_implementation="eager")
    model = hf.LlavaForConditionalGeneration(config)
    model.load_state_dict(renamed(torch.load(folder / "weights.pt"), model))
    probe = vlmprobe.Prober(model.eval())
    asked = torch.load(folder / "asked.pt")
    clean, corrupt, words = asked["clean"], asked["corrupt"], asked["words"]
    every = list(range(asked["layers"]))
    margin = TokenMargin(WORD, OTHER)

    def logit(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, -1, WORD]

    def lens(**how: Any) -> torch.Tensor:
        return probe.lens.logit(**how).run(clean).tensors["logits"]

    def jacobian() -> torch.Tensor:
        fitted = probe.lens.jacobian(layers=every[:-1], tokens="all")
        return fitted.fit(clean, skip_first=0, exclude_last=False).run(clean).tensors["logits"]

    def attention(name: str, key: str, **how: Any) -> torch.Tensor:
        asks = {} if name == "rollout" else {"metric": logit}
        return getattr(probe.attention, name)(**how).run(clean, **asks).tensors[key]

    def causal(name: str, key: str, on: Any = clean, extra: Any = None, **how: Any) -> torch.Tensor:
        made = getattr(probe.causal, name)(**how)
        return made.run(on, metric=margin, **(extra or {})).tensors[key]

    def scope() -> torch.Tensor:
        at = {"source_position": asked["patch"], "target_position": words["input_ids"].shape[1] - 1}
        made = probe.lens.patchscope(layers=[LAYER], target_layer=LAYER, **at)
        return made.run(clean, target_inputs=words).tensors["logits"][0, 0, -1]

    def written() -> torch.Tensor:
        made = probe.causal.steer(layers=[LAYER], tokens="all", strength=1.0, joint=True)
        ids = made.generate(clean, direction=asked["direction"], max_new_tokens=NEW)
        return ids.tensors["generated_ids"][0].float()

    def code() -> torch.Tensor:
        return sae.encode(asked["rows"]).detach()

    sae = imported(folder / "sae")
    pair = {"extra": {"source": clean}, "on": corrupt}
    steered = {"extra": {"direction": asked["direction"]}, "tokens": "all", "strength": 1.0}
    answers: Answers = {
        "forward pass": lambda: probe._run(clean).logits[0, -1],
        "logit lens": lambda: lens(tokens="all"),
        "nearest input embeddings": lambda: (
            probe.lens.embed(tokens="visual").run(clean, top_k=5).tensors["similarities"][0]
        ),
        "Jacobian lens, fitted and read": jacobian,
        "Patchscope": scope,
        "attention patterns": lambda: (
            probe.attention.profile(include_attention=True).run(clean).tensors["attention"][:, 0]
        ),
        "rollout": lambda: attention("rollout", "rollout")[0, -1],
        "Chefer's relevance": lambda: attention("relevance", "relevance")[0, -1],
        "Grad-CAM": lambda: attention("grad_cam", "cam", layers=[every[-1]], keys="visual")[
            0, 0, -1
        ][asked["seen"]],
        "logits by head": lambda: (
            probe.attention.head_logits().run(clean).tensors["head_logits"][:, 0, :, -1, WORD]
        ),
        "patching, by layer": lambda: causal(
            "patch", "intervention_score", tokens="visual", **pair
        )[:, 0],
        "attribution patching": lambda: causal("attribute", "token_scores", tokens="all", **pair)[
            :, 0
        ],
        "knockout, by layer": lambda: causal(
            "knockout", "intervention_score", queries="last_prompt", keys="visual"
        )[:, 0],
        "steering, by layer": lambda: causal("steer", "intervention_score", **steered)[:, 0],
        "twelve tokens, steered": written,
        "code of a SAELens file": code,
    }
    torch.save(timed(answers), folder / "theirs.pt")


def twin() -> tuple[Any, Any]:
    """A LLaVA of 6 layers with random weights that matter, and its processor."""
    sys.path.insert(0, str(ROOT / "tests"))
    import native_twins as twins  # pyright: ignore[reportMissingImports]
    import transformers as hf

    torch.manual_seed(0)
    eyes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
            "num_attention_heads": 4, "image_size": 64, "patch_size": 8}  # fmt: skip
    size = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6,
            "num_attention_heads": 8, "num_key_value_heads": 4}  # fmt: skip
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**eyes),
        text_config=hf.LlamaConfig(**{**twins.language(), **size}),
        image_token_index=twins.token("<image>"), vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    pixels = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(**pixels), twins.tokenizer(), chat_template=twins.LLAVA_CHAT
    )
    return twins.awake(hf.LlavaForConditionalGeneration(config), 0.08), processor


def ours(folder: Path) -> dict[str, tuple[torch.Tensor, float]]:
    """mmlens' answers; writes the model and what is asked of it into the folder."""
    import mmlens as mm
    from mmlens import patching, relevance

    whole, processor = twin()
    from native_twins import photo  # pyright: ignore[reportMissingImports]

    whole.config.save_pretrained(folder)
    torch.save(whole.state_dict(), folder / "weights.pt")
    model = mm.from_model(whole, processor, name="llava twin")
    clean, corrupt = (mm.Prompt(photo(seed=seed), "A picture of") for seed in (0, 1))
    soft = model.read(clean)
    labels = soft.labels[0]
    seen = [at for at, label in enumerate(labels) if isinstance(label, mm.Patch)]
    patch = seen[0]
    target = "A picture of a dog"
    direction = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    read = model.prompt_reader.inputs
    asked = {"clean": dict(read(clean)), "corrupt": dict(read(corrupt)), "patch": patch,
             "words": {"input_ids": model.read(target).ids}, "layers": model.cfg.n_layers,
             "direction": direction, "seen": seen,
             "rows": torch.randn(64, model.cfg.d_model)}  # fmt: skip
    torch.save(asked, folder / "asked.pt")
    reads = torch.randn(model.cfg.d_model, 512, generator=torch.Generator().manual_seed(1)) * 0.1
    dictionary = mm.Dictionary(reads, reads.T.clone(), k=8, at=f"blocks.{LAYER}.hook_resid_post")
    mm.save_dictionary(dictionary, folder / "sae")
    words = list(range(whole.config.text_config.vocab_size))
    here: dict[str, Any] = {"of": WORD, "after": ""}
    pair, metric = (
        patching.Pair(clean, corrupt),
        patching.metrics.logit_difference(model, WORD, OTHER),
    )

    def lens(**how: Any) -> torch.Tensor:
        return mm.logit_lens(model, clean, words, quantity="logit", **how).values

    def jacobian() -> torch.Tensor:
        fitted = mm.jacobian_lens(model, [clean], batch=32)
        return lens(through=fitted, layer=list(range(model.cfg.n_layers - 1)))

    def scope() -> torch.Tensor:
        at: dict[str, Any] = {"layer": LAYER, "pos": labels[patch], "into": target}
        return mm.patchscope(model, clean, words, quantity="logit", **at).values[0, 0]

    def added(layer: int) -> Any:
        return model.edit(patching.steer("resid_post", direction, layer=layer))

    def steered() -> torch.Tensor:
        numbers = [metric(added(at)(clean)[0, -1]) for at in range(model.cfg.n_layers)]
        return torch.stack(numbers)

    def written() -> torch.Tensor:
        edited = model.edit(patching.steer("resid_post", direction, layer=LAYER))
        ids = edited.generate(clean, max_new_tokens=NEW, return_type="tokens")
        return ids[0, -NEW:].float()

    def knocked() -> torch.Tensor:
        route = {"picture": (mm.Patch, -1)}
        return patching.knockouts(model, clean, metric, route, window=1, progress=False).values[0]

    quiet: dict[str, Any] = {"progress": False}
    answers: Answers = {
        "forward pass": lambda: model(clean)[0, -1],
        "logit lens": lens,
        "nearest input embeddings": lambda: torch.tensor(
            mm.nearest_tokens(model, clean, 5, pos=mm.Patch)["cosine"].to_numpy()
        ).reshape(-1, 5),
        "Jacobian lens, fitted and read": jacobian,
        "Patchscope": scope,
        "attention patterns": lambda: patching.attention(model, clean).values,
        "rollout": lambda: relevance.rollout(model, clean).values,
        "Chefer's relevance": lambda: relevance.chefer(model, clean, **here).values,
        "Grad-CAM": lambda: relevance.grad_cam(model, clean, **here).values,
        "logits by head": lambda: mm.patching.direct_logits(model, clean, WORD, by="head").values,
        "patching, by layer": lambda: (
            patching.patch(
                model, pair, metric, "resid_post", by="layer", pos=mm.Patch, **quiet
            ).values
        ),
        "attribution patching": lambda: (
            patching.attribution_patching(model, pair, metric, "resid_post", **quiet).values
        ),
        "knockout, by layer": knocked,
        "steering, by layer": steered,
        "twelve tokens, steered": written,
        "code of a SAELens file": lambda: dictionary.encode(asked["rows"]),
    }
    with torch.no_grad():
        answers["forward pass"]()
    return timed(answers)


def compared(own: Any, other: Any) -> list[dict[str, Any]]:
    """A row per question: the largest difference as a share of the largest number, and costs."""
    rows = []
    passes = own["forward pass"][1], other["forward pass"][1]
    for name, (value, seconds) in own.items():
        rival, spent = other[name]
        a, b = value.detach().double().flatten(), rival.detach().double().flatten()
        far = float((a - b).abs().max() / b.abs().max())
        rows.append({"question": name, "difference": far, "largest": float(b.abs().max()),
                     "ours": seconds / passes[0], "theirs": spent / passes[1],
                     "seconds": [seconds, spent]})  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| question | largest difference | mmlens, passes | vlmprobe, passes |",
             "|---|---|---|---|"]  # fmt: skip
    for row in rows:
        far = row["difference"]
        said = f"{far:.0e}" if far < 1e-2 else "another quantity"
        said = "none" if far == 0 else said
        lines.append(f"| {row['question']} | {said} | {row['ours']:.1f} | {row['theirs']:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Ask both, compare, and write the table into the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--python", help="the interpreter of the environment that has vlmprobe")
    options.add_argument("--theirs", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--print", action="store_true", help="show the table and write nothing")
    given = options.parse_args()
    torch.set_num_threads(1)
    if given.theirs:
        theirs(given.theirs)
        return
    from page_part import write_between  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as folder:
        own = ours(Path(folder))
        again = [given.python, __file__, "--theirs", folder]
        subprocess.run(again, check=True)
        rows = compared(own, torch.load(Path(folder) / "theirs.pt"))
    print(json.dumps(rows, indent=1))
    print(table(rows))
    if not given.print:
        write_between(PAGE, BEGIN, END, table(rows))


if __name__ == "__main__":
    main()
