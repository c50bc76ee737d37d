"""``jepa-ode bench``: how fast the solvers are on this machine."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from .._core import build_info
from .._progress import StageProgress
from .._threads import available_cpus
from ..bench import LEGEND, Settings, bench, has_scipy, records, table
from .failure import fail, one_line
from .options import count

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bench",
        help="measure how fast the solvers are on this machine",
        description="Measure the exact solution and Runge-Kutta (dop853) for every instruction set, on one CPU and on all, "
        "beside the cost of writing the answer and, where it is installed, SciPy's DOP853 at the same measured error. "
        "Answers are checked first. Takes less than a minute.",
    )
    parser.set_defaults(run=_bench, parser=parser)
    parser.add_argument(
        "--features", type=count, default=None, metavar="N", help="features of the exact solution (default: 100000)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the features and three runs: rougher, in seconds"
    )
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the measurements to a file too")


def _bench(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    del parser
    whole = Settings()
    part = 10 if options.quick else 1
    features = options.features or whole.features // part
    settings = Settings(
        features=features,
        integrated=min(features, whole.integrated // part),
        rounds=3 if options.quick else whole.rounds,
    )
    if options.json is not None and not options.json.parent.is_dir():
        raise NotADirectoryError(f"{options.json.parent} is no folder")
    print(f"jepa-ode {build_info()['version']}, {available_cpus()} CPUs; JEPA of 2 layers, 200 times for each feature")
    try:
        with StageProgress() as progress:
            found = bench(settings, progress=progress)
    except RuntimeError as error:
        return fail(one_line(error))
    print(table(found), LEGEND, sep="\n\n")
    if not has_scipy():
        print('SciPy not installed: pip install "jepa-ode[bench]" compares with it')
    if options.json is not None:
        content = {"build": build_info(), "platform": platform.platform(), "records": records(found)}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0
