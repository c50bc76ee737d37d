"""The feature equations to 50 digits (THEORY.md 3), independent of the engine: mpmath and the formulas as given there.

``time_between`` is T of THEORY.md 3 for the three ways a feature can move; ``error`` is the measure E by which accuracy
is judged. Nothing is inverted blindly: the engine's answer is the start of a Newton iteration in high precision.
"""

from __future__ import annotations

import mpmath as mp

DIGITS = 60


def _powers(objective: str, depth: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
    return (2 * depth, mp.mpf(1)) if objective == "jepa" else (depth, depth + 1)


def _gauss(a: mp.mpf, z: mp.mpf) -> mp.mpf:
    """2F1(1, a; 1 + a; z)."""
    return mp.hyp2f1(1, a, 1 + a, z)


def _rise(x: mp.mpf, p: mp.mpf, q: mp.mpf) -> mp.mpf:
    """Antiderivative of 1/(x^p (1 - x^q)) for 0 < x < 1."""
    if p == 1:
        return mp.log(x) - mp.log(-mp.expm1(q * mp.log(x))) / q
    if q == 1 and p == mp.floor(p):
        return mp.log(x / (1 - x)) - sum(x**-n / n for n in range(1, int(p)))
    a = (1 - p) / q
    n = mp.nint(-a)
    if abs(n + a) < mp.mpf(10) ** -25:  # the logarithmic case of THEORY.md 3, reached by real depths
        a += mp.mpf(10) ** -25  # shifts T by 1e-25 relative
    return x ** (q * a) / (q * a) * _gauss(a, x**q)


def _fall(x: mp.mpf, p: mp.mpf, q: mp.mpf) -> mp.mpf:
    """Integral of 1/(x^p (x^q - 1)) from x > 1 to infinity."""
    b = (p + q - 1) / q
    return x ** (-q * b) / (q * b) * _gauss(b, x**-q)


def _alternating(a: mp.mpf, z: mp.mpf) -> mp.mpf:
    """2F1(1, a; 1 + a; -z), by Pfaff's transformation to an argument in [0, 1)."""
    return mp.hyp2f1(1, 1, 1 + a, z / (1 + z)) / (1 + z)


def _decay_above(x: mp.mpf, p: mp.mpf, q: mp.mpf) -> mp.mpf:
    """Integral of 1/(x^p (1 + x^q)) from x to infinity: no cancellation for x >= 1."""
    b = (p + q - 1) / q
    return x ** (-q * b) / (q * b) * _alternating(b, x**-q)


def _decay(x: mp.mpf, p: mp.mpf, q: mp.mpf) -> mp.mpf:
    """Antiderivative of -1/(x^p (1 + x^q)) for 0 < x <= 1."""
    if p == 1:
        return mp.log1p(x**-q) / q
    if q == 1 and p == mp.floor(p):
        n = int(p)
        powers = sum((-1) ** k * x ** (k - n + 1) / (n - 1 - k) for k in range(n - 1))
        return powers + (-1) ** n * mp.log(x / (1 + x))
    a = (1 - p) / q
    n = mp.nint(-a)
    if abs(n + a) < mp.mpf(10) ** -25:
        a += mp.mpf(10) ** -25
    return -(x ** (q * a)) / (q * a) * _alternating(a, x**q)


def start(lam: float, sigma2: float, eps: float, depth: float, objective: str) -> tuple[mp.mpf, ...]:
    """Return p, q, u(0), lambda and sigma^2 in high precision."""
    length = mp.mpf(depth)
    p, q = _powers(objective, length)
    return p, q, mp.mpf(eps) ** (1 / length), mp.mpf(lam), mp.mpf(sigma2)


def time_between(u0: mp.mpf, u: mp.mpf, lam: mp.mpf, sigma2: mp.mpf, p: mp.mpf, q: mp.mpf) -> mp.mpf:
    """Return the flow time from u0 to u, which lies on the way of u0."""
    if lam == 0:
        power = p + q - 1
        return (u**-power - u0**-power) / (power * sigma2)
    fixed = (abs(lam) / sigma2) ** (1 / q)
    rate = abs(lam) * fixed ** (p - 1)
    x0, x = u0 / fixed, u / fixed
    if lam < 0:
        one = mp.mpf(1)
        elapsed = mp.mpf(0)
        if x0 > 1:
            elapsed += _decay_above(max(x, one), p, q) - _decay_above(x0, p, q)
        if x < 1:
            elapsed += _decay(x, p, q) - _decay(min(x0, one), p, q)
        return elapsed / rate
    if x0 < 1:
        return (_rise(x, p, q) - _rise(x0, p, q)) / rate
    return (_fall(x, p, q) - _fall(x0, p, q)) / rate


def velocity(u: mp.mpf, lam: mp.mpf, sigma2: mp.mpf, p: mp.mpf, q: mp.mpf) -> mp.mpf:
    return lam * u**p - sigma2 * u ** (p + q)


def error(w: float, t: float, lam: float, sigma2: float, eps: float, depth: float, objective: str) -> float:
    """Return E = |u - u_ref| / (|u_ref| + t |u'(u_ref)|) of a computed response w = u^depth at time t.

    The reference solves T(u_ref) - T(u0) = t by Newton's method on 60 digits, started at w; close to the fixed point,
    where u_ref differs from it by less than E can see, it is the fixed point.
    """
    with mp.workdps(DIGITS):
        p, q, u0, lam_, sigma2_ = start(lam, sigma2, eps, depth, objective)
        t_ = mp.mpf(t)
        u = mp.mpf(w) ** (1 / mp.mpf(depth))
        limit = (lam_ / sigma2_) ** (1 / q) if lam > 0 else mp.mpf(0)
        if t == 0 or u0 == limit:
            reference = u0
        elif lam > 0 and _settled(u0, t_, limit, lam_, sigma2_, p, q):
            reference = limit
        else:
            reference = _newton(u0, u, t_, limit, lam_, sigma2_, p, q)
        scale = abs(reference) + t_ * abs(velocity(reference, lam_, sigma2_, p, q))
        return float(abs(u - reference) / scale)


def _settled(u0: mp.mpf, t: mp.mpf, limit: mp.mpf, lam: mp.mpf, sigma2: mp.mpf, p: mp.mpf, q: mp.mpf) -> bool:
    nearly = limit * (1 - mp.mpf(10) ** -22) if u0 < limit else limit * (1 + mp.mpf(10) ** -22)
    return bool((u0 - limit) * (u0 - nearly) <= 0) or bool(t > time_between(u0, nearly, lam, sigma2, p, q))


def _newton(
    u0: mp.mpf,
    u: mp.mpf,
    t: mp.mpf,
    limit: mp.mpf,
    lam: mp.mpf,
    sigma2: mp.mpf,
    p: mp.mpf,
    q: mp.mpf,
) -> mp.mpf:
    # A bracket keeps the iteration between the start and the fixed point.
    low, high = min(u0, limit), max(u0, limit)
    if not low < u < high:
        u = low + (high - low) * (mp.mpf(10) ** -40 if u <= low else 1 - mp.mpf(10) ** -40)
    for _ in range(60):
        elapsed = time_between(u0, u, lam, sigma2, p, q)
        ahead = elapsed > t
        if (u0 < limit) == ahead:
            high = u
        else:
            low = u
        step = (t - elapsed) * velocity(u, lam, sigma2, p, q)
        new = u + step
        if not low < new < high:
            new = (low + high) / 2
        if abs(step) < mp.mpf(10) ** -21 * u:
            return new
        u = new
    raise AssertionError("the reference did not converge")
