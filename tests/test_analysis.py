"""Order of learning, overlap, and theory against flow (THEORY.md 4 to 6)."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

import jepa_ode as jo

INF = math.inf
# Claim 5 of THEORY.md 5: lambda up, rho down.
OPPOSITE = jo.Spectrum(np.linspace(1.0, 2.0, 8), rho=np.linspace(0.95, 0.3, 8))


class TestOrderCorrelation:
    @given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=30))
    def test_is_spearmans_with_ties(self, pairs: list[tuple[int, int]]) -> None:
        a, b = np.array(pairs, dtype=float).T
        value = jo.order_correlation(a, b)
        if len(set(a)) == 1 or len(set(b)) == 1:
            assert math.isnan(value)
        else:
            assert value == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)

    def test_never_learned_comes_last_and_is_left_out_where_neither_learns(self) -> None:
        assert jo.order_correlation([1, 2, INF, INF], [1, 2, INF, 3]) == pytest.approx(
            jo.order_correlation([1, 2, 9], [1, 2, 3])
        )
        assert jo.order_correlation([1, 2, 3, INF, INF], [3, 2, 1, INF, INF]) == -1

    def test_knows_no_order_of_too_few(self) -> None:
        assert math.isnan(jo.order_correlation([1, INF], [1, INF]))
        assert math.isnan(jo.order_correlation([], []))

    def test_errors(self) -> None:
        with pytest.raises(ValueError, match="must not hold NaN"):
            jo.order_correlation([1.0, math.nan], [1.0, 2.0])
        with pytest.raises(ValueError, match="one length, got 2 and 3"):
            jo.order_correlation([1.0, 2.0], [1.0, 2.0, 3.0])


class TestLearningTimes:
    spec = jo.Spectrum([0.7, 0.7, 0.0, -0.2], sigma2=[1.0, 2.0, 1.0, 1.0])

    @pytest.mark.parametrize("objective", ["jepa", "mae"])
    def test_fraction_of_the_fixed_point_is_the_critical_time(self, objective: str) -> None:
        setting = {"depth": 2, "eps": 1e-3, "fraction": 0.7}
        times = jo.learning_times(self.spec, objective, **setting)
        np.testing.assert_array_equal(times, jo.critical_time(self.spec, objective, **setting))
        assert np.isinf(times[2:]).all()

    def test_absolute(self) -> None:
        times = jo.learning_times(self.spec, "jepa", depth=1, eps=1e-2, fraction=0.4, threshold="absolute")
        expected = jo.time_to_reach(self.spec, "jepa", depth=1, eps=1e-2, w=0.4)
        np.testing.assert_array_equal(times[:2], expected[:2])
        assert np.isinf(times[1:]).all()  # 0.35 is the fixed point of the second

    def test_fraction_of_the_final_value_misorders_what_has_not_converged(self) -> None:
        # THEORY.md 4: the slow feature is measured against its own small value and looks early.
        spec = jo.Spectrum([1.0, 0.2], rho=[0.9, 0.9])
        setting = {"depth": 1, "eps": 1e-2}
        end = 1.2 * jo.critical_time(spec, "mae", **setting)[0]
        own = jo.learning_times(spec, "mae", **setting)
        final = jo.learning_times(spec, "mae", **setting, threshold="final", t_end=end)
        assert own[1] > 4 * own[0]
        assert final[1] < end < own[1]

    def test_what_hardly_grows_counts_only_if_asked_for(self) -> None:
        spec = jo.Spectrum([0.5, 0.5], rho=[0.9, 0.15])  # w* = 0.81 and 0.0225 = 2.25 eps
        setting = {"depth": 2, "eps": 0.01}
        assert jo.learning_order(spec, "jepa", **setting).tolist() == [1, 0]
        assert jo.learning_order(spec, "jepa", **setting, min_growth=2.0).tolist() == [0]
        assert jo.learning_order(spec, "jepa", depth=2, eps=0.02).tolist() == [0]

    def test_order_is_that_of_the_solution(self) -> None:
        solution = jo.solve(OPPOSITE, "jepa", depth=4, eps=1e-2, t=[0.0])
        order = jo.learning_order(OPPOSITE, "jepa", depth=4, eps=1e-2)
        np.testing.assert_array_equal(order, solution.learning_order())

    def test_errors(self) -> None:
        for options, message in (
            ({"threshold": "half"}, "threshold must be one of"),
            ({"threshold": "final"}, "t_end goes with"),
            ({"t_end": 1.0}, "t_end goes with"),
            ({"fraction": -1.0}, "fraction must be positive"),
            ({"min_growth": 0.5}, "min_growth must be at least 1, got 0.5"),
        ):
            with pytest.raises(ValueError, match=message):
                jo.learning_times(self.spec, "jepa", depth=2, eps=1e-3, **options)


def test_crossing_is_the_lasting_one() -> None:
    t = [0.0, 1.0, 10.0, 100.0]
    w = [
        [0.1, 0.6, 0.2, 0.8],  # a transient first
        [0.1, 0.9, 0.9, 0.3],  # falls back: collapse
        [0.7, 0.8, 0.9, 0.9],  # there from the start
        [0.1, 0.2, 0.9, math.nan],  # the integration ended
        [math.nan] * 4,
    ]
    times = jo.crossing_times(t, w, 0.5)
    np.testing.assert_allclose(times, [10**1.5, INF, 0.0, 10 ** (3 / 7), INF])


class TestOverlap:
    def test_opposite_trends_share_nothing_at_first(self) -> None:
        shared = jo.overlap(OPPOSITE, depth=6, eps=1e-2)
        assert shared.shared[:3].tolist() == [0, 0, 0]
        assert shared.representation[0] < 0.1
        assert (np.diff(shared.shared) >= 0).all()
        assert (shared.jaccard <= shared.coefficient).all()

    def test_same_objective_shares_everything(self) -> None:
        shared = jo.overlap(OPPOSITE, depth=3, eps=1e-2, a="mae", b="mae")
        assert (shared.coefficient == 1).all()
        np.testing.assert_allclose(shared.representation, 1.0, rtol=1e-12)

    def test_representation_overlap_is_the_linear_cka_of_aligned_encoders(self) -> None:
        depth, eps = 3, 1e-2
        shared = jo.overlap(OPPOSITE, depth=depth, eps=eps)
        k = 4
        a = np.diag(jo.solve(OPPOSITE, "jepa", depth=depth, eps=eps, t=[shared.time_a[k]]).w[:, 0])
        b = np.diag(jo.solve(OPPOSITE, "mae", depth=depth, eps=eps, t=[shared.time_b[k]]).w[:, 0])
        S = np.diag(OPPOSITE.sigma2)

        def hsic(f: np.ndarray, g: np.ndarray) -> float:
            return float(np.linalg.norm(f @ S @ g.T) ** 2)

        cka = hsic(a, b) / math.sqrt(hsic(a, a) * hsic(b, b))
        assert shared.representation[k] == pytest.approx(cka, rel=1e-12)

    def test_nothing_learned(self) -> None:
        shared = jo.overlap(jo.Spectrum([-1.0, 0.0], sigma2=1.0), depth=2, eps=1e-2)
        assert shared.k.size == shared.representation.size == 0

    def test_value_semantics(self) -> None:
        shared = jo.overlap(OPPOSITE, depth=2, eps=1e-2)
        assert pickle.loads(pickle.dumps(shared)) == shared
        assert len(repr(shared)) < 200
        with pytest.raises(ValueError, match="read-only"):
            shared.jaccard[0] = 2.0


class TestTheoryCheck:
    @staticmethod
    def flow(cov: jo.Covariances, objective: object, end: float, depth: int = 2) -> jo.Flow:
        net = jo.LinearNetwork.balanced(len(cov.Sxx), depth=depth, eps=0.05)
        t = np.concatenate([[0.0], np.geomspace(end / 1e3, end, 300)])
        return jo.gradient_flow(net, cov, objective, t=t)

    @pytest.mark.parametrize("objective", ["jepa", "mae"])
    def test_aligned_features_obey_the_theory(self, objective: str) -> None:
        cov = jo.Covariances(np.diag([1.0, 0.9, 0.8, 0.5]), np.diag([0.9, 0.6, 0.3, 0.0]))
        check = jo.compare_with_flow(self.flow(cov, objective, 2000.0))
        assert check.compared == 3  # the fourth is noise
        assert check.order_correlation == 1
        assert check.median_error < 2e-3  # of interpolating between 300 times
        predicted, integrated = check.final
        np.testing.assert_allclose(integrated, predicted, rtol=1e-4, atol=1e-5)
        assert not check.coupling.any()
        assert pickle.loads(pickle.dumps(check)) == check

    def test_coupled_features_are_measured(self) -> None:
        rng = np.random.default_rng(0)
        basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
        cov = jo.Covariances(basis @ np.diag(np.linspace(1.0, 2.0, 5)) @ basis.T, np.diag([0.9, 0.7, 0.5, 0.3, 0.2]))
        check = jo.compare_with_flow(self.flow(cov, "mae", 500.0))
        assert (check.coupling > 1e-3).all()
        assert 1e-3 < check.median_error < 0.3

    def test_what_is_violated_is_said(self) -> None:
        cov = jo.Covariances(np.diag([1.0, 0.9, 0.8]), np.diag([0.9, 0.6, 0.3]), np.eye(3))
        aligned = jo.compare_with_flow(self.flow(cov, "jepa", 100.0)).assumptions
        assert aligned.total_coupling == aligned.imbalance == 0
        assert not aligned.misalignment.any()
        assert aligned.departures == ()
        assert "nothing of" not in aligned.summary()

        net = jo.LinearNetwork.balanced(
            3, depth=2, eps=0.25, v0=1.0
        )  # layers of norm 0.5 sqrt(3), a predictor of sqrt(3)
        objective = jo.JEPA(ema=2.0, weight_decay=0.01)
        flow = jo.gradient_flow(net, cov, objective, t=[0, 50], predictor_rate=2.0)
        check = jo.compare_with_flow(flow)
        assert check.assumptions.imbalance == pytest.approx(0.75 / np.sqrt(3))
        assert not check.assumptions.misalignment.any()
        assert len(check.assumptions.departures) == 3
        for words in ("weight decay", "moving-average", "learning rate of the predictor"):
            assert words in check.summary()

        turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
        turned = jo.LinearNetwork(net.encoder, net.predictor @ turn)
        check = jo.compare_with_flow(jo.gradient_flow(turned, cov, "jepa", t=[0, 50]))
        np.testing.assert_allclose(check.assumptions.misalignment, [0.8, 0.8, 0.0], atol=1e-12)
        backwards = jo.LinearNetwork(net.encoder, -net.predictor)
        check = jo.compare_with_flow(jo.gradient_flow(backwards, cov, "mae", t=[0, 50]))
        np.testing.assert_array_equal(check.assumptions.misalignment, 1.0)

    def test_a_training_with_small_steps_is_as_good_as_the_flow(self) -> None:
        cov = jo.Covariances(np.diag([1.0, 0.9, 0.8]), np.diag([0.9, 0.6, 0.3]))
        net = jo.LinearNetwork.balanced(3, depth=2, eps=0.05)
        errors = []
        for lr in (0.2, 0.1):
            run = jo.train(net, cov, "mae", lr=lr, steps=int(100 / lr), snapshots=500)
            check = jo.compare_with_flow(run)
            errors.append(check.median_error)
            assert check.order_correlation == 1
            assert "steps (gd" in check.summary()
        assert errors[1] < 0.7 * errors[0] < 0.05
        half = jo.train(net, cov, "mae", lr=0.1, steps=2000, snapshots=500, schedule=jo.Schedule.constant(0.5))
        assert jo.compare_with_flow(half).median_error < errors[1]

    def test_what_collapses_is_not_learned(self) -> None:
        cov = jo.Covariances(np.eye(2), np.diag([0.9, 0.5]), np.eye(2))
        check = jo.compare_with_flow(self.flow(cov, jo.JEPA(stop_gradient=False), 2000.0, depth=1))
        assert np.isfinite(check.predicted_time).all()
        assert np.isinf(check.integrated_time).all()
        assert check.compared == 0
        assert math.isnan(check.median_error)

    def test_only_networks_are_compared(self) -> None:
        sol = jo.solve(jo.Spectrum([1.0], rho=[0.5]), "jepa", depth=2, eps=0.1, t=[0.0, 1.0])
        with pytest.raises(TypeError, match="must be a Flow or a Training, of a network, got Solution"):
            jo.compare_with_flow(sol)  # type: ignore[arg-type]

    def test_an_integration_cut_short(self) -> None:
        cov = jo.Covariances(np.eye(2), np.diag([0.9, 0.5]))
        net = jo.LinearNetwork.balanced(2, depth=2, eps=0.05)
        flow = jo.gradient_flow(net, cov, "mae", t=np.linspace(0.0, 1e3, 50), max_steps=3)
        check = jo.compare_with_flow(flow)
        assert not flow.success
        assert check.compared < 2
        assert np.isfinite(check.final[1]).all()


def test_check_tells_the_worst_and_what_was_not_expected() -> None:
    inf = math.inf
    check = jo.TheoryCheck(
        objective=jo.MAE(),
        fraction=0.5,
        t=np.array([0.0, 10.0]),
        predicted=np.array([[0.1, 0.8], [0.1, 0.6], [0.1, 0.1], [0.1, 0.1]]),
        integrated=np.array([[0.1, 0.8], [0.1, 0.6], [0.1, 0.9], [0.1, 0.2]]),
        predicted_time=np.array([1.0, 2.0, inf, inf]),
        integrated_time=np.array([1.1, 1.0, 5.0, inf]),
        relative_error=np.array([0.1, -0.5, math.nan, math.nan]),
        order_correlation=-1.0,
        assumptions=jo.Assumptions(np.zeros(4), 0.0, 0.0, np.zeros(4), ()),
    )
    assert check.final_error == pytest.approx(1.0)
    assert check.max_error == 0.5
    assert check.unexpected.tolist() == [2]
    assert not check.ranks  # two features make no order


def test_overlap_has_no_unit() -> None:
    setting = {"depth": 2, "eps": 1e-2}
    tiny = jo.overlap(jo.Spectrum(OPPOSITE.lam * 1e-200, rho=OPPOSITE.rho), **setting)
    expected = jo.overlap(OPPOSITE, **setting)
    np.testing.assert_allclose(tiny.representation, expected.representation, rtol=1e-12)
