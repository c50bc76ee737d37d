"""Observables of a flow: their values against formulas written out, rows that were not reached, and what calls back."""

from __future__ import annotations

import pickle
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo

NAMES = ["balancedness", "singular_values", "representation_covariance", "effective_rank"]


def exchangeable_cov(d: int, seed: int) -> jo.Covariances:
    rng = np.random.default_rng(seed)
    shared, noise = rng.standard_normal((2, d, d)) / np.sqrt(d)
    Syx = shared @ shared.T
    Sxx = Syx + noise @ noise.T + 0.2 * np.eye(d)
    return jo.Covariances(Sxx, Syx, Sxx)


@pytest.fixture(scope="module")
def small():
    return jo.LinearNetwork.random(4, 2, 0.7, 3, widths=[5, 3]), exchangeable_cov(4, 1)


@given(
    d=st.integers(1, 5),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    rate=st.sampled_from([0.3, 1.0, 4.0]),
    coordinates=st.sampled_from(["data", "features"]),
    seed=st.integers(0, 999),
)
def test_values_are_those_of_the_networks_along_the_flow(d, widths, rate, coordinates, seed):
    net = jo.LinearNetwork.random(d, len(widths), 0.7, seed, widths)
    cov = exchangeable_cov(d, seed)
    flow = jo.gradient_flow(
        net,
        cov,
        "jepa",
        t=[0.0, 0.5, 0.5, 4.0],
        observe=NAMES,
        keep_weights=True,
        predictor_rate=rate,
        coordinates=coordinates,
    )
    assert list(flow.observables) == NAMES
    for k in range(4):
        at = flow.network(k)
        chain = [*at.encoder, at.predictor]
        product = np.linalg.multi_dot([np.eye(d), np.eye(d), *[W.T for W in at.encoder]]).T
        conserved = [above.T @ above - below @ below.T for below, above in pairwise(at.encoder)]
        conserved.append(chain[-1].T @ chain[-1] / rate - chain[-2] @ chain[-2].T)
        expected = {
            "balancedness": [np.sqrt(np.sum(matrix**2)) for matrix in conserved],
            "singular_values": np.sqrt(
                np.sort(np.linalg.eigvalsh(product @ product.T).clip(0))[::-1][: min(product.shape)]
            ),
            "representation_covariance": product @ cov.Sxx @ product.T,
        }
        for name, value in expected.items():
            # Square roots of eigenvalues that are zero keep half of the digits.
            atol = 1e-7 if name == "singular_values" else 1e-12
            np.testing.assert_allclose(flow.observables[name][k], value, rtol=1e-9, atol=atol)
        values = np.linalg.eigvalsh(expected["representation_covariance"]).clip(1e-300)
        parts = values / values.sum()
        assert flow.observables["effective_rank"][k] == pytest.approx(np.prod(parts**-parts), rel=1e-9)
        assert 1 - 1e-12 <= flow.observables["effective_rank"][k] <= min(widths[-1], d) + 1e-12


def test_effective_rank_of_known_spectra():
    net = jo.LinearNetwork([np.eye(4)], np.eye(4))
    for variances, expected in [([1, 1, 1, 1], 4), ([3, 3, 0, 0], 2), ([0, 5e-300, 0, 0], 1), ([0] * 4, 0)]:
        rank = jo.observables.effective_rank(net, np.diag(np.array(variances, dtype=float)))
        assert rank == pytest.approx(expected)
    largest = 1e308 * np.eye(4)
    assert jo.observables.effective_rank(net, largest) == pytest.approx(4)


def test_balancedness_stays(small):
    flow = jo.gradient_flow(*small, "jepa", t=np.linspace(0, 20, 9), observe="balancedness", rtol=1e-11, atol=1e-13)
    drift = flow.observables["balancedness"] - flow.observables["balancedness"][0]
    assert np.abs(drift).max() < 1e-9


