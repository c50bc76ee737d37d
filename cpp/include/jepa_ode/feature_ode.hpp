// The scalar feature equations in the per-layer variable u = w^(1/L) (THEORY.md 2), in a frame of the solution's own
// size.
//
// Notation. With u_ref a size that u had not long ago, y = u/u_ref, and time counted in units of a power of two,
//
//     y' = a y^p - b y^(p+q)      a ~ lambda u_ref^(p-1),   b ~ sigma^2 u_ref^(2L),   p - 1 + q = 2L
//
// which is scale free: nothing overflows or underflows for any depth, start or rate, because u_ref^(p-1) lives in
// numbers with their own exponent and y stays near 1. A frame is left only when y has changed so much that y^(2L+1)
// nears the end of the double range; ordinary features live and die in their first frame.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "jepa_ode/double_double.hpp"
#include "jepa_ode/objective.hpp"
#include "jepa_ode/wide.hpp"

namespace jepa_ode {

// y^L of packs (Wide or Pack), by repeated squaring where L is whole: the same on every platform. Common depths are
// unrolled at compile time.
template <unsigned exponent>
struct FixedPower {
  template <class Real>
  JEPA_ODE_INLINE Real operator()(Real y) const noexcept {
    if constexpr (exponent == 1) {
      return y;
    } else {
      const Real half = FixedPower<exponent / 2>{}(y);
      return exponent % 2 == 0 ? half * half : half * half * y;
    }
  }

  // v/y for v = y^L.
  JEPA_ODE_INLINE Wide quotient([[maybe_unused]] Wide v, Wide y) const noexcept {
    if constexpr (exponent == 1) {
      return wide(1.0);
    } else {
      return FixedPower<exponent - 1>{}(y);
    }
  }
};

class WholePower {
 public:
  explicit WholePower(unsigned exponent) noexcept : exponent_(exponent) {}

  template <class Real>
  Real operator()(Real y) const noexcept {
    Real power = y;
    unsigned bit = 1;
    while (bit <= exponent_ / 2) bit *= 2;
    while (bit /= 2) power = (exponent_ & bit) != 0 ? power * power * y : power * power;
    return power;
  }

  Wide quotient(Wide v, Wide y) const noexcept { return v / y; }

 private:
  unsigned exponent_;
};

class RealPower {
 public:
  explicit RealPower(double exponent) noexcept : exponent_(exponent) {}

  Pack operator()(Pack y) const noexcept {
    for (std::size_t i = 0; i < lanes; ++i) y[i] = std::pow(y[i], exponent_);
    return y;
  }
  Wide operator()(Wide y) const noexcept { return {(*this)(y.low), (*this)(y.high)}; }

  Wide quotient(Wide v, Wide y) const noexcept { return v / y; }

 private:
  double exponent_;
};

// What is known of the trajectories at one of their points. With v = y^L one power serves both objectives:
//
//     JEPA   u' = u^(2L) (lambda - sigma^2 u)        y' = v^2 (a - b y)        (p, q) = (2L, 1)
//     MAE    u' = u^L (lambda - sigma^2 u^(L+1))     y' = v (a - b y v)        (p, q) = (L, L+1)
struct Point {
  Wide y;
  Wide v;       // y^L
  Wide slope;   // y'
  Wide growth;  // a y^(p-1), and
  Wide decay;   // b y^(2L): y'/y is their difference
};

// The right-hand sides of the features in their frames.
template <Objective objective, class Power>
struct FeatureOde {
  Power power;
  Wide a{};
  Wide b{};

  JEPA_ODE_INLINE Wide operator()(Wide y) const noexcept { return slope(y, power(y)); }

  JEPA_ODE_INLINE Wide slope(Wide y, Wide v) const noexcept {
    if constexpr (objective == Objective::jepa) {
      return v * v * (a - b * y);
    } else {
      return v * (a - b * (y * v));
    }
  }

