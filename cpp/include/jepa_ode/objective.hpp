// The two training objectives and the exponents of their feature equations (THEORY.md 2 and 3).
#pragma once

namespace jepa_ode {

enum class Objective { jepa, mae };

// Both scalar flows are  u' = lambda u^p - sigma^2 u^(p+q) = lambda u^p (1 - (u/u*)^q),
// where u = w^(1/L) is the per-layer variable. For both objectives p + q = 2L + 1.
struct Exponents {
  double p;
  double q;
};

constexpr Exponents exponents(Objective objective, double depth) noexcept {
  return objective == Objective::jepa ? Exponents{2 * depth, 1.0} : Exponents{depth, depth + 1};
}

}  // namespace jepa_ode
