// The matrix flow without Python: gradients, the scalar theory, conservation laws, statuses, interrupts (THEORY.md
// 1-3).
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "jepa_ode/gradient_flow.hpp"

namespace {

using namespace jepa_ode;

constexpr FlowMethod every_method[] = {FlowMethod::automatic, FlowMethod::tsit5, FlowMethod::dop853, FlowMethod::rock4};

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

struct Problem {
  NetworkShape shape;
  Matrix xx, yx, yy;

  Moments moments() const { return {xx.data(), yx.data(), yy.data()}; }
};

// Products here are lazy ones, as Eigen's others take a compiler most of a minute.

// Correlated views in d dimensions; Syx is not symmetric, so that a transposed product cannot hide.
Problem random_problem(const NetworkShape& shape, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  const Index d = shape.inputs();
  const auto gaussian = [&] { return Matrix(Matrix::NullaryExpr(d, 3 * d, [&] { return normal(generator); })); };
  const Matrix x = gaussian();
  const Matrix y = 0.7 * x + gaussian();
  const double samples = static_cast<double>(x.cols());
  return {shape, x.lazyProduct(x.transpose()) / samples, y.lazyProduct(x.transpose()) / samples,
          y.lazyProduct(y.transpose()) / samples};
}

std::vector<double> random_state(Index size, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0, 0.4);
  std::vector<double> state(static_cast<std::size_t>(size));
  for (double& weight : state) weight = normal(generator);
  return state;
}

// Diagonal data and W^l = V = eps^(1/L) I: every feature follows its own scalar equation.
Problem aligned_problem(Index depth, const std::vector<double>& lambda, const std::vector<double>& rho) {
  const Index d = static_cast<Index>(lambda.size());
  Problem problem{{std::vector<Index>(static_cast<std::size_t>(depth) + 1, d), d},
                  Matrix::Zero(d, d),
                  Matrix::Zero(d, d),
                  Matrix::Identity(d, d)};
  for (Index i = 0; i < d; ++i) {
    const auto k = static_cast<std::size_t>(i);
    problem.yx(i, i) = lambda[k];
    problem.xx(i, i) = lambda[k] / rho[k];
  }
  return problem;
}

std::vector<double> balanced_state(Index depth, Index d, double eps) {
  const double scale = std::pow(eps, 1.0 / static_cast<double>(depth));
  std::vector<double> state;
  for (Index block = 0; block <= depth; ++block)
    for (Index i = 0; i < d * d; ++i) state.push_back(i % (d + 1) == 0 ? scale : 0.0);
  return state;
}

// Time for w to go from eps to w (THEORY.md 3): T_{p,q} in its elementary forms, depth 1 of both objectives and JEPA's
// sum.
double time_to_reach(Objective objective, Index depth, double lambda, double rho, double eps, double w) {
  const double power = 1.0 / static_cast<double>(depth);
  const auto [p, q] = exponents(objective, static_cast<double>(depth));
  const double fixed_point = std::pow(rho, 1 / q);
  const auto clock = [&](double x) {
    if (objective == Objective::mae) return std::log(x) - std::log1p(-x * x) / 2;  // depth 1
    double sum = std::log(x / (1 - x));
    for (int n = 1; n < 2 * depth; ++n) sum -= std::pow(x, -n) / n;
    return sum;
  };
  const double distance = clock(std::pow(w, power) / fixed_point) - clock(std::pow(eps, power) / fixed_point);
  return distance / (lambda * std::pow(fixed_point, p - 1));
}

TEST(velocity_descends_on_the_loss) {
  // MAE, and JEPA without stop-gradient, descend on a loss: central differences of it, whose error is O(h^2).
  for (const Objective objective : {Objective::mae, Objective::jepa}) {
    for (const std::vector<Index>& widths : {std::vector<Index>{4, 3}, {4, 5, 3}, {4, 2, 6, 4, 3}}) {
      const NetworkShape shape{widths, objective == Objective::mae ? widths.front() : widths.back()};
      const Problem problem = random_problem(shape, 1);
      FlowTerms terms;
      terms.objective = objective;
      terms.stop_gradient = false;
      LinearNetworkFlow flow(shape, terms, problem.moments());
      std::vector<double> state = random_state(flow.state_size(), 2);
      std::vector<double> velocity(state.size(), nan);
      flow.velocity(state.data(), velocity.data());
      for (std::size_t i = 0; i < state.size(); ++i) {
        const double weight = state[i];
        const double h = 1e-5;
        state[i] = weight + h;
        const double above = flow.loss(state.data());
        state[i] = weight - h;
        const double below = flow.loss(state.data());
        state[i] = weight;
        CHECK(std::abs(velocity[i] + (above - below) / (2 * h)) < 1e-8);
      }
    }
  }
}

