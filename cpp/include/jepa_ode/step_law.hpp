// How long a step may be: known before it is taken, from the scales of the equation itself.
//
// What is controlled. Tolerances are of w, and dw/w = L du/u, so a step may err by (y/L) (rtol + atol/w) in y. That is
// also what the plateau of a deep encoder needs: its end comes after 1/((p-1) y'/y), so a relative error of u shifts
// the clock by p - 1 times as much, and p - 1 < 2L. Seen from there an error is a shift of the clock by dt = dy/y', and
// what early steps have shifted, later ones may shift as well: with the factor
//
//     1 + (p-1) T |y'|/y        T the time since the start
//
// each step of a plateau may shift the clock by the same part of the critical time, because there T + y/((p-1) y') is
// that time. E (THEORY.md 3) forgives exactly this, and it saves almost half of the steps from eps = 1e-6.
//
// How. With the natural rate
//
//     omega = p |y'|/y + q b y^(2L)        (plateau: p |y'|/y, decay from above: (p+q) |y'|/y, end: q a y*^(p-1))
//
// the k-th derivative of y is |y'| omega^(k-1) times a number of order 1, so a method of order k errs in each step by
// something like (h omega)^(k+1) |y'|/omega. The terms that follow form a geometric series up to the nearest
// singularity in time, which for both power laws lies farther than y / ((p+q) |y'|); h / (1 - r h (p+q) |y'|/y) for h
// stands for their sum. The number of steps is in proportion to omega/(h omega), which leaves
//
//     law (h omega / (1 - r h (p+q) |y'|/y))^k |y'|/omega = y tolerance / L
//
// so that errors, steps added up, are in proportion to the tolerance. This has the explicit solution below: no trial,
// no memory of earlier steps. An embedded estimate cannot do that for a scalar autonomous equation: it changes sign
// along the trajectory and claims perfection where it does, and a controller that looks back lags behind a rate that
// changes tenfold in a few steps. (Measured against proportional-integral control of the estimate: 1.5 to 3 times fewer
// evaluations at equal error.) The estimate remains as a check.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "jepa_ode/feature_ode.hpp"
#include "jepa_ode/tableau.hpp"
#include "jepa_ode/wide.hpp"

namespace jepa_ode {

// x^power to 1 %, for positive normal numbers: enough for a step size, and the same on every instruction set.
JEPA_ODE_INLINE Pack rough_power(Pack x, double power) noexcept {
  const IntPack biased = (bits_of(x) >> 52) & int_pack(0x7ff);
  const Pack exponent = from_bits(biased | int_pack(0x4330000000000000)) - (0x1p52 + 1023);
  const Pack mantissa = from_bits((bits_of(x) & int_pack(0xfffffffffffff)) | int_pack(0x3ff0000000000000));
  const Pack log2 = exponent + ((2.0 - mantissa * (1.0 / 3)) * mantissa - 5.0 / 3);
  const Pack y = log2 * power;
  const Pack shifted = y + 0x1.8p52;  // the nearest whole number, in the last bits
  const Pack rest = y - (shifted - 0x1.8p52);
  return from_bits(bits_of(1.0 + rest * (0.6957 + rest * 0.2277)) + (bits_of(shifted) << 52));
}

JEPA_ODE_INLINE Wide rough_power(Wide x, double power) noexcept {
  return {rough_power(x.low, power), rough_power(x.high, power)};
}

// What the law needs to know of a method:
//   law          chosen so that errors are 0.03 to 0.4 of the tolerance at worst (tests/test_runge_kutta.py);
//   longest      the longest step, in units of 1/omega. Near the fixed point, where the error no longer limits it, both
//                methods multiply the distance by a number between 0 and 1 up to here: the approach stays stable and
//                monotone;
//   derivatives  that are interpolated at both ends of a step (hermite.hpp).
template <class Method>
struct StepConstants;

template <>
struct StepConstants<Tsit5> {
  static constexpr double law = 2e-2;
  static constexpr double longest = 2.0;
  static constexpr std::size_t derivatives = 2;
};

template <>
struct StepConstants<Dop853> {
  static constexpr double law = 5e-5;
  static constexpr double longest = 2.5;
  static constexpr std::size_t derivatives = 4;
};

template <class Method>
class StepLaw {
 public:
  StepLaw(Objective objective, double depth, double rtol, double atol) noexcept
      : depth_(depth), p_(exponents(objective, depth).p), q_(exponents(objective, depth).q), rtol_(rtol), atol_(atol) {}

