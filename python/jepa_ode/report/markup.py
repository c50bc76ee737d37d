"""Sentences, tables and figures as HTML that needs nothing from outside the page."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["as_text", "data_uri", "figure_source", "items", "resource", "table_of"]

# Names of Greek letters in sentences become letters on the page.
_GREEK = {"lambda": "&lambda;", "rho": "&rho;", "sigma^2": "&sigma;&sup2;", "eps": "&epsilon;", "tau": "&tau;"}


def resource(name: str) -> str:
    """Return a file of this folder."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def as_text(text: str) -> str:
    """Escape a sentence and set its symbols."""
    escaped = html.escape(text)
    for name, letter in _GREEK.items():
        escaped = re.sub(rf"\b{re.escape(name)}(?!\w)", letter, escaped)
    escaped = re.sub(r"(&\w+;)\^(\d+(?:\.\d+)?|L\b)", r"\1<sup>\2</sup>", escaped)
    # The symbols t and t*, not the letter.
    return re.sub(r"\bt(\* |\*,|\*\.| = )", r"<i>t</i>\1", escaped)


def items(sentences: Iterable[str]) -> str:
    """Return sentences as items of a list."""
    return "\n".join(f"<li>{as_text(sentence)}</li>" for sentence in sentences)


def table_of(title: str, values: Mapping[str, Any]) -> str:
    """Return a titled table of names and values, for a place in columns."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>'
        for name, value in values.items()
    )
    return f"<div><h3>{html.escape(title)}</h3><table>{rows}</table></div>"


def figure_source(figure: Figure) -> str:
    """Return a figure as an SVG in a ``data:`` URI, the same for the same figure."""
    import matplotlib

    file = io.BytesIO()
    # A fixed salt and no date: equal results give equal files. Text as paths: it looks the same everywhere.
    with matplotlib.rc_context({"svg.hashsalt": "jepa_ode", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return data_uri("svg+xml", file.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Return an image, "svg+xml" or "png", as the text that stands for its file in a page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
