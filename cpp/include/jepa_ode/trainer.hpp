// Training of a linear network in steps: gradient descent and its relatives, on batches of samples or the population.
#pragma once

#include <cstdint>
#include <vector>

#include "jepa_ode/batch_gradient.hpp"
#include "jepa_ode/linear_network.hpp"
#include "jepa_ode/parallel.hpp"

namespace jepa_ode {

// The updates of torch.optim: SGD without momentum, with it, with Nesterov's; Adam; AdamW.
enum class Optimizer { sgd, momentum, nesterov, adam, adamw };

struct TrainerSettings {
  Optimizer optimizer = Optimizer::sgd;
  double momentum = 0.9;
  double beta1 = 0.9, beta2 = 0.999;
  double adam_eps = 1e-8;
  double predictor_rate = 1.0;  // multiplies the learning rate of the predictor
  unsigned threads = 1;         // at most; the weights do not depend on them
};

class Trainer {
 public:
  // On batches of `batch_size` samples.
  Trainer(const NetworkShape& shape, const FlowTerms& terms, const TrainerSettings& settings, Index batch_size);

  // On the population, whose moments are copied.
  Trainer(const NetworkShape& shape, const FlowTerms& terms, const TrainerSettings& settings, const Moments& moments);

  Trainer(const Trainer&) = delete;  // its parts point to each other
  Trainer& operator=(const Trainer&) = delete;

  // The weights, as one vector like the state of a flow (linear_network.hpp).
  Index state_size() const;
  void set_state(const double* state);
  void get_state(double* state) const;

  double work() const { return gradient_.front().work(); }  // of one step, in floating-point operations

  // Takes `count` steps with the learning rates given, on batches from x, y [*, d]: row after row, or those that `rows`
  // lists. Returns how many steps left all weights finite; one that does not is the last one taken.
  std::int64_t advance(const double* rates, std::int64_t count, const double* x, const double* y,
                       const std::int64_t* rows, Interrupt& interrupt);

 private:
  Trainer(const NetworkShape& shape, const FlowTerms& terms, const TrainerSettings& settings);

  // Rows of W^l (of V for l = L) to update.
  struct UpdateTask {
    Index layer, begin, end;
  };
  bool update(const UpdateTask& task, double rate, std::int64_t step);  // whether they stay finite; steps from 1

  FlowTerms terms_;
  TrainerSettings settings_;
  Index depth_, inputs_, batch_size_ = 0;
  std::vector<PaddedMatrix> weights_;  // W^1 .. W^L, V, B^1 .. B^L
  std::vector<PaddedMatrix> first_;    // of W^1 .. W^L, V: the momentum, or Adam's mean of the gradient
  std::vector<PaddedMatrix> second_;   // Adam's mean of its square
  Samples x_, y_;
  std::vector<BatchGradient> gradient_;  // one; built after the weights that it borrows
  std::int64_t steps_ = 0;
};

}  // namespace jepa_ode
