"""Views of images: their covariances against the closed forms of their docstrings, shapes, seeds, errors."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo
from jepa_ode.views import BUILDERS, AdditiveNoise, Halves, PatchMask, RandomMask

BUILT = [RandomMask(), PatchMask(), PatchMask(target="image"), AdditiveNoise(), Halves(), Halves("top-bottom")]


def images(n: int = 40, shape: tuple[int, ...] = (6, 8), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    d = int(np.prod(shape))
    return (5 + rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / np.sqrt(d)).reshape(n, *shape)


@pytest.mark.parametrize("view", BUILT, ids=repr)
@pytest.mark.parametrize("shape", [(6, 8), (5, 7), (6, 8, 3)])
def test_views_are_flat_seeded_and_of_the_promised_shape(view, shape):
    data = images(shape=shape)
    before = data.copy()
    x, y = view(data, rng=1)
    d = int(np.prod(view.view_shape(shape)))
    for z in (x, y):
        assert z.shape == (40, d)
        assert z.dtype == np.float64
        assert z.flags.c_contiguous
        assert z.flags.writeable
        assert not np.shares_memory(z, data)
    np.testing.assert_array_equal(data, before)
    again = view(data, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(x, again[0])
    np.testing.assert_array_equal(y, again[1])
    rows = view(data.reshape(40, -1), rng=1, shape=shape)
    np.testing.assert_array_equal(x, rows[0])
    if not isinstance(view, Halves):
        assert not np.array_equal(x, view(data, rng=2)[0])


@pytest.mark.parametrize("name", BUILDERS)
def test_builders_are_small_values(name):
    view = BUILDERS[name]()
    assert view == BUILDERS[name]()
    assert pickle.loads(pickle.dumps(view)) == copy.deepcopy(view) == view
    assert repr(view).startswith(f"{BUILDERS[name].__name__}(")
    assert isinstance(view.exchangeable, bool)
    x, y = view((images() * 10).astype(np.uint8), rng=0)
    assert x.dtype == y.dtype == np.float64


def assert_covariances(view, data, Sxx, Syx, repeats=400, rng=0):
    """The covariances of many views of the same images are the given ones, within sampling error."""
    x, y = view(np.repeat(data, repeats, axis=0), rng=rng)
    found = jo.Covariances.from_pairs(x, y)
    scale = np.abs(Sxx).max()
    np.testing.assert_allclose(found.Sxx, Sxx, atol=0.05 * scale)
    np.testing.assert_allclose(found.Syx, Syx, atol=0.05 * scale)
    return x, y


def covariance(data):
    flat = data.reshape(len(data), -1)
    return np.cov(flat.T, ddof=0)


@pytest.mark.parametrize("keep", [0.3, 0.7, 1.0])
def test_random_masks_have_their_closed_form(keep):
    data = images(shape=(3, 2))
    C = covariance(data)
    assert_covariances(RandomMask(keep), data, keep**2 * C + keep * (1 - keep) * np.diag(np.diag(C)), keep**2 * C)


def test_hidden_pixels_become_the_mean_or_the_given_number():
    data = images()
    x, _ = RandomMask(keep=0.5)(data, rng=0)
    flat = data.reshape(40, -1)
    hidden = x != flat
    assert 0.4 < hidden.mean() < 0.6
    np.testing.assert_allclose(x[hidden], np.broadcast_to(flat.mean(axis=0), x.shape)[hidden])
    x, y = RandomMask(keep=0.5, fill=-1.0)(data, rng=0)
    np.testing.assert_array_equal(x == -1.0, hidden)
    assert ((y == -1.0) != hidden).any()


def test_all_channels_of_a_pixel_are_hidden_together():
    data = images(shape=(4, 4, 3))
    for view in (RandomMask(fill=0.0), PatchMask(fill=0.0)):
        seen = view(data, rng=0)[0].reshape(40, 4, 4, 3) != 0
        np.testing.assert_array_equal(seen, np.broadcast_to(seen[..., :1], seen.shape))


@given(
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    patch=st.integers(1, 4),
    keep=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
def test_context_and_target_share_the_patches_out(height, width, patch, keep, seed):
    data = np.ones((5, height, width))
    patches = (-(-height // patch), -(-width // patch))
    count = patches[0] * patches[1]
    view = PatchMask(patch, keep, fill=0.0)
    if count < 2:
        with pytest.raises(ValueError, match="patch must be smaller than the image"):
            view(data)
        return
    x, y = (z.reshape(5, height, width) for z in view(data, rng=seed))
    np.testing.assert_array_equal(x + y, data)
    corners = x[:, ::patch, ::patch]  # one pixel of each patch
    np.testing.assert_array_equal(np.kron(corners, np.ones((patch, patch)))[:, :height, :width], x)
    seen = corners.reshape(5, -1).sum(axis=1)
    assert (seen == seen[0]).all()
    assert 1 <= seen[0] <= count - 1
    assert abs(seen[0] - keep * count) <= 0.5 or seen[0] in (1, count - 1)
    whole = PatchMask(patch, keep, target="image", fill=0.0)(data, rng=seed)
    np.testing.assert_array_equal(whole[0], x.reshape(5, -1))
    np.testing.assert_array_equal(whole[1], data.reshape(5, -1))


def test_patch_masks_have_no_covariance_within_a_patch():
    data = images(shape=(4, 4))
    x, y = PatchMask(patch=2, keep=0.5)(np.repeat(data, 300, axis=0), rng=0)
    Syx = jo.Covariances.from_pairs(x, y).Syx
    patch = np.add.outer(2 * (np.arange(4) // 2), np.arange(4) // 2).ravel()
    same = patch[:, None] == patch[None, :]
    C = covariance(data)
    assert np.abs(Syx[same]).max() < 1e-3 * np.abs(C).max()  # only the product of the sample means
    # two of four patches, without replacement: one seen, the other not, with probability 1/3
    np.testing.assert_allclose(Syx[~same], C[~same] / 3, atol=0.03 * np.abs(C).max())


def test_noise_adds_to_the_variance_only():
    data = images(shape=(3, 2))
    C = covariance(data)
    assert_covariances(AdditiveNoise(0.7), data, C + 0.49 * np.eye(6), C)
    std = np.linspace(0.1, 1.0, 6)
    assert_covariances(AdditiveNoise(std.reshape(3, 2)), data, C + np.diag(std**2), C)
    assert AdditiveNoise(std) != AdditiveNoise(0.5)
    assert AdditiveNoise(std) == AdditiveNoise(std)
    x, y = AdditiveNoise(0.0)(data)
    np.testing.assert_array_equal(x, data.reshape(40, -1))
    np.testing.assert_array_equal(x, y)


def test_halves_are_the_halves():
    data = np.arange(2 * 3 * 5.0).reshape(2, 3, 5)
    x, y = Halves()(data)
    np.testing.assert_array_equal(x.reshape(2, 3, 2), data[:, :, :2])
    np.testing.assert_array_equal(y.reshape(2, 3, 2), data[:, :, 3:])
    _, mirrored = Halves(mirror=True)(data)
    np.testing.assert_array_equal(mirrored.reshape(2, 3, 2), data[:, :, :2:-1])
    x, y = Halves("top-bottom")(data)
    np.testing.assert_array_equal(x, data[:, 0])
    np.testing.assert_array_equal(y, data[:, 2])
    assert Halves("top-bottom").view_shape((3, 5)) == (1, 5)
    assert Halves().view_shape((3, 5, 4)) == (3, 2, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomMask(keep=0.0), r"keep must be in \(0, 1\], got 0"),
        (lambda: RandomMask(keep=np.nan), "keep must be in"),
        (lambda: PatchMask(keep=1.0), r"keep must be in \(0, 1\), got 1"),
        (lambda: PatchMask(patch=0), "patch must be at least 1"),
        (lambda: PatchMask(target="context"), "target must be one of 'hidden', 'image'"),
        (lambda: RandomMask(fill="zero"), "fill must be one of 'mean'"),
        (lambda: RandomMask(fill=np.inf), "finite number"),
        (lambda: AdditiveNoise(-1.0), "std must be non-negative"),
        (lambda: Halves("diagonal"), "split must be one of"),
        (lambda: AdditiveNoise(np.ones(5))(images()), "one value per pixel, 48, got 5"),
        (lambda: Halves()(images(shape=(4, 1))), "at least 2 pixels"),
        (lambda: Halves()(images().reshape(40, -1)), r"pass shape=\(h, w\)"),
        (lambda: PatchMask()(images().reshape(40, -1), shape=(5, 5)), "does not fit"),
        (lambda: PatchMask()(images().reshape(40, -1), shape=(48,)), r"shape must be \(h, w\)"),
        (lambda: RandomMask()(np.ones(5)), "images must have the shape"),
        (lambda: RandomMask()(np.ones((0, 4, 4))), "at least one image"),
        (lambda: RandomMask()(np.full((2, 2, 2), np.nan)), r"images must be finite, got images\[0, 0, 0\]"),
    ],
)
def test_bad_settings_and_images_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_types_are_type_errors():
    with pytest.raises(TypeError, match="mirror"):
        Halves(mirror="yes")
    with pytest.raises(TypeError, match="patch"):
        PatchMask(patch=2.5)