  // The relative error that w = response * v may have at all.
  JEPA_ODE_INLINE Wide tolerance(const Point& at, Wide response) const noexcept {
    const Wide wish = atol_ > 0 ? rtol_ + atol_ / (response * at.v) : wide(rtol_);
    return min(wish, wide(largest_tolerance));
  }

  // The same of a step that begins at time `elapsed`, with what the clock forgives.
  JEPA_ODE_INLINE Wide tolerance(const Point& at, Wide response, Wide elapsed) const noexcept {
    const Wide forgiven = 1.0 + (p_ - 1) * (elapsed * relative_slope(at));
    return min(tolerance(at, response) * forgiven, wide(largest_tolerance));
  }

  JEPA_ODE_INLINE Wide rate(const Point& at) const noexcept { return p_ * relative_slope(at) + q_ * at.decay; }

  // The step at whose end the law meets `tolerance`, a relative error of w.
  JEPA_ODE_INLINE Wide step(const Point& at, Wide tolerance) const noexcept {
    const Wide slope = relative_slope(at);
    const Wide omega = rate(at);
    const Wide quotient = tolerance * omega / ((depth_ * StepConstants<Method>::law) * slope);
    const Wide x = rough_power(min(quotient, wide(1e300)), 1.0 / Method::order);
    const Wide reach = omega + (radius * (p_ + q_)) * (slope * x);
    return x / max(reach, (1 / StepConstants<Method>::longest) * (omega * x));
  }

  // Every later value of a feature equals the present one to within the tolerance, so that no more steps are needed.
  // The flow is scalar and autonomous: u moves monotonically towards its limit and never past it, so every later value
  // lies between the present one and the limit, and these are a small part of the tolerance apart: |y/y* - 1| is
  // |y'/(a y^p)| / q up to its square. (Without atol a w that decays to 0 rests when it is 0 in double.)
  JEPA_ODE_INLINE WideMask at_rest(const Point& at, Wide response) const noexcept {
    const WideMask arrived = abs(at.slope) < smallest_slope(at, tolerance(at, response));
    const WideMask vanished = response * at.v <= wide(rest_distance * atol_);
    return arrived | (vanished & (at.growth <= wide(0.0)));
  }

  // No trajectory crosses its fixed point: a step that does so visibly is too long, whatever its estimated error.
  JEPA_ODE_INLINE WideMask crosses(const Point& from, const Point& to, Wide tolerance) const noexcept {
    return (from.slope * to.slope < 0.0) & (smallest_slope(to, tolerance) < abs(to.slope));
  }

  // How many times the tolerance the estimate may be. It is the error of embedded methods of lower order: far larger
  // than that of the step, and of less regular size.
  static constexpr double estimate_margin = 1000;

  JEPA_ODE_INLINE Wide largest_estimate(const Point& at, Wide tolerance) const noexcept {
    return (estimate_margin / depth_) * (at.y * tolerance);
  }

 private:
  static constexpr double largest_tolerance = 0.1;  // beyond, no estimate means anything
  static constexpr double rest_distance = 3e-4;     // in units of the tolerance
  static constexpr double radius = 0.8;             // r above: chosen for the fewest steps at equal error

  // y' at a distance from the fixed point, relative to w, that is a small part of the tolerance. (As `slope` is
  // computed, and `growth - decay` is not, it is exact to a rounding of y there.)
  JEPA_ODE_INLINE Wide smallest_slope(const Point& at, Wide tolerance) const noexcept {
    const Wide distance = max((rest_distance / depth_) * tolerance, wide(32 * std::numeric_limits<double>::epsilon()));
    return q_ * (distance * (at.growth * at.y));
  }

  static JEPA_ODE_INLINE Wide relative_slope(const Point& at) noexcept { return abs(at.growth - at.decay); }

  double depth_, p_, q_, rtol_, atol_;
};

}  // namespace jepa_ode
