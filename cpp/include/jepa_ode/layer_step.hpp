// One step of a Runge-Kutta or Rosenbrock method for a layer system, all lanes at once, each with a step of its own.
//
// Both kinds of step offer
//   start(lanes, slope)      the derivative at the start of the lanes' first step
//   take(system, y, h)       a step; returns y(h) - y
//   error(h, weight)         its estimated error, the largest component in units of 1/weight
//   prepare_dense, at(theta) y(theta h) - y
#pragma once

#include <cstddef>
#include <utility>

#include "jepa_ode/layer_system.hpp"
#include "jepa_ode/order_conditions.hpp"  // a method that is not what it claims does not compile
#include "jepa_ode/tableau.hpp"

namespace jepa_ode {

template <std::size_t n>
LayerState<n> select(Mask mask, const LayerState<n>& a, const LayerState<n>& b) noexcept {
  LayerState<n> chosen;
  for (std::size_t i = 0; i < n; ++i) chosen[i] = select(mask, a[i], b[i]);
  return chosen;
}

// The sums over stages are unrolled at compile time and skip the zeros of the tableau.
template <class Method, std::size_t n>
class ExplicitLayerStep {
 public:
  using State = LayerState<n>;
  static constexpr bool is_explicit = true;
  static constexpr int order = Method::estimate_order;
  static constexpr std::size_t evaluations = Method::stages;
  static constexpr std::size_t dense_evaluations = Method::extended - Method::stages - 1;

  void start(Mask lane, const State& slope) noexcept { k_[0] = select(lane, slope, k_[0]); }
  void advance(Mask accepted) noexcept { k_[0] = select(accepted, k_[Method::stages], k_[0]); }
  const State& slope() const noexcept { return k_[0]; }

  template <class System>
  State take(const System& system, const LayerJacobian&, const State& y, Pack h) noexcept {
    evaluate<1>(system, y, h, std::make_index_sequence<Method::stages>{});
    increment_ = sum<Table::a, Method::stages, Method::stages>(h);
    return increment_;
  }

  Pack error(Pack h, const State& weight) const noexcept {
    return abs(h) * estimate(weight, std::make_index_sequence<error_rows>{});
  }

  template <class System>
  void prepare_dense([[maybe_unused]] const System& system, [[maybe_unused]] const State& y, Pack h) noexcept {
    if constexpr (dense_evaluations > 0) {
      evaluate<Method::stages + 1>(system, y, h, std::make_index_sequence<dense_evaluations>{});
    }
    for (std::size_t i = 0; i < n; ++i) {
      hermite_[0][i] = h * k_[0][i] - increment_[i];
      hermite_[1][i] = 2.0 * increment_[i] - h * (k_[0][i] + k_[Method::stages][i]);
    }
    fill_dense(h, std::make_index_sequence<dense_rows>{});
  }

