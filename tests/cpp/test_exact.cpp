// The exact solution without Python: values of THEORY.md 4, closed forms, and the accuracy of its building blocks.
#include <cmath>
#include <limits>
#include <vector>

#include "check.hpp"
#include "jepa_ode/double_double.hpp"
#include "jepa_ode/exact.hpp"
#include "jepa_ode/feature_curve.hpp"

using namespace jepa_ode;

TEST(critical_times_of_the_theory) {
  const struct {
    Objective objective;
    double depth, time;
  } cases[] = {{Objective::jepa, 1, 155.15154979},  {Objective::jepa, 2, 651.62991999},
               {Objective::jepa, 3, 1173.01615903}, {Objective::jepa, 5, 2697.90036547},
               {Objective::mae, 1, 7.24954160},     {Objective::mae, 2, 13.96346101},
               {Objective::mae, 3, 15.88855838},    {Objective::mae, 5, 15.02320175}};
  for (const auto& c : cases) {
    const MasterCurve curve(c.objective, c.depth);
    const FeatureCurve feature(curve, 0.7, 0.7 / 0.6, 1e-2);
    CHECK_CLOSE(feature.time_to_fraction(0.9), c.time, 2e-9);
    CHECK_CLOSE(feature.response(feature.time_to_fraction(0.9)) / feature.fixed_point(), 0.9, 1e-12);
  }
}

TEST(double_double_logarithms_invert_exponentials) {
  for (const double x : {5e-324, 1e-300, 0.1, 0.7, 1.0, 1.5, 3.0, 1e10, 1.7e308}) {
    const Scaled back = jepa_ode::exp(jepa_ode::log(x));
    CHECK_CLOSE(back.value() / x, 1.0, 1e-15);
    CHECK_CLOSE(jepa_ode::log(x).value(), std::log(x), 1e-13);
  }
  // log(2^k) = k log 2: the exponent carries all of it, to 31 digits
  const DoubleDouble difference = jepa_ode::log(1024.0) - jepa_ode::log(2.0) * 10.0;
  CHECK(std::abs(difference.value()) < 1e-29);
}

TEST(pole_integral_satisfies_its_recurrence) {
  // K_g(v) = v^g / g + K_(g+1)(v), across the three regions of both
  for (const double g : {0.25, 0.5, 1.0, 1.2, 1.9, 7.5, 64.0, 127.0}) {
    const PoleIntegral low(g), high(g + 1);
    for (const double gap : {0.9, 0.51, 0.49, 0.4, 0.3, 0.1, 0.01, 1e-3, 1e-8, 1e-300}) {
      const double v = 1 - gap;
      const double scale = low.value(v, gap);
      CHECK(std::abs(scale - std::pow(v, g) / g - high.value(v, gap)) <= 2e-14 * scale);
    }
  }
}

TEST(alternating_integral_is_the_logarithm_for_whole_exponents) {
  const AlternatingIntegral integral(1.0);
  for (const double v : {1e-8, 0.1, 0.5, 0.9, 1.0, 1.5, 2.0}) CHECK_CLOSE(v * integral.scaled(v), std::log1p(v), 4e-16);
}

TEST(ensembles_do_not_depend_on_the_number_of_threads) {
  const std::size_t n = 1003, m = 17;
  std::vector<double> lambda(n), sigma2(n), eps(n, 0.01), t(m), one(n * m), many(n * m);
  std::vector<Status> status(n);
  for (std::size_t i = 0; i < n; ++i) {
    lambda[i] = std::sin(static_cast<double>(i));
    sigma2[i] = 1.5 + std::cos(static_cast<double>(i));
  }
  for (std::size_t k = 0; k < m; ++k) t[k] = std::exp(static_cast<double>(k)) - 1;
  ExactCurve curve(Objective::jepa, 2);
  const Ensemble features{lambda.data(), sigma2.data(), eps.data(), n};
  Interrupt interrupt;
  solve_exact(curve, features, t.data(), m, false, 1, interrupt, one.data(), status.data());
  solve_exact(curve, features, t.data(), m, false, 7, interrupt, many.data(), status.data());
  CHECK(one == many);
  for (const Status s : status) CHECK(s == Status::ok);
}

