"""Covariances from samples in memory and from streams: values, batching, shrinkage, errors."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo


def pairs(n: int = 200, d: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    return shared + rng.normal(size=(n, d)), shared + rng.normal(size=(n, d))


def by_the_book(x, y, center=True):
    x, y = np.asarray(x, float), np.asarray(y, float)
    if center:
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return x.T @ x / len(x), y.T @ x / len(x), y.T @ y / len(x)


def assert_same(a: jo.Covariances, b: jo.Covariances, tol: float = 1e-12) -> None:
    """The same covariances, shrinkage and diagnostic, to rounding."""
    assert a.n_samples == b.n_samples
    for name in ("Sxx", "Syx", "Syy", "mean_x", "mean_y"):
        scale = np.abs(getattr(b, name)).max()
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=tol * scale)
    assert a.shrinkage == pytest.approx(b.shrinkage, rel=1e-8, abs=1e-12)
    np.testing.assert_allclose(a.moments.fourth, b.moments.fourth, rtol=1e-9)
    one, other = a.spectrum().diagnostic, b.spectrum().diagnostic
    assert one.asymmetry_expected == pytest.approx(other.asymmetry_expected, rel=1e-8)
    np.testing.assert_allclose(one.rho_stderr, other.rho_stderr, rtol=1e-6, atol=1e-12)


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [True, False])
def test_from_pairs_is_the_mean_over_the_samples(center):
    x, y = pairs()
    x += 3.0
    cov = jo.Covariances.from_pairs(x, y, center=center)
    for found, expected in zip((cov.Sxx, cov.Syx, cov.Syy), by_the_book(x, y, center), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(cov.mean_x, x.mean(axis=0) if center else np.zeros(4), atol=1e-13)
    assert cov.n_samples == 200
    assert repr(cov) == "Covariances(d=4, n_samples=200)"
    np.testing.assert_allclose(np.cov(x.T, ddof=0), jo.Covariances.from_pairs(x, y).Sxx, rtol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        lambda z: z.astype(">f8"),
        np.asfortranarray,
        lambda z: np.repeat(z, 2, axis=0)[::2],
        lambda z: np.ascontiguousarray(z[::-1])[::-1],
        lambda z: z.tolist(),
    ],
)
def test_layout_and_byte_order_change_nothing(change):
    x, y = pairs()
    assert jo.Covariances.from_pairs(change(x), change(y)) == jo.Covariances.from_pairs(x, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int16, np.uint8])
def test_narrow_types_are_summed_in_double(dtype):
    x, y = (np.clip(20 * z + 100, 0, 255).astype(dtype) for z in pairs(3000))
    found = jo.Covariances.from_pairs(x, y)
    np.testing.assert_allclose(found.Syx, by_the_book(x, y)[1], rtol=1e-11)
    assert found.Sxx.dtype == np.float64


def test_booleans_are_zeros_and_ones():
    x, y = (z > 0 for z in pairs())
    expected = jo.Covariances.from_pairs(x.astype(float), y.astype(float), shrinkage="ledoit-wolf")
    assert jo.Covariances.from_pairs(x, y, shrinkage="ledoit-wolf") == expected
    assert jo.CovarianceEstimator(shrinkage="ledoit-wolf").partial_fit(x, y.tolist()).covariances() == expected
    assert_same(jo.Covariances.from_pairs(x[:90], y[:90]).partial_fit(x[90:], y[90:]), jo.Covariances.from_pairs(x, y))


def test_inputs_are_left_alone_and_results_do_not_follow_them():
    x, y = pairs()
    before = x.copy()
    cov = jo.Covariances.from_pairs(x, y)
    np.testing.assert_array_equal(x, before)
    Sxx = cov.Sxx.copy()
    errors = cov.spectrum().diagnostic.rho_stderr
    x[:] = 0
    np.testing.assert_array_equal(cov.Sxx, Sxx)
    np.testing.assert_array_equal(cov.spectrum().diagnostic.rho_stderr, errors)
    for other in (cov, pickle.loads(pickle.dumps(cov)), copy.deepcopy(cov)):
        assert other == cov
        with pytest.raises(ValueError, match="read-only"):
            other.Sxx[0, 0] = 1


def test_a_large_mean_costs_no_digits_and_constants_have_no_variance():
    x, y = pairs(500)
    x, y = x + 1e8, y - 1e8
    x[:, 2] = y[:, 2] = 0.1
    cov = jo.Covariances.from_pairs(x, y)
    exact = by_the_book(x - 1e8, y + 1e8)[1]
    np.testing.assert_allclose(
        np.delete(cov.Syx, 2, axis=0)[:, [0, 1, 3]], np.delete(exact, 2, axis=0)[:, [0, 1, 3]], rtol=1e-6
    )
    assert cov.Sxx[2, 2] == 0.0
    assert cov.spectrum().diagnostic.n_constant == 1


def test_exchangeable_views_are_averaged_over_their_exchange():
    x, y = pairs()
    cov = jo.Covariances.from_pairs(x, y, exchangeable=True)
    Sxx, Syx, Syy = by_the_book(x, y)
    np.testing.assert_allclose(cov.Sxx, (Sxx + Syy) / 2, rtol=1e-12)
    np.testing.assert_array_equal(cov.Sxx, cov.Syy)
    np.testing.assert_allclose(cov.Syx, (Syx + Syx.T) / 2, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(cov.Syx, cov.Syx.T)
    assert np.abs(cov.spectrum().rho).max() <= 1 + 1e-12  # Cauchy-Schwarz
    swapped = jo.Covariances.from_pairs(y, x, exchangeable=True)
    np.testing.assert_allclose(cov.Syx, swapped.Syx, rtol=1e-11, atol=1e-13)


def test_given_matrices_are_checked():
    eye = np.eye(2)
    cov = jo.Covariances(np.eye(2, dtype=np.float32), [[1, 2], [3, 4]])
    assert cov.Syy is None
    assert repr(cov) == "Covariances(d=2, Syy=None)"
    assert jo.Covariances(eye, eye, eye, n_samples=7).n_samples == 7
    with pytest.raises(ValueError, match=r"Sxx must be symmetric, got Sxx\[0, 1\] = 1 but Sxx\[1, 0\] = 0"):
        jo.Covariances([[1.0, 1.0], [0.0, 1.0]], eye)
    with pytest.raises(ValueError, match=r"Sxx must be square .* got shape \(2, 3\)"):
        jo.Covariances(np.ones((2, 3)), eye)
    with pytest.raises(ValueError, match=r"Syx must have the shape of Sxx, \(2, 2\)"):
        jo.Covariances(eye, np.eye(3))
    with pytest.raises(ValueError, match=r"Syy must be finite, got Syy\[0, 1\] = nan"):
        jo.Covariances(eye, eye, [[1.0, np.nan], [0.0, 1.0]])
    with pytest.raises(ValueError, match="2 dimensions"):
        jo.Covariances(1.0, eye)
    with pytest.raises(TypeError, match="Syx must hold real numbers"):
        jo.Covariances(eye, 1j * eye)
    with pytest.raises(ValueError, match="n_samples"):
        jo.Covariances(eye, eye, n_samples=0)


def test_given_variances_are_not_negative():
    eye = np.eye(2)
    with pytest.raises(ValueError, match=r"Sxx must be positive semi-definite.* eigenvalue -1 beside the largest, -1"):
        jo.Covariances(-eye, eye)
    with pytest.raises(ValueError, match=r"Sxx must be positive semi-definite.* eigenvalue -1 beside the largest, 3"):
        jo.Covariances([[1.0, 2.0], [2.0, 1.0]], eye)
    with pytest.raises(ValueError, match=r"Syy must be positive semi-definite.* eigenvalue -5e\+199"):
        jo.Covariances(eye, eye, np.diag([1e200, -5e199]))
    for scale in (1e-200, 1.0, 1e200):  # rounding passes, whatever the units
        factor = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
        jo.Covariances(scale * np.asarray(factor @ factor.T, float), np.eye(20))
    jo.Covariances(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2)))


# --- streams -----------------------------------------------------------------------------------


@given(
    cuts=st.lists(st.integers(0, 120), max_size=8),
    center=st.booleans(),
    shrinkage=st.sampled_from([None, "ledoit-wolf", 0.3]),
    exchangeable=st.booleans(),
)
def test_the_result_does_not_depend_on_the_batches(cuts, center, shrinkage, exchangeable):
    x, y = pairs(120)
    x[60:] += 5.0  # a stream that drifts
    options = {"center": center, "shrinkage": shrinkage, "exchangeable": exchangeable}
    whole = jo.Covariances.from_pairs(x, y, **options)
    edges = [0, *sorted(cuts), 120]
    batches = [(x[a:b], y[a:b]) for a, b in itertools.pairwise(edges)]
    assert_same(jo.Covariances.from_batches(batches, **options), whole)
    # merged for every batch, not gathered into blocks
    estimator = jo.CovarianceEstimator(**options)
    for xb, yb in batches:
        estimator.partial_fit(xb, yb)._flush()
    assert_same(estimator.covariances(), whole)


def test_blocks_of_a_large_sample_are_merged(monkeypatch):
    x, y = pairs(1000)
    whole = jo.Covariances.from_pairs(x, y, shrinkage="ledoit-wolf")
    monkeypatch.setattr("jepa_ode.moments.BLOCK_ENTRIES", 64)
    assert_same(jo.Covariances.from_pairs(x, y, shrinkage="ledoit-wolf"), whole)


def test_the_standard_errors_of_long_streams_do_not_depend_on_the_batches():
    x, y = pairs(6000)
    whole = jo.Covariances.from_pairs(x, y)
    assert len(whole.subsample.x) == 2048
    estimator = jo.CovarianceEstimator()
    for k in range(0, 6000, 700):
        estimator.partial_fit(x[k : k + 700], y[k : k + 700])._flush()
    assert estimator.covariances().subsample == whole.subsample
    a, b = (jo.CovarianceEstimator().fit(z, w).covariances() for z, w in ((x[:5000], y[:5000]), (x[5000:], y[5000:])))
    merged = a.merge(b)  # other rows, but as good a sample: about a sixth of them from b
    assert len(merged.subsample.x) == 2048
    from_b = np.isin(merged.subsample.x[:, 0], x[5000:, 0]).mean()
    assert 0.1 < from_b < 0.25
    errors = whole.spectrum().diagnostic.rho_stderr
    np.testing.assert_allclose(merged.spectrum().diagnostic.rho_stderr, errors, rtol=0.15)


def test_single_rows_are_fine():
    x, y = pairs(50)
    estimator = jo.CovarianceEstimator()
    for k in range(50):
        assert estimator.partial_fit(x[k : k + 1], y[k : k + 1]) is estimator
    assert estimator.n_samples == 50
    assert_same(estimator.covariances(), jo.Covariances.from_pairs(x, y))
    assert "n_samples=50" in repr(estimator)


def test_a_reused_buffer_does_not_change_what_was_seen():
    x, y = pairs(40)
    xb, yb = np.empty((10, 4)), np.empty((10, 4))
    estimator = jo.CovarianceEstimator()
    for k in range(0, 40, 10):
        xb[:], yb[:] = x[k : k + 10], y[k : k + 10]
        estimator.partial_fit(xb, yb)
    assert_same(estimator.covariances(), jo.Covariances.from_pairs(x, y))


def test_partial_fit_of_covariances_returns_merged_ones():
    x, y = pairs(90)
    options = {"shrinkage": "ledoit-wolf", "exchangeable": True}
    first = jo.Covariances.from_pairs(x[:30], y[:30], **options)
    before = pickle.dumps(first)
    cov = first.partial_fit(x[30:60], y[30:60]).partial_fit(x[60:], y[60:])
    assert_same(cov, jo.Covariances.from_pairs(x, y, **options))
    assert pickle.dumps(first) == before
    with pytest.raises(ValueError, match="given as matrices"):
        jo.Covariances(np.eye(4), np.eye(4)).partial_fit(x, y)


def test_workers_merge():
    x, y = pairs(90)
    a, b = jo.CovarianceEstimator().fit(x[:50], y[:50]), jo.CovarianceEstimator().fit(x[50:], y[50:])
    merged = jo.CovarianceEstimator().merge(a).merge(pickle.loads(pickle.dumps(b))).covariances()
    assert_same(merged, jo.Covariances.from_pairs(x, y))
    assert_same(a.covariances().merge(b.covariances()), merged)
    assert a.n_samples == 50
    with pytest.raises(ValueError, match="same number of coordinates, got 4 and 2"):
        a.merge(jo.CovarianceEstimator().fit(x[:, :2], y[:, :2]))
    with pytest.raises(ValueError, match="center"):
        a.merge(jo.CovarianceEstimator(center=False))


def test_fit_starts_again():
    x, y = pairs(90)
    estimator = jo.CovarianceEstimator().fit(x, y)
    assert_same(estimator.fit(x[:40, :2], y[:40, :2]).covariances(), jo.Covariances.from_pairs(x[:40, :2], y[:40, :2]))


# --- errors ------------------------------------------------------------------------------------


def test_missing_values_are_located():
    x, y = pairs()
    y[17, 2] = np.nan
    with pytest.raises(ValueError, match=r"y must be finite, got a missing value \(NaN\) in row 17, column 2"):
        jo.Covariances.from_pairs(x, y)
    x[3, 1] = -np.inf
    with pytest.raises(ValueError, match=r"x must be finite, got -inf in row 3, column 1"):
        jo.Covariances.from_pairs(x, y)


def test_a_bad_batch_is_located_in_the_stream_and_adds_nothing():
    x, y = pairs()
    estimator = jo.CovarianceEstimator().partial_fit(x, y)
    bad = x.copy()
    bad[5, 1] = np.nan
    with pytest.raises(ValueError, match=r"row 5 of this batch \(row 205 of the stream\), column 1"):
        estimator.partial_fit(bad, y)
    with pytest.raises(ValueError, match="every batch must have 4 coordinates as the first had, got 3"):
        estimator.partial_fit(x[:, :3], y[:, :3])
    assert_same(estimator.covariances(), jo.Covariances.from_pairs(x, y))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((5, 2)), np.ones((5, 3)), r"same shape \[samples, d\], got \(5, 2\) and \(5, 3\)"),
        (np.ones((5, 2)), np.ones((4, 2)), r"got \(5, 2\) and \(4, 2\)"),
        (np.ones(5), np.ones(5), r"x must be 2-D \[samples, d\], got shape \(5,\)"),
        (np.ones((5, 8, 8)), np.ones((5, 8, 8)), r"flatten images with x.reshape\(len\(x\), -1\)"),
        (np.ones((5, 0)), np.ones((5, 0)), "at least one coordinate"),
        (np.ones((1, 3)), np.ones((1, 3)), "need at least 2 samples, as the mean takes one, got 1"),
        (np.ones((0, 3)), np.ones((0, 3)), "need at least 2 samples.*got 0"),
        (np.full((5, 2), 1e200) * [[1], [2], [3], [4], [5]], np.ones((5, 2)), "too large"),
    ],
)
def test_bad_shapes_are_named(x, y, message):
    with pytest.raises(ValueError, match=message):
        jo.Covariances.from_pairs(x, y)


@pytest.mark.parametrize("x", [np.ones((3, 2)) * 1j, np.array([["a", "b"]] * 3), np.ma.masked_array(np.ones((3, 2)))])
def test_what_is_not_real_numbers_is_a_type_error(x):
    with pytest.raises(TypeError, match="x"):
        jo.Covariances.from_pairs(x, np.ones((3, 2)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("cut", [100, 200])
def test_values_outside_the_range_are_errors_not_warnings(cut):
    x, y = pairs()

    def covariances(scale, **options):
        estimator = jo.CovarianceEstimator(**options)
        for rows in (slice(cut), slice(cut, None)):
            estimator.partial_fit(scale * x[rows], scale * y[rows])._flush()
        return estimator.covariances()

    for scale, size in ((1e160, "overflow: .* too large"), (1e300, "overflow"), (1e-160, "underflow: .* too small")):
        with pytest.raises(ValueError, match=f"the covariances {size}"):
            covariances(scale)
    with pytest.raises(ValueError, match="the covariances underflow"):
        covariances(1e-250)
    for scale, size in ((1e100, "large"), (1e-100, "small")):
        with pytest.raises(ValueError, match=f"fourth powers of x and y, and their values are too {size}"):
            covariances(scale, shrinkage="ledoit-wolf")
        assert covariances(scale, shrinkage=0.5).shrinkage == 0.5


def test_bad_options_are_named():
    x, y = pairs()
    with pytest.raises(ValueError, match="None, 'ledoit-wolf' or a number in"):
        jo.Covariances.from_pairs(x, y, shrinkage="lasso")
    with pytest.raises(ValueError, match="between 0"):
        jo.Covariances.from_pairs(x, y, shrinkage=1.5)
    with pytest.raises(TypeError, match="shrinkage"):
        jo.CovarianceEstimator(shrinkage=[0.1])
    with pytest.raises(TypeError, match="center must be True or False"):
        jo.CovarianceEstimator(center="yes")


def test_one_sample_is_enough_without_centring():
    cov = jo.Covariances.from_pairs([[1.0, 2.0]], [[2.0, 1.0]], center=False)
    np.testing.assert_array_equal(cov.Syx, [[2.0, 4.0], [1.0, 2.0]])


# --- shrinkage ---------------------------------------------------------------------------------


def joint(cov: jo.Covariances) -> np.ndarray:
    return np.block([[cov.Sxx, cov.Syx.T], [cov.Syx, cov.Syy]])


def test_a_fixed_amount_mixes_in_the_target_that_knows_no_direction():
    x, y = pairs()
    raw, half, all_ = (jo.Covariances.from_pairs(x, y, shrinkage=a) for a in (0, 0.5, 1))
    np.testing.assert_allclose(joint(half), (joint(raw) + joint(all_)) / 2, rtol=1e-12, atol=1e-13)
    for name in ("Sxx", "Syx", "Syy"):
        np.testing.assert_allclose(getattr(all_, name), np.eye(4) * np.trace(getattr(raw, name)) / 4, atol=1e-13)
    assert half.shrinkage == 0.5
    assert np.linalg.eigvalsh(joint(half))[0] > 0


def test_constant_coordinates_stay_out_of_the_target():
    x, y = pairs()
    padded = (np.hstack([z, np.full((len(z), 2), 7.0)]) for z in (x, y))
    cov = jo.Covariances.from_pairs(*padded, shrinkage="ledoit-wolf")
    expected = jo.Covariances.from_pairs(x, y, shrinkage="ledoit-wolf")
    assert cov.shrinkage == pytest.approx(expected.shrinkage, rel=1e-10)
    np.testing.assert_allclose(cov.Sxx[:4, :4], expected.Sxx, rtol=1e-12)
    assert not cov.Sxx[4:].any()
    assert len(cov.spectrum()) == 4


@pytest.mark.parametrize("exchangeable", [False, True])
def test_ledoit_wolf_is_its_definition_sample_by_sample(exchangeable):
    n, d = 40, 3
    x, y = pairs(n, d)

    def project(S):
        """1 - P, after the average over the exchange of the views where they are exchangeable."""
        if exchangeable:
            S = (S + np.roll(S, (d, d), axis=(0, 1))) / 2
        target = np.zeros_like(S)
        for rows in (slice(d), slice(d, None)):
            for columns in (slice(d), slice(d, None)):
                target[rows, columns] = np.eye(d) * np.trace(S[rows, columns]) / d
        return S - target

    z = np.hstack([x - x.mean(axis=0), y - y.mean(axis=0)])
    S = z.T @ z / n
    noise = np.mean([np.sum((project(np.outer(row, row)) - project(S)) ** 2) for row in z]) / n
    cov = jo.Covariances.from_pairs(x, y, shrinkage="ledoit-wolf", exchangeable=exchangeable)
    assert cov.shrinkage == pytest.approx(noise / np.sum(project(S) ** 2), rel=1e-10)
    assert 0 < cov.shrinkage < 1


@pytest.mark.parametrize("exchangeable", [False, True])
@pytest.mark.parametrize("n", [12, 30])
def test_ledoit_wolf_is_close_to_the_best_amount(n, exchangeable):
    rng = np.random.default_rng(5)
    model = jo.StaticModel(rng.normal(size=(10, 10)) * 0.8 ** np.arange(10), noise=rng.uniform(0.5, 2.0, 10), keep=0.8)
    truth = joint(model.covariances())
    amounts = np.linspace(0, 1, 11)
    error, chosen, rho_error = np.zeros(11), 0.0, np.zeros(2)
    for k in range(100):
        x, y = model.sample(n, rng=k)
        for i, amount in enumerate(amounts):
            cov = jo.Covariances.from_pairs(x, y, shrinkage=float(amount), exchangeable=exchangeable)
            error[i] += np.sum((joint(cov) - truth) ** 2)
        cov = jo.Covariances.from_pairs(x, y, shrinkage="ledoit-wolf", exchangeable=exchangeable)
        assert 0 < cov.shrinkage <= 1
        chosen += np.sum((joint(cov) - truth) ** 2)
        rho = model.spectrum().rho
        for i, shrinkage in enumerate((None, "ledoit-wolf")):
            found = jo.Covariances.from_pairs(x, y, shrinkage=shrinkage, exchangeable=exchangeable).spectrum().rho
            rho_error[i] += np.mean((found[:10] - rho) ** 2)
    assert chosen < 1.1 * error.min()
    assert chosen < 0.75 * error[0]
    assert rho_error[1] < 0.5 * rho_error[0]


def test_ledoit_wolf_fades_with_the_number_of_samples():
    model = jo.StaticModel(np.diag([2.0, 1.0, 0.5]), noise=1.0)
    amounts = [jo.Covariances.from_pairs(*model.sample(n), shrinkage="ledoit-wolf").shrinkage for n in (100, 10000)]
    assert 0 < amounts[1] < 0.1 * amounts[0]


def test_ledoit_wolf_of_one_coordinate_or_of_nothing_is_no_shrinkage():
    x, y = pairs(d=1)
    assert jo.Covariances.from_pairs(x, y, shrinkage="ledoit-wolf").shrinkage == 0.0
    assert jo.Covariances.from_pairs(np.ones((5, 3)), np.ones((5, 3)), shrinkage="ledoit-wolf").shrinkage == 0.0
