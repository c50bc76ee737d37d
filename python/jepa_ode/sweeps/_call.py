"""What makes one sweep the same as another: task, grid, constants, seed and version, as texts that can be compared."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import pickle
from collections.abc import Callable, Mapping
from tokenize import TokenError
from typing import Any

import numpy as np

from .._core import build_info
from ._grid import Grid

_LONGEST = 1000  # arrays up to here are kept in the attributes of a dataset

__all__ = ["describe_call", "differences", "provenance", "source_of"]


def describe_call(
    task: Callable[..., Any], grid: Grid, constants: Mapping[str, Any], entropy: int | None
) -> dict[str, str]:
    """Return the parts of a call, each in words and, where words do not tell all, with a digest.

    How it is carried out, by what executor, in what blocks, is no part of it: the numbers do not depend on that.
    """
    call = {"task": _name(task), "jepa_ode": str(build_info()["version"])}
    for axis in grid.axes:
        for k, name in enumerate(axis.names):
            call[f"grid: {name}"] = _axis(axis.dim, axis.labels[name], [row[k] for row in axis.values])
    for name, value in sorted(constants.items()):
        call[f"constants: {name}"] = f"{short(value)} ({_digest(value)})"
    call["grid"] = " x ".join(f"{dim} ({length})" for dim, length in zip(grid.dims, grid.shape, strict=True))
    if entropy is not None:
        call["rng"] = str(entropy)
    return call


def differences(stored: Mapping[str, str], call: Mapping[str, str]) -> list[str]:
    """Say part by part in what two calls differ."""
    return [
        f"{part}: {stored.get(part, 'nothing')} in the store, {call.get(part, 'nothing')} in this call"
        for part in dict.fromkeys([*stored, *call])
        if stored.get(part) != call.get(part)
    ]


def source_of(task: Callable[..., Any]) -> str:
    """Return a digest of the task's source; empty where it has none that can be found."""
    try:
        return hashlib.sha256(inspect.getsource(task).encode()).hexdigest()[:16]
    except (OSError, TypeError, SyntaxError, TokenError):
        return ""


def _name(task: Callable[..., Any]) -> str:
    if hasattr(task, "__qualname__"):
        return f"{task.__module__}.{task.__qualname__}"
    return (
        f"{type(task).__module__}.{type(task).__qualname__} ({_digest(task)})"  # a partial, or an object with __call__
    )


def short(value: Any) -> str:
    """Say in a few words what a value is."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {value.shape}"
    words = " ".join(repr(value).split())
    return words if len(words) <= 80 else words[:77] + "..."


def _axis(dim: str, labels: Any, values: list[Any]) -> str:
    shown = [str(label) for label in labels[:4]]
    if len(labels) > 4:
        shown = [*shown[:2], "...", str(labels[-1])]
    return f"{len(labels)} values along {dim}: {', '.join(shown)} ({_digest([labels.tolist(), values])})"


def _digest(value: Any) -> str:
    digest = hashlib.sha256()
    _feed(digest.update, value)
    return digest.hexdigest()[:16]


def _feed(feed: Callable[[bytes], object], value: Any) -> None:
    """Feed what a value consists of: for equal values the same, in every process; caches of an object are no part of it."""
    if isinstance(value, np.generic):
        value = value.item()
    feed(type(value).__qualname__.encode() + b":")
    if isinstance(value, np.ndarray) and value.dtype != object:
        feed(f"{value.dtype.str}{value.shape}".encode())
        feed(value.tobytes())
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
        feed(repr(value).encode())
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            _feed(feed, key)
            _feed(feed, entry)
    elif isinstance(value, list | tuple | range | np.ndarray):
        feed(str(len(value)).encode())
        for entry in value:
            _feed(feed, entry)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            _feed(feed, getattr(value, field.name))
    elif hasattr(value, "__qualname__"):
        feed(f"{value.__module__}.{value.__qualname__}".encode())
    else:
        feed(pickle.dumps(value, protocol=5))


def provenance(call: Mapping[str, str], source: str, constants: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a sweep's dataset: texts and numbers only, for any file format."""
    info = build_info()
    return {
        "task": call["task"],
        "constants": json.dumps({name: _plain(value) for name, value in constants.items()}),
        "jepa_ode_version": str(info["version"]),
        "jepa_ode_build": f"{info['isa']}, {info['compiler']}, Eigen {info['eigen']}",
        "sweep_call": json.dumps(call),
        "sweep_source": source,
        **({"rng": call["rng"]} if "rng" in call else {}),
    }


def _plain(value: Any) -> Any:
    """Return numbers, texts and short lists of them as JSON knows them, all else in words."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist() if value.size <= _LONGEST and value.dtype.kind in "biufU" else short(value)
    if isinstance(value, list | tuple) and len(value) <= _LONGEST:
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else short(value)
