"""``jepa-ode reproduce``: the claims of the theory as experiments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import experiments
from .._progress import StageProgress
from .failure import one_line
from .options import seed

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "reproduce",
        help="run the claims of the theory as experiments",
        description="Run experiments, one for each claim of the theory, and write for each its figure (.png), its data (.npz), "
        "setting and verdicts (.json), and one page with all of this run, gallery.html. A verdict is computed from the data. "
        "The exit code is 0 when every claim holds, 3 otherwise.",
    )
    parser.set_defaults(run=_reproduce, parser=parser)
    parser.add_argument("experiments", nargs="*", metavar="NAME", help="which (default: all)")
    parser.add_argument("--list", action="store_true", help="show the names and leave")
    parser.add_argument("--fast", action="store_true", help="smaller versions: all in about a minute")
    parser.add_argument(
        "-o",
        "--output",
        "--out",
        type=Path,
        default=Path("jepa-ode-gallery"),
        metavar="FOLDER",
        help="where to write (default: %(default)s)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no verdicts on the terminal")
    parser.add_argument("--seed", type=seed, default=0, help="of everything random (default: %(default)s)")


def _reproduce(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if options.list:
        for name in experiments.names():
            about = experiments.find(name).ABOUT
            extra = f' (needs "jepa-ode[{about.extra}]")' if about.extra else ""
            print(f"{about.number:3}. {name.replace('_', '-'):28} {about.title}{extra}")
        return 0
    for name in options.experiments:
        try:
            experiments.find(name)
        except ValueError as error:
            parser.error(one_line(error))
    if options.output.exists() and not options.output.is_dir():
        raise NotADirectoryError(f"{options.output} is a file, not a folder")
    with StageProgress(quiet=options.quiet) as progress:
        outcomes = experiments.reproduce(
            options.experiments or None, fast=options.fast, seed=options.seed, out=options.output, progress=progress
        )
    if not options.quiet:
        for outcome in outcomes:
            print(f"{outcome.about.number}. {outcome.about.title}: {outcome.verdict} ({outcome.seconds:.1f} s)")
            lines = [outcome.error] if outcome.result is None else outcome.result.verdicts()
            for line in lines:
                print(f"     {line}")
        print(f"{sum(outcome.holds for outcome in outcomes)} of {len(outcomes)} claims hold")
        print(f"Gallery: {options.output / 'gallery.html'}")
    return 0 if all(outcome.holds for outcome in outcomes) else 3
