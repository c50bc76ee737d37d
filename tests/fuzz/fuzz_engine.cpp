// The engine on arguments made of random bytes: everything that Python's validation lets through (_validate.py),
// extreme numbers most of all (RELIABILITY.md 6 and 22). Values with status OK must be numbers in their range; a value
// that is not ends the program, as do the sanitizers.
//
// The entry is libFuzzer's: with a clang that brings it, coverage guides the bytes (CMakeLists.txt); without,
// driver.cpp feeds them.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "jepa_ode/exact.hpp"
#include "jepa_ode/feature_curve.hpp"
#include "jepa_ode/gradient_flow.hpp"
#include "jepa_ode/layer_solver.hpp"
#include "jepa_ode/runge_kutta.hpp"
#include "jepa_ode/sample_moments.hpp"
#include "jepa_ode/sensitivity.hpp"
#include "jepa_ode/trainer.hpp"

namespace {

using namespace jepa_ode;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

#define REQUIRE(...) require(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__)

// The bytes as arguments; zeros where they are used up.
class Source {
 public:
  Source(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  template <class Number>
  Number raw() {
    Number number{};
    const std::size_t taken = std::min(sizeof number, size_);
    std::memcpy(static_cast<void*>(&number), data_, taken);
    data_ += taken;
    size_ -= taken;
    return number;
  }

  unsigned below(unsigned bound) { return raw<std::uint8_t>() % bound; }
  bool flag() { return below(2) == 1; }
  double fraction() { return raw<std::uint16_t>() / 65536.0; }  // in [0, 1)

  double positive() {
    constexpr double special[] = {5e-324, 2.3e-308, 1e-160, 1e-16, 1.0, 2.0, 1e16, 1e160, 1.79e308};
    switch (below(4)) {
      case 0:
        return special[below(9)];
      case 1: {
        const double any = std::abs(raw<double>());  // every pattern of bits
        return any > 0 && std::isfinite(any) ? any : 1.0;
      }
      case 2:
        return std::pow(10.0, 600 * fraction() - 300);
      default:
        return std::pow(10.0, 4 * fraction() - 3);
    }
  }
  double real() {
    const double size = below(8) == 0 ? 0.0 : positive();
    return below(4) == 0 ? -size : size;
  }
  double depth() {
    constexpr double special[] = {1.0, 1.0 + 1e-15, 1.001, 2.0, 3.0, 64.0, 127.0, 1e3, 1e15};
    return below(3) == 0 ? special[below(9)] : flag() ? 1.0 + below(8) : 1.0 + 20 * fraction();
  }
  Objective objective() { return flag() ? Objective::mae : Objective::jepa; }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

constexpr double infinity = std::numeric_limits<double>::infinity();

// Few features, for speed, but more than any pack has lanes. Neighbours are often equal.
struct Features {
  std::vector<double> lambda, sigma2, eps, times;
  bool row_per_feature;
  std::size_t n, m;

  Features(Source& source, bool with_infinity, double least_eps = 0.0) {
    n = source.below(20);
    m = source.below(7);
    row_per_feature = source.flag();
    for (std::size_t i = 0; i < n; ++i) {
      const bool same = i > 0 && source.below(3) == 0;
      lambda.push_back(same ? lambda.back() : source.real());
      sigma2.push_back(same ? sigma2.back() : source.positive());
      eps.push_back(std::max(same ? eps.back() : source.positive(), least_eps));
    }
    for (std::size_t row = 0; row < (row_per_feature ? n : 1); ++row) {
      for (std::size_t k = 0; k < m; ++k) {
        const double t = source.below(6) == 0 ? 0.0 : source.positive();
        times.push_back(with_infinity && source.below(10) == 0 ? infinity : t);
      }
      std::sort(times.end() - static_cast<std::ptrdiff_t>(m), times.end());
    }
  }

  Ensemble ensemble() const { return {lambda.data(), sigma2.data(), eps.data(), n}; }
};

// Between the start and the fixed point, but for a relative error.
void require_in_range(const MasterCurve& curve, const Features& features, std::size_t i, double w, double error) {
  const double end = fixed_point(curve, features.lambda[i], features.sigma2[i]), start = features.eps[i];
  REQUIRE(w >= std::min(start, end) * (1 - error));
  REQUIRE(w <= std::max(start, end) * (1 + error) || w <= std::max(start, end) + 5e-324);
}

void exact(Source& source) {
  const Objective objective = source.objective();
  const double depth = std::min(source.depth(), 2e6);  // the largest that a master curve takes
  const Features features(source, true);
  const auto curve = ExactCurve::of(objective, depth);
  std::vector<double> w(features.n * features.m);
  std::vector<float> narrow(w.size());
  std::vector<Status> status(features.n), narrow_status(features.n);
  const unsigned threads = 1 + source.below(3);
  Interrupt interrupt;
  solve_exact(*curve, features.ensemble(), features.times.data(), features.m, features.row_per_feature, threads,
              interrupt, w.data(), status.data());
  solve_exact(*curve, features.ensemble(), features.times.data(), features.m, features.row_per_feature, threads,
              interrupt, narrow.data(), narrow_status.data());
  for (std::size_t i = 0; i < features.n; ++i) {
    for (std::size_t k = 0; k < features.m; ++k) {
      const double x = w[i * features.m + k];
      if (status[i] == Status::ok) require_in_range(curve->curve(), features, i, x, 1e-13);
      REQUIRE(std::isfinite(x) || status[i] == Status::not_finite);
      REQUIRE(std::isfinite(narrow[i * features.m + k]) || narrow_status[i] == Status::not_finite);
    }
  }

  std::vector<double> target(features.n), time(features.n);
  for (double& x : target) x = source.below(8) == 0 ? 0.0 : source.positive();
  time_to_reach(*curve, features.ensemble(), target.data(), threads, interrupt, time.data());
  for (const double t : time) REQUIRE(t >= 0);
  critical_time(*curve, features.ensemble(), std::max(source.fraction(), 1e-6), threads, interrupt, time.data());
  for (const double t : time) REQUIRE(t >= 0);

  std::vector<double> derivatives(4 * w.size());
  double* const d = derivatives.data();
  solve_sensitivities(curve->curve(), features.ensemble(), features.times.data(), features.m, features.row_per_feature,
                      threads, interrupt, {d, d + w.size(), d + 2 * w.size(), d + 3 * w.size()});
}

RungeKuttaOptions options(Source& source) {
  RungeKuttaOptions options;
  options.method = source.flag() ? RungeKuttaMethod::dop853 : RungeKuttaMethod::tsit5;
  options.rtol = std::pow(10.0, -13 + 12.9 * source.fraction());
  options.atol = source.flag() ? 0.0 : source.positive();
  options.max_steps = std::int64_t{1} << source.below(13);
  return options;
}

void runge_kutta(Source& source) {
  const Objective objective = source.objective();
  const double depth = source.depth();
  const RungeKuttaOptions chosen = options(source);
  const Features features(source, true);
  std::vector<double> w(features.n * features.m);
  std::vector<Status> status(features.n);
  std::vector<std::int64_t> evaluations(features.n);
  Interrupt interrupt;
  solve_runge_kutta(objective, depth, features.ensemble(), features.times.data(), features.m, features.row_per_feature,
                    chosen, 1 + source.below(3), interrupt, w.data(), status.data(), evaluations.data());
  for (std::size_t i = 0; i < features.n; ++i) {
    REQUIRE(evaluations[i] >= 0);
    for (std::size_t k = 0; k < features.m; ++k)
      REQUIRE(status[i] != Status::ok || (std::isfinite(w[i * features.m + k]) && w[i * features.m + k] >= 0));
  }
}

void layers(Source& source) {
  constexpr LayerTarget targets[] = {LayerTarget::own, LayerTarget::differentiated, LayerTarget::average,
                                     LayerTarget::data};
  LayerProblem problem;
  problem.target = targets[source.below(4)];
  problem.depth = source.depth();
  problem.decay = source.flag() ? 0.0 : source.positive();
  problem.tau = source.positive();
  const RungeKuttaOptions chosen = options(source);
  const Features features(source, false, 1e-190);
  problem.features = features.ensemble();
  std::vector<double> sigma2_y(features.n), predictor(features.n);
  for (double& x : sigma2_y) x = source.positive();
  for (double& v : predictor) v = source.real();
  problem.sigma2_y = sigma2_y.data();
  problem.predictor = source.flag() ? predictor.data() : nullptr;
  const std::size_t size = features.n * features.m;
  std::vector<double> w(size), v(size), b(size);
  std::vector<Status> status(features.n);
  std::vector<std::int64_t> evaluations(features.n);
  Interrupt interrupt;
  solve_layers(problem, features.times.data(), features.m, features.row_per_feature, chosen, 1 + source.below(3),
               interrupt,
               {w.data(), v.data(), problem.target == LayerTarget::average ? b.data() : nullptr, status.data(),
                evaluations.data()});
  for (std::size_t i = 0; i < features.n; ++i) {
    for (std::size_t k = i * features.m; k < (i + 1) * features.m; ++k)
      REQUIRE(status[i] != Status::ok ||
              (std::isfinite(w[k]) && w[k] >= 0 && std::isfinite(v[k]) && std::isfinite(b[k])));
  }
}

NetworkShape shape(Source& source, Objective objective) {
  std::vector<Index> widths;
  const unsigned depth = 1 + source.below(4);
  for (unsigned k = 0; k <= depth; ++k) widths.push_back(1 + source.below(6));
  const Index outputs = objective == Objective::mae ? widths.front() : widths.back();
  return {widths, outputs};
}

FlowTerms terms(Source& source) {
  FlowTerms terms;
  terms.objective = source.objective();
  terms.stop_gradient = terms.objective == Objective::mae || source.below(4) != 0;
  if (terms.objective == Objective::jepa && terms.stop_gradient && source.flag()) terms.ema_time = source.positive();
  if (source.flag()) terms.weight_decay = source.positive();
  if (source.flag()) terms.predictor_rate = source.positive();
  return terms;
}

std::vector<double> numbers(Source& source, Index count) {
  std::vector<double> values(static_cast<std::size_t>(count));
  const bool tame = source.below(4) != 0;
  for (double& x : values) x = tame ? 2 * source.fraction() - 1 : source.real();
  return values;
}

// Sxx, Syx and Syy of so many samples.
struct RandomMoments {
  SampleMoments moments;

  RandomMoments(Source& source, Index d) {
    const Index samples = 1 + source.below(2 * static_cast<unsigned>(d));
    const std::vector<double> x = numbers(source, samples * d), y = numbers(source, samples * d);
    Interrupt interrupt;
    moments = sample_moments(x.data(), y.data(), samples, d, 1 + source.below(2), interrupt);
  }

  bool finite() const { return moments.xx.allFinite() && moments.yx.allFinite() && moments.yy.allFinite(); }
  operator Moments() const { return {moments.xx.data(), moments.yx.data(), moments.yy.data()}; }
};

void flow(Source& source) {
  constexpr FlowMethod methods[] = {FlowMethod::automatic, FlowMethod::tsit5, FlowMethod::dop853, FlowMethod::rock4};
  const FlowTerms chosen = terms(source);
  const NetworkShape network = shape(source, chosen.objective);
  const Index d = network.inputs();
  const RandomMoments moments(source, d);
  if (!moments.finite()) return;  // Covariances refuses them
  FlowSettings settings;
  settings.method = methods[source.below(4)];
  settings.rtol = std::pow(10.0, -13 + 12.9 * source.fraction());
  settings.atol = source.flag() ? 0.0 : source.positive();
  settings.max_steps = std::int64_t{1} << source.below(10);
  LinearNetworkFlow flow(network, chosen, moments);
  const std::vector<double> start = numbers(source, flow.state_size());
  std::vector<double> times(source.below(6));
  for (double& t : times) t = source.below(6) == 0 ? 0.0 : source.positive();
  std::sort(times.begin(), times.end());
  const Matrix directions = Matrix::Identity(d, d);
  const auto count = static_cast<Index>(times.size());
  std::vector<double> loss(times.size()), crossings(static_cast<std::size_t>(d)),
      response(static_cast<std::size_t>(d * count)), last(static_cast<std::size_t>(flow.weights_size()));
  const std::vector<double> levels(crossings.size(), source.positive());
  FlowObservation observation;
  observation.times = times.data();
  observation.count = times.size();
  observation.loss = loss.data();
  observation.directions = directions.data();
  observation.features = d;
  observation.response = response.data();
  observation.final_weights = last.data();
  if (source.flag()) {
    observation.events.levels = levels.data();
    observation.events.crossings = crossings.data();
    observation.events.stop_when_crossed = source.flag();
  }
  observation.events.rest = source.flag() ? 0.0 : source.fraction();
  observation.events.plateau = source.flag() ? 0.0 : source.fraction();
  Interrupt interrupt;
  const FlowResult result = gradient_flow(flow, start.data(), settings, observation, interrupt);
  REQUIRE(result.reached <= times.size() && result.nfev >= 0 && result.time >= 0);
  for (const double t : crossings) REQUIRE(t >= 0);
  for (const FlowEvents::Interval& plateau : result.plateaus) REQUIRE(plateau[0] <= plateau[1]);
  if (result.status != Status::ok) return;
  REQUIRE(result.reached == times.size());
  for (const double weight : last) REQUIRE(std::isfinite(weight));
}

void training(Source& source) {
  constexpr Optimizer optimizers[] = {Optimizer::sgd, Optimizer::momentum, Optimizer::nesterov, Optimizer::adam,
                                      Optimizer::adamw};
  const FlowTerms chosen = terms(source);
  const NetworkShape network = shape(source, chosen.objective);
  const Index d = network.inputs();
  TrainerSettings settings;
  settings.optimizer = optimizers[source.below(5)];
  settings.momentum = source.fraction();
  settings.beta1 = source.fraction();
  settings.beta2 = source.fraction();
  settings.adam_eps = source.flag() ? 1e-8 : source.positive();
  settings.predictor_rate = source.flag() ? 1.0 : source.positive();
  settings.threads = 1 + source.below(3);
  std::vector<double> rates(source.below(20));
  for (double& rate : rates) rate = source.flag() ? source.fraction() : source.positive();
  const auto steps = static_cast<std::int64_t>(rates.size());
  const auto check = [&](Trainer& trainer, const double* x, const double* y, const std::int64_t* rows) {
    const std::vector<double> start = numbers(source, trainer.state_size());
    trainer.set_state(start.data());
    Interrupt interrupt;
    const std::int64_t done = trainer.advance(rates.data(), steps, x, y, rows, interrupt);
    std::vector<double> state(start.size());
    trainer.get_state(state.data());
    REQUIRE(done >= 0 && done <= steps);
    if (done < steps) return;
    for (std::size_t k = 0; k < static_cast<std::size_t>(network.weights_size()); ++k) REQUIRE(std::isfinite(state[k]));
  };
  if (source.flag()) {
    const RandomMoments moments(source, d);
    if (!moments.finite()) return;
    Trainer trainer(network, chosen, settings, moments);
    check(trainer, nullptr, nullptr, nullptr);
  } else {
    const Index batch = 1 + source.below(12), samples = batch * std::max<Index>(steps, 1);
    const std::vector<double> x = numbers(source, samples * d), y = numbers(source, samples * d);
    std::vector<std::int64_t> rows(static_cast<std::size_t>(samples));
    for (std::int64_t& row : rows) row = static_cast<std::int64_t>(source.raw<std::uint32_t>()) % samples;
    Trainer trainer(network, chosen, settings, batch);
    check(trainer, x.data(), y.data(), source.flag() ? rows.data() : nullptr);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Source source(data, size);
  switch (source.below(8)) {
    case 0:
    case 1:
      exact(source);
      break;
    case 2:
    case 3:
      runge_kutta(source);
      break;
    case 4:
    case 5:
      layers(source);
      break;
    case 6:
      flow(source);
      break;
    default:
      training(source);
  }
  return 0;
}
