"""Holds Ctrl-C back while it would do harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["CtrlC"]


class CtrlC:
    """Ctrl-C, noted as long as the context lasts and raised where it is let through, at its end at the latest.

    Python raises KeyboardInterrupt between any two operations of the main thread. Inside of what runs around a fork it is
    lost and leaves a lock behind that nobody opens again; where a future or a store has just taken a lock, likewise.

    Only the main thread gets it, so elsewhere there is nothing to hold back.
    """

    def __init__(self, tell: Callable[[], None] = lambda: None) -> None:
        self._tell = tell
        self._noted: list[tuple[int, Any]] = []
        self._usual: Any = None

    def __enter__(self) -> CtrlC:
        usual = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(usual):
            self._usual = usual
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if self._usual is not None:
            signal.signal(signal.SIGINT, self._usual)
        self.let_through()

    def let_through(self) -> None:
        """Do now what Ctrl-C usually does, if there was one."""
        if self._noted:
            noted, self._noted = self._noted[0], []
            self._usual(*noted)

    def _note(self, number: int, frame: Any) -> None:
        self._noted.append((number, frame))
        self._tell()
