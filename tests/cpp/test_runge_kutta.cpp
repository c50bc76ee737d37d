// The steppers at fixed steps (RELIABILITY.md 3), and the adaptive solver at the edges: long horizons, extreme scales,
// statuses, threads. Accuracy against the exact solution is tested in Python (tests/test_runge_kutta.py).
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "check.hpp"
#include "jepa_ode/explicit_step.hpp"
#include "jepa_ode/feature_ode.hpp"
#include "jepa_ode/hermite.hpp"
#include "jepa_ode/runge_kutta.hpp"
#include "jepa_ode/step_law.hpp"

namespace {

using namespace jepa_ode;

constexpr double infinity = std::numeric_limits<double>::infinity();

// MAE at depth 1, u' = u (a - b u^2), has an elementary solution.
constexpr double a = 0.7, b = 1.1, u0 = 0.05;

FeatureOde<Objective::mae, FixedPower<1>> equation() { return {{}, wide(a), wide(b)}; }

double solution(double t) {
  const double growth = std::exp(-2 * a * t);
  return std::sqrt(a / (b + (a / (u0 * u0) - b) * growth));
}

struct Errors {
  double end;
  double between;  // largest error of dense output inside the steps
};

// All lanes do the same; the first is looked at.
template <class Method>
Errors fixed_steps(int count, double t_end) {
  const auto rhs = equation();
  const Wide h = wide(t_end / count);
  const Exponents exponent = exponents(Objective::mae, 1.0);
  ExplicitStep<Method> step;
  Point start = rhs.at(wide(u0));
  Errors errors{0.0, 0.0};
  for (int k = 0; k < count; ++k) {
    const Wide increment = step.take(rhs, start.y, start.slope, h);
    const Point end = rhs.at(start.y + increment);
    const Hermite<StepConstants<Method>::derivatives> between(start, end, increment, exponent.p, exponent.q, h);
    CHECK_CLOSE(start.y[0] + between.increment(0, pack(1.0))[0], end.y[0], 1e-15);
    for (const double theta : {0.15, 0.4, 0.5, 0.65, 0.9}) {
      const double value = start.y[0] + between.increment(0, pack(theta))[0];
      errors.between = std::max(errors.between, std::abs(value - solution((k + theta) * h[0])));
    }
    start = end;
  }
  errors.end = std::abs(start.y[0] - solution(t_end));
  return errors;
}

// The slope of log error over log h between two numbers of steps.
template <class Method>
Errors fitted_orders(int coarse, int fine) {
  const Errors first = fixed_steps<Method>(coarse, 3.0), second = fixed_steps<Method>(fine, 3.0);
  const double ratio = std::log(static_cast<double>(fine) / coarse);
  return {std::log(first.end / second.end) / ratio, std::log(first.between / second.between) / ratio};
}

TEST(tsit5_has_order_5) {
  const Errors order = fitted_orders<Tsit5>(40, 100);
  RECORD(3, "fitted order less order, tsit5", std::abs(order.end - 5), 0.3);
  CHECK(order.between > 4.7);  // no worse than the steps: locally 5 + 1
}

TEST(dop853_has_order_8) {
  const Errors order = fitted_orders<Dop853>(6, 12);
  RECORD(3, "fitted order less order, dop853", std::abs(order.end - 8), 0.3);
  CHECK(order.between > 7.7);  // no worse than the steps: locally 9 + 1
}

// StepConstants::longest: up to there a step of u' = -u multiplies u by a number between 0 and 1.
template <class Method>
void check_monotone_decay() {
  const auto rhs = [](Wide y) { return wide(0.0) - y; };
  double last = 1.0;
  for (double h = 0.01; h <= StepConstants<Method>::longest; h += 0.01) {
    ExplicitStep<Method> step;
    const double y = 1 + step.take(rhs, wide(1.0), wide(-1.0), wide(h))[0];
    CHECK(y > 0 && y < last);
    last = y;
  }
}

TEST(tsit5_decays_monotonically) { check_monotone_decay<Tsit5>(); }
TEST(dop853_decays_monotonically) { check_monotone_decay<Dop853>(); }

struct Feature {
  double lambda, sigma2, eps;
};

struct Result {
  std::vector<double> w;
  std::vector<Status> status;
  std::vector<std::int64_t> evaluations;
};

Result solve(Objective objective, double depth, const std::vector<Feature>& features, const std::vector<double>& times,
             const RungeKuttaOptions& options, unsigned threads = 1) {
  const std::size_t n = features.size();
  std::vector<double> lambda, sigma2, eps;
  for (const Feature& feature : features) {
    lambda.push_back(feature.lambda);
    sigma2.push_back(feature.sigma2);
    eps.push_back(feature.eps);
  }
  Result result{std::vector<double>(n * times.size()), std::vector<Status>(n), std::vector<std::int64_t>(n)};
  Interrupt interrupt;
  solve_runge_kutta(objective, depth, {lambda.data(), sigma2.data(), eps.data(), n}, times.data(), times.size(), false,
                    options, threads, interrupt, result.w.data(), result.status.data(), result.evaluations.data());
  return result;
}

constexpr RungeKuttaMethod methods[] = {RungeKuttaMethod::tsit5, RungeKuttaMethod::dop853};

RungeKuttaOptions with(RungeKuttaMethod method, double rtol) {
  RungeKuttaOptions options;
  options.method = method;
  options.rtol = rtol;
  return options;
}

TEST(follows_the_elementary_solution) {
  const std::vector<double> times{0.0, 0.5, 0.5, 3.0, 7.0, 40.0};
  for (const RungeKuttaMethod method : methods) {
    for (const double rtol : {1e-3, 1e-6, 1e-9, 1e-12}) {
      const Result result = solve(Objective::mae, 1.0, {{a, b, u0}}, times, with(method, rtol));
      CHECK(result.status[0] == Status::ok);
      for (std::size_t k = 0; k < times.size(); ++k) CHECK_CLOSE(result.w[k], solution(times[k]), 10 * rtol);
      CHECK(result.w[0] == u0 && result.w[1] == result.w[2]);
    }
  }
}

TEST(many_times_within_a_step) {
  for (const std::size_t n_times : {1u, 7u, 8u, 9u, 16u, 17u, 200u, 1000u}) {
    std::vector<double> times;
    for (std::size_t k = 1; k <= n_times; ++k)
      times.push_back(12.0 * static_cast<double>(k) / static_cast<double>(n_times));
    for (const RungeKuttaMethod method : methods) {
      const Result result = solve(Objective::mae, 1.0, {{a, b, u0}}, times, with(method, 1e-6));
      for (std::size_t k = 0; k < n_times; ++k) CHECK_CLOSE(result.w[k], solution(times[k]), 1e-5);
    }
  }
}

TEST(power_law_of_noise) {  // lambda = 0: w = eps / sqrt(1 + 2 L sigma^2 eps^2 t), THEORY.md 2
  for (const RungeKuttaMethod method : methods) {
    for (const double depth : {1.0, 2.5, 64.0}) {
      for (const Objective objective : {Objective::jepa, Objective::mae}) {
        const std::vector<double> times{1e-3, 1.0, 1e12, 1e100, 1e300};
        const Result result = solve(objective, depth, {{0.0, 2.0, 0.3}}, times, with(method, 1e-9));
        CHECK(result.status[0] == Status::ok);
        for (std::size_t k = 0; k < times.size(); ++k) {
          const double expected = 0.3 / std::sqrt(1 + 2 * depth * 2.0 * 0.09 * times[k]);
          CHECK_CLOSE(result.w[k], expected, 1e-8 * depth);
        }
      }
    }
  }
}

TEST(no_work_after_convergence) {
  for (const RungeKuttaMethod method : methods) {
    for (const double depth : {1.0, 6.0, 63.5}) {
      const std::vector<Feature> features{{1.0, 1.25, 1e-3}, {1.0, 1.25, 3.0}};
      const Result long_run = solve(Objective::jepa, depth, features, {1e30}, with(method, 1e-8));
      const Result longer = solve(Objective::jepa, depth, features, {1e30, 1e200, infinity}, with(method, 1e-8));
      for (std::size_t i = 0; i < 2; ++i) {
        CHECK(longer.status[i] == Status::ok);
        CHECK(longer.evaluations[i] == long_run.evaluations[i]);
        CHECK_CLOSE(longer.w[3 * i], std::pow(0.8, depth), 1e-7);
        CHECK_CLOSE(longer.w[3 * i + 2], std::pow(0.8, depth), 1e-13);
      }
    }
  }
}

TEST(scales_beyond_the_double_range) {  // eps^2 is 0 in double, rates are not representable
  for (const RungeKuttaMethod method : methods) {
    const Result small =
        solve(Objective::jepa, 1.0, {{1.0, 1.0, 1e-300}}, {1e290, 9.9e299, 1.1e300}, with(method, 1e-8));
    CHECK(small.status[0] == Status::ok);
    CHECK_CLOSE(small.w[0], 1e-300, 1e-8);
    CHECK_CLOSE(small.w[1], 1e-300 / (1 - 0.99), 1e-5);  // 1/w = 1/eps - lambda t, ill-conditioned 100-fold
    CHECK_CLOSE(small.w[2], 1.0, 1e-7);
    const Result large = solve(Objective::mae, 64.0, {{1.0, 1.0, 1e300}}, {0.0, 1.0, 1e300}, with(method, 1e-8));
    CHECK(large.status[0] == Status::ok);
    CHECK(large.w[0] == 1e300);
    CHECK_CLOSE(large.w[2], 1.0, 1e-7);
    const Result subnormal = solve(Objective::jepa, 64.0, {{1.0, 1.0, 5e-324}}, {1e308, infinity}, with(method, 1e-8));
    CHECK(subnormal.status[0] == Status::ok);
    CHECK(subnormal.w[0] == 5e-324 && subnormal.w[1] == 1.0);
  }
}

TEST(each_failure_has_its_status_and_its_own_feature) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> times{0.0, 1e-3, 1e6};
  for (const RungeKuttaMethod method : methods) {
    RungeKuttaOptions options = with(method, 1e-8);
    options.max_steps = 5;
    const Result result = solve(
        Objective::jepa, 3.0, {{1.0, 1.0, 0.1}, {nan, 1.0, 0.1}, {1.0, 1.0, 1.0}, {1.0, 1e-200, 1.0}}, times, options);
    CHECK(result.status[0] == Status::max_steps);
    CHECK(result.w[0] == 0.1 && result.w[1] > 0.1 && std::isnan(result.w[2]));
    CHECK(result.status[1] == Status::not_finite && std::isnan(result.w[5]));
    CHECK(result.status[2] == Status::ok && result.w[8] == 1.0);  // starts on its fixed point
    options.max_steps = 1'000'000;
    const Result beyond = solve(Objective::jepa, 3.0, {{1.0, 1e-200, 1.0}}, {0.01, 1e6, infinity}, options);
    CHECK(beyond.status[0] == Status::not_finite);  // rho^3 = 1e600
    CHECK(beyond.w[0] > 1.0 && std::isnan(beyond.w[1]) && std::isnan(beyond.w[2]));
  }
}

