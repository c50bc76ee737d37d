"""The command line, ``jepa-ode COMMAND``: a file for each command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .._core import build_info
from ..pairs import DataError
from . import analyze, bench, info, plot, reproduce, sweep
from .failure import fail, one_line

__all__ = ["main", "parser"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: done. 1: bad data, a bad file or a missing extra, with one line on standard error. 2: wrong usage. 3: not every claim
    of an experiment was seen to hold, or cells of a sweep failed. 130: interrupted.
    """
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options, options.parser))
    except BrokenPipeError:  # whoever read this has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except DataError as error:
        return fail(str(error))
    except (ImportError, ValueError, OSError) as error:
        return fail(one_line(error))
    except MemoryError:
        return fail("not enough memory")
    except KeyboardInterrupt as interrupt:
        print(f"jepa-ode: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    whole = argparse.ArgumentParser(
        prog="jepa-ode",
        description="Which features JEPA and MAE learn from your data, in what order and when.",
    )
    whole.add_argument("--version", action="version", version=f"jepa-ode {build_info()['version']}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND", title="commands")
    analyze.add(commands)
    reproduce.add(commands)
    sweep.add(commands)
    plot.add(commands)
    bench.add(commands)
    info.add(commands)
    return whole
