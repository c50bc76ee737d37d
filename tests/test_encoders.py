"""Responses of encoders of any kind against the library's own for linear ones, and what a recorder leaves alone.

Skipped where PyTorch is missing; `make gradients` brings it.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jepa_ode as jo

torch = pytest.importorskip("torch", reason="needs PyTorch: make gradients", exc_type=ImportError)
nn = torch.nn

KINDS = ["regression", "jacobian"]


def linear(rng, widths, *, bias=False):
    layers = [nn.Linear(a, b, bias=bias, dtype=torch.float64) for a, b in pairwise(widths)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(torch.from_numpy(rng.standard_normal(layer.weight.shape)))
            if bias:
                layer.bias.fill_(1e3)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10**6), d=st.integers(1, 8), depth=st.integers(1, 3), bias=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_linear_encoder_responds_as_in_the_library(kind, seed, d, depth, bias):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((12 * d, d)) @ rng.standard_normal((d, d)) + rng.standard_normal(d)
    features = jo.Covariances.from_pairs(x, x + 0.3 * rng.standard_normal(x.shape)).spectrum()
    encoder = linear(rng, [d, *rng.integers(1, 9, depth)], bias=bias)
    product = jo.LinearNetwork([layer.weight.detach().numpy() for layer in encoder], np.eye(encoder[-1].out_features))
    expected = product.response(features.duals)
    found = jo.ResponseRecorder(x, features, kind=kind, batch_size=5)(0, encoder)
    scale = np.linalg.norm(product.encoder_product(), 2) * np.linalg.cond(x - x.mean(axis=0)) * (1e3 if bias else 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * (1 + scale))
    single = jo.ResponseRecorder(x.astype(np.float32), features, kind=kind)(0, linear(rng, [d, 3]).float())
    assert np.isfinite(single).all()


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_costs_no_more_than_that(kind):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 6))
    encoder = linear(rng, [6, 5, 4])
    expected = np.linalg.norm((encoder[1].weight @ encoder[0].weight).detach().numpy(), axis=0)
    recorder = jo.ResponseRecorder(torch.from_numpy(x).float(), kind=kind)
    np.testing.assert_allclose(recorder(0, encoder), expected, rtol=1e-6)
    np.testing.assert_allclose(recorder(1, encoder.float()), expected, rtol=1e-6)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU])
def test_both_kinds_agree_for_gaussian_data_within_sampling_error(activation):
    rng = np.random.default_rng(1)
    encoder = linear(rng, [3, 16, 4])
    encoder = nn.Sequential(encoder[0], activation(), encoder[1])
    found = {n: [] for n in (1000, 100_000)}
    for n, rows in found.items():
        x = rng.standard_normal((n, 3)) @ rng.standard_normal((3, 3))
        rows.extend(jo.ResponseRecorder(x, kind=kind)(0, encoder) for kind in KINDS)
    gap = {n: np.abs(a - b).max() / b.max() for n, (a, b) in found.items()}
    assert gap[100_000] < 0.02
    assert gap[1000] < 0.2


def test_the_kinds_differ_where_the_data_are_not_gaussian():
    """E[df/dx] of x^3 is 3 E[x^2], its regression E[x^4] / E[x^2]: 3 and 1 for signs."""
    x = np.tile([[1.0], [-1.0]], (10, 1))
    found = [jo.ResponseRecorder(x, kind=kind)(0, lambda x: x**3)[0] for kind in KINDS]
    np.testing.assert_allclose(found, [1.0, 3.0])


@pytest.mark.parametrize("kind", KINDS)
def test_an_even_encoder_has_no_response(kind):
    x = np.random.default_rng(0).standard_normal((100, 2))
    assert np.abs(jo.ResponseRecorder(np.vstack([x, -x]), kind=kind)(0, torch.square)).max() < 1e-14


class Vision(nn.Module):
    """Images of 4 x 6; state of every kind that an encoder may have."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten())
        self.last = nn.Linear(24, 5)
        self.calls = []

    def forward(self, x):
        self.calls.append((tuple(x.shape[1:]), self.inner[3].training))
        torch.rand(3)  # whatever an encoder draws
        return self.last(self.inner(x))


