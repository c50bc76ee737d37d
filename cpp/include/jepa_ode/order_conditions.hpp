// Proof, at compile time, that a method of tableau.hpp has the order it claims: every order condition, tree by tree.
//
// A Runge-Kutta solution agrees with the Taylor series to order N exactly when for each rooted tree t of at most N
// nodes
//
//     sum_i b_i Phi_i(t) = 1 / gamma(t),     Phi_i(t) = product over the root's branches s of sum_j a_ij Phi_j(s),
//                                            gamma(t) = (nodes of t) * product over the branches of gamma(s)
//
// (Butcher; Hairer, Norsett, Wanner, Solving ODEs I, II.2). There are 1, 1, 2, 4, 9, 20, 48, 115 trees of 1 to 8 nodes.
// They are visited as level sequences in the order of Beyer and Hedetniemi (SIAM J. Comput. 9 (1980) 706-712). A
// continuous extension satisfies the same with b_i(theta) and theta^N / gamma(t).
#pragma once

#include <cstddef>

#include "jepa_ode/tableau.hpp"

namespace jepa_ode {

namespace order_conditions {

constexpr std::size_t most_nodes = 8;

constexpr double magnitude(double x) noexcept { return x < 0 ? -x : x; }

// The nodes of a tree in preorder, each by its distance from the root.
struct Tree {
  std::size_t nodes;
  std::size_t level[most_nodes];
};

constexpr Tree first_tree(std::size_t nodes) noexcept {
  Tree tree{nodes, {}};
  for (std::size_t k = 0; k < nodes; ++k) tree.level[k] = k;
  return tree;
}

// Steps to the next tree of as many nodes; false after the last.
constexpr bool next_tree(Tree& tree) noexcept {
  std::size_t last = tree.nodes - 1;
  while (last > 0 && tree.level[last] == 1) --last;
  if (last == 0) return false;
  std::size_t parent = last;
  while (tree.level[parent] != tree.level[last] - 1) --parent;
  for (std::size_t k = last; k < tree.nodes; ++k) tree.level[k] = tree.level[k - (last - parent)];
  return true;
}

// Phi_i of a tree for the first `rows` stages, and gamma.
template <std::size_t rows>
struct Weights {
  double phi[rows];
  double gamma;
};

template <class Method, std::size_t rows>
constexpr Weights<rows> weights(const Tree& tree) noexcept {
  double phi[most_nodes][rows] = {};
  double gamma[most_nodes] = {};
  std::size_t nodes[most_nodes] = {};
  for (std::size_t l = 0; l < most_nodes; ++l) {
    for (std::size_t i = 0; i < rows; ++i) phi[l][i] = 1;
    gamma[l] = 1;
    nodes[l] = 1;
  }
  // From the last node to the first: the branches of a node are complete when it is met.
  for (std::size_t k = tree.nodes - 1; k > 0; --k) {
    const std::size_t l = tree.level[k];
    for (std::size_t i = rows; i-- > 0;) {
      double sum = 0;
      for (std::size_t j = 0; j < i; ++j) sum += Method::a[i][j] * phi[l][j];
      phi[l - 1][i] *= sum;
    }
    gamma[l - 1] *= gamma[l] * static_cast<double>(nodes[l]);
    nodes[l - 1] += nodes[l];
    for (std::size_t i = 0; i < rows; ++i) phi[l][i] = 1;
    gamma[l] = 1;
    nodes[l] = 1;
  }
  Weights<rows> result{};
  for (std::size_t i = 0; i < rows; ++i) result.phi[i] = phi[0][i];
  result.gamma = gamma[0] * static_cast<double>(tree.nodes);
  return result;
}

// b_i(theta) of the continuous extension, as the stepper evaluates it.
template <class Method>
constexpr double dense_weight(std::size_t i, double theta) noexcept {
  constexpr std::size_t rows = sizeof(Method::dense) / sizeof(Method::dense[0]);
  const double b = Method::a[Method::stages][i];
  const double at_start = i == 0 ? 1 : 0;
  const double at_end = i == Method::stages ? 1 : 0;
  double nested = 0;
  for (std::size_t r = rows; r-- > 0;) nested = Method::dense[r][i] + (r % 2 == 0 ? theta : 1 - theta) * nested;
  return theta * (b + (1 - theta) * ((at_start - b) + theta * ((2 * b - at_start - at_end) + (1 - theta) * nested)));
}

// The largest violation among the conditions of exactly `nodes` nodes: of the weights b,
template <class Method>
constexpr double violation(std::size_t nodes) noexcept {
  constexpr std::size_t rows = Method::stages;
  double worst = 0;
  Tree tree = first_tree(nodes);
  do {
    const Weights<rows> w = weights<Method, rows>(tree);
    double sum = 0;
    for (std::size_t i = 0; i < rows; ++i) sum += Method::a[Method::stages][i] * w.phi[i];
    const double gap = magnitude(sum - 1 / w.gamma);
    if (gap > worst) worst = gap;
  } while (nodes > 1 && next_tree(tree));
  return worst;
}

// of the embedded solution that row `row` of the error weights is the difference to (sum e_i Phi_i = 0),
template <class Method>
constexpr double error_violation(std::size_t row, std::size_t nodes) noexcept {
  constexpr std::size_t rows = Method::stages + 1;
  double worst = 0;
  Tree tree = first_tree(nodes);
  do {
    const Weights<rows> w = weights<Method, rows>(tree);
    double sum = 0;
    for (std::size_t i = 0; i < rows; ++i) sum += Method::error[row][i] * w.phi[i];
    if (magnitude(sum) > worst) worst = magnitude(sum);
  } while (nodes > 1 && next_tree(tree));
  return worst;
}

// and of the continuous extension at theta.
template <class Method>
constexpr double dense_violation(std::size_t nodes, double theta) noexcept {
  constexpr std::size_t rows = Method::extended;
  double power = 1;
  for (std::size_t k = 0; k < nodes; ++k) power *= theta;
  double worst = 0;
  Tree tree = first_tree(nodes);
  do {
    const Weights<rows> w = weights<Method, rows>(tree);
    double sum = 0;
    for (std::size_t i = 0; i < rows; ++i) sum += dense_weight<Method>(i, theta) * w.phi[i];
    const double gap = magnitude(sum - power / w.gamma);
    if (gap > worst) worst = gap;
  } while (nodes > 1 && next_tree(tree));
  return worst;
}

// The largest violation of sum_j a_ij = c_i, and of "strictly lower triangular": the method is explicit.
template <class Method>
constexpr double row_sum_violation() noexcept {
  double worst = 0;
  for (std::size_t i = 0; i < Method::extended; ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < Method::extended; ++j) {
      if (j >= i && magnitude(Method::a[i][j]) > worst) worst = magnitude(Method::a[i][j]);
      sum += Method::a[i][j];
    }
    if (magnitude(sum - Method::c[i]) > worst) worst = magnitude(sum - Method::c[i]);
  }
  return worst;
}

// Coefficients are rounded to doubles and up to 43 in size: what they violate by rounding stays below this, what a
// misprint in the twelfth digit violates does not.
constexpr double rounding = 1e-13;

}  // namespace order_conditions

