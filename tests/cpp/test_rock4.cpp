// The table of the stabilised method (rock4_table.hpp): order, error estimate, stability and damping of every member.
#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <iterator>
#include <vector>

#include "check.hpp"
#include "jepa_ode/order_conditions.hpp"
#include "jepa_ode/rock4_table.hpp"

namespace {

using namespace jepa_ode;
using namespace jepa_ode::order_conditions;

constexpr std::size_t rows = 61;  // of the longest member: its stages, and the end of the step

// A member as a Butcher tableau: row i holds the weights of the derivatives that stage i is made of.
struct Tableau {
  static double a[rows][rows];
};
double Tableau::a[rows][rows];

const double* recurrence(const Rock4Method& method) { return rock4_recurrences + method.recurrence; }

void fill_tableau(const Rock4Method& method) {
  for (auto& row : Tableau::a) std::fill(std::begin(row), std::end(row), 0.0);
  const auto s = static_cast<std::size_t>(method.stages), m = s - 4;
  for (std::size_t j = 1; j <= m; ++j) {
    const double mu = recurrence(method)[2 * j - 2], nu = recurrence(method)[2 * j - 1];
    for (std::size_t k = 0; k < rows; ++k) {
      Tableau::a[j][k] = nu * Tableau::a[j - 1][k] + (j > 1 ? (1 - nu) * Tableau::a[j - 2][k] : 0.0);
    }
    Tableau::a[j][j - 1] += mu;
  }
  const double (&a)[6] = method.a;
  const double last[5][4] = {{0, 0, 0, 0},
                             {a[0], 0, 0, 0},
                             {a[1], a[2], 0, 0},
                             {a[3], a[4], a[5], 0},
                             {method.b[0], method.b[1], method.b[2], method.b[3]}};
  for (std::size_t i = 1; i <= 4; ++i) {
    for (std::size_t k = 0; k < rows; ++k) Tableau::a[m + i][k] = Tableau::a[m][k];
    for (std::size_t j = 0; j < 4; ++j) Tableau::a[m + i][m + j] += last[i][j];
  }
}

// What a condition of order is violated by: of the step, and of the error estimate, whose weights should give 0.
struct Violation {
  double step, estimate;
};

Violation violation_of(const Rock4Method& method, std::size_t nodes) {
  const auto s = static_cast<std::size_t>(method.stages);
  Violation largest{0, 0};
  Tree tree = first_tree(nodes);
  do {
    const auto w = weights<Tableau, rows>(tree);
    double step = -1 / w.gamma, estimate = method.error[4] * w.phi[s];
    for (std::size_t j = 0; j < s; ++j) step += Tableau::a[s][j] * w.phi[j];
    for (std::size_t j = 0; j < 4; ++j) estimate += method.error[j] * w.phi[s - 4 + j];
    largest.step = std::max(largest.step, std::abs(step));
    largest.estimate = std::max(largest.estimate, std::abs(estimate));
  } while (nodes > 1 && next_tree(tree));
  return largest;
}

// One step for y' = z y, z complex.
std::complex<double> stability(const Rock4Method& method, std::complex<double> z) {
  std::complex<double> before = 1, y = 1;
  for (int j = 0; j < method.stages - 4; ++j) {
    const double mu = recurrence(method)[2 * j], nu = recurrence(method)[2 * j + 1];
    const std::complex<double> next = mu * z * y + nu * y + (1 - nu) * before;
    before = y;
    y = next;
  }
  const double (&a)[6] = method.a;
  const auto k1 = z * y, k2 = z * (y + a[0] * k1), k3 = z * (y + a[1] * k1 + a[2] * k2);
  const auto k4 = z * (y + a[3] * k1 + a[4] * k2 + a[5] * k3);
  return y + method.b[0] * k1 + method.b[1] * k2 + method.b[2] * k3 + method.b[3] * k4;
}

TEST(members_are_in_order_and_their_recurrences_do_not_overlap) {
  std::size_t end = 0;
  const Rock4Method* before = nullptr;
  for (const Rock4Method& method : rock4_methods) {
    CHECK(method.stages >= 5 && static_cast<std::size_t>(method.stages) < rows);
    CHECK(method.recurrence == end);
    end += 2 * static_cast<std::size_t>(method.stages - 4);
    if (before) CHECK(method.stages > before->stages && method.reach > before->reach);
    before = &method;
  }
  CHECK(end == std::size(rock4_recurrences));
}

TEST(steps_are_of_order_4_and_estimates_of_order_3) {
  for (const Rock4Method& method : rock4_methods) {
    fill_tableau(method);
    for (std::size_t nodes = 1; nodes <= 4; ++nodes) CHECK(violation_of(method, nodes).step < 1e-13);
    for (std::size_t nodes = 1; nodes <= 3; ++nodes) CHECK(violation_of(method, nodes).estimate < 1e-11);
    CHECK(violation_of(method, 5).step > 1e-6);
    CHECK(violation_of(method, 4).estimate > 1e-3);
  }
}

// Error at t = 2 of y' = y (0.7 - 1.1 y^2), y(0) = 0.3, MAE at depth 1, in steps of equal length.
double error_of_steps(const Rock4Method& method, int count) {
  fill_tableau(method);
  const auto s = static_cast<std::size_t>(method.stages);
  const double h = 2.0 / count;
  double y = 0.3;
  for (int step = 0; step < count; ++step) {
    double k[rows], stage = y;
    for (std::size_t i = 0; i <= s; ++i) {
      stage = y;
      for (std::size_t j = 0; j < i; ++j) stage += h * Tableau::a[i][j] * k[j];
      k[i] = stage * (0.7 - 1.1 * stage * stage);
    }
    y = stage;
  }
  return std::abs(y - std::sqrt(0.7 / (1.1 + (0.7 / 0.09 - 1.1) * std::exp(-2.8))));
}

TEST(fitted_order_is_4) {
  for (const Rock4Method& method : rock4_methods) {
    const double order = std::log2(error_of_steps(method, 32) / error_of_steps(method, 64));
    RECORD(3, "fitted order less order, rock4", std::abs(order - 4), 0.3);
  }
}

TEST(a_wrong_digit_is_seen) {
  Rock4Method misprinted = rock4_methods[3];
  misprinted.a[4] += 1e-10;
  fill_tableau(misprinted);
  CHECK(violation_of(misprinted, 4).step > 1e-12);
}

TEST(stable_up_to_the_reach_and_damped_beyond_the_slow_rates) {
  for (const Rock4Method& method : rock4_methods) {
    const double damping = std::clamp(0.12 * method.stages, 1.1, 2.3);
    const double eta = 1 / std::cosh(damping);
    for (int i = 0; i <= 20000; ++i) {
      const double z = -method.reach * i / 20000;
      const double R = std::abs(stability(method, z));
      CHECK(R <= 1 + 1e-9);
      if (z < -std::max(1.2, -1.3 * std::log(eta))) CHECK(R <= 1.002 * eta);
    }
    CHECK(std::abs(stability(method, -1.02 * method.reach)) > eta);  // it ends where the table says
  }
}

// The fast rates of JEPA's flow are not quite real.
TEST(stable_in_a_strip_about_the_axis) {
  for (const Rock4Method& method : rock4_methods) {
    const double width = 0.1 * method.stages;
    for (int i = 0; i <= 2000; ++i) {
      const double x = -method.reach * (0.1 + 0.8 * i / 2000);
      CHECK(std::abs(stability(method, {x, width})) <= 1);
    }
  }
}

}  // namespace
