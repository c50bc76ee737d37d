// Training without Python: products of any shape, the gradient on batches against the flow's, threads, limits
// (THEORY.md 1).
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "check.hpp"
#include "jepa_ode/linear_network.hpp"
#include "jepa_ode/trainer.hpp"

namespace {

using namespace jepa_ode;

std::vector<double> gaussian(Index size, unsigned seed, double scale = 1.0) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0, scale);
  std::vector<double> values(static_cast<std::size_t>(size));
  for (double& value : values) value = normal(generator);
  return values;
}

std::pair<PaddedMatrix, Matrix> random_matrix(Index rows, Index columns, unsigned seed) {
  const std::vector<double> values = gaussian(rows * columns, seed);
  PaddedMatrix padded(rows, columns);
  padded.assign(values.data());
  return {std::move(padded), ConstMatrixView(values.data(), rows, columns)};
}

Matrix dense(const PaddedMatrix& padded) {
  Matrix matrix(padded.rows(), padded.columns());
  padded.copy_to(matrix.data());
  return matrix;
}

TEST(products_of_every_shape) {
  Interrupt interrupt;
  RowWorker worker{{}, {}, interrupt};
  for (const Index rows : {1, 2, 3, 7, 8, 13, 30}) {
    for (const Index columns : {1, 3, 4, 5, 8, 12, 13, 17, 24, 27, 41}) {
      for (const Index inner : {1, 2, 9, 127, 128, 129, 300}) {
        const auto [a, a_dense] = random_matrix(rows, inner, 1);
        const auto [left, left_dense] = random_matrix(inner, rows, 2);
        const auto [b, b_dense] = random_matrix(inner, columns, 3);
        auto [base, base_dense] = random_matrix(rows, columns, 4);
        const double tolerance = 1e-13 * static_cast<double>(inner);
        PaddedMatrix to(rows, columns);
        const Index middle = rows / 2;
        const auto run = [&](const RowJob& job) {  // in two parts, the later one first
          job.run(middle, job.to->rows(), worker);
          job.run(0, middle, worker);
        };
        run({RowJob::Kind::product, &to, &a, &b, -0.5, &base});
        CHECK((dense(to) - (base_dense - 0.5 * a_dense.lazyProduct(b_dense))).cwiseAbs().maxCoeff() < tolerance);
        run({RowJob::Kind::product_left, &to, &left, &b, 2.0});
        CHECK((dense(to) - 2.0 * left_dense.transpose().lazyProduct(b_dense)).cwiseAbs().maxCoeff() < tolerance);
        run({RowJob::Kind::product, &base, &a, &b, 1.0, &base});
        CHECK((dense(base) - (base_dense + a_dense.lazyProduct(b_dense))).cwiseAbs().maxCoeff() < tolerance);

        PaddedMatrix gram(columns, columns);
        RowJob{RowJob::Kind::gram, &gram, &b, nullptr, 3.0}.run(columns / 3, columns, worker);
        RowJob{RowJob::Kind::gram, &gram, &b, nullptr, 3.0}.run(0, columns / 3, worker);
        RowJob{RowJob::Kind::mirror, &gram}.run(0, columns, worker);
        CHECK((dense(gram) - 3.0 * b_dense.transpose().lazyProduct(b_dense)).cwiseAbs().maxCoeff() < 3 * tolerance);

        PaddedMatrix transposed(columns, inner);
        RowJob{RowJob::Kind::transpose, &transposed, &b}.run(0, columns, worker);
        CHECK(dense(transposed) == b_dense.transpose());
      }
    }
  }
}

