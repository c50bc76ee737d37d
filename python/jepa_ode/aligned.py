"""Networks whose gradient flow is known exactly: an aligned, balanced start on data whose features do not couple.

Then every feature follows its own scalar equation, and the weights are its per-layer variable in frames that stay
(THEORY.md 2 and 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ._frozen import FrozenArrays, read_only
from ._validate import FloatArray
from .network import LinearNetwork
from .objectives import MAE, Objective
from .solve import solve
from .spectrum import Spectrum

__all__ = ["AlignedFlow", "NotAlignedError", "align"]

# Rounding, in units of the largest entry: of a start and of the directions that are found for it.
_ROUNDING = 1e-11


class NotAlignedError(ValueError):
    """The flow does not reduce to the scalar equations; the message says why."""


@dataclass(frozen=True, eq=False)
class AlignedFlow(FrozenArrays):
    """The scalar equations of a network, with the frames that turn their solution into its weights.

    Attributes
    ----------
    objective : JEPA or MAE
    depth : int
    lam, sigma2, w0 : arrays [k]
        Covariance, variance and start of the features that move.
    basis : array [d, k]
        Their directions in the data.
    frames : tuple of L arrays [h_l, k]
        Orthonormal columns ``U_l``: ``W^l = U_l diag(u) U_(l-1)^T`` with ``U_0 = basis``.
    outputs : array [outputs, k]
        ``V = outputs diag(u) U_L^T``.
    """

    objective: Objective
    depth: int
    lam: FloatArray = field(repr=False)
    sigma2: FloatArray = field(repr=False)
    w0: FloatArray = field(repr=False)
    basis: FloatArray = field(repr=False)
    frames: tuple[FloatArray, ...] = field(repr=False)
    outputs: FloatArray = field(repr=False)

    def responses(self, t: FloatArray) -> FloatArray:
        """Return ``w``, shape [k, m]."""
        spec = Spectrum(self.lam, self.sigma2)
        return np.asarray(solve(spec, self.objective, depth=self.depth, eps=self.w0, t=t).w)

    def along(self, w: FloatArray, directions: FloatArray) -> FloatArray:
        """Return the encoder's response to each of the unit ``directions`` [d, n], shape [n, m]."""
        seen = self.basis.T @ directions
        response: FloatArray = np.sqrt((seen**2).T @ w**2)
        return response

    def loss(self, w: FloatArray, yy: FloatArray) -> FloatArray:
        """Return the loss, shape [m], where the target has the covariance ``yy``."""
        prediction = w ** (1 + 1 / self.depth)
        sigma2, lam = self.sigma2[:, None], self.lam[:, None]
        own = 0.5 * prediction**2 * sigma2
        if isinstance(self.objective, MAE):
            return np.asarray((own - prediction * lam).sum(axis=0) + 0.5 * np.trace(yy))
        sigma2_y = np.einsum("di,de,ei->i", self.basis, yy, self.basis)[:, None]
        return np.asarray((own - prediction * w * lam + 0.5 * w**2 * sigma2_y).sum(axis=0))

    def network(self, w: FloatArray) -> LinearNetwork:
        """Return the network whose features respond with ``w`` [k]."""
        u = w ** (1 / self.depth)
        below = (self.basis, *self.frames[:-1])
        layers = [(frame * u) @ last.T for frame, last in zip(self.frames, below, strict=True)]
        return LinearNetwork(layers, (self.outputs * u) @ self.frames[-1].T)


def align(net: LinearNetwork, objective: Objective, xx: FloatArray, yx: FloatArray) -> AlignedFlow:
    """Return the scalar equations that the flow of ``net`` obeys exactly.

    Raises
    ------
    NotAlignedError
        Where it does not reduce to them, or by more than rounding.
    """
    if not objective.is_plain:
        raise NotAlignedError(f"{objective!r} is not plain: no option has a closed form")
    if np.abs(yx - yx.T).max() > _ROUNDING * np.abs(yx).max():
        raise NotAlignedError("Syx is not symmetric")
    if _common_basis((xx, yx)) is None:
        raise NotAlignedError("Sxx and Syx have no common directions: features couple")
    basis = _common_basis((xx, yx, net.encoder[0].T @ net.encoder[0]))
    if basis is None:
        raise NotAlignedError("the first layer is not aligned with the features of the data")
    sigma2, lam = (np.einsum("di,de,ei->i", basis, S, basis) for S in (xx, yx))

    # From layer to layer: images of the basis must stay orthogonal and grow alike.
    image = net.encoder[0] @ basis
    u = np.linalg.norm(image, axis=0)
    moves = u > _ROUNDING * u.max()
    if isinstance(objective, MAE) and (lam[~moves] > 0).any():
        raise NotAlignedError("MAE's features grow exponentially out of rounding where a narrow start leaves them out")
    basis, sigma2, lam, u, image = basis[:, moves], sigma2[moves], lam[moves], u[moves], image[:, moves]
    frames: list[FloatArray] = []
    for layer, above in enumerate((*net.encoder[1:], net.predictor), start=1):
        frame = image / np.linalg.norm(image, axis=0)
        if np.abs(frame.T @ frame - np.eye(u.size)).max(initial=0.0) > _ROUNDING:
            raise NotAlignedError(f"the images of the features in layer {layer} are not orthogonal")
        frames.append(frame)
        image = above @ frame
        sizes = np.linalg.norm(image, axis=0)
        if (np.abs(sizes - u) > _ROUNDING * u).any():
            raise NotAlignedError("the start is not balanced")
        stray = np.linalg.norm(above) ** 2 - np.sum(u**2)
        if abs(stray) > _ROUNDING * np.sum(u**2) * max(above.shape):
            raise NotAlignedError("a layer has weights where no feature arrives")
    outputs = image / u
    wanted = basis if isinstance(objective, MAE) else frames[-1]
    if outputs.shape != wanted.shape or np.abs(outputs - wanted).max(initial=0.0) > _ROUNDING:
        raise NotAlignedError("the predictor is not aligned with the encoder")
    return AlignedFlow(
        objective,
        net.depth,
        read_only(lam),
        read_only(sigma2),
        read_only(u**net.depth),
        read_only(basis),
        tuple(map(read_only, frames)),
        read_only(outputs),
    )


def _common_basis(matrices: tuple[FloatArray, ...]) -> FloatArray | None:
    """Return orthonormal eigenvectors that symmetric matrices share, None where they share none."""
    scaled = [S / (float(np.abs(S).max()) or 1.0) for S in matrices]
    # A combination tells apart what any of the matrices does, unless its own eigenvalues happen to be close: of several
    # combinations the one whose eigenvectors fit best.
    best, least = np.eye(len(scaled[0])), np.inf
    for angle in np.linspace(0.2, 1.4, 5):
        weights = (np.cos(angle), np.sin(angle), np.cos(3 * angle))
        basis = np.linalg.eigh(sum(weight * S for weight, S in zip(weights, scaled, strict=False)))[1]
        turned = [basis.T @ S @ basis for S in scaled]
        apart = max(float(np.abs(S - np.diag(np.diagonal(S))).max()) for S in turned)
        if apart < least:
            best, least = basis, apart
    return np.asarray(best) if least <= _ROUNDING else None
