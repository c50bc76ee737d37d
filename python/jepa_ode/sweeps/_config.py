"""The file that describes a sweep: task, grid, constants and figure as TOML; and the ready studies, which are such files."""

from __future__ import annotations

import importlib
import importlib.resources
import inspect
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._validate import as_index, as_real
from . import tasks
from ._grid import Grid, GridLike

__all__ = ["FIGURE_TEXTS", "Config", "find_config", "read_config", "studies"]

FIGURE_TEXTS = ("variable", "x", "y", "hue", "over", "title")
"""Keys of a figure whose values are texts; ``select`` and ``labels`` are tables."""
_KEYS = ("title", "task", "store", "rng", "grid", "constants", "figure")
_GENERATORS = ("geomspace", "linspace", "arange")


@dataclass(frozen=True)
class Config:
    """A sweep as its file describes it.

    Attributes: ``title``, empty where there is none; ``task``, the name of a ready one or a function; ``grid``, ``constants``
    and ``rng`` of `jepa_ode.sweep`; ``store``, a path; ``figure``, the options of ``jepa-ode plot`` that are its defaults.
    """

    title: str
    task: str | Callable[..., Any]
    grid: GridLike
    constants: Mapping[str, Any]
    rng: int
    store: Path
    figure: Mapping[str, Any]


def studies() -> dict[str, Path]:
    """Return the ready studies, files that come with the package, by name."""
    folder = Path(str(importlib.resources.files(__package__))) / "studies"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_config(name: str) -> Path:
    """Return the file of this name or else the ready study; raise ValueError where there is neither."""
    path = Path(name)
    if path.is_file():
        return path
    ready = studies()
    if name in ready:
        return ready[name]
    raise ValueError(f"{name} is no file and no ready study; these are {', '.join(ready)}")


def read_config(path: Path) -> Config:
    """Read a file; raise ValueError, which names the file and the key, for anything in it that is not understood."""
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    try:
        return _as_config(content, path)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _as_config(content: dict[str, Any], path: Path) -> Config:
    _known("", content, _KEYS)
    if "task" not in content:
        raise ValueError(f"task is missing: one of {', '.join(tasks.__all__)}, or module:function")
    task = _as_task(_text("task", content["task"]), path.parent)
    grid = _as_grid(_table(content, "grid"))
    constants = {name: _values(f"constants: {name}", value) for name, value in _table(content, "constants").items()}
    if both := [name for name in constants if name in Grid(grid).names]:
        raise ValueError(f"{both[0]} is in grid and in constants: drop one")
    return Config(
        title=_text("title", content.get("title", "")),
        task=task,
        grid=grid,
        constants=constants,
        rng=as_index("rng", content.get("rng", 0)),
        store=Path(_text("store", content.get("store", f"{path.stem}.zarr"))),
        figure=_as_figure(_table(content, "figure")),
    )


def _known(where: str, table: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in table:
        if key not in keys:
            raise ValueError(f"{where}{key} is no key; there are {', '.join(keys)}")


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise TypeError(f"{name} must be a table, [{name}], got {table!r}")
    return table


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, got {value!r}")
    return value


def _as_task(name: str, folder: Path) -> str | Callable[..., Any]:
    """Return the name of a ready task, or the function ``module:function``, of a module that may lie beside the file."""
    module, colon, function = name.partition(":")
    if not colon:
        if name not in tasks.__all__:
            raise ValueError(f"task must be one of {', '.join(tasks.__all__)}, or module:function, got {name!r}")
        return name
    place = str(folder.resolve())
    if place not in sys.path:
        sys.path.insert(0, place)
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"task {name!r}: {error}") from error
    if not inspect.isroutine(getattr(found, function, None)):
        raise ValueError(f"task {name!r}: {module} has no function {function!r}")
    task: Callable[..., Any] = getattr(found, function)
    return task


def _as_grid(table: dict[str, Any]) -> GridLike:
    if not table:
        raise ValueError("grid is missing: name at least one parameter and its values")
    grid: dict[str | tuple[str, ...], Any] = {}
    for key, values in table.items():
        names = tuple(name.strip() for name in key.split(","))
        grid[names if len(names) > 1 else key] = _values(f"grid: {key}", values, labels=len(names) == 1)
    Grid(grid)  # which says what is wrong with it
    return grid


def _values(where: str, value: Any, *, labels: bool = False) -> Any:
    """Return what a value stands for: itself, the numbers that a table describes, or values with labels."""
    if not isinstance(value, dict):
        return value
    keys = tuple(value)
    if len(keys) == 1 and keys[0] in _GENERATORS:
        return _generated(f"{where}: {keys[0]}", keys[0], value[keys[0]])
    if labels and set(keys) == {"values", "labels"}:
        return _labelled(where, value["values"], value["labels"])
    forms = [f"{{ {name} = [...] }}" for name in _GENERATORS] + ["{ values = [...], labels = [...] }"] * labels
    raise ValueError(f"{where}: a table must be one of {', '.join(forms)}, got the keys {', '.join(keys) or 'none'}")


def _generated(where: str, generator: str, arguments: Any) -> npt.NDArray[Any]:
    form = "[first, end] or [first, end, step]" if generator == "arange" else "[first, last, number]"
    if not isinstance(arguments, list) or len(arguments) not in ((2, 3) if generator == "arange" else (3,)):
        raise ValueError(f"{where} must be {form}, got {arguments!r}")
    for argument in arguments:
        if not np.isfinite(as_real(where, argument)):
            raise ValueError(f"{where} must be finite, got {arguments!r}")
    if generator == "arange":
        if len(arguments) == 3 and arguments[2] == 0:
            raise ValueError(f"{where}: the step must not be 0, got {arguments!r}")
        return np.arange(*arguments)
    as_index(f"{where}: number", arguments[2], minimum=1)
    if generator == "linspace":
        return np.linspace(*arguments)
    if min(arguments[:2]) <= 0:
        raise ValueError(f"{where}: first and last must be positive, got {arguments!r}")
    return np.geomspace(*arguments)


def _labelled(where: str, values: Any, labels: Any) -> dict[Any, Any]:
    if not isinstance(values, list) or not isinstance(labels, list) or len(values) != len(labels):
        raise ValueError(f"{where}: values and labels must be lists of the same length, got {values!r} and {labels!r}")
    if not all(isinstance(label, str | int | float) for label in labels):
        raise TypeError(f"{where}: labels must be texts or numbers, got {labels!r}")
    found = dict(zip(labels, values, strict=True))
    if len(found) < len(labels):
        raise ValueError(f"{where}: labels must differ, got {labels!r}")
    return found


def _as_figure(table: dict[str, Any]) -> dict[str, Any]:
    _known("figure: ", table, (*FIGURE_TEXTS, "select", "labels"))
    for key in FIGURE_TEXTS:
        if key in table:
            _text(f"figure: {key}", table[key])
    for name, value in _table(table, "select").items():
        if not isinstance(value, str | int | float):
            raise TypeError(f"figure: select: {name} must be a number or a text, got {value!r}")
    for name, value in _table(table, "labels").items():
        _text(f"figure: labels: {name}", value)
    if "y" in table and "hue" in table:
        raise ValueError("figure: y makes a map, hue makes lines: drop one")
    return table
