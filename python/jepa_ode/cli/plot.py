"""``jepa-ode plot``: the store of a sweep, finished or not, as a figure."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import require
from ..sweeps import CellStatus, open_sweep
from ..sweeps._config import FIGURE_TEXTS

if TYPE_CHECKING:
    import xarray

__all__ = ["add", "draw", "require_drawable"]

_AXES = ("x", "y", "hue", "over")


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "plot",
        help="draw the store of a sweep",
        description="Draw a variable of a sweep, finished or not: as a map over two parameters that are numbers, as lines over "
        "one. Options take the place of the [figure] of the sweep's file.",
    )
    parser.set_defaults(run=_plot, parser=parser)
    parser.add_argument("store", type=Path, metavar="STORE", help="the store of `jepa-ode sweep` or of jepa_ode.sweep")
    parser.add_argument("--list", action="store_true", help="show what is in the store and leave")
    parser.add_argument("--variable", default=None, metavar="NAME", help="what to draw (default: the first that fits)")
    parser.add_argument("--x", default=None, metavar="NAME", help="parameter along x")
    parser.add_argument("--y", default=None, metavar="NAME", help="parameter along y, of a map")
    parser.add_argument("--hue", default=None, metavar="NAME", help="parameter that has a line for each of its values")
    parser.add_argument(
        "--over",
        default=None,
        metavar="NAME",
        help="parameter to summarise, such as a seed: the median and, for lines, a band from the 10th to the 90th percentile",
    )
    parser.add_argument(
        "--select",
        type=_selection,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one value; may be repeated",
    )
    parser.add_argument("--title", default=None, metavar="TEXT", help="title of the figure")
    parser.add_argument(
        "-o", "--output", "--out", type=Path, default=None, metavar="FILE", help="the figure (default: STORE.png)"
    )


def _selection(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, like depth=2, got {text!r}")
    return name, value


def _plot(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if options.y is not None and options.hue is not None:
        parser.error("--y makes a map, --hue makes lines: drop one")
    output = options.output or options.store.with_suffix(".png")
    if not options.list:
        require_drawable(output)
    data = open_sweep(options.store)
    if options.list:
        print("\n".join(_contents(data, options.store)))
        return 0
    draw(data, data.attrs.get("title", ""), _wanted(json.loads(data.attrs.get("figure", "{}")), options), output)
    if waiting := int(np.count_nonzero(data.status.values == CellStatus.NOT_RUN)):
        print(f"jepa-ode: warning: {waiting} of {data.status.size} cells are not run yet", file=sys.stderr)
    print(f"Figure: {output}")
    return 0


def _wanted(figure: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return the figure of the file with options in its place: a parameter that they use has no other use."""
    given = {name: getattr(options, name) for name in FIGURE_TEXTS if getattr(options, name) is not None}
    select = dict(options.select)
    used = {given[name] for name in _AXES if name in given} | set(select)
    dropped = {name for name in _AXES if figure.get(name) in used}
    if dropped and not given.keys() & {"x", "y", "hue"}:
        dropped |= {"x", "y", "hue"}  # of what is left another figure is made
    dropped |= {other for name, other in (("y", "hue"), ("hue", "y")) if name in given}
    kept = {name: value for name, value in figure.items() if name not in dropped}
    chosen = {name: value for name, value in figure.get("select", {}).items() if name not in used}
    return kept | given | {"select": chosen | select}


def require_drawable(path: Path) -> None:
    """Raise ImportError, OSError or ValueError where a figure cannot be written to this file: before any work is done."""
    require("matplotlib", "figures need", "plot")
    from matplotlib.figure import Figure

    formats = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise ValueError(f"figure {path} must end in one of {', '.join(f'.{name}' for name in formats)}")
    if not path.absolute().parent.is_dir():
        raise NotADirectoryError(f"figure {path}: {path.parent} is no folder")


def draw(data: xarray.Dataset, title: str, figure: Mapping[str, Any], path: Path) -> None:
    """Draw a sweep as ``[figure]`` of its file says, and write it to a file of matplotlib's formats."""
    from matplotlib.figure import Figure

    from ..plot import plot_sweep_lines, plot_sweep_map

    data, chosen = _selected(data, figure.get("select", {}))
    for name, label in figure.get("labels", {}).items():
        if name not in data.variables:
            known = [str(each) for each in (*data.coords, *data.data_vars) if each not in ("message", "status")]
            raise ValueError(f"labels: {name} must be one of {', '.join(known)}")
        data[name].attrs["long_name"] = label
    variable = figure.get("variable") or _first_variable(data)
    axes = {name: figure[name] for name in _AXES if name in figure}
    if variable in data.data_vars:  # a dimension of one value needs no choice
        single = {dim: 0 for dim in data[variable].dims if data.sizes[dim] == 1 and dim not in axes.values()}
        data = data.isel(single)
    drawn = Figure(figsize=(7.2, 4.8), layout="constrained")
    ax = drawn.add_subplot()
    if _is_map(data, variable, axes):
        plot_sweep_map(data, variable, ax, **axes)
    else:
        plot_sweep_lines(data, variable, ax, **axes)
    lines = [figure.get("title") or title, ", ".join(chosen)]
    ax.set_title("\n".join(line for line in lines if line), fontsize=11)
    drawn.savefig(path, dpi=150, bbox_inches="tight")


