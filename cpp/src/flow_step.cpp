#include "jepa_ode/flow_step.hpp"

#include <algorithm>
#include <iterator>

namespace jepa_ode {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// How many doubles of every stage are combined at a time: 16 stages of a chunk (64 KiB) leave the sum itself in the
// nearest cache.
constexpr Index chunk = 512;

// How far along the negative real axis a pair is stable: beyond, a step is refused by its own error estimate.
template <class Pair>
constexpr double stability_limit = 0.0;
template <>
constexpr double stability_limit<Tsit5> = 3.5;
template <>
constexpr double stability_limit<Dop853> = 6.3;

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

}  // namespace

double FlowSystem::norm(const Vector& vector, const Vector& before, const Vector& after) const {
  double sum = 0;
  for (const LinearNetworkFlow::Block& block : flow_.blocks()) {
    const double norm = vector.segment(block.offset, block.size()).norm();
    const double size =
        std::max(before.segment(block.offset, block.size()).norm(), after.segment(block.offset, block.size()).norm());
    const double rank = static_cast<double>(std::min(block.rows, block.columns));
    const double ratio = norm / (atol_ + rtol_ * size / std::sqrt(rank));
    if (norm != 0) sum += size < infinity ? ratio * ratio : size;
  }
  return std::sqrt(sum);
}

// ---- explicit pairs ------------------------------------------------------------------------------------------------

// out = base + h sum_j weights[j] k_j over the first `count` stages; base may be null.
template <class Pair>
void ExplicitFlowStep<Pair>::combine(const double* base, double h, const double* weights, std::size_t count,
                                     Vector& out) const {
  for (Index begin = 0; begin < out.size(); begin += chunk) {
    const Index length = std::min(chunk, out.size() - begin);
    auto sum = out.segment(begin, length);
    sum.setZero();
    for (std::size_t j = 0; j < count; ++j) {
      if (weights[j] != 0) sum += weights[j] * stages_.col(static_cast<Index>(j)).segment(begin, length);
    }
    if (base) {
      sum = Eigen::Map<const Vector>(base + begin, length) + h * sum;
    } else {
      sum *= h;
    }
  }
}

// One step of length h from `state`, whose derivative is stage 0; leaves the last stage's argument in scratch_.
template <class Pair>
void ExplicitFlowStep<Pair>::advance(const Vector& state, double h, Vector& out) {
  for (std::size_t stage = 1; stage < Pair::stages; ++stage) {
    combine(state.data(), h, Pair::a[stage], stage, scratch_);
    system_.evaluate(scratch_, stages_.col(static_cast<Index>(stage)));
  }
  combine(state.data(), h, Pair::a[Pair::stages], Pair::stages, out);
}

template <class Pair>
double ExplicitFlowStep<Pair>::attempt(const Vector& state, const Vector& velocity, double h, Vector& next,
                                       Vector& next_velocity) {
  stages_.col(0) = velocity;
  advance(state, h, next);
  system_.evaluate(next, stages_.col(last_stage));
  next_velocity = stages_.col(last_stage);

  // The last two stages stand at the same time: they differ along the fastest directions, and their quotient is about
  // the fastest rate (Hairer & Wanner, Solving Ordinary Differential Equations II, IV.2).
  static_assert(Pair::c[Pair::stages - 1] == 1.0 && Pair::c[Pair::stages] == 1.0);
  const double apart = (next - scratch_).norm();
  const double pulled = (stages_.col(last_stage) - stages_.col(last_stage - 1)).norm();
  stiff_ = h * pulled > 0.9 * stability_limit<Pair> * apart;

  double difference[std::size(Pair::error)];
  for (std::size_t r = 0; r < std::size(Pair::error); ++r) {
    combine(nullptr, h, Pair::error[r], Pair::stages + 1, scratch_);
    difference[r] = system_.norm(scratch_, state, next);
  }
  return next.allFinite() ? Pair::estimate(difference) : infinity;
}

// By the continuous extension if that is free. DOP853's is not, and wherever stability limits the step (most of a long
// flow) it errs by hundreds of tolerances, as only the ends of a step damp the fast directions. A shorter step from the
// same start is as good as the step itself.
template <class Pair>
void ExplicitFlowStep<Pair>::between(const Vector& state, const Vector& /*velocity*/, double h, double theta,
                                     const Vector& /*next*/, const Vector& /*next_velocity*/, Vector& out) {
  if constexpr (Pair::extended == Pair::stages + 1) {
    const auto weights = dense_weights<Pair>(theta);
    combine(state.data(), h, weights.data(), weights.size(), out);
  } else {
    advance(state, theta * h, out);
  }
}

