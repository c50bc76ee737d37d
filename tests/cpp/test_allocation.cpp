// An evaluation of the flow allocates nothing, and a step of the integration neither, whatever the size. Where memory
// is refused every call ends in std::bad_alloc, keeps nothing, and the next one works (RELIABILITY.md 28).
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <new>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "jepa_ode/exact.hpp"
#include "jepa_ode/gradient_flow.hpp"
#include "jepa_ode/layer_solver.hpp"
#include "jepa_ode/runge_kutta.hpp"
#include "jepa_ode/sample_moments.hpp"
#include "jepa_ode/sensitivity.hpp"
#include "jepa_ode/trainer.hpp"

// The allocator of glibc, counted and made to fail: a sanitizer brings its own. Operator new ends in malloc.
#if defined(__GLIBC__) && !defined(JEPA_ODE_SANITIZED)
namespace {

constexpr std::size_t never = std::numeric_limits<std::size_t>::max();
std::atomic<std::size_t> allocations{0};
std::atomic<std::size_t> first_refused{never}, last_refused{never};  // counted as `allocations` are
std::atomic<std::ptrdiff_t> living{0};

bool refused() {
  const std::size_t mine = ++allocations;
  return mine >= first_refused && mine <= last_refused;
}

void* born(void* memory) {
  if (memory) ++living;
  return memory;
}

}  // namespace
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);
void* malloc(std::size_t size) { return refused() ? nullptr : born(__libc_malloc(size)); }
void* calloc(std::size_t count, std::size_t size) { return refused() ? nullptr : born(__libc_calloc(count, size)); }
void* realloc(void* memory, std::size_t size) {
  if (refused()) return nullptr;
  void* const moved = __libc_realloc(memory, size);
  return memory ? moved : born(moved);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  return refused() ? nullptr : born(__libc_memalign(alignment, size));
}
void free(void* memory) {
  if (memory) --living;
  __libc_free(memory);
}
}

namespace {

using namespace jepa_ode;

enum class Coordinates { data, principal_axes, features };

struct Case {
  FlowTerms terms;
  Coordinates coordinates;
  const char* name;
  const char* where;
};

std::vector<Case> cases() {
  FlowTerms jepa, mae, average, open;
  mae.objective = Objective::mae;
  average.ema_time = 2;
  average.weight_decay = 0.01;
  average.predictor_rate = 3;
  open.stop_gradient = false;
  std::vector<Case> all;
  for (const auto& [coordinates, where] :
       {std::pair(Coordinates::data, "data"), std::pair(Coordinates::principal_axes, "principal axes"),
        std::pair(Coordinates::features, "feature coordinates")}) {
    all.push_back({jepa, coordinates, "JEPA", where});
    all.push_back({mae, coordinates, "MAE", where});
    all.push_back({average, coordinates, "JEPA with a moving average, decay and a rate", where});
    all.push_back({open, coordinates, "JEPA without stop-gradient", where});
  }
  return all;
}

// Three layers of different widths on moments of the size of an identity, which stand for all coordinates.
struct Problem {
  Problem(Index d, const Case& c, unsigned threads = 1)
      : shape{{d, d + 3, d, d - 1}, c.terms.objective == Objective::mae ? d : d - 1},
        moment(Matrix::Identity(d, d) + Matrix::Constant(d, d, 0.1 / static_cast<double>(d))),
        rho(Eigen::VectorXd::Constant(d, 0.8)),
        flow(shape, c.terms, moments(c.coordinates), threads),
        state(static_cast<std::size_t>(flow.state_size())) {
    std::mt19937 generator(1);
    std::normal_distribution<double> normal(0, 0.5 / std::sqrt(static_cast<double>(d)));
    for (double& weight : state) weight = normal(generator);
  }

  Moments moments(Coordinates coordinates) const {
    const double* m = moment.data();
    if (coordinates == Coordinates::features) return {nullptr, m, m, m, rho.data()};
    if (coordinates == Coordinates::principal_axes) return {nullptr, m, m, nullptr, nullptr, rho.data()};
    return {m, m, m};
  }

