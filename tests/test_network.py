"""Networks: starts, shapes, value semantics, errors that say what would be right."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo
from reference_flow import product


@given(d=st.integers(1, 7), depth=st.integers(1, 6), eps=st.floats(1e-4, 2.0), seed=st.integers(0, 99))
def test_balanced_start_is_aligned_and_balanced(d, depth, eps, seed):
    net = jo.LinearNetwork.balanced(d, depth, eps, rng=seed)
    assert net.depth == depth
    assert net.widths == (d,) * (depth + 1)
    np.testing.assert_allclose(net.encoder_product(), eps * np.eye(d), atol=1e-13 * eps)
    np.testing.assert_allclose(net.predictor, eps ** (1 / depth) * np.eye(d), rtol=4e-16)  # powers of libraries differ
    for layer in net.encoder:  # orthogonal up to the scale
        np.testing.assert_allclose(layer @ layer.T, eps ** (2 / depth) * np.eye(d), atol=1e-13)
    for difference in net.balancedness():
        np.testing.assert_allclose(difference, 0, atol=1e-13)


@given(d=st.integers(2, 6), depth=st.integers(1, 4), seed=st.integers(0, 99), data=st.data())
def test_balanced_start_in_a_basis_sees_its_span(d, depth, seed, data):
    k = data.draw(st.integers(1, d))
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0][:, :k]
    net = jo.LinearNetwork.balanced(d, depth, 0.1, rng=seed, basis=basis)
    assert net.widths == (d, *([k] * (depth - 1)), d)
    np.testing.assert_allclose(net.encoder_product(), 0.1 * basis @ basis.T, atol=1e-14)
    np.testing.assert_allclose(net.response(basis), 0.1, rtol=1e-12)
    for difference in net.balancedness():
        np.testing.assert_allclose(difference, 0, atol=1e-14)


@given(d=st.integers(1, 6), depth=st.integers(1, 4), seed=st.integers(0, 99), data=st.data())
def test_aligned_start_of_any_widths_with_its_own_predictor(d, depth, seed, data):
    rng = np.random.default_rng(seed)
    k = data.draw(st.integers(1, d))
    widths = data.draw(st.lists(st.integers(k, 8), min_size=depth, max_size=depth))
    objective = data.draw(st.sampled_from(["jepa", "mae"]))
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0][:, :k]
    eps, v0 = rng.uniform(0.01, 2, k), rng.uniform(-2, 2, k)
    net = jo.LinearNetwork.balanced(d, depth, eps, seed, basis, v0=v0, widths=widths, objective=objective)
    assert net.widths == (d, *widths)
    assert net.predictor.shape == (d if objective == "mae" else widths[-1], widths[-1])

    # The same response, along the basis and nowhere else, and layer by layer: the scalars of THEORY.md 2.
    encoded = net.encoder_product() @ basis
    np.testing.assert_allclose(encoded.T @ encoded, np.diag(eps**2), atol=1e-13)
    np.testing.assert_allclose(net.encoder_product() @ (np.eye(d) - basis @ basis.T), 0, atol=1e-13)
    partial = basis
    for layer in net.encoder:
        before = partial
        partial = layer @ partial
        np.testing.assert_allclose(layer.T @ partial, before * eps ** (2 / depth), atol=1e-13)
        assert np.linalg.matrix_rank(layer) == k
    # V Wbar = target diag(v0): aligned with the encoder for JEPA, with the basis for MAE.
    target = basis * eps if objective == "mae" else encoded
    np.testing.assert_allclose(net.predictor @ encoded, target * v0, atol=1e-13)

    balanced = jo.LinearNetwork.balanced(d, depth, eps, seed, basis, widths=widths, objective=objective)
    assert balanced.encoder_product().tolist() == net.encoder_product().tolist()
    for difference in balanced.balancedness():
        np.testing.assert_allclose(difference, 0, atol=1e-13)
    # v^2 - a^2 is what the last of the conserved matrices holds.
    last = partial / np.linalg.norm(partial, axis=0)
    np.testing.assert_allclose(last.T @ net.balancedness()[-1] @ last, np.diag(v0**2 - eps ** (2 / depth)), atol=1e-12)


def test_a_last_width_of_the_data_keeps_the_basis():
    make = jo.LinearNetwork.balanced
    np.testing.assert_allclose(make(4, 2, 0.1, widths=[7, 4]).encoder_product(), 0.1 * np.eye(4), atol=1e-14)
    assert make(4, 3, 0.1, widths=4) == make(4, 3, 0.1)
    assert make(4, 3, np.full(4, 0.1), v0=0.1 ** (1 / 3)) == make(4, 3, 0.1)


def test_uniform_start_has_the_scale_that_was_asked_for():
    net = jo.LinearNetwork.random(200, 2, scale=0.5, rng=1, widths=[150, 100], distribution="uniform")
    for weights in (*net.encoder, net.predictor):
        scaled = weights * np.sqrt(weights.shape[1]) / 0.5
        assert scaled.std() == pytest.approx(1, rel=0.02)
        assert 0.99 * np.sqrt(3) < np.abs(scaled).max() <= np.sqrt(3)
    assert net != jo.LinearNetwork.random(200, 2, scale=0.5, rng=1, widths=[150, 100])


def test_balancedness_with_a_rate_of_the_predictor():
    net = jo.LinearNetwork.random(4, 2, rng=1)
    expected = net.predictor.T @ net.predictor / 4 - net.encoder[-1] @ net.encoder[-1].T
    np.testing.assert_allclose(net.balancedness(4.0)[-1], expected, atol=1e-14)
    np.testing.assert_array_equal(net.balancedness(4.0)[0], net.balancedness()[0])
    with pytest.raises(ValueError, match="predictor_rate must be positive"):
        net.balancedness(0.0)


def test_hidden_frames_are_random_and_reproducible():
    make = jo.LinearNetwork.balanced
    assert make(4, 3, 0.1, rng=5) == make(4, 3, 0.1, rng=np.random.default_rng(5))
    assert make(4, 3, 0.1, rng=5) != make(4, 3, 0.1, rng=6)
    # Haar-distributed: no sign of the QR algorithm is left in the mean of the diagonal (six standard errors).
    diagonals = [np.diag(make(3, 2, 1.0, rng=seed).encoder[0]) for seed in range(600)]
    assert np.abs(np.mean(diagonals, axis=0)).max() < 6 * np.sqrt(1 / 3 / 600)


def test_gaussian_start_has_the_scale_that_was_asked_for():
    net = jo.LinearNetwork.random(200, 2, scale=0.5, rng=1, widths=[150, 100], objective="mae")
    assert net.widths == (200, 150, 100)
    assert net.predictor.shape == (200, 100)
    for weights in (*net.encoder, net.predictor):
        assert weights.std() * np.sqrt(weights.shape[1]) == pytest.approx(0.5, rel=0.02)
        assert abs(weights.mean()) < 0.001
    assert jo.LinearNetwork.random(4, 3, widths=2).widths == (4, 2, 2, 2)
    assert jo.LinearNetwork.random(4, 1).predictor.shape == (4, 4)


def test_what_it_computes():
    rng = np.random.default_rng(0)
    net = jo.LinearNetwork.random(5, 3, 1.0, rng, widths=[6, 4, 3])
    np.testing.assert_allclose(net.encoder_product(), product(list(net.encoder)), rtol=1e-14)
    duals = rng.standard_normal((5, 2))
    expected = [np.linalg.norm(net.encoder_product() @ p) / np.linalg.norm(p) for p in duals.T]
    np.testing.assert_allclose(net.response(duals), expected, rtol=1e-14)
    W1, W2, W3 = net.encoder
    V = net.predictor
    expected = [W2.T @ W2 - W1 @ W1.T, W3.T @ W3 - W2 @ W2.T, V.T @ V - W3 @ W3.T]
    for mine, theirs in zip(net.balancedness(), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-14)


def test_value_semantics():
    net = jo.LinearNetwork.random(4, 2, widths=[3, 2])
    for twin in (pickle.loads(pickle.dumps(net)), copy.copy(net), copy.deepcopy(net)):
        assert twin == net
        assert not twin.encoder[0].flags.writeable
        assert not twin.predictor.flags.writeable
    assert net != jo.LinearNetwork(net.encoder, 2 * net.predictor)
    assert net != jo.LinearNetwork.random(4, 1)
    assert net != "net"
    assert repr(net) == "LinearNetwork(depth=2, widths=(4, 3, 2), predictor=(2, 2))"
    with pytest.raises(TypeError):
        hash(net)
    with pytest.raises(AttributeError):
        net.predictor = None


def test_weights_are_copied_and_any_real_layout_is_taken():
    weights = np.arange(6.0).reshape(2, 3)
    net = jo.LinearNetwork([weights], np.eye(2))
    weights[0, 0] = 7
    assert net.encoder[0][0, 0] == 0
    weights[0, 0] = 0
    for other in (
        weights.astype(">f8"),
        weights.astype(np.float32),
        weights.astype(int),
        np.asfortranarray(weights),
        weights[::-1][::-1],
        weights.tolist(),
    ):
        assert jo.LinearNetwork([other], np.eye(2, dtype=int)) == net


@pytest.mark.parametrize(
    ("encoder", "predictor", "error", "match"),
    [
        ([], np.eye(2), ValueError, "encoder must have at least one layer"),
        (np.eye(2), np.eye(2), TypeError, r"encoder=\[W\]"),
        ([np.eye(2), np.ones((2, 3))], np.eye(2), ValueError, r"encoder\[1\] must have 2 columns"),
        ([np.eye(2)], np.ones((2, 3)), ValueError, "predictor must have 2 columns"),
        ([np.ones(2)], np.eye(2), ValueError, r"encoder\[0\] must have 2 dimensions"),
        ([np.full((2, 2), np.nan)], np.eye(2), ValueError, r"encoder\[0\] must be finite"),
        ([np.eye(2) * 1j], np.eye(2), TypeError, r"encoder\[0\] must hold real numbers"),
        ([np.ones((0, 2))], np.ones((0, 0)), ValueError, r"encoder\[0\] must not be empty"),
        ([np.ma.array(np.eye(2))], np.eye(2), TypeError, "masked"),
    ],
)
def test_weights_that_do_not_fit(encoder, predictor, error, match):
    with pytest.raises(error, match=match):
        jo.LinearNetwork(encoder, predictor)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"d": 0}, ValueError, "d must be at least 1"),
        ({"d": 2.0}, TypeError, "d must be a whole number"),
        ({"depth": 0}, ValueError, "depth must be at least 1"),
        ({"depth": 1.5}, TypeError, "depth must be a whole number"),
        ({"eps": 0}, ValueError, "eps must be positive"),
        ({"eps": np.nan}, ValueError, "eps must be finite"),
        ({"rng": -1}, ValueError, "rng must be at least 0"),
        ({"rng": "seed"}, TypeError, "rng must be a whole number"),
        ({"basis": np.eye(3)}, ValueError, r"basis must have shape \(2, k\)"),
        ({"basis": np.ones((2, 2))}, ValueError, "orthonormal columns"),
        ({"basis": np.ones((2, 0))}, ValueError, r"basis must have shape \(2, k\)"),
        ({"eps": [0.1, 0.2, 0.3]}, ValueError, r"eps must be a scalar or have shape \(2,\)"),
        ({"v0": [0.1, np.inf]}, ValueError, "v0 must be finite"),
        ({"v0": [0.1]}, ValueError, r"v0 must be a scalar or have shape \(2,\)"),
        ({"widths": [2, 1]}, ValueError, r"widths\[1\] must be at least 2"),
        ({"widths": 1}, ValueError, "widths must be at least 2"),
        ({"widths": [2]}, ValueError, "one width or 2 of them"),
        ({"objective": "vae"}, ValueError, "objective must be one of"),
    ],
)
def test_balanced_arguments_that_do_not_fit(arguments, error, match):
    with pytest.raises(error, match=match):
        jo.LinearNetwork.balanced(**{"d": 2, "depth": 2, "eps": 0.1, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"scale": -1.0}, ValueError, "scale must be positive"),
        ({"widths": [2]}, ValueError, "one width or 2 of them"),
        ({"widths": [2, 0]}, ValueError, r"widths\[1\] must be at least 1"),
        ({"widths": 2.5}, TypeError, "widths must be a whole number"),
        ({"objective": "vae"}, ValueError, "objective must be one of"),
        ({"distribution": "cauchy"}, ValueError, "distribution must be one of 'gaussian', 'uniform'"),
    ],
)
def test_random_arguments_that_do_not_fit(arguments, error, match):
    with pytest.raises(error, match=match):
        jo.LinearNetwork.random(**{"d": 2, "depth": 2, **arguments})


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
@pytest.mark.filterwarnings("error")
def test_response_does_not_depend_on_the_units_of_the_duals(scale):
    net = jo.LinearNetwork.random(3, 2)
    duals = np.random.default_rng(0).normal(size=(3, 2))
    np.testing.assert_allclose(net.response(scale * duals), net.response(duals), rtol=1e-13)


def test_response_needs_directions():
    net = jo.LinearNetwork.balanced(2, 1, 0.1)
    with pytest.raises(ValueError, match=r"duals must have shape \(2, n\)"):
        net.response(np.eye(3))
    with pytest.raises(ValueError, match="column 1 is zero"):
        net.response(np.diag([1.0, 0.0]))
