// The gradient of the loss of a linear network on one batch, or on the population, by threads that share its products.
//
// Because the network is linear a batch of B samples enters through its second moments alone (THEORY.md 1), so that the
// gradient is that of the flow on the batch's moments: two products of B d^2 and 3L + 2 of d^3. For B well below d it
// is cheaper to send the samples through the layers. Both are lists of matrix operations that depend on the shapes
// alone, made once; the one with less work is run.
#pragma once

#include <deque>
#include <vector>

#include "jepa_ode/row_job.hpp"

namespace jepa_ode {

class BatchGradient {
 public:
  // Of the network with these weights: W^1 .. W^L, V, and with an EMA target B^1 .. B^L. They are borrowed, as are the
  // samples [*, d], which may move from call to call of descent().
  BatchGradient(const FlowTerms& terms, const std::vector<PaddedMatrix>& weights, Index depth, Index batch_size,
                const Samples& x, const Samples& y);

  // On the population; its moments are copied.
  BatchGradient(const FlowTerms& terms, const std::vector<PaddedMatrix>& weights, Index depth, const Moments& moments);

  // What fills descent() with minus the gradient, weight decay not included, for ranks to share: first the copies of
  // the batch's samples, which may be made while the weights still change, then the phases.
  using Jobs = std::vector<RowJob>;
  const Jobs& gather() const { return plan_.gather; }
  const std::vector<Jobs>& phases() const { return plan_.phases; }

  const std::vector<PaddedMatrix>& descent() const { return descent_; }  // for W^1 .. W^L, V
  double work() const { return plan_.work(); }                           // of one call, in floating-point operations

 private:
  struct Plan {
    std::deque<PaddedMatrix> storage;  // what the phases pass on, in places that stay
    Jobs gather;
    std::vector<Jobs> phases;

    double work() const;
  };

  const PaddedMatrix& layer(Index l) const { return weights_[static_cast<std::size_t>(l)]; }
  const PaddedMatrix& predictor() const { return layer(depth_); }
  const PaddedMatrix& target_layer(Index l) const { return layer(depth_ + 1 + l); }
  PaddedMatrix& make(Index rows, Index columns) { return plan_.storage.emplace_back(rows, columns); }

  void plan_from_moments(const PaddedMatrix& xx, const PaddedMatrix& yx, const PaddedMatrix* yy, Jobs moments = {},
                         Jobs mirrors = {});
  void plan_moments(Index batch_size, const Samples& x, const Samples& y);
  void plan_samples(Index batch_size, const Samples& x, const Samples& y);

  FlowTerms terms_;
  const std::vector<PaddedMatrix>& weights_;
  Index depth_;
  std::vector<PaddedMatrix> descent_;
  Plan plan_;
};

}  // namespace jepa_ode