  NetworkShape shape;
  Matrix moment;
  Eigen::VectorXd rho;
  LinearNetworkFlow flow;
  std::vector<double> state;
};

TEST(the_counter_counts) {
  const std::size_t before = allocations;
  const Eigen::VectorXd vector(1000);
  CHECK(allocations > before);
  CHECK(vector.size() == 1000);
}

TEST(an_evaluation_does_not_allocate) {
  for (const Case& c : cases()) {
    for (const Index d : {8, 32, 128, 300}) {
      Problem problem(d, c, d == 128 ? 3 : 1);
      std::vector<double> velocity(problem.state.size()), response(static_cast<std::size_t>(d));
      double loss = 0;
      const auto evaluate = [&] {
        problem.flow.velocity(problem.state.data(), velocity.data());
        loss += problem.flow.loss(problem.state.data());
        problem.flow.response(problem.state.data(), problem.moment.data(), d, response.data(), 1);
      };
      evaluate();
      const std::size_t before = allocations;
      for (int k = 0; k < 3; ++k) evaluate();
      if (allocations != before)
        std::printf("d = %d, %s, %s: %zu allocations\n", int(d), c.name, c.where, allocations.load() - before);
      CHECK(allocations == before);
      CHECK(std::isfinite(loss));
    }
  }
}

TEST(a_step_does_not_allocate) {
  for (const Case& c : cases()) {
    for (const Index d : {8, 32, 160}) {
      Problem problem(d, c);
      std::vector<double> velocity(problem.state.size());
      problem.flow.velocity(problem.state.data(), velocity.data());  // takes the memory that it keeps
      for (const FlowMethod method : {FlowMethod::tsit5, FlowMethod::dop853, FlowMethod::rock4}) {
        const std::int64_t few = d > 100 ? 1 : 20;  // a step is a step, and large ones take their time
        std::size_t counted[2]{};
        for (const int longer : {0, 1}) {
          const std::size_t before = allocations;
          const double end = 1e9;  // far beyond what so few steps reach
          FlowObservation observation;
          observation.times = &end;
          observation.count = 1;
          Interrupt interrupt;
          const FlowResult result = gradient_flow(problem.flow, problem.state.data(),
                                                  {method, 1e-9, 1e-12, few * (1 + longer)}, observation, interrupt);
          counted[longer] = allocations - before;
          CHECK(result.status == Status::max_steps && result.steps + result.rejected == few * (1 + longer));
        }
        if (counted[1] != counted[0])
          std::printf("d = %d, %s: %zu allocations, %zu in twice the steps\n", int(d), c.name, counted[0], counted[1]);
        CHECK(counted[1] == counted[0]);
      }
    }
  }
}

// ---- memory that is refused --------------------------------------------------------------------------------------

using Values = std::vector<double>;

struct Call {
  const char* name;
  std::function<Values(unsigned)> on;  // so many threads
};

// The main entries, each small: what matters is how often they allocate.
struct Calls {
  Calls() {
    for (std::size_t i = 0; i < count; ++i) {
      const double part = static_cast<double>(i) / count;
      lambda.push_back(i % 5 == 0 ? -0.5 : 0.3 + part);
      sigma2.push_back(0.8 + part);
      eps.push_back(0.05 + 0.1 * part);
      level.push_back(0.2);
    }
    for (const double t : {0.0, 1.0, 5.0, 40.0}) times.push_back(t);
    std::mt19937 generator(2);
    std::normal_distribution<double> normal(0, 1);
    for (std::size_t i = 0; i < samples.capacity(); ++i) samples.push_back(normal(generator));
  }

