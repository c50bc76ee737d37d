"""The build backend: scikit-build-core, with Eigen's headers carried inside the source distribution.

A checkout takes the headers from a build requirement (dependency group "eigen" of pyproject.toml). A source distribution
holds them in ``cmake/eigen``, so that building from it needs no Eigen from anywhere else.
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from find_eigen import find_eigen
from scikit_build_core import build as _base
from scikit_build_core.build import (
    build_editable,
    build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOT = Path(__file__).resolve().parent.parent
CARRIED = ROOT / "cmake" / "eigen"

Settings = dict[str, Any] | None


def _eigen_requirement() -> list[str]:
    if CARRIED.exists():
        return []
    with (ROOT / "pyproject.toml").open("rb") as file:
        requirement: list[str] = tomllib.load(file)["dependency-groups"]["eigen"]
    return requirement


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return [*_base.get_requires_for_build_wheel(config_settings), *_eigen_requirement()]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return [*_base.get_requires_for_build_editable(config_settings), *_eigen_requirement()]


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    return [*_base.get_requires_for_build_sdist(config_settings), *_eigen_requirement()]


@contextmanager
def _eigen_carried() -> Iterator[None]:
    """Place the headers in the tree while a source distribution is made of it."""
    if CARRIED.exists():
        yield
        return
    source = find_eigen()
    if source is None:
        raise RuntimeError(f"a source distribution needs Eigen's headers: pip install {_eigen_requirement()[0]}")
    try:
        shutil.copytree(source, CARRIED)
        yield
    finally:
        shutil.rmtree(CARRIED, ignore_errors=True)


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    with _eigen_carried():
        return _base.build_sdist(sdist_directory, config_settings)
