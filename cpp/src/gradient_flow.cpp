#include "jepa_ode/gradient_flow.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>

#include "jepa_ode/controller.hpp"
#include "jepa_ode/tableau.hpp"

namespace jepa_ode {

namespace {

using Vector = Eigen::VectorXd;
using VectorView = Eigen::Map<Vector>;
using ConstVectorView = Eigen::Map<const Vector>;

// How many doubles of every stage are combined at a time: 16 stages of a chunk (64 KiB) leave the sum itself in the
// nearest cache.
constexpr Index chunk = 512;

// The spacing of doubles at t.
double spacing(double t) { return std::nextafter(t, std::numeric_limits<double>::infinity()) - t; }

// Weights of the stages in y(t + theta h) - y(t) = h sum_j w_j k_j: the cubic Hermite polynomial of the two ends and
// the terms that tableau.hpp describes.
template <class Pair>
std::array<double, Pair::stages + 1> dense_weights(double theta) {
  const double left = 1 - theta;
  const double rise = theta * theta * (3 - 2 * theta);
  std::array<double, Pair::stages + 1> weights{};
  for (std::size_t j = 0; j < Pair::stages; ++j) weights[j] = rise * Pair::a[Pair::stages][j];
  weights[0] += theta * left * left;
  weights[Pair::stages] -= theta * theta * left;
  double term = theta * theta * left * left;
  for (std::size_t r = 0; r < std::size(Pair::dense); ++r) {
    for (std::size_t j = 0; j <= Pair::stages; ++j) weights[j] += term * Pair::dense[r][j];
    term *= r % 2 == 0 ? theta : left;
  }
  return weights;
}

template <class Pair>
class FlowIntegrator {
 public:
  FlowIntegrator(LinearNetworkFlow& flow, const double* start, const FlowSettings& settings,
                 const FlowObservation& observation, Interrupt& interrupt, const FlowProgress& progress)
      : flow_(flow),
        settings_(settings),
        observation_(observation),
        interrupt_(interrupt),
        progress_(progress),
        size_(flow.state_size()),
        state_(ConstVectorView(start, size_)),
        next_(size_),
        scratch_(size_),
        between_(size_),
        stages_(size_, last_stage + 1) {}

  FlowResult run() {
    result_.status = integrate();
    for (std::size_t k = result_.reached; k < observation_.count; ++k) mark_unreached(k);
    return result_;
  }

 private:
  static constexpr Index last_stage = static_cast<Index>(Pair::stages);

  Status integrate() {
    // Observed before the start is judged: what was asked for at time 0 is known.
    while (result_.reached < observation_.count && observation_.times[result_.reached] <= 0) observe(state_.data());
    if (result_.reached == observation_.count) return Status::ok;
    const double end = observation_.times[observation_.count - 1];

    evaluate(state_, 0);
    if (!state_.allFinite() || !stages_.col(0).allFinite()) return Status::not_finite;
    Controller controller(Pair::estimate_order);
    double time = 0;
    double step = first_step(end);
    bool overflowed = false;

    while (result_.reached < observation_.count) {
      if (result_.steps + result_.rejected >= settings_.max_steps) return Status::max_steps;
      if (progress_ && progress_(time)) interrupt_.request_stop();
      if (step < 2 * spacing(time)) return overflowed ? Status::not_finite : Status::step_too_small;
      const bool last = step >= end - time;
      const double h = last ? end - time : step;

      const double error = attempt(h);
      if (!Controller::accepts(error)) {
        ++result_.rejected;
        overflowed = !std::isfinite(error);
        step = h * controller.after_rejected(error);
        continue;
      }
      ++result_.steps;
      overflowed = false;
      const double next_time = last ? end : time + h;
      observe_step(time, h, next_time);
      time = next_time;
      step = h * controller.after_accepted(error);
      state_.swap(next_);
      stages_.col(0) = stages_.col(last_stage);  // first same as last
    }
    return Status::ok;
  }

  void evaluate(const Vector& state, std::size_t stage) {
    if (interrupt_.stop()) interrupt_.throw_if_stopped();
    ++result_.nfev;
    flow_.velocity(state.data(), stages_.col(static_cast<Index>(stage)).data());
  }

  // out = base + h sum_j weights[j] k_j over the first `count` stages; base may be null.
  void combine(const double* base, double h, const double* weights, std::size_t count, Vector& out) const {
    for (Index begin = 0; begin < size_; begin += chunk) {
      const Index length = std::min(chunk, size_ - begin);
      auto sum = out.segment(begin, length);
      sum.setZero();
      for (std::size_t j = 0; j < count; ++j)
        if (weights[j] != 0) sum += weights[j] * stages_.col(static_cast<Index>(j)).segment(begin, length);
      if (base) {
        sum = ConstVectorView(base + begin, length) + h * sum;
      } else {
        sum *= h;
      }
    }
  }

  // One step of length h from state_, whose derivative is stage 0.
  void advance(double h, Vector& out) {
    for (std::size_t stage = 1; stage < Pair::stages; ++stage) {
      combine(state_.data(), h, Pair::a[stage], stage, scratch_);
      evaluate(scratch_, stage);
    }
    combine(state_.data(), h, Pair::a[Pair::stages], Pair::stages, out);
  }

