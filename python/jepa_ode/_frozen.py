"""What every result is made of: frozen dataclasses whose arrays are read-only (DESIGN.md 3)."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_Scalar = TypeVar("_Scalar", bound=np.generic)


def read_only(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """Return a read-only C-contiguous copy of ``array``: later changes to the original do not reach it."""
    copy = np.array(array, order="C", copy=True)
    copy.flags.writeable = False
    return copy


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return False
    if isinstance(a, MappingProxyType) and isinstance(b, MappingProxyType):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)


def _thawed(value: Any) -> Any:
    return dict(value) if isinstance(value, MappingProxyType) else value  # which cannot be pickled


def _frozen(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value.flags.writeable = False  # NumPy forgets the flag when it pickles
    if isinstance(value, dict):
        return MappingProxyType({key: _frozen(entry) for key, entry in value.items()})
    return value


class FrozenArrays:
    """Mixin for frozen dataclasses of arrays: equality by content, and arrays that stay read-only after unpickling.

    A mapping of arrays is a ``MappingProxyType``.
    """

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields)

    def __getstate__(self) -> dict[str, Any]:
        return {name: _thawed(value) for name, value in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: _frozen(value) for name, value in state.items()})