@pytest.mark.parametrize("kind", KINDS)
def test_the_training_is_left_alone(kind):
    encoder = Vision()
    encoder.inner[1].eval()  # frozen statistics, as in fine-tuning
    x = torch.rand(100, 24)
    encoder(x.reshape(-1, 1, 4, 6)).square().mean().backward()
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    gradients = [p.grad.clone() for p in encoder.parameters()]
    modes = [module.training for module in encoder.modules()]
    rng = torch.get_rng_state()
    recorder = jo.ResponseRecorder(x, kind=kind, input_shape=(1, 4, 6), batch_size=30)
    first, second = recorder(0, encoder), recorder(7, encoder)
    assert first.shape == (24,)
    np.testing.assert_array_equal(first, second)  # no dropout
    assert all(torch.equal(state[name], value) for name, value in encoder.state_dict().items())
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, encoder.parameters(), strict=True))
    assert modes == [module.training for module in encoder.modules()]
    assert torch.equal(rng, torch.get_rng_state())
    assert encoder.calls[1] == ((1, 4, 6), False)


@pytest.mark.parametrize("kind", KINDS)
def test_modes_come_back_after_a_failure(kind):
    encoder = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 3))
    with pytest.raises(RuntimeError):
        jo.ResponseRecorder(np.random.default_rng(0).standard_normal((20, 2)), kind=kind)(0, encoder)
    assert all(module.training for module in encoder.modules())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("around", [torch.no_grad, torch.enable_grad])
def test_it_works_inside_of_no_grad_and_on_frozen_encoders(kind, around):
    encoder = nn.Linear(2, 2).requires_grad_(False)
    x = np.random.default_rng(0).standard_normal((20, 2))
    with around():
        found = jo.ResponseRecorder(x, kind=kind)(0, encoder)
    np.testing.assert_allclose(found, np.linalg.norm(encoder.weight.numpy(), axis=0), rtol=1e-5)


def test_constant_pixels_and_images_as_they_are():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((200, 3, 4))
    images[:, 0] = 0.5
    encoder = nn.Sequential(nn.Flatten(), linear(rng, [12, 4]))
    expected = np.linalg.norm(encoder[1][0].weight.detach().numpy(), axis=0)
    found = jo.ResponseRecorder(images)(0, encoder)
    np.testing.assert_allclose(found[4:], expected[4:], rtol=1e-10)
    assert found[:4].max() < 1e-13  # a pixel that never changes is no feature of the data
    np.testing.assert_allclose(jo.ResponseRecorder(images, kind="jacobian")(0, encoder), expected, rtol=1e-12)


def recorded():
    """Two features, the second first, and one that shrinks."""
    recorder = jo.ResponseRecorder(np.random.default_rng(0).standard_normal((20, 3)))
    for step, diagonal in [(0, (0.1, 0.1, 0.1)), (10, (0.1, 0.6, 0.1)), (20, (0.8, 0.8, 0.05)), (30, (0.8, 0.8, 0.01))]:
        encoder = nn.Linear(3, 3, dtype=torch.float64)
        with torch.no_grad():
            encoder.weight.copy_(torch.diag(torch.tensor(diagonal)))
        recorder(step, encoder)
    return recorder.responses


def test_times_and_order():
    found = recorded()
    assert found.step.tolist() == [0, 10, 20, 30]
    assert found.response.shape == (3, 4)
    times = found.learning_times()
    assert 10 < times[0] < 20
    assert 0 < times[1] < 10
    assert times[2] == np.inf
    assert found.learning_order().tolist() == [1, 0]
    assert found.learning_order(0.7, threshold="absolute").tolist() == [1, 0]
    assert found.learning_order(min_growth=5.0).tolist() == []
    assert jo.order_correlation(times, [2.0, 1.0, np.inf]) == 1.0
    with pytest.raises(ValueError, match="threshold"):
        found.learning_times(threshold="fixed_point")