TEST(threads_and_neighbours_change_nothing) {
  std::vector<Feature> features;
  for (int i = 0; i < 100; ++i) features.push_back({0.01 * (i - 10), 0.5 + 0.01 * i, 0.02 * (1 + i % 7)});
  const std::vector<double> times{0.1, 1.0, 10.0, 1e3};
  for (const RungeKuttaMethod method : methods) {
    const Result reference = solve(Objective::mae, 2.5, features, times, with(method, 1e-6));
    for (const unsigned threads : {2u, 3u, 7u}) {
      CHECK(solve(Objective::mae, 2.5, features, times, with(method, 1e-6), threads).w == reference.w);
    }
    for (std::size_t i = 0; i < features.size(); i += 9) {
      const Result alone = solve(Objective::mae, 2.5, {features[i]}, times, with(method, 1e-6));
      for (std::size_t k = 0; k < times.size(); ++k) CHECK(alone.w[k] == reference.w[i * times.size() + k]);
    }
  }
}

// A polynomial of the interpolant's degree is its own Hermite polynomial: with a = 0 and L = 1, y = 1/sqrt(1 + 2 b t)
// has the Taylor coefficients of a binomial series.
TEST(taylor_coefficients_are_those_of_the_solution) {
  const FeatureOde<Objective::mae, FixedPower<1>> decay{{}, wide(0.0), wide(0.5)};
  const auto c = taylor<4>(decay.at(wide(1.0)), 1.0, 2.0, wide(0.1));  // of (1 + h)^(-1/2)
  const double expected[] = {-1.0 / 2, 3.0 / 8, -5.0 / 16, 35.0 / 128};
  for (std::size_t k = 1; k <= 4; ++k) CHECK_CLOSE(c[k][0], expected[k - 1] * std::pow(0.1, k), 1e-14);
}

