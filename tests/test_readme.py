"""What the README shows is what happens: its Python runs, and its captions are the model's own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE))


def shown(code: str) -> dict[str, str]:
    """Each expression with the text that its comment says it gives."""
    said = re.findall(r"^(\S.*?)  # ('.*')$", code, re.MULTILINE)
    return {expression: ast.literal_eval(text) for expression, text in said}


def test_the_first_cells_run_and_say_what_the_readme_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(compile(CODE, "README.md", "exec"), names)
    promised = shown(CODE)
    assert promised
    for expression, text in promised.items():
        assert eval(expression, names) == text, expression


def test_pictures_and_pages_that_the_readme_names_are_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README) + re.findall(
        r"scenes/\S+\.png", README
    )
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link
    Image.open(ROOT / "docs/look.png").verify()
