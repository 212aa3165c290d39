"""Sharing a projection: it is small and, with the two public frozen parts, sufficient.

    push_projection(model, "me/vit-to-gpt2")
    model = from_parts(vision=..., projection=pull_projection("me/vit-to-gpt2", "v1"), lm=...)

The upload has projection.safetensors, a bridge.json that names the two parts, and a card.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from mmlens.checkpoints.bridge_json import read_json
from mmlens.checkpoints.folder import describe
from mmlens.checkpoints.weights import linear_from_state, read_state, save_tensors
from mmlens.values.errors import CheckpointError, ModelError
from mmlens.values.whole_files import replacing_files

_CARD = """---
library_name: mmlens
tags: [mmlens, interpretability, vision-language]
---
# {name}

A linear projection from `{vision}` features ({d_in}) to soft prompts of `{lm}` ({d_out}), for
[mmlens](https://pypi.org/project/mmlens):

    from mmlens import from_parts
    from mmlens.checkpoints.hub import pull_projection

    model = from_parts(vision=..., projection=pull_projection("{repo}"), lm=...)
"""


def push_projection(
    model: Any, repo_id: str, *, revision: str | None = None, private: bool = False, api: Any = None
) -> str:
    """Uploads a model's projection; returns the address of the commit.

    Args:
        model: a HookedVLM.
        repo_id: "owner/name" on the Hugging Face Hub; created if it does not exist.
        revision: branch to write to.
        private: whether a new repository is private.
        api: a `huggingface_hub.HfApi` (with a token), or None for the logged-in user's.
    """
    spec = describe(model)
    source = model.provenance
    for part in ("vision", "lm"):
        spec[part]["hub"] = str(source.get(part, spec[part]["class"]))
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    with tempfile.TemporaryDirectory() as folder:
        with replacing_files(folder, last="bridge.json") as root:
            save_tensors(model.projection, root / "projection.safetensors")
            told = json.dumps(spec, indent=2) + "\n"
            (root / "bridge.json").write_text(told, encoding="utf-8")
            card = _CARD.format(
                name=model.name,
                repo=repo_id,
                vision=spec["vision"]["hub"],
                lm=spec["lm"]["hub"],
                d_in=spec["projection"]["d_in"],
                d_out=spec["projection"]["d_out"],
            )
            (root / "README.md").write_text(card, encoding="utf-8")
        api.create_repo(repo_id, private=private, exist_ok=True)
        done = api.upload_folder(
            folder_path=folder,
            repo_id=repo_id,
            revision=revision,
            commit_message=f"Projection of {model.name}",
        )
    return str(getattr(done, "commit_url", done))


def pull_projection(repo_id: str, revision: str | None = None, *, api: Any = None) -> nn.Linear:
    """A projection that `push_projection` uploaded, in float32.

    Args:
        repo_id: "owner/name".
        revision: branch, tag or commit; give a commit for a reproducible result.
        api: a `huggingface_hub.HfApi`, or None.
    """
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    try:
        weights, described = (
            api.hf_hub_download(repo_id, name, revision=revision)
            for name in ("projection.safetensors", "bridge.json")
        )
    except Exception as error:  # the hub raises many exception types
        at = f" at {revision}" if revision else ""
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"There is no projection {repo_id!r}{at} on the hub: {reason}") from error
    linear = linear_from_state(read_state(weights), repr(repo_id))
    said = read_json(Path(described)).get("projection")
    said = said if isinstance(said, dict) else {}
    if (said.get("d_in"), said.get("d_out")) != (linear.in_features, linear.out_features):
        raise CheckpointError(
            f"{repo_id!r} says {said.get('d_in')} -> {said.get('d_out')}, but its weights are "
            f"{linear.in_features} -> {linear.out_features}."
        )
    return linear
