"""The directive ``experiments``: every experiment of the package with the options of its ``run``; none is listed by hand."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from jepa_ode import experiments


class Experiments(SphinxDirective):
    """Document the modules of `jepa_ode.experiments`."""

    def run(self) -> list[nodes.Node]:
        lines = []
        for name in experiments.names():
            module = f"jepa_ode.experiments.{name}"
            lines += [f".. rubric:: {name}", "", f".. automodule:: {module}", "", f".. autofunction:: {module}.run", ""]
        return self.parse_text_to_nodes(StringList(lines, source="experiments"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("experiments", Experiments)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