TEST(shares_of_rows_cover_all_of_them) {
  const PaddedMatrix a(9, 9);
  PaddedMatrix to(9, 9);
  for (const auto kind : {RowJob::Kind::product, RowJob::Kind::gram, RowJob::Kind::mirror}) {
    const RowJob job{kind, &to, &a, &a};
    CHECK(job.work() == std::floor(job.work()));
    CHECK(job.row_at(0) == 0 && job.row_at(1) == 9 && job.row_at(-1) == 0 && job.row_at(2) == 9);
    for (double share = 0; share < 1; share += 0.01) CHECK(job.row_at(share) <= job.row_at(share + 0.01));
  }
}

struct Case {
  NetworkShape shape;
  FlowTerms terms;
};

std::vector<Case> cases() {
  FlowTerms jepa, coupled, averaged, mae;
  coupled.stop_gradient = false;
  averaged.ema_time = 0.5;
  mae.objective = Objective::mae;
  std::vector<Case> result;
  for (const FlowTerms& terms : {jepa, coupled, averaged, mae}) {
    for (const std::vector<Index>& widths : {std::vector<Index>{5, 3}, {12, 9, 7}, {40, 33, 70, 21}, {9, 4, 5, 6, 8}})
      result.push_back({{widths, terms.objective == Objective::mae ? widths.front() : widths.back()}, terms});
  }
  return result;
}

// One step of length 1 is the velocity of the flow on the moments of the batch.
TEST(a_step_is_the_flow_on_the_moments_of_the_batch) {
  for (const Case& c : cases()) {
    const Index d = c.shape.inputs();
    for (const Index batch : {Index{2}, Index{200}}) {
      const std::vector<double> x = gaussian(2 * batch * d, 1), y = gaussian(2 * batch * d, 2);
      const std::vector<std::int64_t> rows = [&] {
        std::vector<std::int64_t> list;
        for (Index i = 0; i < batch; ++i) list.push_back(2 * i + 1);
        return list;
      }();
      Matrix taken_x(batch, d), taken_y(batch, d);
      for (Index i = 0; i < batch; ++i) {
        taken_x.row(i) = ConstMatrixView(x.data(), 2 * batch, d).row(2 * i + 1);
        taken_y.row(i) = ConstMatrixView(y.data(), 2 * batch, d).row(2 * i + 1);
      }
      const double samples = static_cast<double>(batch);
      const Matrix xx = taken_x.transpose().lazyProduct(taken_x) / samples,
                   yx = taken_y.transpose().lazyProduct(taken_x) / samples,
                   yy = taken_y.transpose().lazyProduct(taken_y) / samples;
      const Moments moments{xx.data(), yx.data(), yy.data()};
      LinearNetworkFlow flow(c.shape, c.terms, moments);
      const std::vector<double> start = gaussian(flow.state_size(), 3, 0.4);
      std::vector<double> velocity(start.size());
      flow.velocity(start.data(), velocity.data());

      Trainer on_batch(c.shape, c.terms, {}, batch), on_population(c.shape, c.terms, {}, moments);
      CHECK(on_batch.state_size() == flow.state_size());
      Interrupt interrupt;
      const double rate = 0.25;
      for (Trainer* trainer : {&on_batch, &on_population}) {
        trainer->set_state(start.data());
        CHECK(trainer->advance(&rate, 1, x.data(), y.data(), rows.data(), interrupt) == 1);
        std::vector<double> state(start.size());
        trainer->get_state(state.data());
        for (Index i = 0; i < flow.weights_size(); ++i) {
          const auto k = static_cast<std::size_t>(i);
          CHECK(std::abs(state[k] - (start[k] + rate * velocity[k])) < 1e-11 * (1 + std::abs(velocity[k])));
        }
        for (std::size_t k = static_cast<std::size_t>(flow.weights_size()); k < start.size(); ++k) {
          const double moved = state[k - static_cast<std::size_t>(flow.weights_size())];
          CHECK_CLOSE(state[k], start[k] + rate / c.terms.ema_time * (moved - start[k]), 1e-14);
        }
      }
    }
  }
}

