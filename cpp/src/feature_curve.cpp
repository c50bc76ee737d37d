#include "jepa_ode/feature_curve.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "jepa_ode/pack_math.hpp"

namespace jepa_ode {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double ln2 = 0x1.62e42fefa39efp-1;

// A last step of this size leaves less than a rounding of u (times sqrt(delta) near the fixed point, where the
// curvature is 1/delta).
double newton_tolerance(double alpha) noexcept { return 1e-9 / (1 + std::abs(alpha)); }

// The step to value + residual for a value that behaves like the power exp(alpha * x) / alpha: Newton on its logarithm.
double power_step(double residual, double value, double derivative) noexcept {
  return std::log1p(residual / value) * value / derivative;
}

struct Iterate {
  double residual;   // positive where the root lies above
  double step;       // how far the root is, to first order
  double next;       // the point that the step leads to
  double tolerance;  // a step that is the last one
};

// The root x >= 0 of a monotone function in [low, high], by Newton's iteration `evaluate` from a good guess: it
// converges quadratically. The bracket makes it safe where rounding makes the curve flat (a rise shorter than one
// rounding of the clock: every point of it is then within E of the answer).
template <class Evaluate>
double bracketed_newton(double x, double low, double high, Evaluate&& evaluate) noexcept {
  constexpr int max_iterations = 200;
  for (int k = 0; k < max_iterations; ++k) {
    const Iterate at = evaluate(x);
    if (at.residual == 0) break;
    (at.residual > 0 ? low : high) = x;
    if (std::abs(at.step) <= at.tolerance) return std::max(0.0, at.next);
    x = at.next > low && at.next < high ? at.next : low + (std::min(high, 2 * low + 1) - low) / 2;
  }
  return x;
}

// Where b does not fit a double, a is lost in its rounding.
Scaled plus(double a, Scaled b) noexcept {
  const double plain = b.value();
  return std::isfinite(plain) ? scaled(a + plain) : b;
}

// a - b, not below zero: both are clocks of which a is the later one up to rounding.
Scaled minus(Scaled a, double b) noexcept {
  const double plain = a.value();
  return std::isfinite(plain) ? scaled(std::max(0.0, plain - b)) : a;
}

}  // namespace

FeatureCurve::FeatureCurve(const MasterCurve& curve, double lambda, double sigma2, double eps)
    : curve_(curve), motion_(Motion::still), lambda_(lambda), eps_(eps), log_eps_(log(eps)) {
  const double depth = curve.depth, p = curve.p, q = curve.q;
  cubic_rate_ = scaled(sigma2) * scaled(eps) * scaled(eps);
  decay_rate_ = scaled(q) * cubic_rate_;
  if (lambda == 0) {
    motion_ = Motion::algebraic_decay;
    return;
  }
  const DoubleDouble log_ratio = log_quotient(std::abs(lambda), sigma2);  // of u*^q
  log_fixed_point_ = log_ratio * curve.depth_over_q;
  log_start_ = log_eps_ * curve.q_over_depth - log_ratio;
  growth_rate_ = scaled(q) * scaled(std::abs(lambda)) * exp(log_eps_ * (p - 1) / depth);
  if (lambda < 0) {
    motion_ = Motion::decay;
    return;
  }
  fixed_point_ = jepa_ode::fixed_point(curve, lambda, sigma2);
  start_ = exp(log_start_).value();
  if (log_start_.hi == 0) return;
  if (log_start_.hi > 0) {
    motion_ = Motion::fall;
    return;
  }
  motion_ = Motion::rise;
  pole_scale_ = exp(log_start_ * ((p - 1)) / q).value();
  log_scale_ = curve.log_index < 0 ? 0.0 : exp(log_start_ * static_cast<double>(curve.log_index)).value();
  linear_offset_ = curve.rise_polynomial_at_one - curve.rise_pole.constant();
  if (log_scale_ > 0) linear_offset_ += log_scale_ * curve.log_term(-log_start_.value()) / pole_scale_;
  middle_ = rise_high(ln2).value;
  if (start_ <= 0.5) {
    offset_ = rise_low(0.0).value;
  } else {
    const Slope at = rise_high(-log_start_.hi);  // at xi = -log_start_.lo: alpha times that is many roundings
    offset_ = at.value + at.derivative * log_start_.lo;
  }
}

