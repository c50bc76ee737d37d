// The tables against the analytic curve: y(tau(v)) = v^(L/q) for v all along each branch.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "check.hpp"
#include "jepa_ode/curve_table.hpp"
#include "jepa_ode/exact_curve.hpp"

using namespace jepa_ode;

namespace {

constexpr Branch branches[] = {Branch::rise, Branch::fall, Branch::decay};

double look_up(const CurveTable& table, Branch branch, double tau) {
  const double g = branch == Branch::rise ? std::abs(tau) + CurveTable::rise_offset : tau;
  int exponent = 0;
  const double mantissa = 2 * std::frexp(g, &exponent);  // in [1, 2)
  const auto bin = static_cast<std::int64_t>((mantissa - 1) * static_cast<double>(bins::per_binade));
  const double centre = 1 + static_cast<double>(2 * bin + 1) * bins::half;
  const std::int64_t row = CurveTable::row_of(branch, exponent - 1, bin, branch == Branch::rise && tau < 0);
  const double* const c = table.rows() + 8 * row;
  for (int k = 0; k < 8 && window > 0; ++k) CHECK(table.columns()[k * table.column_length() + row] == c[k]);
  double sum = 0.0;
  for (int k = 8; k-- > 0;) sum = sum * (mantissa - centre) + c[k];
  return sum;
}

// A point of a branch, from one end of the double range of responses to the other, most of them near the bend.
CurveTable::Point random_point(Branch branch, double steepness, std::mt19937_64& random) {
  std::uniform_real_distribution<double> uniform(-1, 1);
  if (branch == Branch::decay) {
    const double log_v = 20 / steepness * uniform(random);
    const bool inverted = log_v > -std::log(2.0);
    return {inverted, std::exp(inverted ? -log_v : log_v), 1.0};
  }
  double logit = 30 * uniform(random);
  if (logit < 0) logit /= steepness;
  const double rest = 1 / (1 + std::exp(logit));
  return rest < 0x1p-40
             ? CurveTable::Point{branch == Branch::fall, 1 - rest, rest}
             : CurveTable::Point{branch == Branch::fall, 1 / (1 + std::exp(-logit)), 1 - 1 / (1 + std::exp(-logit))};
}

}  // namespace

TEST(tables_are_the_curve) {
  std::mt19937_64 random(7);
  for (const Objective objective : {Objective::jepa, Objective::mae}) {
    for (const double depth : {1.0, 1.3, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 9.3, 16.0, 64.0, 300.0}) {
      const MasterCurve curve(objective, depth);
      if (!CurveTable::serves(curve)) continue;
      for (const Branch branch : branches) {
        CurveTable table(curve, branch);
        table.cover(branch == Branch::rise ? CurveTable::rise_offset : 0x1p-40, 0x1p40);
        double worst = 0.0;
        for (int k = 0; k < 4000; ++k) {
          const CurveTable::Point at = random_point(branch, std::max(1.0, -curve.alpha), random);
          const double tau = table.time(at), g = std::abs(tau);
          if (g > (branch != Branch::decay && tau > 0 ? CurveTable::latest_end : 1e12) || g < 0x1p-39) continue;
          const DoubleDouble log_v = at.rest < 0x1p-40 ? DoubleDouble{std::log1p(-at.rest), 0.0} : jepa_ode::log(at.x);
          const double y = jepa_ode::exp(log_v * curve.depth_over_q * (at.inverted ? -1.0 : 1.0)).value();
          worst = std::max(worst, std::abs(look_up(table, branch, tau) / y - 1));
        }
        // Relative to u, as E is: w = u^L. What remains is the noise of T, most where a deep fall's integral cancels.
        const double of_u = worst / depth;
        CHECK(of_u < 8 * 0x1p-52);
        if (of_u >= 8 * 0x1p-52)
          std::printf("depth %g, branch %d: %.1f\n", depth, static_cast<int>(branch), of_u * 0x1p52);
      }
    }
  }
}

TEST(packs_of_starts_agree_with_single_ones) {
  std::mt19937_64 random(8);
  for (const Objective objective : {Objective::jepa, Objective::mae}) {
    for (const double depth : {1.0, 2.0, 2.25, 4.0, 8.0}) {
      const MasterCurve curve(objective, depth);
      if (!CurveTable::serves(curve) || !curve.serves_packs()) continue;
      for (const Branch branch : {Branch::rise, Branch::fall}) {
        const CurveTable table(curve, branch);
        for (int k = 0; k < 500; ++k) {
          Pack x{}, rest{}, power{}, log_x{};
          double single[lanes];
          for (std::size_t i = 0; i < lanes; ++i) {
            const CurveTable::Point at = random_point(branch, std::max(1.0, -curve.alpha), random);
            x[i] = at.x;
            rest[i] = at.rest;
            log_x[i] = at.rest < 0x1p-40 ? std::log1p(-at.rest) : std::log(at.x);
            power[i] = std::exp(log_x[i] * (at.inverted ? curve.beta : curve.alpha));
            single[i] = table.time(at, power[i], log_x[i]);
          }
          const Pack together = table.time(x, rest, power, log_x);
          // tau is a difference of terms of size 1 to 3 near its zero
          for (std::size_t i = 0; i < lanes; ++i) {
            CHECK(std::abs(together[i] - single[i]) <= 64 * 0x1p-53 * std::max(1.0, std::abs(single[i])) ||
                  (branch == Branch::fall && std::abs(together[i] / single[i] - 1) < 64 * 0x1p-53));
          }
        }
      }
    }
  }
}

