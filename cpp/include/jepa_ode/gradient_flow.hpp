// The gradient flow of a linear network: adaptive Runge-Kutta on all weights at once, observed at given times.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "jepa_ode/flow_events.hpp"
#include "jepa_ode/linear_network.hpp"
#include "jepa_ode/parallel.hpp"
#include "jepa_ode/status.hpp"

namespace jepa_ode {

// An explicit pair, the stabilised method, or dop853 that gives way to it while stability limits its steps
// (flow_step.hpp).
enum class FlowMethod { automatic, tsit5, dop853, rock4 };

struct FlowSettings {
  FlowMethod method = FlowMethod::automatic;
  double rtol = 1e-6;
  double atol = 1e-9;
  std::int64_t max_steps = 100'000;  // attempts, accepted or not
};

// Shown the weights (encoder and predictor) at the k-th time, on the thread of the flow; what it throws ends the flow.
using FlowVisit = std::function<void(std::size_t, const double*)>;

// What to observe and where to write it; a null pointer means: not wanted. Times are non-negative and non-decreasing,
// the network starts at time 0. Rows that were not reached are filled with NaN.
struct FlowObservation {
  const double* times = nullptr;
  std::size_t count = 0;
  double* loss = nullptr;              // [count]; needs Moments::yy
  const double* directions = nullptr;  // [d, features], unit columns
  Index features = 0;
  double* response = nullptr;       // [features, count]
  double* weights = nullptr;        // [count, weights_size], encoder and predictor
  double* final_weights = nullptr;  // [weights_size], where the integration ended
  FlowVisit visit = {};
  EventSettings events;
};

struct FlowResult {
  Status status = Status::ok;
  std::size_t reached = 0;            // how many of the times have a value
  std::int64_t steps = 0;             // accepted
  std::int64_t stabilised_steps = 0;  // of these, steps of the stabilised method
  std::int64_t rejected = 0;
  std::int64_t nfev = 0;                       // right-hand sides
  double time = 0;                             // where the integration ended
  std::vector<FlowEvents::Interval> plateaus;  // of the loss
};

// Told the time reached, now and then and on the calling thread; true stops the flow.
using FlowProgress = std::function<bool(double)>;

// Integrates from `start` (LinearNetworkFlow::state_size() values). Steps do not depend on the times observed, except
// that the flow ends at the last one. Throws Interrupted when the interrupt or the progress callback asks to stop.
FlowResult gradient_flow(LinearNetworkFlow& flow, const double* start, const FlowSettings& settings,
                         const FlowObservation& observation, Interrupt& interrupt, const FlowProgress& progress = {});

}  // namespace jepa_ode
