"""How Sphinx makes the site of what docs/site/assemble.py lays out (make docs)."""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from docstrings import as_rst  # beside this file, where assemble.py puts it too

# Notebooks find the commands of this environment, and their threads wait without a core.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

project = "offramp"
author = "The offramp maintainers"
release = metadata.version("offramp")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["jupyter_execute"]
html_theme = "furo"
html_title = f"offramp {release}"
html_show_sphinx = html_show_copyright = False
html_copy_source = False
html_theme_options = {"source_repository": "", "navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["site.css"]
smartquotes = False  # docstrings have code in plain words, such as {"backbone": "kept"}, to be copied
default_role = "code"

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
suppress_warnings = ["myst.header"]  # a page may begin below its first heading

nb_execution_mode = "force"
nb_execution_in_temp = True  # each notebook in a folder of its own
nb_execution_timeout = 1800  # seconds a cell, on a machine that does much else
nb_execution_raise_on_error = True

napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes in a list, beside the members that autodoc shows
napoleon_use_param = False  # types stand in the signature
napoleon_use_rtype = False

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 90


def setup(app):
    from jupyter_cache.executors import utils

    # What a command prints comes in pieces, which are one text.
    utils.executenb = partial(utils.executenb, coalesce_streams=True)
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before napoleon's
    app.connect("build-finished", _readable)


def _docstring(*event):
    lines = event[-1]
    lines[:] = as_rst(lines)


def _readable(app, exception):
    """Three things of Sphinx's that readers of a screen stumble over: captions of the contents are
    headings without a level, parameters of a long signature are definitions without terms, and what
    scrolls sideways on a phone cannot be reached by keyboard."""
    roles = {
        'role="heading">': 'role="heading" aria-level="2">',
        '<dd><em class="sig-param">': '<dd role="listitem"><em class="sig-param">',
        '<dl>\n<dd role="listitem">': '<dl role="list">\n<dd role="listitem">',
        "<pre>": '<pre tabindex="0">',
        '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
    }
    if exception is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            for bare, with_role in roles.items():
                text = text.replace(bare, with_role)
            page.write_text(text, encoding="utf-8")