TEST(rough_powers_are_good_enough_for_a_step) {
  for (const double power : {0.2, 0.125}) {
    for (double x = 1e-300; x < 1e300; x *= 1.37) {
      CHECK_CLOSE(rough_power(pack(x), power)[0], std::pow(x, power), 1e-2);
    }
  }
}

// Lanes are filled again as they fall free: a hard feature between easy ones, any number of them, any number of times.
TEST(lanes_do_not_know_each_other) {
  const Feature easy{1.0, 1.0, 0.9}, hard{1.0, 1.1, 1e-6}, still{1.0, 1.0, 1.0};
  for (const RungeKuttaMethod method : methods) {
    for (const std::size_t n_times : {1u, 7u, 8u, 9u, 15u, 16u, 17u, 200u}) {
      std::vector<double> times;
      for (std::size_t k = 0; k < n_times; ++k)
        times.push_back(k % 5 == 1 ? times.back() : 40.0 * static_cast<double>(k));
      const auto alone = [&](const Feature& feature) {
        return solve(Objective::jepa, 2.0, {feature}, times, with(method, 1e-7));
      };
      const Result easy_alone = alone(easy), hard_alone = alone(hard), still_alone = alone(still);
      for (std::size_t n = 1; n <= 2 * width + 1; ++n) {
        std::vector<Feature> features(n, easy);
        features[n / 2] = hard;
        features[n - 1] = still;
        const Result result = solve(Objective::jepa, 2.0, features, times, with(method, 1e-7));
        for (std::size_t i = 0; i < n; ++i) {
          const Result& expected = i == n - 1 ? still_alone : i == n / 2 ? hard_alone : easy_alone;
          CHECK(std::equal(expected.w.begin(), expected.w.end(), result.w.begin() + static_cast<long>(i * n_times)));
          CHECK(result.evaluations[i] == expected.evaluations[0]);
        }
      }
    }
  }
}