double FeatureCurve::response(double t) const noexcept {
  if (t == 0) return eps_;
  if (t == infinity && motion_ != Motion::still) return fixed_point_;
  switch (motion_) {
    case Motion::still:
      return eps_;
    case Motion::algebraic_decay:
      // u' = -sigma^2 u^(2L+1): (eps/w)^2 = 1 + 2 L sigma^2 eps^2 t (THEORY.md 2)
      return fallen(1.0, plus(1.0, scaled(2 * curve_.depth) * cubic_rate_ * scaled(t)));
    case Motion::rise:
      return rise(t);
    case Motion::fall:
      return fall(t);
    case Motion::decay:
      return decay(t);
  }
  return std::numeric_limits<double>::quiet_NaN();
}

// ---- rise: lambda > 0, v0 < 1 -------------------------------------------------------------------------------------

FeatureCurve::Slope FeatureCurve::rise_low(double xi) const noexcept {
  // v0 alone may underflow where v does not
  const double v = start_ > 1e-290 ? start_ * std::exp(xi) : std::exp(log_start_.hi + xi);
  const double power = std::exp(curve_.alpha * xi);
  return {power * curve_.rise_series(v) + log_scale_ * curve_.log_term(xi), power / (1 - v)};
}

FeatureCurve::Slope FeatureCurve::rise_high(double delta) const noexcept {
  const double xi = (-log_start_.hi - delta) - log_start_.lo;
  const double v = std::exp(-delta), rest = -std::expm1(-delta);
  const double power = std::exp(curve_.alpha * xi);
  return {power * curve_.rise_polynomial(v) + log_scale_ * curve_.log_term(xi) +
              (pole_scale_ > 0 ? pole_scale_ * curve_.rise_pole.value(v, rest) : 0.0),
          power / rest};
}

double FeatureCurve::rise(double t) const noexcept {
  const Position at = locate_rise(t);
  const double depth_over_q = curve_.depth / curve_.q;
  const double w =
      at.near ? fixed_point_ * std::exp(-depth_over_q * at.distance) : eps_ * std::exp(depth_over_q * at.distance);
  return std::clamp(w, eps_, fixed_point_);  // the last rounding may leave the interval in which the root was bracketed
}

FeatureCurve::Position FeatureCurve::locate_rise(double t) const noexcept {
  const double target = offset_ + (growth_rate_ * scaled(t)).value();
  if (target == infinity) return {true, 0.0};
  if (start_ <= 0.5 && target < middle_) return {false, solve_rise_low(target)};
  return {true, solve_rise_high(target)};
}

double FeatureCurve::solve_rise_low(double target) const noexcept {
  const double alpha = curve_.alpha;
  const double top = -log_start_.value() - ln2;
  // Guess: the pure power law u' = lambda u^p. Where its term is the logarithmic one, 1/alpha is not part of the value.
  const double shift = curve_.has_power_law() || std::abs(alpha) < 1e-3 ? 0.0 : 1 / alpha;
  const bool power_law = curve_.has_power_law() || shift != 0;
  double guess = top;
  if (!power_law) {
    guess = target;
  } else if (target + shift < 0) {
    guess = std::log(alpha * (target + shift)) / alpha;
  }
  return bracketed_newton(std::clamp(guess, 0.0, top), 0.0, top, [&](double xi) -> Iterate {
    const Slope at = rise_low(xi);
    const double residual = target - at.value;
    const double value = at.value + shift;
    const double step = power_law && value < 0 && target + shift < 0 ? power_step(residual, value, at.derivative)
                                                                     : residual / at.derivative;
    return {residual, step, xi + step, newton_tolerance(alpha)};
  });
}

double FeatureCurve::solve_rise_high(double target) const noexcept {
  const double alpha = curve_.alpha;
  const double top = std::min(ln2, -log_start_.value());
  double guess = top;
  // Past the rise the curve is linear in kappa = log(v/(1-v)), with slope v0^(-alpha).
  if (target > 0) {
    const double kappa = target / pole_scale_ - linear_offset_;
    if (!(kappa < 745)) return 0.0;  // 1 - v is below the smallest double
    if (kappa > 0) guess = std::min(top, std::log1p(std::exp(-kappa)));
  }
  return bracketed_newton(guess, 0.0, top, [&](double delta) -> Iterate {
    const Slope at = rise_high(delta);
    const double residual = target - at.value;  // the value falls with delta
    const double tolerance = newton_tolerance(alpha) * std::sqrt(std::min(1.0, delta));
    if (at.value < -pole_scale_ && target < -pole_scale_) {
      const double step = power_step(residual, at.value, at.derivative);
      return {-residual, step, delta - step, tolerance};
    }
    // Newton in kappa: d value/d kappa = (d value/d xi) (1 - v), and v/(1-v) = 1/expm1(delta)
    const double step = residual / at.derivative;
    return {-residual, step, std::log1p(std::expm1(delta) * std::exp(step / std::expm1(-delta))), tolerance};
  });
}

