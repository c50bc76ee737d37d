#include "jepa_ode/sensitivity.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "jepa_ode/power_series.hpp"

namespace jepa_ode {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// Series whose coefficients grow like n: these bits more than `series` keeps pay for it.
constexpr int growing_series_bits = 72;

double growing_series(const std::vector<double>& coefficients, double x) noexcept {
  return polynomial(coefficients, x, terms_that_count(x, growing_series_bits));
}

// n/(n + alpha) for n = 1, ..., count, 0 at the logarithmic term.
std::vector<double> rise_coefficients(int count, const MasterCurve& curve, bool alternating) {
  std::vector<double> c(static_cast<std::size_t>(count));
  for (int n = 1; n <= count; ++n) {
    const double sign = alternating && n % 2 == 0 ? -1.0 : 1.0;
    c[static_cast<std::size_t>(n - 1)] = n == curve.log_index ? 0.0 : sign * n / (n + curve.alpha);
  }
  return c;
}

// What a stretch of the way adds to the clock, to the variation and, for a decay, to that of the other parameter.
using Integrals = std::array<double, 3>;

template <std::size_t N>
struct GaussRule {  // on [-1, 1], the positive half
  std::array<double, N> nodes, weights;
};

constexpr GaussRule<4> eight_points{
    {0.18343464249564980494, 0.52553240991632898582, 0.79666647741362673959, 0.96028985649753623168},
    {0.36268378337836198297, 0.31370664587788728734, 0.22238103445337447054, 0.10122853629037625915}};
constexpr GaussRule<8> sixteen_points{
    {0.095012509837637440185, 0.28160355077925891323, 0.45801677765722738634, 0.61787624440264374845,
     0.7554044083550030339, 0.86563120238783174388, 0.94457502307323257608, 0.9894009349916499326},
    {0.18945061045506849629, 0.18260341504492358887, 0.16915651939500253819, 0.14959598881657673208,
     0.12462897125553387205, 0.09515851168249278481, 0.062253523938647892863, 0.027152459411754094852}};

// The means of the integrands over [0, x].
template <std::size_t N, class Motion>
Integrals average(const GaussRule<N>& rule, double x, const Motion& motion) noexcept {
  Integrals sum{};
  for (std::size_t k = 0; k < N; ++k) {
    const Integrals left = motion(x / 2 * (1 - rule.nodes[k])), right = motion(x / 2 * (1 + rule.nodes[k]));
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += rule.weights[k] / 2 * (left[i] + right[i]);
  }
  return sum;
}

// Rise and fall in k, the growth of log(s/(1 - s)), s = v or m: the pole at the fixed point is not seen, and the
// nearest singularities are i pi away.
struct Approach {
  double start, gap;  // s0, 1 - s0
  double exponent;

  // log(s/s0), from the form in which nothing cancels.
  double log_ratio(double k) const noexcept { return start < 0.5 ? low(k, std::expm1(k)) : high(std::expm1(-k)); }
  double gap_ratio(double k) const noexcept { return 1 / (1 + start * std::expm1(k)); }  // (1 - s)/(1 - s0)

  // Of the clock and of (1 - s0)/s0 times the variation.
  Integrals operator()(double k) const noexcept {
    const bool is_low = start < 0.5;
    const double growth = std::expm1(is_low ? k : -k);
    const double power = std::exp(exponent * (is_low ? low(k, growth) : high(growth)));
    return {power, is_low ? power * (1 + growth) : power / (1 + growth), 0.0};
  }

  double growth(double k) const noexcept { return exponent * gap * gap_ratio(k); }  // of the clock's integrand

  // Whether the start is so close to the fixed point that the clock hardly changes its pace on the way there.
  bool steady() const noexcept { return gap <= 0.25 && std::abs(exponent) * gap <= 1; }

