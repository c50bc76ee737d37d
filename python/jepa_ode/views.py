"""Two views (x, y) of images: random maskings, context and target patches, noise, halves.

Each builder is a small frozen dataclass of settings. Called on images it returns the context x and
the target y, flattened to float64 arrays [samples, d], ready for `Covariances.from_pairs`.
``view_shape`` tells the shape of one view as an image, so that features can be looked at.
``exchangeable`` says whether x and y are made in the same way, so that their covariances may be
averaged over the exchange.

Images are arrays [n, h, w], [n, h, w, channels], or [n, d] together with ``shape=(h, w)`` or ``(h,
w, channels)``. A mask hides all channels of a pixel.

Examples
--------
>>> import numpy as np, jepa_ode as jo
>>> images = np.random.default_rng(0).normal(size=(100, 8, 8))
>>> x, y = jo.views.RandomMask(keep=0.5)(images, rng=0)
>>> x.shape, jo.Covariances.from_pairs(x, y, exchangeable=True)
((100, 64), Covariances(d=64, n_samples=100, exchangeable=True))
>>> sorted(jo.views.BUILDERS)
['halves', 'noise', 'patch-mask', 'random-mask']
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from ._frozen import FrozenArrays, read_only
from ._validate import (
    FloatArray,
    as_choice,
    as_float_array,
    as_index,
    as_real,
    require_finite,
)

__all__ = ["BUILDERS", "AdditiveNoise", "Halves", "PatchMask", "RandomMask", "ViewBuilder"]

Rng: TypeAlias = "int | np.random.Generator"  # a string: numpy.random loads when it is first used
Fill: TypeAlias = Literal["mean"] | float
Views: TypeAlias = tuple[FloatArray, FloatArray]


class ViewBuilder(Protocol):
    """What every builder of views offers."""

    @property
    def exchangeable(self) -> bool:
        """Whether x and y have the same distribution, each given the other."""

    def __call__(self, images: Any, rng: Rng = 0, *, shape: tuple[int, ...] | None = None) -> Views:
        """Return x and y [samples, d] made of the images."""

    def view_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one view as an image, given the shape of the images."""


