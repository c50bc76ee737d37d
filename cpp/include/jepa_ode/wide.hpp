// Two packs side by side: the features that advance together in one loop. Each operation of a Runge-Kutta step waits
// for the one before it; a second, independent pack fills those waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "jepa_ode/pack.hpp"

namespace jepa_ode {

constexpr std::size_t width = 2 * lanes;

struct Wide {
  Pack low, high;

  // Lane i, for what concerns a single feature: in memory, where one lane can be had without the others.
  double operator[](std::size_t i) const noexcept {
    double x;
    std::memcpy(&x, reinterpret_cast<const char*>(this) + i * sizeof x, sizeof x);
    return x;
  }
  void set(std::size_t i, double x) noexcept {
    std::memcpy(reinterpret_cast<char*>(this) + i * sizeof x, &x, sizeof x);
  }
};

struct WideMask {
  Mask low, high;
};

JEPA_ODE_INLINE Wide wide(double x) noexcept { return {pack(x), pack(x)}; }

JEPA_ODE_INLINE Wide operator+(Wide a, Wide b) noexcept { return {a.low + b.low, a.high + b.high}; }
JEPA_ODE_INLINE Wide operator-(Wide a, Wide b) noexcept { return {a.low - b.low, a.high - b.high}; }
JEPA_ODE_INLINE Wide operator*(Wide a, Wide b) noexcept { return {a.low * b.low, a.high * b.high}; }
JEPA_ODE_INLINE Wide operator/(Wide a, Wide b) noexcept { return {a.low / b.low, a.high / b.high}; }
JEPA_ODE_INLINE Wide operator*(double a, Wide b) noexcept { return {a * b.low, a * b.high}; }
JEPA_ODE_INLINE Wide operator+(double a, Wide b) noexcept { return {a + b.low, a + b.high}; }
JEPA_ODE_INLINE Wide operator-(double a, Wide b) noexcept { return {a - b.low, a - b.high}; }
JEPA_ODE_INLINE Wide operator/(double a, Wide b) noexcept { return {a / b.low, a / b.high}; }

JEPA_ODE_INLINE WideMask operator<(Wide a, Wide b) noexcept { return {a.low < b.low, a.high < b.high}; }
JEPA_ODE_INLINE WideMask operator<=(Wide a, Wide b) noexcept { return {a.low <= b.low, a.high <= b.high}; }
JEPA_ODE_INLINE WideMask operator>(Wide a, double b) noexcept { return {a.low > b, a.high > b}; }
JEPA_ODE_INLINE WideMask operator<(Wide a, double b) noexcept { return {a.low < b, a.high < b}; }
JEPA_ODE_INLINE WideMask operator&(WideMask a, WideMask b) noexcept { return {a.low & b.low, a.high & b.high}; }
JEPA_ODE_INLINE WideMask operator|(WideMask a, WideMask b) noexcept { return {a.low | b.low, a.high | b.high}; }
JEPA_ODE_INLINE WideMask operator~(WideMask a) noexcept { return {~a.low, ~a.high}; }

JEPA_ODE_INLINE Wide select(WideMask mask, Wide a, Wide b) noexcept {
  return {select(mask.low, a.low, b.low), select(mask.high, a.high, b.high)};
}

JEPA_ODE_INLINE Wide abs(Wide x) noexcept { return {abs(x.low), abs(x.high)}; }
JEPA_ODE_INLINE Wide sqrt(Wide x) noexcept { return {sqrt(x.low), sqrt(x.high)}; }
JEPA_ODE_INLINE Wide min(Wide a, Wide b) noexcept { return {min(a.low, b.low), min(a.high, b.high)}; }
JEPA_ODE_INLINE Wide max(Wide a, Wide b) noexcept { return {max(a.low, b.low), max(a.high, b.high)}; }
JEPA_ODE_INLINE Wide fma(Wide a, Wide b, Wide c) noexcept {
  return {fma(a.low, b.low, c.low), fma(a.high, b.high, c.high)};
}
JEPA_ODE_INLINE Wide fma(double a, Wide b, Wide c) noexcept { return fma(wide(a), b, c); }

JEPA_ODE_INLINE std::uint32_t bits(WideMask mask) noexcept { return bits(mask.low) | bits(mask.high) << lanes; }

}  // namespace jepa_ode