  // The cubic Hermite polynomial of the two ends and the method's own terms.
  State at(Pack theta) const noexcept {
    const Pack rest = 1.0 - theta;
    State result;
    for (std::size_t i = 0; i < n; ++i) {
      Pack nested = dense_[dense_rows - 1][i];
      for (std::size_t r = dense_rows - 1; r-- > 0;) nested = dense_[r][i] + (r % 2 == 0 ? theta : rest) * nested;
      result[i] = theta * (increment_[i] + rest * (hermite_[0][i] + theta * (hermite_[1][i] + rest * nested)));
    }
    return result;
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
  void add_term(std::size_t i, Pack& total) const noexcept {
    if constexpr (coefficient<table, row, j>() != 0) total = fma(pack(coefficient<table, row, j>()), k_[j][i], total);
  }

  template <Table table, std::size_t row, std::size_t... j>
  State sum(Pack h, std::index_sequence<j...>) const noexcept {
    State result;
    for (std::size_t i = 0; i < n; ++i) {
      Pack total = coefficient<table, row, 0>() * k_[0][i];
      (add_term<table, row, j + 1>(i, total), ...);
      result[i] = h * total;
    }
    return result;
  }

  // h times the sum of coefficient * k_j over j < count.
  template <Table table, std::size_t row, std::size_t count>
  State sum(Pack h) const noexcept {
    return sum<table, row>(h, std::make_index_sequence<count - 1>{});
  }

  template <std::size_t stage, class System>
  void evaluate_stage(const System& system, const State& y, Pack h) noexcept {
    State point = sum<Table::a, stage, stage>(h);
    for (std::size_t i = 0; i < n; ++i) point[i] += y[i];
    k_[stage] = system(point);
  }

  template <std::size_t first, class System, std::size_t... i>
  void evaluate(const System& system, const State& y, Pack h, std::index_sequence<i...>) noexcept {
    (evaluate_stage<first + i>(system, y, h), ...);
  }

  template <std::size_t row>
  Pack difference(const State& weight) const noexcept {
    const State sums = sum<Table::error, row, Method::stages + 1>(pack(1.0));
    Pack largest = abs(sums[0]) * weight[0];
    for (std::size_t i = 1; i < n; ++i) {
      const Pack other = abs(sums[i]) * weight[i];
      largest = select(largest > other, largest, other);  // `other` where either is NaN
      largest = select(sums[0] == sums[0], largest, sums[0]);
    }
    return largest;
  }

  // As Method::estimate joins them.
  template <std::size_t... row>
  Pack estimate(const State& weight, std::index_sequence<row...>) const noexcept {
    const Pack differences[] = {difference<row>(weight)...};
    if constexpr (error_rows == 1) {
      return differences[0];
    } else {
      const Pack fine = differences[0] * differences[0];
      const Pack coarse = differences[1] * differences[1];
      return select(fine == 0, Pack{}, fine / sqrt(fine + 0.01 * coarse));
    }
  }

  template <std::size_t... row>
  void fill_dense(Pack h, std::index_sequence<row...>) noexcept {
    ((dense_[row] = sum<Table::dense, row, Method::extended>(h)), ...);
  }

  State k_[Method::extended] = {};
  State increment_{};
  State hermite_[2] = {};
  State dense_[dense_rows] = {};
};

// G. Steinebach, Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks within the Julia
// Differential Equations package, BIT Numerical Mathematics 63, 27 (2023): order 5, L-stable and stiffly accurate, the
// embedded solution of order 4, a continuous extension of order 4. Coefficients as distributed with
// OrdinaryDiffEq.jl, in the form without products of the Jacobian (Hairer & Wanner, Solving Ordinary Differential
// Equations II, IV.7):
//
//     (1/gamma - h J) U_i = h f(y + sum_j a_ij U_j) + sum_j c_ij U_j
//     y(theta h) = (1-theta) y_0 + theta (y_1 + (1-theta) (F_0 + theta (F_1 + theta F_2))),   F_r = sum d_ri U_i
//
// where y_1 = y + sum_j a_6j U_j + U_6 + U_7 + U_8 and U_8 is the estimated error.
struct Rodas5p {
  static constexpr const char* name = "rodas5p";
  static constexpr std::size_t stages = 8;
  static constexpr double gamma = 0.21193756319429014;
  static constexpr double a[6][5] = {
      {},
      {3.0},
      {2.849394379747939, 0.45842242204463923},
      {-6.954028509809101, 2.489845061869568, -10.358996098473584},
      {2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641},
      {-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946},
  };
  static constexpr double c[8][7] = {
      {},
      {-14.155112264123755},
      {-17.97296035885952, -2.859693295451294},
      {147.12150275711716, -1.41221402718213, 71.68940251302358},
      {165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306},
      {24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471},
      {30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783, -19.097331116725623,
       -28.087943162872662},
      {37.80277123390563, -3.2571969029072276, 112.26918849496327, 66.9347231244047, -40.06618937091002,
       -54.66780262877968, -9.48861652309627},
  };
  static constexpr double dense[3][8] = {
      {25.948786856663858, -2.5579724845846235, 10.433815404888879, -2.3679251022685204, 0.524948541321073,
       1.1241088310450404, 0.4272876194431874, -0.17202221070155493},
      {-9.91568850695171, -0.9689944594115154, 3.0438037242978453, -24.495224566215796, 20.176138334709044,
       15.98066361424651, -6.789040303419874, -6.710236069923372},
      {11.419903575922262, 2.8879645146136994, 72.92137995996029, 80.12511834622643, -52.072871366152654,
       -59.78993625266729, -0.15582684282751913, 4.883087185713722},
  };
};

template <std::size_t n>
class RosenbrockLayerStep {
 public:
  using State = LayerState<n>;
  static constexpr bool is_explicit = false;
  static constexpr int order = 5;
  static constexpr std::size_t evaluations = Rodas5p::stages;
  static constexpr std::size_t dense_evaluations = 0;

