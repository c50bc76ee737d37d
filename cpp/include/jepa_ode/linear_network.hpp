// A deep linear network, its forward products, and the right-hand side of its gradient flow (THEORY.md 1).
//
//   encoder    Wbar = W^L ... W^1,  W^l of shape [widths[l], widths[l-1]],  widths[0] = d, widths[L] = k
//   predictor  V of shape [outputs, k]: outputs = k for JEPA, d for MAE
//   target     B^1 ... B^L like the encoder, only with an EMA target
//
// The state of the flow is one vector: W^1, ..., W^L, V, B^1, ..., B^L, each row after row.
#pragma once

#include <vector>

#include "jepa_ode/matrix_product.hpp"
#include "jepa_ode/objective.hpp"
#include "jepa_ode/team.hpp"

namespace jepa_ode {

struct NetworkShape {
  std::vector<Index> widths;  // d, then the widths of the L layers' outputs
  Index outputs;              // rows of the predictor

  Index depth() const { return static_cast<Index>(widths.size()) - 1; }
  Index inputs() const { return widths.front(); }
  Index encoding() const { return widths.back(); }
  Index rows(Index layer) const { return widths[static_cast<std::size_t>(layer) + 1]; }  // layer 0 is W^1
  Index columns(Index layer) const { return widths[static_cast<std::size_t>(layer)]; }

  Index encoder_size() const {  // how many weights
    Index size = 0;
    for (Index l = 0; l < depth(); ++l) size += rows(l) * columns(l);
    return size;
  }
  Index weights_size() const { return encoder_size() + outputs * encoding(); }  // of encoder and predictor
};

// What the flow descends on. `ema_time` is tau of dB/dt = (W - B)/tau; 0 means that the target is the encoder itself.
struct FlowTerms {
  Objective objective = Objective::jepa;
  bool stop_gradient = true;  // MAE's target is data, so that it has nothing to stop
  double ema_time = 0;
  double weight_decay = 0;
  double predictor_rate = 1;  // multiplies dV/dt, decay included

  bool has_target_network() const noexcept { return ema_time > 0; }
  bool differentiates_target() const noexcept { return objective == Objective::jepa && !stop_gradient; }
};

// Second moments, borrowed, each [d, d] row after row. `yy` may be null where nothing needs it: it enters the loss and
// the flow without stop-gradient.
//
// In the principal axes of x, where Sxx is diagonal, a right-hand side has one product of matrices less.
//
// In feature coordinates (THEORY.md 6) the context is its amplitudes Q^T x and the first layer W^1 P. Then Sxx is the
// identity, and dW^1/dt is multiplied by M = P^T P. JEPA's target is in feature coordinates too: Syx is diag(rho), and
// yy is Q^T Syy Q. MAE's target and decoder stay as they are, which needs no M between them: yx is Syx Q and yy is Syy.
struct Moments {
  const double* xx;  // null where the next one is given, and in feature coordinates
  const double* yx;  // E[y x^T]; null for JEPA in feature coordinates
  const double* yy;
  const double* coupling = nullptr;   // M [d, d]; null in data coordinates
  const double* rho = nullptr;        // [d], for JEPA in feature coordinates
  const double* variances = nullptr;  // [d], the diagonal of Sxx in the principal axes of x
};

// Wbar = W^L ... W^1 of the layers that a state begins with, [widths[L], widths[0]].
Matrix encoder_product(const std::vector<Index>& widths, const double* state);

// response[i * stride] = |Wbar p_i| for the columns p_i of `directions`; `encoded` is storage for the Wbar p_i.
void encoder_response(const ConstMatrixView& encoder, const ConstMatrixView& directions, MatrixProduct& product,
                      Matrix& encoded, double* response, Index stride = 1);

// Evaluates the flow of one network. Everything that an evaluation writes to is allocated by the constructor. Of the
// threads it uses those that its matrices are large enough for; they change no bit.
class LinearNetworkFlow {
 public:
  LinearNetworkFlow(NetworkShape shape, const FlowTerms& terms, const Moments& moments, unsigned threads = 1);

  // Where a block of the state begins, and its shape: the layers, the predictor, the target's layers.
  struct Block {
    Index offset;
    Index rows;
    Index columns;
    Index size() const { return rows * columns; }
  };
  const std::vector<Block>& blocks() const { return blocks_; }
  Index state_size() const { return blocks_.back().offset + blocks_.back().size(); }
  Index weights_size() const { return shape_.weights_size(); }  // without the target

  Team& team() { return team_; }

  // d state / dt. `state` and `velocity` must not overlap.
  void velocity(const double* state, double* velocity);

  // 1/2 E |V Wbar x - target|^2, exact from the second moments (needs yy).
  double loss(const double* state);

  // response[i * stride] = |Wbar p_i| for the columns p_i of `directions` [d, features], in the coordinates of the
  // state.
  void response(const double* state, const double* directions, Index features, double* response, Index stride);

 private:
  ConstMatrixView block(const double* state, Index index) const;
  ConstMatrixView predictor(const double* state) const { return block(state, shape_.depth()); }
  ConstMatrixView encode(const double* state);         // fills products_, returns Wbar
  ConstMatrixView encode_target(const double* state);  // Wbar, or the EMA target's product
  ConstMatrixView multiply_chain(const double* state, Index first, std::vector<Matrix>& products);

  // Where a matrix [rows, inputs] is left for the next one to be made of it, in turns: Wbar Sxx, E (THEORY.md 1), the
  // gradients at the outputs of the layers from the top down.
  MatrixView place(Index turn, Index rows);

  // The three places where the two kinds of coordinates differ.
  ConstMatrixView times_xx(const ConstMatrixView& a, MatrixView storage);     // a Sxx; where it needs computing there
  void add_times_yx(MatrixView out, double scale, const ConstMatrixView& a);  // out += scale a Syx
  void add_times_xy(MatrixView out, double scale, const ConstMatrixView& a);  // out += scale a Sxy
  bool in_features() const noexcept { return moments_.coupling != nullptr; }
  ConstMatrixView square(const double* moment) const { return {moment, shape_.inputs(), shape_.inputs()}; }

  NetworkShape shape_;
  FlowTerms terms_;
  Moments moments_;
  std::vector<Block> blocks_;

  std::vector<Matrix> products_;         // W^l ... W^1 for l = 2 .. L
  std::vector<Matrix> target_products_;  // B^l ... B^1 for l = 2 .. L
  Matrix predicted_;                     // V Wbar
  Eigen::VectorXd places_[2];            // so few, to stay in caches
  Matrix encoded_features_;              // Wbar p_i, sized at first use
  Team team_;
  MatrixProduct product_;
};

// The product of two square matrices by Eigen alone, compiled as ours are, `repeats` times: what bench/ holds
// right-hand sides against.
void eigen_product(const double* a, const double* b, Index size, Index repeats, double* product);

}  // namespace jepa_ode
