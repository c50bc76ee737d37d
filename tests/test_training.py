"""Training in steps against a plain NumPy loop and PyTorch's, its randomness, its limits (RELIABILITY.md 20, 22-25)."""

from __future__ import annotations

import pickle
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import jepa_ode as jo
from jepa_ode import training
from jepa_ode._core import engine
from jepa_ode.batches import _GaussianBatches
from reference_flow import loss, product, velocity

OBJECTIVES = [
    jo.JEPA(),
    jo.JEPA(stop_gradient=False),
    jo.JEPA(ema=0.5),
    jo.JEPA(weight_decay=0.05),
    jo.JEPA(ema=0.2, weight_decay=0.05),
    jo.MAE(),
    jo.MAE(weight_decay=0.05),
]
OPTIMIZERS = ["gd", "sgd", "momentum", "nesterov", "adam", "adamw"]
KINDS = ["population", "gaussian", "model", "pairs", "pairs in order"]
SETTINGS = {"momentum": 0.7, "betas": (0.8, 0.95), "adam_eps": 1e-6, "predictor_rate": 0.6}


def settings_of(optimizer):
    """Those that are its own: others would be an error."""
    own = {
        "momentum": ["momentum"],
        "nesterov": ["momentum"],
        "adam": ["betas", "adam_eps"],
        "adamw": ["betas", "adam_eps"],
    }
    return {name: SETTINGS[name] for name in [*own.get(optimizer, []), "predictor_rate"]}


