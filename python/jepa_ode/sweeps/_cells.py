"""One block of cells, worked off wherever a sweep sends it: nothing here knows of executors or stores."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .._threads import threads_by_default
from ._grid import cells
from ._outputs import Schema, Trouble, as_outputs

__all__ = ["BlockResult", "CellStatus", "run_block"]


class CellStatus(IntEnum):
    """How a cell of a sweep ended."""

    OK = 0
    TROUBLE = 1
    """The task met numerical trouble and said so; what it returned is kept."""
    FAILED = 2
    """The task raised, or what it returned cannot stand beside the other cells'; values are NaN."""
    NOT_RUN = 3


@dataclass
class Column:
    """Results of one form: the cells that have it and, per field, their values [cell, ...]."""

    places: list[int]
    values: list[Any]


@dataclass
class BlockResult:
    """What became of a block.

    Attributes: ``status`` [cell]; ``messages`` by the cell's place in the block, none where all went well; ``columns`` by
    form of the result, one unless the task is at fault; ``raised``, place, message and traceback of the cell that ended the
    block, where failures are to end it.
    """

    status: npt.NDArray[np.int8]
    messages: dict[int, str]
    columns: dict[Schema, Column]
    raised: tuple[int, str, str] | None = None


def run_block(
    task: Callable[..., Any],
    part: Sequence[tuple[tuple[str, ...], Sequence[tuple[Any, ...]]]],
    constants: Mapping[str, Any],
    first: int,
    entropy: int | None,
    threads: int | None,
    raising: bool,
) -> BlockResult:
    """Work off a block.

    Parameters
    ----------
    part
        Names and values of each axis within the block.
    first : int
        Place of its first cell in the grid: cell k draws from the k-th spawn of the seed, in whatever block it is.
    entropy : int or None
        The seed; None where the task draws nothing, or from an ``rng`` of the grid.
    threads : int or None
        What ``threads=None`` means within the task.
    raising : bool
        Whether the first failure ends the block.
    """
    status: list[int] = []
    messages: dict[int, str] = {}
    columns: dict[Schema, Column] = {}
    schema, column = None, Column([], [])
    with threads_by_default(threads), _one_blas_thread():
        for place, parameters in enumerate(cells(part)):
            if entropy is not None:
                source = np.random.SeedSequence(entropy, spawn_key=(first + place,))
                parameters["rng"] = np.random.Generator(np.random.PCG64(source))
            code = CellStatus.OK
            try:
                result = task(**parameters, **constants)
                if isinstance(result, Trouble):
                    code, messages[place], result = CellStatus.TROUBLE, str(result.message), result.values
                elif getattr(result, "success", True) is False:
                    code = CellStatus.TROUBLE
                    messages[place] = str(getattr(result, "message", "the result says that it failed"))
                found, values = as_outputs(result)
            except (Exception, SystemExit) as error:  # whatever a task raises is that cell's failure
                code, messages[place] = CellStatus.FAILED, " ".join(f"{type(error).__name__}: {error}".split())
                if raising:
                    status.append(code)
                    raised = (place, messages[place], traceback.format_exc())
                    return BlockResult(np.array(status, dtype=np.int8), messages, columns, raised)
            else:
                if found is not schema:
                    schema, column = found, columns.setdefault(found, Column([], []))
                column.places.append(place)
                column.values.append(values)
            status.append(code)
    for schema, column in columns.items():
        column.values = [_stacked(column.values, k, field.kind) for k, field in enumerate(schema.fields)]
    return BlockResult(np.array(status, dtype=np.int8), messages, columns)


def _stacked(values: list[tuple[Any, ...]], k: int, kind: Any) -> npt.NDArray[Any]:
    return np.array([row[k] for row in values], dtype=kind)


def _one_blas_thread() -> AbstractContextManager[Any]:
    """Keep NumPy's linear algebra to one thread: with more its last bits would depend on where a cell runs."""
    return _linear_algebra(len(sys.modules)).limit(limits=1)  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _linear_algebra(loaded: int) -> Any:  # noqa: ARG001
    """Find the libraries that have threads, some milliseconds' work, anew when modules were loaded since."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
