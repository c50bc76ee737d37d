#include "jepa_ode/linear_network.hpp"

#include <cmath>
#include <cstddef>
#include <utility>

namespace jepa_ode {

namespace {

std::size_t at(Index index) { return static_cast<std::size_t>(index); }

// <A, B> = tr(A B^T), the sum over all entries.
template <class A, class B>
double inner_product(const A& a, const B& b) {
  return a.cwiseProduct(b).sum();
}

}  // namespace

LinearNetworkFlow::LinearNetworkFlow(NetworkShape shape, const FlowTerms& terms, const Moments& moments)
    : shape_(std::move(shape)), terms_(terms), moments_(moments) {
  const Index depth = shape_.depth();
  const Index inputs = shape_.inputs();
  Index offset = 0;
  const auto add_block = [&](Index rows, Index columns) {
    blocks_.push_back({offset, rows, columns});
    offset += rows * columns;
  };
  const auto add_layers = [&] {
    for (Index l = 0; l < depth; ++l) add_block(shape_.rows(l), shape_.columns(l));
  };
  add_layers();
  add_block(shape_.outputs, shape_.encoding());
  if (terms_.has_target_network()) add_layers();

  for (Index l = 0; l < depth; ++l) backward_.emplace_back(shape_.rows(l), inputs);
  for (Index l = 1; l < depth; ++l) products_.emplace_back(shape_.rows(l), inputs);
  if (terms_.has_target_network()) target_products_ = products_;
  predicted_.resize(shape_.outputs, inputs);
  encoded_xx_.resize(shape_.encoding(), inputs);
  error_.resize(shape_.outputs, inputs);
}

Index LinearNetworkFlow::weights_size() const {
  const Block& predictor = blocks_[at(shape_.depth())];
  return predictor.offset + predictor.size();
}

ConstMatrixView LinearNetworkFlow::block(const double* state, Index index) const {
  const Block& block = blocks_[at(index)];
  return {state + block.offset, block.rows, block.columns};
}

ConstMatrixView LinearNetworkFlow::encode(const double* state) {
  ConstMatrixView product = block(state, 0);
  for (Index l = 1; l < shape_.depth(); ++l) {
    Matrix& next = products_[at(l - 1)];
    next.noalias() = block(state, l) * product;
    new (&product) ConstMatrixView(next.data(), next.rows(), next.cols());  // how an Eigen map is pointed elsewhere
  }
  return product;
}

ConstMatrixView LinearNetworkFlow::encode_target(const double* state) {
  if (!terms_.has_target_network()) return encode(state);
  const Index first = shape_.depth() + 1;
  ConstMatrixView product = block(state, first);
  for (Index l = 1; l < shape_.depth(); ++l) {
    Matrix& next = target_products_[at(l - 1)];
    next.noalias() = block(state, first + l) * product;
    new (&product) ConstMatrixView(next.data(), next.rows(), next.cols());
  }
  return product;
}

void LinearNetworkFlow::velocity(const double* state, double* velocity) {
  const Index depth = shape_.depth();
  const Index d = shape_.inputs();
  const ConstMatrixView xx(moments_.xx, d, d);
  const ConstMatrixView yx(moments_.yx, d, d);
  const ConstMatrixView v = predictor(state);
  const auto out = [&](Index index) {
    const Block& block = blocks_[at(index)];
    return MatrixView(velocity + block.offset, block.rows, block.columns);
  };

  // E = V Wbar Sxx - target Syx  (JEPA; the target is Wbar or, with EMA, Bbar),  V Wbar Sxx - Syx  (MAE)
  const ConstMatrixView encoder = encode(state);
  encoded_xx_.noalias() = encoder * xx;
  error_.noalias() = v * encoded_xx_;
  if (terms_.objective == Objective::mae) {
    error_ -= yx;
  } else {
    const ConstMatrixView target = terms_.has_target_network() ? encode_target(state) : encoder;
    error_.noalias() -= target * yx;
  }

  // dV/dt = - E Wbar^T
  out(depth).noalias() = -error_ * encoder.transpose();

  // Gradient at the output of the encoder, V^T E, and the target's branch where it is not stopped:
  // - (V Wbar Sxy - Wbar Syy), Sxy = Syx^T.
  Matrix& top = backward_[at(depth - 1)];
  top.noalias() = v.transpose() * error_;
  if (terms_.differentiates_target()) {
    const ConstMatrixView yy(moments_.yy, d, d);
    predicted_.noalias() = v * encoder;
    top.noalias() -= predicted_ * yx.transpose();
    top.noalias() += encoder * yy;
  }

  // dW^l/dt = - (W^L ... W^(l+1))^T (gradient at the top) (W^(l-1) ... W^1)^T, from the top down.
  for (Index l = depth - 1; l > 0; --l) {
    const Matrix& gradient = backward_[at(l)];
    const ConstMatrixView below =
        l > 1 ? ConstMatrixView(products_[at(l - 2)].data(), shape_.columns(l), d) : block(state, 0);
    out(l).noalias() = -gradient * below.transpose();
    backward_[at(l - 1)].noalias() = block(state, l).transpose() * gradient;
  }
  out(0) = -backward_[0];

  if (terms_.weight_decay != 0) {
    const Index size = weights_size();
    Eigen::Map<Eigen::VectorXd>(velocity, size) -= terms_.weight_decay * Eigen::Map<const Eigen::VectorXd>(state, size);
  }

  // dB^l/dt = (W^l - B^l) / tau
  if (terms_.has_target_network()) {
    for (Index l = 0; l < depth; ++l)
      out(depth + 1 + l) = (block(state, l) - block(state, depth + 1 + l)) / terms_.ema_time;
  }
}

double LinearNetworkFlow::loss(const double* state) {
  const Index d = shape_.inputs();
  const ConstMatrixView xx(moments_.xx, d, d);
  const ConstMatrixView yx(moments_.yx, d, d);
  const ConstMatrixView yy(moments_.yy, d, d);

  // 1/2 tr(P Sxx P^T) - tr(P Sxy T^T) + 1/2 tr(T Syy T^T),  P = V Wbar, T = target (the identity for MAE)
  const ConstMatrixView encoder = encode(state);
  predicted_.noalias() = predictor(state) * encoder;
  error_.noalias() = predicted_ * xx;
  const double of_prediction = inner_product(error_, predicted_);
  if (terms_.objective == Objective::mae) return 0.5 * (of_prediction + yy.trace()) - inner_product(predicted_, yx);

  const ConstMatrixView target = encode_target(state);
  error_.noalias() = target * yx;  // tr(P Sxy T^T) = <P, T Syx>
  const double of_both = inner_product(error_, predicted_);
  encoded_xx_.noalias() = target * yy;
  return 0.5 * (of_prediction + inner_product(encoded_xx_, target)) - of_both;
}

void LinearNetworkFlow::response(const double* state, const double* directions, Index features, double* response,
                                 Index stride) {
  encoded_features_.noalias() = encode(state) * ConstMatrixView(directions, shape_.inputs(), features);
  for (Index i = 0; i < features; ++i) response[i * stride] = encoded_features_.col(i).norm();
}

}  // namespace jepa_ode