// ---- fall: lambda > 0, v0 > 1, in m = 1/v --------------------------------------------------------------------------

double FeatureCurve::fall(double t) const noexcept {
  const Scaled clock = fall_clock(t);
  const Position at = locate_fall(log(clock).value());
  if (!at.near) {
    const double m = std::exp(at.distance - log_start_.value());
    return fallen(curve_.fall.scaled(m, 1 - m), clock);
  }
  // w*, and the way from it in a deep encoder, may be out of a double's range where w is not.
  const double log_w = curve_.depth / curve_.q * at.distance;
  if (log_w > 1) return fallen(curve_.fall.scaled(std::exp(-at.distance), -std::expm1(-at.distance)), clock);
  return std::clamp(fixed_point_ * std::exp(log_w), fixed_point_, eps_);
}

// exp(beta zeta) k(m) = k(m0) + q sigma^2 eps^2 t, with zeta = log(m/m0) and k the scaled integral
Scaled FeatureCurve::fall_clock(double t) const noexcept {
  const double m0 = exp(-log_start_).value(), gap = -std::expm1(-log_start_.value());
  return plus(curve_.fall.scaled(m0, gap), decay_rate_ * scaled(t));
}

FeatureCurve::Position FeatureCurve::locate_fall(double log_clock) const noexcept {
  const double log_start = log_start_.value();
  const double log_middle = curve_.beta * (log_start - ln2) + std::log(curve_.fall.scaled(0.5, 0.5));
  if (log_start > ln2 && log_clock < log_middle) {
    const auto integral = [this](double m) noexcept { return curve_.fall.scaled(m, 1 - m); };
    return {false, solve_fall_low(log_clock, log_start - ln2, -1.0, integral)};
  }
  return {true, solve_fall_high(log_clock)};
}

// w from exp(beta zeta) k = target, in which exp(beta zeta) = (eps/w)^2: no rounding of zeta enters.
double FeatureCurve::fallen(double scaled_integral, Scaled target) const noexcept {
  const bool odd = target.exponent % 2 != 0;
  const double ratio = std::sqrt(scaled_integral / (odd ? 2 * target.mantissa : target.mantissa));
  const Scaled w = scaled(eps_) * Scaled{ratio, -(target.exponent - odd) / 2};
  return std::min(eps_, w.value());
}

// zeta from beta zeta + log k(m) = log_target, m = m0 exp(zeta) up to `top`; sign is that of the pole: 1 -+ m.
template <class Integral>
double FeatureCurve::solve_fall_low(double log_target, double top, double sign,
                                    const Integral& integral) const noexcept {
  const double beta = curve_.beta, log_start = log_start_.value();
  const double guess = std::clamp((log_target + std::log(beta)) / beta, 0.0, top);
  return bracketed_newton(guess, 0.0, top, [&](double zeta) -> Iterate {
    const double m = std::exp(zeta - log_start);  // m0 alone may underflow
    const double k = integral(m);
    const double residual = log_target - (beta * zeta + std::log(k));
    const double step = residual * (1 + sign * m) * k;
    return {residual, step, zeta + step, newton_tolerance(beta)};
  });
}

double FeatureCurve::solve_fall_high(double log_target) const noexcept {
  const double beta = curve_.beta;
  const double log_natural = log_target - beta * log_start_.value();  // log K(m)
  const double natural = std::exp(log_natural);
  if (natural > 800 + beta) return 0.0;  // K < 745 - gamma wherever 1 - m is a double
  const double top = std::min(ln2, log_start_.value());
  const double guess = natural > 1 ? std::min(top, std::exp(-natural)) : top;
  return bracketed_newton(guess, 0.0, top, [&](double delta) -> Iterate {  // delta = -log m
    const double gap = -std::expm1(-delta), power = std::exp(-beta * delta);
    const double k = curve_.fall.scaled(std::exp(-delta), gap);
    const double residual = log_natural - (std::log(k) - beta * delta);  // K falls with delta; power may underflow
    const double tolerance = newton_tolerance(beta) * std::sqrt(std::min(1.0, delta));
    if (k * power < 1) {
      const double step = residual * gap * k;
      return {-residual, step, delta - step, tolerance};
    }
    const double step = (natural - k * power) * gap / power;
    return {-residual, step, std::log1p(std::expm1(delta) * std::exp(-step / gap)), tolerance};
  });
}

// ---- decay: lambda < 0 ---------------------------------------------------------------------------------------------

double FeatureCurve::decay(double t) const noexcept {
  if (log_start_.hi > -ln2) return decay_fast(decay_clock(t));
  return decay_slow(exp(log_start_).value(), log_eps_, growth_rate_ * scaled(t));
}

