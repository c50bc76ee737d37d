// The integral K of master_curve.hpp on packs, from tables: what the starts of features ask for, where the series of
// PoleIntegral would take a quarter of the time of a whole solve.
//
// With z = 1 - v, K(v)/v^g is singular at z = 0 alone: bins of z (bins.hpp) down to a radius, a power of two, within
// which K(v) + log z, regular there, has bins of its own: those of z + radius.
#pragma once

#include <cstdint>
#include <vector>

#include "jepa_ode/bins.hpp"
#include "jepa_ode/master_curve.hpp"
#include "jepa_ode/pack.hpp"

namespace jepa_ode {

class PoleTable {
 public:
  explicit PoleTable(const PoleIntegral& integral);

  // K(v), given 1 - v, v^g and log(1 - v).
  Pack value(Pack one_minus_v, Pack power, Pack log_one_minus_v) const noexcept;

 private:
  const bool logarithmic_;  // g = 1, where K(v) = -log(1 - v) and there is no table
  const double constant_;   // of K(v) + log z at z = 0
  const int binade_;        // of the radius
  std::vector<double> rows_;
};

}  // namespace jepa_ode