  // k after a clock, however long, if `steady`. The clock is F(1) k less a regular integral,
  //
  //     integral_0^S (F(1) - F(s)) / (1 - s) ds,    S = 1 - e^-k,    F(s) = (1 - (1 - s0) s)^-exponent its integrand,
  //
  // while the antiderivatives of rise and fall are both about -log of a distance: of their difference that many
  // roundings remain.
  double after(double clock) const noexcept {
    const double end = std::exp(-exponent * std::log1p(-gap));  // F(1)
    const auto regular = [&](double s) noexcept {
      return Integrals{-end * std::expm1(-exponent * std::log1p(gap * (1 - s) / start)) / (1 - s), 0.0, 0.0};
    };
    double k = clock / end;
    if (!(k < 800)) return infinity;  // past the smallest distance that is not 0
    for (int step = 0; step < 20; ++step) {
      const double reached = -std::expm1(-k);
      const double pace = std::exp(-exponent * std::log1p(-gap * reached));
      const double change = (clock - (end * k - reached * average(sixteen_points, reached, regular)[0])) / pace;
      k += change;
      if (!(std::abs(change) > 1e-9 * k)) break;  // converges quadratically
    }
    return k;
  }

  // Up to here, k = 3 and a change of the clock's integrand by e^2, the quadrature is exact to rounding, and from here
  // on the difference of two antiderivatives is.
  double end() const noexcept {
    if (std::abs(exponent) * log_ratio(3.0) <= 2) return 3.0;
    const double log_ratio = 2 / std::abs(exponent);
    return start < 0.5 ? log_ratio - std::log1p(-start / gap * std::expm1(log_ratio))
                       : -std::log1p(std::expm1(-log_ratio) / gap);
  }

 private:
  double low(double k, double expm1_k) const noexcept { return k - std::log1p(start * expm1_k); }
  double high(double expm1_minus_k) const noexcept { return -std::log1p(gap * expm1_minus_k); }
};

// Decay in y = log(v0/v): z = v falls in a slow one, z = m grows in a fast one.
struct Relaxation {
  double start;  // z0
  double sign;   // of the growth of log z
  double exponent;

  double at(double y) const noexcept { return start * std::exp(sign * y); }  // z

  // Of the clock, of the variation over z0 and of the other variation.
  Integrals operator()(double y) const noexcept {
    const double growth = std::exp(sign * y), rest = 1 / (1 + start * growth);
    const double clock = std::exp(exponent * y) * rest;
    return {clock, clock * growth * rest, clock * rest};
  }

  double growth(double y) const noexcept { return exponent - sign * at(y) / (1 + at(y)); }
  double end() const noexcept { return 3 / std::max(1.0, exponent); }  // as for Approach
};

template <class Motion>
double clock_at_end(const Motion& motion) noexcept {
  return motion.end() * average(sixteen_points, motion.end(), motion)[0];
}

// How far an integrand that grows exponentially has to go for `area` units of its present height.
double exponential_step(double area, double growth) noexcept {
  const double exponent = growth * area;
  return std::abs(exponent) > 1e-8 && exponent > -1 ? std::log1p(exponent) / growth : area;
}

struct Stretch {
  double length;
  Integrals mean;
};

// The stretch after which the clock reads `clock`; it ends before `end`.
template <class Motion>
Stretch stretch(double clock, double end, const Motion& motion) noexcept {
  Integrals at = motion(0.0);
  double x = std::min(end, exponential_step(clock / at[0], motion.growth(0.0)));
  if (!(x > 0)) return {0.0, at};
  for (int k = 0; k < 50; ++k) {
    Integrals mean = x < end / 4 ? average(eight_points, x, motion) : average(sixteen_points, x, motion);
    at = motion(x);
    const double step = exponential_step((clock - x * mean[0]) / at[0], motion.growth(x));
    const double next = std::clamp(x + step, 0.0, end);
    if (!(std::abs(step) > 1e-6 * x)) {  // the order is three: what is left is below a rounding
      const Integrals last = motion(next);
      for (std::size_t i = 0; i < mean.size(); ++i) {
        mean[i] += ((last[i] + at[i]) / 2 - mean[i]) * ((next - x) / next);
      }
      return {next, mean};
    }
    x = next;
  }
  return {x, average(sixteen_points, x, motion)};
}

// exp(x) times c, for x of any size.
Scaled times_exp(Scaled c, double x) noexcept {
  return c * (std::abs(x) < 700 ? scaled(std::exp(x)) : exp(DoubleDouble{x, 0.0}));
}

}  // namespace

