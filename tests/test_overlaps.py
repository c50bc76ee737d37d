"""What two objectives share: chosen stops, all pairs of encoders, networks (THEORY.md 5, claim 6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo

OPPOSITE = jo.models.feature_trends(12, "opposite", lam=(0.8, 1.0), rho=(0.6, 0.95))
SETTING: dict[str, Any] = {"depth": 4, "eps": 5e-3}


@given(k=st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_chosen_stops_are_those_of_the_whole(k: list[int]) -> None:
    whole, some = jo.overlap(OPPOSITE, **SETTING), jo.overlap(OPPOSITE, **SETTING, k=k)
    picked = np.unique(k) - 1
    for name in ("k", "time_a", "time_b", "shared", "coefficient", "jaccard", "chance"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[picked])
    np.testing.assert_allclose(some.representation, whole.representation[picked], rtol=1e-14)


def test_stops_after_more_features_than_are_learned_are_left_out() -> None:
    spec = jo.Spectrum([1.0, 0.5, 0.0], sigma2=1.2)  # the last one is never learned
    assert jo.overlap(spec, **SETTING, k=[1, 2, 3]).k.tolist() == [1, 2]
    assert jo.overlap(spec, **SETTING, k=2).k.tolist() == [2]


@pytest.mark.parametrize("k", [0, [-1], 1.5, [[1]], "all", [True]])
def test_stops_must_be_numbers_of_features(k: Any) -> None:
    with pytest.raises(ValueError, match="k must be whole numbers of features"):
        jo.overlap(OPPOSITE, **SETTING, k=k)


def test_pairs_of_encoders_have_the_overlap_of_their_stops_on_the_diagonal() -> None:
    shared = jo.overlap(OPPOSITE, **SETTING)
    stops = {"jepa": shared.time_a, "mae": shared.time_b}
    w = [jo.solve(OPPOSITE, name, **SETTING, t=t).w for name, t in stops.items()]
    pairs = jo.representation_overlap(OPPOSITE, *w)
    np.testing.assert_allclose(np.diagonal(pairs), shared.representation, rtol=1e-13)
    np.testing.assert_allclose(np.diagonal(jo.representation_overlap(OPPOSITE, w[0], w[0])), 1.0, rtol=1e-14)
    np.testing.assert_allclose(jo.representation_overlap(OPPOSITE, w[1], w[0]), pairs.T, rtol=1e-14)
    assert np.isnan(jo.representation_overlap(OPPOSITE, np.zeros((12, 1)), w[0])).all()


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-200, 1.0, 1e200]))
def test_cka_is_that_of_the_kernels_of_samples(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, 4))
    a, b = (jo.LinearNetwork.random(4, 2, rng=rng) for _ in range(2))
    A, B = (x @ net.encoder_product().T for net in (a, b))
    K, H = A @ A.T, B @ B.T
    expected = np.sum(K * H) / (np.linalg.norm(K) * np.linalg.norm(H))
    larger = jo.LinearNetwork([scale * a.encoder[0], a.encoder[1]], a.predictor)
    S = x.T @ x
    assert jo.linear_cka(larger, b, S) == pytest.approx(expected, rel=1e-10)
    assert jo.linear_cka(b, larger, S) == pytest.approx(expected, rel=1e-10)
    assert jo.linear_cka(a, a, S) == pytest.approx(1.0, rel=1e-12)


def test_cka_of_nothing_is_not_a_number() -> None:
    net = jo.LinearNetwork([np.zeros((2, 2))], np.eye(2))
    assert np.isnan(jo.linear_cka(net, net, np.eye(2)))


def flows(cov: jo.Covariances, **options: Any) -> list[jo.Flow]:
    net = jo.LinearNetwork.balanced(len(cov.Sxx), **SETTING)
    ends = {"jepa": (300.0, 1e5), "mae": (4.0, 200.0)}
    return [
        jo.gradient_flow(net, cov, name, t=np.geomspace(*end, 3000), rtol=1e-8, **options) for name, end in ends.items()
    ]


def test_networks_whose_features_do_not_couple_overlap_as_the_theory_says() -> None:
    cov = jo.StaticModel.tilted(OPPOSITE, tilt=0.0, rng=3).covariances()
    jepa, mae = flows(cov, keep_weights=True)
    measured, predicted = jo.overlap_of_flows(jepa, mae), jo.overlap(cov.spectrum(), **SETTING)
    np.testing.assert_array_equal(measured.shared, predicted.shared)
    np.testing.assert_allclose(measured.time_a, predicted.time_a, rtol=1e-3)
    np.testing.assert_allclose(measured.time_b, predicted.time_b, rtol=1e-3)
    np.testing.assert_allclose(measured.representation, predicted.representation, atol=0.01)
    assert jo.overlap_of_flows(jepa, mae, k=[3]).shared == predicted.shared[2]
    np.testing.assert_allclose(jo.overlap_of_flows(mae, mae).representation, 1.0, rtol=1e-12)


def test_flows_that_cannot_be_compared_say_why() -> None:
    cov = jo.StaticModel.tilted(OPPOSITE, tilt=0.0, rng=3).covariances()
    jepa, mae = flows(cov)
    with pytest.raises(ValueError, match="keep_weights=True"):
        jo.overlap_of_flows(jepa, mae)
    other = flows(jo.StaticModel.tilted(OPPOSITE, tilt=0.0, rng=4).covariances())[1]
    with pytest.raises(ValueError, match="same data"):
        jo.overlap_of_flows(jepa, other)