template class ExplicitFlowStep<Tsit5>;
template class ExplicitFlowStep<Dop853>;

// ---- Runge-Kutta-Chebyshev -----------------------------------------------------------------------------------------

// The fastest rate, by power iteration on differences of velocities, with the last step's direction to start from: once
// that has been found, one evaluation follows the slow change of the Jacobian.
double ChebyshevFlowStep::spectral_radius(const Vector& state, const Vector& velocity) {
  constexpr double safety = 1.1;  // the quotient comes from below
  constexpr int most_iterations = 50;
  const double size = state.norm();
  const double length = std::sqrt(std::numeric_limits<double>::epsilon()) * (size > 0 ? size : 1.0);
  const bool known = direction_.size() > 0;
  if (!known) direction_ = velocity;
  double radius = known ? radius_ : 0.0;
  for (int k = 0; k < most_iterations; ++k) {
    const double norm = direction_.norm();
    if (!(norm > 0) || !std::isfinite(norm)) return 0.0;  // at rest
    scratch_ = state + (length / norm) * direction_;
    system_.evaluate(scratch_, stage_velocity_);
    direction_ = stage_velocity_ - velocity;
    const double before = radius;
    radius = direction_.norm() / length;
    if (std::abs(radius - before) <= (error_ > 1 ? 0.01 : 0.05) * radius) break;
  }
  radius_ = radius;
  return safety * radius;
}

double ChebyshevFlowStep::attempt(const Vector& state, const Vector& velocity, double h, Vector& next,
                                  Vector& next_velocity) {
  const double radius = spectral_radius(state, velocity);
  // (2/3) (s^2 - 1) (1 - (2/15) damping) >= h radius
  constexpr double damping = 2.0 / 13;
  const double wanted = std::sqrt(1 + 1.54 * h * radius);
  stages_ = std::clamp(static_cast<int>(std::ceil(wanted)), 2, most_stages);
  if (!(wanted <= most_stages)) return error_ = infinity;

  // T_j(w0) and its two derivatives, and y_j = (1 - a_j) y + b_j T_j(w0 + w1 h J) y on a linear problem.
  const auto s = static_cast<double>(stages_);
  const double w0 = 1 + damping / (s * s);
  struct Chebyshev {
    double t, first, second;
  };
  const auto following = [w0](const Chebyshev& one, const Chebyshev& two) {
    return Chebyshev{2 * w0 * two.t - one.t, 2 * w0 * two.first - one.first + 2 * two.t,
                     2 * w0 * two.second - one.second + 4 * two.first};
  };
  Chebyshev one{1, 0, 0}, two{w0, 1, 0};
  for (int j = 2; j <= stages_; ++j) {
    const Chebyshev three = following(one, two);
    one = two;
    two = three;
  }
  const double w1 = two.first / two.second;

  double b_one = 1 / (4 * w0 * w0), b_two = b_one;
  one = {1, 0, 0};
  two = {w0, 1, 0};
  before_ = state;
  last_ = state + (b_two * w1 * h) * velocity;
  for (int j = 2; j <= stages_; ++j) {
    const Chebyshev three = following(one, two);
    const double b = three.second / (three.first * three.first);
    const double mu = 2 * w0 * b / b_two, nu = -b / b_one, step = 2 * w1 * b / b_two * h;
    const double a = 1 - b_two * two.t;
    system_.evaluate(last_, stage_velocity_);
    next = mu * last_ + nu * before_ + (1 - mu - nu) * state + step * (stage_velocity_ - a * velocity);
    before_.swap(last_);
    last_ = next;
    one = two;
    two = three;
    b_one = b_two;
    b_two = b;
  }
  system_.evaluate(next, next_velocity);
  scratch_ = 0.8 * (state - next) + (0.4 * h) * (velocity + next_velocity);
  return error_ = next.allFinite() ? system_.norm(scratch_, state, next) : infinity;
}

// The cubic Hermite polynomial, as accurate as the method.
void ChebyshevFlowStep::between(const Vector& state, const Vector& velocity, double h, double theta, const Vector& next,
                                const Vector& next_velocity, Vector& out) {
  const double left = 1 - theta;
  out = state + (theta * theta * (3 - 2 * theta)) * (next - state) +
        (h * theta * left) * (left * velocity - theta * next_velocity);
}

}  // namespace jepa_ode
