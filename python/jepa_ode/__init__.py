"""Which features JEPA and MAE learn, in what order and when: from second moments of data, in milliseconds.

The theory is that of deep linear encoders trained by gradient flow from a small start (Littwin et al., NeurIPS 2024,
arXiv 2407.03475): every feature follows an ODE of its own, driven by its covariance ``lambda`` and its regression
coefficient ``rho``. Here these ODEs are solved, exactly and by adaptive Runge-Kutta methods, for as many features as
memory holds, and checked against the gradient flow of the whole network.

From data to a prediction:

>>> import numpy as np, jepa_ode as jo
>>> rng = np.random.default_rng(0)
>>> shared = rng.normal(size=(2000, 3)) * [1.0, 0.95, 0.9]
>>> x, y = shared + rng.normal(size=(2, 2000, 3)) * [0.8, 0.4, 0.1]
>>> spec = jo.Covariances.from_pairs(x, y).spectrum()
>>> spec.rho.round(2), spec.lam.round(2)
(array([0.99, 0.83, 0.6 ]), array([0.81, 0.86, 1.02]))
>>> jo.learning_order(spec, "jepa", depth=3, eps=0.01)  # highest rho first
array([0, 1, 2])
>>> jo.learning_order(spec, "mae", depth=3, eps=0.01)  # highest lambda first
array([2, 1, 0])

Where things are: `Covariances` and `Spectrum` hold the data's side, `JEPA` and `MAE` the objective's; `solve`,
`fixed_point`, `critical_time` and `time_to_reach` the theory; `LinearNetwork`, `gradient_flow` and `train` the network itself;
`learning_order`, `overlap`, `order_correlation` and `compare_with_flow` what to make of them; `sweep` runs
any of it over grids of parameters. `jepa_ode.views` and
`jepa_ode.models` make pairs, `jepa_ode.plot` draws, `jepa_ode.experiments` shows every claim of the theory.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from ._core import __version__, build_info, engine
from .objectives import JEPA, MAE
from .schedule import Schedule
from .solution import Solution
from .solve import solve
from .spectrum import Spectrum
from .theory import critical_time, fixed_point, time_to_reach

if _TYPE_CHECKING:
    from . import experiments, models, observables, plot, report, sweeps, views
    from .analysis import TheoryCheck, compare_with_flow
    from .assumptions import Assumptions
    from .coupled import CoupledFeatures
    from .covariances import CovarianceEstimator, Covariances
    from .diagnostic import Diagnostic
    from .encoders import EncoderResponses, ResponseRecorder
    from .flow import Flow, gradient_flow, gradient_flows
    from .learning import crossing_times, learning_order, learning_times, order_correlation
    from .models import DynamicModel, StaticModel
    from .network import LinearNetwork
    from .overlaps import Overlap, linear_cka, overlap, overlap_of_flows, representation_overlap
    from .sensitivity import Sensitivity
    from .stability import FixedPoints, fixed_points, weight_decay_threshold
    from .sweeps import CellStatus, SweepError, Trouble, open_sweep, sweep
    from .targets import collapse_bound, moving_average_delay
    from .training import Training, train

Status = engine.Status

__all__ = [
    "JEPA",
    "MAE",
    "Assumptions",
    "CellStatus",
    "CoupledFeatures",
    "CovarianceEstimator",
    "Covariances",
    "Diagnostic",
    "DynamicModel",
    "EncoderResponses",
    "FixedPoints",
    "Flow",
    "LinearNetwork",
    "Overlap",
    "ResponseRecorder",
    "Schedule",
    "Sensitivity",
    "Solution",
    "Spectrum",
    "StaticModel",
    "Status",
    "SweepError",
    "TheoryCheck",
    "Training",
    "Trouble",
    "__version__",
    "build_info",
    "collapse_bound",
    "compare_with_flow",
    "critical_time",
    "crossing_times",
    "experiments",
    "fixed_point",
    "fixed_points",
    "gradient_flow",
    "gradient_flows",
    "learning_order",
    "learning_times",
    "linear_cka",
    "models",
    "moving_average_delay",
    "observables",
    "open_sweep",
    "order_correlation",
    "overlap",
    "overlap_of_flows",
    "plot",
    "report",
    "representation_overlap",
    "solve",
    "sweep",
    "sweeps",
    "time_to_reach",
    "train",
    "views",
    "weight_decay_threshold",
]

# The solvers load at import, everything else when it is first asked for: `import jepa_ode` costs little more than NumPy.
_LAZY = {
    "models": ("DynamicModel", "StaticModel"),
    "views": (),
    "plot": (),
    "report": (),
    "experiments": (),
    "analysis": ("TheoryCheck", "compare_with_flow"),
    "assumptions": ("Assumptions",),
    "coupled": ("CoupledFeatures",),
    "covariances": ("CovarianceEstimator", "Covariances"),
    "diagnostic": ("Diagnostic",),
    "encoders": ("EncoderResponses", "ResponseRecorder"),
    "stability": ("FixedPoints", "fixed_points", "weight_decay_threshold"),
    "flow": ("Flow", "gradient_flow", "gradient_flows"),
    "learning": ("crossing_times", "learning_order", "learning_times", "order_correlation"),
    "network": ("LinearNetwork",),
    "observables": (),
    "overlaps": ("Overlap", "linear_cka", "overlap", "overlap_of_flows", "representation_overlap"),
    "sensitivity": ("Sensitivity",),
    "sweeps": ("CellStatus", "SweepError", "Trouble", "open_sweep", "sweep"),
    "targets": ("collapse_bound", "moving_average_delay"),
    "training": ("Training", "train"),
}
_HOME = {name: module for module, names in _LAZY.items() for name in names}


def __getattr__(name: str) -> _Any:
    if name in _LAZY:
        return _import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_HOME})
