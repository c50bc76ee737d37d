// A master curve with its tables, shared by all calls that use it.
#pragma once

#include <memory>
#include <mutex>

#include "jepa_ode/curve_table.hpp"
#include "jepa_ode/master_curve.hpp"
#include "jepa_ode/objective.hpp"

namespace jepa_ode {

class ExactCurve {
 public:
  // The curve of an (objective, depth). The last sixteen that have tables are kept. Thread-safe.
  static std::shared_ptr<ExactCurve> of(Objective objective, double depth);

  ExactCurve(Objective objective, double depth) : curve_(objective, depth), tabulated_(CurveTable::serves(curve_)) {}

  const MasterCurve& curve() const noexcept { return curve_; }
  bool tabulated() const noexcept { return tabulated_; }

  // The table of a branch, made when first asked for; only where tabulated(). Thread-safe.
  CurveTable& table(Branch branch);

 private:
  const MasterCurve curve_;
  const bool tabulated_;
  std::once_flag made_[3];
  std::unique_ptr<CurveTable> tables_[3];
};

}  // namespace jepa_ode
