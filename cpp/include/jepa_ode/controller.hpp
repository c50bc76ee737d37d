// Step-size control: error norm in, verdict and next step out.
#pragma once

#include <algorithm>
#include <cmath>

namespace jepa_ode {

// Proportional-integral control (Gustafsson, 1991; Hairer & Wanner, Solving ODEs II, IV.2) for an error estimate that
// behaves like h^order. `error` is in units of the tolerance: a step is accepted when it is at most 1. The integral
// part remembers the last accepted error, which foresees a rate that grows or falls geometrically: the whole of a
// feature's plateau.
class Controller {
 public:
  explicit Controller(int order) noexcept : proportional_(0.7 / order), integral_(0.4 / order), plain_(1.0 / order) {}

  static bool accepts(double error) noexcept { return error <= 1; }  // false for NaN

  // What to multiply the step by after an accepted step.
  double after_accepted(double error) noexcept {
    const double log_error = std::log(std::max(error, smallest_error));
    const double wish = safety * std::exp(integral_ * last_log_error_ - proportional_ * log_error);
    last_log_error_ = log_error;
    const double largest = just_rejected_ ? 1.0 : largest_factor;  // no growth straight after a rejection
    just_rejected_ = false;
    return std::clamp(wish, smallest_factor, largest);
  }

  // What to multiply the step by after a rejected one. An error that is not finite says nothing but "too far".
  double after_rejected(double error) noexcept {
    just_rejected_ = true;
    if (!std::isfinite(error)) return smallest_factor;
    return std::clamp(safety * std::exp(-plain_ * std::log(error)), smallest_factor, 0.9);
  }

 private:
  static constexpr double safety = 0.9;
  static constexpr double smallest_factor = 0.2;
  static constexpr double largest_factor = 5.0;
  static constexpr double smallest_error = 1e-10;  // an estimate may vanish by chance or symmetry

  double proportional_, integral_, plain_;
  double last_log_error_ = 0.0;
  bool just_rejected_ = false;
};

}  // namespace jepa_ode
