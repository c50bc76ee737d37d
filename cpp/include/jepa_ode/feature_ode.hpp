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

#include <cmath>
#include <cstdint>
#include <limits>

#include "jepa_ode/double_double.hpp"
#include "jepa_ode/objective.hpp"

namespace jepa_ode {

// y^L. Whole depths by repeated squaring: cheaper than std::pow and the same on every platform.
class WholePower {
 public:
  explicit WholePower(unsigned exponent) noexcept : exponent_(exponent) {}

  double operator()(double y) const noexcept {
    double power = exponent_ % 2 == 1 ? y : 1.0;
    for (unsigned rest = exponent_ / 2; rest != 0; rest /= 2) {
      y *= y;
      if (rest % 2 == 1) power *= y;
    }
    return power;
  }

 private:
  unsigned exponent_;
};

class RealPower {
 public:
  explicit RealPower(double exponent) noexcept : exponent_(exponent) {}
  double operator()(double y) const noexcept { return std::pow(y, exponent_); }

 private:
  double exponent_;
};

// The right-hand side of one feature in one frame. With v = y^L one power serves both objectives:
//
//     JEPA   u' = u^(2L) (lambda - sigma^2 u)        y' = v^2 (a - b y)        (p, q) = (2L, 1)
//     MAE    u' = u^L (lambda - sigma^2 u^(L+1))     y' = v (a - b y v)        (p, q) = (L, L+1)
template <Objective objective, class Power>
struct FeatureOde {
  Power power;  // y^L
  double a = 0.0;
  double b = 0.0;

  double operator()(double y) const noexcept {
    const double v = power(y);
    if constexpr (objective == Objective::jepa) {
      return v * v * (a - b * y);
    } else {
      return v * (a - b * y * v);
    }
  }
};

// The frame: what relates y and its clock T to u, w and t. T = (t - start) * 2^clock_exponent.
class Frame {
 public:
  // u_ref = u(0) = eps^(1/L). Its powers follow from eps^2 = u_ref^(2L), so that the rounding of u_ref, which the
  // plateau of a deep encoder amplifies (p - 1)-fold, enters once.
  Frame(Objective objective, double depth, double lambda, double sigma2, double eps) noexcept
      : q_(exponents(objective, depth).q), response_(scaled(eps)) {
    const Scaled u = exp(log(eps) / depth);
    const Scaled w = response_;
    growth_ = scaled(lambda) * (objective == Objective::jepa ? w * (w / u) : w / u);
    decay_ = scaled(sigma2) * w * w;
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

  // u*/u_ref; 0 where the feature decays to nothing, inf where the fixed point is out of this frame's sight.
  double fixed_point() const noexcept { return fixed_point_; }

  std::int64_t clock_exponent() const noexcept { return clock_exponent_; }

  // w at v = y^L.
  double response(double v) const noexcept {
    return plain_response_ != 0 ? plain_response_ * v : Scaled{response_.mantissa * v, response_.exponent}.value();
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
    const double ratio = (growth_ / decay_).value();  // (u*/u_ref)^q
    fixed_point_ = !(a_ > 0) ? 0.0 : q_ == 1 ? ratio : std::pow(ratio, 1 / q_);
    const bool plain = response_.exponent > -700 && response_.exponent < 700;  // v is within 2^+-200
    plain_response_ = plain ? response_.value() : 0.0;
  }

  static Scaled normal(Scaled x) noexcept {
    const Scaled mantissa = scaled(x.mantissa);
    return {mantissa.mantissa, mantissa.mantissa == 0 ? 0 : mantissa.exponent + x.exponent};
  }

  double q_;
  Scaled response_;  // w_ref = u_ref^L
  Scaled growth_{};  // lambda u_ref^(p-1)
  Scaled decay_{};   // sigma^2 u_ref^(2L)
  std::int64_t clock_exponent_ = 0;
  double a_ = 0.0;
  double b_ = 0.0;
  double fixed_point_ = 0.0;
  double plain_response_ = 0.0;  // response_ where that and its multiples are ordinary doubles, else 0
};

// How far y may stray from 1 before the frame is moved: y^(2L+1) stays within 2^+-400.
inline double frame_radius(double depth) noexcept { return std::exp2(400 / (2 * depth + 1)); }

}  // namespace jepa_ode
