"""What the built packages hold and say of themselves; the wheel has no tests."""

from __future__ import annotations

import ast
import re
from email import message_from_bytes
from email.message import Message
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from trove_classifiers import classifiers

import mmlens
from mmlens.doctor.tested import EXTRAS

ROOT = Path(__file__).parents[1]


def held(builder: str) -> set[str]:
    """The paths that a builder of hatchling takes, without building."""
    if builder == "sdist":
        from hatchling.builders.sdist import SdistBuilder as Builder
    else:
        from hatchling.builders.wheel import WheelBuilder as Builder
    made = Builder(str(ROOT))
    with made.config.set_build_data({"artifacts": [], "force_include": {}}):
        return {file.distribution_path for file in made.recurse_included_files()}


def test_the_source_archive_holds_what_its_tests_and_docs_read():
    files = held("sdist")
    for folder in ("scenes", "tests", "docs", "notebooks", "scripts", "mmlens/pictos"):
        there = {str(p.relative_to(ROOT)) for p in (ROOT / folder).glob("*") if p.is_file()}
        assert there - files == set() and there, folder
    assert {f for f in files if Path(f).name == "README.md"} == {
        "README.md",
        "training/pictos/README.md",
        "training/pictos_clip/README.md",
        "training/smol/README.md",
    }


def test_a_folder_is_in_the_source_archive_whole_or_not_at_all():
    files = held("sdist")
    folders = {Path(file).parent for file in files} - {Path(".")}
    for folder in folders:
        there = {p for p in (ROOT / folder).glob("*") if p.is_file() and p.suffix != ".pyc"}
        assert {str(p.relative_to(ROOT)) for p in there} - files == set(), folder


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else():
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mmlens").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held("wheel") == there
    for name in ("py.typed", "view/static/attention.js", "data/scowl-60.txt.gz"):
        assert f"mmlens/{name}" in there


# -- what the wheel says of itself -----------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("dist")
    return ZipFile(next(iter(WheelBuilder(str(ROOT)).build(directory=str(folder)))))


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name))


def test_there_is_one_version(metadata):
    assert str(Version(mmlens.__version__)) == mmlens.__version__ == metadata["Version"]
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {mmlens.__version__}\n" in cited


def test_classifiers_exist_and_name_the_pythons_that_are_allowed(metadata):
    named = metadata.get_all("Classifier")
    assert set(named) <= classifiers
    prefix = "Programming Language :: Python :: 3."
    pythons = {name.removeprefix(prefix) for name in named if name.startswith(prefix)}
    allowed = SpecifierSet(metadata["Requires-Python"])
    assert pythons == {f"{minor}" for minor in range(30) if f"3.{minor}.5" in allowed}
    install = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    assert all(f"3.{minor}" in install for minor in pythons)


def test_the_licences_of_all_that_is_bundled_lie_with_the_wheels_own(wheel, metadata):
    here = [ROOT / "LICENSE", *(ROOT / "mmlens").rglob("*LICENSE*")]
    here += (ROOT / "mmlens").rglob("*COPYRIGHT*")
    names = {path.relative_to(ROOT).as_posix() for path in here}
    assert set(metadata.get_all("License-File")) == names and len(names) == 4
    folder = f"mmlens-{mmlens.__version__}.dist-info/licenses"
    for name in names:
        assert wheel.read(f"{folder}/{name}") == (ROOT / name).read_bytes()


def test_the_size_that_the_docs_tell_is_that_of_the_wheel(wheel):
    install = " ".join((ROOT / "docs/install.md").read_text(encoding="utf-8").split())
    told = re.search(r"mmlens itself (\d+) MB.*?the wheel has (\d+) MB", install)
    assert told is not None
    unpacked = sum(info.file_size for info in wheel.infolist()) / 1e6
    packed = Path(str(wheel.filename)).stat().st_size / 1e6
    assert [unpacked, packed] == pytest.approx([float(n) for n in told.groups()], abs=2)


# -- extras ----------------------------------------------------------------------------------------


def extras(metadata: Message) -> dict[str, set[str]]:
    """The packages that each extra brings."""
    found: dict[str, set[str]] = {name: set() for name in metadata.get_all("Provides-Extra", [])}
    for line in metadata.get_all("Requires-Dist", []):
        wanted = Requirement(line)
        for extra, names in found.items():
            if wanted.marker is not None and wanted.marker.evaluate({"extra": extra}):
                names.add(canonicalize_name(wanted.name))
    return found


def optional_imports() -> set[tuple[str, str]]:
    """(package, extra) of every `package(name, extra)` in the code."""
    found = set()
    for path in (ROOT / "mmlens").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "package":
                name, extra, *_ = (
                    re.sub(r"^f?['\"]|['\"]$", "", ast.unparse(a)) for a in call.args
                )
                found.add((name.split(".")[0], extra))
    return found


def test_a_package_that_is_imported_when_needed_is_in_the_extra_that_the_error_names(metadata):
    there, homes, asked = extras(metadata), packages_distributions(), optional_imports()
    assert {("timm", "vision"), ("pycocotools", "coco"), ("accelerate", "train")} <= asked
    for name, extra in asked:
        assert {canonicalize_name(one) for one in homes[name]} & there[extra], (name, extra)


def test_every_extra_is_told_where_one_installs(metadata):
    install = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    names = {
        "vision",
        "train",
        "coco",
        "metrics",
        "vlm",
        "diffusion",
        "gguf",
        "xarray",
        "docs",
        "dev",
    }
    assert set(extras(metadata)) == names
    assert set(re.findall(r"^\|.*`(?:-e )?'\.\[(\w+)\]'`", install, re.MULTILINE)) == names


def test_an_extra_of_the_doctors_table_is_one_of_the_wheel(metadata):
    there = extras(metadata)
    for extra, names in EXTRAS.items():
        assert {canonicalize_name(name) for name in names} <= there[extra]


def test_smolvlms_processor_asks_for_what_the_extra_vlm_brings(metadata, monkeypatch):
    from transformers.models.smolvlm import processing_smolvlm as smolvlm

    assert "num2words" in extras(metadata)["vlm"]
    assert smolvlm.is_num2words_available()
    monkeypatch.setattr(smolvlm, "num2words", None)
    tokenizer = SimpleNamespace(convert_tokens_to_ids=len)
    with pytest.raises(ImportError, match="num2words"):
        smolvlm.SmolVLMProcessor(None, tokenizer, None)
