// One step of an explicit Runge-Kutta method of tableau.hpp for a scalar autonomous equation, with its error estimate
// and continuous extension. The sums over stages are unrolled at compile time and skip the zeros of the tableau.
#pragma once

#include <cstddef>
#include <utility>

#include "jepa_ode/order_conditions.hpp"  // a method that is not what it claims does not compile
#include "jepa_ode/tableau.hpp"

namespace jepa_ode {

template <class Method>
class ExplicitStep {
 public:
  static constexpr std::size_t evaluations = Method::stages;  // of the right-hand side, per step
  static constexpr std::size_t dense_evaluations = Method::extended - Method::stages - 1;

  // The derivative at the start of the first step; later steps inherit it ("first same as last").
  void start(double derivative) noexcept { k_[0] = derivative; }
  void advance() noexcept { k_[0] = k_[Method::stages]; }
  double derivative_at_start() const noexcept { return k_[0]; }

  // Takes a step of size h from y; returns y(h) - y.
  template <class Rhs>
  double take(const Rhs& rhs, double y, double h) noexcept {
    evaluate<1>(rhs, y, h, std::make_index_sequence<Method::stages>{});
    increment_ = h * sum<Table::a, Method::stages, Method::stages>();
    return increment_;
  }

  // The estimated error of the step just taken.
  double error(double h) const noexcept { return h * estimate(std::make_index_sequence<error_rows>{}); }

  // Makes `increment` ready for the step just taken: the evaluations that only dense output needs.
  template <class Rhs>
  void prepare_dense([[maybe_unused]] const Rhs& rhs, [[maybe_unused]] double y, double h) noexcept {
    if constexpr (dense_evaluations > 0) {
      evaluate<Method::stages + 1>(rhs, y, h, std::make_index_sequence<dense_evaluations>{});
    }
    hermite_[0] = h * k_[0] - increment_;
    hermite_[1] = 2 * increment_ - h * (k_[0] + k_[Method::stages]);
    fill_dense(h, std::make_index_sequence<dense_rows>{});
  }

  // y(theta h) - y, 0 <= theta <= 1: the cubic Hermite polynomial of the two ends and the method's own terms.
  double increment(double theta) const noexcept {
    const double rest = 1 - theta;
    double nested = dense_[dense_rows - 1];
    for (std::size_t r = dense_rows - 1; r-- > 0;) nested = dense_[r] + (r % 2 == 0 ? theta : rest) * nested;
    return theta * (increment_ + rest * (hermite_[0] + theta * (hermite_[1] + rest * nested)));
  }

 private:
  static constexpr std::size_t error_rows = sizeof(Method::error) / sizeof(Method::error[0]);
  static constexpr std::size_t dense_rows = sizeof(Method::dense) / sizeof(Method::dense[0]);

  enum class Table { a, error, dense };

  template <Table table, std::size_t row, std::size_t j>
  static constexpr double coefficient() noexcept {
    if constexpr (table == Table::a) return Method::a[row][j];
    if constexpr (table == Table::error) return Method::error[row][j];
    if constexpr (table == Table::dense) return Method::dense[row][j];
  }

  template <Table table, std::size_t row, std::size_t j>
  void add_term(double& total) const noexcept {
    if constexpr (coefficient<table, row, j>() != 0) total += coefficient<table, row, j>() * k_[j];
  }

  template <Table table, std::size_t row, std::size_t... j>
  double sum(std::index_sequence<j...>) const noexcept {
    double total = coefficient<table, row, 0>() * k_[0];
    (add_term<table, row, j + 1>(total), ...);
    return total;
  }

  // The sum of coefficient * k_j over j < count.
  template <Table table, std::size_t row, std::size_t count>
  double sum() const noexcept {
    return sum<table, row>(std::make_index_sequence<count - 1>{});
  }

  template <std::size_t first, class Rhs, std::size_t... i>
  void evaluate(const Rhs& rhs, double y, double h, std::index_sequence<i...>) noexcept {
    ((k_[first + i] = rhs(y + h * sum<Table::a, first + i, first + i>())), ...);
  }

  template <std::size_t... row>
  double estimate(std::index_sequence<row...>) const noexcept {
    return Method::estimate({sum<Table::error, row, Method::stages + 1>()...});
  }

  template <std::size_t... row>
  void fill_dense(double h, std::index_sequence<row...>) noexcept {
    ((dense_[row] = h * sum<Table::dense, row, Method::extended>()), ...);
  }

  double k_[Method::extended] = {};
  double increment_ = 0.0;
  double hermite_[2] = {};
  double dense_[dense_rows] = {};
};

}  // namespace jepa_ode