def test_functions_and_names_of_ones_own(small):
    seen = []

    def largest(net):
        seen.append(net)
        return max(float(np.abs(layer).max()) for layer in net.encoder)

    observe = {"largest": largest, "spectrum": "singular_values", "first": lambda net: net.encoder[0]}
    flow = jo.gradient_flow(*small, "jepa", t=[0, 1, 1, 2], observe=observe, keep_weights=True)
    assert {name: values.shape for name, values in flow.observables.items()} == {
        "largest": (4,),
        "spectrum": (4, 3),
        "first": (4, 5, 4),
    }
    assert seen == [flow.network(k) for k in range(4)]
    for k in range(4):
        np.testing.assert_array_equal(flow.observables["first"][k], flow.network(k).encoder[0])
    plain = jo.gradient_flow(*small, "jepa", t=[0, 1, 1, 2])
    np.testing.assert_array_equal(plain.response, flow.response)
    assert plain.observables == {}
    assert plain.nfev == flow.nfev


def test_rows_that_were_not_reached(small):
    flow = jo.gradient_flow(*small, "jepa", t=[0, 1e6], max_steps=5, observe=["effective_rank", "singular_values"])
    assert flow.status == jo.Status.MAX_STEPS
    for values in flow.observables.values():
        assert np.isfinite(values[0]).all()
        assert np.isnan(values[1]).all()
    calls = []
    nothing = jo.gradient_flow(
        *small, "jepa", t=[1e6], max_steps=5, observe={"mine": lambda net: calls.append(net) or np.ones(7)}
    )
    assert nothing.observables["mine"].shape == (1, 7)
    assert np.isnan(nothing.observables["mine"]).all()
    assert calls == [small[0]]
    assert jo.gradient_flow(*small, "jepa", t=[], observe=NAMES).observables["representation_covariance"].shape == (
        0,
        3,
        3,
    )


@pytest.mark.parametrize("when", [0, 1, 2])
def test_an_exception_ends_the_flow_and_arrives_unchanged(small, when):
    trouble = LookupError("mine")
    calls = []

    def fails(net):
        calls.append(net)
        if len(calls) > when:
            raise trouble
        return 0.0

    with pytest.raises(LookupError) as caught:
        jo.gradient_flow(*small, "jepa", t=[0, 1, 2], observe={"fails": fails})
    assert caught.value is trouble
    assert len(calls) == when + 1
    assert jo.gradient_flow(*small, "jepa", t=[0, 1]).success  # the next call is none the worse


@pytest.mark.parametrize(
    ("observe", "error", "match"),
    [
        ("rank", ValueError, "observe must be one of 'balancedness'"),
        (["singular_values", 3], ValueError, "observe must be one of"),
        (5, TypeError, "observe must be names"),
        ({"mine": "rank"}, ValueError, r"observe\['mine'\] must be one of"),
        ({3: "effective_rank"}, TypeError, "strings as keys"),
        ({"loss": "effective_rank"}, ValueError, "must not give the name 'loss'"),
        ({"mine": lambda _: 1j}, TypeError, r"the value of observe\['mine'\] must hold real numbers"),
        ({"mine": lambda _: None}, TypeError, r"observe\['mine'\] must hold real numbers"),
    ],
)
def test_observables_that_do_not_fit(small, observe, error, match):
    with pytest.raises(error, match=match):
        jo.gradient_flow(*small, "jepa", t=[0, 1], observe=observe)


def test_values_must_keep_their_shape(small):
    sizes = iter([2, 3])
    with pytest.raises(ValueError, match=r"arrays of one shape, got \(2,\) and then \(3,\)"):
        jo.gradient_flow(*small, "jepa", t=[0, 1], observe={"grows": lambda _: np.ones(next(sizes))})


def test_value_semantics(small):
    flow, same, other = (
        jo.gradient_flow(*small, "jepa", t=[0, 1], observe=names) for names in (NAMES, NAMES, NAMES[:2])
    )
    assert flow == same
    assert flow != other
    twin = pickle.loads(pickle.dumps(flow))
    assert twin == flow
    for result in (flow, twin):
        assert isinstance(result.observables, MappingProxyType)
        assert not any(values.flags.writeable for values in result.observables.values())


def test_to_xarray(small):
    pytest.importorskip("xarray")
    observe = {name: name for name in NAMES} | {"layer": lambda net: net.encoder[0]}
    dataset = jo.gradient_flow(*small, "jepa", t=[0, 1], observe=observe).to_xarray()
    assert dataset.balancedness.dims == ("time", "layer")
    assert dataset.singular_values.dims == ("time", "mode")
    assert dataset.representation_covariance.dims == ("time", "unit", "other_unit")
    assert dataset.effective_rank.dims == ("time",)
    assert dataset["layer"].dims == ("time", "layer_0", "layer_1")
