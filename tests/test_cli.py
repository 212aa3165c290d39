"""The command line: what it prints and writes, and how it refuses."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import mmlens
from mmlens import families
from mmlens.cli.app import app, main
from mmlens.cli.look import blocks
from mmlens.families import toy

NAME = "toy-gptj-planted"
ROOT = Path(mmlens.__file__).parent.parent
load = cache(families.load)  # every model is made once


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with one picture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(families, "load", load)
    toy.picture().save("white.png")
    return tmp_path


def run(*args: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(args), catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_look_prints_caption_target_and_neurons_and_writes_the_page(here):
    code, out, _ = run("look", "white.png", "--model", NAME, "--neurons", "2")
    assert code == 0
    assert out.startswith("A picture of dog dog")
    assert "Explained: 'dog', the first word that names a thing" in out
    line = next(line for line in out.splitlines() if "L1.5" in line)
    assert "2, 1" in line and "·dog" in line
    assert "·▀··" in out  # row 2, column 1 of four by four
    assert re.search(r"'dog' has probability \d\.\d+, without the first 2 \d\.\d+\.", out)
    assert re.search(r"Page: white\.mmlens\.html, 0\.\d+ MB: (page|words|maps|lens) ", out)
    assert "L1.5" in (here / "white.mmlens.html").read_text(encoding="utf-8")


def test_target_words_and_page_can_be_chosen(here):
    code, out, _ = run(
        "look", "white.png", "--model", NAME, "--caption", " a cat", "--of", "cat",
        "--out", "cat.html", "--neurons", "1",
    )  # fmt: skip
    assert code == 0
    assert "A picture of a cat" in out and "Explained: 'cat'\n" in out
    assert (here / "cat.html").is_file()


def test_explore_reads_pictures_into_a_folder_and_shows_them_without_the_model(here, monkeypatch):
    (here / "pictures").mkdir()
    for i in range(2):
        toy.picture((2, i), seed=i).save(f"pictures/{i}.png")
    args = ("explore", "run", "--neurons", "2")
    code, out, _ = run(*args, "--data", "pictures", "--model", NAME)
    assert code == 0 and "Page: run.mmlens.html of 2 pictures, 0." in out
    page = (here / "run.mmlens.html").read_text(encoding="utf-8")
    assert "L1.5" in page
    code, out, _ = run("look", "white.png", "--model", NAME, "--neurons", "2", "--sweep", "run")
    assert code == 0 and '"tops":{"L' in (here / "white.mmlens.html").read_text(encoding="utf-8")
    monkeypatch.setattr(families, "load", None)
    code, _, _ = run(*args, "--out", "again.html")
    assert code == 0 and (here / "again.html").read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    "args, sentence",
    [
        (["explore", "nothing"], "'nothing' holds no pictures that were read: read some with `mm"),
        (["explore", "run", "--data", "nowhere"], "'nowhere' is neither a data set nor a folder"),
        (["look", "whte.png"], "There is no file 'whte.png'; in its folder: did you mean 'white.p"),
        (["look", "notes.txt"], "'notes.txt' is not a picture that Pillow knows"),
        (["look", "white.png", "--model", "pictoss"], "There is no model 'pictoss': did you mean"),
        (
            ["look", "white.png", "--model", NAME, "--of", "zebra"],
            "' zebra' is 6 tokens here",
        ),
        (["look", "white.png", "--model", NAME, "--of", "cat"], "does not predict 'cat' here"),
        (["look", "white.png", "--out", "no/such/x.html"], "There is no folder 'no/such'"),
        (["audit", "toy-gptt"], "There is no model 'toy-gptt': did you mean 'toy-gptj'"),
    ],
)
def test_what_is_refused_is_refused_in_one_sentence_with_status_2(here, args, sentence):
    (here / "notes.txt").write_text("no picture")
    code, out, err = run(*args)
    assert code == 2 and out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("mmlens: ")]
    assert sentence in line and "Traceback" not in err


def test_a_page_that_cannot_be_written_is_told_in_a_sentence():
    code, _, err = run("look", "white.png", "--model", NAME, "--out", "x" * 300 + ".html")
    assert code == 2 and "cannot be written (File name too long): give another place." in err


def test_debug_shows_the_traceback_wherever_it_stands():
    for args in (["--debug", "look", "no.png"], ["look", "no.png", "--debug"]):
        with pytest.raises(mmlens.MMLensError, match=r"There is no file 'no\.png'"):
            run(*args)


def test_models_lists_every_name_with_a_line():
    code, out, _ = run("models")
    assert code == 0
    for name in mmlens.models():
        line = next(line for line in out.splitlines() if line.split()[:1] == [name])
        assert len(line.split()) > 3


def test_audit_counts_hook_points_by_kind():
    code, out, _ = run("audit", "toy-gptj")
    assert code == 0
    line = next(line for line in out.splitlines() if line.split()[:1] == ["blocks.*.mlp.hook_post"])
    assert line.split()[-4:] == ["3", "3", "3", "3"]
    assert out.splitlines()[-1].startswith("toy-gptj: ")


def test_the_version_is_told_without_loading_anything_heavy():
    code = (
        "import sys; sys.argv = ['mmlens', '--version']\n"
        "from mmlens.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'pandas', 'numpy', 'plotly', 'transformers', 'PIL'} & set(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert out.stdout.splitlines() == [f"mmlens {mmlens.__version__}", "set()"]


def test_results_are_printed_as_json_for_scripts(here):
    code, out, _ = run("look", "white.png", "--model", NAME, "--neurons", "2", "--json")
    told = json.loads(out)
    assert code == 0 and told["explained"].strip() == "dog"
    assert "L1.5" in {row["neuron"] for row in told["neurons"]}
    assert told["probability"] > told["probability_without"]
    assert (here / told["page"]).is_file()
    names = {one["name"] for one in json.loads(run("models", "--json")[1])["names"]}
    assert names == set(mmlens.models())
    rows = json.loads(run("audit", "toy-gptj", "--json")[1])
    assert any(row["name"] == "blocks.0.mlp.hook_post" and row["fires"] for row in rows)


def test_every_command_that_gives_results_has_json_and_every_one_that_loads_a_model_a_device():
    commands = {}
    root = typer.main.get_command(app)
    for name, one in root.commands.items():
        commands |= {f"{name} {n}": c for n, c in getattr(one, "commands", {name: one}).items()}
    options = {name: {opt for p in one.params for opt in p.opts} for name, one in commands.items()}
    assert all("--json" in found for found in options.values()), options
    loads = {name for name, found in options.items() if "--device" in found}
    assert {name.split()[-1] for name in commands} - {name.split()[-1] for name in loads} == {
        "models",
        "fetch",
    }


@pytest.mark.parametrize("columns", ["40", "60", "200"])
def test_a_table_in_a_pipe_or_a_narrow_window_cuts_no_name(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    _, out, _ = run("models")
    for name in mmlens.models():
        line = next(line for line in out.splitlines() if line.split()[:1] == [name])
        assert line.rstrip().endswith(families.describe(name)[-12:]) and "…" not in line
    _, out, _ = run("look", "white.png", "--model", NAME, "--neurons", "2")
    assert "L1.5" in out and "…" not in out


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_help_ends_no_sentence_early_and_breaks_no_name_at_a_hyphen(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    root = typer.main.get_command(app)
    studies = root.commands["reproduce"].commands
    for args, commands in (((), root.commands), (("reproduce",), studies)):
        code, out, _ = run(*args, "--help")
        told = " ".join(out.split())
        assert code == 0 and "..." not in told.split("Commands:")[1]
        for one in commands.values():
            assert " ".join(one.help.split("\n\n")[0].split()) in told


def test_a_default_is_one_name_however_narrow_the_help(monkeypatch):
    for columns in (50, 60, 70):
        monkeypatch.setenv("COLUMNS", str(columns))
        _, out, _ = run("reproduce", "goh", "--help")
        assert re.search(r"\bpictos-clip\b", out)
        _, out, _ = run("train", "--help")
        assert "no-skip-bad]" in out and "\u2011" not in out


def test_a_dotted_name_breaks_between_its_parts_alone():
    from mmlens.cli.printing import broken_at_dots

    name = "vision.blocks.*.attn.hook_attn_scores"
    assert broken_at_dots(name, 60) == name
    lines = broken_at_dots(name, 24).splitlines()
    assert lines == ["vision.blocks.*.attn.", "  hook_attn_scores"]
    assert broken_at_dots("hook_attn_scores", 4) == "hook_attn_scores"


def test_explore_of_one_picture_names_the_command_for_one(here):
    code, _, err = run("explore", "white.png")
    assert code == 2 and "of one picture ask `mmlens look white.png`" in err


def test_a_narrow_terminal_wraps_texts_and_cuts_no_name():
    from rich.console import Console
    from rich.text import Text

    from mmlens.cli.printing import table_of_lines

    table = table_of_lines()
    table.add_column("name", no_wrap=True, min_width=24)
    table.add_column("what it is", overflow="fold")
    table.add_row(Text("toy-gptj-planted-and-more"), Text("a tiny random bridge with a neuron"))
    with Console(width=44, record=True, file=io.StringIO()) as terminal:
        terminal.print(table)
    out = terminal.export_text()
    assert "toy-gptj-planted-and-more" in out and "…" not in out
    assert "".join(out.split()).endswith("withaneuron")


def test_a_model_is_loaded_in_the_dtype_that_was_asked_for():
    from mmlens.cli.loading import loaded

    made = loaded("toy-gptj", "cpu", "float16")
    assert str(next(made.lm.root.parameters()).dtype) == "torch.float16"
    code, _, err = run("look", "white.png", "--dtype", "int3")
    assert code == 2 and "--dtype int3 is none of float32, bfloat16, float16." in err


@pytest.mark.parametrize("into", ["pictures", "pictures/read"])
def test_explore_never_writes_into_the_folder_of_the_pictures(here, into):
    (here / "pictures").mkdir()
    toy.picture().save("pictures/a.png")
    for args in (["--data", "pictures"], []):
        code, _, err = run("explore", into, *args, "--model", NAME)
        if args or into == "pictures":
            assert code == 2 and "is the folder of the pictures, which is left as it is" in err
    assert [one.name for one in (here / "pictures").iterdir()] == ["a.png"]


def test_a_lens_is_fitted_into_a_file_that_look_reads(here):
    (here / "texts.txt").write_text("a dog and a cat\nA picture of a dog on a table\n", "utf-8")
    said = ("fit-lens", NAME, "--texts", "texts.txt", "--steps", "20", "--batch", "16", "--json")
    code, out, _ = run(*said)
    told = json.loads(out)
    assert code == 0 and told["prompts"] == 2 and len(told["about"]["loss"]) == 2
    lens = mmlens.Translators.load(told["lens"])
    wanted = mmlens.tuned_lens(
        mmlens.load(NAME), (here / "texts.txt").read_text("utf-8").splitlines(), steps=20, batch=16
    )
    assert told["about"]["loss"] == pytest.approx(wanted.about["loss"], rel=1e-3)
    assert torch.allclose(lens.matrices, wanted.matrices, atol=1e-3)
    code, out, _ = run("look", "white.png", "--model", NAME, "--through", "lens.safetensors")
    assert code == 0 and "dog" in out
    code, _, err = run("fit-lens", NAME, "--kind", "logit")
    assert code == 2 and err.strip() == "mmlens: --kind logit is none of tuned, jacobian."
    code, _, err = run("fit-lens", NAME, "--texts", "nowhere.txt")
    assert code == 2 and "is no file of texts" in err


def test_an_interruption_says_how_to_go_on(monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["mmlens", "explore", "read", "--data", "my pictures"])
    monkeypatch.setattr("mmlens.datasets.spec.dataset", stop)
    code, _, err = run("explore", "read", "--data", "my pictures")
    assert code == 130
    assert "the same command goes on from there: mmlens explore read --data 'my pictures'" in err
    monkeypatch.setattr("mmlens.values.pictures.open_picture", stop)
    code, _, err = run("look", "white.png")
    assert code == 130 and "mmlens: Stopped before the end." in err


def test_the_shell_can_complete_commands():
    code, out, _ = run("--help")
    assert code == 0 and "--install-completion" in out


def test_python_m_mmlens_is_the_same_command():
    run = subprocess.run(
        [sys.executable, "-m", "mmlens", "look", "no.png"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.returncode == 2 and run.stderr.startswith("mmlens: There is no file 'no.png'")


@pytest.mark.parametrize(
    "grid, lines",
    [
        ([[1, 0], [0, 1]], ["▀▄"]),
        ([[1, 1], [1, 0], [0, 9]], ["··", "·▀"]),
        ([[-1, -2], [-3, -1]], ["··"]),
        ([[0, 0], [0, 0]], ["··"]),
    ],
)
def test_a_map_is_drawn_with_half_blocks(grid, lines):
    assert blocks(np.array(grid, dtype=float)).splitlines() == lines


def test_a_large_map_is_reduced_and_keeps_its_peaks():
    grid = np.zeros((24, 24))
    grid[23, 0] = 1.0
    lines = blocks(grid).splitlines()
    assert len(lines) == 4 and len(lines[0]) == 8
    assert lines[3][0] == "▄" and sum(line.count("·") for line in lines) == 31


def test_a_warning_of_a_command_is_one_line_without_code(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # set back afterwards
    monkeypatch.setattr("mmlens.cli.app.app", lambda: None)
    main()
    assert warnings.formatwarning("frame 1 is read.", UserWarning, "look.py", 7) == (
        "Note: frame 1 is read.\n"
    )
