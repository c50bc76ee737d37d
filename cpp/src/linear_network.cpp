#include "jepa_ode/linear_network.hpp"

#include <algorithm>
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

// How many threads the largest product of a right-hand side is work for.
unsigned helpful_threads(const NetworkShape& shape, unsigned threads) {
  Index most = 1;
  const auto consider = [&](Index rows, Index inner) {
    most = std::max(most, rows / MatrixProduct::least_rows(inner, shape.inputs()));
  };
  for (Index l = 1; l < shape.depth(); ++l) consider(shape.rows(l), shape.columns(l));
  consider(shape.outputs, shape.encoding());
  return static_cast<unsigned>(std::min<Index>(most, threads));
}

auto diagonal(const double* entries, Index size) {
  return Eigen::Map<const Eigen::VectorXd>(entries, size).asDiagonal();
}

}  // namespace

LinearNetworkFlow::LinearNetworkFlow(NetworkShape shape, const FlowTerms& terms, const Moments& moments,
                                     unsigned threads)
    : shape_(std::move(shape)),
      terms_(terms),
      moments_(moments),
      team_(helpful_threads(shape_, threads)),
      product_(team_) {
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

  Index most_rows = shape_.outputs;
  for (Index l = 0; l < depth; ++l) most_rows = std::max(most_rows, shape_.rows(l));
  for (Eigen::VectorXd& place : places_) place.resize(most_rows * inputs);
  for (Index l = 1; l < depth; ++l) products_.emplace_back(shape_.rows(l), inputs);
  if (terms_.has_target_network()) target_products_ = products_;
  predicted_.resize(shape_.outputs, inputs);
}

ConstMatrixView LinearNetworkFlow::block(const double* state, Index index) const {
  const Block& block = blocks_[at(index)];
  return {state + block.offset, block.rows, block.columns};
}

// The product of the layers from block `first` on, those of the lower ones in `products`.
ConstMatrixView LinearNetworkFlow::multiply_chain(const double* state, Index first, std::vector<Matrix>& products) {
  ConstMatrixView product = block(state, first);
  for (Index l = 1; l < shape_.depth(); ++l) {
    Matrix& next = products[at(l - 1)];
    product_.assign(next, 1, block(state, first + l), product);
    new (&product) ConstMatrixView(next.data(), next.rows(), next.cols());  // how an Eigen map is pointed elsewhere
  }
  return product;
}

ConstMatrixView LinearNetworkFlow::encode(const double* state) { return multiply_chain(state, 0, products_); }

ConstMatrixView LinearNetworkFlow::encode_target(const double* state) {
  return terms_.has_target_network() ? multiply_chain(state, shape_.depth() + 1, target_products_) : encode(state);
}

MatrixView LinearNetworkFlow::place(Index turn, Index rows) {
  return {places_[at(turn % 2)].data(), rows, shape_.inputs()};
}

ConstMatrixView LinearNetworkFlow::times_xx(const ConstMatrixView& a, MatrixView storage) {
  if (in_features()) return a;
  if (moments_.variances) {
    storage.noalias() = a * diagonal(moments_.variances, a.cols());
  } else {
    product_.assign(storage, 1, a, square(moments_.xx));
  }
  return {storage.data(), storage.rows(), storage.cols()};
}

void LinearNetworkFlow::add_times_yx(MatrixView out, double scale, const ConstMatrixView& a) {
  if (in_features()) {
    out.noalias() += scale * a * diagonal(moments_.rho, a.cols());
  } else {
    product_.add(out, scale, a, square(moments_.yx));
  }
}

void LinearNetworkFlow::add_times_xy(MatrixView out, double scale, const ConstMatrixView& a) {
  if (in_features()) {
    add_times_yx(out, scale, a);  // diagonal
  } else {
    product_.add(out, scale, a, square(moments_.yx).transpose());
  }
}

