#include "jepa_ode/pole_table.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>

#include "jepa_ode/power_series.hpp"

namespace jepa_ode {

namespace {

// A row: the first `terms` of sum_n c_n x^n around x = centre, in units of `scale`.
void fill(double* row, const std::vector<double>& c, std::size_t terms, double centre, double scale) noexcept {
  bins::Series taylor{};
  for (std::size_t n = terms; n-- > 0;) {  // Horner's rule for the polynomial and its derivatives over k!
    for (std::size_t k = bins::degree; k > 0; --k) taylor[k] = taylor[k] * centre + taylor[k - 1];
    taylor[0] = taylor[0] * centre + c[n];
  }
  double unit = 1.0;
  for (double& coefficient : taylor) {
    coefficient *= unit;
    unit *= scale;
  }
  bins::economise(taylor);
  std::copy_n(taylor.begin(), bins::coefficients, row);
}

}  // namespace

PoleTable::PoleTable(const PoleIntegral& integral)
    : logarithmic_(integral.exponent() == 1),
      constant_(integral.constant()),
      binade_(std::ilogb(integral.pole_radius())) {
  if (logarithmic_) return;
  // K(v)/v^g = sum_n v^n / (n + g): as many terms as count at the largest v of a bin.
  const auto terms = [](double v) {
    return static_cast<std::size_t>(std::ceil((series_terms + 8) * std::log(2.0) / -std::log(v)));
  };
  std::vector<double> at_zero(terms(1 - std::ldexp(1.0, binade_)));
  for (std::size_t n = 0; n < at_zero.size(); ++n) at_zero[n] = 1 / (static_cast<double>(n) + integral.exponent());

  rows_.resize(static_cast<std::size_t>((1 - binade_) * bins::per_binade) * bins::coefficients);
  double* row = rows_.data();
  const double radius = std::ldexp(1.0, binade_);
  for (std::int64_t bin = 0; bin < bins::per_binade; ++bin, row += bins::coefficients) {
    const double z = radius * static_cast<double>(2 * bin + 1) * bins::half;
    fill(row, integral.at_pole(), integral.at_pole().size(), z, radius);
  }
  for (int binade = binade_; binade < 0; ++binade) {
    const double scale = std::ldexp(1.0, binade);
    for (std::int64_t bin = 0; bin < bins::per_binade; ++bin, row += bins::coefficients) {
      const double first = scale * (1 + static_cast<double>(2 * bin) * bins::half);
      fill(row, at_zero, terms(1 - first), 1 - (first + scale * bins::half), -scale);
    }
  }
}

Pack PoleTable::value(Pack one_minus_v, Pack power, Pack log_one_minus_v) const noexcept {
  if (logarithmic_) return -log_one_minus_v;
  const double radius = std::ldexp(1.0, binade_);
  // v below a rounding of 1 is as good as one there. Lanes without a feature on this branch may hold anything.
  const Pack z = max(min(one_minus_v, pack(1 - 0x1p-53)), pack(0.0));
  const Mask close = z < pack(radius);
  const Pack g = select(close, z + pack(radius), z);
  const IntPack row =
      bins::number(g) - int_pack(bins::first(binade_) - bins::per_binade) - (close & int_pack(bins::per_binade));
  [[maybe_unused]] const auto count = static_cast<std::int64_t>(rows_.size() / bins::coefficients);
  for (std::size_t n = 0; n < lanes; ++n) assert(row[n] >= 0 && row[n] < count);
  Pack c[bins::coefficients];
  load_rows(rows_.data(), row, c);
  const Pack sum = bins::sum(c, bins::place(g));
  return select(close, sum - log_one_minus_v - pack(constant_), power * sum);
}

}  // namespace jepa_ode