std::vector<double> trained(const Case& c, Optimizer optimizer, Index batch, unsigned threads, Index steps,
                            Interrupt::Poll poll = {}) {
  const Index d = c.shape.inputs();
  static std::vector<double> x, y;
  x = gaussian(steps * batch * d, 1);
  y = gaussian(steps * batch * d, 2);
  TrainerSettings settings;
  settings.optimizer = optimizer;
  settings.threads = threads;
  Trainer trainer(c.shape, c.terms, settings, batch);
  std::vector<double> state = gaussian(trainer.state_size(), 3, 0.1);
  trainer.set_state(state.data());
  const std::vector<double> rates(static_cast<std::size_t>(steps), 1e-3);
  Interrupt interrupt(std::move(poll));
  CHECK(trainer.advance(rates.data(), steps, x.data(), y.data(), nullptr, interrupt) == steps);
  trainer.get_state(state.data());
  return state;
}

TEST(threads_change_no_bit) {
  FlowTerms averaged, coupled;
  averaged.ema_time = 0.5;
  coupled.stop_gradient = false;
  for (const FlowTerms& terms : {averaged, coupled}) {
    const Case c{{{90, 101, 87}, 87}, terms};
    for (const Index batch : {Index{16}, Index{250}}) {
      const std::vector<double> one = trained(c, Optimizer::adam, batch, 1, 5);
      for (const unsigned threads : {2u, 3u, 4u}) CHECK(trained(c, Optimizer::adam, batch, threads, 5) == one);
    }
  }
}

TEST(a_step_that_leaves_the_numbers_is_the_last) {
  const NetworkShape shape{{3, 3}, 3};
  const std::vector<double> x = gaussian(300, 1), y = gaussian(300, 2);
  Trainer trainer(shape, {}, {}, 10);
  const std::vector<double> start = gaussian(18, 3);
  trainer.set_state(start.data());
  const std::vector<double> rates{0.1, 0.1, 0.1, std::numeric_limits<double>::infinity(), 0.1};
  Interrupt interrupt;
  CHECK(trainer.advance(rates.data(), 5, x.data(), y.data(), nullptr, interrupt) == 3);
}

TEST(an_interrupt_ends_a_training) {
  const Case c{{{100, 100, 100}, 100}, {}};
  for (const unsigned threads : {1u, 2u})
    CHECK_THROWS(Interrupted, trained(c, Optimizer::sgd, 20, threads, 3000, [] { return true; }));
}

}  // namespace

// The allocator of glibc, counted: a sanitizer brings its own.
#if defined(__GLIBC__) && !defined(JEPA_ODE_SANITIZED)
#include <atomic>
namespace {
std::atomic<std::size_t> allocations{0};
}
extern "C" void* __libc_malloc(std::size_t);
extern "C" void* malloc(std::size_t size) {
  ++allocations;
  return __libc_malloc(size);
}

namespace {

TEST(a_step_does_not_allocate) {
  const NetworkShape shape{{20, 16, 12}, 12};
  for (const Index batch : {Index{4}, Index{100}}) {
    for (const unsigned threads : {1u, 2u}) {
      TrainerSettings settings;
      settings.optimizer = Optimizer::adamw;
      settings.threads = threads;
      FlowTerms terms;
      terms.ema_time = 1.0;
      Trainer trainer(shape, terms, settings, batch);
      const std::vector<double> state = gaussian(trainer.state_size(), 1, 0.1);
      trainer.set_state(state.data());
      const std::vector<double> x = gaussian(50 * batch * 20, 2), rates(50, 1e-3);
      std::size_t counted[2];
      for (const int longer : {0, 1}) {
        Interrupt interrupt;
        const std::size_t before = allocations;
        trainer.advance(rates.data(), longer ? 50 : 2, x.data(), x.data(), nullptr, interrupt);
        counted[longer] = allocations - before;
      }
      CHECK(counted[1] == counted[0]);
    }
  }
}

}  // namespace
#endif
