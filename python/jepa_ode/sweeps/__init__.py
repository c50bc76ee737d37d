"""Sweeps over grids of parameters: in one process or many, kept as they go, as one dataset of xarray.

`sweep` runs a task in every cell of a grid; `tasks` has ready ones; `open_sweep` looks at a store, finished or not. Needs
the extra "sweep" (``pip install "jepa-ode[sweep]"``).
"""

from . import tasks
from ._cells import CellStatus
from ._outputs import Trouble
from ._store import open_sweep
from ._sweep import SweepError, sweep

__all__ = ["CellStatus", "SweepError", "Trouble", "open_sweep", "sweep", "tasks"]