  std::vector<Call> all() {
    return {{"exact", [this](unsigned threads) { return exact(threads); }},
            {"times", [this](unsigned threads) { return reach(threads); }},
            {"sensitivities", [this](unsigned threads) { return sensitivities(threads); }},
            {"Runge-Kutta", [this](unsigned threads) { return runge_kutta(threads); }},
            {"layer systems", [this](unsigned threads) { return layers(threads); }},
            {"flows", [this](unsigned threads) { return flows(threads); }},
            {"a flow that threads share", [](unsigned threads) { return shared_flow(threads); }},
            {"training", [this](unsigned threads) { return training(threads); }},
            {"moments of samples", [this](unsigned threads) { return moments(threads); }}};
  }

  Ensemble features() const { return {lambda.data(), sigma2.data(), eps.data(), count}; }

  Values exact(unsigned threads) const {
    Interrupt interrupt;
    ExactCurve curve(Objective::jepa, 2.0);  // without tables, which are made here
    Values w(count * times.size());
    std::vector<Status> status(count);
    solve_exact(curve, features(), times.data(), times.size(), false, threads, interrupt, w.data(), status.data());
    return w;
  }

  Values reach(unsigned threads) const {
    Interrupt interrupt;
    ExactCurve curve(Objective::mae, 3.0);
    Values t(2 * count);
    time_to_reach(curve, features(), level.data(), threads, interrupt, t.data());
    critical_time(curve, features(), 0.5, threads, interrupt, t.data() + count);
    return t;
  }

  Values sensitivities(unsigned threads) const {
    Interrupt interrupt;
    const MasterCurve curve(Objective::jepa, 2.0);
    const std::size_t size = count * times.size();
    Values by(4 * size);
    double* const to = by.data();
    solve_sensitivities(curve, features(), times.data(), times.size(), false, threads, interrupt,
                        {to, to + size, to + 2 * size, to + 3 * size});
    return by;
  }

  Values runge_kutta(unsigned threads) const {
    Interrupt interrupt;
    Values w(2 * count * times.size());
    std::vector<Status> status(count);
    std::vector<std::int64_t> evaluations(count);
    for (const auto method : {RungeKuttaMethod::tsit5, RungeKuttaMethod::dop853}) {
      double* const to = w.data() + (method == RungeKuttaMethod::tsit5 ? 0 : count * times.size());
      solve_runge_kutta(Objective::jepa, 2.0, features(), times.data(), times.size(), false, {method}, threads,
                        interrupt, to, status.data(), evaluations.data());
    }
    return w;
  }

  Values layers(unsigned threads) const {
    Interrupt interrupt;
    const std::size_t size = count * times.size();
    Values y(3 * size);
    std::vector<Status> status(count);
    std::vector<std::int64_t> evaluations(count);
    solve_layers({LayerTarget::average, 2.0, 0.01, 0.5, features()}, times.data(), times.size(), false, {}, threads,
                 interrupt, {y.data(), y.data() + size, y.data() + 2 * size, status.data(), evaluations.data()});
    return y;
  }

  // Three flows side by side, as Python runs them; events and all that can be observed.
  Values flows(unsigned threads) const {
    Interrupt interrupt;
    const std::vector<Case> three = {cases()[0], cases()[1], cases()[2]};
    const std::size_t d = 6, m = times.size();
    Values y(3 * (m + d * m + d));
    parallel_for(three.size(), 1, threads, interrupt, [&](std::size_t begin, std::size_t) {
      Problem problem(static_cast<Index>(d), three[begin]);
      double* const to = y.data() + begin * (m + d * m + d);
      FlowObservation observation;
      observation.times = times.data();
      observation.count = m;
      observation.loss = to;
      observation.directions = problem.moment.data();
      observation.features = static_cast<Index>(d);
      observation.response = to + m;
      observation.events.levels = level.data();
      observation.events.crossings = to + m + d * m;
      observation.events.plateau = 0.1;
      gradient_flow(problem.flow, problem.state.data(), {FlowMethod::automatic, 1e-4, 1e-7, 1000}, observation,
                    interrupt);
    });
    return y;
  }

