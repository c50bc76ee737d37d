"""The right-hand side against automatic differentiation by PyTorch, on random networks with every option.

Skipped where PyTorch is missing; `make gradients` brings it.
"""

from __future__ import annotations

import numpy as np
import pytest

import jepa_ode as jo
from conftest import case_count
from jepa_ode.flow_problem import network_flow
from reference_flow import pack

torch = pytest.importorskip("torch", reason="needs PyTorch: make gradients", exc_type=ImportError)

NETWORKS = case_count(100, 2000)


def random_problem(seed: int):
    """A network of random widths, data that are not symmetric, an objective with random options, a rate and a target."""
    rng = np.random.default_rng(seed)
    d, depth = int(rng.integers(1, 25)), int(rng.integers(1, 6))
    widths = [int(h) for h in rng.integers(1, 30, depth)]
    decay = float(rng.choice([0.0, 0.03]))
    objective = [
        jo.JEPA(weight_decay=decay),
        jo.JEPA(stop_gradient=False, weight_decay=decay),
        jo.JEPA(ema=1.5, weight_decay=decay),
        jo.MAE(weight_decay=decay),
    ][seed % 4]
    net = jo.LinearNetwork.random(d, depth, 1.0, rng, widths, objective.name, rng.choice(["gaussian", "uniform"]))
    x = rng.standard_normal((d, 2 * d + 1))
    y = 0.6 * x + rng.standard_normal(x.shape)
    target = [rng.standard_normal(layer.shape) / np.sqrt(layer.shape[1]) for layer in net.encoder]
    return net, x, y, objective, float(rng.choice([1.0, 0.2, 5.0])), target


def product(layers):
    """``W^L ... W^1`` of tensors."""
    result = layers[0]
    for layer in layers[1:]:
        result = layer @ result
    return result


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_velocity_is_that_of_autograd(record, seed):
    net, x, y, objective, rate, target = random_problem(seed)
    ema = objective.ema if objective.name == "jepa" else None
    W = [torch.tensor(layer, requires_grad=True) for layer in net.encoder]
    V = torch.tensor(net.predictor, requires_grad=True)
    B = [torch.tensor(layer) for layer in target]
    # The loss of the samples themselves: no second moments are formed on this side.
    context, seen = torch.tensor(x), torch.tensor(y)
    if objective.name == "mae":
        goal = seen
    elif ema is not None:
        goal = product(B) @ seen
    elif objective.stop_gradient:
        goal = (product(W) @ seen).detach()
    else:
        goal = product(W) @ seen
    loss = 0.5 * (V @ product(W) @ context - goal).square().sum() / x.shape[1]
    decay = 0.5 * objective.weight_decay * sum(block.square().sum() for block in [*W, V])
    (loss + decay).backward()

    n = x.shape[1]
    flow = network_flow(net, objective, x @ x.T / n, y @ x.T / n, y @ y.T / n, rate)
    averages = [] if ema is None else target
    state = pack(list(net.encoder), net.predictor, averages)
    moved = [(layer - average) / ema for layer, average in zip(net.encoder, averages, strict=ema is not None)]
    expected = pack([-layer.grad.numpy() for layer in W], -rate * V.grad.numpy(), moved)
    error = np.abs(flow.velocity(state) - expected).max() / (1 + np.abs(expected).max())
    record(20, "right-hand side against autograd", error, at_most=1e-12)
    record(20, "loss against that of the samples", abs(flow.loss(state) / loss.item() - 1), at_most=1e-11)
