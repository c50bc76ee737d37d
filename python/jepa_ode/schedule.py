"""Learning-rate schedules: a factor ``s(t)`` of the whole right-hand side, hence a change of time (THEORY.md 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._frozen import FrozenArrays, read_only
from ._validate import FloatArray, as_float_array, as_non_negative, as_positive, require_finite

__all__ = ["Schedule"]

# Coefficients of (z - sin z)/z^3 in z^2, enough for |z| <= 1.
_SINE_REST = [(-1) ** k / math.factorial(2 * k + 3) for k in range(10)]


@dataclass(frozen=True, eq=False, repr=False)
class Schedule(FrozenArrays):
    r"""A learning-rate schedule ``s(t) >= 0``, which multiplies the right-hand side of every flow (THEORY.md 1).

    The flow with a schedule is the flow without it on another clock, ``theta(t)``, the integral of ``s`` from 0 to
    ``t``. Nothing but the clock changes: the exact solution applies, and what is learned, and in which order, stays the
    same. Everything counts on that clock, the time constant of a moving-average target and weight decay too.

    Make one with `constant`, `warmup`, `cosine` or `table`.

    Attributes
    ----------
    knots : array [k]
        Times at which the pieces begin, the first one 0; the last piece has no end.
    values : array [k]
        ``s`` at the knots; the last one holds ever after.
    curved : bool array [k]
        Whether ``s`` follows half a cosine, not a line, from this knot to the next one.
    name : str
        How it was made.

    Notes
    -----
    Times are in the unit of the call that takes the schedule, ``"flow"`` or ``"rescaled"``.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> schedule = jo.Schedule.cosine(1000.0, warmup=100.0)
    >>> schedule
    Schedule.cosine(1000, value=1, final=0, warmup=100)
    >>> schedule([0.0, 50.0, 100.0, 550.0, 2000.0]).round(3)
    array([0. , 0.5, 1. , 0.5, 0. ])
    >>> schedule.elapsed(1000.0)
    500.0
    """

    knots: FloatArray
    values: FloatArray
    curved: np.ndarray[Any, np.dtype[np.bool_]]
    name: str

    @classmethod
    def constant(cls, value: float = 1.0) -> Schedule:
        """Return ``s = value`` at all times.

        Parameters
        ----------
        value : float, default 1.0
            Positive.

        Examples
        --------
        >>> import jepa_ode as jo
        >>> jo.Schedule.constant(0.5).elapsed(3.0)
        1.5
        """
        value = as_positive("value", value)
        return cls._of([(0.0, value, False)], f"constant({value:g})")

    @classmethod
    def warmup(cls, duration: float, value: float = 1.0, start: float = 0.0) -> Schedule:
        """Return a line from ``start`` to ``value`` over ``duration``, then ``value``.

        Parameters
        ----------
        duration : float
            Positive.
        value : float, default 1.0
            Positive.
        start : float, default 0.0
            Non-negative.

        Examples
        --------
        >>> import jepa_ode as jo
        >>> jo.Schedule.warmup(10.0).elapsed([5.0, 10.0, 20.0])
        array([ 1.25,  5.  , 15.  ])
        """
        duration, value = as_positive("duration", duration), as_positive("value", value)
        start = as_non_negative("start", start)
        name = f"warmup({duration:g}, value={value:g}, start={start:g})"
        return cls._of([(0.0, start, False), (duration, value, False)], name)

    @classmethod
    def cosine(cls, duration: float, value: float = 1.0, final: float = 0.0, warmup: float = 0.0) -> Schedule:
        """Return half a cosine from ``value`` to ``final``, which it keeps; before it, a line from 0 to ``value``.

        Parameters
        ----------
        duration : float
            When ``final`` is reached, warm-up included; positive.
        value : float, default 1.0
            Positive.
        final : float, default 0.0
            Non-negative. With 0 the flow stops, and what has not been learned by then never is.
        warmup : float, default 0.0
            Length of the line, less than ``duration``.

        Examples
        --------
        >>> import jepa_ode as jo
        >>> jo.Schedule.cosine(8.0, value=2.0).elapsed([8.0, 100.0])
        array([8., 8.])
        """
        duration, value = as_positive("duration", duration), as_positive("value", value)
        final, warmup = as_non_negative("final", final), as_non_negative("warmup", warmup)
        if not warmup < duration:
            raise ValueError(f"warmup must be less than duration = {duration:g}, got {warmup:g}")
        line = [(0.0, 0.0, False)] if warmup > 0 else []
        name = f"cosine({duration:g}, value={value:g}, final={final:g}, warmup={warmup:g})"
        return cls._of([*line, (warmup, value, True), (duration, final, False)], name)

    @classmethod
    def table(cls, t: Any, s: Any) -> Schedule:
        """Return the lines between the points of a table; after the last one ``s`` keeps its last value.

        Parameters
        ----------
        t : array [k]
            Increasing, the first one 0.
        s : array [k]
            Non-negative, one of them positive.

        Examples
        --------
        >>> import jepa_ode as jo
        >>> jo.Schedule.table([0.0, 1.0, 2.0], [0.0, 1.0, 0.5]).elapsed([1.0, 2.0, 4.0])
        array([0.5 , 1.25, 2.25])
        """
        knots = require_finite("t", as_float_array("t", t))
        values = require_finite("s", as_float_array("s", s))
        if knots.size == 0 or knots.shape != values.shape:
            raise ValueError(f"t and s must have the same length, at least 1; got {knots.size} and {values.size}")
        if knots[0] != 0 or not (np.diff(knots) > 0).all():
            raise ValueError("t must start at 0 and increase from point to point")
        if values.min() < 0 or values.max() == 0:
            raise ValueError(f"s must be non-negative and somewhere positive, got {values.min():g} to {values.max():g}")
        pieces = [(float(at), float(value), False) for at, value in zip(knots, values, strict=True)]
        return cls._of(pieces, f"table({knots.size} points to t={knots[-1]:g})")

    @classmethod
    def _of(cls, pieces: list[tuple[float, float, bool]], name: str) -> Schedule:
        knots, values, curved = zip(*pieces, strict=True)
        return cls(
            read_only(np.array(knots)), read_only(np.array(values)), read_only(np.array(curved, dtype=np.bool_)), name
        )

    def __call__(self, t: Any) -> Any:
        """Return ``s(t)``, a float or an array of the shape of ``t``; times are non-negative."""
        times = _as_clock("t", t)
        piece, into, length, start, end = self._locate(times, self.knots)
        curved = self.curved[piece]
        share = np.where(np.isinf(length), 0.0, into) / length
        line = start + (end - start) * share
        wave = start + (end - start) * np.sin(np.pi / 2 * share) ** 2
        return _shaped(np.where(curved, wave, line))

    value = __call__

    def elapsed(self, t: Any) -> Any:
        """Return the integral of ``s`` from 0 to ``t``, in closed form, a float or an array of the shape of ``t``."""
        times = _as_clock("t", t)
        piece, into, length, start, end = self._locate(times, self.knots)
        return _shaped(self._areas()[piece] + _area(into, length, start, end, self.curved[piece]))

    def time(self, elapsed: Any) -> Any:
        """Return the first time at which the integral of ``s`` is ``elapsed``: inf where it never gets there.

        Examples
        --------
        >>> import jepa_ode as jo
        >>> jo.Schedule.warmup(10.0).time([0.0, 1.25, 15.0])
        array([ 0.,  5., 20.])
        """
        wanted = _as_clock("elapsed", elapsed)
        areas = self._areas()
        piece, area, length, start, end = self._locate(wanted, areas)
        # The root of a quadratic, in the form that does not cancel, in units of the rate; the last piece is flat. A small
        # area, which could get lost in these units, grows by 4^n and the root by 2^n.
        exponent = -np.frexp(np.maximum(start, end))[1]
        n = np.clip(-(np.frexp(area)[1] + exponent) // 2, 0, 500)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            first, last, share = np.ldexp(start, exponent), np.ldexp(end, exponent), np.ldexp(area, exponent + 2 * n)
            bend = np.where(np.isinf(length), 0.0, 2 * (share / length) * (last - first))
            first = np.ldexp(first, n)
            root = np.sqrt(np.maximum(first * first + bend, 0.0))
            into = np.where(area > 0, np.ldexp(share / ((first + root) / 2), -n), 0.0)
        curved = self.curved[piece]
        if curved.any():
            into[curved] = _inverse_area(area[curved], length[curved], start[curved], end[curved])
        return _shaped(np.where(np.isinf(wanted), math.inf, self.knots[piece] + np.minimum(into, length)))

    def _areas(self) -> FloatArray:
        lengths = np.diff(self.knots)
        areas = _area(lengths, lengths, self.values[:-1], self.values[1:], self.curved[:-1])
        return np.concatenate([[0.0], np.cumsum(areas)])

    def _locate(
        self, positions: FloatArray, starts: FloatArray
    ) -> tuple[Any, FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return for each position its piece, the way into it, and the piece's length and two values."""
        side: Any = "right" if starts is self.knots else "left"
        piece = np.maximum(np.searchsorted(starts, positions, side=side) - 1, 0)
        length = np.append(np.diff(self.knots), math.inf)[piece]
        end = np.append(self.values[1:], self.values[-1])[piece]
        return piece, positions - starts[piece], length, self.values[piece], end

    def __repr__(self) -> str:
        return f"Schedule.{self.name}"


