"""An axis of a figure of a sweep: the values of a parameter in order, on the scale that fits them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

from .._validate import FloatArray
from .style import LAMBDA_LABEL, RHO_LABEL, TIME_LABEL

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

__all__ = ["SweepAxis", "as_sweep_axis", "label_of"]

# A variable's own long_name and units come before these.
_PARAMETERS = {
    "depth": "depth $L$",
    "ema": r"time constant of the target (flow time)",
    "eps": r"start $\epsilon = w(0)$",
    "lam": rf"covariance {LAMBDA_LABEL}",
    "lr": "learning rate",
    "rho": rf"regression coefficient {RHO_LABEL}",
    "t_end": "end of the run (flow time)",
    "weight_decay": r"weight decay $\eta$ (1 / flow time)",
}
_RESULTS = {  # of the ready tasks
    "critical_time": "critical time (gradient-flow units)",
    "feature": "feature (its index)",
    "learned": "share of the features that is learned",
    "learned_jepa": "features that JEPA learns",
    "learned_mae": "features that MAE learns",
    "order_correlation": "rank correlation of the orders of JEPA and MAE",
    "response": "encoder response",
    "time": TIME_LABEL,
    "w": "encoder response $w$",
    "weakest": rf"lowest {RHO_LABEL} that is learned",
}
_FEW = 8  # values that have a tick each
_WIDE = 14  # characters of labels that stand beside each other; longer ones are turned


@dataclass(frozen=True)
class SweepAxis:
    """A dimension as an axis.

    Attributes: ``dim``; ``label``; ``order``, indices along the dimension from left to right; ``values`` in that order,
    places of categories; ``names``, what to call them; ``scale``.
    """

    dim: str
    label: str
    order: npt.NDArray[np.intp]
    values: FloatArray
    names: list[str]
    scale: Literal["linear", "log", "symlog", "category"]

    def set_up(self, ax: Axes, which: Literal["x", "y"]) -> FloatArray:
        """Give the axis its scale and ticks, and return the edges of cells around the values."""
        axis = ax.xaxis if which == "x" else ax.yaxis
        set_scale = ax.set_xscale if which == "x" else ax.set_yscale
        if self.scale == "symlog":  # linear from 0 to the first value above, as wide as a step of the others
            decades = float(np.log10(self.values[2] / self.values[1])) if self.values.size > 2 else 1.0
            set_scale("symlog", linthresh=self.values[1], linscale=0.9 * decades)
        elif self.scale == "log":
            set_scale("log")
        transform = axis.get_transform()
        places = np.asarray(transform.transform(self.values))
        middle = (places[1:] + places[:-1]) / 2
        step = np.diff(places) if places.size > 1 else np.ones(1)
        edges = [places[0] - step[0] / 2, *middle, places[-1] + step[-1] / 2]
        return np.asarray(transform.inverted().transform(edges))

    def set_ticks(self, ax: Axes, which: Literal["x", "y"]) -> None:
        """Place ticks and label the axis: after `style.dress`, which does so for any axis."""
        axis = ax.xaxis if which == "x" else ax.yaxis
        axis.set_label_text(self.label)
        if self.scale == "category":
            axis.set_ticks(self.values, self.names)
            if which == "x" and self.turned:
                ax.tick_params("x", rotation=30)
                for text in axis.get_ticklabels():
                    text.set(ha="right", rotation_mode="anchor")
            return
        whole = bool((self.values == np.round(self.values)).all())
        if self.scale == "linear" and whole:
            axis.set_major_locator(MaxNLocator(integer=True))
        decades = np.log10(self.values[-1] / self.values[0]) if self.scale == "log" else np.inf
        if self.values.size <= _FEW and (whole or decades < 1.5):
            axis.set_ticks(self.values, self.names)
            axis.set_minor_locator(NullLocator())
        elif decades < 1.5:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())

    @property
    def turned(self) -> bool:
        """Whether names are too long to stand beside each other."""
        return max(map(len, self.names)) * len(self.names) > 4 * _WIDE


def as_sweep_axis(argument: str, data: xarray.Dataset, name: str) -> SweepAxis:
    """Return the axis of a dimension or of a coordinate along one; raise ValueError where there is no such thing."""
    if name in data.dims:
        dim = name
    elif name in data.coords and data[name].ndim == 1:
        dim = str(data[name].dims[0])
    else:
        raise ValueError(f"{argument} must be one of {', '.join(map(str, data.dims))}, got {name!r}")
    length = data.sizes[dim]
    label = label_of(data, name)
    if name not in data.coords:
        shared = [str(each) for each in data.coords if data[each].dims == (dim,)]
        if shared:  # parameters that change together
            rows = zip(*(map(_short, data[each].values.tolist()) for each in shared), strict=True)
            return _categories(
                dim, ", ".join(label_of(data, each) for each in shared), [", ".join(row) for row in rows]
            )
        return SweepAxis(
            dim,
            label,
            np.arange(length),
            np.arange(length, dtype=np.float64),
            [str(k) for k in range(length)],
            "linear",
        )
    values = data[name].values
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all() or np.unique(values).size < length:
        return _categories(dim, label, [_short(value) for value in values.tolist()])
    order = np.argsort(values, kind="stable")
    ascending = values[order].astype(np.float64)
    return SweepAxis(dim, label, order, ascending, [f"{value:.4g}" for value in ascending], _scale(ascending))


def label_of(data: xarray.Dataset, name: str) -> str:
    """Return what to write of a variable: its ``long_name`` and ``units`` where it has them."""
    attrs = data[name].attrs if name in data.variables else {}
    known = _PARAMETERS
    if str(data.attrs.get("task")).startswith("jepa_ode.sweeps.tasks."):
        known = _PARAMETERS | _RESULTS
    label = str(attrs.get("long_name") or known.get(name) or name.replace("_", " "))
    return f"{label} ({attrs['units']})" if "units" in attrs else label


def _categories(dim: str, label: str, names: list[str]) -> SweepAxis:
    places = np.arange(len(names))
    return SweepAxis(dim, label, places, places.astype(np.float64), names, "category")


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _scale(values: FloatArray) -> Literal["linear", "log", "symlog"]:
    """Return "log" for values that grow by factors rather than by steps, "symlog" if a zero is before them."""
    positive = values[1:] if values[0] == 0 else values
    if positive.size < 3 or positive[0] <= 0 or positive[-1] < 8 * positive[0]:
        return "linear"
    steps, factors = np.diff(positive), np.diff(np.log(positive))
    if steps.std() / steps.mean() <= factors.std() / factors.mean():
        return "linear"
    return "log" if positive is values else "symlog"