  void start(Mask, const State&) noexcept {}
  void advance(Mask) noexcept {}

  template <class System>
  State take(const System& system, const LayerJacobian& jacobian, const State& y, Pack h) noexcept {
    factorise(system.rate, jacobian, h);
    State point = y;
    for (std::size_t stage = 0; stage < Rodas5p::stages; ++stage) {
      if (stage < 6) {
        point = y;
        for (std::size_t j = 0; j < stage; ++j) add(Rodas5p::a[stage][j], u_[j], point);
      } else {
        add(1.0, u_[stage - 1], point);
      }
      const State slope = system(point);
      State right{};
      for (std::size_t j = 0; j < stage; ++j) add(Rodas5p::c[stage][j], u_[j], right);
      for (std::size_t i = 0; i < n; ++i) right[i] = fma(h, slope[i], right[i]);
      u_[stage] = solve(right);
    }
    increment_ = State{};
    for (std::size_t j = 0; j < 5; ++j) add(Rodas5p::a[5][j], u_[j], increment_);
    for (std::size_t j = 5; j < Rodas5p::stages; ++j) add(1.0, u_[j], increment_);
    return increment_;
  }

  Pack error(Pack, const State& weight) const noexcept {
    Pack total{};
    for (std::size_t i = 0; i < n; ++i) {
      const Pack part = u_[Rodas5p::stages - 1][i] * weight[i];
      total += part * part;
    }
    return sqrt(total);
  }

  template <class System>
  void prepare_dense(const System&, const State&, Pack) noexcept {
    for (std::size_t r = 0; r < 3; ++r) {
      dense_[r] = State{};
      for (std::size_t j = 0; j < Rodas5p::stages; ++j) add(Rodas5p::dense[r][j], u_[j], dense_[r]);
    }
  }

  State at(Pack theta) const noexcept {
    State result;
    for (std::size_t i = 0; i < n; ++i) {
      const Pack nested = dense_[0][i] + theta * (dense_[1][i] + theta * dense_[2][i]);
      result[i] = theta * (increment_[i] + (1.0 - theta) * nested);
    }
    return result;
  }

 private:
  static void add(double factor, const State& term, State& total) noexcept {
    for (std::size_t i = 0; i < n; ++i) total[i] = fma(pack(factor), term[i], total[i]);
  }

  // 1/gamma - h J, the row of b eliminated: 2 by 2.
  void factorise(double rate, const LayerJacobian& jacobian, Pack h) noexcept {
    const double diagonal = 1 / Rodas5p::gamma;
    m_[0] = diagonal - h * jacobian.aa;
    m_[1] = -h * jacobian.av;
    m_[2] = -h * jacobian.va;
    m_[3] = diagonal - h * jacobian.vv;
    if constexpr (n == 3) {
      follow_ = h * rate;
      pivot_ = 1.0 / (diagonal + follow_);
      from_b_[0] = h * jacobian.ab * pivot_;
      from_b_[1] = h * jacobian.vb * pivot_;
      m_[0] -= from_b_[0] * follow_;
      m_[2] -= from_b_[1] * follow_;
    }
    determinant_ = m_[0] * m_[3] - m_[1] * m_[2];
  }

  State solve(State right) const noexcept {
    if constexpr (n == 3) {
      right[0] = fma(from_b_[0], right[2], right[0]);
      right[1] = fma(from_b_[1], right[2], right[1]);
    }
    State x;
    x[0] = (m_[3] * right[0] - m_[1] * right[1]) / determinant_;
    x[1] = (m_[0] * right[1] - m_[2] * right[0]) / determinant_;
    if constexpr (n == 3) x[2] = (right[2] + follow_ * x[0]) * pivot_;
    return x;
  }

  State increment_{};
  State u_[Rodas5p::stages] = {};
  State dense_[3] = {};
  Pack m_[4] = {}, determinant_{}, follow_{}, pivot_{}, from_b_[2] = {};
};

}  // namespace jepa_ode
