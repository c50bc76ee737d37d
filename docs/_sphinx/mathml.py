"""Renders equations as MathML, which browsers draw themselves: no script, no font and no network at view time.

The translation is that of Docutils, which Sphinx needs in any case. What it cannot read is a warning, and so an error.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def _render(writer: Any, node: nodes.Element, *, block: bool) -> None:
    tex = node.astext()
    try:
        mathml = tex2mathml(tex, as_block=block)
    except MathError as error:
        LOGGER.warning("equation %r: %s", tex, error, location=node)
        mathml = f"<code>{writer.encode(tex)}</code>"
    writer.body.append(f'<div class="math">{mathml}</div>' if block else mathml)
    raise nodes.SkipNode


def _inline(writer: Any, node: nodes.Element) -> None:
    _render(writer, node, block=False)


def _block(writer: Any, node: nodes.Element) -> None:
    _render(writer, node, block=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
