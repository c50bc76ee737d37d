// Logarithms to twice a double's digits and exponentials rounded once, on packs: double_double.hpp for ordinary
// numbers.
//
// Source of the reductions: P. T. P. Tang, Table-driven implementation of the logarithm function, ACM TOMS 16 (1990).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "jepa_ode/double_double.hpp"
#include "jepa_ode/pack.hpp"

namespace jepa_ode {

struct PackPair {  // an unevaluated sum
  Pack hi;
  Pack lo;
};

inline PackPair two_sum(Pack a, Pack b) noexcept {
  const Pack sum = a + b;
  const Pack b_part = sum - a;
  return {sum, (a - (sum - b_part)) + (b - b_part)};
}

inline PackPair quick_two_sum(Pack a, Pack b) noexcept {  // |a| >= |b|
  const Pack sum = a + b;
  return {sum, b - (sum - a)};
}

inline PackPair two_product(Pack a, Pack b) noexcept {
  const Pack product = a * b;
#if defined(__FMA__)
  return {product, fma(a, b, -product)};
#else
  const Pack splitter = pack(134217729.0);  // 2^27 + 1: Veltkamp's split
  const Pack a_scaled = splitter * a, b_scaled = splitter * b;
  const Pack a_hi = a_scaled - (a_scaled - a), a_lo = a - a_hi;
  const Pack b_hi = b_scaled - (b_scaled - b), b_lo = b - b_hi;
  return {product, ((a_hi * b_hi - product) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo};
#endif
}

inline PackPair operator+(PackPair a, PackPair b) noexcept {
  const PackPair sum = two_sum(a.hi, b.hi);
  return quick_two_sum(sum.hi, sum.lo + (a.lo + b.lo));
}

inline PackPair operator-(PackPair a) noexcept { return {-a.hi, -a.lo}; }

inline PackPair operator-(PackPair a, PackPair b) noexcept { return a + -b; }

inline PackPair operator*(PackPair a, DoubleDouble b) noexcept {
  const PackPair product = two_product(a.hi, pack(b.hi));
  return quick_two_sum(product.hi, product.lo + (a.hi * pack(b.lo) + a.lo * pack(b.hi)));
}

namespace detail {

inline constexpr double ln2_head = 0x1.62e42fefa38p-1;  // 42 bits: its product with an exponent is exact
inline constexpr double ln2_tail = 0x1.ef35793c7673p-45;

// For c in each of 128 parts of [sqrt(1/2), sqrt(2)): a reciprocal r of nine bits, and -log(r).
struct LogTable {
  static constexpr std::size_t size = 128;
  static constexpr int part_bits = 45;                       // of a double within a part
  static constexpr std::int64_t first = 0x3fe6a09e667f3bcd;  // sqrt(1/2)
  std::array<double, size> reciprocal{}, minus_log{}, rest{};

  LogTable() noexcept {
    for (std::size_t k = 0; k < size; ++k) {
      const std::int64_t middle = first + (static_cast<std::int64_t>(2 * k + 1) << (part_bits - 1));
      double c;
      std::memcpy(&c, &middle, sizeof c);
      reciprocal[k] = std::nearbyint(512 / c) / 512;
      const DoubleDouble l = -log(reciprocal[k]);
      minus_log[k] = l.hi;
      rest[k] = l.lo;
    }
  }
};

inline const LogTable log_table;

}  // namespace detail

// log(x) with an absolute error below 2^-64 max(1, |log x|), for normal x > 0.
inline PackPair log(Pack x) noexcept {
  using detail::LogTable;
  const IntPack offset = bits_of(x) - int_pack(LogTable::first);
  const IntPack exponent = offset >> 52;
  const Pack mantissa = from_bits(bits_of(x) - (exponent << 52));  // in [sqrt(1/2), sqrt(2))
  const IntPack part = (offset >> LogTable::part_bits) & int_pack(LogTable::size - 1);
  const Pack r = gather(detail::log_table.reciprocal.data(), part);
  const PackPair product = two_product(mantissa, r);
  const PackPair above_one = quick_two_sum(product.hi - pack(1.0), product.lo);
  const Pack f = above_one.hi;  // |f| < 2^-7
  Pack tail = pack(1.0 / 9);
  for (const double c : {-1.0 / 8, 1.0 / 7, -1.0 / 6, 1.0 / 5, -1.0 / 4, 1.0 / 3}) tail = fma(tail, f, pack(c));
  const PackPair square = two_product(f, pack(-0.5) * f);
  const Pack e = to_double(exponent);
  const PackPair head = two_sum(e * pack(detail::ln2_head), gather(detail::log_table.minus_log.data(), part));
  const PackPair first = two_sum(head.hi, f);
  const PackPair second = two_sum(first.hi, square.hi);
  const Pack low = ((head.lo + first.lo) + (second.lo + square.lo) + above_one.lo) +
                   (fma(e, pack(detail::ln2_tail), gather(detail::log_table.rest.data(), part)) + f * f * f * tail);
  return quick_two_sum(second.hi, low);
}

// log(a / b) of ordinary numbers: depends on the quotient alone, bit for bit, so a common power of two drops out.
inline PackPair log_quotient(Pack a, Pack b) noexcept {
  const Pack quotient = a / b;
  const PackPair product = two_product(quotient, b);
  const PackPair l = log(quotient);
  return quick_two_sum(l.hi, l.lo + ((a - product.hi) - product.lo) / a);
}

namespace detail {

// (exp(r) - 1 - r) / r^2 for |r| <= log(2)/2: the polynomial through it at the zeros of the Chebyshev polynomial of
// degree 10, which leaves 0.12 * 2^-53 in exp(r). Summed in pairs of pairs: the latency of one chain would rule.
inline Pack exp_tail(Pack r) noexcept {
  const Pack r2 = r * r, r4 = r2 * r2;
  const auto pair = [&](double c0, double c1) noexcept { return fma(pack(c1), r, pack(c0)); };
  const Pack low =
      fma(pair(0x1.5555555553d61p-5, 0x1.11111111109b3p-7), r2, pair(0x1.0000000000001p-1, 0x1.5555555555556p-3));
  const Pack high =
      fma(pair(0x1.a019b90aa5587p-16, 0x1.71de0dacd6939p-19), r2, pair(0x1.6c16c1788c7f3p-10, 0x1.a01a01a7c4839p-13));
  return fma(fma(pair(0x1.28918860dd4aap-22, 0x1.af38ad617009fp-26), r4, high), r4, low);
}

inline constexpr double log2_e = 0x1.71547652b82fep0;

}  // namespace detail

// exp(x) for |x| <= 700, to 0.6 units of the last place.
inline Pack exp(PackPair x) noexcept {
  const Pack n = round(x.hi * pack(detail::log2_e));
  const PackPair r = quick_two_sum(x.hi - n * pack(detail::ln2_head), x.lo - n * pack(detail::ln2_tail));
  const PackPair sum = quick_two_sum(pack(1.0), r.hi);
  return ldexp(sum.hi + (sum.lo + fma(detail::exp_tail(r.hi), r.hi * r.hi, r.lo)), n);
}

struct Decay {
  Pack left;  // exp(-x)
  Pack gone;  // 1 - exp(-x), as accurate near x = 0
};

// Of 0 <= x <= 700, to 1.5 units of the last place: the short way, for inner loops.
inline Decay decay(Pack x) noexcept {
  const Pack shift = pack(0x1.8p52);
  const Pack shifted = fma(x, pack(-detail::log2_e), shift);  // n in its last bits
  const Pack n = shifted - shift;
  const Pack r = fma(n, pack(-detail::ln2_tail), fma(n, pack(-detail::ln2_head), -x));
  const Pack power = from_bits((bits_of(shifted) << 52) + bits_of(pack(1.0)));
  const Pack rest = power * fma(detail::exp_tail(r), r * r, r);
  return {power + rest, (pack(1.0) - power) - rest};
}

// What those functions take: far enough from the ends of the double range for quotients and powers.
constexpr double largest_exponent = 600.0;
inline bool ordinary(double x) noexcept { return x > 1e-250 && x < 1e250; }

}  // namespace jepa_ode
