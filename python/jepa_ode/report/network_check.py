"""The matrix flow beside the prediction, kept within a budget of work (THEORY.md 5, claim 12, and 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .._frozen import FrozenArrays, read_only
from .._validate import FloatArray
from ..analysis import TheoryCheck, compare_with_flow
from ..covariances import Covariances
from ..flow import Flow, gradient_flow
from ..network import LinearNetwork
from ..objectives import JEPA, Objective
from ..solve import solve
from ..spectrum import Spectrum
from ..theory import fixed_point

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["NetworkCheck", "feature_loss", "no_check", "obstacle", "run_network_check"]

_RTOL = 1e-5
_TIMES = 241
# Operations per second of the nominal machine that turns a budget in seconds into a number of evaluations.
_NOMINAL_SPEED = 1e10
# Of rock4 with the fewest stages, which are most of what a flow takes: evaluations of a step, and how far an evaluation
# goes at least, over the fastest rate of relaxation.
_EVALUATIONS = 5
_STABLE_LENGTH = 1.0


@dataclass(frozen=True, eq=False)
class NetworkCheck(FrozenArrays):
    """One objective's matrix flow and its comparison with the scalar theory.

    Attributes
    ----------
    flow : Flow or None
        None when nothing was integrated; `note` says why.
    comparison : TheoryCheck or None
    features : array of ints [k]
        Which of the reported features the flow holds.
    loss : array of shape [m] or None
        Loss of the scalar theory at the times of the flow.
    note : str
        What limits the check, in a sentence; empty when nothing does.
    cut : bool
        Whether the budget ended the flow before the last feature.
    """

    flow: Flow | None
    comparison: TheoryCheck | None
    features: npt.NDArray[np.intp] = field(repr=False)
    loss: FloatArray | None = field(repr=False)
    note: str = ""
    cut: bool = False


def no_check(note: str) -> NetworkCheck:
    """Return the check that was not made, with the reason."""
    return NetworkCheck(None, None, np.zeros(0, dtype=np.intp), None, note)


def obstacle(depth: float, times: FloatArray) -> str:
    """Return why no network can be integrated, in a sentence; nothing when one can."""
    if depth != int(depth):
        return f"A network has a whole number of layers: there is no matrix flow of depth {depth:g}."
    if not np.isfinite(times).any():
        return "No feature is predicted to be learned, so that there is nothing to check."
    return ""


def run_network_check(
    cov: Covariances,
    spec: Spectrum,
    objective: Objective,
    times: FloatArray,
    *,
    depth: float,
    eps: float,
    fraction: float,
    min_growth: float,
    features: npt.NDArray[np.intp],
    projected: bool,
    budget: float,
    threads: int | None,
    progress: Callable[[float], object],
) -> NetworkCheck:
    """Integrate the network and compare it with the theory; there must be no `obstacle`.

    Parameters
    ----------
    cov : Covariances
    spec : Spectrum
        Features of `cov`, with directions and duals.
    objective : JEPA or MAE
    times : array of shape [n]
        Predicted critical times; they set the horizon.
    depth, eps, fraction, min_growth : float
    features : array of ints [k]
        The features that are compared.
    projected : bool
        Whether the data are projected onto these features first (`project`).
    budget : float
        In seconds of the nominal machine.
    threads : int or None
        As in `gradient_flow`.
    progress : callable
        Is told the fraction done.
    """
    spec, times = spec[features], times[features]
    learned = np.isfinite(times)
    notes = []
    if projected:
        cov, spec = project(cov, spec)
        notes.append(f"The network sees the data projected onto the {features.size} features learned first.")
    layers, width = int(depth), len(cov.Sxx)
    evaluations = _affordable_evaluations(layers, width, budget)
    # Nothing new happens after the last feature; features within their error of none would only cost.
    wanted = 1.5 * float(times[_resolved(spec, learned)].max())
    end = min(wanted, evaluations * _STABLE_LENGTH / _fastest_rate(spec, objective, layers))
    if end < wanted:
        within = int(np.count_nonzero(times <= end))
        notes.append(
            f"To stay within its budget of work the flow ends at t = {end:.3g}, by which time "
            f"{within} of {np.count_nonzero(learned)} features are predicted to be learned."
        )
    start = min(float(times.min()) / 10, end / 10)
    flow = gradient_flow(
        LinearNetwork.balanced(width, depth=layers, eps=eps),
        cov,
        objective,
        t=np.concatenate([[0.0], np.geomspace(start, end, _TIMES - 1)]),
        rtol=_RTOL,
        features=spec,
        max_steps=2 * evaluations // _EVALUATIONS,
        threads=threads,
        progress=progress,
    )
    if not flow.success:
        notes.append(f"The integration ended early: {flow.message}.")
    response = solve(spec, objective.name, depth=depth, eps=eps, t=flow.t).w
    return NetworkCheck(
        flow=flow,
        comparison=compare_with_flow(flow, fraction=fraction, min_growth=min_growth),
        features=read_only(features),
        loss=feature_loss(spec, objective, response, depth, None if cov.Syy is None else float(np.trace(cov.Syy))),
        note=" ".join(notes),
        cut=end < wanted,
    )


def project(cov: Covariances, spec: Spectrum) -> tuple[Covariances, Spectrum]:
    """Return the covariances of the data projected onto the features of `spec`, and these features there.

    The part of x that the features hold is ``P Q^T x``. With the QR decomposition ``P = U R`` its
    coordinates in the basis U are ``R Q^T x``: as many as there are features, with duals R whose
    Gram matrix M, which is what couples the features (THEORY.md 6), is that of P.
    """
    duals = np.asarray(spec.duals)
    triangle: FloatArray = np.linalg.qr(duals).R
    down = triangle @ np.asarray(spec.directions).T
    moments = [down @ S @ down.T for S in (cov.Sxx, cov.Syx)]
    Sxx, Syx = (moments[0] + moments[0].T) / 2, moments[1]
    Syy = None if cov.Syy is None else down @ cov.Syy @ down.T
    projected = Spectrum(
        spec.lam,
        spec.sigma2,
        sigma2_y=spec.sigma2_y,
        directions=np.linalg.solve(triangle.T, np.eye(len(spec))),
        duals=triangle,
        diagnostic=spec.diagnostic,
    )
    return Covariances(Sxx, Syx, None if Syy is None else (Syy + Syy.T) / 2), projected


def feature_loss(
    spec: Spectrum, objective: Objective, response: FloatArray, depth: float, total_y: float | None
) -> FloatArray | None:
    """Return the loss that the scalar theory gives for responses [n, m]; None when nothing is known of y.

    With ``u = w^(1/L)`` the predictor's entry, feature ``i`` adds ``1/2 E (u w x - target)^2``
    (THEORY.md 1 and 2). For MAE the variances of y sum to `total_y`, the trace of Syy.
    """
    if spec.sigma2_y is None or total_y is None:
        return None
    lam, sigma2, sigma2_y = (part[:, None] for part in (spec.lam, spec.sigma2, spec.sigma2_y))
    prediction = response ** (1 + 1 / depth)
    loss: FloatArray
    if isinstance(objective, JEPA):
        loss = (prediction**2 * sigma2 - 2 * prediction * response * lam + response**2 * sigma2_y).sum(axis=0) / 2
    else:
        loss = ((prediction**2 * sigma2 - 2 * prediction * lam).sum(axis=0) + total_y) / 2
    return loss


def _affordable_evaluations(layers: int, width: int, budget: float) -> int:
    # One is about 3 products of width^3 multiply-adds for each layer, and four more.
    work = (3 * layers + 4) * 2.0 * width**3 + 2e4
    return max(int(budget * _NOMINAL_SPEED / work), 140 * _EVALUATIONS)


def _fastest_rate(spec: Spectrum, objective: Objective, layers: int) -> float:
    """Return about the fastest rate at which the flow relaxes once all is learned; it limits explicit steps.

    An aligned predictor relaxes with ``C C^T``, whose eigenvalues are those of ``diag(w*) M
    diag(w*)`` (THEORY.md 6); a feature of MAE as a whole relaxes ``L + 1`` times as fast, one of
    JEPA as fast, no more (derivatives of u' in THEORY.md 2).
    """
    scaled = np.asarray(spec.duals) * fixed_point(spec, objective.name, depth=layers)
    rate = float(np.linalg.norm(scaled, ord=2)) ** 2
    return rate if isinstance(objective, JEPA) else (layers + 1) * rate


def _resolved(spec: Spectrum, learned: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Learned features whose rho is more than two standard errors from zero; all learned ones if there are none."""
    stderr = None if spec.diagnostic is None else spec.diagnostic.rho_stderr
    clear = learned if stderr is None else learned & (spec.rho > 2 * stderr)
    return clear if clear.any() else learned