TEST(the_end_of_a_rise_that_began_long_ago) {
  // In the curve's own time these start at -1e50: the end of their motion, rounded, lies up to 1e34 before or after it.
  const double lambda = 900, sigma2 = 50;
  const MasterCurve curve(Objective::jepa, 25);
  ExactCurve tables(Objective::jepa, 25);
  Interrupt interrupt;
  for (double eps = 2e-3; eps < 3e-3; eps *= 1.005) {
    const FeatureCurve feature(curve, lambda, sigma2, eps);
    const double rise = feature.time_to_fraction(0.9);
    std::vector<double> t;
    for (int k = -40; k <= 40; ++k) t.push_back(rise * (1 + k * 0x1p-52));
    t.push_back(2 * rise);
    for (const std::size_t m : {t.size(), std::size_t{1}}) {  // at once, and each by itself
      std::vector<double> w(t.size());
      Status status;
      for (std::size_t j = 0; j < t.size(); j += m) {
        solve_exact(tables, {&lambda, &sigma2, &eps, 1}, &t[j], m, false, 1, interrupt, &w[j], &status);
        CHECK(status == Status::ok);
      }
      CHECK(w.front() >= eps);
      CHECK_CLOSE(w.back() / feature.fixed_point(), 1.0, 1e-13);
      for (std::size_t j = 1; j < t.size(); ++j) CHECK(w[j] >= w[j - 1]);
    }
  }
}

TEST(responses_beyond_a_double_are_reported) {
  ExactCurve curve(Objective::jepa, 64);
  const double lambda = 1e3, sigma2 = 1e-3, eps = 0.1, t = std::numeric_limits<double>::infinity();
  double w = 0;
  Status status = Status::ok;
  Interrupt interrupt;
  solve_exact(curve, {&lambda, &sigma2, &eps, 1}, &t, 1, false, 1, interrupt, &w, &status);
  CHECK(std::isnan(w));
  CHECK(status == Status::not_finite);
}

TEST(responses_beyond_a_float_are_reported) {
  ExactCurve curve(Objective::mae, 20);
  const double lambda[] = {1, 1, -1, 1}, sigma2[] = {1, 1e-45, 1, 1e-45}, eps[] = {0.1, 0.5, 1e40, 1e42};
  for (const std::size_t m : {2u, 41u}) {  // times across lanes, and features across them
    std::vector<double> t(m, 0.0);
    t.back() = std::numeric_limits<double>::infinity();
    std::vector<float> w(4 * m);
    Status status[4];
    Interrupt interrupt;
    solve_exact(curve, {lambda, sigma2, eps, 4}, t.data(), m, false, 1, interrupt, w.data(), status);
    CHECK(status[0] == Status::ok && w[m - 1] == 1.0f);
    CHECK(status[1] == Status::not_finite && w[m] == 0.5f && std::isnan(w[2 * m - 1]));
    CHECK(status[2] == Status::not_finite && std::isnan(w[2 * m]) && w[3 * m - 1] == 0.0f);
    CHECK(status[3] == Status::not_finite && std::isnan(w[3 * m]) && std::isnan(w[4 * m - 1]));
  }
}

TEST(an_interrupt_ends_a_long_solve) {
  const std::size_t n = 3000, m = 1000;
  std::vector<double> lambda(n, 1.0), sigma2(n, 1.5), eps(n, 0.01), t(m), w(n * m);
  std::vector<Status> status(n);
  for (std::size_t k = 0; k < m; ++k) t[k] = static_cast<double>(k);
  ExactCurve curve(Objective::mae, 1.1);  // without tables: long enough
  const Ensemble features{lambda.data(), sigma2.data(), eps.data(), n};
  Interrupt interrupt([] { return true; });
  CHECK_THROWS(Interrupted, solve_exact(curve, features, t.data(), m, false, 2, interrupt, w.data(), status.data()));
}