@dataclass(frozen=True)
class RandomMask:
    """Two random maskings: every pixel is kept with probability ``keep``, independently in x and in
    y.

    With ``fill="mean"`` and the covariance C of the images the views have, exactly, ``Syx = keep^2
    C`` and ``Sxx = keep^2 C + keep (1 - keep) diag(C)``: masking adds noise to a pixel in
    proportion to its variance.

    Parameters
    ----------
    keep : float in (0, 1], default 0.5
    fill : "mean" or float, default "mean"
        What hidden pixels become: the pixel's mean over the images, or a number.
    """

    keep: float = 0.5
    fill: Fill = "mean"

    def __post_init__(self) -> None:
        _check_keep(self.keep)
        _check_fill(self.fill)

    @property
    def exchangeable(self) -> bool:
        """True: both views are made in the same way."""
        return True

    def view_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``shape``: a view is as large as the image."""
        return shape

    def __call__(self, images: Any, rng: Rng = 0, *, shape: tuple[int, ...] | None = None) -> Views:
        """Return x and y [samples, d] made of the images."""
        pixels = _as_pixels(images, shape, grid=False)
        generator = np.random.default_rng(rng)
        fill = _fill_values(pixels, self.fill)
        masks = (generator.random((*pixels.shape[:3], 1)) < self.keep for _ in range(2))
        x, y = (_flat(np.where(mask, pixels, fill)) for mask in masks)
        return x, y


@dataclass(frozen=True)
class PatchMask:
    """Context and target patches, as in I-JEPA and in masked autoencoders.

    The image is cut into square patches; the same number of them, ``keep`` of all to the nearest
    whole number but at least one and never all, is drawn at random for each image and seen by the
    context x.

    Parameters
    ----------
    patch : int, default 2
        Side of a patch in pixels; patches at the right and lower edge are smaller where it does not
        divide the image.
    keep : float in (0, 1), default 0.5
        Fraction of the patches that the context sees.
    target : "hidden" or "image", default "hidden"
        Whether y sees the patches that x does not, or the whole image. "hidden" gives no covariance
        within a patch, so that half of the ``rho`` are negative: those features are never learned.
    fill : "mean" or float, default "mean"
        What pixels become that a view does not see: the pixel's mean over the images, or a number.
    """

    patch: int = 2
    keep: float = 0.5
    target: Literal["hidden", "image"] = "hidden"
    fill: Fill = "mean"

    def __post_init__(self) -> None:
        as_index("patch", self.patch, minimum=1)
        _check_keep(self.keep, below_one=True)
        as_choice("target", self.target, ("hidden", "image"))
        _check_fill(self.fill)

    @property
    def exchangeable(self) -> bool:
        """False: context and target are made differently."""
        return False

    def view_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``shape``: a view is as large as the image."""
        return shape

    def __call__(self, images: Any, rng: Rng = 0, *, shape: tuple[int, ...] | None = None) -> Views:
        """Return x and y [samples, d] made of the images."""
        pixels = _as_pixels(images, shape)
        n, height, width, _ = pixels.shape
        rows, columns = -(-height // self.patch), -(-width // self.patch)
        patches = rows * columns
        if patches < 2:
            raise ValueError(f"patch must be smaller than the image, {height} x {width}, got {self.patch}")
        seen = min(max(round(self.keep * patches), 1), patches - 1)
        order = np.random.default_rng(rng).random((n, patches)).argsort(axis=1).argsort(axis=1)
        grid = (order < seen).reshape(n, rows, columns)
        mask = grid.repeat(self.patch, axis=1).repeat(self.patch, axis=2)[:, :height, :width, None]
        fill = _fill_values(pixels, self.fill)
        x = np.where(mask, pixels, fill)
        y = pixels if self.target == "image" else np.where(mask, fill, pixels)
        return _flat(x), _flat(y)


@dataclass(frozen=True, eq=False)
class AdditiveNoise(FrozenArrays):
    """Two noisy copies: independent normal noise is added to every pixel, in x and in y.

    With the covariance C of the images, ``Syx = C`` and ``Sxx = C + diag(std^2)``.

    Parameters
    ----------
    std : float or array_like [h, w], [h, w, channels] or [d], default 0.5
        Standard deviation of the noise, one for all pixels (and channels) or one for each.
    """

    std: Any = 0.5

    def __post_init__(self) -> None:
        std = read_only(require_finite("std", as_float_array("std", self.std, ndim=None)))
        if (std < 0).any():
            raise ValueError(f"std must be non-negative, got {std.min()}")
        object.__setattr__(self, "std", float(std) if std.ndim == 0 else std)

    @property
    def exchangeable(self) -> bool:
        """True: both views are made in the same way."""
        return True

    def view_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``shape``: a view is as large as the image."""
        return shape

    def __call__(self, images: Any, rng: Rng = 0, *, shape: tuple[int, ...] | None = None) -> Views:
        """Return x and y [samples, d] made of the images."""
        clean = _flat(_as_pixels(images, shape, grid=False))
        std = np.ravel(self.std)
        if std.size not in (1, clean.shape[1]):
            raise ValueError(f"std must be a number or have one value per pixel, {clean.shape[1]}, got {std.size}")
        generator = np.random.default_rng(rng)
        x, y = (clean + std * generator.standard_normal(clean.shape) for _ in range(2))
        return x, y


@dataclass(frozen=True)
class Halves:
    """The two halves of each image: x is one, y the other.

    Parameters
    ----------
    split : "left-right" or "top-bottom", default "left-right"
        Which halves. The middle column (row) of an odd number belongs to neither.
    mirror : bool, default False
        Whether y is reflected, so that its pixels match those of x on images that are about
        symmetric.
    """

    split: Literal["left-right", "top-bottom"] = "left-right"
    mirror: bool = False

    def __post_init__(self) -> None:
        as_choice("split", self.split, ("left-right", "top-bottom"))
        if not isinstance(self.mirror, bool):
            raise TypeError(f"mirror must be True or False, got {self.mirror!r}")

    @property
    def exchangeable(self) -> bool:
        """False: one side of an image need not look like the other."""
        return False

    def view_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one half."""
        axis = 1 if self.split == "left-right" else 0
        return tuple(size // 2 if k == axis else size for k, size in enumerate(shape))

    def __call__(  # the same call for every builder
        self,
        images: Any,
        rng: Rng = 0,  # noqa: ARG002
        *,
        shape: tuple[int, ...] | None = None,
    ) -> Views:
        """Return x and y [samples, d] made of the images; nothing is random here, ``rng`` is not used."""
        pixels = _as_pixels(images, shape)
        axis = 2 if self.split == "left-right" else 1
        half = pixels.shape[axis] // 2
        if half == 0:
            raise ValueError(f"{self.split} halves need at least 2 pixels, got images of {pixels.shape[1:3]}")
        pixels = np.moveaxis(pixels, axis, 0)
        x, y = pixels[:half], pixels[-half:]
        if self.mirror:
            y = y[::-1]
        return _flat(np.moveaxis(x, 0, axis)), _flat(np.moveaxis(y, 0, axis))


BUILDERS: dict[str, type[RandomMask | PatchMask | AdditiveNoise | Halves]] = {
    "random-mask": RandomMask,
    "patch-mask": PatchMask,
    "noise": AdditiveNoise,
    "halves": Halves,
}
"""The builders by name, for command lines and configurations."""


def _as_pixels(images: Any, shape: tuple[int, ...] | None, *, grid: bool = True) -> FloatArray:
    """Return the images as float64 [n, h, w, channels]; rows without a shape are one row of pixels unless ``grid``."""
    array = require_finite("images", as_float_array("images", images, ndim=None))
    if shape is not None:
        sizes = tuple(as_index("shape", size, minimum=1) for size in shape)
        if len(sizes) not in (2, 3):
            raise ValueError(f"shape must be (h, w) or (h, w, channels), got {shape}")
        if array.ndim < 2 or array[:1].size not in (0, int(np.prod(sizes))):
            raise ValueError(f"shape {sizes} does not fit images of shape {array.shape}")
        array = array.reshape(len(array), *sizes)
    if array.ndim == 2:
        if grid:
            raise ValueError(f"images given as rows [n, d] = {array.shape} need their shape: pass shape=(h, w)")
        array = array[:, None, :]
    if array.ndim not in (3, 4):
        raise ValueError(f"images must have the shape [n, h, w], [n, h, w, channels] or [n, d], got {array.shape}")
    if len(array) == 0:
        raise ValueError("images must hold at least one image, got none")
    return array if array.ndim == 4 else array[..., None]


def _flat(pixels: FloatArray) -> FloatArray:
    """Return a C-contiguous copy [n, d]."""
    return np.array(pixels, order="C").reshape(len(pixels), -1)


def _fill_values(pixels: FloatArray, fill: Fill) -> FloatArray:
    return pixels.mean(axis=0) if fill == "mean" else np.full(pixels.shape[1:], float(fill))


def _check_keep(keep: Any, *, below_one: bool = False) -> None:
    number = as_real("keep", keep)
    if not 0 < number <= 1 or (below_one and number == 1):
        raise ValueError(f"keep must be in (0, 1{')' if below_one else ']'}, got {number}")


def _check_fill(fill: Any) -> None:
    if isinstance(fill, str):
        as_choice("fill", fill, ("mean",))
    elif not np.isfinite(as_real("fill", fill)):
        raise ValueError(f"fill must be 'mean' or a finite number, got {fill}")
