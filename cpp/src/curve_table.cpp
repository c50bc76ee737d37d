#include "jepa_ode/curve_table.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "jepa_ode/pack_math.hpp"

namespace jepa_ode {

namespace {

using bins::degree;
using bins::Series;

// sum_(i <= n) a_i b_(n-i)
double convolution(const Series& a, const Series& b, std::size_t n) noexcept {
  double sum = 0.0;
  for (std::size_t i = 0; i <= n; ++i) sum += a[i] * b[n - i];
  return sum;
}

double value(const Series& series, double x) noexcept {
  double sum = series[degree];
  for (std::size_t n = degree; n-- > 0;) sum = series[n] + x * sum;
  return sum;
}

// The same polynomial in x - shift.
void translate(Series& series, double shift) noexcept {
  for (std::size_t k = 0; k < degree; ++k) {
    for (std::size_t n = degree; n-- > k;) series[n] += shift * series[n + 1];
  }
}

// Closer to 1 than this, a point is known by its distance from it: above, 1 - x is exact, and x to the last bit matters
// to the long sums of deep curves.
constexpr double close_to_one = 0x1p-40;

CurveTable::Point point(bool inverted, double x, double rest) noexcept {
  if (rest < close_to_one) return {inverted, 1 - rest, rest};
  return {inverted, x, 1 - x};
}

DoubleDouble log_of(const CurveTable::Point& at) noexcept {
  return at.rest < close_to_one ? DoubleDouble{std::log1p(-at.rest), 0.0} : log(at.x);
}

double power(DoubleDouble log_x, DoubleDouble exponent) noexcept { return exp(log_x * exponent).value(); }

}  // namespace

bool CurveTable::serves(const MasterCurve& curve) noexcept {
  // y ~ g^(-L/(p-1)) on a plateau, so L/(p-1) decides what a bin errs; deep curves cost too much to tabulate.
  return curve.p - 1 >= 0.4 * curve.depth && -curve.alpha <= 1000;
}

CurveTable::CurveTable(const MasterCurve& curve, Branch branch)
    : curve_(curve),
      branch_(branch),
      alpha_(curve.precise_alpha),
      beta_(DoubleDouble{1.0, 0.0} - alpha_),
      power_(curve.depth_over_q),
      offset_(0.0),
      last_(branch == Branch::decay ? farthest / 2 : latest_end),
      before_(branch == Branch::rise ? -row_of(branch, highest_binade, bins::per_binade - 1, true) : 0),
      column_length_(before_ + row_of(branch, branch == Branch::decay ? highest_binade + 1 : settled_binade + 1, 0) +
                     static_cast<std::int64_t>(window)),
      rows_(new double[static_cast<std::size_t>(column_length_) * bins::coefficients]),
      columns_(window > 0 ? new double[static_cast<std::size_t>(column_length_) * bins::coefficients] : nullptr),
      lower_{},
      upper_{} {
  if (branch != Branch::decay && curve.serves_packs()) {
    pole_ = std::make_unique<PoleTable>(branch == Branch::rise ? curve.rise_pole : curve.fall);
  }
  switch (branch) {
    case Branch::rise: {
      // Both integrals are -log|1 - v| + constant at v = 1, and the one of the fall is 0 at v = inf.
      offset_ = (curve.rise_pole.constant() - curve.rise_polynomial_at_one) - curve.fall.constant();
      lower_ = {first_rise_binade - 1, find(rise_offset * bins::half)};
      while (lower_.binade < settled_binade) fill_next(lower_, 1, false);
      upper_ = {first_rise_binade - 1, find(-rise_offset * bins::half)};
      break;
    }
    case Branch::fall:
      lower_ = {0, find(1 - bins::half / 2)};
      upper_ = {-1, find(1 + bins::half)};
      while (upper_.binade < settled_binade) fill_next(upper_, 1, false);
      break;
    case Branch::decay: {
      const double one = time({true, 2.0, -1.0});  // v = 1/2, where the two integrals meet
      offset_ = one - time({false, 0.5, 0.5});
      lower_ = {0, find(1 - bins::half / 2)};
      upper_ = {-1, find(1 + bins::half)};
      break;
    }
  }
  lowest_ = branch == Branch::rise ? first_rise_binade : lower_.binade;
  highest_ = upper_.binade;
  if (branch != Branch::decay) {  // |1 - y| = (L/q) (1 - v) is below a quarter of a rounding
    const double rest = std::min(0.25, 0x1p-55 * curve.q_over_depth.hi);
    last_ = std::min(last_, time({branch == Branch::fall, 1 - rest, rest}));
  }
}

void CurveTable::cover(double lowest, double highest) {
  const int low = std::max(std::ilogb(lowest), branch_ == Branch::rise ? first_rise_binade : lowest_binade);
  // A window after a row of a decay may reach into the next binade; those of the others end at rows that are there.
  const int high = std::min(std::ilogb(std::min(highest, farthest)) + (branch_ == Branch::decay ? 1 : 0),
                            branch_ == Branch::fall ? settled_binade : highest_binade);
  if (low >= lowest_.load(std::memory_order_acquire) && high <= highest_.load(std::memory_order_acquire)) return;
  const std::lock_guard<std::mutex> lock(filling_);
  while (upper_.binade < high) fill_next(upper_, 1, branch_ == Branch::rise);
  while (branch_ != Branch::rise && lower_.binade > low) fill_next(lower_, -1, false);
  if (branch_ != Branch::rise) lowest_.store(lower_.binade, std::memory_order_release);
  highest_.store(upper_.binade, std::memory_order_release);
}

bool CurveTable::holds(std::int64_t row) const noexcept {
  const int lowest = lowest_.load(std::memory_order_acquire), highest = highest_.load(std::memory_order_acquire);
  if (branch_ != Branch::rise) return row >= row_of(branch_, lowest, 0) && row < row_of(branch_, highest + 1, 0);
  return row >= -row_of(branch_, highest + 1, 0) && row < row_of(branch_, settled_binade + 1, 0);
}

// Fills the binade after the frontier, bin by bin in the direction of `step`.
void CurveTable::fill_next(Frontier& frontier, int step, bool plateau) {
  const int binade = frontier.binade + step;
  const double scale = std::ldexp(1.0, binade);
  for (std::int64_t k = 0; k < bins::per_binade; ++k) {
    const std::int64_t bin = step > 0 ? k : bins::per_binade - 1 - k;
    const double g = scale * (1 + static_cast<double>(2 * bin + 1) * bins::half);
    const double tau = branch_ != Branch::rise ? g : plateau ? rise_offset - g : g - rise_offset;
    // To the centre of the next bin; the bins of the next binade are twice or half as wide.
    const double ahead = k + 1 < bins::per_binade ? 2 * bins::half * step
                         : step > 0               ? 3 * bins::half
                                                  : -1.5 * bins::half;
    const std::int64_t row = row_of(branch_, binade, bin, plateau);
    frontier.next = fill_bin(row, frontier.next, tau, plateau ? -scale : scale, ahead);
  }
  frontier.binade = binade;
}

// The polynomial of the bin whose centre is tau, from a point of the curve close to it; `slope` is d tau over d place.
// Returns the point `next_place` ahead.
CurveTable::Point CurveTable::fill_bin(std::int64_t row, const Point& centre, double tau, double slope,
                                       double next_place) noexcept {
  // v' = v g, of which v = x or 1/x gives
  //     x = v     g = +-x^a (1 -+ x),        (x^a)' = a x^a g,            x' = x g
  //     x = 1/v   g = -x^(-beta) (1 -+ x),   (x^-beta)' = beta x^-beta g,   x' = -x g
  const DoubleDouble log_x = log_of(centre);
  const bool alternating = branch_ == Branch::decay;
  const double sign = branch_ == Branch::rise ? 1.0 : -1.0;
  const double rate = centre.inverted ? curve_.beta : -curve_.alpha;
  const double direction = centre.inverted ? -1.0 : 1.0;
  Series a{}, x{}, c{}, y{}, g{};
  a[0] = slope * power(log_x, centre.inverted ? -beta_ : -alpha_);
  x[0] = centre.x;
  c[0] = alternating ? 1 + centre.x : centre.rest;
  y[0] = power(log_x, centre.inverted ? -power_ : power_);
  for (std::size_t n = 0; n < degree; ++n) {
    const double over = 1 / static_cast<double>(n + 1);
    g[n] = sign * convolution(a, c, n);
    a[n + 1] = rate * over * convolution(a, g, n);
    x[n + 1] = direction * over * convolution(x, g, n);
    c[n + 1] = alternating ? x[n + 1] : -x[n + 1];
    y[n + 1] = power_.hi * over * convolution(y, g, n);
  }
  const double shift = (tau - time(centre)) / slope;
  translate(y, shift);
  bins::economise(y);
  const auto place = static_cast<std::size_t>(before_ + row), length = static_cast<std::size_t>(column_length_);
  std::copy_n(y.begin(), bins::coefficients, rows_.get() + place * bins::coefficients);
  for (std::size_t k = 0; columns_ && k < bins::coefficients; ++k) columns_[k * length + place] = y[k];

  const double next = shift + next_place;
  double ahead = value(x, next), rest = value(c, next);
  if (!alternating) return point(centre.inverted, ahead, rest);
  bool inverted = centre.inverted;
  if (inverted ? ahead > 2 : ahead > 0.5) {  // the integrals of a decay meet at v = 1/2
    inverted = !inverted;
    ahead = 1 / ahead;
  }
  return {inverted, ahead, 1.0};
}

double CurveTable::time(const Point& at) const noexcept {
  const DoubleDouble log_x = log_of(at);
  return time(at, power(log_x, exponent(at.inverted)), log_x.value());
}

double CurveTable::time_of(DoubleDouble log_v) const noexcept {
  const Point at = point(false, exp(log_v).value(), -std::expm1(log_v.value()));
  const DoubleDouble log_x = log_of(at);  // not log_v: x is rounded
  const double scale = power(log_x, alpha_);
  return time(at, scale, log_x.value()) + delay(at, scale, (log_v - log_x).value());
}

double CurveTable::time(const Point& at, double power, double log_x) const noexcept {
  switch (branch_) {
    case Branch::rise:
      if (at.x <= 0.5) return power * curve_.rise_series(at.x) + (curve_.log_term(log_x) + offset_);
      return power * curve_.rise_polynomial(at.x) +
             (curve_.log_term(log_x) + curve_.rise_pole.value(at.x, at.rest) + offset_);
    case Branch::fall:
      return power * curve_.fall.scaled(at.x, at.rest);
    case Branch::decay: {
      if (at.inverted) return power * curve_.decay_fast.scaled(at.x);
      const double logarithm = curve_.log_index % 2 == 0 ? -curve_.log_term(log_x) : curve_.log_term(log_x);
      return (logarithm + offset_) - power * curve_.decay_series(at.x);
    }
  }
  return 0.0;
}

Pack CurveTable::time(Pack x, Pack rest, Pack power, Pack log_x) const noexcept {
  const Pack log_rest = log(max(rest, pack(0x1p-1000))).hi;  // lanes without a feature on this branch hold anything
  if (branch_ == Branch::fall) return pole_->value(rest, power, log_rest);
  Pack pole_power = power;  // x^(pole_index + alpha)
  for (int n = 0; n < curve_.pole_index; ++n) pole_power *= x;
  const Pack logarithm = curve_.log_index < 0 ? Pack{} : log_x;
  return fma(power, curve_.rise_polynomial(x), logarithm) + pole_->value(rest, pole_power, log_rest) + pack(offset_);
}

double CurveTable::delay(const Point& at, double power, double excess) const noexcept {
  const double slope = power / (branch_ == Branch::decay ? 1 + at.x : at.rest);  // |d tau / d log x|
  return branch_ == Branch::decay && !at.inverted ? -slope * excess : slope * excess;
}

// The point of the curve at a tau near the anchor, by bisection.
CurveTable::Point CurveTable::find(double tau) const noexcept {
  const bool later_is_higher = branch_ != Branch::decay;  // in x of a fall, too
  double low = -700.0, high = 700.0;                      // log(x/(1-x)), or log v of a decay
  Point at{};
  for (int k = 0; k < 100; ++k) {
    const double middle = (low + high) / 2;
    if (branch_ == Branch::decay) {
      const bool inverted = middle > -0x1.62e42fefa39efp-1;
      at = {inverted, std::exp(inverted ? -middle : middle), 1.0};
    } else {
      at = point(branch_ == Branch::fall, 1 / (1 + std::exp(-middle)), 1 / (1 + std::exp(middle)));
    }
    ((time(at) < tau) == later_is_higher ? low : high) = middle;
  }
  return at;
}

}  // namespace jepa_ode