// ---- the integrals of the variation --------------------------------------------------------------------------------

VariationCurve::VariationCurve(const MasterCurve& curve)
    : master_(curve),
      g_(curve.beta + 1),
      fall_pole_(g_),
      decay_rest_(curve.pole_index + curve.alpha),
      rise_series_(rise_coefficients(growing_series_bits, curve, false)),
      rise_polynomial_(rise_coefficients(curve.pole_index - 1, curve, false)),
      decay_polynomial_(rise_coefficients(curve.pole_index - 1, curve, true)) {
  for (int n = 0; n < growing_series_bits; ++n) fall_series_.push_back((n + 1) / (n + g_));
  // With s = m/(1 + m) <= 2/3, a series of positive terms: 1/(g (1 + m)^2) sum_k (k+1)!/(g+1)_k s^k (DLMF 15.8.1).
  double c = 1 / g_;
  for (int k = 0; k < 100; ++k) {  // (2/3)^100 = 2^-58
    decay_fast_.push_back(c);
    c *= (k + 2) / (g_ + 1 + k);
  }
}

double VariationCurve::rise_low(double v) const noexcept { return growing_series(rise_series_, v); }

// All terms from the M-th on, M the pole's index, are v^g/(1 - v) - alpha K(v), g = M + alpha: differentiate.
double VariationCurve::rise_high(double delta) const noexcept {
  const double v = std::exp(-delta), gap = -std::expm1(-delta);
  if (gap == 0) return 1.0;
  const double pole = std::exp(master_.alpha * delta) * master_.rise_pole.value(v, gap);
  return std::exp(-master_.pole_index * delta) + gap * (v * polynomial(rise_polynomial_, v) - master_.alpha * pole);
}

// The same with alternating signs.
double VariationCurve::decay_slow(double v) const noexcept {
  const double rest = std::pow(v, master_.pole_index - 1) * (1 / (1 + v) - master_.alpha * decay_rest_.scaled(v));
  return growing_series(decay_polynomial_, v) + (master_.pole_index % 2 ? rest : -rest);
}

double VariationCurve::fall(double m, double gap) const noexcept {
  if (m <= 0.5) return gap * growing_series(fall_series_, m);
  if (gap == 0) return 1.0;
  // By parts: the integral is m^g/(1 - m) - (g - 1) K(m).
  if (gap <= 1 / (g_ + 1)) return 1 - (g_ - 1) * gap * fall_pole_.scaled(m, gap);
  return continued_fraction(m);
}

// (1 - m) m^(-g) B_m(g, -1) as PoleIntegral does B_m(g, 0) (DLMF 8.17.22).
double VariationCurve::continued_fraction(double m) const noexcept {
  double c = 1.0, d = 0.0, fraction = 1.0;
  for (int k = 0; k < 1000; ++k) {
    const double a = g_ + 2.0 * k;
    double step = 1.0;
    for (const double coefficient :
         {-(g_ + k) * (g_ - 1 + k) * m / (a * (a + 1)), -(k + 1.0) * (k + 2.0) * m / ((a + 1) * (a + 2))}) {
      d = 1 / (1 + coefficient * d);
      c = 1 + coefficient / c;
      step = c * d;
      fraction *= step;
    }
    if (std::abs(step - 1) < std::numeric_limits<double>::epsilon() / 2) break;
  }
  return 1 / (g_ * fraction);
}

double VariationCurve::decay_fast(double m) const noexcept {
  const double s = m / (1 + m);
  return (s > 0.5 ? polynomial(decay_fast_, s) : growing_series(decay_fast_, s)) / ((1 + m) * (1 + m));
}

// ---- one feature ---------------------------------------------------------------------------------------------------

