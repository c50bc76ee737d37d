// Derivatives of a response with respect to lambda, sigma^2, eps and t, exactly (THEORY.md 3).
//
// Notation of master_curve.hpp. The variational equation of u' = f(u) is solved by f itself, so (variation of
// constants)
//
//     du/dlambda  =   f(u) integral_u0^u s^p     / f(s)^2 ds
//     du/dsigma^2 = - f(u) integral_u0^u s^(p+q) / f(s)^2 ds          du/deps = (f(u)/f(u0)) du0/deps
//
// whose integrands have one sign: nothing cancels, however early or late. In v and xi = log(v/v0) they are
//
//     clock       integral exp(alpha xi) / (1 -+ v) dxi       which is q |lambda| u0^(p-1) t
//     variation   integral exp(alpha xi) v / (1 -+ v)^2 dxi   of sigma^2 for a rise (-) and a slow decay (+)
//
// and, for a fall and a fast decay, the same with m = 1/v and beta in the places of v and alpha, of lambda. The
// variation of the other parameter is clock +- variation: time scales with 1/lambda and 1/sigma^2 together. With the
// decline D = (1 -+ v) exp(-alpha xi), the factor by which two trajectories have approached each other up to that at
// the start, all logarithmic derivatives of w are L/q times D times one of the three.
#pragma once

#include <cstddef>
#include <vector>

#include "jepa_ode/double_double.hpp"
#include "jepa_ode/ensemble.hpp"
#include "jepa_ode/feature_curve.hpp"
#include "jepa_ode/master_curve.hpp"
#include "jepa_ode/parallel.hpp"

namespace jepa_ode {

// The integrals of the variation: what T of the master curve is to the clock.
class VariationCurve {
 public:
  explicit VariationCurve(const MasterCurve& curve);

  const MasterCurve& master() const noexcept { return master_; }

  // Rise: G(v) = sum_n n v^(n + alpha)/(n + alpha), n = 1, 2, ..., but the logarithmic term, scaled: v^(-alpha - 1) G
  // for v <= 1/2, and (1 - v) v^(-alpha) G for v >= 1/2, delta = -log v.
  double rise_low(double v) const noexcept;
  double rise_high(double delta) const noexcept;
  // The logarithmic term with its factor n.
  double log_term(double xi) const noexcept {
    return master_.log_index > 0 ? master_.log_index * master_.log_term(xi) : 0.0;
  }

  // Fall: (1 - m) m^(-g) integral_0^m s^(g-1) / (1 - s)^2 ds, g = beta + 1.
  double fall(double m, double gap) const noexcept;

  // Decay: as rise_low, with alternating signs, for v <= 1/2; m^(-g) integral_0^m s^(g-1) / (1 + s)^2 ds for m <= 2.
  double decay_slow(double v) const noexcept;
  double decay_fast(double m) const noexcept;

 private:
  double continued_fraction(double m) const noexcept;

  const MasterCurve& master_;
  double g_;
  PoleIntegral fall_pole_;
  AlternatingIntegral decay_rest_;
  std::vector<double> rise_series_, rise_polynomial_, decay_polynomial_, fall_series_, decay_fast_;
};

struct Sensitivity {
  double lambda, sigma2, eps, t;  // dw/dlambda, ...; inf where it is too large for a double
};

// The sensitivities of one feature: sigma2 > 0, eps > 0, lambda of any sign.
class FeatureSensitivity {
 public:
  FeatureSensitivity(const VariationCurve& variation, double lambda, double sigma2, double eps);

  Sensitivity at(double t) const noexcept;  // t >= 0 or inf

 private:
  using Motion = FeatureCurve::Motion;

  // Where the feature is; everything but w in units of the start, as D times the quantity.
  struct Point {
    Scaled response;   // w
    Scaled start;      // dlog w/dlog eps
    Scaled rate;       // of the clock
    Scaled variation;  // of the parameter that rules less: sigma^2 in a rise or a slow decay, else lambda
    Scaled other;      // of the other one
    bool fast;         // lambda rules less
  };

  Point locate(double t) const noexcept;
  Point early_approach(Scaled clock) const noexcept;
  Point early_decay(Scaled clock) const noexcept;
  FeatureCurve::Position refined(FeatureCurve::Position at, double t) const noexcept;
  Point rise(double t) const noexcept;
  Point fall(double t) const noexcept;
  Point decay(double t) const noexcept;
  Point slow_decay(DoubleDouble log_start, DoubleDouble log_w_start, Scaled clock, Scaled before) const noexcept;
  Point decay_past_meeting(Scaled clock, double t) const noexcept;
  Sensitivity limit() const noexcept;
  Sensitivity still(double t) const noexcept;
  Sensitivity algebraic_decay(double t) const noexcept;

  const VariationCurve& variation_;
  const MasterCurve& curve_;
  FeatureCurve feature_;
  double lambda_, sigma2_, eps_;
  bool fast_ = false;   // starts above the fixed point, or where sigma^2 rules: m counts, not v
  double exponent_{};   // of the ratio of v (or m) to its start in the integrand of the clock
  Scaled rate_{};       // of the clock
  Scaled start_{};      // v0 or m0
  double gap_{};        // 1 - start
  double early_end_{};  // up to here, in k or y, quadrature is better than the difference of two antiderivatives
  double early_clock_{};
  Scaled start_sum_{};  // the variation's scaled antiderivative at the start
  Scaled fixed_point_{};
  Scaled start_power_{};      // v0^alpha
  Scaled start_log_scale_{};  // of the logarithmic term, v0^log_index
};

// Arrays [features x times], each one of the derivatives. `times` is one row of n_times, or one row per feature.
struct Sensitivities {
  double* lambda;
  double* sigma2;
  double* eps;
  double* t;
};

void solve_sensitivities(const MasterCurve& curve, const Ensemble& features, const double* times, std::size_t n_times,
                         bool row_per_feature, unsigned threads, Interrupt& interrupt, const Sensitivities& out);

}  // namespace jepa_ode
