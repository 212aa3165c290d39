"""Every notebook runs from top to bottom, and what is committed is light and offline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def warned(cells: list) -> list[str]:
    """What stands in red below the cells: warnings and tracebacks."""
    shown = [one for cell in cells for one in cell.get("outputs", [])]
    red = [one for one in shown if one.get("name") == "stderr" or one["output_type"] == "error"]
    return [str(one.get("text", one.get("ename"))) for one in red]


@every_notebook
def test_a_notebook_runs_from_top_to_bottom_in_two_minutes(path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}
    )
    client.execute()
    assert all("outputs" in cell for cell in notebook.cells if cell.cell_type == "code")
    assert warned(notebook.cells) == []


@every_notebook
def test_every_figure_of_a_notebook_has_a_still_picture_and_every_notebook_a_kernel(path):
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told["metadata"]["kernelspec"]["name"] == "python3"
    shown = [one.get("data", {}) for cell in told["cells"] for one in cell.get("outputs", [])]
    drawn = [data for data in shown if "application/vnd.plotly.v1+json" in data]
    assert all("image/svg+xml" in data for data in drawn)
    assert warned(told["cells"]) == []


def test_what_is_red_in_a_notebook_is_found():
    import nbformat

    told = [{"output_type": "stream", "name": "stderr", "text": "UserWarning: no"},
            {"output_type": "stream", "name": "stdout", "text": "yes"},
            {"output_type": "error", "ename": "ValueError"}]  # fmt: skip
    cell = nbformat.from_dict({"cell_type": "code", "outputs": told})
    assert warned([cell]) == ["UserWarning: no", "ValueError"]


@every_notebook
def test_a_committed_notebook_is_light_and_offline(path):
    assert path.stat().st_size < 1_000_000
    text = path.read_text()
    assert "cdn." not in text
    assert "unpkg" not in text
    assert "widgets" not in json.loads(text)["metadata"]
