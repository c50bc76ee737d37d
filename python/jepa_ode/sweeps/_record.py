"""The record of a sweep: results block by block, in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._cells import BlockResult, CellStatus
from ._grid import Block, Grid
from ._outputs import Schema

if TYPE_CHECKING:
    import xarray

__all__ = ["MemoryRecord", "Record", "described", "frame_of"]

_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "status": {
        "long_name": "how the cell ended",
        "flag_values": [int(code) for code in CellStatus],
        "flag_meanings": " ".join(code.name.lower() for code in CellStatus),
    },
    "message": {"long_name": "why, where the status is not ok"},
}


class Record(ABC):
    """Results of the cells of a grid, which come block by block."""

    def __init__(self, grid: Grid, attributes: Mapping[str, Any], block_shape: tuple[int, ...]) -> None:
        self._grid, self.attributes = grid, dict(attributes)
        self.block_shape = block_shape
        self.schema: Schema | None = None  # not before `begin`
        self._arrays: Any = {}

    @abstractmethod
    def begin(self, schema: Schema) -> None:
        """Make room for results of this form."""

    def put(self, block: Block, result: BlockResult) -> None:
        """Keep a block: its status last."""
        assert self.schema is not None
        for name, values in _arrays_of(self.schema, block, result):
            self._arrays[name][(*block.region, ...)] = values  # the dots: an array without dims is no element

    def status(self) -> npt.NDArray[np.int8]:
        """Return the status of every cell."""
        if self.schema is None:
            return np.full(self._grid.shape, CellStatus.NOT_RUN, dtype=np.int8)
        return np.asarray(self._arrays["status"][...])

    def has(self, block: Block) -> bool:
        """Whether the block is there by now, perhaps from somebody else."""
        return self.schema is not None and bool((self._arrays["status"][block.region] != CellStatus.NOT_RUN).all())

    def label(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes to the dataset."""
        self.attributes |= attributes

    @property
    def source_changed(self) -> bool:
        """Whether results are there of a task with another source."""
        return False

    @abstractmethod
    def dataset(self) -> xarray.Dataset:
        """Return everything as a dataset."""


class MemoryRecord(Record):
    """Results as NumPy arrays."""

    def begin(self, schema: Schema) -> None:
        """Make room for results of this form."""
        self.schema, shape = schema, self._grid.shape
        for field in schema.fields:
            self._arrays[field.name] = np.full((*shape, *field.shape), field.missing, dtype=field.kind)
        self._arrays["message"] = np.full(shape, "", dtype=object)
        self._arrays["status"] = np.full(shape, CellStatus.NOT_RUN, dtype=np.int8)

    def dataset(self) -> xarray.Dataset:
        """Return everything as a dataset."""
        assert self.schema is not None
        dims = {field.name: field.dims for field in self.schema.fields}
        variables = {
            name: ((*self._grid.dims, *dims.get(name, ())), array, described(name))
            for name, array in self._arrays.items()
        }
        return frame_of(self._grid, self.schema, self.attributes).assign(variables)


def described(name: str) -> dict[str, Any]:
    return dict(_ATTRIBUTES.get(name, {}))


def frame_of(grid: Grid, schema: Schema, attributes: Mapping[str, Any]) -> xarray.Dataset:
    """Return a dataset of the coordinates alone."""
    import xarray

    coordinates = dict(grid.coordinates) | {dim: (dim, array) for dim, array in schema.coordinate_arrays().items()}
    return xarray.Dataset(coords=coordinates, attrs=dict(attributes))


def _arrays_of(schema: Schema, block: Block, result: BlockResult) -> list[tuple[str, npt.NDArray[Any]]]:
    """Return the contents of a block by name, ``status`` last; results of another form are failures."""
    size = block.size
    status, message = result.status.copy(), np.full(size, "", dtype=object)
    for place, words in result.messages.items():
        message[place] = words
    for form, column in result.columns.items():
        if form != schema:
            status[column.places] = CellStatus.FAILED
            message[column.places] = schema.difference(form)
    arrays: list[tuple[str, npt.NDArray[Any]]] = []
    mine = result.columns.get(schema)
    for k, field in enumerate(schema.fields):
        values = np.full((size, *field.shape), field.missing, dtype=field.kind)
        if mine is not None:
            values[mine.places] = mine.values[k]
        arrays.append((field.name, values.reshape((*block.shape, *field.shape))))
    return [*arrays, ("message", message.reshape(block.shape)), ("status", status.reshape(block.shape))]
