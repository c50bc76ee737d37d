"""Compute the coefficients of the stabilised method of order 4 and write `cpp/include/jepa_ode/rock4_table.hpp`.

The construction is that of Abdulle, Fourth order Chebyshev methods with recurrence relation, SIAM Journal on Scientific
Computing 23 (2002) 2041-2054. A step of s stages has the stability polynomial R = P W. P, of degree s - 4, is orthogonal
on [-reach, -delta] for the weight W^2 / sqrt((z + delta)(-z - reach)), so that |R| oscillates evenly there and P obeys a
recurrence of three terms, which gives the first s - 4 stages. W, of degree 4, has two pairs of complex zeros such that
R(z) = exp(z) + O(z^5). The last four stages are an explicit method that starts where the recurrence ends and whose
elementary weights (Butcher) are such that the two together satisfy the eight conditions of order 4; of the methods that do,
the one with the smallest terms of order 5 is taken. Five weights of the derivatives in the last four stages and at the end
of the step that satisfy the conditions of order 3 of a zero step estimate the error.

What differs from the literature is the damping. The flow of JEPA is no gradient and has complex rates: half a per cent
off the negative axis for each unit along it is common. R must therefore decay as steps grow: it is bounded by eta < 1 with
acosh(1/eta) proportional to s, within bounds.

Needs NumPy and SciPy; takes half a minute. The engine's tests check what the table claims.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from functools import cache
from math import factorial, prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.polynomial import polynomial
from scipy.optimize import fsolve, minimize, root_scalar

Array = npt.NDArray[np.float64]
Tree = tuple["Tree", ...]

STAGES = (*range(5, 15), 16, 18, 20, 22, 25, 28, 32, 36, 40, 45, 50, 55, 60)
DAMPING_PER_STAGE, LEAST_DAMPING, MOST_DAMPING = 0.12, 1.1, 2.3  # of acosh(1/eta)
MOST_GROWTH = 1.2  # of a stage in the last four, for any z of the interval
TARGET = Path(__file__).parents[1] / "cpp/include/jepa_ode/rock4_table.hpp"

# --- elementary weights -------------------------------------------------------------------------------------------------


@cache
def trees(order: int) -> list[Tree]:
    """Return the rooted trees with so many nodes, each the sorted tuple of its root's subtrees."""

    def partitions(total: int, largest: int) -> list[tuple[int, ...]]:
        if total == 0:
            return [()]
        return [(k, *rest) for k in range(min(total, largest), 0, -1) for rest in partitions(total - k, k)]

    found = {
        tuple(sorted(branches))
        for sizes in partitions(order - 1, order - 1)
        for branches in itertools.product(*map(trees, sizes))
    }
    return sorted(found)


def order_of(tree: Tree) -> int:
    """Return the number of nodes."""
    return 1 + sum(map(order_of, tree))


def density(tree: Tree) -> int:
    """Return gamma: the elementary weight of the exact solution is 1/gamma."""
    return order_of(tree) * prod(map(density, tree))


def symmetry(tree: Tree) -> int:
    """Return sigma, the number of symmetries."""
    return prod(factorial(count) * symmetry(branch) ** count for branch, count in Counter(tree).items())


TREES = [tree for order in range(1, 6) for tree in trees(order)]
ORDER = np.array(list(map(order_of, TREES)))
EXACT = 1 / np.array(list(map(density, TREES)))
SYMMETRY = np.array(list(map(symmetry, TREES)))
BRANCHES = [[TREES.index(branch) for branch in tree] for tree in TREES]
LEAF, CHAIN2, BUSH3, CHAIN3, BUSH4, FORK4, COMB4, CHAIN4 = (
    TREES.index(tree)
    for tree in (
        (), ((),), ((), ()), (((),),), ((), (), ()), tuple(sorted(((), ((),)))), (((), ()),), ((((),),),),
    )
)  # fmt: skip


def size(weights: Array, order: int) -> float:
    """Return the Euclidean norm of the terms of one order."""
    return float(np.linalg.norm((weights / SYMMETRY)[order == ORDER]))


def derivative(weights: Array) -> Array:
    """Return the weights of h f(g) for those of g."""
    return np.array([prod(weights[k] for k in branches) for branches in BRANCHES])


