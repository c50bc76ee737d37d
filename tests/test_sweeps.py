"""Sweeps: every cell once, in its place, whatever carries it out and however it was interrupted (RELIABILITY.md 32)."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo
import sweep_tasks
from conftest import case_count
from record import Records

xarray = pytest.importorskip("xarray", reason='needs the extra "sweep"')
zarr = pytest.importorskip("zarr", reason='needs the extra "sweep"')

from jepa_ode.sweeps import tasks  # noqa: E402
from jepa_ode.sweeps._ctrl_c import CtrlC  # noqa: E402
from jepa_ode.sweeps._grid import Grid  # noqa: E402
from jepa_ode.sweeps._store import ZarrRecord  # noqa: E402

OK, TROUBLE, FAILED, NOT_RUN = jo.CellStatus
AB = {"a": range(5), "b": [0.5, 1.5, 2.5]}
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")


class Shuffled:
    """An executor that does nothing before it has five calls, and then the last one first."""

    def __init__(self) -> None:
        self.calls: list[tuple[Future[Any], Callable[..., Any], Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.calls.append((future, fn, args))
        if len(self.calls) == 5:
            self.run()
        return future

    def run(self) -> None:
        while self.calls:
            future, fn, args = self.calls.pop()
            future.set_result(fn(*args))


# --- grid -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 7), max_size=4), st.one_of(st.none(), st.integers(1, 300)))
def test_blocks_cover_the_grid_once_in_order(shape: list[int], chunk: int | None) -> None:
    grid = Grid({f"p{k}": range(length) for k, length in enumerate(shape)})
    blocks = grid.blocks(grid.block_shape(chunk))
    places = np.arange(grid.size).reshape(grid.shape)
    seen = [places[block.region].ravel() for block in blocks]
    for block, those in zip(blocks, seen, strict=True):
        assert those.tolist() == list(range(block.first, block.first + block.size))
        assert block.size <= (chunk or max(1, -(-grid.size // 256)))
    assert np.concatenate(seen).tolist() == list(range(grid.size))


def test_default_blocks() -> None:
    for size, expected in [(1, 1), (200, 1), (2560, 10), (100_000, 391), (1_000_000, 1000)]:
        assert Grid({"a": range(size)}).block_shape(None) == (expected,)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 20))
def test_cells_are_in_their_places(shape: list[int], chunk: int) -> None:
    names = "abc"[: len(shape)]
    grid = {name: np.arange(length) + 0.5 for name, length in zip(names, shape, strict=True)}
    data = jo.sweep(grid, sweep_tasks.sums, constants=dict.fromkeys("ab"[len(shape) :], 7.0), chunk=chunk)
    assert data.value.dims == tuple(names)
    for index in np.ndindex(*shape):
        parameters = {name: grid[name][k] for name, k in zip(names, index, strict=True)}
        assert data.value.sel(parameters).item() == sweep_tasks.sums(**({"b": 7.0} | parameters))
    assert (data.status == OK).all()
    assert (data.message == "").all()


def test_zipped_axes_and_labels() -> None:
    grid = {("a", "b"): [(1, 2), (3, 4)], "c": {"none": 0.0, "half": 0.5}}
    data = jo.sweep(grid, sweep_tasks.sums)
    assert data.value.dims == ("a_b", "c")
    assert data.value.values.tolist() == [[120.0, 120.5], [340.0, 340.5]]
    assert data.a.dims == data.b.dims == ("a_b",)
    assert data.sel(c="half").b.values.tolist() == [2, 4]
    objectives = [jo.JEPA(), jo.MAE()]
    data = jo.sweep(
        {"objective": objectives}, "critical_time", constants={"lam": [1.0], "rho": [0.5], "depth": 1, "eps": 0.1}
    )
    assert data.objective.values.tolist() == [repr(each) for each in objectives]


def test_a_grid_without_axes_is_one_cell() -> None:
    data = jo.sweep({}, sweep_tasks.sums, constants={"a": 1, "b": 2})
    assert data.value.item() == 120.0


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ([1, 2], {}, "grid must map names"),
        ({"a": 3}, {}, r"the values of a must be a sequence, got 3; a constant goes to constants="),
        ({"a": "xyz"}, {}, "the values of a must be a sequence"),
        ({"a": np.float64(1.0)}, {}, "the values of a must be a sequence"),
        ({"a": []}, {}, "a has no values"),
        ({"a": [1, 1.0]}, {}, "a has a value twice"),
        ({("a",): [(1,)]}, {}, "tuples of two or more"),
        ({("a", "b"): [(1, 2), 3]}, {}, "must be tuples of 2, got 3"),
        ({("a", "b"): [(1, 2)], "b": [1]}, {}, "'b' twice"),
        ({("a", "b"): [(1, 2)], "a_b": [1]}, {}, "a parameter 'a_b' and another axis"),
        ({"status": [1]}, {}, "'status' is what the sweep calls something of its own"),
        ({("a", "message"): [(1, 2)]}, {}, "'message' is what the sweep calls"),
        (
            {"a": [1]},
            {"task": sweep_tasks.sums},
            r"task sums\(a, b.*\) cannot be called so: missing a required argument: 'b'",
        ),
        (
            {"a": [1], "d": [1]},
            {"task": sweep_tasks.sums, "constants": {"b": 1}},
            "got an unexpected keyword argument 'd'",
        ),
        ({"depth": [1]}, {"task": "critical_time"}, "task critical_time.* missing a required argument: 'eps'"),
        (
            {"depth": [1]},
            {"task": "critical_time", "constants": {"eps": 0.1, "lam": [1.0], "roh": [0.5]}},
            "got an unexpected keyword argument 'roh'",
        ),
        ({"a": [1]}, {"constants": {"a": 2}}, "'a' is a name of the grid and of the constants"),
        ({"a": [1]}, {"constants": [1]}, "constants must map names"),
        ({"a": [1]}, {"task": "solver"}, "task must be one of 'critical_time'"),
        ({"a": [1]}, {"task": 3}, "task must be a function or one of"),
        ({"a": [1]}, {"chunk": 0}, "chunk must be at least 1|chunk"),
        ({"a": [1]}, {"threads": 0}, "threads"),
        ({"a": [1]}, {"rng": -1}, "rng"),
        ({"a": [1]}, {"on_error": "ignore"}, "on_error must be one of 'record', 'raise'"),
        ({"a": [1]}, {"executor": 0}, "executor"),
        ({"a": [1]}, {"executor": True}, "executor must be a number of processes or have a method submit"),
        ({"a": [1]}, {"executor": "dask"}, "executor must be a number of processes or have a method submit"),
        ({"a": [1]}, {"progress": "yes"}, "progress must be True, False or a callable"),
        ({"a": [1]}, {"store": "no/such/folder/here"}, "cannot be made"),
    ],
)
def test_bad_arguments(grid: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError, OSError), match=message):
        jo.sweep(grid, **({"task": sweep_tasks.drawn} | options))


# --- what a task may return -------------------------------------------------------------------------------------------


def test_kinds_of_results() -> None:
    data = jo.sweep({"a": [1, 2]}, sweep_tasks.several)
    assert data.number.dtype == data.yes.dtype == np.float64
    assert data.yes.values.tolist() == [0.0, 1.0]
    assert data.text.values.tolist() == ["a is 1", "a is 2"]
    assert data.z.values.tolist() == [1 + 1j, 2 + 1j]
    assert data.row.dims == ("a", "row_0")
    assert data.single.dtype == np.float32


def nothing(a: int) -> None:
    return None


def dataset(a: int) -> Any:
    return xarray.Dataset({"w": ("time", [a, a])}, coords={"time": [0.5, 1.5], "label": ("time", [1, 2])})


def data_array(a: int) -> Any:
    return xarray.DataArray([a, 2 * a], dims="time", name="w", coords={"time": [0, a if a == 2 else 1]})


def solution(a: int) -> Any:
    return jo.solve(jo.Spectrum([1.0, 0.5], rho=[0.5, 0.5]), "jepa", depth=a, eps=0.1, t=[0.0, 1.0])


def huge(a: int) -> int:
    return -(2**53) - a


def unknown(a: int) -> object:
    return object()


def test_results_of_xarray_and_of_the_package() -> None:
    assert set(jo.sweep({"a": [1, 2]}, nothing).data_vars) == {"status", "message"}
    data = jo.sweep({"a": [1, 2]}, dataset)
    assert data.w.sel(time=1.5).values.tolist() == [1.0, 2.0]
    assert data.label.dims == ("a", "time")
    data = jo.sweep({"a": [1, 2]}, data_array)
    assert data.status.values.tolist() == [OK, FAILED]
    assert "coordinates of its result are not those of the first cell" in data.message.item(1)
    data = jo.sweep({"a": [1, 2]}, solution)
    assert np.array_equal(data.w[1], solution(2).w)
    assert data.feature_status.dims == ("a", "feature")
    assert data.time.values.tolist() == [0.0, 1.0]


def test_results_that_cannot_be_kept_are_failures() -> None:
    data = jo.sweep({"a": [0, 1]}, huge)
    assert data.status.values.tolist() == [OK, FAILED]
    assert "beyond 2^53" in data.message.item(1)
    with pytest.warns(UserWarning, match="all 1 cells failed, the first with TypeError: value must hold"):
        data = jo.sweep({"a": [0]}, unknown)
    assert data.message.item(0) == "TypeError: value must hold numbers or texts, got object"
    with pytest.raises(ValueError, match="'a', which is a name of the grid"):
        jo.sweep({"a": [0]}, lambda a: {"a": a})
    with pytest.raises(ValueError, match="'a', which is a name of the grid"):
        jo.sweep({"a": [0]}, lambda a: {"value": a, "a": ("a", [1.0])})
    with pytest.raises(ValueError, match="'status'"):
        jo.sweep({"a": [0]}, lambda a: {"status": a})


def unequal(a: int) -> Any:
    return {"v": ("k", np.zeros(3)), "u": ("k", np.zeros(3 + a))}


def leaving(a: int) -> float:
    if a == 1:
        sys.exit(3)
    return 1.0


def test_dims_have_one_length_and_no_cell_ends_the_process() -> None:
    data = jo.sweep({"a": [0, 1]}, unequal)
    assert data.status.values.tolist() == [OK, FAILED]
    assert data.message.item(1) == "ValueError: u has 4 values along k, of which there are 3"
    data = jo.sweep({"a": [0, 1]}, leaving)
    assert data.status.values.tolist() == [OK, FAILED]
    assert data.message.item(1) == "SystemExit: 3"
    with pytest.warns(UserWarning, match=r"v has a dim twice"):
        jo.sweep({"a": [0]}, lambda a: {"v": (("k", "k"), np.zeros((2, 2)) + a)})


@pytest.mark.filterwarnings("ignore:all .* cells failed")
@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(1, 5))
def test_the_first_result_decides_the_form(lengths: list[int], chunk: int) -> None:
    first = next((length for length in lengths if length), 0)
    expected = [OK if length == first > 0 else FAILED for length in lengths]
    for executor in (None, Shuffled()):
        task = partial(sweep_tasks.uneven, lengths=tuple(lengths))
        if executor is not None:
            lengths_padded = -len(range(0, len(lengths), chunk)) % 5  # the executor works in fives
            if lengths_padded:
                continue
        data = jo.sweep({"a": range(len(lengths))}, task, chunk=chunk, executor=executor)
        assert data.status.values.tolist() == expected
        for length, message in zip(lengths, data.message.values, strict=True):
            if length not in (0, first):
                assert message == (
                    f"the task returned value [value_0={length}] float64, but value [value_0={first}] float64 in the first cell"
                )


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_failed_cell_is_a_status_and_a_message() -> None:
    data = jo.sweep({"a": range(6)}, sweep_tasks.picky)
    assert data.status.values.tolist() == [OK, FAILED, OK, OK, FAILED, OK]
    assert data.message.item(4) == "ValueError: a is 4 which is wrong"
    assert np.isnan(data.value.values[[1, 4]]).all()
    assert data.value.values[[0, 2, 3, 5]].tolist() == [0.0, 2.0, 3.0, 5.0]
    assert data.status.attrs["flag_meanings"] == "ok trouble failed not_run"


@pytest.mark.parametrize("executor", [None, 2])
def test_on_error_raise(executor: int | None, tmp_path: Path) -> None:
    with pytest.raises(jo.SweepError, match=r"the cell a=1 failed: ValueError: a is 1 which is wrong") as caught:
        jo.sweep({"a": range(4)}, sweep_tasks.picky, on_error="raise", executor=executor, chunk=2)
    assert "in picky" in caught.value.__notes__[0]
    store = tmp_path / "s"
    assert jo.sweep({"a": range(6)}, sweep_tasks.picky, store=store, chunk=1).status.values.max() == FAILED
    with pytest.raises(jo.SweepError, match=r"a=[14] failed"):  # a failure in the store is none to return either
        jo.sweep({"a": range(6)}, sweep_tasks.picky, store=store, on_error="raise")


def test_numerical_trouble_keeps_values() -> None:
    data = jo.sweep({"a": range(3)}, sweep_tasks.troubled)
    assert data.status.values.tolist() == [OK, TROUBLE, OK]
    assert data.message.item(1) == "half of it is missing"
    assert np.array_equal(data.value, [[0, 0], [1, np.nan], [2, 2]], equal_nan=True)
    limits = {
        "spec": jo.Spectrum([1.0, 1.0], rho=[0.9, 0.5]),
        "depth": 2,
        "eps": 0.01,
        "t": [0.0, 50.0],
        "method": "tsit5",
    }
    data = jo.sweep({"max_steps": [3, 10_000]}, "solve", constants=limits)
    assert data.status.values.tolist() == [TROUBLE, OK]
    assert "1 of 2 features" in data.message.item(0)
    assert data.feature_status.values.tolist() == [[jo.Status.MAX_STEPS, OK], [OK, OK]]


# --- executors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_same_whatever_carries_it_out(chunk: int, tmp_path: Path) -> None:
    reference = jo.sweep(AB, sweep_tasks.drawn, rng=3)
    assert len(np.unique(reference.three)) == reference.three.size
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(2) as processes:
        for executor in (None, 2, threads, processes):
            for store in (None, tmp_path / f"{type(executor).__name__}"):
                assert (
                    jo.sweep(AB, sweep_tasks.drawn, rng=3, executor=executor, store=store, chunk=chunk)
                    .load()
                    .identical(reference)
                )
    if chunk == 1:
        shuffled = jo.sweep(AB, sweep_tasks.drawn, rng=3, executor=Shuffled(), store=tmp_path / "shuffled", chunk=1)
        assert shuffled.load().identical(reference)


def test_seeds_come_from_the_place_in_the_grid() -> None:
    data = jo.sweep(AB, sweep_tasks.drawn, rng=11)
    spawned = np.random.SeedSequence(11).spawn(15)
    for k, (a, b) in enumerate(itertools.product(*AB.values())):
        assert data.one.sel(a=a, b=b).item() == np.random.default_rng(spawned[k]).normal()
    generator = np.random.default_rng(1)
    first, second = (jo.sweep(AB, sweep_tasks.drawn, rng=generator) for _ in range(2))
    assert not np.isin(first.one, second.one).any()
    assert jo.sweep(AB, sweep_tasks.drawn, rng=np.random.SeedSequence(4)).identical(
        jo.sweep(AB, sweep_tasks.drawn, rng=np.random.SeedSequence(4))
    )


def seeded(a: int, rng: int) -> float:
    return float(np.random.default_rng(rng).normal())


def test_an_rng_of_the_grid_is_passed_on() -> None:
    data = jo.sweep({"a": [1, 2], "rng": [7, 8]}, seeded)
    assert (data.value[0] == data.value[1]).all()
    assert data.value[0, 0] != data.value[0, 1]
    assert "rng" not in data.attrs


def test_workers_have_one_thread_unless_told() -> None:
    expected = [(None, None, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())]
    expected += [(1, None, 1), (None, 3, 3), (1, 3, 3)]
    for executor, threads, seen in expected:
        assert jo.sweep({}, sweep_tasks.threads_seen, executor=executor, threads=threads).value.item() == seen


def test_linear_algebra_has_one_thread() -> None:
    def blas_threads() -> int:
        from threadpoolctl import threadpool_info

        return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")

    assert jo.sweep({}, blas_threads).value.item() == 1


def test_a_task_that_cannot_be_sent() -> None:
    with ProcessPoolExecutor(1) as processes:
        for executor in (2, processes):
            with pytest.raises(
                TypeError, match="cannot be sent to other processes; a task must be a function of a module"
            ):
                jo.sweep({"a": range(3)}, lambda a: a, executor=executor)


@needs_proc
def test_a_killed_worker_of_somebodys_pool(tmp_path: Path) -> None:
    call: dict[str, Any] = {"constants": {"flag": str(tmp_path / "flag")}, "store": tmp_path / "s", "chunk": 1}
    with (
        ProcessPoolExecutor(2) as pool,
        pytest.raises(
            jo.SweepError, match=r"perhaps a worker was killed.* of 20 cells are done; they are in .*goes on"
        ),
    ):
        jo.sweep({"a": range(20)}, sweep_tasks.deadly, executor=pool, **call)
    data = jo.open_sweep(tmp_path / "s")
    assert 0 < (data.status == OK).sum() < 20
    assert ((data.status == OK) | (data.status == NOT_RUN)).all()
    assert jo.sweep({"a": range(20)}, sweep_tasks.deadly, executor=2, **call).value.values.tolist() == list(range(20))


@needs_proc
@pytest.mark.parametrize("executor", [1, 2])
def test_processes_are_started_again(executor: int, tmp_path: Path) -> None:
    flag = str(tmp_path / "flag")
    with pytest.warns(RuntimeWarning, match=r"perhaps a worker was killed.*; the processes are started again"):
        data = jo.sweep({"a": range(20)}, sweep_tasks.deadly, constants={"flag": flag}, executor=executor, chunk=1)
    assert data.value.values.tolist() == list(range(20))


@needs_proc
@pytest.mark.filterwarnings("ignore:the executor failed")
@pytest.mark.parametrize("executor", [1, 2])
def test_a_cell_that_kills_every_worker_keeps_no_other_from_being_finished(executor: int, tmp_path: Path) -> None:
    call: dict[str, Any] = {"constants": {"flag": str(tmp_path / "no" / "flag")}, "store": tmp_path / "s", "chunk": 1}
    with pytest.raises(jo.SweepError, match=r"perhaps a worker was killed.*; 19 of 20 cells are done"):
        jo.sweep({"a": range(20)}, sweep_tasks.always_deadly, executor=executor, **call)
    assert jo.open_sweep(tmp_path / "s").status.values.tolist() == [OK] * 5 + [NOT_RUN] + [OK] * 14


@pytest.mark.filterwarnings("default")
def test_dask(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="needs dask")
    reference = jo.sweep(AB, sweep_tasks.drawn, rng=3)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(sys.path.append, str(Path(__file__).parent))
        for executor in (client.get_executor(), client):
            data = jo.sweep(
                AB, sweep_tasks.drawn, rng=3, executor=executor, store=tmp_path / type(executor).__name__, chunk=2
            )
            assert data.load().identical(reference)


# --- stores -----------------------------------------------------------------------------------------------------------


def test_a_rerun_does_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    notes, store = tmp_path / "notes", tmp_path / "s"
    call: dict[str, Any] = {"constants": {"notes": str(notes)}, "store": store, "chunk": 3}
    reference = jo.sweep({"a": range(10)}, sweep_tasks.noted, **call).load()
    assert sorted(map(int, notes.read_text().split())) == list(range(10))
    assert jo.sweep({"a": range(10)}, sweep_tasks.noted, **call).identical(reference)
    assert len(notes.read_text().split()) == 10
    zarr.open_group(store, mode="r+")["status"][3:6] = int(NOT_RUN)
    assert jo.sweep({"a": range(10)}, sweep_tasks.noted, **(call | {"chunk": 1})).load().identical(reference)
    assert sorted(map(int, notes.read_text().split()[10:])) == [3, 4, 5]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@given(st.data())
def test_a_write_that_is_cut_off_anywhere_leaves_a_store_that_goes_on(data: st.DataObject) -> None:
    import tempfile

    grid = {"a": range(7), "b": [1.0, 2.0]}
    reference = jo.sweep(grid, sweep_tasks.drawn)
    original = ZarrRecord.put
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        store = Path(folder) / "s"
        for _ in range(data.draw(st.integers(1, 3))):
            left = data.draw(st.integers(0, 30))

            def put(self: Any, block: Any, result: Any) -> None:
                class Cut:
                    """A group whose arrays can be written so often."""

                    def __init__(self, group: Any) -> None:
                        self.group = group

                    def __getitem__(self, name: str) -> Any:
                        nonlocal left
                        left -= 1
                        if left < 0:
                            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                        return self.group[name]

                group, self._arrays = self._arrays, Cut(self._arrays)
                try:
                    original(self, block, result)
                finally:
                    self._arrays = group

            patch.setattr(ZarrRecord, "put", put)
            try:
                jo.sweep(grid, sweep_tasks.drawn, store=store, chunk=2)
            except jo.SweepError as error:
                assert "No space left" in str(error)
            patch.setattr(ZarrRecord, "put", original)
        assert jo.sweep(grid, sweep_tasks.drawn, store=store, chunk=2).load().identical(reference)


def test_another_call_is_refused_with_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = jo.Spectrum([1.0, 0.5], rho=[0.5, 0.2])
    base: dict[str, Any] = {
        "grid": {"depth": [1, 2, 3], "eps": [0.1, 0.01]},
        "task": "critical_time",
        "constants": {"spec": spec},
    }
    jo.sweep(**base, store=tmp_path / "s")
    spec2 = jo.Spectrum([1.0, 0.5], rho=[0.5, 0.21])
    for change, message in [
        (
            {"grid": {"depth": [1, 2, 4], "eps": [0.1, 0.01]}},
            r"grid: depth: 3 values along depth: 1, 2, 3 .* in the store, 3 values .*1, 2, 4",
        ),
        (
            {"grid": {"eps": [0.1, 0.01], "depth": [1, 2, 3]}},
            r"grid: depth \(3\) x eps \(2\) in the store, eps \(2\) x depth \(3\) in this",
        ),
        (
            {"task": "order_correlation"},
            "task: jepa_ode.sweeps.tasks.critical_time in the store, jepa_ode.sweeps.tasks.order",
        ),
        ({"constants": {"spec": spec2}}, "constants: spec"),
        (
            {"constants": {"spec": spec, "fraction": 0.3}},
            r"constants: fraction: nothing in the store, 0.3 .* in this call",
        ),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            jo.sweep(**(base | change), store=tmp_path / "s")
        assert "is of another sweep" in str(caught.value)
    jo.sweep(**base, store=tmp_path / "s")
    jo.sweep(
        **(base | {"constants": {"spec": jo.Spectrum([1.0, 0.5], rho=[0.5, 0.2])}}),
        store=tmp_path / "s",
        chunk=1,
        executor=2,
    )
    jo.sweep({"a": [1]}, sweep_tasks.drawn, store=tmp_path / "r")
    with pytest.raises(ValueError, match="rng: 0 in the store, 1 in this call"):
        jo.sweep({"a": [1]}, sweep_tasks.drawn, store=tmp_path / "r", rng=1)
    monkeypatch.setattr("jepa_ode.sweeps._call.build_info", lambda: {**jo.build_info(), "version": "9.9"})
    with pytest.raises(ValueError, match=r"jepa_ode: .* in the store, 9\.9 in this call"):
        jo.sweep(**base, store=tmp_path / "s")


def test_a_changed_task_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jo.sweep({"a": range(3)}, sweep_tasks.picky, store=tmp_path / "s")
    monkeypatch.setattr("jepa_ode.sweeps._sweep.source_of", lambda _: "another")
    with pytest.warns(UserWarning, match="sweep_tasks.picky is not the function it was"):
        jo.sweep({"a": range(3)}, sweep_tasks.picky, store=tmp_path / "s")


def test_what_is_no_store_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    zarr.open_group(tmp_path / "group", mode="w")
    for name in ("file", "folder", "group"):
        with pytest.raises((ValueError, OSError), match="is not the store of a sweep"):
            jo.sweep({"a": [1]}, sweep_tasks.picky, store=tmp_path / name)
        with pytest.raises((ValueError, OSError), match="is not the store of a sweep"):
            jo.open_sweep(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(FileNotFoundError, match="there is no store"):
        jo.open_sweep(tmp_path / "none")


def mended(a: int, flag: str) -> float:
    if a > 1 and not Path(flag).exists():
        raise ValueError("not yet")
    return float(a)


def test_failed_cells_are_run_again_when_asked(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    call: dict[str, Any] = {
        "grid": {"a": range(4)},
        "task": mended,
        "constants": {"flag": str(flag)},
        "store": tmp_path / "s",
    }
    assert jo.sweep(**call).status.values.tolist() == [OK, OK, FAILED, FAILED]
    flag.touch()
    assert jo.sweep(**call).status.values.tolist() == [OK, OK, FAILED, FAILED]
    data = jo.sweep(**call, retry_failed=True)
    assert data.status.values.tolist() == [OK] * 4
    assert data.message.values.tolist() == [""] * 4


def test_a_sweep_of_failures_leaves_no_store(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="all 2 cells failed"):
        data = jo.sweep({"a": [1, 4]}, sweep_tasks.picky, store=tmp_path / "s")
    assert data.status.values.tolist() == [FAILED, FAILED]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("executor", [None, 1])
def test_ctrl_c_keeps_what_is_finished(executor: int | None, tmp_path: Path) -> None:
    flag = str(tmp_path / "flag")
    call: dict[str, Any] = {"constants": {"flag": flag}, "chunk": 1, "executor": executor}
    with pytest.raises(
        KeyboardInterrupt, match=r"none of 6 cells are done|[1-6] of 6 cells are done; without a store they are lost"
    ):
        jo.sweep({"a": range(6)}, sweep_tasks.interrupted, **call)
    Path(flag).unlink()
    with pytest.raises(
        KeyboardInterrupt, match=r"[345] of 6 cells are done; they are in .*, and the same call goes on"
    ):
        jo.sweep({"a": range(6)}, sweep_tasks.interrupted, store=tmp_path / "s", **call)
    assert jo.sweep(
        {"a": range(6)}, sweep_tasks.interrupted, store=tmp_path / "s", **call
    ).value.values.tolist() == list(range(6))


def test_ctrl_c_is_held_back_and_not_lost() -> None:
    usual, events = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), CtrlC(tell=lambda: events.append("told")) as ctrl_c:
        ctrl_c.let_through()
        os.kill(os.getpid(), signal.SIGINT)
        events.append("not interrupted")
        with pytest.raises(KeyboardInterrupt):
            ctrl_c.let_through()
        events.append("let through")
        os.kill(os.getpid(), signal.SIGINT)
    assert events == ["told", "not interrupted", "let through", "told"]
    assert signal.getsignal(signal.SIGINT) is usual
    with ThreadPoolExecutor(1) as pool:  # which gets no Ctrl-C
        pool.submit(lambda: CtrlC().__enter__().__exit__()).result()
    assert signal.getsignal(signal.SIGINT) is usual


def test_ctrl_c_inside_of_a_fork_is_not_lost(tmp_path: Path) -> None:
    """There Python prints a KeyboardInterrupt and goes on, without what the hooks of modules had left to do."""
    script = """
