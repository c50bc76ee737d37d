"""Sweeps: a task at every point of a grid, in this process or on many, kept as it goes (DESIGN.md 2)."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import require
from .._progress import cell_progress
from .._validate import as_choice, as_flag, as_index
from . import tasks
from ._call import describe_call, provenance, source_of
from ._cells import BlockResult, CellStatus, run_block
from ._executors import Executor, ExecutorError, work_off
from ._grid import RESERVED, Block, Grid, GridLike
from ._outputs import Schema
from ._record import MemoryRecord, Record
from ._store import ZarrRecord

if TYPE_CHECKING:
    import xarray

__all__ = ["SweepError", "sweep"]


class SweepError(RuntimeError):
    """A sweep that ended early: workers died, a result could not be written, or a cell failed that must not.

    The message says how many cells are done and how to go on.
    """


def sweep(
    grid: GridLike,
    task: str | Callable[..., Any],
    *,
    constants: Mapping[str, Any] | None = None,
    rng: int | np.random.SeedSequence | np.random.Generator = 0,
    executor: int | Executor | None = None,
    store: str | os.PathLike[str] | None = None,
    chunk: int | None = None,
    threads: int | None = None,
    on_error: str = "record",
    retry_failed: bool = False,
    attrs: Mapping[str, Any] | None = None,
    progress: bool | Callable[[float], object] = False,
) -> xarray.Dataset:
    """Run a task at every point of a grid of parameters and return the results as one dataset.

    Parameters
    ----------
    grid : mapping
        Names of parameters and their values; the cells are their product, the last name changing fastest. Values are
        numbers, texts or anything else; a mapping ``{label: value}`` gives them the labels by which they are found in the
        result. A tuple of names with a sequence of tuples of values is one axis along which they change together.
    task : callable or str
        Called with the parameters of a cell and the constants, by keyword. It returns a number, a text, an array, a mapping
        of names to such or to pairs ``(dims, array)``, a dataset of xarray, or a result of this package; all cells the same
        variables of the same shapes. Integers and truth values become float64, so that a cell without a result is NaN.
        For other processes it must be importable there: a function of a module. Or the name of one of
        `jepa_ode.sweeps.tasks`: "solve", "critical_time", "order_correlation", "selection", "gradient_flow", "train".
    constants : mapping, optional
        Parameters that are the same in all cells.
    rng : int, SeedSequence or Generator, default 0
        A task that has a parameter ``rng`` gets a generator of its own in each cell, spawned from this by the cell's place
        in the grid: the same whatever the executor and the blocks. An ``rng`` among the grid's or the constants' names is
        passed on as it is instead, so that cells can share one.
    executor : int or object with ``submit``, optional
        Where cells are worked on: None is here and one after the other, a number so many processes of this machine, started
        and ended by the sweep, and started again when one is killed. Otherwise anything with the ``submit`` of
        `concurrent.futures`: its thread and process pools, ``dask.distributed.Client.get_executor()``,
        ``mpi4py.futures.MPIPoolExecutor``. It is the caller's to shut down.
    store : path, optional
        A Zarr store (a folder) where results are kept as soon as a block of cells is finished. The same call on it goes on
        from where it was ended, however it was; any other call is refused. Several processes may sweep into one store at a
        time, say the jobs of an array on a cluster: they share the work. `open_sweep` opens it at any time, and so does
        ``xarray.open_zarr(store, consolidated=False)``. The dataset then reads from the store when values are asked for.
    chunk : int, optional
        Largest number of cells in a block, the unit in which work is sent out, stored and lost. By default a 256th of the
        grid, at most 1000. A store that exists keeps its own.
    threads : int, optional
        What ``threads=None`` means within a task: by default 1 with an executor, so that workers do not take each other's
        CPUs, and every CPU without. NumPy's linear algebra has one thread in any case: its last bits depend on that.
    on_error : {"record", "raise"}, default "record"
        What to do when a task raises: record it as the status and the message of its cell, or end the sweep by the first
        failure that is seen.
    retry_failed : bool, default False
        Run the cells again that failed in the store, and the others of their blocks with them.
    attrs : mapping of str to texts or numbers, optional
        Attributes to add to the dataset, a title say. They may be other ones when a store is gone on with.
    progress : bool or callable, default False
        True shows a bar that counts cells, their rate and the failures (needs tqdm); a callable is told the fraction done.

    Returns
    -------
    xarray.Dataset
        Variables of the task with the dims of the grid first, ``status`` (`CellStatus`) and ``message`` per cell, the
        parameters as coordinates, and in ``attrs`` what was run: task, constants, seed, version and build.

    Raises
    ------
    TypeError, ValueError
        For a grid, a task or an option that is not what it should be, and for a store of another call, saying what differs.
    ImportError
        When xarray, Zarr (for a store) or tqdm (for a bar) is missing.
    SweepError
        When workers were killed, a task cannot be sent to them, a result cannot be written, or a cell fails with
        ``on_error="raise"``. Finished blocks are in the store.
    KeyboardInterrupt
        Says how many cells are done.

    Warns
    -----
    RuntimeWarning
        When processes of the sweep's own were killed and are started again.
    UserWarning
        When the store was begun by a task of the same name with another source, and when all cells failed.

    Notes
    -----
    The result does not depend, bit for bit, on executor, blocks, threads or the order in which blocks finish. What form a
    cell's result has is decided by the first cell that has one; results of another form are failures.

    Examples
    --------
    Where do JEPA and MAE learn features in opposite orders?

    >>> import jepa_ode as jo
    >>> features = {"trend": "opposite", "features": 20, "lam": (0.5, 1.0), "rho": (0.2, 0.9)}
    >>> grid = {"depth": [1, 2, 4], "eps": [1e-1, 1e-2, 1e-6]}
    >>> found = jo.sweep(grid, "order_correlation", constants=features)
    >>> found.order_correlation.round(2).values
    array([[ 0.71,  1.  ,  1.  ],
           [-0.42,  0.96,  1.  ],
           [-0.75, -0.62,  1.  ]])

    A failed cell ends nothing:

    >>> found = jo.sweep({"depth": [0.5, 2]}, "critical_time", constants={"lam": [1.0], "rho": [0.5], "eps": 0.01})
    >>> found.status.values, found.message.item(0)
    (array([2, 0], dtype=int8), 'ValueError: depth must be a real number >= 1, got 0.5')
    """
    require("xarray", "sweeps need", "sweep")
    require("threadpoolctl", "sweeps need", "sweep")
    cells = Grid(grid)
    function = tasks.find(task)
    fixed = _as_constants(constants, cells)
    names = (*cells.names, *fixed)
    drawing = _takes_rng(function, names) and "rng" not in names
    as_choice("on_error", on_error, ("record", "raise"))
    retry = as_flag("retry_failed", retry_failed) or on_error == "raise"
    shape = cells.block_shape(None if chunk is None else as_index("chunk", chunk, minimum=1))
    if threads is not None or executor is not None:
        threads = as_index("threads", 1 if threads is None else threads, minimum=1)
    entropy = _as_entropy(rng) if drawing else None
    call = describe_call(function, cells, fixed, entropy)
    attributes = provenance(call, source_of(function), fixed)
    record: Record = MemoryRecord(cells, attributes, shape)
    if store is not None:
        record = ZarrRecord(Path(store), cells, attributes, shape)
        if record.source_changed:
            warnings.warn(
                f"{call['task']} is not the function it was when {store} was begun; the cells that are there are kept as "
                "they are",
                stacklevel=2,
            )
    record.label(_as_attributes(attrs, attributes))
    blocks, status = cells.blocks(record.block_shape), record.status()
    missing = {CellStatus.NOT_RUN, CellStatus.FAILED} if retry else {CellStatus.NOT_RUN}
    todo = [block for block in blocks if np.isin(status[block.region], list(missing)).any()]
    if status.min(initial=CellStatus.NOT_RUN) != CellStatus.NOT_RUN:
        # Others may be at work on this store: whoever comes later does not follow in their steps.
        todo = [todo[k] for k in np.random.default_rng().permutation(len(todo))]
    results = _Results(record, cells, todo)

    def arguments(block: Block) -> tuple[Any, ...]:
        return function, cells.part(block), fixed, block.first, entropy, threads, on_error == "raise"

    def wanted(block: Block) -> bool:
        return retry or not record.has(block)  # somebody else may have been faster

    with cell_progress(progress, cells.size, cells.size - sum(block.size for block in todo)) as tell:

        def take(block: Block, result: BlockResult | None) -> None:
            if result is not None and result.raised is not None:
                place, message, trace = result.raised
                error = SweepError(f"the cell {cells.describe(block.first + place)} failed: {message}")
                error.add_note(trace)
                raise error
            failed = 0 if result is None else results.take(block, result)
            tell(block.size, failed)

        try:
            work_off(executor, run_block, arguments, todo, wanted, take)
            record = results.finish()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"sweep interrupted: {_how_far(record, cells, store)}") from None
        except ExecutorError as error:
            raise SweepError(f"{error}; {_how_far(record, cells, store)}") from error.__cause__
        except OSError as error:
            raise SweepError(f"a result could not be written: {error}; {_how_far(record, cells, store)}") from error
    data = record.dataset()
    if (record.status() == CellStatus.FAILED).all():
        warnings.warn(f"all {cells.size} cells failed, the first with {data.message.values.flat[0]}", stacklevel=2)
    return data


class _Results:
    """Takes blocks in whatever order they are finished, and holds them until the form of a result is decided."""

    def __init__(self, record: Record, grid: Grid, todo: list[Block]) -> None:
        self._record, self._grid = record, grid
        self._open = list(reversed(todo))
        self._held: dict[int, tuple[Block, BlockResult]] = {}

    def take(self, block: Block, result: BlockResult) -> int:
        """Take a block and return the number of its failures."""
        if self._record.schema is not None:
            self._record.put(block, result)
        else:
            self._held[block.first] = block, result
            while self._open and self._open[-1].first in self._held:
                forms = self._held[self._open.pop().first][1].columns
                if forms:
                    self._begin(min(forms, key=lambda form: forms[form].places[0]))
                    break
        return int(np.count_nonzero(result.status == CellStatus.FAILED))

    def finish(self) -> Record:
        """Return the record. When no cell has a result it is one in memory: there is nothing that a store should keep."""
        if self._record.schema is None:
            self._record = MemoryRecord(self._grid, self._record.attributes, self._record.block_shape)
            self._begin(Schema(()))
        return self._record

    def _begin(self, schema: Schema) -> None:
        taken = {*self._grid.names, *self._grid.dims, *RESERVED}
        for name in schema.names:
            if name in taken:
                raise ValueError(
                    f"the task returns {name!r}, which is a name of the grid or of the sweep; call it otherwise"
                )
        self._record.begin(schema)
        for block, result in self._held.values():
            self._record.put(block, result)
        self._held.clear()


def _how_far(record: Record, grid: Grid, store: Any) -> str:
    done = int(np.count_nonzero(record.status() != CellStatus.NOT_RUN))
    if done == 0:
        return f"none of {grid.size} cells are done"
    ending = (
        "without a store they are lost"
        if store is None
        else f"they are in {store}, and the same call goes on from there"
    )
    return f"{done} of {grid.size} cells are done; {ending}"


def _as_constants(constants: Any, grid: Grid) -> dict[str, Any]:
    if constants is None:
        return {}
    if not isinstance(constants, Mapping) or not all(isinstance(name, str) for name in constants):
        raise TypeError(f"constants must map names of parameters to values, got {constants!r}")
    if both := [name for name in constants if name in grid.names]:
        raise ValueError(f"{both[0]!r} is a name of the grid and of the constants")
    return dict(constants)


def _takes_rng(task: Callable[..., Any], names: tuple[str, ...]) -> bool:
    """Whether a task has a parameter ``rng``; raise TypeError where it does not take these, rather now than in every cell."""
    try:
        signature = inspect.signature(task)
    except (TypeError, ValueError):  # a built-in function without one
        return False
    takes = "rng" in signature.parameters
    try:
        signature.bind(**dict.fromkeys([*names, "rng"] if takes else names))
    except TypeError as error:
        takes_what = f"{getattr(task, '__name__', task)}({', '.join(signature.parameters)})"
        raise TypeError(f"task {takes_what} cannot be called so: {error}") from None
    return takes


def _as_attributes(attrs: Any, own: Mapping[str, Any]) -> dict[str, Any]:
    if attrs is None:
        return {}
    if not isinstance(attrs, Mapping):
        raise TypeError(f"attrs must map names to texts or numbers, got {attrs!r}")
    if both := [name for name in attrs if name in own]:
        raise ValueError(f"attrs: {both[0]!r} is a name of the sweep's own attributes")
    return dict(attrs)


def _as_entropy(rng: Any) -> int:
    if isinstance(rng, np.random.Generator):
        return int.from_bytes(rng.bytes(16), "little")
    if isinstance(rng, np.random.SeedSequence):
        return int(np.random.default_rng(rng).integers(2**63))
    return as_index("rng", rng)