def random_cov(d: int, seed: int) -> jo.Covariances:
    """Views that share a signal; Syx is not symmetric, so that a transposed product cannot hide."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((d, 3 * d))
    y = x @ np.diag(rng.uniform(0, 2, 3 * d)) + rng.standard_normal((d, 3 * d))
    return jo.Covariances(x @ x.T / (3 * d), y @ x.T / (3 * d), y @ y.T / (3 * d))


def random_pairs(d: int, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, d))
    return x, x @ rng.standard_normal((d, d)) / np.sqrt(d) + 0.5 * rng.standard_normal((samples, d))


def along(directions: np.ndarray) -> SimpleNamespace:
    """Features where a test knows them: a training reads their dual directions only."""
    return SimpleNamespace(duals=directions)


class Recorder:
    """A sampler of another make than ours, with a memory of what it gave."""

    def __init__(self, d: int, seed: int) -> None:
        self.cov, self.seed, self.given = random_cov(d, seed), seed, []

    def covariances(self) -> jo.Covariances:
        return self.cov

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        d = len(self.cov.Sxx)
        x = rng.standard_normal((n, d))
        y = x + rng.standard_normal((n, d))
        self.given.append((x, y))
        return x, y


class NumpyTraining:
    """The formulas of torch.optim, written for reading, on the gradient of the specification."""

    def __init__(self, net, objective, optimizer, lr, momentum, betas, adam_eps, predictor_rate):
        self.W, self.V = [layer.copy() for layer in net.encoder], net.predictor.copy()
        self.B = [layer.copy() for layer in net.encoder]
        self.objective, self.optimizer, self.lr = objective, optimizer, lr
        self.momentum, self.betas, self.eps, self.predictor_rate = momentum, betas, adam_eps, predictor_rate
        self.memory = [(np.zeros_like(w), np.zeros_like(w)) for w in [*self.W, self.V]]
        self.clock = 1 - momentum if optimizer in ("momentum", "nesterov") else 1  # flow time goes so much faster
        self.k = 0

    def step(self, moments, factor=1.0):
        """One step on second moments Sxx, Syx, Syy."""
        self.k += 1
        eta, jepa = self.objective.weight_decay, self.objective.name == "jepa"
        ema = self.objective.ema if jepa else None
        plain = jo.JEPA(self.objective.stop_gradient, ema) if jepa else jo.MAE()
        dW, dV, _ = velocity(self.W, self.V, moments, plain, self.B if ema else None)
        rates = [self.lr * factor] * len(dW) + [self.lr * factor * self.predictor_rate]
        for w, down, (a, b), rate in zip([*self.W, self.V], [*dW, dV], self.memory, rates, strict=True):
            if self.optimizer == "adamw":
                g = -down
                w *= 1 - rate * eta
            else:
                g = -down + eta * w
            if self.optimizer in ("gd", "sgd"):
                w -= rate * g
            elif self.optimizer in ("momentum", "nesterov"):
                a[:] = self.momentum * a + g
                w -= rate * (a if self.optimizer == "momentum" else g + self.momentum * a)
            else:
                beta1, beta2 = self.betas
                a[:] = beta1 * a + (1 - beta1) * g
                b[:] = beta2 * b + (1 - beta2) * g**2
                mean, square = a / (1 - beta1**self.k), b / (1 - beta2**self.k)
                w -= rate * mean / (np.sqrt(square) + self.eps)
        if ema:
            for b, w in zip(self.B, self.W, strict=True):
                b += self.lr * factor / self.clock / ema * (w - b)


def moments_of(x, y):
    return SimpleNamespace(Sxx=x.T @ x / len(x), Syx=y.T @ x / len(x), Syy=y.T @ y / len(x))


def data_of(kind, d, batch_size, steps, seed):
    """Data for a training of this kind, what follows it, and the moments of its batches."""
    if kind == "population":
        cov = random_cov(d, seed)
        return cov, {}, lambda: [cov] * steps
    if kind == "gaussian":
        cov = random_cov(d, seed)

        def drawn():
            root = np.block([[cov.Sxx, cov.Syx.T], [cov.Syx, cov.Syy]])
            values, vectors = np.linalg.eigh(root)
            rng = np.random.default_rng(seed)
            batches = (
                rng.standard_normal((batch_size, 2 * d)) @ (vectors * np.sqrt(np.maximum(values, 0))).T
                for _ in range(steps)
            )
            return [moments_of(z[:, :d], z[:, d:]) for z in batches]

        return cov, {"batch_size": batch_size, "rng": seed}, drawn
    if kind == "model":
        model = Recorder(d, seed)
        return model, {"batch_size": batch_size, "rng": seed}, lambda: [moments_of(*b) for b in model.given]
    x, y = random_pairs(d, 3 * batch_size + 2, seed)  # two left over in each epoch

    def batches():
        rng = np.random.default_rng(seed)
        result = []
        while len(result) < steps:
            order = np.arange(len(x)) if kind == "pairs in order" else rng.permutation(len(x))
            result += [order[k * batch_size : (k + 1) * batch_size] for k in range(len(x) // batch_size)]
        return [moments_of(x[rows], y[rows]) for rows in result[:steps]]

    return (x, y), {"batch_size": batch_size, "rng": seed, "shuffle": kind == "pairs"}, batches


@st.composite
def problems(draw):
    objective = draw(st.sampled_from(OBJECTIVES))
    d, depth = draw(st.integers(1, 11)), draw(st.integers(1, 4))
    widths = draw(st.lists(st.integers(1, 11), min_size=depth, max_size=depth))
    seed = draw(st.integers(0, 2**31))
    net = jo.LinearNetwork.random(d, depth, 0.8, seed, widths, objective.name)
    return net, objective, draw(st.integers(1, 40)), seed


def record_same_weights(record, run, reference, loop="NumPy"):
    net = run.network(-1)
    for mine, theirs in zip([*net.encoder, net.predictor], [*reference.W, reference.V], strict=True):
        error = np.abs(mine - theirs).max() / (1 + np.abs(theirs).max())
        record(20, f"weights after training against a loop in {loop}", error, at_most=1e-10)


# --- the same numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@given(problem=problems())
def test_steps_are_those_of_a_plain_loop(record, kind, optimizer, problem):
    net, objective, batch_size, seed = problem
    steps, d = 8, net.widths[0]
    data, options, batches = data_of(kind, d, batch_size, steps, seed)
    run = jo.train(
        net,
        data,
        objective,
        optimizer=optimizer,
        lr=0.01,
        steps=steps,
        features=along(np.eye(d)),
        keep_weights=True,
        **options,
        **settings_of(optimizer),
    )
    assume(run.success)  # few diverge
    assert run.steps == steps
    reference = NumpyTraining(net, objective, optimizer, 0.01, **SETTINGS)
    for moments in batches():
        reference.step(moments)
    record_same_weights(record, run, reference)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("batch_size", [8, 300])
def test_large_networks_use_both_forms_of_the_gradient(record, objective, batch_size):
    """Samples through the layers, or moments; more than one block of the inner index, odd widths."""
    x, y = random_pairs(137, 3 * batch_size, 1)
    net = jo.LinearNetwork.random(137, 3, 0.5, 2, [61, 140, 97], objective.name)
    run = jo.train(
        net, (x, y), objective, lr=0.01, steps=6, batch_size=batch_size, shuffle=False, keep_weights=True, snapshots=2
    )
    reference = NumpyTraining(net, objective, "sgd", 0.01, 0.9, (0.9, 0.999), 1e-8, 1.0)
    for k in range(6):
        rows = slice(k % 3 * batch_size, (k % 3 + 1) * batch_size)
        reference.step(moments_of(x[rows], y[rows]))
    record_same_weights(record, run, reference)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_are_those_of_torch(record, optimizer, objective):
    """The loop of a user of PyTorch: autograd and torch.optim. Where there is no torch the NumPy loop covers the same."""
    torch = pytest.importorskip("torch")
    d, batch_size, steps, lr = 12, 16, 100, 0.01
    x, y = random_pairs(d, steps * batch_size, 3)
    net = jo.LinearNetwork.random(d, 3, 0.7, 4, [9, 10, 8], objective.name)
    run = jo.train(
        net,
        (x, y),
        objective,
        optimizer=optimizer,
        lr=lr,
        steps=steps,
        batch_size=batch_size,
        shuffle=False,
        keep_weights=True,
        **settings_of(optimizer),
    )

    W = [torch.nn.Parameter(torch.tensor(layer)) for layer in net.encoder]
    V = torch.nn.Parameter(torch.tensor(net.predictor))
    B = [w.detach().clone() for w in W]
    groups = [{"params": W}, {"params": [V], "lr": lr * SETTINGS["predictor_rate"]}]
    decay = {"weight_decay": objective.weight_decay}
    make = {
        "gd": lambda: torch.optim.SGD(groups, lr=lr, **decay),
        "sgd": lambda: torch.optim.SGD(groups, lr=lr, **decay),
        "momentum": lambda: torch.optim.SGD(groups, lr=lr, momentum=SETTINGS["momentum"], **decay),
        "nesterov": lambda: torch.optim.SGD(groups, lr=lr, momentum=SETTINGS["momentum"], nesterov=True, **decay),
        "adam": lambda: torch.optim.Adam(groups, lr=lr, betas=SETTINGS["betas"], eps=SETTINGS["adam_eps"], **decay),
        "adamw": lambda: torch.optim.AdamW(groups, lr=lr, betas=SETTINGS["betas"], eps=SETTINGS["adam_eps"], **decay),
    }
    optim = make[optimizer]()

    def encode(layers, z):
        for w in layers:
            z = z @ w.T
        return z

    clock = 1 - SETTINGS["momentum"] if optimizer in ("momentum", "nesterov") else 1
    for k in range(steps):
        xb, yb = (torch.tensor(part[k * batch_size : (k + 1) * batch_size]) for part in (x, y))
        predicted = encode(W, xb) @ V.T
        if objective.name == "mae":
            target = yb
        elif objective.ema is not None:
            target = encode(B, yb)
        else:
            target = encode(W, yb)
            target = target.detach() if objective.stop_gradient else target
        optim.zero_grad()
        (0.5 * ((predicted - target) ** 2).sum() / batch_size).backward()
        optim.step()
        if objective.name == "jepa" and objective.ema is not None:
            with torch.no_grad():
                for b, w in zip(B, W, strict=True):
                    b += lr / clock / objective.ema * (w - b)
    theirs = SimpleNamespace(W=[w.detach().numpy() for w in W], V=V.detach().numpy())
    record_same_weights(record, run, theirs, "PyTorch")


# --- what is observed -----------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_observations_are_of_the_population(objective):
    cov = random_cov(5, 1)
    net = jo.LinearNetwork.random(5, 2, 0.7, 2, [6, 4], objective.name)
    run = jo.train(
        net, cov, objective, lr=0.01, steps=20, batch_size=7, snapshots=[0, 3, 4, 20], keep_weights=True, rng=5
    )
    assert run.iteration.tolist() == [0, 3, 4, 20]
    assert run.features == cov.spectrum()
    assert run.network(0) == net
    for k in range(4):
        network = run.network(k)
        np.testing.assert_allclose(run.response[:, k], network.response(run.features.duals), rtol=1e-12)
        if objective.name == "mae" or objective.ema is None:
            expected = loss(list(network.encoder), network.predictor, cov, objective)
            assert run.loss[k] == pytest.approx(expected, rel=1e-12)


def test_pairs_are_observed_through_their_moments():
    x, y = random_pairs(4, 50, 2)
    net = jo.LinearNetwork.balanced(4, 2, 0.5)
    run = jo.train(net, (x, y), "mae", lr=0.01, steps=10, batch_size=8, snapshots=3, keep_weights=True)
    for k in range(3):
        network = run.network(k)
        errors = x @ (network.predictor @ product(list(network.encoder))).T - y
        assert run.loss[k] == pytest.approx(0.5 * np.mean(np.sum(errors**2, axis=1)), rel=1e-12)
    assert run.features == jo.Covariances.from_pairs(x, y, center=False).spectrum() or np.allclose(
        run.features.rho, jo.Covariances.from_pairs(x, y, center=False).spectrum().rho
    )
    whole = jo.train(net, (x, y), "mae", lr=0.01, steps=10, keep_weights=True)
    cov = jo.Covariances(x.T @ x / 50, y.T @ x / 50, y.T @ y / 50)
    np.testing.assert_allclose(whole.weights, jo.train(net, cov, "mae", lr=0.01, steps=10, keep_weights=True).weights)


def test_without_the_targets_covariance_there_is_no_loss():
    cov = jo.Covariances(np.eye(2), 0.5 * np.eye(2))
    net = jo.LinearNetwork.balanced(2, 1, 0.1)
    assert jo.train(net, cov, "jepa", lr=0.1, steps=3).loss is None

    class Bare:
        def sample(self, n, rng):
            return rng.standard_normal((2, n, 2))

    run = jo.train(net, Bare(), "jepa", lr=0.1, steps=3, batch_size=4, features=cov.spectrum())
    assert run.loss is None
    assert run.success


def test_snapshots_are_even_or_as_told_and_change_nothing():
    cov, net = random_cov(3, 1), jo.LinearNetwork.random(3, 2)
    options = {"lr": 0.01, "steps": 103, "batch_size": 5, "keep_weights": True}
    few = jo.train(net, cov, "jepa", snapshots=2, **options)
    assert few.iteration.tolist() == [0, 103]
    even = jo.train(net, cov, "jepa", snapshots=11, **options)
    assert even.iteration.size == 11
    assert np.ptp(np.diff(even.iteration)) <= 1
    each = jo.train(net, cov, "jepa", snapshots=1000, **options)
    assert each.iteration.tolist() == list(range(104))
    early = jo.train(net, cov, "jepa", snapshots=[7], **options)
    assert early.steps == 103
    np.testing.assert_array_equal(each.weights[[0, 103]], few.weights)
    np.testing.assert_array_equal(each.weights[even.iteration], even.weights)
    np.testing.assert_array_equal(each.weights[7], early.weights[0])
    assert jo.train(net, cov, "jepa", lr=0.1, steps=0).iteration.tolist() == [0]


def test_time_is_flow_time():
    cov, net = random_cov(3, 1), jo.LinearNetwork.random(3, 2)
    schedule = jo.Schedule.warmup(10.0)
    options = {"lr": 0.02, "steps": 20, "snapshots": [0, 1, 5, 20]}
    run = jo.train(net, cov, "mae", **options)
    np.testing.assert_allclose(run.t, 0.02 * run.iteration)
    run = jo.train(net, cov, "mae", optimizer="nesterov", momentum=0.75, **options)
    np.testing.assert_allclose(run.t, 0.08 * run.iteration)
    run = jo.train(net, cov, "mae", schedule=schedule, **options)
    rates = 0.02 * np.minimum(np.arange(20) / 10, 1)
    np.testing.assert_allclose(run.t, [0, 0, rates[:5].sum(), rates.sum()])


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_a_schedule_multiplies_the_rate(record, optimizer):
    cov, objective = random_cov(4, 3), jo.JEPA(ema=0.2, weight_decay=0.1)
    net = jo.LinearNetwork.random(4, 2, 0.7)
    schedule = jo.Schedule.cosine(10.0, warmup=3.0)
    run = jo.train(
        net,
        cov,
        objective,
        optimizer=optimizer,
        lr=0.05,
        steps=15,
        schedule=schedule,
        keep_weights=True,
        **settings_of(optimizer),
    )
    reference = NumpyTraining(net, objective, optimizer, 0.05, **SETTINGS)
    for k in range(15):
        reference.step(cov, schedule(float(k)))
    record_same_weights(record, run, reference)
    assert run.schedule == schedule


# --- the flow that small steps approach -------------------------------------------------------------


@pytest.mark.parametrize(
    "objective", [jo.JEPA(), jo.JEPA(ema=2.0, weight_decay=0.01), jo.JEPA(stop_gradient=False), jo.MAE(0.02)], ids=repr
)
def test_the_error_against_the_flow_is_proportional_to_the_rate(objective):
    cov = random_cov(4, 2)
    net = jo.LinearNetwork.random(4, 2, 0.6, 1)
    flow = jo.gradient_flow(net, cov, objective, t=[0.0, 0.5, 1.0], rtol=1e-11, atol=1e-13)
    errors = []
    for lr in (0.01, 0.005, 0.0025):
        run = jo.train(net, cov, objective, lr=lr, steps=round(1 / lr), snapshots=3)
        np.testing.assert_allclose(run.t, flow.t)
        errors.append(np.abs(run.response - flow.response).max())
    assert errors[0] < 0.1
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2, rel=0.1)


def test_momentum_approaches_the_flow_on_its_own_clock():
    cov = random_cov(4, 2)
    net = jo.LinearNetwork.random(4, 2, 0.6, 1)
    flow = jo.gradient_flow(net, cov, "jepa", t=[0.0, 1.0])
    run = jo.train(net, cov, "jepa", optimizer="momentum", momentum=0.9, lr=1e-5, steps=10_000, snapshots=2)
    np.testing.assert_allclose(run.t, flow.t)
    np.testing.assert_allclose(run.response, flow.response, rtol=5e-3)


def test_a_long_training_begins_at_once():
    class BegunError(Exception):
        pass

    def stop(_):
        raise BegunError

    net = jo.LinearNetwork.balanced(3, 2, 0.1)
    with pytest.raises(BegunError):
        jo.train(net, random_cov(3, 2), "jepa", lr=0.01, steps=2**53, progress=stop)


# --- randomness and threads -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_the_run_whatever_the_threads(kind):
    net = jo.LinearNetwork.random(70, 2, 0.5, 1, [64, 70])  # large enough for threads to be used

    def run(seed, threads):
        data, options, _ = data_of(kind, 70, 90, 12, 3)
        options = {**options, "rng": seed} if options else {"rng": seed}
        return jo.train(
            net,
            data,
            jo.JEPA(ema=0.5),
            optimizer="adam",
            lr=1e-3,
            steps=12,
            threads=threads,
            keep_weights=True,
            **options,
        )

    one = run(7, 1)
    for threads in (2, 3, None):
        assert run(7, threads) == one
    assert (run(8, 1) == one) == (kind in ("population", "pairs in order"))
    assert run(np.random.default_rng(7), 2) == one


def test_gaussian_minibatches_have_the_covariances():
    cov = random_cov(3, 4)

    _, x, y, _ = _GaussianBatches(cov, 100_000, np.random.default_rng(0))(1)
    np.testing.assert_allclose(x.T @ x / 1e5, cov.Sxx, atol=0.1)
    np.testing.assert_allclose(y.T @ x / 1e5, cov.Syx, atol=0.1)
    np.testing.assert_allclose(y.T @ y / 1e5, cov.Syy, atol=0.15)


def test_an_epoch_uses_each_pair_once():
    """With one pair per batch and rows that are unit vectors, an epoch moves every column of W alike."""
    d = 6
    net = jo.LinearNetwork([np.zeros((d, d))], np.eye(d))
    for shuffle in (True, False):
        run = jo.train(
            net, (np.eye(d), np.eye(d)), "mae", lr=0.01, steps=d, batch_size=1, shuffle=shuffle, keep_weights=True
        )
        moved = run.network(-1).encoder[0]
        np.testing.assert_allclose(np.diag(moved), 0.01, rtol=0.1)
        assert np.abs(moved - np.diag(np.diag(moved))).max() < 1e-15


# --- divergence -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 3])
def test_divergence_is_a_status_with_the_iteration(batch_size):
    x, y = random_pairs(3, 3, 1)
    net = jo.LinearNetwork.random(3, 2, 1.0, 1)
    options = {"lr": 50.0, "steps": 100, "batch_size": batch_size, "snapshots": 101, "keep_weights": True}
    run = jo.train(net, (x, y), "mae", **options)
    assert not run.success
    assert run.status == jo.Status.NOT_FINITE
    assert 0 < run.steps < 20
    assert f"after iteration {run.steps + 1};" in run.message
    assert np.isfinite(run.weights[: run.steps + 1]).all()
    assert np.isnan(run.weights[run.steps + 1 :]).all()
    assert np.isnan(run.response[:, run.steps + 1 :]).all()
    assert np.isnan(run.loss[run.steps + 1 :]).all()
    assert np.isfinite(run.t).all()
    assert run.network(run.steps).depth == 2
    with pytest.raises(ValueError, match="was not reached"):
        run.network(run.steps + 1)

    reference = NumpyTraining(net, jo.MAE(), "gd", 50.0, 0.9, (0.9, 0.999), 1e-8, 1.0)
    with np.errstate(all="ignore"):
        for _ in range(run.steps):
            reference.step(moments_of(x, y))
        assert all(np.isfinite(w).all() for w in [*reference.W, reference.V])
        reference.step(moments_of(x, y))
        assert not all(np.isfinite(w).all() for w in [*reference.W, reference.V])


# --- the result -----------------------------------------------------------------------------------


@pytest.fixture
def run():
    model = jo.StaticModel.from_spectrum(jo.Spectrum([0.8, 0.5, 0.3], rho=[0.9, 0.6, 0.3]))
    net = jo.LinearNetwork.balanced(3, 2, 0.1)
    return jo.train(
        net, model, "jepa", optimizer="adam", lr=0.01, steps=30, batch_size=8, keep_weights=True, snapshots=4
    )


def test_results_are_frozen_and_survive_pickling(run):
    again = pickle.loads(pickle.dumps(run))
    assert again == run
    for result in (run, again):
        for array in (result.iteration, result.t, result.response, result.loss, result.weights):
            assert not array.flags.writeable
    assert repr(run) == (
        "Training(JEPA(stop_gradient=True, ema=None, weight_decay=0.0), depth=2, features=3, optimizer='adam', "
        "lr=0.01, batch_size=8, status=OK, steps=30)"
    )
    assert run.message == "took all 30 steps"
    with pytest.raises(AttributeError):
        run.lr = 1.0


def test_xarray(run):
    xarray = pytest.importorskip("xarray")
    data = run.to_xarray()
    assert isinstance(data, xarray.Dataset)
    assert data.response.dims == ("feature", "iteration")
    np.testing.assert_array_equal(data.loss, run.loss)
    np.testing.assert_array_equal(data.t, run.t)
    assert data.attrs["optimizer"] == "adam"
    assert data.attrs["batch_size"] == 8


def test_plot(run):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert run.plot(ax) is ax
    assert ax.get_xlabel() == "iteration"
    net = jo.LinearNetwork.balanced(3, 2, 0.1)
    flow = jo.train(net, jo.Covariances(np.eye(3), 0.5 * np.eye(3)), "jepa", lr=0.1, steps=5)
    assert flow.plot(Figure().subplots()).get_xlabel() != "iteration"


def test_progress(run):
    seen: list[float] = []
    net = jo.LinearNetwork.balanced(3, 2, 0.1)
    jo.train(net, random_cov(3, 1), "jepa", lr=0.01, steps=100, progress=seen.append)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    with pytest.raises(TypeError, match="progress"):
        jo.train(net, random_cov(3, 1), "jepa", lr=0.01, steps=1, progress=3)


# --- arguments ------------------------------------------------------------------------------------

COV = jo.Covariances(np.eye(3), 0.5 * np.eye(3), np.eye(3))
PAIR = (np.ones((4, 3)), np.ones((4, 3)))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"net": 3}, TypeError, "net must be a LinearNetwork"),
        ({"data": 3}, TypeError, r"data must be a Covariances, a model with \.sample\(n, rng\), or a pair"),
        ({"data": (1,)}, TypeError, "pair"),
        ({"data": (np.ones((4, 2)), np.ones((4, 2)))}, ValueError, r"shape \(samples, 3\)"),
        ({"data": (np.ones((4, 3)), np.ones((5, 3)))}, ValueError, "same shape"),
        ({"data": (np.full((4, 3), np.nan), np.ones((4, 3)))}, ValueError, r"data\[0\] must be finite"),
        ({"data": PAIR, "batch_size": 5}, ValueError, "at most the number of pairs, 4, got 5"),
        ({"data": jo.Covariances(np.eye(2), np.eye(2))}, ValueError, r"data\.Sxx must have shape \(3, 3\)"),
        ({"data": jo.Covariances(np.eye(3), np.eye(3)), "batch_size": 2}, ValueError, r"data\.Syy"),
        (
            {"data": jo.Covariances(np.eye(3), 2 * np.eye(3), np.eye(3)), "batch_size": 2},
            ValueError,
            "joint covariance .* positive semi-definite",
        ),
        (
            {"data": jo.Covariances(np.eye(3), np.eye(3)), "objective": jo.JEPA(stop_gradient=False)},
            ValueError,
            "without stop-gradient needs",
        ),
        ({"objective": "vicreg"}, ValueError, "objective"),
        ({"optimizer": "lion"}, ValueError, "optimizer must be one of 'gd', 'sgd'"),
        ({"lr": 0.0}, ValueError, "lr must be positive"),
        ({"steps": -1}, ValueError, "steps must be at least 0"),
        ({"steps": 10**400}, ValueError, "steps must be at most 2"),
        ({"steps": 1.5}, TypeError, "steps"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"shuffle": 1}, TypeError, "shuffle must be True or False"),
        ({"optimizer": "momentum", "momentum": 1.0}, ValueError, r"momentum must be in \[0, 1\)"),
        ({"momentum": 0.5}, ValueError, "momentum is an option of 'momentum' and 'nesterov', got optimizer='gd'"),
        ({"optimizer": "adam", "betas": 0.9}, TypeError, "betas must be a pair"),
        ({"optimizer": "adamw", "betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be in \[0, 1\)"),
        ({"optimizer": "adam", "adam_eps": -1.0}, ValueError, "adam_eps"),
        ({"optimizer": "nesterov", "adam_eps": 1e-3}, ValueError, "adam_eps is an option of 'adam' and 'adamw'"),
        ({"predictor_rate": -1.0}, ValueError, "predictor_rate"),
        ({"schedule": 2.0}, TypeError, "Schedule"),
        ({"snapshots": 1}, ValueError, "snapshots must be at least 2"),
        ({"snapshots": [0, 11]}, ValueError, "lie in 0 to steps = 10"),
        ({"snapshots": [3, 3]}, ValueError, "increase"),
        ({"snapshots": [0.5]}, TypeError, "whole numbers"),
        ({"features": jo.Spectrum([1.0], rho=0.5)}, ValueError, "dual directions"),
        ({"objective": jo.JEPA(ema=0.05), "lr": 0.1}, ValueError, "ema=0.05 must be at least the flow time"),
        ({"rng": "seed"}, TypeError, "rng"),
        ({"threads": 0}, ValueError, "threads"),
    ],
)
def test_bad_arguments_are_named(change, error, match):
    arguments = {"net": jo.LinearNetwork.balanced(3, 2, 0.1), "data": COV, "objective": "jepa", "lr": 0.1, "steps": 10}
    arguments |= change
    with pytest.raises(error, match=match):
        jo.train(arguments.pop("net"), arguments.pop("data"), arguments.pop("objective"), **arguments)


def test_samplers_are_held_to_their_word():
    class Short:
        def sample(self, n, rng):  # noqa: ARG002
            return np.ones((n - 1, 3)), np.ones((n - 1, 3))

    net, features = jo.LinearNetwork.balanced(3, 2, 0.1), COV.spectrum()
    with pytest.raises(ValueError, match="n = 4 samples, got 3"):
        jo.train(net, Short(), "jepa", lr=0.1, steps=2, batch_size=4, features=features)
    with pytest.raises(ValueError, match="need a batch_size"):
        jo.train(net, Short(), "jepa", lr=0.1, steps=2, features=features)
    with pytest.raises(ValueError, match="need features="):
        jo.train(net, Short(), "jepa", lr=0.1, steps=2, batch_size=4)


@given(st.integers(1, 3000), st.integers(1, 20), st.integers(0, 10**6))
def test_moments_of_pairs_do_not_depend_on_the_threads(n, d, seed):
    x, y = np.random.default_rng(seed).standard_normal((2, n, d))
    one, *others = (engine.sample_moments(x, y, threads) for threads in (1, 2, 3))
    for mine, expected in zip(one, (x.T @ x / n, y.T @ x / n, y.T @ y / n), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-13 * np.abs(expected).max() * (1 + n) ** 0.5)
    for other in others:
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_responses_of_many_snapshots_are_measured_on_the_way(monkeypatch):
    net, model = (
        jo.LinearNetwork.balanced(3, 2, 0.1),
        jo.StaticModel.from_spectrum(jo.Spectrum([0.5] * 3, rho=[0.9, 0.6, 0.3])),
    )
    arguments = (net, model, "jepa")
    settings = {"optimizer": "sgd", "lr": 0.1, "steps": 40, "batch_size": 8, "snapshots": 41}
    whole = jo.train(*arguments, **settings)
    monkeypatch.setattr(training, "_KEPT", 20)
    assert jo.train(*arguments, **settings) == whole


def test_a_moving_average_is_in_flow_time_with_momentum_too():
    cov, net = random_cov(3, 1), jo.LinearNetwork.random(3, 2, 0.5)
    objective = jo.JEPA(ema=5.0)
    run = jo.train(net, cov, objective, optimizer="momentum", lr=1e-4, steps=20_000, snapshots=5)
    flow = jo.gradient_flow(net, cov, objective, t=run.t, features=run.features)
    np.testing.assert_allclose(run.response, flow.response, atol=2e-3)
    assert run.final.widths == net.widths
    assert jo.train(net, cov, "mae", lr=1e6, steps=50).final is None
