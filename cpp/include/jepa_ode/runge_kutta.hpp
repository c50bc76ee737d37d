// Adaptive Runge-Kutta solution of an ensemble of features: each with its own step size and status.
#pragma once

#include <cstddef>
#include <cstdint>

#include "jepa_ode/ensemble.hpp"
#include "jepa_ode/objective.hpp"
#include "jepa_ode/parallel.hpp"
#include "jepa_ode/status.hpp"

namespace jepa_ode {

enum class RungeKuttaMethod { tsit5, dop853 };

struct RungeKuttaOptions {
  RungeKuttaMethod method = RungeKuttaMethod::tsit5;
  double rtol = 1e-8;                  // of w, >= 1e-13: below, rounding decides
  double atol = 0.0;                   // of w
  std::int64_t max_steps = 1'000'000;  // per feature, rejected ones included
};

// Responses w [features x times], and per feature its status and the number of evaluations of its right-hand side.
// `times` is one non-decreasing row of n_times, or one row per feature. A value that was not reached is NaN.
//
// A feature's result depends on that feature alone, and its steps do not depend on the requested times: the values come
// from dense output, the last one included. Memory does not grow with the number of steps.
void solve_runge_kutta(Objective objective, double depth, const Ensemble& features, const double* times,
                       std::size_t n_times, bool row_per_feature, const RungeKuttaOptions& options, unsigned threads,
                       Interrupt& interrupt, double* w, Status* status, std::int64_t* evaluations);

}  // namespace jepa_ode
