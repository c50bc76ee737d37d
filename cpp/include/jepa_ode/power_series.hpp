// Sums of power series with known coefficients.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "jepa_ode/double_double.hpp"

namespace jepa_ode {

// Series in v <= 1/2 with bounded coefficients are cut after this many terms: 2^-58 of the leading one.
inline constexpr int series_terms = 58;

// Terms of such a series that count at x <= 1/2: those above 2^-bits of the leading one, whole groups of four.
inline std::size_t terms_that_count(double x, int bits = series_terms) noexcept {
  const int bits_per_term = x > 0.0 ? std::max(1, -std::ilogb(x) - 1) : bits;  // x <= 2^-bits_per_term
  return static_cast<std::size_t>(4 + bits / bits_per_term);
}

// Two interleaved Horner chains of pairs: the latency of one would dominate, and in alternating sums each pair cancels
// by itself instead of two large sums in the end.
inline double polynomial(const std::vector<double>& coefficients, double x, std::size_t terms) noexcept {
  const std::size_t n = std::min(coefficients.size(), terms);
  const double* c = coefficients.data();
  const double x2 = x * x, x4 = x2 * x2;
  double even = 0.0, odd = 0.0;
  std::size_t k = n - n % 4;
  if (n % 4 > 0) even = n % 4 == 1 ? c[k] : c[k] + x * c[k + 1];
  if (n % 4 == 3) odd = c[k + 2];
  while (k > 0) {
    k -= 4;
    even = even * x4 + (c[k] + x * c[k + 1]);
    odd = odd * x4 + (c[k + 2] + x * c[k + 3]);
  }
  return even + x2 * odd;
}

inline double polynomial(const std::vector<double>& coefficients, double x) noexcept {
  return polynomial(coefficients, x, coefficients.size());
}

// Horner's rule with the roundings of every step carried along (Langlois and Louvet's compensated scheme): where the
// last of many terms lead, the plain one would raise the roundings of x^n to as many units as there are terms.
inline double compensated_polynomial(const std::vector<double>& coefficients, double x) noexcept {
  double sum = 0.0, correction = 0.0;
  for (std::size_t k = coefficients.size(); k-- > 0;) {
    const DoubleDouble product = two_product(sum, x);
    const DoubleDouble total = two_sum(product.hi, coefficients[k]);
    sum = total.hi;
    correction = correction * x + (product.lo + total.lo);
  }
  return sum + correction;
}

// The sum of a power series at 0 <= x <= 1/2.
inline double series(const std::vector<double>& coefficients, double x) noexcept {
  return polynomial(coefficients, x, terms_that_count(x));
}

}  // namespace jepa_ode
