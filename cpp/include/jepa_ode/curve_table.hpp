// The master curve of an (objective, depth) as tables of polynomials: y = w/w* over the curve's own time tau.
//
// With v = x^q and a = (p-1)/q, in units of 1/(q |lambda| u*^(p-1)), the three ways to move (master_curve.hpp) are
//
//     rise    v' = v^(1+a) (1 - v)      from 0 at tau = -inf to 1; tau is chosen so that the nearest complex
//                                       singularities (v = inf) are at +-i pi: y bends fastest at tau = 0
//     fall    v' = v^(1+a) (1 - v)      from inf at tau = 0 down to 1
//     decay   v' = -v^(1+a) (1 + v)     from inf at tau = 0 down to 0
//
// Bins (bins.hpp) are of a distance g from the singularities: |tau| + 2 on each side of a rise, tau otherwise. Power
// laws look alike on every scale, so a binade of g needs as many bins as any other. Past tau = 61, at the latest, y
// is 1.
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

#include "jepa_ode/bins.hpp"
#include "jepa_ode/double_double.hpp"
#include "jepa_ode/master_curve.hpp"
#include "jepa_ode/pole_table.hpp"

namespace jepa_ode {

enum class Branch { rise, fall, decay };

class CurveTable {
 public:
  // Any table covers 2^-256 <= g < 2^256.
  static constexpr int lowest_binade = -256, highest_binade = 255;
  static constexpr double nearest = 0x1p-256, farthest = 0x1p256;
  // Rise and fall are over at tau = 61, within the binade [32, 64) of g.
  static constexpr double latest_end = 61.0;
  static constexpr int settled_binade = 5;
  static constexpr double rise_offset = 2.0;  // g = |tau| + rise_offset
  static constexpr int first_rise_binade = 1;
  // Whether tables of this curve are accurate. Not for MAE close to depth 1, where power laws turn into exponentials.
  static bool serves(const MasterCurve& curve) noexcept;

  CurveTable(const MasterCurve& curve, Branch branch);

  // Fills the bins of lowest <= g <= highest where they are not yet; only these may be read. Thread-safe.
  void cover(double lowest, double highest);

  // The last tau for which the table may be asked: from there on a rise or a fall is at 1 to the last bit, and a decay
  // is left to others.
  double last() const noexcept { return last_; }

  // The rows of coefficients, each a bin, in the order of time: row 0 is the first bin past tau = 0 of a rise, and the
  // bin at the lowest g of the others.
  const double* rows() const noexcept { return rows_.get() + before_ * static_cast<std::int64_t>(bins::coefficients); }

  // The same transposed, where packs can pick from windows of it (pack.hpp): coefficient k of row r is columns()[k *
  // column_length() + r], and a window after any row may be read.
  const double* columns() const noexcept { return columns_.get() + before_; }
  std::int64_t column_length() const noexcept { return column_length_; }

  // Whether a row is one of a bin that was filled.
  bool holds(std::int64_t row) const noexcept;

  // The row of a bin of g. On the plateau of a rise, where g falls with time, rows count backwards: -1, -2, ...
  static constexpr std::int64_t row_of(Branch branch, int binade, std::int64_t bin, bool plateau = false) noexcept {
    const int first = branch == Branch::rise ? first_rise_binade : lowest_binade;
    const std::int64_t count = (binade - first) * bins::per_binade + bin;
    return plateau ? -1 - count : count;
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

  // The same on packs of `point.x`, for rise and fall, where the curve serves packs.
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
  void fill_next(Frontier& frontier, int step, bool plateau);
  Point fill_bin(std::int64_t row, const Point& centre, double tau, double slope, double next_place) noexcept;

  const MasterCurve& curve_;
  Branch branch_;
  DoubleDouble alpha_, beta_, power_;  // alpha, beta of the curve and L/q, before rounding
  double offset_;                      // what the branch's integral is to be shifted by
  double last_;
  std::unique_ptr<const PoleTable> pole_;  // for starts on packs
  // Pages that no bin was written to take no memory.
  std::int64_t before_;  // rows of a negative number
  std::int64_t column_length_;
  std::unique_ptr<double[]> rows_, columns_;
  std::mutex filling_;
  Frontier lower_, upper_;
  std::atomic<int> lowest_, highest_;  // the same binades, for readers
};

}  // namespace jepa_ode
