// The exact solution of an ensemble of features (THEORY.md 3), on threads.
#pragma once

#include <cstddef>

#include "jepa_ode/ensemble.hpp"
#include "jepa_ode/master_curve.hpp"
#include "jepa_ode/parallel.hpp"
#include "jepa_ode/status.hpp"

namespace jepa_ode {

// Responses w [features x times]. `times` is one row of n_times, or one row per feature.
// A response too large for a double is NaN, with Status::not_finite.
void solve_exact(const MasterCurve& curve, const Ensemble& features, const double* times, std::size_t n_times,
                 bool row_per_feature, unsigned threads, Interrupt& interrupt, double* w, Status* status);

// Per feature: FeatureCurve::time_to_reach and ::time_to_fraction.
void time_to_reach(const MasterCurve& curve, const Ensemble& features, const double* w, unsigned threads,
                   Interrupt& interrupt, double* t);
void critical_time(const MasterCurve& curve, const Ensemble& features, double fraction, unsigned threads,
                   Interrupt& interrupt, double* t);

}  // namespace jepa_ode