  // Fills next_ and all stages of a step of length h; returns the error in units of the tolerance.
  double attempt(double h) {
    advance(h, next_);
    evaluate(next_, Pair::stages);
    double difference[std::size(Pair::error)];
    for (std::size_t r = 0; r < std::size(Pair::error); ++r) {
      combine(nullptr, h, Pair::error[r], Pair::stages + 1, scratch_);
      difference[r] = scaled_norm(scratch_, state_, next_);
    }
    return next_.allFinite() ? Pair::estimate(difference) : std::numeric_limits<double>::infinity();
  }

  // Frobenius norm of every block in units of atol + rtol * (root mean square singular value), together. Unlike a norm
  // that scales each entry by itself it is the same in every basis of a hidden layer, as is then the whole integration.
  // A layer that is zero and stays so adds nothing; one whose norm overflows adds infinity.
  double scaled_norm(const Vector& vector, const Vector& before, const Vector& after) const {
    double sum = 0;
    for (const LinearNetworkFlow::Block& block : flow_.blocks()) {
      const double norm = vector.segment(block.offset, block.size()).norm();
      const double size =
          std::max(before.segment(block.offset, block.size()).norm(), after.segment(block.offset, block.size()).norm());
      const double rank = static_cast<double>(std::min(block.rows, block.columns));
      const double ratio = norm / (settings_.atol + settings_.rtol * size / std::sqrt(rank));
      if (norm != 0) sum += size < std::numeric_limits<double>::infinity() ? ratio * ratio : size;
    }
    return std::sqrt(sum);
  }

  // Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, II.4: a step for which an explicit Euler step
  // would be small against the state, and the method's own error about a hundredth of the tolerance.
  double first_step(double end) {
    const auto velocity = stages_.col(0);
    scratch_ = velocity;
    const double size = scaled_norm(state_, state_, state_);
    const double slope = scaled_norm(scratch_, state_, state_);
    double guess = size < 1e-5 || slope < 1e-5 ? 1e-6 : 0.01 * size / slope;
    guess = std::min(guess, end);
    next_ = state_ + guess * velocity;
    evaluate(next_, 1);
    scratch_ = (stages_.col(1) - velocity) / guess;
    const double curvature = scaled_norm(scratch_, state_, state_);
    const double largest = std::max(slope, curvature);
    const double step =
        largest <= 1e-15 ? std::max(1e-6, guess * 1e-3) : std::pow(0.01 / largest, 1.0 / Pair::estimate_order);
    return std::isfinite(step) ? std::min(100 * guess, step) : guess;
  }

  // Every requested time in (time, next_time]: where it is not the end itself, by the continuous extension if that is
  // free. DOP853's is not, and wherever stability limits the step (most of a long flow) it errs by hundreds of
  // tolerances, as only the ends of a step damp the fast directions. A shorter step from the same start is as good as
  // the step itself.
  void observe_step(double time, double h, double next_time) {
    constexpr bool free_extension = Pair::extended == Pair::stages + 1;
    while (result_.reached < observation_.count && observation_.times[result_.reached] <= next_time) {
      const double wanted = observation_.times[result_.reached];
      if (wanted == next_time) {
        observe(next_.data());
        continue;
      }
      if constexpr (free_extension) {
        const auto weights = dense_weights<Pair>((wanted - time) / h);
        combine(state_.data(), h, weights.data(), weights.size(), between_);
      } else if (between_time_ != wanted) {  // duplicates cost nothing
        advance(wanted - time, between_);
        between_time_ = wanted;
      }
      observe(between_.data());
    }
  }

  void observe(const double* state) {
    const std::size_t k = result_.reached++;
    if (observation_.loss) observation_.loss[k] = flow_.loss(state);
    if (observation_.response)
      flow_.response(state, observation_.directions, observation_.features, observation_.response + k,
                     static_cast<Index>(observation_.count));
    if (observation_.weights) std::copy_n(state, flow_.weights_size(), weights_row(k));
  }

  void mark_unreached(std::size_t k) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    if (observation_.loss) observation_.loss[k] = nan;
    if (observation_.response)
      for (Index i = 0; i < observation_.features; ++i)
        observation_.response[static_cast<std::size_t>(i) * observation_.count + k] = nan;
    if (observation_.weights) std::fill_n(weights_row(k), flow_.weights_size(), nan);
  }

  double* weights_row(std::size_t k) const {
    return observation_.weights + k * static_cast<std::size_t>(flow_.weights_size());
  }

  LinearNetworkFlow& flow_;
  const FlowSettings& settings_;
  const FlowObservation& observation_;
  Interrupt& interrupt_;
  const FlowProgress& progress_;

  Index size_;
  Vector state_;
  Vector next_;
  Vector scratch_;
  Vector between_;  // the state at a requested time inside a step
  double between_time_ = 0;
  Eigen::MatrixXd stages_;  // k_j in column j
  FlowResult result_;
};

}  // namespace

FlowResult gradient_flow(LinearNetworkFlow& flow, const double* start, const FlowSettings& settings,
                         const FlowObservation& observation, Interrupt& interrupt, const FlowProgress& progress) {
  const auto run = [&](auto pair) {
    return FlowIntegrator<decltype(pair)>(flow, start, settings, observation, interrupt, progress).run();
  };
  switch (settings.method) {
    case FlowMethod::tsit5:
      return run(Tsit5{});
    case FlowMethod::dop853:
      break;
  }
  return run(Dop853{});
}

}  // namespace jepa_ode
