"""The site: `sphinx-build -W --keep-going docs build/docs`, then open build/docs/index.html.

Nothing is fetched, neither while it is built nor while it is read: no intersphinx, no fonts, no
scripts but its own; plotly.js comes from the plotly wheel, once for all pages.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import mmlens  # noqa: E402

project, author = "mmlens", "mmlens contributors"
version = release = mmlens.__version__
copyright = author

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "results",
    "tables",
    "pages",
    "offline",
]
exclude_patterns = ["_ext", "_static", "**.ipynb_checkpoints"]
smartquotes = False  # " dog" is a word with its space
default_role = "literal"  # docstrings write `code` as Markdown does
suppress_warnings = ["ref.python"]  # two packages have a `Pair`; types in signatures are short

nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, Any] = {}  # would come from elsewhere
myst_heading_anchors = 3
myst_links_external_new_tab = False

napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "mmlens"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["access.js", "figures.js"]
html_copy_source = False
html_show_sphinx = False
_font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_mono = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
html_theme_options = {
    "light_css_variables": {
        "font-stack": _font,
        "font-stack--monospace": _mono,
        "color-brand-primary": "#1d5a99",
        "color-brand-content": "#1d5a99",
    },
    "dark_css_variables": {
        "color-background-primary": "#14181d",
        "color-background-secondary": "#1a2026",
        "color-sidebar-caption-text": "#a4afbc",
        "color-brand-primary": "#7ab8f5",
        "color-brand-content": "#7ab8f5",
    },
}


def plotly_js(app: Any) -> None:
    """The plotly.js of the wheel, as a static file of the site."""
    import plotly

    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    (folder / "plotly.min.js").write_bytes(source.read_bytes())


def setup(app: Any) -> None:
    """Copy plotly.js when the site begins."""
    app.connect("builder-inited", plotly_js)