FeatureSensitivity::FeatureSensitivity(const VariationCurve& variation, double lambda, double sigma2, double eps)
    : variation_(variation),
      curve_(variation.master()),
      feature_(curve_, lambda, sigma2, eps),
      lambda_(lambda),
      sigma2_(sigma2),
      eps_(eps) {
  const Motion motion = feature_.motion_;
  if (motion == Motion::still || motion == Motion::algebraic_decay) return;
  const DoubleDouble log_start = feature_.log_start_;
  fast_ = motion == Motion::fall || (motion == Motion::decay && log_start.hi > -detail::ln2.hi);
  start_ = exp(fast_ ? -log_start : log_start);
  rate_ = fast_ ? feature_.decay_rate_ : feature_.growth_rate_;
  const double start = start_.value();
  if (motion == Motion::decay) {
    exponent_ = fast_ ? curve_.beta : -curve_.alpha;
    const Relaxation early{start, fast_ ? 1.0 : -1.0, exponent_};
    early_end_ = early.end();
    early_clock_ = clock_at_end(early);
    start_sum_ = start_ * scaled(fast_ ? variation.decay_fast(std::min(start, 2.0)) : variation.decay_slow(start));
    return;
  }
  fixed_point_ = exp(feature_.log_fixed_point_);
  const double log_gap = std::abs(log_start.hi);
  gap_ = -std::expm1(-log_gap);
  exponent_ = fast_ ? curve_.beta : curve_.alpha;
  const Approach early{start, gap_, exponent_};
  early_end_ = early.end();
  early_clock_ = clock_at_end(early);
  if (fast_) {
    start_sum_ = start_ * scaled(variation.fall(start, gap_)) / scaled(gap_);
  } else {
    start_power_ = exp(log_start * curve_.alpha);
    start_log_scale_ = exp(log_start * static_cast<double>(std::max(0, curve_.log_index)));
    start_sum_ =
        start <= 0.5 ? start_ * scaled(variation.rise_low(start)) : scaled(variation.rise_high(log_gap)) / scaled(gap_);
  }
}

Sensitivity FeatureSensitivity::at(double t) const noexcept {
  const Motion motion = feature_.motion_;
  if (motion == Motion::algebraic_decay) return algebraic_decay(t);
  if (t == infinity) return limit();
  if (motion == Motion::still) return still(t);
  const Point at = locate(t);
  // Slow and rising: the clock's rate is positive; u grows where lambda does and falls where sigma^2 does.
  const Scaled w = at.response, log_w = w * scaled(curve_.depth / curve_.q);
  const double direction = motion == Motion::rise ? 1.0 : -1.0;
  const double lambda_sign = motion == Motion::decay ? -1.0 : 1.0;
  const Scaled by_lambda = at.fast ? at.variation : at.other, by_sigma2 = at.fast ? at.other : at.variation;
  return {(log_w * by_lambda * scaled(lambda_sign) / scaled(lambda_)).value(),
          -(log_w * by_sigma2 / scaled(sigma2_)).value(), (w * at.start / scaled(eps_)).value(),
          direction * (log_w * at.rate).value()};
}

FeatureSensitivity::Point FeatureSensitivity::locate(double t) const noexcept {
  const Scaled clock = rate_ * scaled(t);
  const bool early = clock.value() <= early_clock_;
  if (feature_.motion_ == Motion::decay) return early ? early_decay(clock) : decay(t);
  if (early) return early_approach(clock);
  return feature_.motion_ == Motion::rise ? rise(t) : fall(t);
}

// t -> inf: for lambda > 0 the fixed point, (lambda/sigma^2)^(L/q).
Sensitivity FeatureSensitivity::limit() const noexcept {
  if (!(lambda_ > 0)) return {0.0, 0.0, 0.0, 0.0};
  const Scaled w = exp(feature_.log_fixed_point_) * scaled(curve_.depth / curve_.q);
  return {(w / scaled(lambda_)).value(), -(w / scaled(sigma2_)).value(), 0.0, 0.0};
}