  // One step of a network that is large enough.
  static Values shared_flow(unsigned threads) {
    Interrupt interrupt;
    Problem problem(130, cases()[0], threads);
    const double end = 1e9;
    Values y(problem.state.size());
    FlowObservation observation;
    observation.times = &end;
    observation.count = 1;
    observation.final_weights = y.data();
    gradient_flow(problem.flow, problem.state.data(), {FlowMethod::tsit5, 1e-4, 1e-7, 1}, observation, interrupt);
    return y;
  }

  Values training(unsigned threads) const {
    Interrupt interrupt;
    const Index d = 40, batch = 100;
    TrainerSettings settings;
    settings.optimizer = Optimizer::adam;
    settings.threads = threads;
    Trainer trainer({{d, d, d}, d}, {}, settings, batch);
    Values state(static_cast<std::size_t>(trainer.state_size()), 0.01);
    const Values rates(2, 1e-3);
    trainer.set_state(state.data());
    trainer.advance(rates.data(), 2, samples.data(), samples.data(), nullptr, interrupt);
    trainer.get_state(state.data());
    return state;
  }

  Values moments(unsigned threads) const {
    Interrupt interrupt;
    const SampleMoments found = sample_moments(samples.data(), samples.data() + 40, 1000, 40, threads, interrupt);
    return {found.yx.data(), found.yx.data() + found.yx.size()};
  }

  static constexpr std::size_t count = 40;
  Values lambda, sigma2, eps, level, times, samples = with_room(40 * 1001);

  static Values with_room(std::size_t size) {
    Values values;
    values.reserve(size);
    return values;
  }
};

// A run with some allocations refused, the first of them `nth`: whether it went as it has to.
struct Refusal {
  bool came;  // the run allocated so often
  bool handled;
  bool kept;  // it kept memory
};

Refusal refuse(const std::function<Values()>& run, const Values& expected, std::size_t nth, bool once) {
  const std::ptrdiff_t before = living;
  bool handled = true;
  const std::size_t first = allocations + nth;
  first_refused = first;
  last_refused = once ? first : never - 1;
  try {
    handled = run() == expected;  // a thread less is no reason to give up
  } catch (const std::bad_alloc&) {
  } catch (...) {
    handled = false;
  }
  const bool came = allocations >= first;
  first_refused = last_refused = never;
  const bool kept = living != before;
  return {came, handled && run() == expected, kept};
}

// As shipped every allocation, which is what a campaign runs; some of them where assertions make that slow.
#if defined(NDEBUG)
constexpr std::size_t stride = 1;
#else
constexpr std::size_t stride = 7;
#endif

TEST(calls_survive_every_allocation_that_fails) {
  Calls calls;
  {  // the system keeps what threads need, so that it counts as a leak the first time
    std::atomic<int> here{0};
    std::vector<std::thread> all;
    for (int k = 0; k < 4; ++k)
      all.emplace_back([&] {
        ++here;
        while (here < 4) std::this_thread::yield();
      });
    for (std::thread& each : all) each.join();
  }
  for (const Call& call : calls.all()) {
    for (const unsigned threads : {1u, 3u}) {
      const auto run = [&] { return call.on(threads); };
      const Values expected = run();
      CHECK(run() == expected);
      for (const bool once : {true, false}) {
        int cases = 0, mishandled = 0;
        for (std::size_t nth = 1;; nth += stride) {
          Refusal refusal = refuse(run, expected, nth, once);
          if (!refusal.came) break;
          ++cases;
          if (refusal.kept) refusal = refuse(run, expected, nth, once);  // the library keeps something the first time
          if (refusal.handled && !refusal.kept) continue;
          ++mishandled;
          std::printf("%s, %u threads: allocation %zu\n", call.name, threads, nth);
        }
        CHECK(cases > 0);
        RECORD(28, "engine: failed allocations mishandled", mishandled, 0, cases);
      }
    }
  }
}

}  // namespace
#else
TEST(this_allocator_cannot_be_counted) { CHECK(true); }
#endif