def _as_clock(name: str, value: Any) -> FloatArray:
    array = as_float_array(name, value, ndim=None)
    if not (array >= 0).all():  # NaN too
        raise ValueError(f"{name} must be non-negative, got {array[~(array >= 0)].flat[0]}")
    return array


def _shaped(array: FloatArray) -> Any:
    return float(array) if array.ndim == 0 else array


def _area(
    into: FloatArray,
    length: FloatArray,
    start: FloatArray,
    end: FloatArray,
    curved: np.ndarray[Any, np.dtype[np.bool_]],
) -> FloatArray:
    """Return the integral of a piece from its beginning: no term cancels another."""
    flat = np.isinf(length)  # the last piece
    inside, length = np.where(flat, 0.0, into), np.where(flat, 1.0, length)
    share = inside / length
    of_end = np.where(curved, length * _sine_rest(np.pi * share) / (2 * np.pi), share * inside / 2)
    with np.errstate(invalid="ignore", over="ignore"):
        of_start = np.where(start == 0, 0.0, start * (into - of_end))  # also where `into` is inf
        return of_start + end * of_end


def _sine_rest(z: FloatArray) -> FloatArray:
    """Return ``z - sin z`` to rounding."""
    series = np.polynomial.polynomial.polyval(np.minimum(z, 1.0) ** 2, _SINE_REST) * z**3
    return np.where(z < 1, series, z - np.sin(z))


def _inverse_area(area: FloatArray, length: FloatArray, start: FloatArray, end: FloatArray) -> FloatArray:
    """Return how far into a curved piece its integral is ``area``: bisection to the last bit (the integral rises)."""
    curved = np.ones(area.shape, dtype=np.bool_)
    low, high = np.zeros_like(area), length.copy()
    # First down to the right power of two, then the bits of the fraction.
    for _ in range(2100):  # from the largest number to the smallest
        middle = high / 2
        below = (middle > 0) & (_area(middle, length, start, end, curved) >= area)
        if not below.any():
            break
        high = np.where(below, middle, high)
    low = high / 2
    for _ in range(54):
        middle = (low + high) / 2
        reached = _area(middle, length, start, end, curved) >= area
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.where(area > 0, high, 0.0)
