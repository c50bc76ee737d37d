#include "jepa_ode/flow_step.hpp"

#include <algorithm>
#include <iterator>

#include "jepa_ode/rock4_table.hpp"

namespace jepa_ode {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// How many doubles of every stage are combined at a time: 16 stages of a chunk (64 KiB) leave the sum itself in the
// nearest cache.
constexpr Index chunk = 512;

// How far along the negative real axis a pair is stable: beyond, a step is refused by its own error estimate.
template <class Pair>
struct StabilityLimit;
template <>
struct StabilityLimit<Tsit5> {
  static constexpr double value = 3.5;
};
template <>
struct StabilityLimit<Dop853> {
  static constexpr double value = 6.3;
};

// Weights of the stages in y(t + theta h) - y(t) = h sum_j w_j k_j: the cubic Hermite polynomial of the two ends and
// the terms that tableau.hpp describes.
template <class Pair>
std::array<double, Pair::extended> dense_weights(double theta) {
  const double left = 1 - theta;
  const double rise = theta * theta * (3 - 2 * theta);
  std::array<double, Pair::extended> weights{};
  for (std::size_t j = 0; j < Pair::stages; ++j) weights[j] = rise * Pair::a[Pair::stages][j];
  weights[0] += theta * left * left;
  weights[Pair::stages] -= theta * theta * left;
  double term = theta * theta * left * left;
  for (std::size_t r = 0; r < std::size(Pair::dense); ++r) {
    for (std::size_t j = 0; j < Pair::extended; ++j) weights[j] += term * Pair::dense[r][j];
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
  system_.share(out.size(), [&](Index first, Index size) {
    for (Index begin = first; begin < first + size; begin += chunk) {
      const Index length = std::min(chunk, first + size - begin);
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
  });
}

// The derivatives in the stages from `first` to before `last`; leaves the last one's argument in scratch_.
template <class Pair>
void ExplicitFlowStep<Pair>::evaluate_stages(const Vector& state, double h, std::size_t first, std::size_t last) {
  for (std::size_t stage = first; stage < last; ++stage) {
    combine(state.data(), h, Pair::a[stage], stage, scratch_);
    system_.evaluate(scratch_, stages_.col(static_cast<Index>(stage)));
  }
}

template <class Pair>
double ExplicitFlowStep<Pair>::attempt(const Vector& state, const Vector& velocity, double h, Vector& next,
                                       Vector& next_velocity) {
  extended_ = Pair::extended == Pair::stages + 1;
  stages_.col(0) = velocity;
  evaluate_stages(state, h, 1, Pair::stages);
  combine(state.data(), h, Pair::a[Pair::stages], Pair::stages, next);
  system_.evaluate(next, stages_.col(last_stage));
  next_velocity = stages_.col(last_stage);

  // The last two stages stand at the same time: they differ along the fastest directions, and their quotient is about
  // the fastest rate (Hairer & Wanner, Solving Ordinary Differential Equations II, IV.2).
  static_assert(Pair::c[Pair::stages - 1] == 1.0 && Pair::c[Pair::stages] == 1.0);
  const double apart = (next - scratch_).norm();
  const double pulled = (stages_.col(last_stage) - stages_.col(last_stage - 1)).norm();
  stiffness_ = apart > 0 ? h * pulled / (StabilityLimit<Pair>::value * apart) : 0.0;

  double difference[std::size(Pair::error)];
  for (std::size_t r = 0; r < std::size(Pair::error); ++r) {
    combine(nullptr, h, Pair::error[r], Pair::stages + 1, scratch_);
    difference[r] = system_.norm(scratch_, state, next);
  }
  return next.allFinite() ? Pair::estimate(difference) : infinity;
}

// By the continuous extension. DOP853's errs by hundreds of tolerances where stability limits the step, as only the
// ends of a step damp the fast directions; there a shorter step from the same start is as good as the step itself.
template <class Pair>
void ExplicitFlowStep<Pair>::between(const Vector& state, const Vector& /*velocity*/, double h, double theta,
                                     const Vector& /*next*/, const Vector& /*next_velocity*/, Vector& out) {
  if (stiffness_ > 0.7 && Pair::extended > Pair::stages + 1) {
    evaluate_stages(state, theta * h, 1, Pair::stages);
    combine(state.data(), theta * h, Pair::a[Pair::stages], Pair::stages, out);
    return;
  }
  if (!extended_) evaluate_stages(state, h, Pair::stages + 1, Pair::extended);
  extended_ = true;
  const auto weights = dense_weights<Pair>(theta);
  combine(state.data(), h, weights.data(), weights.size(), out);
}

template class ExplicitFlowStep<Tsit5>;
template class ExplicitFlowStep<Dop853>;

// ---- the stabilised method -----------------------------------------------------------------------------------------

namespace {

// Rounding errors in the fast directions grow in the last four stages by about (stages/40)^8 1e8, and are damped by the
// next step: they must not be seen by the error estimate.
double longest_reach(double rtol) {
  const int stages = rock4_methods[std::size(rock4_methods) - 1].stages;
  const int most = static_cast<int>(stages * std::min(1.0, std::pow(rtol / 1e-6, 1.0 / 8)));
  double reach = rock4_methods[0].reach;
  for (const Rock4Method& method : rock4_methods) {
    if (method.stages <= most) reach = method.reach;
  }
  return reach;
}

}  // namespace

Rock4FlowStep::Rock4FlowStep(FlowSystem& system)
    : FlowStep(system), stages_(system.size(), 4), before_(system.size()), reach_(longest_reach(system.rtol())) {
  starts_.fill(Vector(system.size()));
  since_.fill(infinity);
}

// The fastest rate, by power iteration on differences of velocities, with the direction found before to start from: one
// evaluation or two follow the slow change of the Jacobian.
void Rock4FlowStep::estimate_radius(const Vector& state, const Vector& velocity) {
  constexpr double safety = 1.06;  // the quotient comes from below; where rates have grown since, the step is refused
  constexpr double tolerance = 0.02;
  constexpr int most_iterations = 50;
  const double size = state.norm();
  const double length = std::sqrt(std::numeric_limits<double>::epsilon()) * (size > 0 ? size : 1.0);
  if (direction_.size() == 0) direction_ = velocity;
  double radius = 0.0;
  for (int k = 0; k < most_iterations; ++k) {
    const double norm = direction_.norm();
    if (!(norm > 0) || !std::isfinite(norm)) break;  // at rest
    scratch_ = state + (length / norm) * direction_;
    system_.evaluate(scratch_, before_);
    direction_ = before_ - velocity;
    const double last = radius;
    radius = direction_.norm() / length;
    if (std::abs(radius - last) <= tolerance * radius) break;
  }
  radius_ = safety * radius;
}

double Rock4FlowStep::longest(const Vector& state, const Vector& velocity) {
  constexpr int most_attempts = 25;  // that an estimate serves
  if (direction_.size() == 0 || refused_ || age_ >= most_attempts) {
    estimate_radius(state, velocity);
    age_ = 0;
  }
  ++age_;
  return radius_ > 0 ? reach_ / radius_ : infinity;
}

double Rock4FlowStep::attempt(const Vector& state, const Vector& velocity, double h, Vector& next,
                              Vector& next_velocity) {
  const double wanted = h * radius_;
  const Rock4Method& method = *std::find_if(std::begin(rock4_methods), std::prev(std::end(rock4_methods)),
                                            [&](const Rock4Method& m) { return m.reach >= wanted; });
  stiff_ = wanted > 0.3 * rock4_methods[0].reach;  // below, a pair goes as far with fewer evaluations

  const double* coefficient = rock4_recurrences + method.recurrence;
  system_.assign(before_, state);
  system_.assign(next, state + (coefficient[0] * h) * velocity);
  for (int j = 5; j < method.stages; ++j) {
    coefficient += 2;
    const double mu = coefficient[0] * h, nu = coefficient[1];
    system_.evaluate(next, next_velocity);
    system_.assign(before_, mu * next_velocity + nu * next + (1 - nu) * before_);
    before_.swap(next);
  }

  const auto k = [this](Index stage) { return stages_.col(stage); };
  const double (&a)[6] = method.a;
  const double (&b)[4] = method.b;
  system_.evaluate(next, k(0));
  system_.assign(scratch_, next + (h * a[0]) * k(0));
  system_.evaluate(scratch_, k(1));
  system_.assign(scratch_, next + (h * a[1]) * k(0) + (h * a[2]) * k(1));
  system_.evaluate(scratch_, k(2));
  system_.assign(scratch_, next + (h * a[3]) * k(0) + (h * a[4]) * k(1) + (h * a[5]) * k(2));
  system_.evaluate(scratch_, k(3));
  system_.assign(next, next + ((h * b[0]) * k(0) + (h * b[1]) * k(1) + (h * b[2]) * k(2) + (h * b[3]) * k(3)));
  system_.evaluate(next, next_velocity);

  const double (&e)[5] = method.error;
  system_.assign(scratch_, (h * e[0]) * k(0) + (h * e[1]) * k(1) + (h * e[2]) * k(2) + (h * e[3]) * k(3) +
                               (h * e[4]) * next_velocity);
  const double estimate = next.allFinite() ? system_.norm(scratch_, state, next) : infinity;
  // The estimate is that of a method of order 3, h^4; the error itself behaves like h^5, like a power 5/4 of it. Among
  // learned features, whose directions forget errors, the factor is such that flows at rtol = 1e-6 err as much as those
  // of tsit5 (bench/bench_flow.py); on a plateau, which amplifies errors, steps are shorter by half. Of short steps
  // there are many, the more the tighter the tolerance, and their errors add up, in what the flow conserves above all:
  // for the sum to follow the tolerance h^4 has to, that is the estimate itself.
  const double scale = 0.01 + 0.15 / wanted;
  const double error = stiff_ ? scale * std::pow(system_.rtol(), 0.25) * std::pow(estimate, 1.25) : 0.04 * estimate;
  refused_ = !(error <= 1);
  return error;
}

void Rock4FlowStep::taken(const Vector& state, const Vector& velocity, double h) {
  std::rotate(starts_.begin(), starts_.end() - 1, starts_.end());
  starts_[0] = state;
  for (double& time : since_) time += h;
  std::rotate(since_.begin(), since_.end() - 1, since_.end());
  since_[0] = h;
  last_velocity_ = velocity;
}

// By a polynomial that costs nothing, of one kind or another.
//
// Short steps: the quintic Hermite polynomial of this step and the last one, that is the cubic one of this step, whose
// error behaves like the estimate's h^4 and may exceed the step's own by far, and theta^2 (1 - theta)^2 (A + B theta).
//
// Long steps: the polynomial through this step's ends and the starts of the last three, of the step's own order.
// Velocities are no use there: what little a step leaves behind in the fast directions, h times the rate makes so many
// times as large, and responses at requested times would err five times (JEPA) to hundreds of times (MAE) as much as at
// the ends of steps.
void Rock4FlowStep::between(const Vector& state, const Vector& velocity, double h, double theta, const Vector& next,
                            const Vector& next_velocity, Vector& out) {
  if (h * radius_ > rock4_methods[1].reach && since_.back() < infinity) {
    constexpr std::size_t nodes = memory + 2;
    double x[nodes] = {1, 0};
    std::transform(since_.begin(), since_.end(), x + 2, [h](double time) { return -time / h; });
    double weight[nodes];
    for (std::size_t i = 0; i < nodes; ++i) {
      weight[i] = 1;
      for (std::size_t j = 0; j < nodes; ++j)
        if (j != i) weight[i] *= (theta - x[j]) / (x[i] - x[j]);
    }
    out = weight[0] * next + weight[1] * state;
    for (std::size_t i = 0; i < memory; ++i) out += weight[i + 2] * starts_[i];
    return;
  }

  const auto bump = [](double x) { return x * x * (1 - x) * (1 - x); };
  const auto cubic = [&](double x) {
    return state + (x * x * (3 - 2 * x)) * (next - state) +
           (h * x * (1 - x)) * ((1 - x) * velocity - x * next_velocity);
  };
  out = cubic(theta);
  if (since_[0] == infinity) return;
  // A - B r and B from value and slope at -r, where the last step began.
  const double r = since_[0] / h, there = bump(-r), slope = -2 * r * (1 + r) * (1 + 2 * r);
  const double of_value = bump(theta) * (1 / there - (theta + r) * slope / (there * there));
  const double of_slope = bump(theta) * (theta + r) / there;
  out +=
      of_value * (starts_[0] - cubic(-r)) +
      of_slope * (h * last_velocity_ - ((6 * r * (1 + r)) * (state - next) + (h * (1 + 4 * r + 3 * r * r)) * velocity +
                                        (h * (3 * r * r + 2 * r)) * next_velocity));
}

}  // namespace jepa_ode
