"""Errors, one sentence each: what was asked, what there is, what to write instead.

Every error that mmlens raises on purpose is a `MMLensError`. The subclasses also inherit from the
built-in exception that a caller would expect, so `except ValueError` keeps working.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

_LONGEST = 400
"""Characters at each end of a message that quotes something of several lines."""


class MMLensError(Exception):
    """Base class of every error that mmlens raises on purpose; its message is one line."""

    def __str__(self) -> str:  # KeyError would print the repr of its message
        told = str(self.args[0]) if self.args else ""
        if "\n" not in told.strip():
            return told
        told = " ".join(told.split())  # a table, a tensor: its lines in one, and not all of them
        return told if len(told) < 2 * _LONGEST else f"{told[:_LONGEST]} ... {told[-_LONGEST:]}"


class PictureError(MMLensError, ValueError):
    """A picture cannot be read, or is not a picture."""


class PromptError(MMLensError, ValueError):
    """A prompt is empty, has no picture where one is needed, or does not fit the model."""


class TargetError(MMLensError, ValueError):
    """A word to explain is not exactly one token of the model."""


class AddressError(MMLensError, KeyError):
    """A layer, unit, position, axis or label does not exist."""


class SiteError(MMLensError, KeyError):
    """A site or hook name does not exist, or is dead on this model."""


class ArgumentError(MMLensError, ValueError, TypeError):
    """An argument is a value, or of a type, that the function does not take."""


class CapabilityError(MMLensError, RuntimeError):
    """This model cannot do what was asked (measured by the probe when it was wrapped)."""


class CheckpointError(MMLensError, ValueError):
    """A checkpoint is missing, unsafe, or of the wrong shape."""


class ModelError(MMLensError, KeyError):
    """A model or family of that name does not exist."""


class NumericsError(MMLensError, ArithmeticError):
    """A number is NaN or infinite, and results based on it would be wrong."""


class WriteError(MMLensError, OSError):
    """A file or folder cannot be written."""


@contextmanager
def writing(path: object) -> Iterator[None]:
    """Within this context `path` is written.

    Raises:
        WriteError: the system refuses; the error gives its reason.
    """
    try:
        yield
    except WriteError:  # it names the path already
        raise
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(
            f"{str(path)!r} cannot be written ({reason}): give another place."
        ) from error


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """A phrase naming the closest known names: `did you mean 'a', 'b'?`, or all of a short list."""
    names = [str(k) for k in known]
    close = get_close_matches(str(name), names, n=n, cutoff=0.5)
    if close:
        return f"did you mean {', '.join(repr(c) for c in close)}?"
    shown = ", ".join(repr(k) for k in names[:8])
    return f"there is {shown}{', ...' if len(names) > 8 else ''}"


def reason(error: BaseException) -> str:
    """The first line of an error's message, as the end of a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[:2]) if lines and lines[0].endswith(":") else (lines or [""])[0]
    return (said or type(error).__name__).rstrip(".") + "."
