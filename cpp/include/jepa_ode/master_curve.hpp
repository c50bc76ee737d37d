// The master curve of an (objective, depth): the antiderivative T of THEORY.md 3 and its inverse.
//
// Notation. x = u/u* is the per-layer variable in units of its fixed point and v = x^q. With alpha = (1 - p)/q <= 0,
//
//     q T = integral v^(alpha - 1) / (1 -+ v) dv        (- for lambda > 0, + for lambda < 0),
//
// and the three ways in which a feature can move are three integrals whose integrands have one sign:
//
//     rise    lambda > 0, v < 1:   v grows to 1      sum_n v^(n + alpha) / (n + alpha),        n = 0, 1, ...
//     fall    lambda > 0, v > 1:   m = 1/v grows to 1     sum_n m^(n + beta) / (n + beta),     beta = 1 - alpha
//     decay   lambda < 0:          v falls to 0      the same two with alternating signs
//
// The exponent n + alpha that lies within 1/4 of zero (at most one does) is the logarithmic case of T: its term is
// taken as the difference expm1((n + alpha) xi) / (n + alpha), which is xi in the limit, so whole and real depths need
// no distinction. Terms with n + alpha < 0 make the polynomial P, those above the function K of the classes below.
//
// Everything is scaled by the start: xi = log(v/v0), time in units of 1/(q |lambda| u0^(p-1)). Then nothing overflows
// for deep encoders, and the residual of Newton's iteration is as accurate as the clock (E of THEORY.md 3).
#pragma once

#include <vector>

#include "jepa_ode/double_double.hpp"
#include "jepa_ode/objective.hpp"
#include "jepa_ode/pack.hpp"

namespace jepa_ode {

// K(v) = integral_0^v s^(g-1) / (1 - s) ds, the incomplete beta function B_v(g, 0), for g > 0 and 0 <= v < 1.
class PoleIntegral {
 public:
  explicit PoleIntegral(double g);

  double scaled(double v, double one_minus_v) const noexcept;  // v^(-g) K(v), finite at v = 0
  double value(double v, double one_minus_v) const noexcept;   // K(v)
  double constant() const noexcept { return constant_; }       // lim -log(1 - v) - K(v), v -> 1

  // For tables: g, the series of near_pole and how far it reaches.
  double exponent() const noexcept { return g_; }
  const std::vector<double>& at_pole() const noexcept { return at_pole_; }
  double pole_radius() const noexcept { return pole_radius_; }

  // Whether the series at 0 meets near_pole after a reasonable number of terms.
  bool series_suffice() const noexcept { return g_ <= largest_series_; }

 private:
  // Up to here the series at 0, taken far enough to meet near_pole, is cheaper than the continued fraction.
  static constexpr double largest_series_ = 17.0;

  double near_pole(double z) const noexcept;  // K(1 - z)
  double continued_fraction(double v) const noexcept;

  double g_;
  double pole_radius_;           // near_pole converges fast and without cancellation for z below it
  double constant_ = 0.0;        // digamma(g) + Euler's gamma
  std::vector<double> at_zero_;  // 1/(n + g)
  std::vector<double> at_pole_;  // of integral_0^z (1 - (1 - s)^(g-1)) / s ds
};

// v^(-g) integral_0^v s^(g-1) / (1 + s) ds for g > 0 and 0 <= v <= 2.
class AlternatingIntegral {
 public:
  explicit AlternatingIntegral(double g);

  double scaled(double v) const noexcept;

 private:
  std::vector<double> coefficients_;
};

class MasterCurve {
 public:
  MasterCurve(Objective objective, double depth);

  double depth;
  double p;
  double q;
  double alpha;  // (1 - p)/q
  double beta;   // 1 - alpha
  // L/q, q/L and alpha, exact before they are rounded: they multiply logarithms of any size.
  DoubleDouble depth_over_q;
  DoubleDouble q_over_depth;
  DoubleDouble precise_alpha;

  // The logarithmic term: its index n and exponent n + alpha; index -1 if no exponent lies within 1/4 of zero.
  int log_index;
  double log_exponent;
  bool has_power_law() const noexcept { return log_index != 0; }  // p - 1 not small: T ~ x^(1-p)/(1-p)

  int pole_index;  // first n with n + alpha >= 1/4

  // (v^e - 1)/e at v = exp(xi), e the exponent of the logarithmic term; 0 where there is none.
  double log_term(double xi) const noexcept;

  // v^(-alpha) times the sum of all rising terms but the logarithmic one, 0 <= v <= 1/2.
  double rise_series(double v) const noexcept;

  // The same sum near v = 1, as v^alpha * rise_polynomial(v) + rise_pole.value(v, 1 - v).
  double rise_polynomial(double v) const noexcept;
  PoleIntegral rise_pole;
  double rise_polynomial_at_one;

  PoleIntegral fall;  // exponent beta

  // Whether packs of starts are to be had (curve_table.hpp), and of them v^alpha times the polynomial.
  bool serves_packs() const noexcept;
  Pack rise_polynomial(Pack v) const noexcept;

  // v^(-alpha) times the sum of all alternating terms but the logarithmic one, 0 <= v <= 1/2.
  double decay_series(double v) const noexcept;
  AlternatingIntegral decay_fast;  // exponent beta, for v >= 1/2 in m = 1/v

 private:
  std::vector<double> rise_series_;
  std::vector<double> rise_polynomial_;  // n < pole_index
  std::vector<double> decay_polynomial_;
  AlternatingIntegral decay_rest_;
};

}  // namespace jepa_ode
