// One step of an explicit Runge-Kutta method of tableau.hpp for scalar autonomous equations, one in each lane, with its
// error estimate. The sums over stages are unrolled at compile time and skip the zeros of the tableau.
#pragma once

#include <cstddef>
#include <utility>

#include "jepa_ode/order_conditions.hpp"  // a method that is not what it claims does not compile
#include "jepa_ode/tableau.hpp"
#include "jepa_ode/wide.hpp"

namespace jepa_ode {

template <class Method>
class ExplicitStep {
 public:
  static constexpr std::size_t evaluations = Method::stages;  // of the right-hand side, per step

  // Takes a step of size h from y, where the derivative is `slope`; returns y(h) - y.
  template <class Rhs>
  JEPA_ODE_INLINE Wide take(const Rhs& rhs, Wide y, Wide slope, Wide h) noexcept {
    k_[0] = slope;
    evaluate(rhs, y, h, std::make_index_sequence<Method::stages - 1>{});
    return h * sum<Table::a, Method::stages, Method::stages>();
  }

  // Whether the estimated error of the step just taken, at whose end the derivative is `slope`, is at most `bound`.
  JEPA_ODE_INLINE WideMask errs_within(Wide bound, Wide h, Wide slope) noexcept {
    k_[Method::stages] = slope;
    return within(bound, h, std::make_index_sequence<error_rows>{});
  }

 private:
  static constexpr std::size_t error_rows = sizeof(Method::error) / sizeof(Method::error[0]);

  enum class Table { a, error };

  template <Table table, std::size_t row, std::size_t j>
  static constexpr double coefficient() noexcept {
    return table == Table::a ? Method::a[row][j] : Method::error[row][j];
  }

  template <Table table, std::size_t row, std::size_t j>
  JEPA_ODE_INLINE void add_term(Wide& total) const noexcept {
    if constexpr (coefficient<table, row, j>() != 0) total = fma(coefficient<table, row, j>(), k_[j], total);
  }

  template <Table table, std::size_t row, std::size_t... j>
  JEPA_ODE_INLINE Wide sum(std::index_sequence<j...>) const noexcept {
    Wide total = coefficient<table, row, 0>() * k_[0];
    (add_term<table, row, j + 1>(total), ...);
    return total;
  }

  // The sum of coefficient * k_j over j < count.
  template <Table table, std::size_t row, std::size_t count>
  JEPA_ODE_INLINE Wide sum() const noexcept {
    return sum<table, row>(std::make_index_sequence<count - 1>{});
  }

  template <class Rhs, std::size_t... i>
  JEPA_ODE_INLINE void evaluate(const Rhs& rhs, Wide y, Wide h, std::index_sequence<i...>) noexcept {
    ((k_[i + 1] = rhs(fma(h, sum<Table::a, i + 1, i + 1>(), y))), ...);
  }

  template <std::size_t... row>
  JEPA_ODE_INLINE WideMask within(Wide bound, Wide h, std::index_sequence<row...>) const noexcept {
    return Method::within({h * sum<Table::error, row, Method::stages + 1>()...}, bound);
  }

  Wide k_[Method::stages + 1] = {};
};

}  // namespace jepa_ode
