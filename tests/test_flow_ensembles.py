"""Many networks in one call: each to the bit what it is alone."""

from __future__ import annotations

import numpy as np
import pytest

import jepa_ode as jo
from test_flow import along, random_cov


@pytest.fixture(scope="module")
def networks():
    return [
        jo.LinearNetwork.random(4, depth, 0.5, seed, widths=width)
        for seed, (depth, width) in enumerate([(1, 4), (2, 6), (3, 4), (2, 3), (4, 5)])
    ]


@pytest.mark.parametrize("threads", [None, 1, 2, 3, 7])
@pytest.mark.parametrize("method", ["auto", "tsit5", "rock4"])
def test_each_flow_is_what_it_is_alone(networks, threads, method):
    cov = random_cov(4, 0)
    settings = {
        "t": np.linspace(0, 30, 7),
        "features": along(np.eye(4)),
        "keep_weights": True,
        "observe": ("singular_values", "effective_rank"),
        "levels": 0.3,
        "plateau_tol": 0.01,
        "method": method,
    }
    flows = jo.gradient_flows(networks, cov, "jepa", threads=threads, **settings)
    assert len(flows) == len(networks)
    for net, flow in zip(networks, flows, strict=True):
        assert flow == jo.gradient_flow(net, cov, "jepa", **settings)


# Networks large enough for threads to share, and one that is not.
@pytest.mark.parametrize("method", ["dop853", "rock4"])
@pytest.mark.parametrize("objective", ["jepa", "mae"])
def test_threads_share_a_network_and_change_no_bit(objective, method):
    cov = random_cov(150, 1)
    nets = [jo.LinearNetwork.random(150, 2, 0.02, seed, widths=[width, 150]) for seed, width in enumerate([140, 20])]
    settings = {"t": [0, 0.3, 1.0], "method": method, "rtol": 1e-3, "observe": "effective_rank", "keep_weights": True}
    alone = [jo.gradient_flow(net, cov, objective, **settings, threads=1) for net in nets]
    for threads in (None, 2, 3, 7):
        assert jo.gradient_flow(nets[0], cov, objective, **settings, threads=threads) == alone[0]
        assert jo.gradient_flows(nets, cov, objective, **settings, threads=threads) == alone
    assert alone[0].success


def test_one_of_everything_for_each(networks):
    covs = [random_cov(4, seed) for seed in range(5)]
    objectives = [jo.JEPA(), "jepa", jo.JEPA(ema=1.0), jo.JEPA(weight_decay=0.1), jo.JEPA(stop_gradient=False)]
    schedules = [None, jo.Schedule.constant(2.0), None, jo.Schedule.warmup(1.0), None]
    rates = (1.0, 2.0, 0.5, 1.0, 3.0)
    features = [cov.spectrum() for cov in covs]
    flows = jo.gradient_flows(
        networks, covs, objectives, t=[0, 5], schedule=schedules, predictor_rate=rates, features=features
    )
    for k, flow in enumerate(flows):
        alone = jo.gradient_flow(
            networks[k], covs[k], objectives[k], t=[0, 5], schedule=schedules[k], predictor_rate=rates[k]
        )
        assert flow == alone


def test_exact_ones_too():
    cov = jo.Covariances(np.diag([1.0, 2.0]), np.diag([0.7, 0.9]), np.eye(2))
    nets = [jo.LinearNetwork.balanced(2, 2, eps) for eps in (0.01, 0.1)]
    for net, flow in zip(nets, jo.gradient_flows(nets, cov, "mae", t=[0, 9], method="exact"), strict=True):
        assert flow == jo.gradient_flow(net, cov, "mae", t=[0, 9], method="exact")


def test_one_that_fails_does_not_touch_the_others(networks):
    cov = random_cov(4, 0)
    features = along(np.eye(4))
    bad = jo.LinearNetwork([1e200 * np.eye(4)], np.eye(4))
    flows = jo.gradient_flows([networks[0], bad, networks[2]], cov, "jepa", t=[0, 5], features=features, threads=2)
    assert [flow.status for flow in flows] == [jo.Status.OK, jo.Status.NOT_FINITE, jo.Status.OK]
    assert flows[2] == jo.gradient_flow(networks[2], cov, "jepa", t=[0, 5], features=features)
    assert jo.gradient_flows([], cov, "jepa", t=[1.0]) == []


def test_progress_is_that_of_all(networks):
    cov = random_cov(4, 0)
    told = []
    jo.gradient_flows(networks, cov, "jepa", t=[0, 200], threads=2, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert all(0 <= part <= 1 for part in told)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_exception_of_an_observable_reaches_the_caller_from_any_thread(networks, threads):
    class UnseenError(Exception):
        pass

    def look(net):
        raise UnseenError(net.depth)

    with pytest.raises(UnseenError):
        jo.gradient_flows(networks, random_cov(4, 0), "jepa", t=[0, 5, 9], observe={"x": look}, threads=threads)
    assert all(flow.success for flow in jo.gradient_flows(networks, random_cov(4, 0), "jepa", t=[1.0], threads=2))


def test_arguments_that_do_not_fit(networks):
    cov = random_cov(4, 0)
    with pytest.raises(ValueError, match="objective must be one for all networks or 5 of them, one each; got 2"):
        jo.gradient_flows(networks, cov, ["jepa", "mae"], t=[1.0])
    with pytest.raises(ValueError, match="threads must be at least 1"):
        jo.gradient_flows(networks, cov, "jepa", t=[1.0], threads=0)
    with pytest.raises(TypeError, match="net must be a LinearNetwork"):
        jo.gradient_flows([networks[0], "net"], cov, "jepa", t=[1.0])
