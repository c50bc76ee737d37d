"""Settings of Sphinx: ``make docs``. Nothing here needs a network, and neither do the built pages."""

from __future__ import annotations

import logging
import os
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_sphinx"))

# What the kernels that run the pages inherit: how figures look, and one thread for each library.
os.environ["MATPLOTLIBRC"] = str(HERE / "_sphinx")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of this environment, not one of the user's
# Nor the user's IPython. Kernels and their client have much to say that is no trouble of a page.
os.environ["IPYTHONDIR"] = str(HERE.parent / "build" / "docs" / "ipython")
_profile = Path(os.environ["IPYTHONDIR"], "profile_default")
_profile.mkdir(parents=True, exist_ok=True)
(_profile / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 'ERROR'\n")
logging.getLogger("traitlets").setLevel(logging.WARNING)

project = "jepa_ode"
author = "the jepa_ode developers"
project_copyright = author
with (HERE.parent / "pyproject.toml").open("rb") as _file:
    version = release = tomllib.load(_file)["project"]["version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinxarg.ext",
    "experiment_list",
    "mathml",
    "names",
    "theory_links",
]
exclude_patterns = ["_sphinx", "tables"]
nitpicky = True
nitpick_ignore = [("py:obj", "concurrent.futures"), ("py:class", "collections.abc.Callable")]  # of Python's own library
language = "en"

# --- pages ------------------------------------------------------------------------------------------------------------

# A page is plain Markdown, so that it reads well in the repository too; its ```python blocks are run at build.
nb_custom_formats = {".md": ["plain_pages.read", {}, False]}
nb_execution_mode = "auto"
nb_output_stderr = "warn"  # what a page writes there is a warning of the build
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
highlight_language = "text"

# --- reference --------------------------------------------------------------------------------------------------------

default_role = "autolink"
autodoc_typehints = "none"  # the sections of the docstrings tell types and shapes
autodoc_member_order = "bysource"
autosummary_generate = False
numpydoc_show_class_members = False
python_maximum_signature_line_length = 100

# --- looks ------------------------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = f"jepa_ode {release}"
html_math_renderer = "mathml"
html_static_path = ["_sphinx/static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False