def test_a_record_is_frozen_and_travels():
    found = recorded()
    assert pickle.loads(pickle.dumps(found)) == found
    assert repr(found) == "EncoderResponses(3 features, 4 steps, kind='regression')"
    with pytest.raises(ValueError, match="read-only"):
        found.response[0, 0] = 1.0


def test_a_record_can_be_drawn_and_exported():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    found = recorded()
    for relative in (False, True):
        ax = found.plot(figure.subplots(), relative=relative)
        assert ax.get_xlabel() == "feature"
        bottom, top = ax.get_ylim()
        assert bottom > top  # training goes down
    figure.canvas.draw()
    pytest.importorskip("xarray")
    spec = jo.Spectrum([1.0, 2.0], rho=[0.5, 0.8], duals=np.eye(2))
    recorder = jo.ResponseRecorder(np.random.default_rng(0).standard_normal((50, 2)), spec)
    recorder(3, nn.Linear(2, 4))
    data = recorder.responses.to_xarray()
    assert data.response.dims == ("feature", "step")
    assert data.rho.values.tolist() == [0.5, 0.8]


def test_nothing_recorded_yet():
    empty = jo.ResponseRecorder(np.eye(3).repeat(2, axis=0)).responses
    assert empty.response.shape == (3, 0)
    with pytest.raises(ValueError, match="nothing has been recorded"):
        empty.learning_times()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": np.zeros(3)}, ValueError, r"\[N, ...\]"),
        ({"x": np.full((9, 2), np.nan)}, ValueError, r"x\[0, 0\] = nan"),
        ({"x": np.eye(4)}, ValueError, "4 probes leave a regression on 4 coordinates undetermined"),
        ({"features": np.ones((3, 1))}, ValueError, "duals must have shape"),
        ({"features": jo.Spectrum([1.0], rho=0.5)}, ValueError, "dual directions"),
        ({"kind": "hessian"}, ValueError, "kind must be one of"),
        ({"input_shape": (1, 3)}, ValueError, "does not hold the 2 values"),
        ({"batch_size": 0}, ValueError, "batch_size"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    x = np.random.default_rng(0).standard_normal((20, 2))
    with pytest.raises(error, match=message):
        jo.ResponseRecorder(**{"x": x, **arguments})


@pytest.mark.parametrize("kind", KINDS)
def test_bad_encoders_are_named_and_nothing_is_recorded(kind):
    recorder = jo.ResponseRecorder(np.random.default_rng(0).standard_normal((20, 2)), kind=kind)
    with pytest.raises(FloatingPointError, match="not finite at step 4"):
        recorder(4, lambda x: x / 0.0)
    with pytest.raises(ValueError, match="one output per input"):
        recorder(4, lambda x: x[:3])
    with pytest.raises(TypeError, match="must return a tensor"):
        recorder(4, lambda x: (x, x))
    recorder(4, lambda x: x)
    with pytest.raises(ValueError, match="steps must increase"):
        recorder(4, lambda x: x)
    assert recorder.responses.step.tolist() == [4]


def test_a_jacobian_needs_a_derivative():
    recorder = jo.ResponseRecorder(np.ones((2, 2)), kind="jacobian")
    with pytest.raises(ValueError, match="cannot be differentiated"):
        recorder(0, lambda x: x.detach())


def test_without_torch_the_extra_is_named():
    code = """
import sys
sys.modules["torch"] = None
import jepa_ode as jo
try:
    jo.ResponseRecorder([[1.0]])
except ImportError as error:
    assert "jepa-ode[experiments]" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
