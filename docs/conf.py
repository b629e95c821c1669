"""How Sphinx builds the documentation: `sphinx-build -W -n docs build/docs`, without a network."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "extensions"), str(Path(__file__).parents[1])]

import cntk_bench  # noqa: E402

project = "cntk-bench"
author = "The cntk-bench developers"
release = version = cntk_bench.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc", "mathml", "generated", "repository"]

# Markdown. Headings get anchors, so that pages can link to sections of each other.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["extensions"]
smartquotes = False  # otherwise `--set` would become a dash and "set"

# Docstrings follow numpydoc and give types, shapes and units in words, so signatures need not show them.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
python_use_unqualified_type_names = True
nitpicky = True
# References without a target: private base classes, and a default that numpydoc takes for a class.
nitpick_ignore_regex = [("py:class", r"cntk_bench\.estimators\._.*"), ("py:class", r"sklearn\..*")]

# Notebooks are committed and shown without outputs; `-D nb_execution_mode=force` runs them.
nb_execution_mode = "off"
nb_execution_timeout = 600  # seconds for each cell
nb_execution_raise_on_error = True
nb_merge_streams = True  # the output of several prints in a cell becomes one block

html_theme = "furo"
html_title = f"cntk-bench {release}"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = html_show_copyright = False
html_math_renderer = "mathml"
# The theme's accent colour: its contrast with the light and the dark background is at least 4.5 : 1.
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5a8a", "color-brand-content": "#0b5a8a"},
    "dark_css_variables": {"color-brand-primary": "#7cc4f0", "color-brand-content": "#7cc4f0"},
}