# --- the stability polynomial -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recurrence:
    """``P_j = (mu_j z + nu_j) P_(j-1) + (1 - nu_j) P_(j-2)``, P_0 = 1, all equal to 1 at 0."""

    mu: Array
    nu: Array

    def __call__(self, z: Array) -> Array:
        """Return the values of the last polynomial."""
        before, last = np.zeros_like(z), np.ones_like(z)
        for mu, nu in zip(self.mu, self.nu, strict=True):
            before, last = last, (mu * z + nu) * last + (1 - nu) * before
        return last

    def series(self) -> Array:
        """Return the first five coefficients of the last polynomial."""
        before, last = np.zeros(5), np.eye(5)[0]
        for mu, nu in zip(self.mu, self.nu, strict=True):
            before, last = last, nu * last + (1 - nu) * before + mu * np.append(0, last[:-1])
        return last

    def weights(self) -> Array:
        """Return the elementary weights of the last stage."""
        before = last = np.zeros(len(TREES))
        for mu, nu in zip(self.mu, self.nu, strict=True):
            before, last = last, mu * derivative(last) + nu * last + (1 - nu) * before
        return last


def quartic(zeros: Array) -> Array:
    """Return the coefficients of W, 1 at 0, with zeros a +- b i and c +- d i."""
    pairs = [[1, -2 * real / (real**2 + imag**2), 1 / (real**2 + imag**2)] for real, imag in zeros.reshape(2, 2)]
    return np.convolve(*pairs)


def recurrence(zeros: Array, degree: int, reach: float, delta: float) -> Recurrence:
    """Return the orthogonal polynomials, by Stieltjes' procedure on the nodes of Gauss and Chebyshev."""
    nodes = np.cos(np.pi * (np.arange(800) + 0.5) / 800)
    z = -delta - (reach - delta) / 2 * (1 - nodes)
    weight = polynomial.polyval(z, quartic(zeros)) ** 2
    before, last = np.zeros_like(z), np.ones_like(z)
    mu, nu = [], []
    for _ in range(degree):
        shift = np.sum(weight * z * last**2) / np.sum(weight * last**2)
        overlap = np.sum(weight * z * last * before) / max(np.sum(weight * before**2), 1e-300)
        at_zero = -shift - overlap
        mu.append(1 / at_zero)
        nu.append(-shift / at_zero)
        before, last = last, ((z - shift) * last - overlap * before) / at_zero
    return Recurrence(np.array(mu), np.array(nu))


def stability(stages: int, guess: Array) -> tuple[float, Array, Recurrence]:
    """Return the longest reach for which |R| stays below eta, with the zeros of W and the recurrence of P."""
    degree = stages - 4
    eta = 1 / np.cosh(np.clip(DAMPING_PER_STAGE * stages, LEAST_DAMPING, MOST_DAMPING))
    delta = -np.log(eta)
    exponential = 1 / np.array([1, 1, 2, 6, 24])

    def mismatch(zeros: Array, reach: float) -> Array:
        product = np.convolve(recurrence(zeros, degree, reach, delta).series(), quartic(zeros))[:5]
        return (product / exponential - 1)[1:]

    best = None
    for ratio in np.arange(0.15, 0.35, 0.002):
        reach = ratio * stages**2
        zeros = fsolve(mismatch, guess, args=(reach,), xtol=1e-14)
        if np.abs(mismatch(zeros, reach)).max() > 1e-10:
            continue
        guess = zeros
        found = recurrence(zeros, degree, reach, delta)
        z = -np.linspace(0, reach, 8001)
        R = np.abs(found(z) * polynomial.polyval(z, quartic(zeros)))
        if R.max() <= 1 + 1e-9 and R[z < -max(1.2, 1.3 * delta)].max() <= 1.001 * eta:
            best = reach, zeros, found
    if best is None:
        raise RuntimeError(f"no stability polynomial with {stages} stages")
    return best


# --- the last four stages -----------------------------------------------------------------------------------------------


