"""How far data are from the assumptions of the theory, and how well they determine the features (THEORY.md 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ._frozen import FrozenArrays, read_only
from ._validate import FloatArray
from .eigenproblem import Features
from .standard_errors import lam_influence, rho_influence

if TYPE_CHECKING:
    from .covariances import Covariances

__all__ = ["Diagnostic", "diagnose"]

StderrMethod: TypeAlias = Literal["samples", "normal"]

# The setting in which the accuracy that a coupling implies was measured.
# Asymmetry and coupling above which the views are not exchangeable, the features not on their own.
NOT_EXCHANGEABLE, STRONG_COUPLING = 0.3, 0.25
# Asymmetry by sampling alone above which that of the views cannot be told from it, nor what they share from noise.
NOISY = 0.5
_AT_MODERATE_STARTS = "for starts around eps = 0.05 (measured at depth 2)"


@dataclass(frozen=True, eq=False, repr=False)
class Diagnostic(FrozenArrays):
    """What `Covariances.spectrum` found out about the data besides the features.

    Attributes
    ----------
    asymmetry : float
        ``||Syx - Syx^T|| / ||Syx||`` (Frobenius norms), between 0 (exchangeable views) and 2. The
        features are those of the symmetric part of ``Syx``.
    asymmetry_expected : float or None
        The asymmetry (root mean square) that so many samples of perfectly exchangeable views would
        show. None where the moments of the samples are not known, or where fourth powers of the values leave the
        range of double precision.
    view_difference : float or None
        ``2 ||Sxx - Syy|| / (||Sxx|| + ||Syy||)``; None without ``Syy``.
    view_difference_expected : float or None
        The same for exchangeable views, from sampling alone.
    coupling : float
        ``||offdiag(M)|| / ||diag(M)||`` with ``M = P^T P``: 0 where the features obey one equation
        each. How much it matters depends on the start and on the objective too: the smaller eps, the longer the
        plateau along which couplings grow.
    feature_coupling : ndarray [n]
        ``sum_{j != i} M_ij^2 / (M_ii M_jj)``.
    residual : float
        ``||S - P diag(rho) P^T|| / ||S||`` with ``S`` the symmetric part of ``Syx``: the part of
        the covariance of the views that no feature holds, because it lies in directions where x
        does not vary.
    n_impossible : int
        Features whose ``|rho|`` is larger than the variances of both views allow (Cauchy and Schwarz): ``Syx`` then
        does not belong to ``Sxx`` and ``Syy``. 0 without ``Syy``, and always 0 for covariances of samples.
    n_coordinates, n_constant, n_dropped : int
        Coordinates; those without variance in x; further directions along which ``Sxx`` is null.
    n_samples : int or None
    shrinkage : float
        Amount of shrinkage, 0 to 1.
    lam_stderr, rho_stderr : ndarray [n] or None
        Standard errors; None where the number of samples is not known. They describe the spread
        from one sample to the next, not the bias: in-sample ``rho`` are too extreme where samples
        are few for the number of coordinates.
    stderr_method : {"samples", "normal"} or None
        "samples": from the samples themselves (up to 2048 of them, drawn at random), for any distribution. "normal":
        from the covariances and ``n_samples`` alone, as if the data were normal.
    effective_samples : ndarray [n] or None
        ``n (E a^2)^2 / E a^4`` with the amplitude ``a = q^T x``: about a third of the samples for
        normal data, and few where a handful of samples (a pixel that is hardly ever set) make the
        feature. None where samples are not known.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> model = jo.StaticModel.from_spectrum(jo.Spectrum([1.0, 0.8], rho=[0.5, 0.9]))
    >>> diagnostic = jo.Covariances.from_pairs(*model.sample(2000, rng=0)).spectrum().diagnostic
    >>> diagnostic.n_samples, diagnostic.rho_stderr.round(2)
    (2000, array([0.01, 0.02]))
    >>> print(diagnostic.summary())  # doctest: +ELLIPSIS
    2 features from 2000 samples of 2 coordinates. ...
    """

    asymmetry: float
    asymmetry_expected: float | None
    view_difference: float | None
    view_difference_expected: float | None
    coupling: float
    feature_coupling: FloatArray
    residual: float
    n_impossible: int
    n_coordinates: int
    n_constant: int
    n_dropped: int
    n_samples: int | None
    shrinkage: float
    lam_stderr: FloatArray | None
    rho_stderr: FloatArray | None
    stderr_method: StderrMethod | None
    effective_samples: FloatArray | None

    @property
    def rank(self) -> int:
        """Number of directions along which x varies, which is the number of features."""
        return self.n_coordinates - self.n_constant - self.n_dropped

    def select(self, index: Any) -> Diagnostic:
        """Return the diagnostic of some of the features; what concerns the data as a whole stays."""
        arrays = {}
        for name in ("feature_coupling", "lam_stderr", "rho_stderr", "effective_samples"):
            values = getattr(self, name)
            if values is not None:
                arrays[name] = values[index]
                arrays[name].flags.writeable = False
        return replace(self, **arrays)

    def __repr__(self) -> str:
        samples = "unknown" if self.n_samples is None else f"{self.n_samples}"
        return (
            f"Diagnostic(rank {self.rank} of {self.n_coordinates}, samples {samples}, "
            f"asymmetry {self.asymmetry:.3g}, coupling {self.coupling:.3g})"
        )

    def summary(self) -> str:
        """Return in plain words how far the theory can be trusted on these data: a few sentences, one line each."""
        sentences = [
            self._say_size(),
            self._say_views(),
            self._say_coupling(),
            self._say_errors(),
        ]
        return "\n".join(sentence for sentence in sentences if sentence)

    def _say_size(self) -> str:
        samples = "given covariances" if self.n_samples is None else _count(self.n_samples, "sample")
        text = f"{_count(self.rank, 'feature')} from {samples} of {_count(self.n_coordinates, 'coordinate')}."
        if self.n_constant:
            verb = "does" if self.n_constant == 1 else "do"
            text += f" {_count(self.n_constant, 'coordinate')} {verb} not vary and hold no feature."
        if self.n_dropped:
            verb = "is" if self.n_dropped == 1 else "are"
            text += (
                f" {_count(self.n_dropped, 'further direction')} {verb} left out: x does not vary there, "
                "its coordinates depend on each other."
            )
        if self.shrinkage:
            text += f" The covariances are shrunk by {self.shrinkage:.2g}."
        return text

    def _say_views(self) -> str:
        text = f"Syx differs from its transpose by {_percent(self.asymmetry)} of its size"
        expected = self.asymmetry_expected
        if expected is not None:
            text += f", where sampling alone would give {_percent(expected)}"
        if expected is not None and expected > NOISY:
            text += (
                ", so that what the views share does not stand out of the sampling noise: whether they are "
                "exchangeable, as the theory assumes, cannot be judged."
            )
        elif self.asymmetry <= (1e-6 if expected is None else max(1e-6, 1.5 * expected)):
            text += ": the views look exchangeable in what they share, as the theory assumes."
        elif self.asymmetry < NOT_EXCHANGEABLE:
            text += ": the views are not quite exchangeable, and the features are those of the symmetric part."
        else:
            text += (
                ": the views are not exchangeable; the features are those of the symmetric part and tell only a part "
                "of the story."
            )
        if self.view_difference is not None and self.view_difference > max(
            0.1, 1.5 * (self.view_difference_expected or 0.0)
        ):
            text += f" The covariances of the two views differ by {_percent(self.view_difference)}."
        if self.n_impossible:
            text += (
                f" {_count(self.n_impossible, 'feature')} would need a larger covariance than the variances of the two "
                "views allow: Syx does not belong to these Sxx and Syy."
            )
        if self.residual > 0.01:
            text += (
                f" {_percent(self.residual)} of the shared covariance lies where x does not vary, outside all features."
            )
        return text

    def _say_coupling(self) -> str:
        text = f"The off-diagonal part of the feature coupling M is {_percent(self.coupling)} of its diagonal: "
        # Calibrated on 36 matrix flows (d = 8, L = 2, eps = 0.05, rho 0.45 to 0.95, whitened
        # eigenframes turned by growing angles): median error of the half-response times below 1% up
        # to a coupling of 0.07, 1% to 10% between 0.12 and 0.25, 8% to 40% from there to 0.43. It
        # says nothing of smaller starts: exactly diagonal data (ten features of opposite trends, lam
        # 0.5 to 2, rho 0.9 to 0.4, L = 2) have a median error below 0.1% at eps = 1e-2 and of 20%
        # at eps = 1e-3 with JEPA, from rounding alone; MAE's stays below 0.1% at eps = 1e-4 too.
        if self.coupling <= 1e-6:
            text += "each feature obeys its own equation, and the theory is exact on paper."
        elif self.coupling < 0.1:
            text += f"coupling is weak, and {_AT_MODERATE_STARTS} the theory's times are right within about 1%."
        elif self.coupling < STRONG_COUPLING:
            text += (
                f"coupling is moderate, and {_AT_MODERATE_STARTS} the theory's times are off by up to 10% and "
                "neighbours swap."
            )
        else:
            text += (
                f"coupling is strong, and {_AT_MODERATE_STARTS} the theory's times are off by 10% to 40% or more: take "
                "it as a guide."
            )
        return text + (
            " Small starts amplify every coupling, even that of rounding, most of all for JEPA where lam and rho rank "
            "the features differently: check with the matrix flow at your eps."
        )

    def _say_errors(self) -> str:
        if self.rho_stderr is None or self.rho_stderr.size == 0 or self.n_samples is None:
            return ""
        low, high = float(np.median(self.rho_stderr)), float(self.rho_stderr.max())
        text = f"The standard error of rho is {low:.2g} in the median and {high:.2g} at most."
        if self.n_samples < 10 * self.rank:
            text += (
                f" There are only {self.n_samples / self.rank:.1f} samples per feature, so that the extreme values of "
                "rho are exaggerated"
            )
            text += "; shrinkage helps." if self.shrinkage == 0 else ", even after shrinkage."
        if self.effective_samples is not None:
            # Where samples are few altogether, few of them make each feature without being rare.
            rare = int(np.sum(self.effective_samples < min(20, self.n_samples / 6)))
            if rare:
                verb = "rests" if rare == 1 else "rest"
                text += (
                    f" {_count(rare, 'feature')} {verb} on a handful of samples each (rare events): their rho says "
                    "little, whatever its standard error."
                )
        return text


def diagnose(cov: Covariances, features: Features, M: FloatArray) -> Diagnostic:
    """Return the diagnostic of covariances whose features, with ``M = P^T P``, are given."""
    # The raw moments, where they are known: averaging over the exchange of the views would hide
    # their difference.
    moments = cov.moments
    Sxx, Syx, Syy = moments.covariances() if moments else (cov.Sxx, cov.Syx, cov.Syy)
    norm_yx = _norm(Syx)
    norm_views = 0.0 if Syy is None else (_norm(Sxx) + _norm(Syy)) / 2
    asymmetry_expected = view_difference_expected = None
    if moments is not None and moments.has_fourth:
        # For exchangeable views the mean of y x^T - x y^T is zero and each sample's squared norm is
        # 2 (|x|^2 |y|^2 - (x.y)^2); that of x x^T - y y^T is |x|^4 + |y|^4 - 2 (x.y)^2.
        n, fourth = moments.n, moments.fourth / moments.n
        apart = 2 * (fourth[0, 1] - fourth[2, 2])
        differ = fourth[0, 0] + fourth[1, 1] - 2 * fourth[2, 2]
        asymmetry_expected = _ratio(math.sqrt(max(apart, 0.0) / n), norm_yx)
        view_difference_expected = _ratio(math.sqrt(max(differ, 0.0) / n), norm_views)
    S = (cov.Syx + cov.Syx.T) / 2
    held = (features.duals * features.rho) @ features.duals.T
    return Diagnostic(
        asymmetry=_ratio(_norm(Syx - Syx.T), norm_yx),
        asymmetry_expected=asymmetry_expected,
        view_difference=None if Syy is None else _ratio(_norm(Sxx - Syy), norm_views),
        view_difference_expected=view_difference_expected,
        coupling=total_coupling(M),
        feature_coupling=read_only(feature_coupling(M)),
        residual=_ratio(_norm(S - held), _norm(S)),
        n_impossible=_count_impossible(cov, features),
        n_coordinates=len(Sxx),
        n_constant=features.n_constant,
        n_dropped=features.n_dropped,
        n_samples=cov.n_samples,
        shrinkage=cov.shrinkage,
        **_spread(cov, features, M),
    )


def total_coupling(M: FloatArray) -> float:
    """Return ``||offdiag M|| / ||diag M||`` (THEORY.md 6)."""
    size = np.diagonal(M)
    return _ratio(_norm(M - np.diag(size)), _norm(size))


def feature_coupling(M: FloatArray) -> FloatArray:
    """Return per feature the sum over ``j != i`` of ``M_ij^2 / (M_ii M_jj)`` (THEORY.md 6)."""
    size = np.diagonal(M)
    root = np.sqrt(size)
    coupling: FloatArray = np.sum(((M - np.diag(size)) / root / root[:, None]) ** 2, axis=1)
    return coupling


def _spread(cov: Covariances, features: Features, M: FloatArray) -> dict[str, Any]:
    """Return the standard errors, how they were found, and the effective numbers of samples."""
    names = ("lam_stderr", "rho_stderr", "stderr_method", "effective_samples")
    if cov.n_samples is None:
        return dict.fromkeys(names)
    # In units of the largest sigma2, a power of two to round nothing: squares of M could overflow.
    unit = 2.0 ** (np.frexp(np.diagonal(M).max(initial=0.0))[1] - 1)
    influences = [lam_influence(features.rho, M / unit), rho_influence(features.rho)]
    if cov.exchangeable:
        influences = [influence.exchanged() for influence in influences]
    Q, effective = features.directions, None
    if cov.subsample is not None:
        method = "samples"
        means = [0.0 if mean is None else mean for mean in (cov.mean_x, cov.mean_y)]
        a, b = (cov.subsample.x - means[0]) @ Q, (cov.subsample.y - means[1]) @ Q
        variances = [influence.sample_variance(a, b) for influence in influences]
        squares = a**2
        second, fourth = squares.mean(axis=0), np.mean(squares**2, axis=0)
        effective = np.zeros_like(second)
        np.divide(cov.n_samples * second**2, fourth, out=effective, where=fourth > 0)
        effective = read_only(effective)
    else:
        method = "normal"
        Syy = cov.Sxx if cov.Syy is None else cov.Syy  # exchangeable unless told otherwise
        Sab = Q.T @ cov.Syx.T @ Q
        joint = np.block([[Q.T @ cov.Sxx @ Q, Sab], [Sab.T, Q.T @ Syy @ Q]])
        variances = [influence.normal_variance(joint) for influence in influences]
    # Shrinkage scales the noise of the estimate; the noise of its target, three numbers, is left
    # out.
    scale = (1 - cov.shrinkage) / math.sqrt(cov.n_samples)
    errors = [read_only(scale * np.sqrt(v) * u) for v, u in zip(variances, (unit, 1.0), strict=True)]
    return dict(zip(names, (*errors, method, effective), strict=True))


def _count_impossible(cov: Covariances, features: Features) -> int:
    """Return how many features have ``(q^T Syx q)^2 > (q^T Sxx q) (q^T Syy q)``, beyond rounding."""
    if cov.Syy is None:
        return 0
    Q = features.directions
    allowed = np.sqrt(np.maximum(np.einsum("di,di->i", Q, cov.Syy @ Q), 0.0))  # q^T Sxx q = 1
    slack = 1e-6 * max(1.0, float(allowed.max(initial=0.0)))
    return int(np.sum(np.abs(features.rho) > allowed + slack))


def _norm(array: FloatArray) -> float:
    """Return the Frobenius norm, without overflow or underflow of the squares."""
    largest = float(np.abs(array).max(initial=0.0))
    return largest * float(np.linalg.norm(array / largest)) if largest > 0 else 0.0


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2g}%" if fraction < 0.995 else f"{100 * fraction:.0f}%"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
