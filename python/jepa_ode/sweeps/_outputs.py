"""What a task returns, as named arrays: their form must be that of every other cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Field", "Schema", "Trouble", "as_outputs"]

_LARGEST_EXACT = 2**53  # whole numbers up to here are float64


@dataclass(frozen=True)
class Trouble:
    """What a task returns when its numbers are not to be trusted, or not all of them: they are kept, with a message.

    Parameters
    ----------
    values
        What it would return otherwise.
    message : str
        What happened.
    """

    values: Any
    message: str


@dataclass(frozen=True)
class Field:
    """Name, dims, shape and type of an array."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str

    @property
    def kind(self) -> Any:
        """Type of an array of it: texts are Python's."""
        return object if self.dtype == "text" else np.dtype(self.dtype)

    @property
    def missing(self) -> Any:
        """What stands where there is no value."""
        return "" if self.dtype == "text" else np.nan

    def __str__(self) -> str:
        inner = ", ".join(f"{dim}={length}" for dim, length in zip(self.dims, self.shape, strict=True))
        return f"{self.name} [{inner}] {'text' if self.dtype == 'text' else self.kind}"


@dataclass(frozen=True)
class Schema:
    """The form of a cell's result: its fields, and the coordinates of their dims, which all cells share."""

    fields: tuple[Field, ...]
    coordinates: tuple[tuple[str, str, bytes], ...] = ()  # dim, type and contents

    @property
    def names(self) -> list[str]:
        """Names of the fields, of their dims and of the coordinates."""
        dims = [dim for field in self.fields for dim in field.dims] + [dim for dim, _, _ in self.coordinates]
        return [*(field.name for field in self.fields), *dict.fromkeys(dims)]

    def coordinate_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the coordinates by their dims."""
        return {dim: np.frombuffer(content, dtype) for dim, dtype, content in self.coordinates}

    def difference(self, other: Schema) -> str:
        """Say how another cell's form differs from this one."""
        for mine, its in zip(self.fields, other.fields, strict=False):
            if mine != its:
                return f"the task returned {its}, but {mine} in the first cell"
        if len(self.fields) != len(other.fields):
            return f"the task returned {len(other.fields)} variables, but {len(self.fields)} in the first cell"
        return "the coordinates of its result are not those of the first cell; return them as variables of another name"


_NUMBER = Schema((Field("value", (), (), "<f8"),))


def as_outputs(result: Any) -> tuple[Schema, tuple[Any, ...]]:
    """Return the form and the arrays of what a task returned; raise TypeError or ValueError where it has none.

    None is nothing; a number, text or array the variable ``value``; a mapping has names and arrays, or names and pairs
    (dims, array). Of a Dataset or DataArray of xarray all variables are taken, of anything else with ``to_xarray()``, as the
    results of this package, the data variables. A one-dimensional variable named like its dim is a coordinate.
    """
    if type(result) is float:
        return _NUMBER, (result,)
    if result is None:
        return Schema(()), ()
    variables = result if isinstance(result, Mapping) and not hasattr(result, "data_vars") else _variables(result)
    fields, values, coordinates = [], [], []
    lengths: dict[str, int] = {}
    for name, entry in variables.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"names of variables must be strings, got {name!r}")
        dims, array = _as_field(name, entry)
        if dims == (name,):
            coordinates.append((name, array.dtype.str, array.tobytes()))
            lengths[name] = array.size
            if array.dtype.kind not in "biufc":
                raise TypeError(f"coordinate {name} must hold numbers, got {array.dtype}")
            continue
        text = array.dtype.kind in "UO"
        fields.append(Field(name, dims, array.shape, "text" if text else array.dtype.str))
        values.append(array)
    for field in fields:
        for dim, length in zip(field.dims, field.shape, strict=True):
            if lengths.setdefault(dim, length) != length:
                raise ValueError(f"{field.name} has {length} values along {dim}, of which there are {lengths[dim]}")
    return Schema(tuple(fields), tuple(coordinates)), tuple(values)


def _variables(result: Any) -> Mapping[str, Any]:
    if hasattr(result, "to_xarray") and not hasattr(result, "to_dataset"):
        data = result.to_xarray()
        found = {str(name): (each.dims, each.values) for name, each in data.data_vars.items()}
        found |= {str(name): ((name,), data[name].values) for name in data.indexes}
        return {f"feature_{name}" if name == "status" else name: entry for name, entry in found.items()}
    if hasattr(result, "to_dataset"):  # a DataArray
        result = result.to_dataset(name=result.name or "value")
    if hasattr(result, "data_vars"):
        return {str(name): (each.dims, each.values) for name, each in result.variables.items()}
    return {"value": result}


def _as_field(name: str, entry: Any) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    dims: tuple[str, ...] | None = None
    if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str | tuple | list):
        dims = (entry[0],) if isinstance(entry[0], str) else tuple(map(str, entry[0]))
        entry = entry[1]
    array = np.asarray(entry)
    if array.dtype.kind in "biu":
        if array.dtype.kind != "b" and array.size and max(int(array.max()), -int(array.min())) > _LARGEST_EXACT:
            raise ValueError(f"{name} holds whole numbers beyond 2^53, which are no longer exact as float64")
        array = array.astype(np.float64)
    elif array.dtype.kind == "U" or (array.dtype == object and all(isinstance(each, str) for each in array.flat)):
        array = array.astype(object)
    elif not (array.dtype.kind == "f" and array.itemsize in (4, 8)) and not (
        array.dtype.kind == "c" and array.itemsize in (8, 16)
    ):
        raise TypeError(f"{name} must hold numbers or texts, got {_kind(entry, array)}")
    else:
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if dims is None:
        dims = tuple(f"{name}_{axis}" for axis in range(array.ndim))
    if len(set(dims)) < len(dims):
        raise ValueError(f"{name} has a dim twice: {dims}")
    if len(dims) != array.ndim:
        raise ValueError(f"{name} has {len(dims)} dims {dims} for an array of shape {array.shape}")
    return dims, array


def _kind(entry: Any, array: npt.NDArray[Any]) -> str:
    return type(entry).__name__ if array.dtype == object else str(array.dtype)
