// The features of a block, sorted by how they move and expressed in the units of their master curve, so that all that
// depends on the time is a multiplication and a look into a table (curve_table.hpp).
#pragma once

#include <cstddef>
#include <vector>

#include "jepa_ode/ensemble.hpp"
#include "jepa_ode/exact_curve.hpp"

namespace jepa_ode {

// The kinds of motion: the branches of the master curve in the order of `Branch`, and the closed forms of MAE at depth
// 1 (logistic) and of lambda = 0 (algebraic).
enum class Kind { rise, fall, decay, logistic_rise, logistic_fall, logistic_decay, algebraic };
constexpr std::size_t kinds = 7;

// Features of one kind: numbers in one order, ready for packs.
//
//                           start         rate                   scale           end: from then on
//     rise, fall            tau(0)        q lambda u*^(p-1)      w*              w is w*
//     decay                 tau(0)        q |lambda| u*^(p-1)    w* of |lambda|  out of the table's reach
//     logistic_rise, _fall  (eps/w*)^2    2 lambda               w*              w is w*
//     logistic_decay        the same      2 |lambda|             w* of |lambda|  out of reach
//     algebraic             -             2 L sigma^2 eps^2      0               out of reach
struct Motion {
  std::vector<std::size_t> feature;
  std::vector<double> start, rate, scale, end, eps;

  std::size_t size() const noexcept { return feature.size(); }
};

struct Motions {
  Motion of_kind[kinds];
  std::vector<std::size_t> others;  // numbers so large or small that only FeatureCurve takes them

  // Of features [begin, end).
  Motions(ExactCurve& curve, const Ensemble& features, std::size_t begin, std::size_t end);

  const Motion& operator[](Kind kind) const noexcept { return of_kind[static_cast<std::size_t>(kind)]; }

  // Makes the tables ready for what these features meet until `last_time`.
  void cover(ExactCurve& curve, double last_time) const;
};

}  // namespace jepa_ode
