// The trajectory of one feature, exactly: T of the master curve, inverted (THEORY.md 3).
#pragma once

#include "jepa_ode/double_double.hpp"
#include "jepa_ode/master_curve.hpp"

namespace jepa_ode {

// One feature: w' = L (lambda w^(1 + (p-1)/L) - sigma^2 w^3), w(0) = eps. sigma2 > 0, eps > 0, lambda of any sign.
class FeatureCurve {
 public:
  FeatureCurve(const MasterCurve& curve, double lambda, double sigma2, double eps);

  double fixed_point() const noexcept { return fixed_point_; }  // w*, 0 for lambda <= 0
  double response(double t) const noexcept;                     // w(t), t >= 0 or inf
  double time_to_reach(double w) const noexcept;                // inf where never
  double time_to_fraction(double fraction) const noexcept;      // of w*, 0 if the start is past it, inf where never

 private:
  friend class FeatureSensitivity;  // differentiates the motions below

  enum class Motion { still, algebraic_decay, rise, fall, decay };

  struct Slope {
    double value;
    double derivative;  // with respect to the logarithmic coordinate named in the comment of the function
  };

  // A place on the way: how far from the start, or, where that is more accurate, from the fixed point.
  struct Position {
    bool near;        // to the fixed point
    double distance;  // near: |log v|, else |log(v/v0)|
  };

  double duration(DoubleDouble log_w) const noexcept;

  double rise(double t) const noexcept;
  Position locate_rise(double t) const noexcept;
  Slope rise_low(double xi) const noexcept;      // d/dxi, xi = log(v/v0), v <= 1/2
  Slope rise_high(double delta) const noexcept;  // d/dxi, delta = -log v, v > 1/2
  double solve_rise_low(double target) const noexcept;
  double solve_rise_high(double target) const noexcept;

  double fall(double t) const noexcept;
  Scaled fall_clock(double t) const noexcept;
  Position locate_fall(double log_clock) const noexcept;
  double fallen(double scaled_integral, Scaled target) const noexcept;
  double fall_duration(double scaled_integral, DoubleDouble log_w, double at_start) const noexcept;
  template <class Integral>
  double solve_fall_low(double log_target, double top, double sign, const Integral& integral) const noexcept;
  double solve_fall_high(double log_target) const noexcept;

  double decay(double t) const noexcept;
  DoubleDouble log_meeting() const noexcept;
  double decay_fast(Scaled target) const noexcept;
  Scaled decay_clock(double t) const noexcept;
  bool past_meeting(double log_clock) const noexcept;
  Scaled clock_since_meeting(Scaled target) const noexcept;
  double solve_decay_fast(double log_target) const noexcept;
  double decay_slow(double start, DoubleDouble log_w_start, Scaled clock) const noexcept;
  DoubleDouble solve_decay_slow(double start, Scaled clock) const noexcept;
  double decay_log_part(double start, double zeta) const noexcept;
  Slope decay_low(double start, double zeta) const noexcept;  // d/dzeta, zeta = log(start/v)

  const MasterCurve& curve_;
  Motion motion_;
  double lambda_, eps_;
  double fixed_point_ = 0.0;
  DoubleDouble log_eps_;
  DoubleDouble log_fixed_point_{};  // of |lambda| / sigma^2 for lambda < 0
  DoubleDouble log_start_{};        // log v0
  Scaled growth_rate_{};            // q |lambda| u0^(p-1)
  Scaled cubic_rate_{};             // sigma^2 u0^(2L) = sigma^2 eps^2
  Scaled decay_rate_{};             // q sigma^2 eps^2
  // rise: the terms of the master curve at the start, in its units
  double start_ = 0.0;          // v0
  double pole_scale_ = 0.0;     // v0^(-alpha)
  double log_scale_ = 0.0;      // v0^(log_index)
  double offset_ = 0.0;         // the value of the scaled curve at the start
  double middle_ = 0.0;         // and at v = 1/2
  double linear_offset_ = 0.0;  // value / v0^(-alpha) - log(v/(1-v)) as v -> 1
};

double fixed_point(const MasterCurve& curve, double lambda, double sigma2) noexcept;

}  // namespace jepa_ode
