"""Reads a page of plain Markdown as a notebook: its ```python blocks are the cells, run from top to bottom.

What is shown and not run, since it needs PyTorch or data that a reader has, stands in ```py blocks.
"""

from __future__ import annotations

import re

from myst_nb.core.read import read_myst_markdown_notebook
from myst_parser.config.main import MdParserConfig
from nbformat import NotebookNode

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def read(text: str) -> NotebookNode:
    """Return the page as a notebook, with the line of the page where each cell begins."""
    config = MdParserConfig(enable_extensions={"dollarmath"})
    notebook = read_myst_markdown_notebook(text, config, code_directive="python", add_source_map=True)
    if any(cell.cell_type == "code" for cell in notebook.cells):
        notebook.metadata["kernelspec"] = KERNEL
    else:
        notebook.metadata["mystnb"] = {"execution_mode": "off"}
    said = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            said = cell.source
        else:
            cell.metadata["mystnb"] = {"image": {"alt": alternative(said)}}
    return notebook


def alternative(text: str) -> str:
    """Return what stands for a figure where it cannot be seen: the last sentence before its code, without markup."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text.strip().split("\n\n")[-1])
    sentence = re.split(r"(?<=[.:!?])\s+(?=[A-Z])", " ".join(re.sub(r"[`*#$]", "", plain).split()))[-1]
    return f"Figure: {sentence.rstrip(':.')}"
