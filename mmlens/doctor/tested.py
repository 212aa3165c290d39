"""The versions that the tests run with: the lowest that mmlens allows and the newest there were.

The tests are run twice, with both resolutions of the dependencies. A test holds the first column
equal to what the lowest resolution installs; the second column is brought up to date by hand when
the newest resolution has passed.
"""

from __future__ import annotations

TESTED: dict[str, tuple[str, str]] = {
    "torch": ("2.6.0", "2.15.0"),
    "transformers": ("5.9.0", "5.24.0"),
    "transformer-lens": ("3.9.0", "4.3.0"),
    "safetensors": ("0.8.0", "0.8.0"),
    "huggingface-hub": ("1.32.0", "2.4.0"),
    "numpy": ("2.0.0", "2.4.6"),
    "pandas": ("2.2.2", "3.1.1"),
    "scipy": ("1.13.0", "1.17.1"),
    "pyarrow": ("24.0.0", "26.0.1"),
    "plotly": ("6.0.0", "7.1.0"),
    "circuitsvis": ("1.43.3", "1.43.3"),
    "pillow": ("11.0.0", "13.0.0"),
    "resvg-py": ("0.5.0", "0.5.0"),
    "typer": ("0.16.0", "0.29.2"),
    "rich": ("13.0.0", "15.0.0"),
    "pyyaml": ("6.0.2", "6.0.4"),
    "jaxtyping": ("0.3.0", "0.3.11"),
    "torchvision": ("0.21.0", "0.29.2"),
    "open_clip_torch": ("3.3.0", "3.3.0"),
    "timm": ("1.0.17", "1.0.31"),
    "accelerate": ("1.10.0", "1.15.0"),
    "datasets": ("5.2.0", "5.2.0"),
    "webdataset": ("1.0.2", "1.0.2"),
    "pycocotools": ("2.0.8", "2.0.11"),
    "torchmetrics": ("1.9.0", "1.9.0"),
    "num2words": ("0.5.14", "0.5.14"),
    "diffusers": ("0.42.1", "0.42.1"),
    "gguf": ("0.17.0", "0.19.0"),
}
"""Package: (lowest, newest)."""

EXTRAS = {
    "vision": ("torchvision", "open_clip_torch", "timm"),
    "train": ("accelerate", "datasets", "webdataset"),
    "coco": ("pycocotools",),
    "metrics": ("torchmetrics",),
    "vlm": ("num2words",),
    "diffusion": ("diffusers",),
    "gguf": ("gguf",),
}
"""Which of them come with an extra only; `datasets` comes with transformer-lens, too."""