import os, signal, sys
import sweep_tasks

os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
sweep_tasks.sweep_flows(sys.argv[1], executor=2)
"""
    process = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "s")],
        cwd=Path(sweep_tasks.__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode
    assert "KeyboardInterrupt: sweep interrupted" in process.stderr and "Exception ignored" not in process.stderr


def test_an_unfinished_store_can_be_looked_at(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        jo.sweep(
            {"a": range(6)},
            sweep_tasks.interrupted,
            constants={"flag": str(tmp_path / "f")},
            store=tmp_path / "s",
            chunk=1,
        )
    for data in (jo.open_sweep(tmp_path / "s"), xarray.open_zarr(tmp_path / "s", consolidated=False, chunks=None)):
        assert data.status.values.tolist() == [OK] * 3 + [NOT_RUN] * 3
        assert np.isnan(data.value.values[3:]).all()
        assert data.a.values.tolist() == list(range(6))


def test_constants_are_in_the_attributes() -> None:
    constants = {"a": 2, "b": np.array([1.5, 2.5]), "c": jo.MAE(), "d": "text", "e": (1, None), "f": np.zeros(2000)}
    data = jo.sweep({"x": [0]}, anything, constants=constants)
    expected = {"a": 2, "b": [1.5, 2.5], "c": "MAE(weight_decay=0.0)", "d": "text", "e": [1, None]}
    assert json.loads(data.attrs["constants"]) == expected | {"f": "float64 array of shape (2000,)"}


def anything(**parameters: Any) -> float:
    return float(len(parameters))


def test_attributes_can_be_added(tmp_path: Path) -> None:
    call: dict[str, Any] = {"grid": {"a": range(3)}, "task": sweep_tasks.picky}
    for store in (None, tmp_path / "s"):
        data = jo.sweep(**call, store=store, attrs={"title": "first", "n": 3})
        assert (data.attrs["title"], data.attrs["n"]) == ("first", 3)
        assert data.attrs["task"] == "sweep_tasks.picky"
    assert jo.sweep(**call, store=tmp_path / "s", attrs={"title": "second"}).attrs["title"] == "second"
    assert jo.sweep(**call, store=tmp_path / "s").attrs["title"] == "second"
    with pytest.raises(ValueError, match="'task' is a name of the sweep's own"):
        jo.sweep(**call, attrs={"task": "mine"})
    with pytest.raises(TypeError, match="attrs must map names"):
        jo.sweep(**call, attrs="title")


def test_a_dataset_of_a_store_can_be_saved_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    grid = {("a", "b"): [(1, "x"), (2, "y")], "c": [True, False]}
    data = jo.sweep(grid, kinds, store=tmp_path / "s")
    assert data.b.values.tolist() == ["x", "y"]
    assert set(data.coords) == {"a", "b", "c"}
    data.to_netcdf(tmp_path / "s.nc", engine="scipy", format="NETCDF3_64BIT")
    data.to_dataframe()


def kinds(a: int, b: str, c: bool) -> float:
    return float(len(b) + a + c)


def undisturbed(folder: Path) -> Any:
    store = folder / "undisturbed"
    return sweep_tasks.sweep_flows(str(store)).load()


def start_sweep(store: Path, executor: int) -> subprocess.Popen[str]:
    script = Path(sweep_tasks.__file__)
    return subprocess.Popen(
        [sys.executable, str(script), str(store), str(executor)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@needs_proc
@pytest.mark.parametrize("victim", ["killed worker", "killed parent", "interrupted parent"])
def test_killed_at_a_random_time(victim: str, tmp_path: Path, record: Records) -> None:
    """RELIABILITY.md 32: finished cells survive, a rerun completes them, same numbers."""
    reference, rng = undisturbed(tmp_path), np.random.default_rng(case_count(0, time.time_ns()))
    hit = 0
    for case in range(case_count(1, 20)):
        store = tmp_path / f"{case}"
        process = start_sweep(store, executor=2)
        while not (workers := children(process.pid)) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.8))
        if process.poll() is None:
            hit += 1
            if victim == "killed worker":
                os.kill(rng.choice(workers), signal.SIGKILL)
            elif victim == "killed parent":
                os.kill(process.pid, signal.SIGKILL)
            else:
                os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
        if victim == "killed worker":
            assert process.returncode == 0, errors  # it goes on by itself
        if victim == "interrupted parent" and process.returncode:
            assert "KeyboardInterrupt: sweep interrupted" in errors or "of 600 cells" not in errors
        deadline = time.monotonic() + 20
        while any(map(alive, workers)):  # nobody outlives the parent
            assert time.monotonic() < deadline
            time.sleep(0.05)
        again = start_sweep(store, executor=2)
        errors = again.communicate(timeout=120)[1]
        assert again.returncode == 0, errors
        changed = not jo.open_sweep(store).load().identical(reference)
        record(32, f"{victim}: reruns with other numbers", changed, at_most=0)
    assert hit


def test_several_parents_share_a_store(tmp_path: Path, record: Records) -> None:
    reference = undisturbed(tmp_path)
    for case in range(case_count(1, 10)):
        store = tmp_path / f"{case}"
        processes = [start_sweep(store, executor=0) for _ in range(3)]
        for process in processes:
            errors = process.communicate(timeout=120)[1]
            assert process.returncode == 0, errors
        changed = not jo.open_sweep(store).load().identical(reference)
        record(32, "three parents at one store: other numbers", changed, at_most=0)


@pytest.mark.campaign
@pytest.mark.filterwarnings("default")
def test_a_hundred_thousand_cells_three_ways(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="needs dask")
    grid = {"a": range(500), "b": np.linspace(0, 1, 200)}
    reference = jo.sweep(grid, sweep_tasks.drawn)
    assert jo.sweep(grid, sweep_tasks.drawn, executor=2, store=tmp_path / "p").load().identical(reference)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(sys.path.append, str(Path(__file__).parent))
        data = jo.sweep(grid, sweep_tasks.drawn, executor=client.get_executor(), store=tmp_path / "d")
        assert data.load().identical(reference)


# --- progress, extras -------------------------------------------------------------------------------------------------


def test_progress(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[float] = []
    jo.sweep({"a": range(6)}, sweep_tasks.picky, chunk=2, progress=told.append)
    assert told == [2 / 6, 4 / 6, 1.0]
    pytest.importorskip("tqdm")
    jo.sweep({"a": range(6)}, sweep_tasks.picky, store=tmp_path / "s", progress=True)
    assert "6/6" in (shown := capfd.readouterr().err)
    assert "cells/s" in shown or "s/ cells" in shown
    assert "failed=2" in shown
    jo.sweep({"a": range(6)}, sweep_tasks.picky, store=tmp_path / "s", progress=True)
    assert "6/6" in capfd.readouterr().err


@pytest.mark.parametrize(("missing", "options"), [("xarray", {}), ("threadpoolctl", {}), ("zarr", {"store": "s"})])
def test_a_missing_extra_is_named(missing: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'sweeps need {missing}: pip install "jepa-ode\[sweep\]"'):
        jo.sweep({"a": [1]}, sweep_tasks.picky, **options)


# --- ready tasks ------------------------------------------------------------------------------------------------------

SPEC = jo.Spectrum([1.0, 0.7, 0.9], rho=[0.9, 0.6, 0.3], sigma2_y=[2.0, 2.0, 4.0])
START = {"depth": 2, "eps": 0.01}


def test_solve_is_that_of_the_package() -> None:
    data = jo.sweep(
        {"ema": [0, 5.0], "weight_decay": [0.0, 0.01]}, "solve", constants={"spec": SPEC, "t": [0.0, 30.0], **START}
    )
    for tau, decay in itertools.product([0, 5.0], [0.0, 0.01]):
        sol = jo.solve(SPEC, jo.JEPA(ema=tau or None, weight_decay=decay), t=[0.0, 30.0], **START)
        here = data.sel(ema=tau, weight_decay=decay)
        assert np.array_equal(here.w, sol.w)
        assert np.array_equal(here.nfev, sol.nfev)
    data = jo.sweep({"objective": ["jepa", "mae"]}, "critical_time", constants={"spec": SPEC, "fraction": 0.8, **START})
    for name in ("jepa", "mae"):
        assert np.array_equal(
            data.sel(objective=name).critical_time, jo.critical_time(SPEC, name, fraction=0.8, **START)
        )
    data = jo.sweep({"stop_gradient": [True, False]}, "solve", constants={"spec": SPEC, "t": [30.0], **START})
    assert (data.w[1] < data.w[0]).all()


def test_order_correlation_and_selection() -> None:
    features = {"trend": "opposite", "features": 12, "lam": (0.5, 1.0), "rho": (0.2, 0.9)}
    spec = jo.models.feature_trends(12, "opposite", lam=(0.5, 1.0), rho=(0.2, 0.9))
    data = jo.sweep({"depth": [1, 4]}, "order_correlation", constants=features | {"eps": 0.01})
    for depth in (1, 4):
        times = [jo.learning_times(spec, name, depth=depth, eps=0.01) for name in ("jepa", "mae")]
        here = data.sel(depth=depth)
        assert here.order_correlation.item() == jo.order_correlation(*times)
        assert [here.learned_jepa, here.learned_mae] == [np.isfinite(each).sum() for each in times]
    data = jo.sweep({"t_end": [1.0, 1e4]}, "selection", constants={"spec": SPEC, "level": 0.2, **START})
    assert data.learned.values.tolist() == [0.0, 2 / 3]
    assert np.isnan(data.weakest[0])
    assert data.weakest[1] == SPEC.rho[1]
    assert np.array_equal(data.response[1], jo.solve(SPEC, "jepa", t=[1e4], **START).w[:, 0])


def test_networks() -> None:
    cov = jo.StaticModel.tilted(SPEC, tilt=0.3).covariances()
    constants: dict[str, Any] = {"cov": cov, "t": [0.0, 40.0], "levels": 0.2}
    data = jo.sweep({"eps": [0.1, 0.01], "rng": [1, 2]}, "gradient_flow", constants=constants | {"depth": 2})
    net = jo.LinearNetwork.balanced(3, 2, 0.01, 2)
    flow = jo.gradient_flow(net, cov, "jepa", t=[0.0, 40.0], levels=0.2)
    here = data.sel(eps=0.01, rng=2)
    assert np.array_equal(here.response, flow.response)
    assert np.array_equal(here.loss, flow.loss)
    assert np.array_equal(here.crossing_time, flow.crossing_time)
    drawn = jo.sweep(
        {"start": ["gaussian", "uniform"], "tilt": [0.0, 0.5]},
        "gradient_flow",
        constants={"spec": SPEC, "t": [9.0], **START},
    )
    assert len(np.unique(drawn.response)) == drawn.response.size
    steps = {"lr": 0.05, "steps": 40, "snapshots": [0, 40], "batch_size": 16}
    trained = jo.sweep(
        {"objective": ["jepa", "mae"], "optimizer": ["sgd", "adam"]},
        "train",
        constants={"spec": SPEC, **steps, **START},
    )
    assert trained.response.dims == ("objective", "optimizer", "feature", "iteration")
    assert trained.iteration.values.tolist() == [0, 40]
    assert np.isfinite(trained.response).all()
    diverged = jo.sweep({"lr": [0.05, 1e3]}, "train", constants={"spec": SPEC, "steps": 40, **START})
    assert diverged.status.values.tolist() == [OK, TROUBLE]


@pytest.mark.parametrize("task", tasks.__all__)
def test_ready_tasks_name_what_they_take(task: str) -> None:
    needed = {"eps": 0.1, "depth": 2, "t": [1.0], "t_end": 1.0, "lr": 0.1, "steps": 1}
    constants = {name: value for name, value in needed.items() if name in signature(tasks.find(task)).parameters}
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'wrong'"):
        jo.sweep({"lam": [1.0]}, task, constants={**constants, "wrong": 1})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "features are missing"),
        ({"spec": SPEC, "lam": [1.0]}, "one of these"),
        ({"lam": [1.0], "features": 3}, "features are missing"),
        ({"trend": "same"}, "trend goes with features"),
        ({"spec": SPEC, "objective": jo.JEPA(), "ema": 3.0}, "options of an objective that is given by name"),
        ({"spec": SPEC, "objective": "mae", "ema": 3.0}, "MAE has no target encoder"),
    ],
)
def test_bad_parameters_of_ready_tasks(parameters: dict[str, Any], message: str) -> None:
    with pytest.warns(UserWarning, match="all 1 cells failed"):
        data = jo.sweep({}, "solve", constants={"t": [1.0], **START, **parameters})
    assert data.status.item() == FAILED
    assert message in data.message.item()
    network = {name: value for name, value in parameters.items() if name != "spec" or "objective" not in parameters}
    with pytest.warns(UserWarning, match="all 1 cells failed"):
        jo.sweep({}, "gradient_flow", constants={"t": [1.0], **START, **network})
