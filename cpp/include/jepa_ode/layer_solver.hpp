// Adaptive solution of an ensemble of layer systems: each feature with its own step size, method and status.
#pragma once

#include <cstddef>
#include <cstdint>

#include "jepa_ode/ensemble.hpp"
#include "jepa_ode/layer_system.hpp"
#include "jepa_ode/parallel.hpp"
#include "jepa_ode/runge_kutta.hpp"
#include "jepa_ode/status.hpp"

namespace jepa_ode {

struct LayerProblem {
  LayerTarget target = LayerTarget::own;
  double depth = 1.0;
  double decay = 0.0;                 // eta
  double tau = 0.0;                   // of the average
  Ensemble features{};                // eps = w(0)
  const double* sigma2_y = nullptr;   // needed where the target is differentiated
  const double* predictor = nullptr;  // v(0); null: balanced, eps^(1/L)
};

// Where to write, one row of the times per feature: the response |a|^L, v, and b unless null.
struct LayerOutput {
  double* response = nullptr;
  double* predictor = nullptr;
  double* target = nullptr;
  Status* status = nullptr;
  std::int64_t* evaluations = nullptr;
};

// `times` is one non-decreasing row of n_times finite numbers, or one row per feature. A value that was not reached is
// NaN. A feature's result depends on that feature alone, and its steps do not depend on the requested times. Memory
// does not grow with the number of steps.
void solve_layers(const LayerProblem& problem, const double* times, std::size_t n_times, bool row_per_feature,
                  const RungeKuttaOptions& options, unsigned threads, Interrupt& interrupt, const LayerOutput& output);

}  // namespace jepa_ode
