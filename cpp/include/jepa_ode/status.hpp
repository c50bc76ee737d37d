// How a computation ended. One code per feature (or per network); Python's `jepa_ode.Status` is this enum.
#pragma once

#include <cstdint>

namespace jepa_ode {

enum class Status : std::int8_t {
  ok = 0,              // every requested value was reached within tolerance
  max_steps = 1,       // the step budget ran out; values not reached are NaN
  step_too_small = 2,  // the controller could not meet the tolerance with a representable step
  not_finite = 3,      // the right-hand side or the state stopped being finite
  stopped = 4,         // it was asked to stop early; values not reached are NaN
};

constexpr const char* message(Status status) noexcept {
  switch (status) {
    case Status::ok:
      return "reached every requested time";
    case Status::max_steps:
      return "the step budget ran out before the last requested time";
    case Status::step_too_small:
      return "no representable step meets the tolerance";
    case Status::not_finite:
      return "the state or the right-hand side is not finite";
    case Status::stopped:
      return "stopped early, as asked";
  }
  return "unknown status";
}

}  // namespace jepa_ode
