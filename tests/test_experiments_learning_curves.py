"""What the claims about the order of learning measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo
from jepa_ode.experiments import Verdict
from jepa_ode.experiments._learning_curves import LearningCurves, lag, simulated_time, stratified
from jepa_ode.experiments.deep_mae_is_shallow_jepa import derived_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Curves(LearningCurves):
    def verdicts(self) -> Sequence[Verdict]:
        return ()

    def _draw(self, axes: Sequence[Axes]) -> None:
        """Draw nothing."""


def rising(intervals: Sequence[tuple[int, int]]) -> Curves:
    """Features that rise in these intervals with both objectives."""
    begin, done = np.array(intervals, dtype=float).T
    times = np.array([[begin, (begin + done) / 2, done]] * 2)
    none = np.zeros((2, 0))
    return Curves({}, begin, begin, none, none, times)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=12))
def test_share_that_rises_at_once_is_counted(lengths: list[tuple[int, int]]) -> None:
    intervals = [(begin, begin + length) for begin, length in lengths]
    counted = max(sum(begin <= moment <= done for begin, done in intervals) for moment in range(61))
    assert rising(intervals).at_once(0) == counted / len(intervals)


@given(st.integers(1, 50), st.integers(0, 10**6), st.booleans())
def test_stratified_values_have_one_in_each_part(n: int, seed: int, log: bool) -> None:
    values = stratified(np.random.default_rng(seed), 0.2, 1.7, n, log=log)
    edges = np.geomspace(0.2, 1.7, n + 1) if log else np.linspace(0.2, 1.7, n + 1)
    assert (values >= edges[:-1] * (1 - 1e-12)).all()
    assert (values <= edges[1:] * (1 + 1e-12)).all()


def test_lag_is_that_of_critical_times_and_undefined_for_what_starts_as_learned() -> None:
    late, early = jo.critical_time(jo.Spectrum([3.0, 3.0], rho=[0.5, 0.9]), "jepa", depth=2, eps=0.01)
    assert lag("jepa", 0.5, 0.9, depth=2, eps=0.01) == pytest.approx(late / early - 1, rel=1e-12)
    assert lag("mae", 0.5, 0.9, depth=math.inf, eps=0.01) == lag("jepa", 0.5, 0.9, depth=1, eps=0.01)
    assert math.isnan(lag("jepa", 0.5, 0.9, depth=8, eps=0.01))


@pytest.mark.parametrize("objective", ["jepa", "mae"])
def test_simulated_times_are_the_exact_ones(objective: str) -> None:
    spec = jo.Spectrum([0.3, 1.0, 4.0], rho=[0.9, 0.5, 0.7])
    eps = np.array([1e-3, 1e-4, 1e-2])
    exact = jo.critical_time(spec, objective, depth=3, eps=eps)
    np.testing.assert_allclose(simulated_time(spec, objective, depth=3, eps=eps), exact, rtol=2e-6)


@pytest.mark.parametrize("eps", [0.1, 0.01])
@pytest.mark.parametrize("lam", [0.5, 2.0])
def test_derived_rate_is_the_limit_of_depth_times_distance(eps: float, lam: float) -> None:
    spec = jo.Spectrum([lam], rho=[0.6])
    t = np.linspace(0.0, 2 * jo.critical_time(spec, "jepa", depth=1, eps=eps, fraction=0.9)[0], 4001)
    setting = {"eps": eps, "t": t}
    jepa = jo.solve(spec, "jepa", depth=1, **setting).w
    depth = 2.0**17
    mae = jo.solve(spec, "mae", depth=depth, time_unit="rescaled", **setting).w
    assert depth * np.abs(mae - jepa).max() == pytest.approx(derived_rate(spec.rho, eps), rel=2e-3)