// As fall_clock(), with the alternating integral.
Scaled FeatureCurve::decay_clock(double t) const noexcept {
  return plus(curve_.decay_fast.scaled(exp(-log_start_).value()), decay_rate_ * scaled(t));
}

// log w where v = 1/2. There the two phases of a decay meet: closer to 1 the alternating terms of a deep encoder
// cancel.
DoubleDouble FeatureCurve::log_meeting() const noexcept { return log_fixed_point_ - detail::ln2 * curve_.depth_over_q; }

bool FeatureCurve::past_meeting(double log_clock) const noexcept {
  return log_clock >= curve_.beta * (log_start_.value() + ln2) + std::log(curve_.decay_fast.scaled(2.0));
}

// In the units of a start at v = 1/2: q |lambda| u^(p-1) is 2 q sigma^2 u^(2L) there.
Scaled FeatureCurve::clock_since_meeting(Scaled clock) const noexcept {
  return scaled(2.0) * minus(clock * exp(-(log_start_ + detail::ln2) * curve_.beta), curve_.decay_fast.scaled(2.0));
}

// Down to v = 1/2: m = 1/v rises from m0 towards 2, as in fall() but with the alternating integral.
double FeatureCurve::decay_fast(Scaled clock) const noexcept {
  const double log_clock = log(clock).value();
  if (past_meeting(log_clock)) return decay_slow(0.5, log_meeting(), clock_since_meeting(clock));
  return fallen(curve_.decay_fast.scaled(std::exp(solve_decay_fast(log_clock) - log_start_.value())), clock);
}

double FeatureCurve::solve_decay_fast(double log_clock) const noexcept {
  const auto integral = [this](double m) noexcept { return curve_.decay_fast.scaled(m); };
  return solve_fall_low(log_clock, log_start_.value() + ln2, 1.0, integral);
}

double FeatureCurve::decay_log_part(double start, double zeta) const noexcept {
  if (curve_.log_index < 0) return 0.0;
  const double scale = std::pow(start, curve_.log_index);
  return (curve_.log_index % 2 ? scale : -scale) * curve_.log_term(-zeta);
}

FeatureCurve::Slope FeatureCurve::decay_low(double start, double zeta) const noexcept {
  const double v = start * std::exp(-zeta);
  const double power = std::exp(-curve_.alpha * zeta);
  return {-power * curve_.decay_series(v) + decay_log_part(start, zeta), power / (1 + v)};
}

double FeatureCurve::decay_slow(double start, DoubleDouble log_w_start, Scaled clock) const noexcept {
  return exp(log_w_start - solve_decay_slow(start, clock) * curve_.depth_over_q).value();
}

// v <= 1/2: the term with lambda rules; `clock` is q |lambda| u^(p-1) t, u and t taken from the start of this phase.
// log(start/v).
DoubleDouble FeatureCurve::solve_decay_slow(double start, Scaled clock) const noexcept {
  const double rate = -curve_.alpha;
  // Where the power law is the logarithmic term, 1/rate completes exp(rate zeta)/rate.
  const double shift = curve_.has_power_law() || rate < 1e-3 ? 0.0 : 1 / rate;
  const bool power_law = curve_.has_power_law() || shift != 0;
  const double start_value = decay_low(start, 0.0).value;
  const auto series = [&](double zeta) noexcept { return shift - curve_.decay_series(start * std::exp(-zeta)); };
  if (clock.value() > 1e290) {           // all but exp(rate zeta) * series = clock is lost in rounding
    if (!power_law) return {1e13, 0.0};  // w underflows
    const double log_clock = log(clock).value();
    const double guess = (log_clock + std::log(rate)) / rate;
    const double zeta = bracketed_newton(guess, 0.0, infinity, [&](double x) -> Iterate {
      const double residual = log_clock - (rate * x + std::log(series(x)));
      const double step = residual * (1 + start * std::exp(-x)) * series(x);
      return {residual, step, x + step, newton_tolerance(rate) * (1 + x)};
    });
    return (log(clock) - log(series(zeta))) * curve_.q / (curve_.p - 1);
  }
  const double target = start_value + clock.value();
  const double guess = rate > 0 ? std::log1p(rate * clock.value()) / rate : clock.value();
  const double zeta = bracketed_newton(guess, 0.0, infinity, [&](double x) -> Iterate {
    const Slope at = decay_low(start, x);
    const double residual = target - at.value;
    const double value = at.value + shift;
    const double step = power_law && value > 0 && target + shift > 0 ? power_step(residual, value, at.derivative)
                                                                     : residual / at.derivative;
    return {residual, step, x + step, newton_tolerance(rate) * (1 + x)};
  });
  if (rate * zeta < 4 || !power_law) return {zeta, 0.0};
  // u ~ t^(-1/(p-1)): zeta is long while E forgives little. Solve for the power law once more, the slow terms known.
  const double slow = shift != 0 ? -shift : decay_log_part(start, zeta);
  return (log(target - slow) - log(series(zeta))) * curve_.q / (curve_.p - 1);
}

