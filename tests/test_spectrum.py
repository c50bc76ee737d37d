"""The spectrum as a value, and the eigenproblem, diagnostic and standard errors behind `Covariances.spectrum`."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo


def random_rotation(d: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def random_covariances(d: int, seed: int) -> jo.Covariances:
    """Exchangeable views of a random latent: well-conditioned, coupled features."""
    rng = np.random.default_rng(seed)
    return jo.StaticModel(rng.normal(size=(d, d)), noise=rng.uniform(0.5, 2.0, d)).covariances()


# --- the value ---------------------------------------------------------------------------------


def test_the_third_of_lam_sigma2_rho_follows_from_the_other_two():
    a = jo.Spectrum([0.7, -0.2, 0.0], sigma2=[1.0, 0.5, 2.0])
    np.testing.assert_array_equal(a.rho, [0.7, -0.4, 0.0])
    b = jo.Spectrum([0.7, -0.2], rho=[0.7, -0.4])
    np.testing.assert_allclose(b.sigma2, [1.0, 0.5], rtol=1e-15)
    assert len(a) == 3
    assert len(jo.Spectrum([], sigma2=[])) == 0


def test_scalars_are_broadcast():
    np.testing.assert_array_equal(jo.Spectrum([1.0, 2.0], rho=0.5).sigma2, [2.0, 4.0])
    np.testing.assert_array_equal(jo.Spectrum(0.5, sigma2=[1.0, 2.0]).rho, [0.5, 0.25])
    np.testing.assert_array_equal(jo.Spectrum([1.0, 2.0], 4.0, sigma2_y=3.0).sigma2_y, [3.0, 3.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lam": [1.0]}, "exactly one of sigma2 and rho .* got neither"),
        ({"lam": [1.0], "sigma2": [1.0], "rho": [1.0]}, "exactly one of sigma2 and rho .* got both"),
        ({"lam": [1.0, 1.0], "sigma2": [1.0, 0.0]}, "sigma2 must be positive; got 0.0 for feature 1"),
        ({"lam": [1.0, 0.0], "rho": [1.0, 0.5]}, "give sigma2 instead; got 0.5 for feature 1"),
        ({"lam": [1.0], "rho": [0.0]}, "give sigma2 instead"),
        ({"lam": [1.0], "rho": [-0.5]}, "rho must have the sign of lam"),
        ({"lam": [1e300], "rho": [1e-300]}, "positive and finite"),
        ({"lam": [1.0, np.nan], "sigma2": [1.0, 1.0]}, r"lam must be finite, got lam\[1\] = nan"),
        ({"lam": [1.0], "sigma2": [np.inf]}, "sigma2 must be finite"),
        ({"lam": [1.0, 2.0], "sigma2": [1.0, 2.0, 3.0]}, r"got lam \(2,\), sigma2 \(3,\)"),
        ({"lam": [[1.0]], "sigma2": [1.0]}, "one value per feature"),
        ({"lam": [1.0], "sigma2": [1.0], "sigma2_y": [-1.0]}, "sigma2_y must be non-negative"),
        ({"lam": [1.0], "sigma2": [1.0], "sigma2_y": [1.0, 2.0]}, "sigma2_y must be a scalar or have shape"),
        ({"lam": [1.0], "sigma2": [1.0], "duals": np.ones((3, 2))}, "one column per feature, 1"),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        jo.Spectrum(**arguments)


@pytest.mark.parametrize("lam", [np.ma.array([1.0], mask=[True]), [1j], ["a"], [None]])
def test_what_is_not_real_numbers_is_a_type_error(lam):
    with pytest.raises(TypeError, match="lam"):
        jo.Spectrum(lam, sigma2=[1.0])


@pytest.mark.parametrize("dtype", ["f4", ">f8", "i4", "u1", "f2"])
def test_any_real_type_gives_the_same_spectrum(dtype):
    lam = np.array([1, 2, 3], dtype=dtype)
    expected = jo.Spectrum([1.0, 2.0, 3.0], sigma2=[4.0, 4.0, 4.0])
    assert jo.Spectrum(lam, sigma2=np.full(3, 4, dtype)) == expected
    assert jo.Spectrum(np.repeat(lam, 2)[::2], sigma2=4) == expected


def test_a_spectrum_is_frozen_and_owns_its_arrays():
    lam = np.array([1.0, 2.0])
    spec = jo.Spectrum(lam, sigma2=[2.0, 2.0])
    lam[0] = 7
    assert spec.lam[0] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.lam = lam
    for other in (spec, pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec)):
        assert other == spec
        with pytest.raises(ValueError, match="read-only"):
            other.lam[0] = 7


def test_equality_is_by_content():
    spec = jo.Spectrum([1.0], sigma2=[2.0])
    assert spec == jo.Spectrum([1.0], rho=[0.5])
    assert spec != jo.Spectrum([1.0], sigma2=[2.0], sigma2_y=[2.0])
    assert spec != jo.Spectrum([1.0], sigma2=[3.0])
    assert spec != "a spectrum"


def test_features_can_be_picked():
    spec = random_covariances(5, 0).spectrum()
    assert repr(spec).startswith("Spectrum(5 features in 5 coordinates, lam ")
    some = spec[[3, 1]]
    np.testing.assert_array_equal(some.rho, spec.rho[[3, 1]])
    np.testing.assert_array_equal(some.duals, spec.duals[:, [3, 1]])
    np.testing.assert_array_equal(some.diagnostic.feature_coupling, spec.diagnostic.feature_coupling[[3, 1]])
    assert spec[spec.rho > np.median(spec.rho)] == spec[:2]
    assert [len(one) for one in spec] == [1] * 5
    assert spec[:] == spec
    with pytest.raises(IndexError):
        spec[5]
    with pytest.raises(IndexError):
        spec[0, 1]


def test_to_xarray_has_features_and_coordinates():
    pytest.importorskip("xarray")
    x, y = jo.StaticModel(np.eye(3), noise=0.5).sample(50)
    spec = jo.Covariances.from_pairs(x, y).spectrum()
    data = spec.to_xarray()
    assert data["duals"].dims == ("coordinate", "feature")
    np.testing.assert_array_equal(data["rho"], spec.rho)
    np.testing.assert_array_equal(data["rho_stderr"], spec.diagnostic.rho_stderr)


# --- the eigenproblem --------------------------------------------------------------------------


@given(d=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_features_solve_the_generalised_eigenproblem(d, seed):
    cov = random_covariances(d, seed)
    spec = cov.spectrum()
    Q, P = spec.directions, spec.duals
    identity = np.eye(d)
    np.testing.assert_allclose(Q.T @ cov.Sxx @ Q, identity, atol=1e-11)
    np.testing.assert_allclose(Q.T @ P, identity, atol=1e-12)
    np.testing.assert_allclose(P, cov.Sxx @ Q, atol=1e-11 * np.abs(P).max())
    np.testing.assert_allclose(cov.Syx, (P * spec.rho) @ P.T, atol=1e-11 * np.abs(cov.Syx).max())
    assert (np.diff(spec.rho) <= 0).all()
    norm2 = np.sum(P**2, axis=0)
    np.testing.assert_allclose(spec.sigma2, norm2, rtol=1e-13)
    np.testing.assert_allclose(spec.lam, spec.rho * norm2, rtol=1e-13)
    # THEORY.md 6, the other form of lambda
    by_q = spec.rho * np.diag(Q.T @ cov.Sxx @ cov.Sxx @ Q) / np.diag(Q.T @ cov.Sxx @ Q)
    np.testing.assert_allclose(spec.lam, by_q, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(spec.sigma2_y, spec.sigma2 * np.diag(Q.T @ cov.Syy @ Q), rtol=1e-10)
    assert spec.diagnostic.residual < 1e-10


@given(d=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_a_rotation_of_the_data_rotates_the_features(d, seed):
    cov = random_covariances(d, seed)
    R = random_rotation(d, np.random.default_rng(seed + 1))
    spec, turned = cov.spectrum(), jo.Covariances(R @ cov.Sxx @ R.T, R @ cov.Syx @ R.T).spectrum()
    np.testing.assert_allclose(turned.rho, spec.rho, atol=1e-10)
    if d == 1 or np.min(-np.diff(spec.rho)) > 1e-3:
        np.testing.assert_allclose(turned.lam, spec.lam, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(np.abs(np.sum(turned.duals * (R @ spec.duals), axis=0)), spec.sigma2, rtol=1e-6)


def test_a_diagonal_problem_is_its_own_solution():
    lam, sigma2 = np.array([0.5, -0.3, 0.0, 1.0]), np.array([1.0, 2.0, 3.0, 1.25])
    spec = jo.Covariances(np.diag(sigma2), np.diag(lam)).spectrum()
    order = [3, 0, 2, 1]
    np.testing.assert_allclose(spec.lam, lam[order], rtol=1e-14)
    np.testing.assert_allclose(spec.sigma2, sigma2[order], rtol=1e-14)
    np.testing.assert_array_equal(np.argmax(spec.duals, axis=0), order)  # and each dual positive
    assert spec.diagnostic.coupling == 0.0
    assert spec.diagnostic.asymmetry == 0.0


@pytest.mark.parametrize("rotate", [False, True])
def test_features_of_equal_rho_come_out_uncoupled(rotate):
    """THEORY.md 5, claim 3: rho fixed, lambda varied. Any mixture of them solves the eigenproblem."""
    wanted = jo.Spectrum([0.2, 0.9, 0.5, 0.4, 0.3], rho=[0.6, 0.6, 0.6, 0.3, 0.3])
    R = random_rotation(5, np.random.default_rng(3)) if rotate else None
    spec = jo.DynamicModel.from_spectrum(wanted, rotation=R).spectrum()
    np.testing.assert_allclose(spec.lam, [0.9, 0.5, 0.2, 0.4, 0.3], rtol=1e-12)
    np.testing.assert_allclose(spec.rho, [0.6, 0.6, 0.6, 0.3, 0.3], rtol=1e-12)
    assert (np.diff(spec.rho) <= 0).all()
    assert spec.diagnostic.coupling < 1e-12


def test_a_feature_of_tiny_variance_is_kept():
    sigma2 = np.array([1.0, 1e-16, 1e6])
    spec = jo.Covariances(np.diag(sigma2), np.diag(sigma2 * [0.5, 0.9, 0.1])).spectrum()
    np.testing.assert_allclose(spec.rho, [0.9, 0.5, 0.1], rtol=1e-14)
    np.testing.assert_allclose(spec.sigma2, [1e-16, 1.0, 1e6], rtol=1e-14)


@given(d=st.integers(2, 8), constant=st.integers(1, 3), duplicates=st.integers(0, 3), seed=st.integers(0, 10**6))
def test_rank_deficient_data_lose_only_the_null_directions(d, constant, duplicates, seed):
    rng = np.random.default_rng(seed)
    x, y = jo.StaticModel(rng.normal(size=(d, d)), noise=1.0).sample(50 + 5 * d, rng)
    duplicates = min(duplicates, d)
    x, y = (np.hstack([z, z[:, :duplicates], np.full((len(z), constant), 0.1)]) for z in (x, y))
    cov = jo.Covariances.from_pairs(x, y)
    spec = cov.spectrum()
    assert len(spec) == d
    diagnostic = spec.diagnostic
    assert (diagnostic.n_constant, diagnostic.n_dropped, diagnostic.rank) == (constant, duplicates, d)
    np.testing.assert_allclose(spec.directions.T @ cov.Sxx @ spec.directions, np.eye(d), atol=1e-9)
    without = jo.Covariances.from_pairs(x[:, :d], y[:, :d]).spectrum()
    np.testing.assert_allclose(spec.rho, without.rho, atol=1e-9)  # a linear map of x leaves rho
    assert f"{constant} coordinate" in diagnostic.summary()


def test_fewer_samples_than_coordinates_give_as_many_features_as_samples_allow():
    x, y = np.random.default_rng(0).normal(size=(2, 6, 20))
    spec = jo.Covariances.from_pairs(x, y).spectrum()
    assert len(spec) == 5
    assert np.isfinite(spec.diagnostic.lam_stderr).all()
    assert len(jo.Covariances.from_pairs(x, y, shrinkage=0.1).spectrum()) == 20


def test_rank_tol_is_relative_to_the_correlations():
    Sxx = np.array([[1.0, 1.0 - 1e-7], [1.0 - 1e-7, 1.0]])
    assert len(jo.Covariances(Sxx, 0.5 * Sxx).spectrum()) == 2
    assert len(jo.Covariances(Sxx, 0.5 * Sxx).spectrum(rank_tol=1e-6)) == 1
    units = np.array([1e-5, 1e5])  # other units of the coordinates change nothing
    Sxx = Sxx * np.outer(units, units)
    assert len(jo.Covariances(Sxx, 0.5 * Sxx).spectrum()) == 2
    assert len(jo.Covariances(Sxx, 0.5 * Sxx).spectrum(rank_tol=1e-6)) == 1


def test_covariances_without_features_are_errors():
    with pytest.raises(ValueError, match="x does not vary"):
        jo.Covariances(np.zeros((2, 2)), np.zeros((2, 2))).spectrum()
    with pytest.raises(ValueError, match="positive semi-definite"):
        jo.Covariances([[1.0, 2.0], [2.0, 1.0]], np.eye(2)).spectrum()
    with pytest.raises(ValueError, match="rank_tol"):
        jo.Covariances(np.eye(2), np.eye(2)).spectrum(rank_tol=-1.0)


# --- the diagnostic ----------------------------------------------------------------------------


def test_coupling_is_read_off_the_gram_matrix_of_the_duals():
    cov = random_covariances(6, 1)
    spec = cov.spectrum()
    M = spec.duals.T @ spec.duals
    off = M - np.diag(np.diag(M))
    assert spec.diagnostic.coupling == pytest.approx(np.linalg.norm(off) / np.linalg.norm(np.diag(M)), rel=1e-12)
    i = 2
    expected = sum(M[i, j] ** 2 / (M[i, i] * M[j, j]) for j in range(6) if j != i)
    assert spec.diagnostic.feature_coupling[i] == pytest.approx(expected, rel=1e-12)


def test_asymmetry_is_told_and_the_symmetric_part_is_used():
    Syx = np.array([[0.5, 0.3], [-0.3, 0.2]])
    spec = jo.Covariances(np.eye(2), Syx, 2 * np.eye(2)).spectrum()
    assert spec.diagnostic.asymmetry == pytest.approx(np.linalg.norm(Syx - Syx.T) / np.linalg.norm(Syx))
    assert spec.diagnostic.view_difference == pytest.approx(2 / 3)
    np.testing.assert_allclose(spec.rho, [0.5, 0.2], rtol=1e-14)
    summary = spec.diagnostic.summary()
    assert "not exchangeable" in summary
    assert "differ by 67%" in summary


def test_covariance_outside_the_reach_of_x_is_told():
    spec = jo.Covariances(np.diag([1.0, 0.0]), np.diag([0.5, 0.5])).spectrum()
    assert spec.diagnostic.residual == pytest.approx(np.sqrt(0.5))
    assert "outside all features" in spec.diagnostic.summary()


@pytest.mark.parametrize("exchangeable", [False, True])
def test_exchangeable_samples_show_the_asymmetry_expected_of_them(exchangeable):
    model = jo.StaticModel(np.random.default_rng(0).normal(size=(8, 8)), noise=1.0, keep=0.5)
    shown, expected = [], []
    for k in range(40):
        cov = jo.Covariances.from_pairs(*model.sample(500, rng=k), exchangeable=exchangeable)
        diagnostic = cov.spectrum().diagnostic
        shown.append([diagnostic.asymmetry, diagnostic.view_difference])
        expected.append([diagnostic.asymmetry_expected, diagnostic.view_difference_expected])
    root_mean_square = np.sqrt(np.mean(np.square(shown), axis=0))
    np.testing.assert_allclose(root_mean_square, np.mean(expected, axis=0), rtol=0.15)
    assert "look exchangeable" in diagnostic.summary()


def test_a_handful_of_samples_does_not_tell_whether_views_are_exchangeable():
    x, y = np.random.default_rng(0).normal(size=(2, 3, 10))
    diagnostic = jo.Covariances.from_pairs(x, y).spectrum().diagnostic
    assert diagnostic.asymmetry_expected > 0.5
    summary = diagnostic.summary()
    assert "whether they are exchangeable, as the theory assumes, cannot be judged" in summary
    assert "look exchangeable" not in summary
    assert "not exchangeable" not in summary
    assert "rare events" not in summary


@pytest.mark.parametrize(
    ("angle", "wording"),
    [(0.0, "exact on paper"), (0.1, "weak"), (0.25, "moderate"), (0.8, "strong")],
)
def test_the_accuracy_that_coupling_promises_names_where_it_was_measured(angle, wording):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    root = np.diag([1.5, 1.0])
    Syx = root @ turn @ np.diag([0.8, 0.5]) @ turn.T @ root
    summary = jo.Covariances(root @ root, Syx).spectrum().diagnostic.summary()
    assert wording in summary
    assert ("for starts around eps = 0.05 (measured at depth 2)" in summary) == (angle > 0)
    assert "Small starts amplify every coupling, even that of rounding" in summary


def test_correlations_above_what_the_variances_allow_are_told():
    views = np.eye(2), np.diag([0.9, 0.2])
    assert jo.Covariances(*views, np.eye(2)).spectrum().diagnostic.n_impossible == 0
    assert jo.Covariances(*views).spectrum().diagnostic.n_impossible == 0
    diagnostic = jo.Covariances(*views, 0.25 * np.eye(2)).spectrum().diagnostic
    assert diagnostic.n_impossible == 1
    assert "1 feature would need a larger covariance than the variances of the two views allow" in diagnostic.summary()
    x = np.random.default_rng(0).normal(size=(20, 3))
    assert jo.Covariances.from_pairs(x, -x).spectrum().diagnostic.n_impossible == 0  # |correlation| = 1


@pytest.mark.parametrize("scale", [2.0**-500, 2.0**-300, 2.0**300, 2.0**500])
@pytest.mark.filterwarnings("error")
def test_units_at_the_ends_of_the_range_change_no_digit(scale):
    x, y = jo.StaticModel(MIXING, noise=1.0).sample(300)
    for options in ({}, {"exchangeable": True}):
        expected = jo.Covariances.from_pairs(x, y, **options).spectrum()
        estimator = jo.CovarianceEstimator(**options)
        for rows in (slice(100), slice(100, None)):
            estimator.partial_fit(scale * x[rows], scale * y[rows])._flush()  # merged, not gathered
        cov = estimator.covariances()
        spec = cov.spectrum()
        diagnostic = spec.diagnostic
        np.testing.assert_allclose(spec.rho, expected.rho, rtol=1e-10)
        np.testing.assert_allclose(spec.lam / scale / scale, expected.lam, rtol=1e-10)
        np.testing.assert_allclose(diagnostic.rho_stderr, expected.diagnostic.rho_stderr, rtol=1e-10)
        np.testing.assert_allclose(diagnostic.lam_stderr / scale / scale, expected.diagnostic.lam_stderr, rtol=1e-10)
        for name in ("asymmetry", "view_difference", "coupling", "residual", "feature_coupling"):
            value = getattr(expected.diagnostic, name)
            np.testing.assert_allclose(getattr(diagnostic, name), value, rtol=1e-9, atol=1e-13)
        assert diagnostic.asymmetry_expected is None  # takes fourth powers
        assert "Syx differs" in diagnostic.summary()
        given = jo.Covariances(cov.Sxx, cov.Syx, cov.Syy, n_samples=300).spectrum()
        assert np.isfinite(given.diagnostic.lam_stderr).all()


def test_few_samples_and_rare_events_are_told():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 60, 10))
    x[:, 3] = y[:, 3] = np.arange(60) == 7
    diagnostic = jo.Covariances.from_pairs(x, y).spectrum().diagnostic
    assert "6.0 samples per feature" in diagnostic.summary()
    assert "on a handful of samples" in diagnostic.summary()
    assert diagnostic.effective_samples.min() < 5


def test_what_is_not_known_is_none():
    diagnostic = jo.Covariances(np.eye(2), 0.5 * np.eye(2)).spectrum().diagnostic
    for name in (
        "n_samples",
        "lam_stderr",
        "rho_stderr",
        "stderr_method",
        "effective_samples",
        "asymmetry_expected",
        "view_difference",
        "view_difference_expected",
    ):
        assert getattr(diagnostic, name) is None
    assert pickle.loads(pickle.dumps(diagnostic)) == diagnostic


# --- standard errors ---------------------------------------------------------------------------

# Gives rho = 0.97, 0.76, 0.48, 0.01: apart by far more than their errors, as the delta method needs.
MIXING = np.random.default_rng(5).normal(size=(4, 4))


def spread_of_features(draw, repeats: int, **options):
    """Return the spread of (lam, rho) over repeated samples and the mean standard errors claimed by each."""
    found, claimed = [], []
    for k in range(repeats):
        spec = jo.Covariances.from_pairs(*draw(np.random.default_rng(k)), **options).spectrum()
        found.append([spec.lam, spec.rho])
        claimed.append([spec.diagnostic.lam_stderr, spec.diagnostic.rho_stderr])
    return np.std(found, axis=0), np.mean(claimed, axis=0)


@pytest.mark.parametrize("options", [{}, {"exchangeable": True}])
def test_standard_errors_are_the_spread_over_samples(options):
    """Normal data with coupled features: lambda's error then has a part from the turning of the eigenvectors."""
    model = jo.StaticModel(MIXING, noise=[0.1, 0.5, 2.0, 6.0])
    assert model.spectrum().diagnostic.coupling > 0.5
    spread, claimed = spread_of_features(lambda rng: model.sample(3000, rng), 200, **options)
    np.testing.assert_allclose(claimed, spread, rtol=0.2)
    # and the same from the covariances alone, by normal theory
    pop = model.covariances()
    known = jo.Covariances(pop.Sxx, pop.Syx, pop.Syy, n_samples=3000, **options).spectrum().diagnostic
    assert known.stderr_method == "normal"
    np.testing.assert_allclose([known.lam_stderr, known.rho_stderr], spread, rtol=0.2)


