"""The grid of a sweep: named axes, their product, and the blocks of cells that are worked on at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["RESERVED", "Axis", "Block", "Grid", "GridLike"]

GridLike: TypeAlias = Mapping[str | tuple[str, ...], Any]
RESERVED = ("message", "status")  # variables that every sweep has
_BLOCKS = 256  # a grid is split into about so many blocks, ...
_LARGEST = 1000  # ... but none has more cells than this


@dataclass(frozen=True)
class Axis:
    """One dimension: a parameter, or several that change together.

    Attributes: ``dim``, its name; ``names`` of the parameters; ``values`` [length][name]; ``labels``, an array [length] per
    parameter, by which a value is found again.
    """

    dim: str
    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    labels: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Block:
    """Neighbouring cells: ``region`` has a slice per dimension, ``first`` is the place of the first in the grid's order."""

    region: tuple[slice, ...]
    shape: tuple[int, ...]
    first: int

    @property
    def size(self) -> int:
        """Number of cells."""
        return math.prod(self.shape)


class Grid:
    """The product of axes; the last one changes fastest.

    Parameters
    ----------
    axes : mapping
        A name and its values, or a tuple of names and a sequence of tuples of values, which change together; a dimension
        has the names of its parameters, joined by "_". Values are numbers, texts, or anything else where they have labels:
        a mapping of labels to values. Without labels such things are labelled by their ``repr``.
    """

    def __init__(self, axes: GridLike) -> None:
        if not isinstance(axes, Mapping):
            raise TypeError(f"grid must map names of parameters to their values, got {type(axes).__name__}")
        self.axes = tuple(_as_axis(names, values) for names, values in axes.items())
        self.names = tuple(name for axis in self.axes for name in axis.names)
        for name in self.names:
            if self.names.count(name) > 1:
                raise ValueError(f"grid has {name!r} twice")
            if name in RESERVED:
                raise ValueError(
                    f"grid: {name!r} is what the sweep calls something of its own; call the parameter otherwise"
                )
        self.dims = tuple(axis.dim for axis in self.axes)
        self.shape = tuple(len(axis.values) for axis in self.axes)
        self.size = math.prod(self.shape)
        for dim in self.dims:
            if self.dims.count(dim) > 1 or (dim in self.names and (dim,) not in [axis.names for axis in self.axes]):
                raise ValueError(f"grid has a parameter {dim!r} and another axis that would have this name")

    @cached_property
    def coordinates(self) -> dict[str, tuple[str, npt.NDArray[Any]]]:
        """Dimension and labels of each parameter."""
        return {name: (axis.dim, labels) for axis in self.axes for name, labels in axis.labels.items()}

    def block_shape(self, chunk: int | None) -> tuple[int, ...]:
        """Return the shape of blocks of at most ``chunk`` cells, neighbours in the grid's order."""
        left = min(math.ceil(self.size / _BLOCKS), _LARGEST) if chunk is None else chunk
        shape = []
        for length in reversed(self.shape):
            shape.append(min(length, max(left, 1)))
            left = left // length if shape[-1] == length else 0
        return tuple(reversed(shape))

    def blocks(self, shape: tuple[int, ...]) -> list[Block]:
        """Return all blocks of that shape, those at the ends of axes smaller, in the grid's order."""
        parts = [range(0, length, step) for length, step in zip(self.shape, shape, strict=True)]
        strides = [math.prod(self.shape[k + 1 :]) for k in range(len(self.shape))]
        found = []
        for begin in itertools.product(*parts):
            ends = [min(b + s, n) for b, s, n in zip(begin, shape, self.shape, strict=True)]
            region = tuple(slice(b, e) for b, e in zip(begin, ends, strict=True))
            sizes = tuple(e - b for b, e in zip(begin, ends, strict=True))
            found.append(Block(region, sizes, sum(b * s for b, s in zip(begin, strides, strict=True))))
        return found

    def part(self, block: Block) -> tuple[tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]], ...]:
        """Return the names and values of each axis within a block: what a worker needs to know of the grid."""
        return tuple((axis.names, axis.values[piece]) for axis, piece in zip(self.axes, block.region, strict=True))

    def describe(self, place: int) -> str:
        """Say which parameters a cell has: ``depth=3, eps=0.01``."""
        index = np.unravel_index(place, self.shape) if self.shape else ()
        return ", ".join(
            f"{name}={axis.labels[name][k]}" for axis, k in zip(self.axes, index, strict=True) for name in axis.names
        )


def cells(part: Sequence[tuple[tuple[str, ...], Sequence[tuple[Any, ...]]]]) -> Iterator[dict[str, Any]]:
    """Yield the parameters of each cell of a block, in the grid's order."""
    names = [name for axis_names, _ in part for name in axis_names]
    for chosen in itertools.product(*(values for _, values in part)):
        yield dict(zip(names, itertools.chain.from_iterable(chosen), strict=True))


def _as_axis(names: Any, values: Any) -> Axis:
    if isinstance(names, str):
        labels, found = _labelled(names, values)
        return Axis(names, (names,), tuple((value,) for value in found), {names: labels})
    if not (isinstance(names, tuple) and len(names) > 1 and all(isinstance(name, str) for name in names)):
        raise TypeError(f"names of parameters must be strings, or tuples of two or more, got {names!r}")
    rows = list(_sequence(", ".join(names), values))
    for row in rows:
        if not isinstance(row, tuple | list | np.ndarray) or len(row) != len(names):
            raise ValueError(f"values of {names} must be tuples of {len(names)}, got {row!r}")
    columns = [_labels(name, [row[k] for row in rows], unique=False) for k, name in enumerate(names)]
    return Axis(
        "_".join(names), names, tuple(tuple(map(_plain, row)) for row in rows), dict(zip(names, columns, strict=True))
    )


def _labelled(name: str, values: Any) -> tuple[npt.NDArray[Any], list[Any]]:
    if isinstance(values, Mapping):
        found = [_plain(value) for value in _sequence(name, list(values.values()))]
        return _labels(name, list(values)), found
    found = [_plain(value) for value in _sequence(name, values)]
    return _labels(name, found), found


def _sequence(name: str, values: Any) -> Any:
    if isinstance(values, str | bytes) or not hasattr(values, "__len__") or not hasattr(values, "__iter__"):
        raise TypeError(f"grid: the values of {name} must be a sequence, got {values!r}; a constant goes to constants=")
    if isinstance(values, np.ndarray) and values.ndim == 0:
        raise TypeError(f"grid: the values of {name} must be a sequence, got the number {values}")
    if len(values) == 0:
        raise ValueError(f"grid: {name} has no values")
    return values


def _plain(value: Any) -> Any:
    """Return NumPy's scalars as Python's: a task sees the same types whatever the axis was made of."""
    return value.item() if isinstance(value, np.generic) else value


def _labels(name: str, values: list[Any], *, unique: bool = True) -> npt.NDArray[Any]:
    """Return coordinates: numbers, truth values or texts as they are, all else by its repr."""
    kinds = {type(value) for value in map(_plain, values)}
    if kinds <= {int, float} or kinds == {bool}:
        labels = np.array(values)
        if labels.dtype.kind not in "biuf":
            raise ValueError(f"grid: {name} has whole numbers that do not fit 64 bits")
    else:
        labels = np.array([value if isinstance(value, str) else repr(value) for value in values], dtype=object)
    if unique and len(set(labels.tolist())) < len(labels):
        raise ValueError(f"grid: {name} has a value twice; labels keep equal ones apart: {{label: value, ...}}")
    return labels
