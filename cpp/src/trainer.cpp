#include "jepa_ode/trainer.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <deque>
#include <limits>
#include <utility>

#include "jepa_ode/team.hpp"

namespace jepa_ode {

namespace {

// Below it a rank's share of a phase is over before the others have noticed that it began.
constexpr double least_work = 5e4;

std::size_t at(Index index) { return static_cast<std::size_t>(index); }

// What an update knows besides the entries: w = factor * w - rate * (direction of the optimiser).
struct StepConstants {
  double rate, decay, factor;
  double momentum, beta1, beta2, eps;
  double bias1, root_bias2;  // 1 - beta1^t, sqrt(1 - beta2^t)
};

// One row of weights; `a` and `b` are the optimiser's memory. Returns whether all weights stay finite. The order of the
// operations is that of torch.optim.
template <Optimizer optimizer>
bool update_row(const StepConstants& c, Index size, const double* descent, double* w, double* a, double* b) {
  constexpr double largest = std::numeric_limits<double>::max();
  constexpr bool adam = optimizer == Optimizer::adam || optimizer == Optimizer::adamw;
  std::int64_t lost = 0;
  for (Index i = 0; i < size; ++i) {
    double g = -descent[i] + c.decay * w[i];
    double weight = c.factor * w[i];
    if constexpr (adam) {
      a[i] += (1 - c.beta1) * (g - a[i]);
      b[i] = c.beta2 * b[i] + (1 - c.beta2) * (g * g);
      weight -= (c.rate / c.bias1) * a[i] / (std::sqrt(b[i]) / c.root_bias2 + c.eps);
    } else {
      if constexpr (optimizer != Optimizer::sgd) {
        a[i] = c.momentum * a[i] + g;
        g = optimizer == Optimizer::nesterov ? g + c.momentum * a[i] : a[i];
      }
      weight -= c.rate * g;
    }
    w[i] = weight;
    lost |= !(std::abs(weight) <= largest);
  }
  return lost == 0;
}

bool update_row(Optimizer optimizer, const StepConstants& c, Index size, const double* descent, double* w, double* a,
                double* b) {
  switch (optimizer) {
    case Optimizer::sgd:
      return update_row<Optimizer::sgd>(c, size, descent, w, a, b);
    case Optimizer::momentum:
      return update_row<Optimizer::momentum>(c, size, descent, w, a, b);
    case Optimizer::nesterov:
      return update_row<Optimizer::nesterov>(c, size, descent, w, a, b);
    case Optimizer::adam:
      return update_row<Optimizer::adam>(c, size, descent, w, a, b);
    case Optimizer::adamw:
      return update_row<Optimizer::adamw>(c, size, descent, w, a, b);
  }
  return false;
}

}  // namespace

Trainer::Trainer(const NetworkShape& shape, const FlowTerms& terms, const TrainerSettings& settings)
    : terms_(terms), settings_(settings), depth_(shape.depth()), inputs_(shape.inputs()) {
  const auto add_layers = [&](std::vector<PaddedMatrix>& matrices) {
    for (Index l = 0; l < depth_; ++l) matrices.emplace_back(shape.rows(l), shape.columns(l));
  };
  add_layers(weights_);
  weights_.emplace_back(shape.outputs, shape.encoding());
  if (settings_.optimizer != Optimizer::sgd) first_ = weights_;
  if (settings_.optimizer == Optimizer::adam || settings_.optimizer == Optimizer::adamw) second_ = weights_;
  if (terms_.has_target_network()) add_layers(weights_);
}

Trainer::Trainer(const NetworkShape& shape, const FlowTerms& terms, const TrainerSettings& settings, Index batch_size)
    : Trainer(shape, terms, settings) {
  batch_size_ = batch_size;
  x_.columns = y_.columns = inputs_;
  gradient_.emplace_back(terms_, weights_, depth_, batch_size, x_, y_);
}

Trainer::Trainer(const NetworkShape& shape, const FlowTerms& terms, const TrainerSettings& settings,
                 const Moments& moments)
    : Trainer(shape, terms, settings) {
  gradient_.emplace_back(terms_, weights_, depth_, moments);
}

Index Trainer::state_size() const {
  Index size = 0;
  for (const PaddedMatrix& matrix : weights_) size += matrix.rows() * matrix.columns();
  return size;
}

void Trainer::set_state(const double* state) {
  for (PaddedMatrix& matrix : weights_) {
    matrix.assign(state);
    state += matrix.rows() * matrix.columns();
  }
}

void Trainer::get_state(double* state) const {
  for (const PaddedMatrix& matrix : weights_) {
    matrix.copy_to(state);
    state += matrix.rows() * matrix.columns();
  }
}

std::int64_t Trainer::advance(const double* rates, std::int64_t count, const double* x, const double* y,
                              const std::int64_t* rows, Interrupt& interrupt) {
  x_.data = x;
  y_.data = y;
  const BatchGradient& gradient = gradient_.front();
  const double most = gradient.work() / (least_work * static_cast<double>(gradient.phases().size()));
  const unsigned ranks = most < settings_.threads ? std::max(1u, static_cast<unsigned>(most)) : settings_.threads;

  Phase<RowTask> gather(row_tasks(gradient.gather(), ranks));
  std::deque<Phase<RowTask>> phases;
  for (const BatchGradient::Jobs& jobs : gradient.phases()) phases.emplace_back(row_tasks(jobs, ranks));
  std::vector<std::vector<UpdateTask>> updates(ranks);
  for (Index l = 0; l <= depth_; ++l) {
    const Index size = weights_[at(l)].rows();
    for (unsigned rank = 0; rank < ranks; ++rank)
      updates[rank].push_back({l, size * rank / ranks, size * (rank + 1) / ranks});
  }
  Phase<UpdateTask> update_all(std::move(updates));

  // Ranks may be at different phases, where one is behind; so what ends the loop names its step.
  std::atomic<std::int64_t> end{count};
  Team(ranks).each([&](std::int64_t index) noexcept {
    const auto rank = static_cast<unsigned>(index);
    const auto share = [&](Index size, unsigned of) { return size * of / ranks; };
    RowWorker worker{{rows, 0}, {}, interrupt};
    const auto do_rows = [&](const RowTask& task) { task.job->run(task.begin, task.end, worker); };
    gather.run(rank, 0, do_rows);
    for (std::int64_t k = 0; k < end.load(std::memory_order_relaxed) && !interrupt.stop(); ++k) {
      const bool more = k + 1 < count;
      worker.batch.first = (k + 1) * batch_size_;
      worker.prefetch = {};
      if (more && x) worker.prefetch = {x_, y_, worker.batch, share(batch_size_, rank), share(batch_size_, rank + 1)};
      for (Phase<RowTask>& phase : phases) phase.run(rank, k, do_rows);
      update_all.run(rank, k, [&](const UpdateTask& task) {
        if (!update(task, rates[k], steps_ + k + 1)) end.store(k, std::memory_order_relaxed);
      });
      if (more) gather.run(rank, k + 1, do_rows);
    }
  });
  interrupt.throw_if_stopped();
  const std::int64_t done = end.load(std::memory_order_relaxed);
  steps_ += done;
  return done;
}

bool Trainer::update(const UpdateTask& task, double rate, std::int64_t step) {
  const Index l = task.layer;
  const bool decoupled = settings_.optimizer == Optimizer::adamw;
  StepConstants constants{};
  constants.rate = l == depth_ ? rate * settings_.predictor_rate : rate;
  constants.decay = decoupled ? 0.0 : terms_.weight_decay;
  constants.factor = decoupled ? 1 - constants.rate * terms_.weight_decay : 1.0;
  constants.momentum = settings_.momentum;
  constants.beta1 = settings_.beta1;
  constants.beta2 = settings_.beta2;
  constants.eps = settings_.adam_eps;
  constants.bias1 = 1 - std::pow(settings_.beta1, static_cast<double>(step));
  constants.root_bias2 = std::sqrt(1 - std::pow(settings_.beta2, static_cast<double>(step)));

  PaddedMatrix& weights = weights_[at(l)];
  const PaddedMatrix& descent = gradient_.front().descent()[at(l)];
  bool finite = true;
  for (Index i = task.begin; i < task.end; ++i) {
    double* w = weights.row(i);
    double* first = first_.empty() ? nullptr : first_[at(l)].row(i);
    double* second = second_.empty() ? nullptr : second_[at(l)].row(i);
    finite &= update_row(settings_.optimizer, constants, weights.columns(), descent.row(i), w, first, second);
    if (terms_.has_target_network() && l < depth_) {
      double* b = weights_[at(depth_ + 1 + l)].row(i);
      const double share = rate / terms_.ema_time;
      for (Index j = 0; j < weights.columns(); ++j) b[j] += share * (w[j] - b[j]);
    }
  }
  return finite;
}

}  // namespace jepa_ode
