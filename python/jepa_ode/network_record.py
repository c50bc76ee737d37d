"""What an integrated flow and a training have in common: a network observed again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._extras import require
from ._frozen import FrozenArrays
from ._validate import FloatArray
from .flow_problem import unpack
from .network import LinearNetwork

if TYPE_CHECKING:
    from ._core import engine
    from .objectives import Objective
    from .schedule import Schedule
    from .spectrum import Spectrum

__all__ = ["NetworkRecord"]


class NetworkRecord(FrozenArrays):
    """Mixin for results whose rows are those of a network: weights that were kept, export."""

    if TYPE_CHECKING:
        response: FloatArray
        loss: FloatArray | None
        features: Spectrum
        objective: Objective
        start: LinearNetwork
        status: engine.Status
        message: str
        schedule: Schedule | None
        predictor_rate: float
        weights: FloatArray | None

    def _network(self, k: int, where: str, call: str) -> LinearNetwork:
        """Return the network of row ``k``, which the user knows as ``where``; ``call`` would have kept it."""
        if self.weights is None:
            raise ValueError(f"weights were not kept: call {call}(..., keep_weights=True)")
        row = self.weights[k]
        if np.isnan(row).any():
            raise ValueError(f"{where} was not reached: {self.message}")
        return unpack(row, self.start)

    def _to_xarray(
        self, dim: str, coordinates: Mapping[str, Any], variables: Mapping[str, Any], attrs: Mapping[str, Any]
    ) -> Any:
        """Return the dataset whose rows are along ``dim``, with what this kind of result adds."""
        require("xarray", "to_xarray needs", "xarray")
        import xarray

        loss = {} if self.loss is None else {"loss": (dim, self.loss)}
        parameters = {name: ("feature", np.asarray(getattr(self.features, name))) for name in ("lam", "rho", "sigma2")}
        return xarray.Dataset(
            {"response": (("feature", dim), self.response), **loss, **variables},
            coords={**coordinates, **parameters},
            attrs={
                "objective": repr(self.objective),
                "depth": self.start.depth,
                "widths": self.start.widths,
                **attrs,
                "predictor_rate": self.predictor_rate,
                "status": self.status.name,
                **({} if self.schedule is None else {"schedule": repr(self.schedule)}),
            },
        )