namespace order_conditions::proofs {  // one assertion per number of nodes: compilers bound the work of each

static_assert(row_sum_violation<Tsit5>() < rounding);
static_assert(violation<Tsit5>(1) < rounding && violation<Tsit5>(2) < rounding && violation<Tsit5>(3) < rounding);
static_assert(violation<Tsit5>(4) < rounding && violation<Tsit5>(5) < rounding && violation<Tsit5>(6) > 1e-5);
static_assert(error_violation<Tsit5>(0, 1) < rounding && error_violation<Tsit5>(0, 2) < rounding);
static_assert(error_violation<Tsit5>(0, 3) < rounding && error_violation<Tsit5>(0, 4) < rounding);
static_assert(error_violation<Tsit5>(0, 5) > 1e-5);  // it estimates something
static_assert(dense_violation<Tsit5>(1, 0.3) < rounding && dense_violation<Tsit5>(2, 0.3) < rounding);
static_assert(dense_violation<Tsit5>(3, 0.3) < rounding && dense_violation<Tsit5>(4, 0.3) < rounding);
static_assert(dense_violation<Tsit5>(4, 0.7) < rounding && dense_violation<Tsit5>(5, 1.0) < rounding);

static_assert(row_sum_violation<Dop853>() < rounding);
static_assert(violation<Dop853>(1) < rounding && violation<Dop853>(2) < rounding && violation<Dop853>(3) < rounding);
static_assert(violation<Dop853>(4) < rounding && violation<Dop853>(5) < rounding);
static_assert(violation<Dop853>(6) < rounding);
static_assert(violation<Dop853>(7) < rounding);
static_assert(violation<Dop853>(8) < rounding);
static_assert(error_violation<Dop853>(0, 4) < rounding && error_violation<Dop853>(0, 5) < rounding);
static_assert(error_violation<Dop853>(0, 6) > 1e-5 && error_violation<Dop853>(1, 4) > 1e-5);
static_assert(error_violation<Dop853>(1, 2) < rounding && error_violation<Dop853>(1, 3) < rounding);
static_assert(dense_violation<Dop853>(4, 0.3) < rounding && dense_violation<Dop853>(5, 0.3) < rounding);
static_assert(dense_violation<Dop853>(6, 0.3) < rounding);
static_assert(dense_violation<Dop853>(7, 0.3) < rounding);
static_assert(dense_violation<Dop853>(7, 0.7) < rounding);

}  // namespace order_conditions::proofs

}  // namespace jepa_ode