void LinearNetworkFlow::velocity(const double* state, double* velocity) {
  const Index depth = shape_.depth();
  const ConstMatrixView v = predictor(state);
  const auto out = [&](Index index) {
    const Block& block = blocks_[at(index)];
    return MatrixView(velocity + block.offset, block.rows, block.columns);
  };

  // E = V Wbar Sxx - target Syx  (JEPA; the target is Wbar or, with EMA, Bbar),  V Wbar Sxx - Syx  (MAE)
  const ConstMatrixView encoder = encode(state);
  MatrixView error = place(depth, shape_.outputs);
  product_.assign(error, 1, v, times_xx(encoder, place(depth - 1, shape_.encoding())));
  if (terms_.objective == Objective::mae) {
    error -= square(moments_.yx);
  } else {
    add_times_yx(error, -1, terms_.has_target_network() ? encode_target(state) : encoder);
  }

  // dV/dt = - E Wbar^T
  product_.assign(out(depth), -1, error, encoder.transpose());

  // Gradient at the output of the encoder, V^T E, and the target's branch where it is not stopped:
  // - (V Wbar Sxy - Wbar Syy), Sxy = Syx^T.
  const auto gradient_at = [&](Index l) { return place(l, shape_.rows(l)); };
  MatrixView top = gradient_at(depth - 1);
  product_.assign(top, 1, v.transpose(), error);
  if (terms_.differentiates_target()) {
    product_.assign(predicted_, 1, v, encoder);
    add_times_xy(top, -1, ConstMatrixView(predicted_.data(), predicted_.rows(), predicted_.cols()));
    product_.add(top, 1, encoder, square(moments_.yy));
  }

  // dW^l/dt = - (W^L ... W^(l+1))^T (gradient at the top) (W^(l-1) ... W^1)^T, from the top down.
  for (Index l = depth - 1; l > 0; --l) {
    const MatrixView gradient = gradient_at(l);
    const ConstMatrixView below =
        l > 1 ? ConstMatrixView(products_[at(l - 2)].data(), shape_.columns(l), encoder.cols()) : block(state, 0);
    product_.assign(out(l), -1, gradient, below.transpose());
    if (l == 1 && !in_features()) {
      product_.assign(out(0), -1, block(state, l).transpose(), gradient);
    } else {
      product_.assign(gradient_at(l - 1), 1, block(state, l).transpose(), gradient);
    }
  }
  if (in_features()) {
    product_.assign(out(0), -1, gradient_at(0), square(moments_.coupling));
  } else if (depth == 1) {
    out(0) = -top;
  }

  if (terms_.weight_decay != 0) {
    const Index size = weights_size();
    Eigen::Map<Eigen::VectorXd>(velocity, size) -= terms_.weight_decay * Eigen::Map<const Eigen::VectorXd>(state, size);
  }
  if (terms_.predictor_rate != 1) out(depth) *= terms_.predictor_rate;

  // dB^l/dt = (W^l - B^l) / tau
  if (terms_.has_target_network()) {
    for (Index l = 0; l < depth; ++l)
      out(depth + 1 + l) = (block(state, l) - block(state, depth + 1 + l)) / terms_.ema_time;
  }
}

double LinearNetworkFlow::loss(const double* state) {
  // 1/2 tr(P Sxx P^T) - tr(P Sxy T^T) + 1/2 tr(T Syy T^T),  P = V Wbar, T = target (the identity for MAE)
  product_.assign(predicted_, 1, predictor(state), encode(state));
  const ConstMatrixView predicted(predicted_.data(), predicted_.rows(), predicted_.cols());
  MatrixView product = place(0, shape_.outputs);
  const double of_prediction = inner_product(times_xx(predicted, product), predicted);
  const ConstMatrixView yy = square(moments_.yy);
  if (terms_.objective == Objective::mae)
    return 0.5 * (of_prediction + yy.trace()) - inner_product(predicted, square(moments_.yx));

  const ConstMatrixView target = encode_target(state);
  product.setZero();
  add_times_yx(product, 1, target);  // tr(P Sxy T^T) = <P, T Syx>
  const double of_both = inner_product(product, predicted);
  product_.assign(product, 1, target, yy);
  return 0.5 * (of_prediction + inner_product(product, target)) - of_both;
}

void LinearNetworkFlow::response(const double* state, const double* directions, Index features, double* response,
                                 Index stride) {
  encoder_response(encode(state), ConstMatrixView(directions, shape_.inputs(), features), product_, encoded_features_,
                   response, stride);
}

Matrix encoder_product(const std::vector<Index>& widths, const double* state) {
  Matrix product = ConstMatrixView(state, widths[1], widths[0]);
  MatrixProduct multiply;
  const double* layer = state + product.size();
  for (std::size_t l = 2; l < widths.size(); ++l) {
    const ConstMatrixView view(layer, widths[l], widths[l - 1]);
    Matrix next(view.rows(), product.cols());
    multiply.assign(next, 1, view, ConstMatrixView(product.data(), product.rows(), product.cols()));
    product.swap(next);
    layer += view.size();
  }
  return product;
}

void encoder_response(const ConstMatrixView& encoder, const ConstMatrixView& directions, MatrixProduct& product,
                      Matrix& encoded, double* response, Index stride) {
  if (encoded.rows() != encoder.rows() || encoded.cols() != directions.cols())
    encoded = Matrix(encoder.rows(), directions.cols());
  product.assign(encoded, 1, encoder, directions);
  // One by one: the order in which Eigen sums several columns at once depends on where they lie in memory.
  for (Index i = 0; i < encoded.cols(); ++i) response[i * stride] = encoded.col(i).norm();
}

void eigen_product(const double* a, const double* b, Index size, Index repeats, double* product) {
  MatrixView out(product, size, size);
  for (Index k = 0; k < repeats; ++k) out.noalias() = ConstMatrixView(a, size, size) * ConstMatrixView(b, size, size);
}

}  // namespace jepa_ode
