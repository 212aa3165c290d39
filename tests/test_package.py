"""What the built packages hold: the source archive can run its own tests, the wheel has none."""

from __future__ import annotations

from pathlib import Path

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
    }


def test_a_folder_is_in_the_source_archive_whole_or_not_at_all():
    files = held("sdist")
    folders = {Path(file).parent for file in files} - {Path(".")}
    for folder in folders:
        there = {p for p in (ROOT / folder).glob("*") if p.is_file() and p.suffix != ".pyc"}
        assert {str(p.relative_to(ROOT)) for p in there} - files == set(), folder


def test_the_wheel_holds_the_package_alone_with_its_licences():
    files = held("wheel")
    assert {file.split("/")[0] for file in files} == {"mmlens"}
    for name in ("data/scowl-COPYRIGHT.txt", "pictos/LICENSES.md", "py.typed"):
        assert f"mmlens/{name}" in files