def remaining(p: Array) -> dict[int, float]:
    """Return the weights that a method must have for its composition with one of weights p to be of order 4."""
    w: dict[int, float] = {}
    one, two = p[LEAF], p[CHAIN2]
    w[LEAF] = 1 - one
    w[CHAIN2] = 1 / 2 - two - one * w[LEAF]
    w[BUSH3] = 1 / 3 - p[BUSH3] - one**2 * w[LEAF] - 2 * one * w[CHAIN2]
    w[CHAIN3] = 1 / 6 - p[CHAIN3] - two * w[LEAF] - one * w[CHAIN2]
    w[BUSH4] = 1 / 4 - p[BUSH4] - one**3 * w[LEAF] - 3 * one**2 * w[CHAIN2] - 3 * one * w[BUSH3]
    w[FORK4] = 1 / 8 - p[FORK4] - one * two * w[LEAF] - (two + one**2) * w[CHAIN2] - one * w[BUSH3] - one * w[CHAIN3]
    w[COMB4] = 1 / 12 - p[COMB4] - p[BUSH3] * w[LEAF] - one**2 * w[CHAIN2] - 2 * one * w[CHAIN3]
    w[CHAIN4] = 1 / 24 - p[CHAIN4] - p[CHAIN3] * w[LEAF] - two * w[CHAIN2] - one * w[CHAIN3]
    return w


@dataclass(frozen=True)
class LastStages:
    """An explicit method of four stages, and the weights of its error estimate (the last one of the step's end)."""

    a: Array
    b: Array
    defect: float  # in the eighth condition

    def derivatives(self, p: Array) -> tuple[list[Array], Array]:
        """Return the weights of the four h f(stage), after a recurrence of weights p, and of the end."""
        k: list[Array] = []
        for row in self.a:
            k.append(derivative(p + sum((c * each for c, each in zip(row, k, strict=False)), np.zeros_like(p))))
        return k, p + sum(c * each for c, each in zip(self.b, k, strict=True))

    def growth(self, P: Array, z: Array) -> float:
        """Return the largest value of a stage."""
        k: list[Array] = []
        largest = 0.0
        for row in self.a:
            stage = P + sum((c * each for c, each in zip(row, k, strict=False)), np.zeros_like(z))
            largest = max(largest, float(np.abs(stage).max()))
            k.append(z * stage)
        return largest

    def error(self, w: dict[int, float], p: Array) -> Array:
        """Return the weights of the estimate; its terms of order 4 are together as large as those of the solution."""
        c = self.a.sum(axis=1)
        conditions = [
            np.append(np.ones(4), 1),
            np.append(c, w[LEAF]),
            np.append(c**2, w[LEAF] ** 2),
            np.append(self.a @ c, w[CHAIN2]),
        ]
        null = np.linalg.svd(np.array(conditions))[2][-1]
        k, end = self.derivatives(p)
        estimate = sum(e * each for e, each in zip(null, [*k, derivative(end)], strict=True))
        return null * size(EXACT, 4) / size(estimate, 4) * np.sign(null[-1])


def last_stages(w: dict[int, float], c2: float, c3: float, c4: float) -> LastStages:
    """Return the method with these nodes that satisfies seven of the conditions w."""
    nodes = np.array([c2, c3, c4])
    b2, b3, b4 = np.linalg.solve([nodes, nodes**2, nodes**3], [w[CHAIN2], w[BUSH3], w[BUSH4]])
    # x_i = sum_j a_ij c_j from  b3 x3 + b4 x4  and  b3 c3 x3 + b4 c4 x4
    x3, x4 = np.linalg.solve([[b3, b4], [b3 * c3, b4 * c4]], [w[CHAIN3], w[FORK4]])
    a32 = x3 / c2
    a43 = (w[COMB4] - b3 * a32 * c2**2 - b4 * c2 * x4) / (b4 * c3 * (c3 - c2))
    a42 = (x4 - a43 * c3) / c2
    a = np.array([[0, 0, 0, 0], [c2, 0, 0, 0], [c3 - a32, a32, 0, 0], [c4 - a42 - a43, a42, a43, 0]])
    return LastStages(a, np.array([w[LEAF] - b2 - b3 - b4, b2, b3, b4]), b4 * a43 * a32 * c2 - w[CHAIN4])


