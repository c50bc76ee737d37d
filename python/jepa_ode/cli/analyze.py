"""``jepa-ode analyze``: pairs of views, as files or made of images, to a report."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._progress import StageProgress
from ..objectives import JEPA, MAE
from ..pairs import DataError, read_pairs
from ..report import Settings, analyze, write_report
from ..report.cautions import too_few_samples
from ..report.findings import findings
from ..views import BUILDERS, AdditiveNoise, Halves, PatchMask, RandomMask, ViewBuilder
from .failure import one_line
from .options import count, from_one, from_zero, positive, seed, shape, share, shrinkage

__all__ = ["add", "load"]

# Options that make views of images; pairs are views already.
_VIEW_OPTIONS = ("views", "keep", "patch", "target", "noise_std", "split", "mirror", "raw_pixels")


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "analyze",
        help="analyse pairs of views and write a report",
        description="Estimate the features of pairs of views, predict how JEPA and MAE learn them, check it by training the "
        "deep linear network, and write report.html, features.csv and analysis.json.",
    )
    parser.set_defaults(run=_analyze, parser=parser)
    parser.add_argument(
        "-o",
        "--output",
        "--out",
        type=Path,
        default=Path("jepa-ode-report"),
        metavar="FOLDER",
        help="where to write the report (default: %(default)s)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no findings on the terminal")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the random views (default: %(default)s)")
    parser.add_argument("--threads", type=count, default=None, help="threads of the solvers (default: all CPUs)")

    data = parser.add_argument_group("data")
    data.add_argument(
        "--pairs",
        nargs="+",
        type=Path,
        default=None,
        metavar="FILE",
        help="your own pairs: one .npz with x and y, or two .npy or .csv files; without it the digits of scikit-learn are used",
    )
    data.add_argument(
        "--image-shape", type=shape, default=None, metavar="HxW", help="shape of one row of the pairs as an image"
    )
    data.add_argument(
        "--exchangeable",
        action="store_true",
        help="x and y of the pairs were made in the same way: average over their exchange",
    )
    data.add_argument(
        "--shrinkage",
        type=shrinkage,
        default=None,
        metavar="none|ledoit-wolf|NUMBER",
        help="for few samples (default: none)",
    )
    data.add_argument(
        "--features",
        type=count,
        default=200,
        metavar="N",
        help="report at most the N features learned first (default: %(default)s)",
    )

    views = parser.add_argument_group("views of the digits (not with --pairs)")
    views.add_argument(
        "--views", choices=sorted(BUILDERS), default=None, help="how x and y are made (default: random-mask)"
    )
    views.add_argument(
        "--keep",
        type=float,
        default=None,
        help=f"share of pixels or patches that a view keeps (default: {RandomMask().keep})",
    )
    views.add_argument(
        "--patch", type=int, default=None, help=f"patch-mask: side of a patch (default: {PatchMask().patch})"
    )
    views.add_argument(
        "--target",
        choices=("hidden", "image"),
        default=None,
        help=f"patch-mask: what y sees (default: {PatchMask().target})",
    )
    views.add_argument(
        "--noise-std", type=float, default=None, help=f"noise: standard deviation (default: {AdditiveNoise().std})"
    )
    views.add_argument(
        "--split", choices=("left-right", "top-bottom"), default=None, help=f"halves: which (default: {Halves().split})"
    )
    views.add_argument("--mirror", action="store_true", help="halves: reflect y")
    views.add_argument("--raw-pixels", action="store_true", help="do not scale pixels to unit variance first")

    model = parser.add_argument_group("model")
    model.add_argument(
        "--depth",
        type=from_one,
        default=2.0,
        help="number of encoder layers; the predictions take any real number >= 1 (default: %(default)s)",
    )
    model.add_argument(
        "--eps", type=positive, default=0.01, help="response of the encoder at the start (default: %(default)s)"
    )
    model.add_argument(
        "--fraction",
        type=share,
        default=0.5,
        help="a feature is learned at this fraction of its own fixed point (default: %(default)s)",
    )
    model.add_argument(
        "--min-growth",
        type=from_one,
        default=2.0,
        metavar="FACTOR",
        help="and only if it has grown by this factor since the start (default: %(default)s)",
    )
    model.add_argument("--no-stop-gradient", action="store_true", help="JEPA without stop-gradient (matrix flow)")
    model.add_argument(
        "--ema",
        type=positive,
        default=None,
        metavar="TAU",
        help="JEPA with a moving-average target of this time constant (matrix flow)",
    )
    model.add_argument(
        "--weight-decay",
        type=from_zero,
        default=0.0,
        metavar="ETA",
        help="of both objectives (matrix flow) (default: %(default)s)",
    )

    flow = parser.add_argument_group("matrix flow")
    flow.add_argument(
        "--flow",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="integrate the network to check the predictions (default: yes)",
    )
    flow.add_argument(
        "--flow-features",
        type=count,
        default=64,
        metavar="N",
        help="data of more coordinates are projected onto the N features learned first (default: %(default)s)",
    )
    flow.add_argument(
        "--flow-budget",
        type=positive,
        default=30.0,
        metavar="SECONDS",
        help="work for each objective, in seconds of a nominal machine; the horizon is cut to fit (default: %(default)s)",
    )


def _analyze(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    settings = _settings(options, parser)
    _require_matplotlib()
    if options.output.exists() and not options.output.is_dir():
        raise NotADirectoryError(f"{options.output} is a file, not a folder")
    with StageProgress(quiet=options.quiet) as progress:
        progress("data", 0.0)
        data = load(options, parser)
        progress("data", 1.0)
        settings = replace(
            settings,
            source=data.source,
            views=data.views,
            remark=data.remark,
            exchangeable=data.exchangeable,
            image_shape=data.image_shape,
        )
        analysis = analyze(data.x, data.y, settings, progress=progress)
        report = write_report(analysis, options.output, progress=progress)
    warning = too_few_samples(analysis)
    if warning:
        print(f"jepa-ode: warning: {warning}", file=sys.stderr)
    if not options.quiet:
        for finding in findings(analysis):
            print(f"{finding.topic}: {finding.text}")
        print(f"Report: {report}")
    return 0


def _settings(options: argparse.Namespace, parser: argparse.ArgumentParser) -> Settings:
    """Check every option that does not need the data, before any of it is read."""
    if options.ema is not None and options.no_stop_gradient:
        parser.error("--ema and --no-stop-gradient exclude each other: a moving-average target has a stop-gradient")
    try:
        settings = Settings(
            depth=options.depth,
            eps=options.eps,
            fraction=options.fraction,
            min_growth=options.min_growth,
            jepa=JEPA(
                stop_gradient=not options.no_stop_gradient,
                ema=options.ema,
                weight_decay=options.weight_decay,
            ),
            mae=MAE(weight_decay=options.weight_decay),
            shrinkage=options.shrinkage,
            max_features=options.features,
            flow=options.flow,
            flow_features=options.flow_features,
            flow_budget=options.flow_budget,
            threads=options.threads,
            seed=options.seed,
        )
    except ValueError as error:
        parser.error(one_line(error))
    if not settings.plain and not settings.flow:
        parser.error("--no-stop-gradient, --ema and --weight-decay act on the matrix flow: drop --no-flow")
    if options.pairs:
        given = [name for name in _VIEW_OPTIONS if getattr(options, name)]
        if given:
            parser.error(f"--{given[0].replace('_', '-')} makes views of images, --pairs are views already: drop one")
        if len(options.pairs) > 2:
            parser.error(f"--pairs takes one .npz file or two .npy or .csv files, got {len(options.pairs)}")
        if len(options.pairs) == 1 and options.pairs[0].suffix.lower() in (".npy", ".csv"):
            parser.error(f"--pairs {options.pairs[0]}: the second view is missing, give x and y")
    elif options.image_shape or options.exchangeable:
        parser.error("--image-shape and --exchangeable go with --pairs; the digits bring their own")
    return settings


@dataclass(frozen=True)
class _Data:
    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    source: str
    views: str
    remark: str
    exchangeable: bool
    image_shape: tuple[int, int] | None


def load(options: argparse.Namespace, parser: argparse.ArgumentParser) -> _Data:
    """Return the views that the options ask for."""
    if options.pairs:
        pairs = read_pairs(*options.pairs)
        shape = options.image_shape or pairs.image_shape
        d = pairs.x.shape[1]
        if options.image_shape and options.image_shape[0] * options.image_shape[1] != d:
            height, width = options.image_shape
            raise DataError(
                f"--image-shape {height}x{width} is that of {height * width} columns, the views have {d} ({pairs.source})"
            )
        return _Data(pairs.x, pairs.y, pairs.source, "as given", "", options.exchangeable, shape)
    images = _digits()
    pixels, remark = "raw pixels", ""
    if not options.raw_pixels:
        images, remark = _standardized(images)
        pixels = "pixels scaled to unit variance"
    builder = _view_builder(options, parser)
    x, y = builder(images, rng=options.seed)
    height, width = builder.view_shape(images.shape[1:])
    views = f"{builder!r} of {pixels}"
    return _Data(x, y, "the scikit-learn digits", views, remark, builder.exchangeable, (height, width))


def _view_builder(options: argparse.Namespace, parser: argparse.ArgumentParser) -> ViewBuilder:
    name = options.views or "random-mask"
    takes = {
        "random-mask": ("keep",),
        "patch-mask": ("patch", "keep", "target"),
        "noise": ("noise_std",),
        "halves": ("split", "mirror"),
    }[name]
    given = {}
    for option in _VIEW_OPTIONS[1:-1]:
        if getattr(options, option):
            if option not in takes:
                parser.error(f"--{option.replace('_', '-')} is no option of --views {name}")
            given[option.removeprefix("noise_")] = getattr(options, option)
    try:
        return BUILDERS[name](**given)
    except ValueError as error:
        message = one_line(error)
        parser.error(f"--{'noise-' * message.startswith('std ')}{message}")


def _digits() -> npt.NDArray[np.float64]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'the digits come with scikit-learn: pip install "jepa-ode[analyze]", or give your own --pairs'
        ) from error
    return np.asarray(load_digits().images, dtype=np.float64) / 16


def _standardized(images: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], str]:
    """Scale every pixel to unit variance, make constant what hardly varies, and say how many pixels that concerns.

    Masking adds noise to a pixel in proportion to its variance. With equal variances the noise is
    the same in all directions, and features couple little (THEORY.md 6). A pixel that is set in a
    handful of images would only be blown up.
    """
    deviation = images.std(axis=0)
    varies = deviation > 0.1 * deviation.max()
    scaled: npt.NDArray[np.float64] = (images - images.mean(axis=0)) / np.where(varies, deviation, np.inf)
    constant = int(np.count_nonzero(deviation == 0))
    aside = int(np.count_nonzero(~varies)) - constant
    return scaled, f"Of the pixels, {constant} are constant in the data and {aside} hardly vary and were set aside."


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError('the report needs matplotlib: pip install "jepa-ode[analyze]"') from error
