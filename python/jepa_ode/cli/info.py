"""``jepa-ode info``: what runs here."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from typing import Any

import numpy as np

from .._core import build_info
from .._threads import available_cpus

__all__ = ["add"]

_EXTRAS = {
    "matplotlib": "plot",
    "tqdm": "progress",
    "sklearn": "analyze",
    "xarray": "xarray",
    "zarr": "sweep",
    "pandas": "xarray",
    "torch": "experiments",
}


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("info", help="show versions, instruction set and extras")
    parser.set_defaults(run=_info, parser=parser)


def _info(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    del options, parser
    lines = {f"engine: {key}": value for key, value in build_info().items()}
    lines |= {"python": platform.python_version(), "platform": platform.platform(), "cpus": available_cpus()}
    lines["numpy"] = np.__version__
    for module, extra in _EXTRAS.items():
        name = "scikit-learn" if module == "sklearn" else module
        try:
            lines[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            lines[name] = f'missing (pip install "jepa-ode[{extra}]")'
    for key, value in lines.items():
        print(f"{key:24} {' '.join(value) if isinstance(value, tuple | list) else value}")
    return 0
