// Unevaluated sums of two doubles (about 31 digits) and numbers with an exponent of their own.
//
// The start of a feature enters its trajectory as u0^(p-1) with p up to 2 * depth: a relative rounding of u0 or rho
// would be multiplied by 127 at depth 64 before the first step. So the few powers that set a feature up are taken here,
// by logarithms to 1e-24 or better, and leave as doubles rounded once. Overflow cannot happen on the way: exponents are
// kept apart (THEORY.md 3, "works in logarithms or scaled quantities").
//
// Source of the error-free transformations: Dekker (1971), Knuth (TAOCP 2, 4.2.2).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace jepa_ode {

struct DoubleDouble {
  double hi;
  double lo;

  double value() const noexcept { return hi + lo; }
};

inline DoubleDouble two_sum(double a, double b) noexcept {
  const double sum = a + b;
  const double b_part = sum - a;
  return {sum, (a - (sum - b_part)) + (b - b_part)};
}

inline DoubleDouble quick_two_sum(double a, double b) noexcept {  // |a| >= |b|
  const double sum = a + b;
  return {sum, b - (sum - a)};
}

inline DoubleDouble two_product(double a, double b) noexcept {
  const double product = a * b;
#if defined(__FMA__) || defined(__aarch64__)
  return {product, std::fma(a, b, -product)};
#else
  // Veltkamp's split: without the instruction, std::fma is a slow call. Operands here are far below 2^996.
  constexpr double splitter = 134217729.0;  // 2^27 + 1
  const double a_scaled = splitter * a, b_scaled = splitter * b;
  const double a_hi = a_scaled - (a_scaled - a), a_lo = a - a_hi;
  const double b_hi = b_scaled - (b_scaled - b), b_lo = b - b_hi;
  return {product, ((a_hi * b_hi - product) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo};
#endif
}

inline DoubleDouble operator-(DoubleDouble a) noexcept { return {-a.hi, -a.lo}; }

inline DoubleDouble operator+(DoubleDouble a, DoubleDouble b) noexcept {
  const DoubleDouble high = two_sum(a.hi, b.hi);
  const DoubleDouble low = two_sum(a.lo, b.lo);
  const DoubleDouble sum = quick_two_sum(high.hi, high.lo + low.hi);
  return quick_two_sum(sum.hi, sum.lo + low.lo);
}

inline DoubleDouble operator-(DoubleDouble a, DoubleDouble b) noexcept { return a + (-b); }

inline DoubleDouble operator*(DoubleDouble a, DoubleDouble b) noexcept {
  const DoubleDouble product = two_product(a.hi, b.hi);
  return quick_two_sum(product.hi, product.lo + (a.hi * b.lo + a.lo * b.hi));
}

inline DoubleDouble operator*(DoubleDouble a, double b) noexcept {
  const DoubleDouble product = two_product(a.hi, b);
  return quick_two_sum(product.hi, product.lo + a.lo * b);
}

inline DoubleDouble operator/(DoubleDouble a, double b) noexcept {
  const double quotient = a.hi / b;
  const DoubleDouble rest = a - DoubleDouble{b, 0.0} * quotient;
  return quick_two_sum(quotient, rest.value() / b);
}

inline DoubleDouble operator/(DoubleDouble a, DoubleDouble b) noexcept {
  const double quotient = a.hi / b.hi;
  const DoubleDouble rest = a - b * quotient;
  return quick_two_sum(quotient, rest.value() / b.hi);
}

// mantissa * 2^exponent, with an exponent that no power taken here can exhaust.
struct Scaled {
  double mantissa;
  std::int64_t exponent;

  // Rounds to 0 or inf outside the range of a double.
  double value() const noexcept {
    if (exponent > -1000 && exponent < 1000) return mantissa * power_of_two(exponent);
    const std::int64_t bounded = exponent < -5000 ? -5000 : exponent > 5000 ? 5000 : exponent;
    return std::ldexp(mantissa, static_cast<int>(bounded));
  }

  // 2^k for |k| < 1023.
  static double power_of_two(std::int64_t k) noexcept {
    const std::int64_t bits = (k + 1023) * (std::int64_t{1} << 52);
    double x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }
};

// Mantissa in [1/2, 1). The fields are taken from the bits themselves; only subnormal and special numbers are left to
// std::frexp, a call that costs more than the rest of a feature's setup.
inline Scaled scaled(double x) noexcept {
  std::int64_t bits;
  std::memcpy(&bits, &x, sizeof x);
  const std::int64_t biased = (bits >> 52) & 0x7ff;
  if (biased != 0 && biased != 0x7ff) {
    bits = (bits & ~(std::int64_t{0x7ff} << 52)) | (std::int64_t{1022} << 52);
    std::memcpy(&x, &bits, sizeof x);
    return {x, biased - 1022};
  }
  int exponent = 0;
  const double mantissa = std::frexp(x, &exponent);
  return {mantissa, exponent};
}

inline Scaled operator*(Scaled a, Scaled b) noexcept { return {a.mantissa * b.mantissa, a.exponent + b.exponent}; }
inline Scaled operator/(Scaled a, Scaled b) noexcept { return {a.mantissa / b.mantissa, a.exponent - b.exponent}; }
inline Scaled operator-(Scaled a) noexcept { return {-a.mantissa, a.exponent}; }

// For mantissas near 1, as scaled() and exp() give them.
inline Scaled operator+(Scaled a, Scaled b) noexcept {
  if (b.mantissa == 0) return a;
  if (a.mantissa == 0) return b;
  if (a.exponent < b.exponent) return b + a;
  const std::int64_t shift = b.exponent - a.exponent;
  return {a.mantissa + std::ldexp(b.mantissa, shift < -2000 ? -2000 : static_cast<int>(shift)), a.exponent};
}

inline Scaled operator-(Scaled a, Scaled b) noexcept { return a + (-b); }

namespace detail {

inline constexpr DoubleDouble ln2{0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};

// exp(r) - 1 for |r| <= 0.35: Taylor's series at r / 16, the head in double-double, then (1 + e)^2 - 1 = 2 e + e^2 four
// times.
inline DoubleDouble expm1_reduced(DoubleDouble r) noexcept {
  constexpr DoubleDouble sixth{0x1.5555555555555p-3, 0x1.5555555555555p-57};
  constexpr DoubleDouble twenty_fourth{0x1.5555555555555p-5, 0x1.5555555555555p-59};
  const DoubleDouble x{r.hi / 16, r.lo / 16};
  const double h = x.hi;
  const double tail =
      h * h * h * h * h *
      (1.0 / 120 + h * (1.0 / 720 + h * (1.0 / 5040 + h * (1.0 / 40320 + h * (1.0 / 362880 + h * (1.0 / 3628800))))));
  const DoubleDouble square = x * x;
  DoubleDouble e =
      x + (square * 0.5 + (square * x * sixth + (square * square * twenty_fourth + DoubleDouble{tail, 0.0})));
  for (int k = 0; k < 4; ++k) e = e * 2.0 + e * e;
  return e;
}

}  // namespace detail

// exp(x), rounded once.
inline Scaled exp(DoubleDouble x) noexcept {
  if (!(std::abs(x.hi) < 1e12))
    return {1.0, x.hi < 0 ? -2'000'000'000'000 : 2'000'000'000'000};  // 0 or inf for any use
  const double k = std::nearbyint(x.hi / detail::ln2.hi);
  const DoubleDouble r = x - detail::ln2 * k;
  const DoubleDouble e = detail::expm1_reduced(r);
  return {(DoubleDouble{1.0, 0.0} + e).value(), static_cast<std::int64_t>(k)};
}

// log(x) for finite x > 0, subnormal ones included: one Newton step from the double logarithm of the mantissa.
inline DoubleDouble log(double x) noexcept {
  int exponent = 0;
  double mantissa = std::frexp(x, &exponent);
  if (mantissa < 0x1.6a09e667f3bcdp-1) {  // keep the mantissa's logarithm within [-0.35, 0.35]
    mantissa *= 2;
    --exponent;
  }
  const double guess = std::log(mantissa);
  const DoubleDouble inverse = DoubleDouble{1.0, 0.0} + detail::expm1_reduced({-guess, 0.0});
  const DoubleDouble rest = inverse * mantissa - DoubleDouble{1.0, 0.0};  // of the order of one rounding
  return detail::ln2 * static_cast<double>(exponent) + (DoubleDouble{guess, 0.0} + rest);
}

inline DoubleDouble log(Scaled x) noexcept { return log(x.mantissa) + detail::ln2 * static_cast<double>(x.exponent); }

// log(a / b) for a, b > 0: depends on the quotient alone, bit for bit, so a common power of two drops out.
inline DoubleDouble log_quotient(double a, double b) noexcept {
  const Scaled x = scaled(a), y = scaled(b);
  const double quotient = x.mantissa / y.mantissa;
  const DoubleDouble rest = DoubleDouble{x.mantissa, 0.0} - two_product(quotient, y.mantissa);
  return log(quotient) + DoubleDouble{rest.value() / y.mantissa / quotient, 0.0} +
         detail::ln2 * static_cast<double>(x.exponent - y.exponent);
}

}  // namespace jepa_ode