TEST(any_time_is_covered) {
  const MasterCurve curve(Objective::jepa, 2.5);
  for (const Branch branch : branches) {
    CurveTable to_the_end(curve, branch), beyond(curve, branch);
    to_the_end.cover(CurveTable::nearest, CurveTable::farthest);
    beyond.cover(0.0, std::numeric_limits<double>::infinity());
    const int first = branch == Branch::rise ? CurveTable::first_rise_binade : CurveTable::lowest_binade;
    const int last = branch == Branch::decay ? CurveTable::highest_binade : CurveTable::settled_binade;
    const auto rows = static_cast<std::size_t>(last + 1 - first) * bins::per_binade;
    CHECK(std::memcmp(to_the_end.rows(), beyond.rows(), rows * 64) == 0);
    CHECK(beyond.rows()[8 * (rows - 1)] != 0);
  }
}

TEST(bins_do_not_depend_on_the_order_in_which_they_are_made) {
  const MasterCurve curve(Objective::jepa, 2.5);
  for (const Branch branch : branches) {
    const double low = branch == Branch::rise ? 2.0 : 0x1p-20, high = branch == Branch::fall ? 32.0 : 0x1p30;
    CurveTable at_once(curve, branch), step_by_step(curve, branch);
    at_once.cover(low, high);
    for (double g = 1; g >= low || g <= high; g *= 2) {
      if (1 / g >= low) step_by_step.cover(1 / g, 1.0);
      if (g <= high && g >= 2) step_by_step.cover(2.0, g);
      if (1 / g < low && g > high) break;
    }
    const bool plateau = branch == Branch::rise;  // whose rows count backwards
    const std::int64_t one = CurveTable::row_of(branch, std::ilogb(low), 0, plateau),
                       other = CurveTable::row_of(branch, std::ilogb(high), bins::per_binade - 1, plateau);
    const std::int64_t first = std::min(one, other), last = std::max(one, other) + 1;
    CHECK(std::memcmp(at_once.rows() + 8 * first, step_by_step.rows() + 8 * first,
                      static_cast<std::size_t>(last - first) * 64) == 0);
  }
}

TEST(curves_that_have_settled_are_at_their_end) {
  for (const Objective objective : {Objective::jepa, Objective::mae}) {
    for (const double depth : {1.0, 2.0, 4.5, 64.0, 400.0}) {
      const MasterCurve curve(objective, depth);
      if (!CurveTable::serves(curve)) continue;
      for (const Branch branch : {Branch::rise, Branch::fall}) {
        const CurveTable table(curve, branch);
        const double last = table.last();
        CHECK(last <= CurveTable::latest_end);
        CHECK(std::abs(look_up(table, branch, last) - 1) <= 0x1p-52);
        CHECK(std::abs(look_up(table, branch, last - 5) - 1) >= 0x1p-52);  // and not for long
      }
    }
  }
}

TEST(curves_are_shared_and_made_once) {
  const auto first = ExactCurve::of(Objective::jepa, 3.5);
  CHECK(ExactCurve::of(Objective::jepa, 3.5) == first);
  CHECK(ExactCurve::of(Objective::mae, 3.5) != first);
  // The last sixteen are kept.
  for (int k = 0; k < 14; ++k) CHECK(ExactCurve::of(Objective::jepa, 10 + k)->tabulated());
  CHECK(ExactCurve::of(Objective::jepa, 3.5) == first);
  for (int k = 0; k < 16; ++k) CHECK(ExactCurve::of(Objective::jepa, 30 + k)->tabulated());
  CHECK(ExactCurve::of(Objective::jepa, 3.5) != first);
  CHECK(!ExactCurve::of(Objective::mae, 1.1)->tabulated());

  std::vector<const double*> rows(8);
  std::vector<std::thread> threads;
  for (std::size_t k = 0; k < rows.size(); ++k) {
    threads.emplace_back([&rows, k] {
      CurveTable& table = ExactCurve::of(Objective::jepa, 7.25)->table(Branch::rise);
      table.cover(2.0, 0x1p20);
      rows[k] = table.rows();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const double* row : rows) CHECK(row == rows[0]);
}
