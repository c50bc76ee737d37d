// The order conditions (order_conditions.hpp) hold for the methods, and fail for what is not one: the proofs made at
// compile time can fail.
#include "check.hpp"
#include "jepa_ode/order_conditions.hpp"
#include "jepa_ode/tableau.hpp"

namespace {

using namespace jepa_ode;
using namespace jepa_ode::order_conditions;

TEST(trees_are_counted_as_in_the_books) {
  const int expected[most_nodes] = {1, 1, 2, 4, 9, 20, 48, 115};
  for (std::size_t nodes = 1; nodes <= most_nodes; ++nodes) {
    Tree tree = first_tree(nodes);
    int count = 1;
    while (nodes > 1 && next_tree(tree)) ++count;
    CHECK(count == expected[nodes - 1]);
  }
}

TEST(density_of_known_trees) {
  const Tree tall{4, {0, 1, 2, 3}};   // gamma = 4!
  const Tree bushy{4, {0, 1, 1, 1}};  // gamma = 4
  CHECK((weights<Tsit5, 6>(tall).gamma) == 24);
  CHECK((weights<Tsit5, 6>(bushy).gamma) == 4);
  CHECK_CLOSE((weights<Tsit5, 6>(bushy).phi[3]), 0.9 * 0.9 * 0.9, 1e-14);  // c_4^3
}

template <class Method>
void check_orders() {
  for (std::size_t nodes = 1; nodes <= static_cast<std::size_t>(Method::order); ++nodes) {
    CHECK(violation<Method>(nodes) < rounding);
    CHECK(dense_violation<Method>(nodes, 1.0) < rounding);  // dense output ends at the step
  }
  for (std::size_t nodes = 1; nodes <= static_cast<std::size_t>(Method::dense_order); ++nodes) {
    for (double theta = 0.1; theta < 1; theta += 0.1) CHECK(dense_violation<Method>(nodes, theta) < rounding);
  }
  CHECK(row_sum_violation<Method>() < rounding);
}

TEST(orders_of_tsit5) { check_orders<Tsit5>(); }
TEST(orders_of_dop853) { check_orders<Dop853>(); }

TEST(no_order_is_undersold) {
  CHECK(violation<Tsit5>(6) > 1e-5);
  CHECK(dense_violation<Tsit5>(5, 0.5) > 1e-5);
  CHECK(dense_violation<Dop853>(8, 0.5) > 1e-6);
}

// Tsit5 with one coefficient wrong in the twelfth digit.
struct Table {
  double rows[Tsit5::extended][Tsit5::extended];
  constexpr const double* operator[](std::size_t i) const { return rows[i]; }
};

constexpr Table misprinted() {
  Table table{};
  for (std::size_t i = 0; i < Tsit5::extended; ++i) {
    for (std::size_t j = 0; j < Tsit5::extended; ++j) table.rows[i][j] = Tsit5::a[i][j];
  }
  table.rows[5][2] += 1e-11;
  return table;
}

struct Misprint : Tsit5 {
  static constexpr Table a = misprinted();
};

TEST(a_misprint_is_found) {
  CHECK(row_sum_violation<Misprint>() > rounding);
  CHECK(violation<Misprint>(3) > rounding);
  CHECK(violation<Misprint>(1) < rounding);  // which knows the weights alone
}

}  // namespace
