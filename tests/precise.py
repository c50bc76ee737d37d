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
    gap = 1 - z
    if gap > 0.5:
        return mp.hyp2f1(1, a, 1 + a, z)
    total, factor, k = mp.mpf(0), a, 0  # DLMF 15.8.10
    bracket = mp.psi(0, 1) - mp.psi(0, a) - mp.log(gap)
    while abs(factor) > mp.eps or k == 0:
        total += factor * bracket
        bracket += mp.mpf(1) / (k + 1) - 1 / (a + k)
        k += 1
        factor *= (a + k - 1) / k * gap
    return total


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


def sensitivities(
    w: float, t: float, lam: float, sigma2: float, eps: float, depth: float, objective: str
) -> dict[str, tuple[mp.mpf, mp.mpf]]:
    """Return dw/dlam, dw/dsigma2, dw/deps and dw/dt, each with t times its own derivative with respect to time.

    By the implicit function theorem: at fixed u, the time T(u; parameters) from the start changes with a parameter, and
    u makes up for it. The terms cancel, but not in as many digits as are taken here. ``w``, the engine's response,
    starts the iteration for u. For ``lam = 0``, at which T is not differentiable, the variational equation is integrated
    instead. Needs ``0 < t < inf``, and a start that moves by more than 1e-500 of itself.
    """
    with mp.workdps(DIGITS):
        p, q, u0, lam_, sigma2_ = start(lam, sigma2, eps, depth, objective)
        settling = _settling(u0, mp.mpf(t), lam_, sigma2_, p, q) if lam > 0 else mp.mpf(0)
        if settling > 800:
            w_, zero = (lam_ / sigma2_) ** (mp.mpf(depth) / q), mp.mpf(0)
            slope = mp.mpf(depth) / q * w_
            return {
                "lam": (slope / lam_, zero),
                "sigma2": (-slope / sigma2_, zero),
                "eps": (zero, zero),
                "t": (zero, zero),
            }
        moved = t * abs(velocity(u0, lam_, sigma2_, p, q)) / u0 + mp.mpf(10) ** -500
        lost = max(mp.mpf(0), -mp.log10(moved))
        if lam != 0:  # far from the fixed point one of the two parameters hardly counts
            lost += max(abs(mp.log10(v ** (q / mp.mpf(depth)) * sigma2_ / abs(lam_))) for v in (mp.mpf(eps), mp.mpf(w)))
    # Close to the fixed point 1 - (u/u*)^q is about exp(-settling), close to the start u - u0 is small; all digits count.
    with mp.workdps(DIGITS + int(lost + settling / 1.5)):
        p, q, u0, lam_, sigma2_ = start(lam, sigma2, eps, depth, objective)
        length, t_ = mp.mpf(depth), mp.mpf(t)
        u = _inverse(w, t_, u0, lam_, sigma2_, length, p, q)
        speed = velocity(u, lam_, sigma2_, p, q)
        slope = p * lam_ * u ** (p - 1) - (p + q) * sigma2_ * u ** (p + q - 1)  # df/du

        by_start = speed / velocity(u0, lam_, sigma2_, p, q) * u0 / (length * mp.mpf(eps))
        if lam == 0:
            power = 1 - p - 2 * q
            by_lam = speed * (u**power - u0**power) / power / sigma2_**2
            by_sigma2 = speed * t_ / sigma2_
        else:
            # T = (Phi(u/u*) - Phi(u0/u*)) / (lam u*^(p-1)) with Phi' = 1/(x^p (1 - x^q)), and log u* = log(lam/sigma2)/q
            by_log_fixed = -(u / speed - u0 / velocity(u0, lam_, sigma2_, p, q)) - (p - 1) * t_
            by_lam = -speed * (by_log_fixed / q - t_) / lam_
            by_sigma2 = speed * by_log_fixed / q / sigma2_
        # (du/dparameter, its derivative with respect to time: the variational equation)
        of_u = {
            "lam": (by_lam, slope * by_lam + u**p),
            "sigma2": (by_sigma2, slope * by_sigma2 - u ** (p + q)),
            "eps": (by_start, slope * by_start),
            "t": (speed, slope * speed),
        }
        of_w = {}
        for name, (value, rate) in of_u.items():
            factor = length * u ** (length - 1)
            of_w[name] = (factor * value, t_ * factor * (rate + (length - 1) * speed * value / u))
        return of_w


def _settling(u0: mp.mpf, t: mp.mpf, lam: mp.mpf, sigma2: mp.mpf, p: mp.mpf, q: mp.mpf) -> mp.mpf:
    """Return for how long, in units of its rate, the approach to the fixed point has been exponential."""
    fixed = (lam / sigma2) ** (1 / q)
    near = fixed * (1 + (-1 if u0 < fixed else 1) / (4 * (p + q)))
    if (u0 < near) == (near < fixed):
        t -= time_between(u0, near, lam, sigma2, p, q)
    return max(mp.mpf(0), q * lam * fixed ** (p - 1) * t)


def _inverse(
    w: float, t: mp.mpf, u0: mp.mpf, lam: mp.mpf, sigma2: mp.mpf, depth: mp.mpf, p: mp.mpf, q: mp.mpf
) -> mp.mpf:
    """Return u(t) to working precision, in the coordinate in which the late trajectory is a straight line."""
    u = mp.mpf(w) ** (1 / depth)
    if lam <= 0:
        coordinate, inverse, derivative = mp.log, mp.exp, lambda u: u
    else:
        sign = -1 if u0**q * sigma2 > lam else 1
        fixed = (lam / sigma2) ** (1 / q)

        def coordinate(u: mp.mpf) -> mp.mpf:
            ratio = sign * q * mp.log(u / fixed)
            return ratio - mp.log(-mp.expm1(ratio))

        def inverse(x: mp.mpf) -> mp.mpf:
            return fixed * mp.exp(-sign * mp.log1p(mp.exp(-x)) / q)

        def derivative(u: mp.mpf) -> mp.mpf:
            return sign * u * -mp.expm1(sign * q * mp.log(u / fixed)) / q

    first = coordinate(u0)
    settled = lam > 0 and abs(u / fixed - 1) * q < mp.mpf(10) ** -13
    x = mp.mpf(30) if settled else coordinate(u)
    if abs(u / u0 - 1) < mp.mpf(10) ** -10:
        x = first + t * velocity(u0, lam, sigma2, p, q) / derivative(u0)
    low, high = (first, mp.inf) if lam > 0 else (-mp.inf, first)
    for _ in range(200):
        if not low < x < high:
            x = (low + high) / 2 if mp.isfinite(low + high) else first + (1 if lam > 0 else -1) * mp.mpf(10) ** -20
        u = inverse(x)
        elapsed = time_between(u0, u, lam, sigma2, p, q)
        if (lam > 0) == (elapsed > t):
            high = x
        else:
            low = x
        step = (t - elapsed) * velocity(u, lam, sigma2, p, q) / derivative(u)
        x += step
        noise = mp.mpf(10) ** 28 * mp.eps * (1 + abs(x) + (mp.exp(x) if lam > 0 else 0))  # of x, from that of u
        if abs(step) < max(noise, mp.sqrt(mp.eps) * min(1, mp.mpf(10) ** 10 * abs(x - first))):
            return inverse(x)
    raise AssertionError("the reference did not converge")
