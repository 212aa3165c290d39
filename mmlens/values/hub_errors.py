"""Errors for a model, tokenizer or encoder that is neither in a folder nor on the hub."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmlens.values.errors import CheckpointError, ModelError, nearest, reason


def unfound(what: str, source: str, error: Exception, known: Iterable[str]) -> Exception:
    """The error to raise for a part that could not be loaded, from a folder or from the hub.

    Args:
        what: "tokenizer", "language model", ...
        source: the folder or hub id that was asked for.
        error: the exception that loading raised.
        known: names of which the error lists the nearest.
    """
    place = Path(source).expanduser()
    if place.is_dir():
        files = " (tokenizer.json, tokenizer_config.json)" if what == "tokenizer" else ""
        return CheckpointError(f"The folder {source!r} holds no {what}{files}: {reason(error)}")
    if place.is_file():
        return CheckpointError(f"{source!r} is a file: give the folder that holds the {what}.")
    names = list(known)
    told = why(error)
    if source in names:
        return ModelError(
            f"The {what} {source!r} could not be fetched ({told}): load it once where there is a"
            " network, or give a folder that holds it."
        )
    return ModelError(
        f"There is no {what} {source!r}, neither a folder here nor a model that the Hugging Face "
        f"Hub gave us ({told}): {nearest(source, names)}"
    )


def why(error: BaseException) -> str:
    """Why the hub gave no file: its last reason in one short phrase."""
    from huggingface_hub import constants

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    if constants.HF_HUB_OFFLINE or "OfflineModeIsEnabled" in kinds:
        return "offline: HF_HUB_OFFLINE is set, and it is not among the files kept here"
    if "GatedRepoError" in kinds:
        return "the hub asks for a login with access to it"
    if kinds & {"RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError"}:
        return "the hub has none of that name"
    if kinds & {"LocalEntryNotFoundError", "ConnectionError", "ConnectError", "TransportError"}:
        return "the hub cannot be reached from here"
    return reason(error)
