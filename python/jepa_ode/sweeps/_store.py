"""The store of a sweep: a Zarr group that is complete up to the last finished block."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import require
from ._call import differences
from ._cells import CellStatus
from ._grid import Grid
from ._outputs import Field, Schema
from ._record import Record, described, frame_of

if TYPE_CHECKING:
    import xarray

__all__ = ["ZarrRecord", "open_sweep"]


class ZarrRecord(Record):
    """Results as arrays of a Zarr group, a chunk of each array per block.

    A chunk appears in one piece, and that of ``status`` is written last: a block of which it is there is complete. All who
    sweep into one store write the same contents to the same places.
    """

    def __init__(self, path: Path, grid: Grid, attributes: Mapping[str, Any], block_shape: tuple[int, ...]) -> None:
        super().__init__(grid, attributes, block_shape)
        require("zarr", "sweeps need", "sweep")
        self._path, self._source = path, ""
        if path.exists():
            self._open()
        elif not os.access(path.absolute().parent, os.W_OK):
            raise OSError(f"store {path} cannot be made: {path.absolute().parent} is no folder that one can write to")

    def _open(self) -> None:
        """Open what is there; refuse it unless it is of the same call."""
        group = _open_group(self._path, "r+")
        stored = json.loads(group.attrs["sweep_call"])
        if differing := differences(stored, json.loads(self.attributes["sweep_call"])):
            raise ValueError(
                f"store {self._path} is of another sweep: {'; '.join(differing)}. Name another store, or remove this one"
            )
        self._source = group.attrs["sweep_source"]
        self._arrays = dict(group.arrays())
        self.schema = _schema_from(json.loads(group.attrs["sweep_schema"]))
        self.block_shape = tuple(self._arrays["status"].chunks)

    def label(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes to the dataset, and change those that are there."""
        super().label(attributes)
        if self.schema is not None and attributes:
            _open_group(self._path, "r+").attrs.update(attributes)

    @property
    def source_changed(self) -> bool:
        """Whether the task's source is not that of the store's beginning."""
        return self.schema is not None and self._source != self.attributes["sweep_source"]

    def begin(self, schema: Schema) -> None:
        """Make the store, in one piece: whoever is first to finish a block."""
        part = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex[:8]}")
        try:
            self._make(part, schema)
            part.rename(self._path)
        except OSError:
            if not self._path.exists():
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
        wanted = self.block_shape
        self._open()
        if self.schema != schema or self.block_shape != wanted:
            raise OSError(f"{self._path} was just made by somebody else, with other blocks or results of another form")

    def _make(self, path: Path, schema: Schema) -> None:
        import zarr

        attributes = self.attributes | {"sweep_schema": json.dumps(_schema_to(schema))}
        frame = frame_of(self._grid, schema, attributes)
        frame.to_zarr(path, mode="w-", zarr_format=3, consolidated=False)
        group = zarr.open_group(path, mode="r+")
        # xarray.open_zarr finds the coordinates by their dims, but for parameters that share one.
        group.attrs["coordinates"] = " ".join(name for name in self._grid.names if name not in self._grid.dims)
        grid: dict[str, Any] = {"shape": self._grid.shape, "chunks": self.block_shape, "dims": self._grid.dims}
        for field in schema.fields:
            kind = str if field.kind is object else field.kind
            _make_array(group, field.name, field.shape, field.dims, kind, field.missing, grid)
        _make_array(group, "message", (), (), str, "", grid)
        _make_array(group, "status", (), (), np.int8, int(CellStatus.NOT_RUN), grid)

    def dataset(self) -> xarray.Dataset:
        """Return everything as a dataset that reads from the store when asked for values."""
        return open_sweep(self._path)


def open_sweep(store: str | os.PathLike[str]) -> xarray.Dataset:
    """Open the store of a sweep, finished or not, as a dataset that reads values when they are asked for.

    Parameters
    ----------
    store : path
        The ``store=`` of `jepa_ode.sweep`. It is a Zarr group that ``xarray.open_zarr(store, consolidated=False)`` opens as
        well.

    Returns
    -------
    xarray.Dataset
        As `jepa_ode.sweep` returns it; cells that were not run yet have the status ``CellStatus.NOT_RUN``, and what else
        they have means nothing: a block is written value by value, its status last.

    Raises
    ------
    FileNotFoundError
        When there is nothing.
    ValueError
        When it is not the store of a sweep.
    """
    require("xarray", "sweeps need", "sweep")
    require("zarr", "sweeps need", "sweep")
    import xarray

    path = Path(store)
    schema = _schema_from(json.loads(_open_group(path, "r").attrs["sweep_schema"]))
    data = xarray.open_zarr(path, consolidated=False, chunks=None)
    attributes = {name: text for name, text in data.attrs.items() if name not in ("coordinates", "sweep_schema")}
    for name in [*data.coords, *data.data_vars]:  # texts are Python's, as in a sweep without a store
        if data[name].dtype.kind == "T":
            data[name] = data[name].astype(object)
    # A folder knows no order of what is in it; that of the call is kept.
    parameters = [part[6:] for part in json.loads(data.attrs["sweep_call"]) if part.startswith("grid: ")]
    coordinates = [*parameters, *(dim for dim, _, _ in schema.coordinates)]
    variables = [*(field.name for field in schema.fields), "message", "status"]
    return xarray.Dataset(
        {name: data[name].variable for name in variables},
        {name: data[name].variable for name in coordinates},
        attributes,
    )


def _open_group(path: Path, mode: Any) -> Any:
    import zarr

    if not path.exists():
        raise FileNotFoundError(f"there is no store {path}")
    try:
        group = zarr.open_group(path, mode=mode)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not the store of a sweep") from error
    if not {"sweep_call", "sweep_schema", "sweep_source"} <= group.attrs.keys():
        raise ValueError(f"{path} is not the store of a sweep")
    return group


def _make_array(
    group: Any, name: str, shape: tuple[int, ...], dims: tuple[str, ...], dtype: Any, fill: Any, grid: Mapping[str, Any]
) -> None:
    group.create_array(
        name,
        shape=(*grid["shape"], *shape),
        chunks=(*grid["chunks"], *(max(length, 1) for length in shape)),
        dtype=dtype,
        fill_value=fill,
        dimension_names=(*grid["dims"], *dims),
        attributes=described(name),
    )


def _schema_to(schema: Schema) -> list[Any]:
    fields = [[each.name, each.dims, each.shape, each.dtype] for each in schema.fields]
    return [fields, [[dim, dtype, content.hex()] for dim, dtype, content in schema.coordinates]]


def _schema_from(parts: list[Any]) -> Schema:
    fields = tuple(Field(name, tuple(dims), tuple(shape), dtype) for name, dims, shape, dtype in parts[0])
    return Schema(fields, tuple((dim, dtype, bytes.fromhex(content)) for dim, dtype, content in parts[1]))
