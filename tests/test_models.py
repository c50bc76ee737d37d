"""Generative models: population covariances against samples, spectra against what was asked for."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo

RNG = np.random.default_rng(0)
TURN = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
WANTED = jo.Spectrum([0.3, 1.0, 0.5, 0.8], rho=[0.9, 0.3, 0.7, 0.5])
MODELS = {
    "static": jo.StaticModel(RNG.normal(size=(5, 3)), noise=[0.5, 1.0, 0.2, 0.8, 0.4]),
    "masked": jo.StaticModel(RNG.normal(size=(5, 3)), noise=0.3, keep=[0.5, 0.9, 1.0, 0.7, 0.6]),
    "static from spectrum": jo.StaticModel.from_spectrum(WANTED, rotation=TURN[:, :4]),
    "dynamic": jo.DynamicModel([0.9, -0.5, 0.3], noise=[0.2, 1.0, 0.5]),
    "dynamic lag 3": jo.DynamicModel([0.9, -0.5, 0.3, 0.0, 0.99], lag=3, rotation=TURN),
}


@pytest.mark.parametrize("name", MODELS)
def test_samples_have_the_covariances_of_the_population(name):
    model = MODELS[name]
    pop = model.covariances()
    n = 40_000
    x, y = model.sample(n, rng=1)
    assert x.shape == y.shape == (n, len(pop.Sxx))
    products = {"Sxx": (x, x), "Syx": (y, x), "Syy": (y, y)}
    for entry, (a, b) in products.items():
        each = a[:, :, None] * b[:, None, :]
        stderr = each.std(axis=0) / np.sqrt(n)
        np.testing.assert_array_less(np.abs(each.mean(axis=0) - getattr(pop, entry)), 5 * stderr + 1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_the_sampled_spectrum_is_that_of_the_population_within_standard_errors(name):
    model = MODELS[name]
    pop = model.spectrum()
    spec = jo.Covariances.from_pairs(*model.sample(20_000, rng=2)).spectrum()
    assert len(spec) == len(pop)
    diagnostic = spec.diagnostic
    assert (np.abs(spec.rho - pop.rho) < 4.5 * diagnostic.rho_stderr).all()
    assert (np.abs(spec.lam - pop.lam) < 4.5 * diagnostic.lam_stderr).all()
    assert diagnostic.asymmetry < 2 * diagnostic.asymmetry_expected


@pytest.mark.parametrize("name", MODELS)
def test_samples_are_seeded(name):
    model = MODELS[name]
    x, y = model.sample(10, rng=3)
    again = model.sample(10, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(x, again[0])
    np.testing.assert_array_equal(y, again[1])
    assert not np.array_equal(x, model.sample(10, rng=4)[0])
    assert pickle.loads(pickle.dumps(model)) == model
    with pytest.raises(ValueError, match="n must be at least 1"):
        model.sample(0)


lams = st.lists(st.floats(0.01, 10.0), min_size=1, max_size=6)
rhos = st.lists(st.floats(0.01, 0.99), min_size=6, max_size=6)


@given(lam=lams, rho=rhos, turned=st.booleans())
def test_models_have_the_spectrum_they_were_made_from(lam, rho, turned):
    n = len(lam)
    wanted = jo.Spectrum(lam, rho=rho[:n])
    rotation = np.linalg.qr(np.random.default_rng(n).normal(size=(n, n)))[0] if turned else None
    order = np.lexsort([-wanted.lam, -wanted.rho])
    for kind in (jo.StaticModel, jo.DynamicModel):
        spec = kind.from_spectrum(wanted, rotation=rotation).spectrum()
        np.testing.assert_allclose(spec.rho, wanted.rho[order], rtol=1e-9)
        if n == 1 or np.min(-np.diff(wanted.rho[order])) > 1e-4:
            np.testing.assert_allclose(spec.lam, wanted.lam[order], rtol=1e-6)
            assert spec.diagnostic.coupling < 1e-5


@given(lam=lams, rho=rhos, tilt=st.floats(0.0, 2.0), seed=st.integers(0, 2**32 - 1))
def test_tilted_models_keep_their_spectrum(lam, rho, tilt, seed):
    n = len(lam)
    wanted = jo.Spectrum(lam, rho=rho[:n])
    cov = jo.StaticModel.tilted(wanted, tilt=tilt, rng=seed).covariances()
    order = np.lexsort([-wanted.lam, -wanted.rho])
    if np.linalg.cond(cov.Sxx) > 1e8 or (n > 1 and np.min(-np.diff(wanted.rho[order])) < 1e-3):
        return
    spec = cov.spectrum()
    np.testing.assert_allclose(spec.rho, wanted.rho[order], rtol=1e-6)
    np.testing.assert_allclose(spec.lam, wanted.lam[order], rtol=1e-4)


def test_tilted_models_couple_as_they_are_asked_to():
    wanted = jo.Spectrum(np.linspace(0.5, 1.0, 60), rho=np.linspace(0.9, 0.5, 60))
    for tilt in (0.0, 0.1, 0.3, 30.0):
        frame = jo.StaticModel.tilted(wanted, tilt=tilt, rng=1).mixing / np.sqrt(wanted.lam)
        cosines = (frame.T @ frame)[np.triu_indices(60, 1)]
        np.testing.assert_allclose(np.linalg.norm(frame, axis=0), 1.0, rtol=1e-12)
        expected = np.sqrt((2 * tilt**2 + tilt**4) / 60) / (1 + tilt**2)
        np.testing.assert_allclose(cosines.std(), expected, rtol=0.1, atol=1e-14)


@given(lam=lams, rho=rhos, angle=st.floats(-3.0, 3.0), seed=st.integers(0, 2**32 - 1))
def test_a_coupled_model_keeps_its_coefficients_and_variances_at_every_angle(lam, rho, angle, seed):
    n = len(lam)
    wanted = jo.Spectrum(lam, rho=rho[:n])
    cov = jo.StaticModel.coupled(wanted, angle, rng=seed).covariances()
    np.testing.assert_allclose(cov.Sxx, np.diag(wanted.sigma2), rtol=1e-9, atol=1e-12 * wanted.sigma2.max())
    np.testing.assert_allclose(cov.spectrum().rho, np.sort(wanted.rho)[::-1], rtol=1e-9)
    np.testing.assert_array_equal(cov.Sxx, cov.Syy)


def test_a_coupled_model_turns_by_the_angle_and_couples_in_proportion_to_it():
    none, some, more = (jo.StaticModel.coupled(WANTED, angle, rng=1) for angle in (0.0, 0.01, 0.02))
    plain = jo.StaticModel.from_spectrum(WANTED)
    np.testing.assert_allclose(none.mixing, plain.mixing, atol=1e-14)
    np.testing.assert_allclose(none.noise, plain.noise, atol=1e-14)
    coupling = [model.spectrum().diagnostic.coupling for model in (none, some, more)]
    assert coupling[0] < 1e-14
    np.testing.assert_allclose(coupling[2] / coupling[1], 2.0, rtol=0.01)
    turn = some.mixing / np.sqrt(WANTED.rho) / np.sqrt(WANTED.sigma2)[:, None]
    np.testing.assert_allclose(turn.T @ turn, np.eye(4), atol=1e-14)
    np.testing.assert_allclose(np.abs(np.angle(np.linalg.eigvals(turn))).max(), 0.01, rtol=1e-9)
    rotated = jo.StaticModel.coupled(WANTED, 0.02, rng=1, rotation=TURN[:, :4])
    np.testing.assert_allclose(
        rotated.covariances().Syx, TURN[:, :4] @ more.covariances().Syx @ TURN[:, :4].T, atol=1e-14
    )
    with pytest.raises(ValueError, match="0 <= rho <= 1"):
        jo.StaticModel.coupled(jo.Spectrum([0.5], rho=1.5), 0.1)


def test_noise_features_and_negative_coefficients():
    spec = jo.StaticModel.from_spectrum(jo.Spectrum([0.5, 0.0], sigma2=[1.0, 2.0])).spectrum()
    np.testing.assert_allclose(spec.lam, [0.5, 0.0], atol=1e-15)
    wanted = jo.Spectrum([0.5, 0.0, -0.3], sigma2=[1.0, 2.0, 0.5])
    spec = jo.DynamicModel.from_spectrum(wanted, lag=3).spectrum()
    np.testing.assert_allclose(spec.lam, wanted.lam, atol=1e-15)
    np.testing.assert_allclose(spec.sigma2, wanted.sigma2, rtol=1e-14)


def test_a_trajectory_has_the_spectrum_too():
    model = jo.DynamicModel([0.9, 0.2], noise=[0.19, 0.96], lag=2)
    series = model.trajectory(40_000, rng=0)
    assert series.shape == (40_000, 2)
    cov = jo.Covariances.from_pairs(series[:-2], series[2:])
    np.testing.assert_allclose(cov.Sxx, np.eye(2), atol=0.1)
    np.testing.assert_allclose(cov.Syx, np.diag([0.81, 0.04]), atol=0.1)


def test_trends():
    same, opposite = (jo.models.feature_trends(20, trend) for trend in ("same", "opposite"))
    np.testing.assert_array_equal(same.lam, opposite.lam)
    assert (np.diff(same.lam) > 0).all()
    assert (np.diff(same.rho) > 0).all()
    np.testing.assert_array_equal(opposite.rho, same.rho[::-1])
    assert jo.models.feature_trends(2, "same", lam=(1, 3), rho=(0.5, 0.6)) == jo.Spectrum([1.0, 3.0], rho=[0.5, 0.6])
    with pytest.raises(ValueError, match="trend must be one of 'same', 'opposite'"):
        jo.models.feature_trends(3, "up")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jo.StaticModel(np.eye(2), noise=[1.0, -1.0]), "noise must be non-negative"),
        (lambda: jo.StaticModel(np.eye(2), noise=[1.0, 1.0, 1.0]), r"noise must be a number or have shape \(2,\)"),
        (lambda: jo.StaticModel(np.eye(2), noise=[[1.0, 2.0], [2.0, 1.0]]), "positive semi-definite"),
        (lambda: jo.StaticModel(np.eye(2), noise=[[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (lambda: jo.StaticModel(np.eye(2), keep=0.0), r"keep must be in \(0, 1\]"),
        (lambda: jo.StaticModel(np.ones(2)), "mixing must have 2 dimensions"),
        (lambda: jo.StaticModel.from_spectrum(jo.Spectrum([1.0], rho=[1.5])), "rho = 1.5 for feature 0"),
        (lambda: jo.StaticModel.from_spectrum(jo.Spectrum([-1.0], rho=[-0.5])), "DynamicModel for negative rho"),
        (lambda: jo.StaticModel.from_spectrum(WANTED, rotation=np.ones((4, 4))), "orthonormal columns"),
        (lambda: jo.StaticModel.from_spectrum(WANTED, rotation=np.eye(3)), "one column per feature, 4"),
        (lambda: jo.StaticModel.tilted(jo.Spectrum([1.0], rho=[1.5]), tilt=0.1), "rho = 1.5 for feature 0"),
        (lambda: jo.StaticModel.tilted(WANTED, tilt=-0.1), "tilt must be"),
        (lambda: jo.DynamicModel([1.0]), r"decay must be in \(-1, 1\)"),
        (lambda: jo.DynamicModel([0.5], noise=0.0), "noise must be positive"),
        (lambda: jo.DynamicModel([0.5], lag=0), "lag must be at least 1"),
        (lambda: jo.DynamicModel.from_spectrum(jo.Spectrum([1.0], rho=[1.0])), "-1 < rho < 1"),
        (lambda: jo.DynamicModel.from_spectrum(jo.Spectrum([-1.0], rho=[-0.5]), lag=2), "an even lag"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