// At the fixed point all is exponential.
Sensitivity FeatureSensitivity::still(double t) const noexcept {
  const double k = (feature_.growth_rate_ * scaled(t)).value();
  const Sensitivity end = limit();
  const double share = -std::expm1(-k);
  return {share * end.lambda, share * end.sigma2, std::exp(-k), 0.0};
}

// lambda = 0, with X = 2 L sigma^2 eps^2 t: (eps/w)^2 = 1 + X, and, c = 2L + q,
// dlog w/dlambda = L/(c sigma^2 u^q) (1 - (1 + X)^(-c/2L)).
Sensitivity FeatureSensitivity::algebraic_decay(double t) const noexcept {
  const double depth = curve_.depth, q = curve_.q, c = 2 * depth + q;
  const Scaled rate = scaled(2 * depth) * feature_.cubic_rate_;
  const Scaled elapsed = rate * scaled(t);
  const Scaled ratio = scaled(1.0) + elapsed;  // (eps/w)^2
  if (t == infinity) {                         // w u^(-q) ~ u^(L - q)
    const double lambda = depth > q ? 0.0 : depth < q ? infinity : depth / c / sigma2_;
    return {lambda, 0.0, 0.0, 0.0};
  }
  const DoubleDouble log_w = feature_.log_eps_ - log(ratio) * 0.5;
  const Scaled w = exp(log_w);
  const double log_ratio = elapsed.value() < 1 ? std::log1p(elapsed.value()) : log(ratio).value();
  const Scaled by_lambda = exp(log_w - log_w * curve_.q_over_depth) * scaled(depth / c) *
                           scaled(-std::expm1(-c / (2 * depth) * log_ratio)) / scaled(sigma2_);
  const Scaled half_rate = scaled(0.5) * w / ratio;
  return {by_lambda.value(), -(half_rate * elapsed / scaled(sigma2_)).value(), (w / ratio / scaled(eps_)).value(),
          -(half_rate * rate).value()};
}

FeatureSensitivity::Point FeatureSensitivity::early_approach(Scaled clock) const noexcept {
  const Approach way{start_.value(), gap_, exponent_};
  const auto [k, mean] = stretch(clock.value(), early_end_, way);
  const double log_ratio = way.log_ratio(k);
  const double start = way.gap_ratio(k) * std::exp(-exponent_ * log_ratio);  // D/(1 - s0)
  const Scaled variation = start_ * clock * scaled(start * mean[1] / mean[0]);
  const double growth = curve_.depth / curve_.q * log_ratio;
  const Scaled decline = scaled(start * gap_);
  return {scaled(eps_) * scaled(std::exp(fast_ ? -growth : growth)),
          scaled(start),
          decline * rate_,
          variation,
          decline * clock + variation,
          fast_};
}

// Past the early part: log of the ratio of the fixed point to s, s = v or m, where it is the better coordinate.
FeatureCurve::Position FeatureSensitivity::refined(FeatureCurve::Position at, double t) const noexcept {
  const Approach way{start_.value(), gap_, exponent_};
  if (at.near && way.steady()) at.distance = -std::log1p(-gap_ * way.gap_ratio(way.after((rate_ * scaled(t)).value())));
  return at;
}