TEST(rows_of_times_of_their_own) {
  const std::size_t n = 2 * width + 3, n_times = 11;
  std::vector<double> lambda(n, 1.0), sigma2(n, 1.2), eps(n), times(n * n_times), w(n * n_times);
  for (std::size_t i = 0; i < n; ++i) {
    eps[i] = 0.01 * static_cast<double>(i + 1);
    for (std::size_t k = 0; k < n_times; ++k) times[i * n_times + k] = static_cast<double>(k * (i + 1));
    times[i * n_times + n_times - 1 - i % 3] = infinity;
    std::sort(times.begin() + static_cast<long>(i * n_times), times.begin() + static_cast<long>((i + 1) * n_times));
  }
  std::vector<Status> status(n);
  std::vector<std::int64_t> evaluations(n);
  Interrupt interrupt;
  for (const RungeKuttaMethod method : methods) {
    solve_runge_kutta(Objective::mae, 3.0, {lambda.data(), sigma2.data(), eps.data(), n}, times.data(), n_times, true,
                      with(method, 1e-8), 2, interrupt, w.data(), status.data(), evaluations.data());
    for (std::size_t i = 0; i < n; ++i) {
      const std::vector<double> row(times.begin() + static_cast<long>(i * n_times),
                                    times.begin() + static_cast<long>((i + 1) * n_times));
      const Result alone = solve(Objective::mae, 3.0, {{1.0, 1.2, eps[i]}}, row, with(method, 1e-8));
      CHECK(std::equal(alone.w.begin(), alone.w.end(), w.begin() + static_cast<long>(i * n_times)));
    }
  }
}

TEST(an_interrupt_ends_a_long_solve) {
  int polls = 0;
  Interrupt interrupt([&] { return ++polls == 2; });
  const double lambda = 0.0, sigma2 = 1.0, eps = 1.0;
  const std::vector<double> times(1, 1e308);
  std::vector<double> w(1);
  Status status;
  std::int64_t evaluations;
  CHECK_THROWS(Interrupted, for (;;) solve_runge_kutta(Objective::jepa, 64.5, {&lambda, &sigma2, &eps, 1}, times.data(),
                                                       1, false, with(RungeKuttaMethod::tsit5, 1e-13), 1, interrupt,
                                                       w.data(), &status, &evaluations));
}

}  // namespace
