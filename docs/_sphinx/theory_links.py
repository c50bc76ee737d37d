"""Makes a link of every "THEORY.md n" in a docstring, to section n of the page of the theory."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

PAGE = "theory"


def label_sections(app: Sphinx, doctree: nodes.document) -> None:
    """Give each section of the theory a label by its number."""
    if app.env.current_document.docname != PAGE:
        return
    domain = app.env.domains.standard_domain
    for section in doctree.findall(nodes.section):
        title = section[0].astext()
        if number := re.match(r"(\d+)\.", title):
            name = f"{PAGE}-{number[1]}"
            domain.anonlabels[name] = PAGE, section["ids"][0]
            domain.labels[name] = PAGE, section["ids"][0], title


def link(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Link the citations in a docstring."""
    lines[:] = [re.sub(r"THEORY\.md (\d+)", rf":ref:`THEORY.md \1 <{PAGE}-\1>`", line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to pages when they are read, and to docstrings after numpydoc."""
    app.connect("doctree-read", label_sections)
    app.connect("autodoc-process-docstring", link, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
