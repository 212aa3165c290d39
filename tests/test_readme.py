"""What the README names is there; its Python is run with that of all pages, in test_docs.py."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_pictures_and_pages_that_the_readme_names_are_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README) + re.findall(
        r"scenes/\S+\.png", README
    )
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link
    Image.open(ROOT / "docs/look.png").verify()
