// The exact solution of an ensemble of features (THEORY.md 3), on threads.
#pragma once

#include <cstddef>

#include "jepa_ode/ensemble.hpp"
#include "jepa_ode/exact_curve.hpp"
#include "jepa_ode/parallel.hpp"
#include "jepa_ode/status.hpp"

namespace jepa_ode {

// Responses w [features x times], as double or float. `times` is one non-decreasing row of n_times, or one row per
// feature. A response too large for the type is NaN, with Status::not_finite.
template <class Real>
void solve_exact(ExactCurve& curve, const Ensemble& features, const double* times, std::size_t n_times,
                 bool row_per_feature, unsigned threads, Interrupt& interrupt, Real* w, Status* status);

// Per feature: FeatureCurve::time_to_reach and ::time_to_fraction.
void time_to_reach(ExactCurve& curve, const Ensemble& features, const double* w, unsigned threads, Interrupt& interrupt,
                   double* t);
void critical_time(ExactCurve& curve, const Ensemble& features, double fraction, unsigned threads, Interrupt& interrupt,
                   double* t);

}  // namespace jepa_ode
