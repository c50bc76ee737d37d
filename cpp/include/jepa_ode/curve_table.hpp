// The master curve of an (objective, depth) as tables of polynomials: y = w/w* over the curve's own time tau.
//
// With v = x^q and a = (p-1)/q, in units of 1/(q |lambda| u*^(p-1)), the three ways to move (master_curve.hpp) are
//
//     rise    v' = v^(1+a) (1 - v)      from 0 at tau = -inf to 1; tau is chosen so that the nearest complex
//                                       singularities (v = inf) are at +-i pi: y bends fastest at tau = 0
//     fall    v' = v^(1+a) (1 - v)      from inf at tau = 0 down to 1
//     decay   v' = -v^(1+a) (1 + v)     from inf at tau = 0 down to 0
//
// Bins. A polynomial converges on a bin like the ratio of the bin's width to its distance from the singularities, and
// power laws look alike on every scale. So a bin is 1/32 of a binade of a distance g, which is |tau| + 2 on each side
// of a rise and tau otherwise: the exponent and the top bits of g's mantissa are the bin, the other bits the place in
// it. Eight coefficients, one cache line, then err by about a rounding. Past tau = 61, y is 1.
//
// Each bin is the Taylor series of the differential equation at its centre, to degree 12, economised to degree 7; where
// the centre lies is the analytic T of the master curve. Binades are filled when first asked for, outwards from one
// anchor, so a bin does not depend on who asked first.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include "jepa_ode/double_double.hpp"
#include "jepa_ode/master_curve.hpp"

namespace jepa_ode {

enum class Branch { rise, fall, decay };

class CurveTable {
 public:
  static constexpr std::size_t coefficients = 8;  // of a bin
  static constexpr int bin_bits = 5;              // a binade has 2^bin_bits bins
  static constexpr std::int64_t bins = 1 << bin_bits;
  static constexpr double half_bin = 0.5 / bins;
  // Any table covers 2^-256 <= g < 2^256.
  static constexpr int lowest_binade = -256, highest_binade = 255;
  static constexpr double nearest = 0x1p-256, farthest = 0x1p256;
  // Rise and fall are over at tau = 61, within the binade [32, 64) of g.
  static constexpr double settled = 61.0;
  static constexpr int settled_binade = 5;
  static constexpr double rise_offset = 2.0;  // g = |tau| + rise_offset
  static constexpr int first_rise_binade = 1;
  // Whether tables of this curve are accurate. Not for MAE close to depth 1, where power laws turn into exponentials.
  static bool serves(const MasterCurve& curve) noexcept;

  CurveTable(const MasterCurve& curve, Branch branch);

  // Fills the bins of lowest <= g <= highest where they are not yet; only these may be read. Thread-safe.
  void cover(double lowest, double highest);

  const double* rows() const noexcept { return rows_.get(); }

  // Row of the first bin of a binade of g. The bins of a rise past tau = 0 come first, those of its plateau after them.
  static constexpr std::int64_t rows_past_rise = (settled_binade - first_rise_binade + 1) * bins;
  static constexpr std::int64_t row_of(Branch branch, int binade) noexcept {
    return branch == Branch::rise ? rows_past_rise + (binade - first_rise_binade) * bins
                                  : (binade - lowest_binade) * bins;
  }

  // tau at v = x, or at v = 1/x where `inverted`; rest = 1 - x where that is small and known better than x.
  struct Point {
    bool inverted;
    double x;
    double rest;
  };
  double time(const Point& point) const noexcept;
  double time_of(DoubleDouble log_v) const noexcept;  // on a rise, v < 1

  // The same from the power x^alpha or, inverted, x^beta, and log x that the caller has.
  double time(const Point& point, double power, double log_x) const noexcept;

  // The same on packs, for rise and fall, where the curve serves packs.
  Pack time(Pack x, Pack rest, Pack power, Pack log_x) const noexcept;

  // How much later a point is whose logarithm exceeds that of `point.x` by a rounding; `power` as above.
  double delay(const Point& point, double power, double excess) const noexcept;

  DoubleDouble exponent(bool inverted) const noexcept { return inverted ? beta_ : alpha_; }

 private:
  struct Frontier {  // where a side of the table ends: its last binade and the curve at the centre of the next bin
    int binade;
    Point next;
  };

  Point find(double tau) const noexcept;
  void fill_next(Frontier& frontier, int step, bool past_rise);
  Point fill_bin(double* row, const Point& centre, double tau, double slope, double next_place) const noexcept;

  const MasterCurve& curve_;
  Branch branch_;
  DoubleDouble alpha_, beta_, power_;  // alpha, beta of the curve and L/q, before rounding
  double offset_;                      // what the branch's integral is to be shifted by
  std::unique_ptr<double[]> rows_;     // pages that no bin was written to take no memory
  std::mutex filling_;
  Frontier lower_, upper_;
  std::atomic<int> lowest_, highest_;  // the same binades, for readers
};

}  // namespace jepa_ode