  JEPA_ODE_INLINE Point at(Wide y) const noexcept {
    const Wide v = power(y);
    const Wide v_over_y = power.quotient(v, y);
    return {y, v, slope(y, v), objective == Objective::jepa ? a * (v * v_over_y) : a * v_over_y, b * (v * v)};
  }
};

// The powers of u(0) = eps^(1/L) that a frame needs; features that share their start share them.
struct Start {
  Start() = default;

  // All from eps itself, eps^2 = u(0)^(2L), so that the rounding of u(0), which the plateau of a deep encoder amplifies
  // (p - 1)-fold, enters once.
  Start(Objective objective, double depth, double eps) noexcept : response(scaled(eps)) {
    const Scaled w_over_u = response / exp(log(eps) / depth);
    growth = objective == Objective::jepa ? response * w_over_u : w_over_u;
    decay = response * response;
  }

  Scaled response{};  // eps
  Scaled growth{};    // u(0)^(p-1)
  Scaled decay{};     // u(0)^(2L)
};

// The frame: what relates y and its clock T to u, w and t. T = (t - start) * 2^clock_exponent.
class Frame {
 public:
  Frame() = default;

  Frame(const Start& start, double lambda, double sigma2) noexcept
      : response_(start.response), growth_(scaled(lambda) * start.growth), decay_(scaled(sigma2) * start.decay) {
    refresh();
  }

  // Makes the present size the new reference: y becomes 1. v = y^L.
  void move(Objective objective, double y, double v) noexcept {
    const double v_over_y = v / y;
    growth_ = growth_ * (objective == Objective::jepa ? scaled(v) * scaled(v_over_y) : scaled(v_over_y));
    decay_ = decay_ * scaled(v) * scaled(v);
    response_ = response_ * scaled(v);
    refresh();
  }

  double a() const noexcept { return a_; }
  double b() const noexcept { return b_; }

  std::int64_t clock_exponent() const noexcept { return clock_exponent_; }

  // w = response() * v where that and its multiples are ordinary doubles. Elsewhere `response(v)` knows w, and
  // response() is merely large or small.
  bool plain() const noexcept { return response_.exponent > -700 && response_.exponent < 700; }  // v is within 2^+-200
  double response() const noexcept { return plain_response_; }
  double response(double v) const noexcept {
    return plain() ? plain_response_ * v : Scaled{response_.mantissa * v, response_.exponent}.value();
  }

  // Whether w is still a double at y = 1.
  bool in_range() const noexcept { return response_.exponent <= std::numeric_limits<double>::max_exponent; }

 private:
  void refresh() noexcept {
    growth_ = normal(growth_);
    decay_ = normal(decay_);
    response_ = normal(response_);
    const bool growth_leads = decay_.mantissa == 0 || (growth_.mantissa != 0 && growth_.exponent > decay_.exponent);
    clock_exponent_ = growth_leads ? growth_.exponent : decay_.exponent;
    a_ = Scaled{growth_.mantissa, growth_.exponent - clock_exponent_}.value();
    b_ = Scaled{decay_.mantissa, decay_.exponent - clock_exponent_}.value();
    plain_response_ = std::min(response_.value(), 0x1p800);
  }

  static Scaled normal(Scaled x) noexcept {
    const Scaled mantissa = scaled(x.mantissa);
    return {mantissa.mantissa, mantissa.mantissa == 0 ? 0 : mantissa.exponent + x.exponent};
  }

  Scaled response_{};  // w_ref = u_ref^L
  Scaled growth_{};    // lambda u_ref^(p-1)
  Scaled decay_{};     // sigma^2 u_ref^(2L)
  std::int64_t clock_exponent_ = 0;
  double a_ = 0.0;
  double b_ = 0.0;
  double plain_response_ = 0.0;
};

// How far y may stray from 1 before the frame is moved: y^(2L+1) stays within 2^+-400.
inline double frame_radius(double depth) noexcept { return std::exp2(400 / (2 * depth + 1)); }

}  // namespace jepa_ode
