"""How many threads a call may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ._validate import as_index

__all__ = ["as_threads", "available_cpus", "threads_by_default"]

_default: ContextVar[int | None] = ContextVar("threads", default=None)


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def as_threads(threads: Any) -> int:
    """Return the number of threads; None means every CPU that the process may use, or what `threads_by_default` says."""
    if threads is not None:
        return as_index("threads", threads, minimum=1)
    return _default.get() or available_cpus()


@contextmanager
def threads_by_default(threads: int | None) -> Iterator[None]:
    """Let ``threads=None`` mean this number, in the calling thread: workers side by side share the CPUs."""
    token = _default.set(threads)
    try:
        yield
    finally:
        _default.reset(token)