def _selected(data: xarray.Dataset, select: Mapping[str, Any]) -> tuple[xarray.Dataset, list[str]]:
    """Return the part of the data that is chosen, and what to say of the choice."""
    chosen = []
    for name, wanted in select.items():
        if name not in data.dims and (name not in data.coords or data[name].ndim != 1):
            raise ValueError(f"--select: {name} must be one of {', '.join(map(str, data.dims))}")
        values = data[name].values if name in data.coords else np.arange(data.sizes[name])
        places = [k for k, value in enumerate(values.tolist()) if _is(value, wanted)]
        if len(places) != 1:
            known = ", ".join(map(str, values.tolist())) if values.size <= 12 else f"{values[0]}, ..., {values[-1]}"
            how_many = "is no value" if not places else f"is {len(places)} values"
            raise ValueError(
                f"--select: {name}={wanted} {how_many} of {name}, choose one of {known}{_nearest(values, wanted)}"
            )
        dim = data[name].dims[0] if name in data.coords else name
        data = data.isel({dim: places[0]})
        chosen.append(f"{name} = {wanted}")
    return data, chosen


def _nearest(values: Any, wanted: Any) -> str:
    try:
        return f" (the nearest is {values[np.argmin(np.abs(values - float(wanted)))]:.12g})"
    except (TypeError, ValueError):
        return ""


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return math.isclose(value, float(wanted), rel_tol=1e-6)
        except ValueError:
            return False
    return str(value).lower() == str(wanted).lower()


def _first_variable(data: xarray.Dataset) -> str:
    """Return the first variable of at least one and at most two dimensions, else the first that is numbers at all."""
    numeric = [
        str(name) for name in data.data_vars if name not in ("message", "status") and data[name].dtype.kind == "f"
    ]
    if not numeric:
        raise ValueError("there are no numbers to draw in this store")
    return next((name for name in numeric if 1 <= data[name].ndim <= 2), numeric[0])


def _is_map(data: xarray.Dataset, variable: str, axes: Mapping[str, str]) -> bool:
    """Whether a map is wanted: by its y, or where nothing else is said and two dimensions of numbers are left."""
    if variable not in data.data_vars or not all(name in data.dims or name in data.coords for name in axes.values()):
        return "y" in axes  # the plot says what is wrong
    used = {data[name].dims[0] if name in data.coords and data[name].ndim else name for name in axes.values()}
    left = [dim for dim in data[variable].dims if dim not in used]
    if len(left) > 2 - len({"x", "y", "hue"} & axes.keys()):
        listed = ", ".join(f"{dim} ({data.sizes[dim]} values)" for dim in left)
        raise ValueError(
            f"{variable} has more dimensions than a figure, left over: {listed}; choose by --select NAME=VALUE, summarise one "
            "by --over NAME, show two by --x and --y or --hue"
        )
    if "y" in axes or "hue" in axes:
        return "y" in axes
    shown = [dim for dim in data[variable].dims if dim != axes.get("over")]
    return len(shown) == 2 and all(dim not in data.coords or data[dim].dtype.kind in "iuf" for dim in shown)


def _contents(data: xarray.Dataset, store: Path) -> list[str]:
    """Describe a store."""
    status = data.status.values
    counts = [f"{int(np.count_nonzero(status == code))} {code.name.lower().replace('_', ' ')}" for code in CellStatus]
    title = data.attrs.get("title")
    lines = [f"{store}: {title}" if title else str(store), f"task: {data.attrs['task']}"]
    lines.append(f"cells: {status.size}; {', '.join(counts)}")
    for dim, size in data.sizes.items():
        along = [name for name in data.coords if data[name].dims == (dim,)]
        lines.append(f"dimension {dim}: {size} values" + ("" if along else ", numbered from 0"))
        for name in along:
            shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in data[name].values.tolist()]
            lines.append(f"    {name}: {', '.join(shown if size <= 6 else [*shown[:3], '...', shown[-1]])}")
    for name, each in data.data_vars.items():
        if name not in ("message", "status"):
            lines.append(f"variable {name} [{', '.join(map(str, each.dims))}]")
    return lines
