// Every index once, whatever the number of threads; exceptions and interrupts reach the caller (DESIGN.md 3, threads).
// Then the solvers that other tests run on one thread; `make tsan` looks on.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.hpp"
#include "jepa_ode/exact.hpp"
#include "jepa_ode/gradient_flow.hpp"
#include "jepa_ode/layer_solver.hpp"
#include "jepa_ode/parallel.hpp"
#include "jepa_ode/sample_moments.hpp"
#include "jepa_ode/sensitivity.hpp"
#include "jepa_ode/team.hpp"

namespace {

using jepa_ode::Interrupt;
using jepa_ode::Interrupted;
using jepa_ode::parallel_for;
using jepa_ode::Team;

const std::vector<std::size_t> counts{0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 1000};
const std::vector<std::size_t> grains{0, 1, 4, 16, 2000};
const std::vector<unsigned> thread_counts{0, 1, 2, 3, 7};

TEST(every_index_is_visited_once) {
  for (const std::size_t count : counts) {
    for (const std::size_t grain : grains) {
      for (const unsigned threads : thread_counts) {
        std::vector<int> visits(count, 0);
        Interrupt interrupt;
        parallel_for(count, grain, threads, interrupt, [&](std::size_t begin, std::size_t end) {
          CHECK(begin < end && end <= count);
          for (std::size_t i = begin; i < end; ++i) ++visits[i];
        });
        CHECK(std::all_of(visits.begin(), visits.end(), [](int n) { return n == 1; }));
      }
    }
  }
}

TEST(pieces_do_not_depend_on_threads) {
  for (const unsigned threads : thread_counts) {
    std::vector<std::size_t> ends(100, 0);
    Interrupt interrupt;
    parallel_for(ends.size(), 7, threads, interrupt, [&](std::size_t begin, std::size_t end) {
      CHECK(begin % 7 == 0);
      ends[begin] = end;
    });
    for (std::size_t begin = 0; begin < ends.size(); begin += 7) CHECK(ends[begin] == std::min(begin + 7, ends.size()));
  }
}

TEST(the_caller_is_one_of_the_threads) {
  const std::thread::id caller = std::this_thread::get_id();
  Interrupt interrupt;
  std::atomic<int> foreign{0};
  parallel_for(100, 1, 1, interrupt,
               [&](std::size_t, std::size_t) { foreign += std::this_thread::get_id() != caller; });
  CHECK(foreign == 0);
}

TEST(an_exception_of_any_thread_reaches_the_caller) {
  for (const unsigned threads : thread_counts) {
    for (const std::size_t bad : {std::size_t{0}, std::size_t{37}, std::size_t{99}}) {
      Interrupt interrupt;
      CHECK_THROWS(std::domain_error, parallel_for(100, 1, threads, interrupt, [&](std::size_t begin, std::size_t) {
                     if (begin == bad) throw std::domain_error("bad");
                   }));
    }
  }
}

TEST(an_interrupt_stops_all_threads) {
  for (const unsigned threads : thread_counts) {
    std::atomic<bool> asked{false};
    Interrupt interrupt([&] { return asked = true; });
    // Bodies that would never end by themselves.
    CHECK_THROWS(Interrupted, parallel_for(64, 1, threads, interrupt, [&](std::size_t, std::size_t) {
                   while (!interrupt.stop()) std::this_thread::yield();
                 }));
    CHECK(asked);
  }
}

TEST(the_caller_listens_while_the_others_work) {
  // The caller is out of pieces at once; only the other thread is busy when the user interrupts.
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<bool> other_started{false};
  Interrupt interrupt([] { return true; });
  CHECK_THROWS(Interrupted, parallel_for(2, 1, 2, interrupt, [&](std::size_t, std::size_t) {
                 if (std::this_thread::get_id() == caller) {
                   while (!other_started) std::this_thread::yield();
                 } else {
                   other_started = true;
                   while (!interrupt.stop()) std::this_thread::yield();
                 }
               }));
}

TEST(only_the_caller_polls) {
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> foreign{0};
  Interrupt interrupt([&] {
    foreign += std::this_thread::get_id() != caller;
    return false;
  });
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
  parallel_for(4, 1, 4, interrupt, [&](std::size_t, std::size_t) {
    while (std::chrono::steady_clock::now() < end) CHECK(!interrupt.stop());
  });
  CHECK(foreign == 0);
}

// --- teams ---

TEST(a_team_does_every_part_once) {
  for (const unsigned size : {0, 1, 2, 3, 7}) {
    Team team(size);
    CHECK(team.size() == std::max(size, 1U));
    for (const std::int64_t count : {0, 1, 2, 7, 8, 9, 31, 1000}) {
      for (const std::int64_t least : {1, 3, 100}) {
        for (const std::int64_t multiple : {1, 8}) {
          std::vector<int> visits(static_cast<std::size_t>(count), 0);
          std::vector<int> parts(static_cast<std::size_t>(team.size()), 0);
          team.share(count, least, multiple, [&](std::int64_t begin, std::int64_t end, std::int64_t part) {
            CHECK(begin % multiple == 0 && begin <= end && end <= count);
            ++parts[static_cast<std::size_t>(part)];
            for (std::int64_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
          });
          CHECK(std::all_of(visits.begin(), visits.end(), [](int n) { return n == 1; }));
          CHECK(std::all_of(parts.begin(), parts.end(), [](int n) { return n <= 1; }));
          CHECK(parts[0] == 1);
        }
      }
    }
  }
}

// One piece of work after the other, some so late that the helpers are asleep; and the end of a team that sleeps.
TEST(a_team_wakes_up) {
  Team team(3);
  std::int64_t sum = 0;
  for (int round = 0; round < 20'000; ++round) {
    if (round % 5000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(200));
    std::int64_t shares[3] = {0, 0, 0};
    team.share(3, 1, 1, [&](std::int64_t, std::int64_t end, std::int64_t part) { shares[part] = end + round; });
    sum += shares[0] + shares[1] + shares[2];
  }
  CHECK(sum == 20'000 * 6 + 3 * (19'999 * 20'000 / 2));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
}

TEST(a_helper_does_its_part) {
  Team team(2);
  std::atomic<int> inside{0};
  // Neither thread can do both parts: each waits for the other one.
  team.share(2, 1, 1, [&](std::int64_t, std::int64_t, std::int64_t) {
    ++inside;
    while (inside < 2) std::this_thread::yield();
  });
  CHECK(inside == 2);
}

// --- solvers on threads: the bits of one thread ---

using namespace jepa_ode;

// Rising, falling and decaying features at times of all sizes.
struct Problem {
  static constexpr std::size_t n = 403, m = 9;
  std::vector<double> lambda = std::vector<double>(n), sigma2 = lambda, eps = lambda, times = std::vector<double>(m);

  Problem() {
    for (std::size_t i = 0; i < n; ++i) {
      const double x = static_cast<double>(i);
      lambda[i] = std::sin(x);
      sigma2[i] = 1.5 + std::cos(x);
      eps[i] = 0.05 * (1 + static_cast<double>(i % 30));
    }
    for (std::size_t k = 0; k < m; ++k) times[k] = std::exp(static_cast<double>(k)) - 1;
  }

  Ensemble features() const { return {lambda.data(), sigma2.data(), eps.data(), n}; }
};

TEST(layers_and_derivatives_on_threads) {
  const Problem problem;
  const MasterCurve curve(Objective::jepa, 2.5);
  std::vector<double> layers[2], derivatives[2];
  for (const std::size_t k : {0u, 1u}) {
    Interrupt interrupt;
    const unsigned threads = k == 0 ? 1 : 5;
    constexpr std::size_t size = Problem::n * Problem::m;
    std::vector<Status> status(Problem::n);
    std::vector<std::int64_t> evaluations(Problem::n);
    layers[k].resize(3 * size);
    LayerProblem average;
    average.target = LayerTarget::average;
    average.depth = 2;
    average.decay = 0.01;
    average.tau = 3;
    average.features = problem.features();
    double* const w = layers[k].data();
    solve_layers(average, problem.times.data(), Problem::m, false, {}, threads, interrupt,
                 {w, w + size, w + 2 * size, status.data(), evaluations.data()});
    for (const Status s : status) CHECK(s == Status::ok);
    derivatives[k].resize(4 * size);
    double* const d = derivatives[k].data();
    solve_sensitivities(curve, problem.features(), problem.times.data(), Problem::m, false, threads, interrupt,
                        {d, d + size, d + 2 * size, d + 3 * size});
  }
  CHECK(layers[0] == layers[1]);
  CHECK(derivatives[0] == derivatives[1]);
}

TEST(moments_on_threads) {
  constexpr Index samples = 3001, d = 17;
  std::vector<double> x(samples * d), y(samples * d);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = std::sin(static_cast<double>(i));
    y[i] = std::cos(static_cast<double>(3 * i));
  }
  Interrupt interrupt;
  const SampleMoments one = sample_moments(x.data(), y.data(), samples, d, 1, interrupt);
  const SampleMoments many = sample_moments(x.data(), y.data(), samples, d, 5, interrupt);
  CHECK(one.xx == many.xx && one.yx == many.yx && one.yy == many.yy);
}

// Whole calls side by side, as Python threads make them: what they share are the curves and their tables.
TEST(calls_side_by_side_share_curves) {
  const Problem problem;
  std::vector<std::vector<double>> results(6);
  std::vector<std::thread> callers;
  for (std::vector<double>& w : results) {
    callers.emplace_back([&problem, &w] {
      w.resize(Problem::n * Problem::m);
      std::vector<Status> status(Problem::n);
      Interrupt interrupt;
      const auto curve = ExactCurve::of(Objective::jepa, 4.75);
      solve_exact(*curve, problem.features(), problem.times.data(), Problem::m, false, 2, interrupt, w.data(),
                  status.data());
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const std::vector<double>& w : results) CHECK(w == results[0]);
}

// Flows of networks that share their moments, each with a workspace of its own, as an ensemble runs them (bindings).
struct Flows {
  static constexpr std::size_t count = 12;
  Matrix xx = Matrix::Identity(4, 4), yx = 0.6 * Matrix::Identity(4, 4), yy = Matrix::Identity(4, 4);
  NetworkShape shape{{4, 5, 3}, 3};
  std::vector<double> times{0.5, 5.0};

  FlowResult run(std::size_t k, double* weights, Interrupt& interrupt, const FlowVisit& visit,
                 const FlowProgress& progress) const {
    LinearNetworkFlow flow(shape, {}, {xx.data(), yx.data(), yy.data()});
    std::vector<double> start(static_cast<std::size_t>(flow.state_size()));
    for (std::size_t i = 0; i < start.size(); ++i) start[i] = 0.4 * std::sin(static_cast<double>(i * (k + 1)));
    FlowObservation observation;
    observation.times = times.data();
    observation.count = times.size();
    observation.final_weights = weights;
    observation.visit = visit;
    return gradient_flow(flow, start.data(), {}, observation, interrupt, progress);
  }
};

TEST(flows_side_by_side_tell_one_listener) {
  const Flows flows;
  const std::size_t size = static_cast<std::size_t>(flows.shape.weights_size());
  std::vector<double> weights[2];
  for (const std::size_t k : {0u, 1u}) {
    weights[k].resize(Flows::count * size);
    std::mutex mutex;
    std::size_t visits = 0;
    double told = 0;
    Interrupt interrupt([] { return false; });
    parallel_for(Flows::count, 1, k == 0 ? 1 : 4, interrupt, [&](std::size_t begin, std::size_t) {
      const auto visit = [&](std::size_t, const double*) {
        const std::lock_guard<std::mutex> lock(mutex);
        ++visits;
      };
      const auto progress = [&](double time) {
        const std::lock_guard<std::mutex> lock(mutex);
        told = std::max(told, time);
        return false;
      };
      CHECK(flows.run(begin, weights[k].data() + begin * size, interrupt, visit, progress).status == Status::ok);
    });
    CHECK(visits == Flows::count * flows.times.size());
    CHECK(told > 0 && told <= flows.times.back());
  }
  CHECK(weights[0] == weights[1]);
}

TEST(what_a_listener_throws_ends_all_flows) {
  const Flows flows;
  const std::size_t size = static_cast<std::size_t>(flows.shape.weights_size());
  for (const bool from_visit : {false, true}) {
    std::vector<double> weights(Flows::count * size);
    Interrupt interrupt;
    const auto fail = [&](std::size_t k) {
      if (k == 7) throw std::domain_error("not this one");
    };
    CHECK_THROWS(std::domain_error, parallel_for(Flows::count, 1, 3, interrupt, [&](std::size_t k, std::size_t) {
                   const auto visit = [&](std::size_t, const double*) {
                     if (from_visit) fail(k);
                   };
                   const auto progress = [&](double) {
                     if (!from_visit) fail(k);
                     return false;
                   };
                   flows.run(k, weights.data() + k * size, interrupt, visit, progress);
                 }));
  }
}

}  // namespace
