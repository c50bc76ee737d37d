"""The flow in the principal axes of x is the flow, at one product of matrices less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

import jepa_ode as jo
from jepa_ode.principal_axes import PrincipalAxes
from reference_flow import loss, pack, velocity
from test_flow import networks, random_cov, random_target


@given(networks())
def test_velocity_and_loss_are_those_of_the_specification(problem):
    net, cov, objective = problem
    axes = PrincipalAxes(cov.Sxx, cov.Syx, cov.Syy)
    turn = np.eye(len(cov.Sxx)) if axes.turn is None else axes.turn
    W, V, B = list(net.encoder), net.predictor, random_target(net, objective)

    def turned(layers):
        return [layers[0] @ turn, *layers[1:]] if layers else []

    flow = axes.network_flow(net, objective, 1.0)
    state = pack(turned(W), V, turned(B))
    dW, dV, dB = velocity(W, V, cov, objective, B)
    expected = pack(turned(dW), dV, turned(dB))
    scale = 1 + np.abs(expected).max()
    np.testing.assert_allclose(flow.velocity(state), expected, rtol=0, atol=1e-13 * scale)
    assert flow.loss(state) == pytest.approx(loss(W, V, cov, objective, B), rel=1e-12, abs=1e-12)


def test_diagonal_data_are_not_turned():
    cov = jo.Covariances(np.diag([3.0, 1.0, 2.0]), np.diag([0.3, 0.2, 0.1]))
    axes = PrincipalAxes(cov.Sxx, cov.Syx, cov.Syy)
    assert axes.turn is None
    np.testing.assert_array_equal(axes.variances, [3, 1, 2])
    assert axes.yx is cov.Syx


@pytest.mark.parametrize("objective", [jo.JEPA(), jo.JEPA(ema=0.7), jo.JEPA(stop_gradient=False), jo.MAE()], ids=repr)
def test_a_turn_of_the_data_turns_the_flow(objective):
    """Data given along their axes, which the flow takes as they are, and given in another basis."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    straight = random_cov(5, 3)
    variances, axes = np.linalg.eigh(straight.Sxx)
    straight = jo.Covariances(np.diag(variances), axes.T @ straight.Syx @ axes, axes.T @ straight.Syy @ axes)
    tilted = jo.Covariances(*(basis @ moment @ basis.T for moment in (straight.Sxx, straight.Syx, straight.Syy)))
    net = jo.LinearNetwork.random(5, 2, 0.3, 2, [4, 3], objective.name)
    of_mae = objective.name == "mae"
    moved = jo.LinearNetwork(
        [net.encoder[0] @ basis.T, net.encoder[1]], basis @ net.predictor if of_mae else net.predictor
    )
    t, tight = [0.0, 1.0, 30.0], {"method": "dop853", "rtol": 1e-9, "atol": 1e-12, "keep_weights": True}
    there = jo.gradient_flow(net, straight, objective, t=t, **tight)
    here = jo.gradient_flow(moved, tilted, objective, t=t, **tight)
    assert here.nfev == there.nfev  # norms are kept, hence the steps
    np.testing.assert_allclose(here.loss, there.loss, rtol=1e-8)
    for k in range(len(t)):
        np.testing.assert_allclose(here.network(k).encoder[0], there.network(k).encoder[0] @ basis.T, rtol=0, atol=1e-8)
    assert here.network(0) == moved
    np.testing.assert_allclose(here.final.encoder[0], here.network(-1).encoder[0], rtol=0, atol=0)


def test_what_ends_at_once_is_the_start_itself():
    cov = random_cov(4, 5)
    net = jo.LinearNetwork.balanced(4, 2, 0.1)
    seen = []
    flow = jo.gradient_flow(
        net, cov, "jepa", t=[0.0, 0.0], keep_weights=True, observe={"look": lambda n: seen.append(n) or 1.0}
    )
    assert [flow.network(0), flow.network(1), flow.final, *seen] == [net] * 5