FeatureSensitivity::Point FeatureSensitivity::rise(double t) const noexcept {
  const FeatureCurve::Position at = refined(feature_.locate_rise(t), t);
  const DoubleDouble log_start = feature_.log_start_;
  double xi = at.distance, delta = at.distance;
  if (at.near) {
    xi = (-log_start.hi - delta) - log_start.lo;
    if (xi < delta) {  // a deep encoder multiplies the rounding of delta: back to xi, by what delta leaves of the clock
      const FeatureCurve::Slope there = feature_.rise_high(delta);
      xi += (feature_.offset_ + (rate_ * scaled(t)).value() - there.value) / there.derivative;
    }
  } else {
    delta = (-log_start.hi - xi) - log_start.lo;
  }
  const double log_term = variation_.log_term(xi);
  const Scaled at_start = start_log_scale_ * scaled(log_term) - start_sum_;
  const double gap = -std::expm1(-delta);
  const double depth_over_q = curve_.depth / curve_.q;
  Scaled w, power, sum;  // power: (v/v0)^(-alpha)
  if (xi < delta || delta > 2) {
    w = times_exp(scaled(eps_), depth_over_q * xi);
    power = times_exp(scaled(1.0), -curve_.alpha * xi);
  } else {
    // Past the steepest part a shift of the clock forgives nothing: all from one delta, which is small.
    w = times_exp(fixed_point_, -depth_over_q * delta);
    power = times_exp(start_power_, curve_.alpha * delta);
  }
  if (delta > detail::ln2.hi) {
    const Scaled v = times_exp(start_, xi);
    sum = v * scaled(gap * variation_.rise_low(v.value()));
  } else {
    sum = scaled(variation_.rise_high(delta));
  }
  const Scaled decline = scaled(gap) * power;
  const Scaled variation = sum + decline * at_start;
  return {w, decline / scaled(gap_), decline * rate_, variation, decline * rate_ * scaled(t) + variation, fast_};
}

FeatureSensitivity::Point FeatureSensitivity::fall(double t) const noexcept {
  const Scaled clock = feature_.fall_clock(t);
  const FeatureCurve::Position at = refined(feature_.locate_fall(log(clock).value()), t);
  const double log_start = feature_.log_start_.value();
  const double depth_over_q = curve_.depth / curve_.q;
  Scaled w, m;
  double gap;
  if (at.near) {
    w = times_exp(fixed_point_, depth_over_q * at.distance);
    m = scaled(std::exp(-at.distance));
    gap = -std::expm1(-at.distance);
  } else {
    // E forgives less than the rounding of a long zeta: take it from the power law once more.
    const double guess = std::exp(at.distance - log_start);
    const DoubleDouble zeta = (log(clock) - log(curve_.fall.scaled(guess, 1 - guess))) / curve_.beta;
    w = exp(feature_.log_eps_ - zeta * depth_over_q);
    m = exp(zeta - feature_.log_start_);
    gap = 1 - m.value();
  }
  const Scaled power = gap > 0 ? scaled(curve_.fall.scaled(m.value(), gap)) / clock : scaled(0.0);  // (m/m0)^-beta
  const Scaled decline = scaled(gap) * power;
  const Scaled variation = m * scaled(variation_.fall(m.value(), gap)) - decline * start_sum_;
  return {w, decline / scaled(gap_), decline * rate_, variation, decline * rate_ * scaled(t) + variation, fast_};
}

FeatureSensitivity::Point FeatureSensitivity::early_decay(Scaled clock) const noexcept {
  const Relaxation way{start_.value(), fast_ ? 1.0 : -1.0, exponent_};
  const auto [y, mean] = stretch(clock.value(), early_end_, way);
  const double end = 1 + way.at(y);
  const double decline = end * std::exp(-exponent_ * y);
  return {scaled(eps_) * scaled(std::exp(-curve_.depth / curve_.q * y)),
          scaled(decline / (1 + way.start)),
          scaled(decline) * rate_,
          start_ * clock * scaled(decline * mean[1] / mean[0]),
          clock * scaled(decline * mean[2] / mean[0]),
          fast_};
}

FeatureSensitivity::Point FeatureSensitivity::decay(double t) const noexcept {
  if (!fast_) {
    const Point at = slow_decay(feature_.log_start_, feature_.log_eps_, rate_ * scaled(t), {0.0, 0});
    return {at.response, at.start / scaled(1 + start_.value()), at.start * rate_, at.variation, at.other, false};
  }
  const Scaled clock = feature_.decay_clock(t);
  const double log_clock = log(clock).value();
  if (feature_.past_meeting(log_clock)) return decay_past_meeting(feature_.clock_since_meeting(clock), t);
  const double guess = std::exp(feature_.solve_decay_fast(log_clock) - feature_.log_start_.value());
  const DoubleDouble zeta = (log(clock) - log(curve_.decay_fast.scaled(guess))) / curve_.beta;
  const Scaled m = exp(zeta - feature_.log_start_);
  const double end = 1 + m.value();
  const Scaled decline = scaled(end * curve_.decay_fast.scaled(m.value())) / clock;
  const Scaled variation = m * scaled(end * variation_.decay_fast(m.value())) - decline * start_sum_;
  return {exp(feature_.log_eps_ - zeta * curve_.depth_over_q),
          decline / scaled(1 + start_.value()),
          decline * rate_,
          variation,
          decline * rate_ * scaled(t) - variation,
          true};
}

