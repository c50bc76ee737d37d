"""A name in a docstring, such as `Spectrum`, is one of the package's, whatever module the docstring stands in."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> nodes.Element | None:
    """Return the link that ``node`` asks for, if `jepa_ode` has the name; None otherwise."""
    if node.get("refdomain") != "py":
        return None
    target = "jepa_ode." + node["reftarget"].removeprefix("jepa_ode.")
    python = env.domains.python_domain
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to references that Sphinx does not find."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