TEST(aligned_features_reach_responses_at_the_exact_times) {
  const std::vector<double> lambda{0.9, 0.7, 0.4};
  const std::vector<double> rho{0.5, 0.6, 0.8};
  const double eps = 0.05;
  struct Case {
    Objective objective;
    Index depth;
  };
  for (const Case c : {Case{Objective::jepa, 1}, {Objective::jepa, 2}, {Objective::jepa, 3}, {Objective::mae, 1}}) {
    const Problem problem = aligned_problem(c.depth, lambda, rho);
    FlowTerms terms;
    terms.objective = c.objective;
    LinearNetworkFlow flow(problem.shape, terms, problem.moments());
    const std::vector<double> start = balanced_state(c.depth, 3, eps);
    const Matrix identity = Matrix::Identity(3, 3);
    for (std::size_t i = 0; i < lambda.size(); ++i) {
      const double q = exponents(c.objective, static_cast<double>(c.depth)).q;
      const double w = 0.6 * std::pow(rho[i], static_cast<double>(c.depth) / q);
      // The second time makes the first one fall inside a step.
      const double reached = time_to_reach(c.objective, c.depth, lambda[i], rho[i], eps, w);
      const std::vector<double> times{reached, 1.5 * reached};
      for (const FlowMethod method : {FlowMethod::tsit5, FlowMethod::dop853}) {
        std::vector<double> response(6, nan);
        FlowObservation observation;
        observation.times = times.data();
        observation.count = times.size();
        observation.directions = identity.data();
        observation.features = 3;
        observation.response = response.data();
        Interrupt interrupt;
        const FlowResult result =
            gradient_flow(flow, start.data(), {method, 1e-12, 1e-14, 100'000}, observation, interrupt);
        CHECK(result.status == Status::ok && result.reached == 2);
        CHECK_CLOSE(response[i * 2], w, 1e-9);
      }
    }
  }
}

// Runs a random problem and keeps the weights at the given times.
FlowResult run(const Problem& problem, const FlowTerms& terms, const std::vector<double>& start,
               const FlowSettings& settings, const std::vector<double>& times, std::vector<double>& weights,
               Interrupt::Poll poll = {}, const FlowProgress& progress = {}, unsigned threads = 1) {
  LinearNetworkFlow flow(problem.shape, terms, problem.moments(), threads);
  weights.assign(times.size() * static_cast<std::size_t>(flow.weights_size()), 0.0);
  FlowObservation observation;
  observation.times = times.data();
  observation.count = times.size();
  observation.weights = weights.data();
  Interrupt interrupt(std::move(poll));
  return gradient_flow(flow, start.data(), settings, observation, interrupt, progress);
}

TEST(balancedness_is_conserved) {
  const NetworkShape shape{{4, 5, 3}, 3};
  const Problem problem = random_problem(shape, 3);
  const std::vector<double> start = random_state(4 * 5 + 5 * 3 + 3 * 3, 4);
  const auto balance = [](const double* state) {
    const ConstMatrixView first(state, 5, 4), second(state + 20, 3, 5), predictor(state + 35, 3, 3);
    const auto gram = [](const auto& x) -> Matrix { return x.lazyProduct(x.transpose()); };
    return std::pair<Matrix, Matrix>(gram(second.transpose()) - gram(first),
                                     gram(predictor.transpose()) - gram(second));
  };
  const auto [hidden, top] = balance(start.data());
  for (const FlowMethod method : every_method) {
    std::vector<double> weights;
    const std::vector<double> times{0.0, 0.3, 20.0};
    CHECK(run(problem, {}, start, {method, 1e-10, 1e-12, 100'000}, times, weights).status == Status::ok);
    for (std::size_t k = 0; k < times.size(); ++k) {
      const auto [hidden_then, top_then] = balance(weights.data() + k * start.size());
      CHECK((hidden_then - hidden).norm() < 1e-8);
      CHECK((top_then - top).norm() < 1e-8);
    }
  }
}

TEST(more_times_do_not_move_the_others) {
  const Problem problem = random_problem({{3, 3, 3}, 3}, 5);
  const std::vector<double> start = random_state(27, 6);
  for (const FlowMethod method : every_method) {
    std::vector<double> few, many;
    run(problem, {}, start, {method, 1e-6, 1e-9, 1000}, {1.0, 5.0}, few);
    run(problem, {}, start, {method, 1e-6, 1e-9, 1000}, {0.0, 0.5, 1.0, 1.0, 3.7, 5.0}, many);
    for (std::size_t i = 0; i < 27; ++i) {
      CHECK(few[i] == many[2 * 27 + i] && few[i] == many[3 * 27 + i]);
      CHECK(few[27 + i] == many[5 * 27 + i]);
    }
  }
}

// A network that is large enough to be shared, and one that is not; every kind of term.
TEST(threads_change_no_bit) {
  FlowTerms mae, average, open;
  mae.objective = Objective::mae;
  average.ema_time = 2;
  average.weight_decay = 0.01;
  average.predictor_rate = 3;
  open.stop_gradient = false;
  for (const Index d : {30, 131}) {
    const Problem problem = random_problem({{d, d + 1, d}, d}, 8);
    const Index layers = 2 * d * (d + 1);
    for (const FlowTerms& terms : {FlowTerms{}, mae, average, open}) {
      std::vector<double> start = random_state(layers + d * d + (terms.has_target_network() ? layers : 0), 9);
      for (double& weight : start) weight /= std::sqrt(static_cast<double>(d));
      for (const FlowMethod method : {FlowMethod::dop853, FlowMethod::rock4}) {
        std::vector<double> alone, shared;
        const auto weights = [&](unsigned threads, std::vector<double>& to) {
          run(problem, terms, start, {method, 1e-3, 1e-6, 1000}, {0.1, 0.2}, to, {}, {}, threads);
        };
        weights(1, alone);
        CHECK(std::isfinite(alone.back()));
        for (const unsigned threads : {2, 3, 7}) {
          weights(threads, shared);
          CHECK(shared == alone);
        }
      }
    }
  }
}

TEST(trouble_is_a_status_and_values_not_reached_are_nan) {
  const Problem problem = random_problem({{3, 3, 3}, 3}, 7);
  std::vector<double> start = random_state(27, 8);
  std::vector<double> weights;

  FlowResult result = run(problem, {}, start, {FlowMethod::tsit5, 1e-6, 1e-9, 3}, {0.0, 1e3}, weights);
  CHECK(result.status == Status::max_steps && result.reached == 1);
  CHECK(result.steps + result.rejected == 3);
  CHECK(weights[26] == start[26] && std::isnan(weights[27]) && std::isnan(weights[53]));

  // A "covariance" that is negative definite makes weights infinite in finite time: steps shrink towards it for ever.
  Problem explosive = problem;
  explosive.xx = -Matrix::Identity(3, 3);
  result = run(explosive, {}, start, {FlowMethod::tsit5, 1e-6, 1e-9, 100'000}, {1e3}, weights);
  CHECK(result.status == Status::step_too_small && result.reached == 0);

  for (const double bad : {nan, inf, 1e200}) {
    start[0] = bad;
    result = run(problem, {}, start, {FlowMethod::dop853, 1e-6, 1e-9, 100'000}, {0.0, 1.0}, weights);
    CHECK(result.status == Status::not_finite && result.reached == 1);
    CHECK(std::isnan(weights[27]));
  }
}

TEST(crossings_are_found_inside_steps) {
  const std::vector<double> lambda{0.9, 0.7, 0.4};
  const std::vector<double> rho{0.5, 0.6, 0.8};
  const double eps = 0.05;
  const Problem problem = aligned_problem(2, lambda, rho);
  LinearNetworkFlow flow(problem.shape, {}, problem.moments());
  const std::vector<double> start = balanced_state(2, 3, eps), times{1e4};
  const Matrix identity = Matrix::Identity(3, 3);
  std::vector<double> levels, expected;
  for (std::size_t i = 0; i < 3; ++i) {
    levels.push_back(0.5 * rho[i] * rho[i]);
    expected.push_back(time_to_reach(Objective::jepa, 2, lambda[i], rho[i], eps, levels[i]));
  }
  levels[1] = 0.9 * eps;  // reached at the start
  for (const FlowMethod method : every_method) {
    for (const bool stop : {false, true}) {
      std::vector<double> crossings(3, nan), last(start.size());
      FlowObservation observation;
      observation.times = times.data();
      observation.count = 1;
      observation.directions = identity.data();
      observation.features = 3;
      observation.final_weights = last.data();
      observation.events.levels = levels.data();
      observation.events.crossings = crossings.data();
      observation.events.stop_when_crossed = stop;
      Interrupt interrupt;
      const FlowResult result =
          gradient_flow(flow, start.data(), {method, 1e-9, 1e-12, 100'000}, observation, interrupt);
      CHECK(result.status == (stop ? Status::stopped : Status::ok));
      CHECK_CLOSE(crossings[0], expected[0], 1e-6);
      CHECK(crossings[1] == 0);
      CHECK_CLOSE(crossings[2], expected[2], 1e-6);
      CHECK(stop ? result.time >= std::max(crossings[0], crossings[2]) && result.time < 1e4 : result.time == 1e4);
      double response;
      const Matrix third = identity.col(2);
      flow.response(last.data(), third.data(), 1, &response, 1);
      CHECK(response >= levels[2]);
    }
  }
}

TEST(a_flow_stops_at_rest_but_on_no_plateau) {
  const std::vector<double> lambda{0.9, 0.7, 0.4};
  const std::vector<double> rho{0.5, 0.6, 0.8};
  const Problem problem = aligned_problem(2, lambda, rho);
  LinearNetworkFlow flow(problem.shape, {}, problem.moments());
  const std::vector<double> start = balanced_state(2, 3, 0.01), times{1e9};
  for (const FlowMethod method : {FlowMethod::automatic, FlowMethod::rock4}) {
    FlowObservation observation;
    std::vector<double> last(start.size());
    observation.times = times.data();
    observation.count = 1;
    observation.final_weights = last.data();
    observation.events.rest = 1e-6;
    observation.events.plateau = 0.01;
    Interrupt interrupt;
    const FlowResult result = gradient_flow(flow, start.data(), {method, 1e-9, 1e-12, 100'000}, observation, interrupt);
    CHECK(result.status == Status::stopped && result.reached == 0);
    for (Index i = 0; i < 3; ++i) {
      const Matrix direction = Matrix::Identity(3, 3).col(i);
      double response;
      flow.response(last.data(), direction.data(), 1, &response, 1);
      CHECK_CLOSE(response, rho[static_cast<std::size_t>(i)] * rho[static_cast<std::size_t>(i)], 1e-5);
    }
    // The loss rests before the first feature and after the last one.
    CHECK(result.plateaus.size() == 2 && result.plateaus[0][0] == 0 && result.plateaus[1][1] == result.time);
  }
}

TEST(nothing_to_do) {
  const Problem problem = random_problem({{3, 3}, 3}, 9);
  std::vector<double> start = random_state(18, 10);
  std::vector<double> weights;
  CHECK(run(problem, {}, start, {}, {}, weights).nfev == 0);
  CHECK(run(problem, {}, start, {}, {0.0, 0.0}, weights).nfev == 0);
  CHECK(weights[18] == start[0]);
  // A network that is zero stays where it is, whatever the horizon and also without absolute tolerance.
  start.assign(18, 0.0);
  CHECK(run(problem, {}, start, {FlowMethod::tsit5, 1e-6, 0, 1000}, {1e300}, weights).status == Status::ok);
  CHECK(weights[17] == 0);
}

TEST(interrupts_reach_the_caller) {
  const Problem problem = random_problem({{3, 3}, 3}, 11);
  const std::vector<double> start = random_state(18, 12);
  const FlowSettings endless{FlowMethod::tsit5, 1e-6, 1e-9, std::numeric_limits<std::int64_t>::max()};
  std::vector<double> weights;
  CHECK_THROWS(Interrupted, run(problem, {}, start, endless, {1e12}, weights, [] { return true; }));
  double last = -1;
  int calls = 0;
  CHECK_THROWS(Interrupted, run(problem, {}, start, endless, {1e12}, weights, {}, [&](double time) {
                 CHECK(time >= last);
                 last = time;
                 return ++calls == 100;
               }));
  CHECK(calls == 100);
}

}  // namespace