def test_standard_errors_hold_for_data_far_from_normal():
    """Sparse data behind masks: normal theory is too small by a factor of two or more."""

    def draw(rng):
        active = rng.random((4000, 3)) < 0.05
        values = active * rng.normal(size=(4000, 3)) * [1.0, 1.5, 2.0]
        views = values * (rng.random((2, 4000, 3)) < [0.9, 0.6, 0.3])
        return views[0], views[1]

    spread, claimed = spread_of_features(draw, 200)
    np.testing.assert_allclose(claimed, spread, rtol=0.3)
    cov = jo.Covariances.from_pairs(*draw(np.random.default_rng(0)))
    normal = jo.Covariances(cov.Sxx, cov.Syx, cov.Syy, n_samples=4000).spectrum().diagnostic
    assert (normal.rho_stderr[1:] < 0.6 * claimed[1][1:]).all()


def test_standard_errors_agree_with_the_bootstrap():
    model = jo.StaticModel(MIXING, noise=[0.1, 0.5, 2.0, 6.0], keep=0.8)
    x, y = model.sample(1500, rng=3)

    def resample(rng):
        rows = rng.integers(0, len(x), len(x))
        return x[rows], y[rows]

    spread, _ = spread_of_features(resample, 200)
    diagnostic = jo.Covariances.from_pairs(x, y).spectrum().diagnostic
    assert diagnostic.stderr_method == "samples"
    np.testing.assert_allclose([diagnostic.lam_stderr, diagnostic.rho_stderr], spread, rtol=0.25)
