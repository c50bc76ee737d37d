// An evaluation of the flow allocates nothing, and a step of the integration neither, whatever the size.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <utility>
#include <vector>

#include "check.hpp"
#include "jepa_ode/gradient_flow.hpp"

// The allocator of glibc, counted: a sanitizer brings its own. Operator new ends in malloc.
#if defined(__GLIBC__) && !defined(JEPA_ODE_SANITIZED)
namespace {
std::size_t allocations = 0;
}
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t size) {
  ++allocations;
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  ++allocations;
  return __libc_calloc(count, size);
}
void* realloc(void* memory, std::size_t size) {
  ++allocations;
  return __libc_realloc(memory, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  ++allocations;
  return __libc_memalign(alignment, size);
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
  Problem(Index d, const Case& c)
      : shape{{d, d + 3, d, d - 1}, c.terms.objective == Objective::mae ? d : d - 1},
        moment(Matrix::Identity(d, d) + Matrix::Constant(d, d, 0.1 / static_cast<double>(d))),
        rho(Eigen::VectorXd::Constant(d, 0.8)),
        flow(shape, c.terms, moments(c.coordinates)),
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
      Problem problem(d, c);
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
        std::printf("d = %d, %s, %s: %zu allocations\n", int(d), c.name, c.where, allocations - before);
      CHECK(allocations == before);
      CHECK(std::isfinite(loss));
    }
  }
}

TEST(a_step_does_not_allocate) {
  for (const Case& c : cases()) {
    for (const Index d : {8, 32, 128, 160}) {
      Problem problem(d, c);
      std::vector<double> velocity(problem.state.size());
      problem.flow.velocity(problem.state.data(), velocity.data());  // takes the memory that it keeps
      for (const FlowMethod method : {FlowMethod::tsit5, FlowMethod::dop853, FlowMethod::rock4}) {
        const std::int64_t few = d > 100 ? 1 : 100;  // a step is a step, and large ones take their time
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

}  // namespace
#else
TEST(this_allocator_cannot_be_counted) { CHECK(true); }
#endif