def best_last_stages(found: Recurrence, reach: float) -> tuple[LastStages, Array]:
    """Return the method with the smallest terms of order 5 whose stages do not grow, and its error weights."""
    p = found.weights()
    w = remaining(p)
    unit = w[LEAF]
    z = -np.linspace(0, reach, 1501)
    P = found(z)

    def method(c2: float, c3: float, guess: float) -> tuple[LastStages, float] | None:
        try:
            root = root_scalar(
                lambda c4: last_stages(w, c2 * unit, c3 * unit, c4 * unit).defect,
                x0=guess,
                x1=1.001 * guess,
                xtol=1e-15,
            )
            tried = last_stages(w, c2 * unit, c3 * unit, root.root * unit)
        except (np.linalg.LinAlgError, ZeroDivisionError):
            return None
        good = root.converged and abs(tried.defect) < 1e-13 and abs(root.root - guess) < 0.2
        return (tried, size(tried.derivatives(p)[1] - EXACT, 5)) if good else None

    def cost(nodes: Array, guess: float) -> float:
        got = method(*nodes, guess)
        if got is None:
            return 1e3
        return float(np.log(got[1]) + 20 * max(0, got[0].growth(P, z) - MOST_GROWTH) + 0.05 * np.abs(got[0].a).max())

    options = {"xatol": 1e-6, "fatol": 1e-6, "maxiter": 1000}
    starts = ((0.1, 0.45, 1.03), (0.15, 0.5, 1.04), (0.1, 0.55, 1.045))
    runs = [(minimize(cost, s[:2], args=(s[2],), method="Nelder-Mead", options=options), s[2]) for s in starts]
    run, guess = min(runs, key=lambda each: each[0].fun)
    got = method(*run.x, guess)
    if got is None:
        raise RuntimeError("no last stages")
    return got[0], got[0].error(w, p)


# --- the table ----------------------------------------------------------------------------------------------------------


def numbers(values: Array) -> str:
    """Return the values as C++ writes them, exactly."""
    return ", ".join(repr(float(value)) for value in values)


def main() -> None:
    """Write the header."""
    guess = np.array([-2.1, 1.1, -0.22, 2.95])
    recurrences, methods, offset = [], [], 0
    for stages in STAGES:
        reach, guess, found = stability(stages, guess)
        last, error = best_last_stages(found, reach)
        recurrences += [f"    {mu!r}, {nu!r}," for mu, nu in np.column_stack([found.mu, found.nu]).tolist()]
        a = [last.a[1, 0], last.a[2, 0], last.a[2, 1], *last.a[3, :3]]
        methods.append(
            f"    {{{stages}, {float(reach):.6g}, {offset},\n     {{{numbers(np.array(a))}}},\n"
            f"     {{{numbers(last.b)}}},\n     {{{numbers(error)}}}}},"
        )
        offset += 2 * (stages - 4)
        print(f"{stages} stages: reach {reach:.2f}, {reach / stages**2:.3f} of stages^2")
    TARGET.write_text(HEADER.replace("RECURRENCES", "\n".join(recurrences)).replace("METHODS", "\n".join(methods)))


HEADER = """\
// Written by tools/make_rock4.py, which says what the numbers are.
#pragma once

#include <cstddef>

namespace jepa_ode {

// One method of the stabilised family of order 4. With y_0 = y and h f(y) for the derivative there,
//   y_j = mu_j h f(y_(j-1)) + nu_j y_(j-1) + (1 - nu_j) y_(j-2),   j = 1 .. m,  m = stages - 4,
//   k_i = f(y_m + h sum_j a_ij k_j),  i = 1 .. 4,   y_end = y_m + h sum_i b_i k_i,
// and h (sum_i error_i k_i + error_5 f(y_end)) estimates the error of an embedded method of order 3.
struct Rock4Method {
  int stages;
  double reach;            // stable for rates in [-reach/h, 0]
  std::size_t recurrence;  // where mu_1, nu_1, mu_2, ... begin in rock4_recurrences
  double a[6];             // a_21, a_31, a_32, a_41, a_42, a_43
  double b[4];
  double error[5];
};

// clang-format off
inline constexpr double rock4_recurrences[] = {
RECURRENCES
};

inline constexpr Rock4Method rock4_methods[] = {
METHODS
};
// clang-format on

}  // namespace jepa_ode
"""

if __name__ == "__main__":
    main()
