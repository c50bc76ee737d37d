#include "jepa_ode/master_curve.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>

#include "jepa_ode/power_series.hpp"

namespace jepa_ode {

namespace {

// alpha and the indices that split sum_n v^(n + alpha)/(n + alpha) into P, the logarithmic term and K.
struct Split {
  double alpha;
  int log_index;   // -1: none
  int pole_index;  // first n with n + alpha >= 1/4
};

Split split(Exponents e) {
  const double alpha = (1 - e.p) / e.q;
  if (!(-alpha < 4e6)) throw std::invalid_argument("the exact method takes JEPA encoders up to depth 2,000,000");
  const int nearest = static_cast<int>(std::nearbyint(-alpha));
  const double distance = nearest + alpha;
  if (std::abs(distance) < 0.25) return {alpha, nearest, nearest + 1};
  return {alpha, -1, static_cast<int>(std::ceil(0.25 - alpha))};
}

std::vector<double> reciprocals(int count, double alpha, int skip, bool alternating) {
  std::vector<double> c(static_cast<std::size_t>(count));
  for (int n = 0; n < count; ++n) {
    c[static_cast<std::size_t>(n)] = n == skip ? 0.0 : (alternating && n % 2 ? -1.0 : 1.0) / (n + alpha);
  }
  return c;
}

}  // namespace

// Beyond the radius, the constant and the logarithm of near_pole would cancel to much less than either.
PoleIntegral::PoleIntegral(double g) : g_(g), pole_radius_(g <= 1.25 ? std::min(0.5, 1 / (g + 1)) : 0.5 / (g + 1)) {
  const double reach = series_suffice() ? 1 - pole_radius_ : 0.5;
  at_zero_ = reciprocals(static_cast<int>(std::ceil(-series_terms * std::log(2.0) / std::log(reach))), g, -1, false);
  // (1 - z)^(g-1) = sum_k (1-g)_k z^k / k!, so integral_0^z (1 - (1-s)^(g-1))/s ds = - sum_(k >= 1) (1-g)_k z^k / (k!
  // k). Inside the radius the terms fall at least like 2^-k.
  double binomial = 1.0;
  at_pole_.push_back(0.0);
  for (int k = 1; k <= series_terms; ++k) {
    binomial *= (k - g) / k;
    at_pole_.push_back(-binomial / k);
  }
  const double z = pole_radius_;
  const double reference =
      std::pow(1 - z, g_) * (series_suffice() ? polynomial(at_zero_, 1 - z) : continued_fraction(1 - z));
  constant_ = -std::log(z) + polynomial(at_pole_, z) - reference;
}

double PoleIntegral::near_pole(double z) const noexcept {
  // The coefficients are below 1 for g <= 1.25; beyond, the terms fall with g z, not with z.
  return (g_ <= 1.25 ? series(at_pole_, z) : polynomial(at_pole_, z)) - std::log(z) - constant_;
}

// v^(-g) B_v(g, 0) between the two series, by the continued fraction of the incomplete beta function (DLMF 8.17.22 with
// b = 0); only reached for g > 1. The modified Lentz algorithm tells how many terms are needed. Its product of ratios
// collects a rounding from each, so the value is taken backwards.
double PoleIntegral::continued_fraction(double v) const noexcept {
  const auto odd = [&](double m) noexcept {  // the coefficients, two at a time
    const double a = g_ + 2 * m;
    return -(g_ + m) * (g_ + m) * v / (a * (a + 1));
  };
  const auto even = [&](double m) noexcept {
    const double a = g_ + 2 * m;
    return -(m + 1) * (m + 1) * v / ((a + 1) * (a + 2));
  };
  double c = 1.0, d = 0.0, step = 0.0;
  const auto lentz = [&](double coefficient) noexcept {
    d = 1 / (1 + coefficient * d);
    c = 1 + coefficient / c;
    step = c * d;
  };
  int terms = 0;
  while (std::abs(step - 1) >= std::numeric_limits<double>::epsilon() / 2 && terms < 1000) {
    lentz(odd(terms));
    lentz(even(terms));
    ++terms;
  }
  double fraction = 1.0;
  for (int m = terms; m-- > 0;) fraction = 1 + odd(m) / (1 + even(m) / fraction);
  return 1 / (g_ * fraction);
}

double PoleIntegral::scaled(double v, double one_minus_v) const noexcept {
  if (v <= 0.5) return series(at_zero_, v);
  if (one_minus_v <= pole_radius_) return near_pole(one_minus_v) * std::pow(v, -g_);
  return series_suffice() ? polynomial(at_zero_, v) : continued_fraction(v);
}

double PoleIntegral::value(double v, double one_minus_v) const noexcept {
  if (v > 0.5 && one_minus_v <= pole_radius_) return near_pole(one_minus_v);
  return std::pow(v, g_) * scaled(v, one_minus_v);
}

// With s = v/(1 + v) <= 2/3 the integral is B_s(g, 1 - g), and Euler's transformation (DLMF 15.8.1) gives a series of
// positive terms: v^(-g) times it is (1 - s)/g * sum_k k!/(g+1)_k s^k.
AlternatingIntegral::AlternatingIntegral(double g) {
  double c = 1 / g;
  for (int k = 0; k < 100; ++k) {  // (2/3)^100 = 2^-58
    coefficients_.push_back(c);
    c *= (k + 1) / (g + 1 + k);
  }
}

double AlternatingIntegral::scaled(double v) const noexcept {
  const double s = v / (1 + v);
  return (s > 0.5 ? polynomial(coefficients_, s) : series(coefficients_, s)) / (1 + v);
}

MasterCurve::MasterCurve(Objective objective, double depth_)
    : depth(depth_),
      p(exponents(objective, depth_).p),
      q(exponents(objective, depth_).q),
      alpha(split({p, q}).alpha),
      beta(1 - alpha),
      depth_over_q(objective == Objective::jepa ? DoubleDouble{depth_, 0.0}
                                                : DoubleDouble{depth_, 0.0} / two_sum(depth_, 1.0)),
      q_over_depth(DoubleDouble{1.0, 0.0} / depth_ + DoubleDouble{objective == Objective::jepa ? 0.0 : 1.0, 0.0}),
      precise_alpha((q_over_depth - DoubleDouble{2.0, 0.0}) * depth_over_q),  // p - 1 = 2 L - q
      log_index(split({p, q}).log_index),
      log_exponent(log_index < 0 ? 0.0 : log_index + alpha),
      pole_index(split({p, q}).pole_index),
      rise_pole(pole_index + alpha),
      fall(beta),
      decay_fast(beta),
      rise_series_(reciprocals(series_terms, alpha, log_index, false)),
      rise_polynomial_(reciprocals(pole_index, alpha, log_index, false)),
      decay_polynomial_(reciprocals(pole_index, alpha, log_index, true)),
      decay_rest_(pole_index + alpha) {
  rise_polynomial_at_one = compensated_polynomial(rise_polynomial_, 1.0);
}

bool MasterCurve::serves_packs() const noexcept {
  return fall.series_suffice() && (log_index < 0 || log_exponent == 0);
}

Pack MasterCurve::rise_polynomial(Pack v) const noexcept {
  Pack sum{};
  for (std::size_t n = rise_polynomial_.size(); n-- > 0;) sum = fma(sum, v, pack(rise_polynomial_[n]));
  return sum;
}

double MasterCurve::log_term(double xi) const noexcept {
  if (log_index < 0) return 0.0;
  return log_exponent == 0.0 ? xi : std::expm1(log_exponent * xi) / log_exponent;
}

double MasterCurve::rise_series(double v) const noexcept { return series(rise_series_, v); }

double MasterCurve::rise_polynomial(double v) const noexcept { return compensated_polynomial(rise_polynomial_, v); }

double MasterCurve::decay_series(double v) const noexcept {
  const double rest = std::pow(v, pole_index) * decay_rest_.scaled(v);
  return polynomial(decay_polynomial_, v) + (pole_index % 2 ? -rest : rest);
}

}  // namespace jepa_ode
