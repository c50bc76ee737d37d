#include "jepa_ode/batch_gradient.hpp"

#include <cstddef>
#include <utility>

namespace jepa_ode {

namespace {

using Kind = RowJob::Kind;

std::size_t at(Index index) { return static_cast<std::size_t>(index); }

RowJob product(PaddedMatrix& to, const PaddedMatrix& a, const PaddedMatrix& b, double scale = 1.0,
               const PaddedMatrix* base = nullptr) {
  return {Kind::product, &to, &a, &b, scale, base};
}

RowJob product_left(PaddedMatrix& to, const PaddedMatrix& a, const PaddedMatrix& b, double scale = 1.0,
                    const PaddedMatrix* base = nullptr) {
  return {Kind::product_left, &to, &a, &b, scale, base};
}

RowJob gather_rows(PaddedMatrix& to, const Samples& samples) {
  return {Kind::gather, &to, nullptr, nullptr, 1.0, nullptr, &samples};
}

}  // namespace

BatchGradient::BatchGradient(const FlowTerms& terms, const std::vector<PaddedMatrix>& weights, Index depth,
                             Index batch_size, const Samples& x, const Samples& y)
    : terms_(terms), weights_(weights), depth_(depth) {
  for (Index l = 0; l <= depth; ++l) descent_.emplace_back(layer(l).rows(), layer(l).columns());
  plan_moments(batch_size, x, y);
  if (terms_.differentiates_target()) return;
  Plan by_moments = std::exchange(plan_, {});
  plan_samples(batch_size, x, y);
  if (by_moments.work() <= plan_.work()) plan_ = std::move(by_moments);
}

BatchGradient::BatchGradient(const FlowTerms& terms, const std::vector<PaddedMatrix>& weights, Index depth,
                             const Moments& moments)
    : terms_(terms), weights_(weights), depth_(depth) {
  for (Index l = 0; l <= depth; ++l) descent_.emplace_back(layer(l).rows(), layer(l).columns());
  const Index d = layer(0).columns();
  PaddedMatrix& xx = make(d, d);
  PaddedMatrix& yx = make(d, d);
  xx.assign(moments.xx);
  yx.assign(moments.yx);
  PaddedMatrix* yy = nullptr;
  if (terms_.differentiates_target()) {
    yy = &make(d, d);
    yy->assign(moments.yy);
  }
  plan_from_moments(xx, yx, yy);
}

void BatchGradient::plan_moments(Index batch_size, const Samples& x, const Samples& y) {
  const Index d = layer(0).columns();
  PaddedMatrix& rows_x = make(batch_size, d);
  PaddedMatrix& rows_y = make(batch_size, d);
  PaddedMatrix& xx = make(d, d);
  PaddedMatrix& yx = make(d, d);
  const double mean = 1.0 / static_cast<double>(batch_size);
  plan_.gather = {gather_rows(rows_x, x), gather_rows(rows_y, y)};
  Jobs moments{{Kind::gram, &xx, &rows_x, nullptr, mean}, product_left(yx, rows_y, rows_x, mean)};
  Jobs mirrors{{Kind::mirror, &xx}};
  PaddedMatrix* yy = nullptr;
  if (terms_.differentiates_target()) {
    yy = &make(d, d);
    moments.push_back({Kind::gram, yy, &rows_y, nullptr, mean});
    mirrors.push_back({Kind::mirror, yy});
  }
  plan_from_moments(xx, yx, yy, std::move(moments), std::move(mirrors));
}

// As LinearNetworkFlow::velocity, in the order that leaves least to wait for.
void BatchGradient::plan_from_moments(const PaddedMatrix& xx, const PaddedMatrix& yx, const PaddedMatrix* yy,
                                      Jobs moments, Jobs mirrors) {
  const Index d = xx.rows();
  const PaddedMatrix& v = predictor();
  Jobs phase = std::move(moments);
  const auto finish = [&] {
    if (!phase.empty()) plan_.phases.push_back(std::move(phase));
    phase = std::exchange(mirrors, {});
  };

  // W^l ... W^1 and their transposes, B^l ... B^1.
  const PaddedMatrix* encoder = &layer(0);
  const PaddedMatrix* target = terms_.has_target_network() ? &target_layer(0) : nullptr;
  std::vector<PaddedMatrix*> transposed;
  const auto transpose = [&](const PaddedMatrix& matrix) -> PaddedMatrix& {
    PaddedMatrix& to = make(matrix.columns(), matrix.rows());
    phase.push_back({Kind::transpose, &to, &matrix});
    return to;
  };
  for (Index l = 1; l < depth_; ++l) {
    transposed.push_back(&transpose(*encoder));
    PaddedMatrix& next = make(layer(l).rows(), d);
    phase.push_back(product(next, layer(l), *encoder));
    encoder = &next;
    if (target) {
      PaddedMatrix& next_target = make(layer(l).rows(), d);
      phase.push_back(product(next_target, target_layer(l), *target));
      target = &next_target;
    }
    finish();
  }
  while (!phase.empty()) finish();
  transposed.push_back(&transpose(*encoder));
  if (!target) target = encoder;

  // -E = target Syx - V Wbar Sxx  (JEPA),  Syx - V Wbar Sxx  (MAE)
  PaddedMatrix& encoded_xx = make(encoder->rows(), d);
  PaddedMatrix& error = make(v.rows(), d);
  const bool jepa = terms_.objective == Objective::jepa;
  phase.push_back(product(encoded_xx, *encoder, xx));
  if (jepa) phase.push_back(product(error, *target, yx));
  // The branch of a target that is not stopped: V Wbar Sxy - Wbar Syy.
  PaddedMatrix* branch = nullptr;
  PaddedMatrix* predicted = nullptr;
  const PaddedMatrix* xy = nullptr;
  if (yy) {
    branch = &make(encoder->rows(), d);
    predicted = &make(v.rows(), d);
    phase.push_back(product(*branch, *encoder, *yy, -1.0));
    phase.push_back(product(*predicted, v, *encoder));
    xy = &transpose(yx);
  }
  finish();
  phase.push_back(product(error, v, encoded_xx, -1.0, jepa ? &error : &yx));
  if (yy) phase.push_back(product(*branch, *predicted, *xy, 1.0, branch));
  finish();

  // From the top down: dV/dt = -E Wbar^T and so on.
  const auto gradient_at = [&](Index l) -> PaddedMatrix& { return l > 0 ? make(layer(l).rows(), d) : descent_[0]; };
  PaddedMatrix* gradient = &gradient_at(depth_ - 1);
  phase.push_back(product(descent_[at(depth_)], error, *transposed[at(depth_ - 1)]));
  phase.push_back(product_left(*gradient, v, error, 1.0, branch));
  finish();
  for (Index l = depth_ - 1; l > 0; --l) {
    PaddedMatrix& below = gradient_at(l - 1);
    phase.push_back(product(descent_[at(l)], *gradient, *transposed[at(l - 1)]));
    phase.push_back(product_left(below, layer(l), *gradient));
    finish();
    gradient = &below;
  }
}

// The samples, one in a row, through the layers and back.
void BatchGradient::plan_samples(Index batch_size, const Samples& x, const Samples& y) {
  const Index d = layer(0).columns();
  const bool jepa = terms_.objective == Objective::jepa;
  PaddedMatrix& rows_x = make(batch_size, d);
  PaddedMatrix& rows_y = make(batch_size, d);
  plan_.gather = {gather_rows(rows_x, x), gather_rows(rows_y, y)};
  Jobs phase;
  std::vector<const PaddedMatrix*> transposed;
  for (const PaddedMatrix& weights : weights_) {
    PaddedMatrix& columns = make(weights.columns(), weights.rows());
    phase.push_back({Kind::transpose, &columns, &weights});
    transposed.push_back(&columns);
  }
  plan_.phases.push_back(std::exchange(phase, {}));

  std::vector<const PaddedMatrix*> activations{&rows_x};
  const PaddedMatrix* target = &rows_y;
  for (Index l = 0; l < depth_; ++l) {
    PaddedMatrix& next = make(batch_size, layer(l).rows());
    phase.push_back(product(next, *activations.back(), *transposed[at(l)]));
    if (jepa) {
      PaddedMatrix& next_target = make(batch_size, layer(l).rows());
      const Index of_target = terms_.has_target_network() ? depth_ + 1 + l : l;
      phase.push_back(product(next_target, *target, *transposed[at(of_target)]));
      target = &next_target;
    }
    activations.push_back(&next);
    plan_.phases.push_back(std::exchange(phase, {}));
  }
  PaddedMatrix& error = make(batch_size, predictor().rows());
  phase.push_back(product(error, *activations.back(), *transposed[at(depth_)], -1.0, target));
  plan_.phases.push_back(std::exchange(phase, {}));

  const double mean = 1.0 / static_cast<double>(batch_size);
  const PaddedMatrix* gradient = &error;
  for (Index l = depth_; l >= 0; --l) {
    phase.push_back(product_left(descent_[at(l)], *gradient, *activations[at(l)], mean));
    if (l > 0) {
      PaddedMatrix& below = make(batch_size, layer(l).columns());
      phase.push_back(product(below, *gradient, layer(l)));
      gradient = &below;
    }
    plan_.phases.push_back(std::exchange(phase, {}));
  }
}

double BatchGradient::Plan::work() const {
  double sum = 0;
  for (const Jobs& phase : phases) {
    for (const RowJob& job : phase) sum += job.work();
  }
  return sum;
}

}  // namespace jepa_ode
