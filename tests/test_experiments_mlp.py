"""The PyTorch training loop of the experiments against the library's own, and its seeds.

Skipped where PyTorch is missing; `make gradients` brings it.
"""

from __future__ import annotations

import numpy as np
import pytest

import jepa_ode as jo
from jepa_ode.experiments._mlp import (
    batches,
    from_network,
    learn,
    linear_head,
    mlp,
    nonlinear_share,
    one_thread,
    train_encoder,
)

torch = pytest.importorskip("torch", reason="needs PyTorch: make gradients", exc_type=ImportError)

MODEL = jo.StaticModel.from_spectrum(jo.Spectrum([1.0, 0.5, 0.2], rho=[0.5, 0.7, 0.9]))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "objective",
    [
        jo.JEPA(),
        jo.JEPA(ema=0.3),
        jo.JEPA(weight_decay=0.1),
        jo.JEPA(stop_gradient=False),
        jo.MAE(),
        jo.MAE(weight_decay=0.1),
    ],
    ids=repr,
)
def test_a_linear_encoder_is_trained_as_by_the_engine(objective, optimizer):
    x, y = MODEL.sample(40 * 16, rng=0)
    layers = [mlp([3, 4], gain=0.5, seed=1), mlp([4, 3], gain=0.5, seed=2)]
    encoder, head = torch.nn.Sequential(*layers).double(), linear_head(3, 3, gain=0.5, seed=3).double()
    start = jo.LinearNetwork(
        [w.detach().numpy().copy() for w in encoder.parameters()], head.weight.detach().numpy().copy()
    )

    def sample(step):
        rows = slice(16 * (step % 40), 16 * (step % 40 + 1))
        return torch.from_numpy(x[rows]), torch.from_numpy(y[rows])

    train_encoder(encoder, head, sample, objective, optimizer=optimizer, lr=0.05, steps=100)
    run = jo.train(start, (x, y), objective, optimizer=optimizer, lr=0.05, steps=100, batch_size=16, shuffle=False)
    for ours, theirs in zip(encoder.parameters(), run.final.encoder, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(head.weight.detach().numpy(), run.final.predictor, rtol=0, atol=1e-12)


def trained(seed, activation="relu"):
    encoder = mlp([3, 8, 3], gain=0.5, activation=activation, seed=seed)
    seen = []
    run = train_encoder(
        encoder,
        linear_head(3, 3, gain=0.5),
        batches(MODEL, 32, seed=seed),
        "jepa",
        lr=0.05,
        steps=60,
        snapshots=3,
        observe=lambda step, _: seen.append(step),
    )
    return encoder, run, seen


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_a_seed_gives_the_same_run_and_torch_keeps_its_random_numbers(activation):
    before = torch.get_rng_state()
    (a, run_a, seen), (b, run_b, _), (_, run_c, _) = (trained(seed, activation) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert seen == run_a.iteration.tolist() == [0, 30, 60]
    assert run_a == run_b
    assert run_a != run_c
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_a_training_that_diverges_says_so():
    with pytest.raises(FloatingPointError, match="smaller lr"):
        train_encoder(mlp([3, 3]), linear_head(3, 3), batches(MODEL, 8), "mae", lr=100.0, steps=200)


def test_a_step_beyond_the_moving_average_is_refused():
    with pytest.raises(ValueError, match="lr must not exceed ema"):
        train_encoder(mlp([3, 3]), linear_head(3, 3), batches(MODEL, 8), jo.JEPA(ema=0.1), lr=0.2, steps=1)


def test_a_network_with_an_activation_between_its_layers():
    network = jo.LinearNetwork.balanced(3, 2, 0.1, 0, widths=(8, 3))
    (first, relu, last), head = from_network(network)
    assert isinstance(relu, torch.nn.ReLU)
    for layer, weight in zip((first, last, head), (*network.encoder, network.predictor), strict=True):
        np.testing.assert_allclose(layer.weight.detach().numpy(), weight, atol=1e-7)
        assert layer.bias is None


def test_share_that_is_not_linear():
    """What |z| adds to z/2 in ReLU: of variances 1/4 - 1/(2 pi) and 1/4 for Gaussian z."""
    x = np.random.default_rng(0).standard_normal((200_000, 1))
    assert nonlinear_share(mlp([1, 1], seed=0), x) < 1e-12
    excess = 0.25 - 0.5 / np.pi
    assert nonlinear_share(mlp([1, 1, 1], seed=0), x) == pytest.approx(excess / (0.25 + excess), rel=0.01)


@pytest.mark.parametrize("turned", [True, False])
def test_learning_starts_alike_for_all_features_and_follows_a_seed(turned):
    options = {"turned": turned, "eps": 0.1, "lr": 0.05, "steps": 50, "snapshots": 3}
    spec = jo.models.feature_trends(20, "same")
    (found, share), (again, _) = (learn(spec, "jepa", np.random.default_rng(1), **options) for _ in range(2))
    np.testing.assert_allclose(found.response[:, 0], 0.05, rtol=0.15)  # half of it, by probes
    assert found == again
    assert 0 < share < 1


def test_threads_are_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        with pytest.raises(ZeroDivisionError), one_thread():
            assert torch.get_num_threads() == 1
            raise ZeroDivisionError
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