// From v = start <= 1/2 on; `before` is the variation up to there. Point::start is D alone here.
FeatureSensitivity::Point FeatureSensitivity::slow_decay(DoubleDouble log_start, DoubleDouble log_w_start, Scaled clock,
                                                         Scaled before) const noexcept {
  const Scaled start = exp(log_start);
  const DoubleDouble y = feature_.solve_decay_slow(start.value(), clock);
  const Scaled v = exp(log_start - y);
  const double end = 1 + v.value();
  const Scaled decline = scaled(end) * exp(y * curve_.alpha);
  const double log_term = variation_.log_term(-y.value());
  const Scaled at_start = start * scaled(variation_.decay_slow(start.value())) +
                          exp(log_start * static_cast<double>(std::max(0, curve_.log_index))) *
                              scaled(curve_.log_index % 2 ? -log_term : log_term);
  const Scaled variation = decline * (before + at_start) - v * scaled(end * variation_.decay_slow(v.value()));
  return {exp(log_w_start - y * curve_.depth_over_q), decline, {}, variation, decline * clock - variation, false};
}

// Both phases of a decay, in the units of a start at v = 1/2, where they meet.
FeatureSensitivity::Point FeatureSensitivity::decay_past_meeting(Scaled clock, double t) const noexcept {
  const DoubleDouble log_half = -detail::ln2;
  const Scaled power = exp((-feature_.log_start_ - detail::ln2) * curve_.beta);  // (m0/2)^beta
  const Scaled start_clock = power * scaled(curve_.decay_fast.scaled(start_.value()));
  const Scaled by_lambda = scaled(4 * variation_.decay_fast(2.0)) - scaled(2.0) * power * start_sum_;
  const Scaled by_sigma2 = scaled(2.0) * (scaled(curve_.decay_fast.scaled(2.0)) - start_clock) - by_lambda;
  const Point at = slow_decay(log_half, feature_.log_meeting(), clock, by_sigma2);
  const Scaled rate = scaled(curve_.q) * scaled(-lambda_) * exp(feature_.log_meeting() * (curve_.p - 1) / curve_.depth);
  const Scaled speed = at.start * rate;
  return {at.response,
          scaled(2 / (1 + start_.value())) * power * at.start,
          speed,
          at.variation,
          speed * scaled(t) - at.variation,
          false};
}

void solve_sensitivities(const MasterCurve& curve, const Ensemble& features, const double* times, std::size_t n_times,
                         bool row_per_feature, unsigned threads, Interrupt& interrupt, const Sensitivities& out) {
  if (n_times == 0) return;
  const VariationCurve variation(curve);
  const std::size_t grain = 1 + static_cast<std::size_t>(2048 / (1 + curve.p / 64));  // as solve_exact
  parallel_for(features.size * n_times, grain, threads, interrupt, [&](std::size_t begin, std::size_t end) {
    for (std::size_t k = begin; k < end;) {
      const std::size_t i = k / n_times;
      const FeatureSensitivity feature(variation, features.lambda[i], features.sigma2[i], features.eps[i]);
      const std::size_t stop = std::min(end, (i + 1) * n_times);
      const double* row = row_per_feature ? times + i * n_times : times;
      for (; k < stop; ++k) {
        const Sensitivity at = feature.at(row[k - i * n_times]);
        out.lambda[k] = at.lambda;
        out.sigma2[k] = at.sigma2;
        out.eps[k] = at.eps;
        out.t[k] = at.t;
      }
    }
  });
}

}  // namespace jepa_ode
