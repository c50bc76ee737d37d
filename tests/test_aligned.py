"""The exact solution of aligned networks (THEORY.md 2 and 3)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo
from test_flow import aligned_data, along, random_cov


@st.composite
def starts(draw):
    """Aligned data and a start that fits them."""
    d, depth = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    name = draw(st.sampled_from(["jepa", "mae"]))
    seed = draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    _, cov, basis = aligned_data(d, draw(st.booleans()), seed)
    options = {"rng": seed, "objective": name}
    if draw(st.booleans()):  # a response for each feature, hidden layers of any width
        k = draw(st.integers(1, d)) if name == "jepa" else d
        widths = [int(w) for w in rng.integers(k, k + 4, depth - 1)] + [draw(st.sampled_from([d, d + 2]))]
        net = jo.LinearNetwork.balanced(
            d, depth, rng.uniform(0.01, 1.5, k), basis=basis[:, :k], widths=widths, **options
        )
    else:
        net = jo.LinearNetwork.balanced(d, depth, 0.05, **options)
    return net, cov, name


@given(starts(), st.integers(0, 10**6))
def test_it_is_the_flow(problem, seed):
    net, cov, name = problem
    d = net.widths[0]
    features = along(np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0])  # not those of the data
    # A learned feature gives way to a better one that the start lacks, as soon as that has grown out of its rounding.
    lacks = np.linalg.matrix_rank(net.encoder_product()) < d
    settings = {
        "t": [0.0, 0.5, 0.5, 4.0, 10.0 if lacks else 60.0],
        "features": features,
        "keep_weights": True,
        "observe": "singular_values",
    }
    exact = jo.gradient_flow(net, cov, name, method="exact", **settings)
    flow = jo.gradient_flow(net, cov, name, method="dop853", rtol=1e-12, atol=1e-14, **settings)
    assert exact.method == "exact"
    assert exact.nfev == 0
    assert exact.success
    np.testing.assert_allclose(exact.response, flow.response, rtol=0, atol=1e-9)
    np.testing.assert_allclose(exact.loss, flow.loss, rtol=0, atol=1e-9)
    np.testing.assert_allclose(exact.weights, flow.weights, rtol=0, atol=1e-9)
    for name in flow.observables:
        np.testing.assert_allclose(exact.observables[name], flow.observables[name], rtol=0, atol=1e-9)
    np.testing.assert_allclose(exact.final.predictor, flow.final.predictor, rtol=0, atol=1e-9)


def test_responses_are_those_of_solve_to_rounding():
    spec, cov, basis = aligned_data(6, rotated=True)
    t = np.geomspace(1, 1e4, 30)
    flow = jo.gradient_flow(
        jo.LinearNetwork.balanced(6, 3, 1e-2), cov, "jepa", t=t, features=along(basis), method="exact"
    )
    # The eigenvectors of the data are known to rounding only, and the rise amplifies that (THEORY.md 3).
    np.testing.assert_allclose(flow.response, jo.solve(spec, "jepa", depth=3, eps=1e-2, t=t).w, rtol=1e-9)


def test_schedules_and_far_times():
    _, cov, basis = aligned_data(3, rotated=True)
    net = jo.LinearNetwork.balanced(3, 2, 0.1)
    schedule = jo.Schedule.warmup(5.0)
    settings = {"features": along(basis), "method": "exact"}
    t = np.array([0.0, 3.0, 1e300])
    flow = jo.gradient_flow(net, cov, "mae", t=t, schedule=schedule, **settings)
    own = jo.gradient_flow(net, cov, "mae", t=schedule.elapsed(t), **settings)
    np.testing.assert_array_equal(flow.response, own.response)
    assert flow.end == 1e300
    assert jo.gradient_flow(net, cov, "mae", t=[], **settings).response.shape == (3, 0)


def test_auto_integrates():
    _, cov, basis = aligned_data(3, rotated=True)
    flow = jo.gradient_flow(jo.LinearNetwork.balanced(3, 2, 0.1), cov, "mae", t=[10.0], features=along(basis))
    assert flow.nfev > 0
    assert flow.method == "dop853"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p | {"objective": jo.JEPA(weight_decay=0.1)}, "is not plain"),
        (lambda p: p | {"cov": random_cov(3, 0)}, "Syx is not symmetric"),
        (lambda p: p | {"cov": jo.Covariances(np.diag([1.0, 2.0, 3.0]), np.full((3, 3), 0.1))}, "features couple"),
        (lambda p: p | {"net": jo.LinearNetwork.balanced(3, 2, 0.1, v0=0.5)}, "not balanced"),
        (lambda p: p | {"net": jo.LinearNetwork.random(3, 2)}, "first layer is not aligned"),
        (lambda p: p | {"net": turned(p["net"])}, "predictor is not aligned"),
        (lambda p: p | {"net": jo.LinearNetwork([np.eye(3), np.diag([1.0, 2, 3])], np.eye(3))}, "not balanced"),
        (lambda p: p | {"net": narrow()}, "no feature arrives"),
        (
            lambda p: (
                p
                | {
                    "net": jo.LinearNetwork.balanced(3, 1, 0.1, basis=np.eye(3)[:, :1]),
                    "objective": "mae",
                    "cov": plain(),
                }
            ),
            "exponentially",
        ),
        (lambda p: p | {"predictor_rate": 2.0}, "predictor_rate"),
        (lambda p: p | {"levels": 0.1}, "levels"),
        (lambda p: p | {"coordinates": "features"}, "coordinates"),
    ],
)
def test_where_it_does_not_apply_it_says_why(change, reason):
    _, cov, _ = aligned_data(3, rotated=True)
    problem = change({"net": jo.LinearNetwork.balanced(3, 2, 0.1), "cov": cov, "objective": "jepa"})
    with pytest.raises(ValueError, match=f"does not apply: .*{reason}"):
        jo.gradient_flow(
            problem.pop("net"), problem.pop("cov"), problem.pop("objective"), t=[1.0], method="exact", **problem
        )


def plain():
    return jo.Covariances(np.diag([1.0, 2.0, 3.0]), np.diag([0.5, 0.4, 0.3]))


def narrow():
    """Return a start that sees one direction and yet has weights for others further up."""
    basis = aligned_data(3, rotated=True)[2][:, :1]
    net = jo.LinearNetwork.balanced(3, 2, 0.1, basis=basis, widths=3)
    frame = net.encoder[0] @ basis / np.linalg.norm(net.encoder[0])
    return jo.LinearNetwork([net.encoder[0], net.encoder[1] + 0.1 * (np.eye(3) - frame @ frame.T)], net.predictor)


def turned(net):
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    return jo.LinearNetwork(net.encoder, net.predictor @ rotation)


@given(starts(), st.floats(1e-8, 1e-2))
def test_a_start_that_departs_by_more_than_rounding_is_refused(problem, size):
    net, cov, name = problem
    rng = np.random.default_rng(0)
    layers = [layer + size * rng.standard_normal(layer.shape) for layer in net.encoder]
    with pytest.raises(ValueError, match="does not apply"):
        jo.gradient_flow(jo.LinearNetwork(layers, net.predictor), cov, name, t=[1.0], method="exact")
