"""Sends blocks to executors of whatever kind and takes results as they come."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait
from typing import Any, Protocol

from .._validate import as_index
from ._cells import BlockResult
from ._ctrl_c import CtrlC
from ._grid import Block

__all__ = ["Executor", "ExecutorError", "work_off"]

_IN_VAIN = 3  # times that processes are started again without a block being finished in between
_MANY = 1000  # blocks on their way at a time, where the number of workers is not known


class Executor(Protocol):
    """What a sweep needs of an executor."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """Call a function with these arguments somewhere and return a future with ``add_done_callback``."""


class ExecutorError(RuntimeError):
    """The executor's fault, not the task's: workers died, or work cannot be sent to them."""


Take = Callable[[Block, BlockResult | None], None]


def work_off(
    executor: int | Executor | None,
    function: Callable[..., BlockResult],
    arguments: Callable[[Block], tuple[Any, ...]],
    blocks: Sequence[Block],
    wanted: Callable[[Block], bool],
    take: Take,
) -> None:
    """Call ``function`` for every block that is still wanted when its turn comes; ``take`` all results, None for the others.

    Whatever ends this early, no block is started any more and results that are there are taken.
    """
    if executor is None:
        for block in blocks:
            result = function(*arguments(block)) if wanted(block) else None
            with CtrlC():
                take(block, result)
    elif isinstance(executor, int) and not isinstance(executor, bool):
        number = as_index("executor", executor, minimum=1)
        _require_picklable(arguments, blocks)
        _on_processes(number, lambda block: (function, *arguments(block)), blocks, wanted, take)
    elif not isinstance(executor, int) and callable(getattr(executor, "submit", None)):
        if isinstance(executor, ProcessPoolExecutor):
            _require_picklable(arguments, blocks)
        workers = getattr(executor, "_max_workers", None) or getattr(executor, "num_workers", None)
        _Crew(executor, workers, None, take).work(function, arguments, blocks, wanted)
    else:
        raise TypeError(f"executor must be a number of processes or have a method submit, got {executor!r}")


def _on_processes(
    number: int,
    arguments: Callable[[Block], tuple[Any, ...]],
    blocks: Sequence[Block],
    wanted: Callable[[Block], bool],
    take: Take,
) -> None:
    """Work off blocks on processes of our own, which are started again when one is killed, as long as that helps.

    A block that kills its worker every time does not keep the others from being finished.
    """
    left, in_vain = list(blocks), 0
    while True:
        taken: set[int] = set()

        def noted(block: Block, result: BlockResult | None, taken: set[int] = taken) -> None:
            take(block, result)
            taken.add(block.first)

        pool = ProcessPoolExecutor(number, initializer=_prepare_worker)
        crew = _Crew(pool, number, partial(pool.shutdown, wait=True, cancel_futures=True), noted)
        try:
            crew.work(_interruptible, arguments, left, wanted)
        except ExecutorError as error:
            in_vain = 0 if taken else in_vain + 1
            if not isinstance(error.__cause__, BrokenExecutor) or in_vain > _IN_VAIN:
                raise
            warnings.warn(f"{error}; the processes are started again", RuntimeWarning, stacklevel=4)
            suspects = crew.unfinished
            doubtful = {block.first for block in suspects}
            left = [block for block in left if block.first not in taken | doubtful]
            left += suspects[1:] + suspects[:1]
        else:
            return


class _Crew:
    """The futures of one sweep."""

    def __init__(self, executor: Executor, workers: Any, stop: Callable[[], None] | None, take: Take) -> None:
        self._executor, self._stop, self._take = executor, stop, take
        self._window = 2 * workers + 2 if isinstance(workers, int) else _MANY
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._pending: dict[Any, Block] = {}

    def work(
        self,
        function: Callable[..., BlockResult],
        arguments: Callable[[Block], tuple[Any, ...]],
        blocks: Sequence[Block],
        wanted: Callable[[Block], bool],
    ) -> None:
        left = iter(blocks)
        try:
            with CtrlC(tell=lambda: self._ready.put(None)) as ctrl_c:
                while True:
                    while len(self._pending) < self._window and (block := next(left, None)) is not None:
                        if wanted(block):
                            self._submit(block, function, arguments(block))
                        else:
                            self._take(block, None)
                    if not self._pending:
                        break
                    future = self._ready.get()
                    if future is None:
                        ctrl_c.let_through()
                    else:
                        result = _result(future)
                        self._take(self._pending.pop(future), result)
        except BaseException:
            self._end()
            raise
        if self._stop is not None:
            self._stop()

    @property
    def unfinished(self) -> list[Block]:
        """Blocks that were under way, in the order in which they were sent, when the work ended early."""
        return list(self._pending.values())

    def _submit(self, block: Block, function: Callable[..., BlockResult], arguments: tuple[Any, ...]) -> None:
        try:
            future = self._executor.submit(function, *arguments)
        except Exception as error:
            raise _failure(error) from error
        self._pending[future] = block
        future.add_done_callback(self._ready.put)

    def _end(self) -> None:
        for future in list(self._pending):
            future.cancel()
        if self._stop is not None:
            self._stop()  # which waits for what is being worked on
        with suppress(queue.Empty):
            while True:
                if (future := self._ready.get_nowait()) is not None:
                    with suppress(Exception, CancelledError, KeyboardInterrupt):
                        result = future.result()
                        self._take(self._pending.pop(future), result)


def _result(future: Any) -> BlockResult:
    try:
        result: BlockResult = future.result()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _failure(error) from error
    return result


def _failure(error: BaseException) -> ExecutorError:
    """Say what is wrong with the workers; tasks that raise do not come here."""
    return ExecutorError(f"the executor failed, perhaps a worker was killed ({type(error).__name__}: {error})")


def _require_picklable(arguments: Callable[[Block], tuple[Any, ...]], blocks: Sequence[Block]) -> None:
    """Raise TypeError where work cannot be sent to processes: pools of Python 3.11 hang when they find out themselves."""
    try:
        for block in blocks[:1]:
            pickle.dumps(arguments(block))
    except Exception as error:
        raise TypeError(
            f"the task or its parameters cannot be sent to other processes; a task must be a function of a module ({error})"
        ) from error


def _prepare_worker() -> None:
    """Ignore Ctrl-C while idle, and do not outlive the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        wait([parent.sentinel])  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _interruptible(function: Callable[..., BlockResult], *arguments: Any) -> BlockResult:
    """Let Ctrl-C end the task that is running, not the worker."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return function(*arguments)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