// ---- times ---------------------------------------------------------------------------------------------------------

double FeatureCurve::time_to_reach(double w) const noexcept {
  if (w == eps_) return 0.0;
  if (!(w > 0) || w == infinity) return infinity;
  return duration(log(w));
}

double FeatureCurve::time_to_fraction(double fraction) const noexcept {
  if (!(lambda_ > 0)) return infinity;
  const DoubleDouble log_w = log_fixed_point_ + log(fraction);
  if ((log_eps_ - log_w).hi >= 0) return 0.0;
  return duration(log_w);
}

double FeatureCurve::duration(DoubleDouble log_w) const noexcept {
  const DoubleDouble log_growth = (log_w - log_eps_) * curve_.q_over_depth;  // of v
  const DoubleDouble log_v = log_start_ + log_growth;
  const double growth = log_growth.value();
  switch (motion_) {
    case Motion::still:
      return infinity;
    case Motion::algebraic_decay: {
      if (growth >= 0) return infinity;
      const Scaled rate = scaled(2 * curve_.depth) * cubic_rate_;
      const DoubleDouble exponent = (log_eps_ - log_w) * 2.0;
      if (exponent.hi < 1) return (scaled(std::expm1(exponent.value())) / rate).value();
      return (minus(exp(exponent), 1.0) / rate).value();
    }
    case Motion::rise: {
      const double delta = -log_v.value();
      if (growth <= 0 || delta <= 0) return infinity;
      const double value = delta > ln2 ? rise_low(growth).value : rise_high(delta).value;
      return (scaled(std::max(0.0, value - offset_)) / growth_rate_).value();
    }
    case Motion::fall: {
      const double delta = log_v.value();
      if (growth >= 0 || delta <= 0) return infinity;
      return fall_duration(curve_.fall.scaled(std::exp(-delta), -std::expm1(-delta)), log_w,
                           curve_.fall.scaled(exp(-log_start_).value(), -std::expm1(-log_start_.value())));
    }
    case Motion::decay: {
      if (growth >= 0) return infinity;
      if (log_start_.hi <= -ln2) {
        const double start = exp(log_start_).value();
        const double value = decay_low(start, -growth).value - decay_low(start, 0.0).value;
        return (scaled(std::max(0.0, value)) / growth_rate_).value();
      }
      const double at_start = curve_.decay_fast.scaled(exp(-log_start_).value());
      const DoubleDouble below = log_v + detail::ln2;  // log(v / (1/2))
      if (below.hi >= 0) return fall_duration(curve_.decay_fast.scaled(exp(-log_v).value()), log_w, at_start);
      const double value = decay_low(0.5, -below.value()).value - decay_low(0.5, 0.0).value;
      const Scaled rate = scaled(curve_.q) * scaled(-lambda_) * exp(log_meeting() * (curve_.p - 1) / curve_.depth);
      return fall_duration(curve_.decay_fast.scaled(2.0), log_meeting(), at_start) +
             (scaled(std::max(0.0, value)) / rate).value();
    }
  }
  return infinity;
}

// Time from the start down to w while the cubic term rules: ((eps/w)^2 k(m) - k(m0)) / (q sigma^2 eps^2).
double FeatureCurve::fall_duration(double scaled_integral, DoubleDouble log_w, double at_start) const noexcept {
  const Scaled value = minus(scaled(scaled_integral) * exp((log_eps_ - log_w) * 2.0), at_start);
  return std::max(0.0, (value / decay_rate_).value());
}

double fixed_point(const MasterCurve& curve, double lambda, double sigma2) noexcept {
  if (lambda <= 0) return 0.0;
  if (ordinary(lambda) && ordinary(sigma2) && ordinary(lambda / sigma2)) {  // as motion.cpp takes it, to the last bit
    const PackPair log_w = log_quotient(pack(lambda), pack(sigma2)) * curve.depth_over_q;
    if (std::abs(log_w.hi[0]) < largest_exponent) return exp(log_w)[0];
  }
  return exp(log_quotient(lambda, sigma2) * curve.depth_over_q).value();
}

}  // namespace jepa_ode
