"""``jepa-ode sweep``: a task over a grid of parameters, as a file describes it, to a store."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._progress import StageProgress
from ..sweeps import CellStatus, SweepError, sweep
from ..sweeps._config import find_config, read_config, studies
from .failure import fail, one_line
from .options import count
from .plot import draw, require_drawable

if TYPE_CHECKING:
    import xarray

__all__ = ["add"]

_MESSAGES = 5  # of failed cells, the most frequent


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "sweep",
        help="run a task over a grid of parameters",
        description="Run the task of a TOML file in every cell of its grid and keep the results in a Zarr store. The same "
        "command goes on where it was ended. The exit code is 0 when all cells ran, 3 when some failed.",
    )
    parser.set_defaults(run=_sweep, parser=parser)
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a TOML file, or the name of a ready study")
    parser.add_argument("--list", action="store_true", help="show the ready studies and their files, and leave")
    parser.add_argument(
        "--store", type=Path, default=None, metavar="FOLDER", help="where to keep the results (default: as CONFIG says)"
    )
    parser.add_argument("--figure", type=Path, default=None, metavar="FILE", help="draw the figure of CONFIG when done")
    parser.add_argument(
        "--chunk", type=count, default=None, metavar="N", help="most cells that are worked on as one piece"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run the cells again that failed")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary on the terminal")
    where = parser.add_argument_group("where to work (default: in this process); one of").add_mutually_exclusive_group()
    where.add_argument(
        "-w", "--workers", type=count, default=None, metavar="N", help="so many processes of this machine"
    )
    where.add_argument(
        "--dask",
        default=None,
        metavar="ADDRESS",
        help="the workers of a Dask scheduler; they must find the task's module",
    )
    where.add_argument(
        "--mpi",
        action="store_true",
        help="the ranks of MPI: mpiexec -n N python -m mpi4py.futures -m jepa_ode sweep CONFIG --mpi",
    )


def _sweep(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if options.list:
        for name, path in studies().items():
            print(f"{name:16} {read_config(path).title}\n{'':16} {path}")
        return 0
    if options.config is None:
        parser.error("CONFIG is missing: a TOML file, or the name of a ready study (--list)")
    path = find_config(options.config)
    config = read_config(path)
    store = options.store or config.store
    if options.figure is not None:
        require_drawable(options.figure)
    attrs = {"title": config.title, "figure": json.dumps(config.figure)}
    try:
        with _executor(options, path.parent) as executor, _progress(options.quiet) as progress, _plain_warnings():
            data = sweep(
                config.grid,
                config.task,
                constants=config.constants,
                rng=config.rng,
                executor=executor,
                store=store,
                chunk=options.chunk,
                retry_failed=options.retry_failed,
                attrs=attrs,
                progress=progress,
            )
    except SweepError as error:
        return fail(one_line(error))
    failed = _summarise(data, store, quiet=options.quiet)
    if not store.exists():  # there is none of results when there are no results
        print("jepa-ode: warning: no cell has a result, and no store was made", file=sys.stderr)
        return 3
    if options.figure is not None:
        draw(data, config.title, config.figure, options.figure)
        if not options.quiet:
            print(f"Figure: {options.figure}")
    return 3 if failed else 0


@contextmanager
def _executor(options: argparse.Namespace, folder: Path) -> Iterator[Any]:
    """Yield what `sweep` takes as ``executor``."""
    if options.dask is not None:
        try:
            from distributed import Client
        except ImportError as error:
            raise ImportError("--dask needs distributed: pip install distributed") from error
        with Client(options.dask) as client:
            yield client.get_executor()
    elif options.mpi:
        try:
            from mpi4py.futures import MPIPoolExecutor
        except ImportError as error:
            raise ImportError("--mpi needs mpi4py: pip install mpi4py") from error
        with MPIPoolExecutor(path=[str(folder.resolve())]) as executor:  # where the module of the task may be
            yield executor
    else:
        yield options.workers


@contextmanager
def _progress(quiet: bool) -> Iterator[bool | Callable[[float], object]]:
    """Yield what `sweep` takes as ``progress``: a bar that counts cells on a terminal, else a line."""
    if quiet:
        yield False
    elif sys.stderr.isatty() and find_spec("tqdm") is not None:
        yield True
    else:
        with StageProgress() as stage:
            yield lambda part: stage("sweep", part)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show what the sweep warns of as a line of this command."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=".* is not the function it was")
        warnings.filterwarnings("always", message=".*; the processes are started again")
        warnings.filterwarnings("ignore", message="all .* cells failed")  # the summary says so
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *more: Any, **named: Any) -> None:
            if category is UserWarning or str(message).endswith("the processes are started again"):
                print(f"jepa-ode: warning: {message}", file=sys.stderr)
            else:
                shown(message, category, *more, **named)

        warnings.showwarning = show
        yield


def _summarise(data: xarray.Dataset, store: Path, *, quiet: bool) -> int:
    """Say what became of the cells, failures even if quiet, and return the number of these."""
    status = data.status.values
    found = {code: int(np.count_nonzero(status == code)) for code in CellStatus}
    failed, troubled = found[CellStatus.FAILED], found[CellStatus.TROUBLE]
    if not quiet:
        print(f"{status.size} cells: {found[CellStatus.OK]} ok, {troubled} in numerical trouble, {failed} failed")
    for code, words in ((CellStatus.FAILED, "failed"), (CellStatus.TROUBLE, "in numerical trouble")):
        reasons = Counter(data.message.values[status == code].tolist())
        for reason, cells in reasons.most_common(_MESSAGES):
            print(f"jepa-ode: warning: {cells} {words}: {reason}", file=sys.stderr)
        if len(reasons) > _MESSAGES:
            print(f"jepa-ode: warning: and {len(reasons) - _MESSAGES} other messages of cells {words}", file=sys.stderr)
    if store.exists() and not quiet:
        print(f"Store: {store}\nTo draw it: jepa-ode plot {shlex.quote(str(store))}")
    return failed
