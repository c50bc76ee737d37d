"""Progress of long work: what ``progress=`` asks for, and named stages on standard error, as bars or as lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from ._extras import require

__all__ = ["StageProgress", "cell_progress", "progress_callback"]


class StageProgress:
    """Shows one stage after the other; call it with the name of a stage and the fraction of it that is done.

    With tqdm on a terminal each stage is a bar; otherwise it is a line when the stage begins. A
    quiet one shows nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._stage = ""
        self._bar: Any = None
        self._tqdm: Any = None
        if not quiet and sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._tqdm = tqdm

    def __call__(self, stage: str, fraction: float) -> None:
        """Say that `fraction` of `stage` is done."""
        if self._quiet:
            return
        if stage != self._stage:
            self.close()
            self._stage = stage
            if self._tqdm is None:
                print(f"{stage} ...", file=sys.stderr, flush=True)
            else:
                self._bar = self._tqdm(
                    total=100, desc=f"{stage:18}", bar_format="{desc} {bar:30} {percentage:3.0f}%  {elapsed}"
                )
        if self._bar is not None:
            self._bar.update(100 * min(fraction, 1.0) - self._bar.n)

    def close(self) -> None:
        """End the stage on show."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> StageProgress:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the stage on show, whatever happened."""
        self.close()


@contextmanager
def progress_callback(progress: Any, what: str) -> Iterator[Callable[[float], object] | None]:
    """Yield what to call with the part done, None where nobody asked; it is told of the end by itself."""
    if callable(progress):
        yield progress
        progress(1.0)
        return
    if not isinstance(progress, bool):
        raise TypeError(f"progress must be True, False or a callable, got {progress!r}")
    if not progress:
        yield None
        return
    with _tqdm()(total=100, unit="%", bar_format=what + " {l_bar}{bar}| {elapsed}") as bar:

        def show(part: float) -> None:
            bar.update(100 * part - bar.n)

        yield show
        show(1.0)


@contextmanager
def cell_progress(progress: Any, total: int, done: int) -> Iterator[Callable[[int, int], object]]:
    """Yield what to call with numbers of cells that are done, and of failures among them, of `total`."""
    if progress is not True:
        with progress_callback(progress, "") as tell:

            def pass_on(cells: int, _: int) -> None:
                nonlocal done
                done += cells
                if tell is not None and done < total:
                    tell(done / total)

            yield pass_on
        return
    bar, failures = _tqdm()(total=total, initial=done, unit=" cells", desc="sweep"), 0
    with bar:

        def show(cells: int, failed: int) -> None:
            nonlocal failures
            failures += failed
            bar.set_postfix(failed=failures, refresh=False)
            bar.update(cells)

        yield show


def _tqdm() -> Any:
    require("tqdm.auto", "progress=True needs", "progress")
    from tqdm.auto import tqdm

    return tqdm
