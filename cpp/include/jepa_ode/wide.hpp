// Two packs side by side: the features that advance together in one loop. Each operation of a Runge-Kutta step waits
// for the one before it; a second, independent pack fills those waits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "jepa_ode/pack.hpp"

namespace jepa_ode {

constexpr std::size_t width = 2 * lanes;

struct Wide {
  Pack low, high;

  // Lane i, for the rare events that concern a single feature.
  double operator[](std::size_t i) const noexcept { return i < lanes ? low[i] : high[i - lanes]; }
  void set(std::size_t i, double x) noexcept { (i < lanes ? low : high)[i % lanes] = x; }
};

struct WideMask {
  Mask low, high;
};

inline Wide wide(double x) noexcept { return {pack(x), pack(x)}; }

inline Wide operator+(Wide a, Wide b) noexcept { return {a.low + b.low, a.high + b.high}; }
inline Wide operator-(Wide a, Wide b) noexcept { return {a.low - b.low, a.high - b.high}; }
inline Wide operator*(Wide a, Wide b) noexcept { return {a.low * b.low, a.high * b.high}; }
inline Wide operator/(Wide a, Wide b) noexcept { return {a.low / b.low, a.high / b.high}; }
inline Wide operator*(double a, Wide b) noexcept { return {a * b.low, a * b.high}; }
inline Wide operator+(double a, Wide b) noexcept { return {a + b.low, a + b.high}; }
inline Wide operator-(double a, Wide b) noexcept { return {a - b.low, a - b.high}; }
inline Wide operator/(double a, Wide b) noexcept { return {a / b.low, a / b.high}; }

inline WideMask operator<(Wide a, Wide b) noexcept { return {a.low < b.low, a.high < b.high}; }
inline WideMask operator<=(Wide a, Wide b) noexcept { return {a.low <= b.low, a.high <= b.high}; }
inline WideMask operator>(Wide a, double b) noexcept { return {a.low > b, a.high > b}; }
inline WideMask operator<(Wide a, double b) noexcept { return {a.low < b, a.high < b}; }
inline WideMask operator&(WideMask a, WideMask b) noexcept { return {a.low & b.low, a.high & b.high}; }
inline WideMask operator|(WideMask a, WideMask b) noexcept { return {a.low | b.low, a.high | b.high}; }
inline WideMask operator~(WideMask a) noexcept { return {~a.low, ~a.high}; }

inline Wide select(WideMask mask, Wide a, Wide b) noexcept {
  return {select(mask.low, a.low, b.low), select(mask.high, a.high, b.high)};
}

inline Wide abs(Wide x) noexcept { return {abs(x.low), abs(x.high)}; }
inline Wide sqrt(Wide x) noexcept { return {sqrt(x.low), sqrt(x.high)}; }
inline Wide min(Wide a, Wide b) noexcept { return {min(a.low, b.low), min(a.high, b.high)}; }
inline Wide max(Wide a, Wide b) noexcept { return {max(a.low, b.low), max(a.high, b.high)}; }
inline Wide fma(Wide a, Wide b, Wide c) noexcept { return {fma(a.low, b.low, c.low), fma(a.high, b.high, c.high)}; }
inline Wide fma(double a, Wide b, Wide c) noexcept { return fma(wide(a), b, c); }

inline std::uint32_t bits(WideMask mask) noexcept { return bits(mask.low) | bits(mask.high) << lanes; }

}  // namespace jepa_ode
