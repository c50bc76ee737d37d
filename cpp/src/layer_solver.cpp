// Strategy. Features travel in SIMD lanes, each with its own step, clock and controller; a lane whose feature is done
// takes the next one. Every operation acts on each lane alone, so a feature's result is its own.
//
// What is controlled. Tolerances are of w = |a|^L, and dw/w = L da/a, so a step may err by (1/L) (rtol + atol/w) times
// the size of each layer. The size of v is at least that of a, and one that is driven through zero (L < 2) keeps a part
// of the size of what drives it: a layer that passes zero needs no relative accuracy there.
//
// Explicit steps. The embedded estimate of an error may vanish by chance, and for a balanced start, where the layers
// follow one scalar equation, it changes sign along every trajectory. What cannot vanish, with sizes d of the layers,
// is
//
//     speed  sigma = max_i |y'_i|/d_i
//     pace   nu    = max_i (sum_j |J_ij| |y'_j|)/d_i / sigma + 2 L sigma       (J y' = y'')
//     rate   omega = max_i (sum_j |J_ij| d_j)/d_i + 2 L sigma
//
// The k-th derivative of y is of the size |y'| nu^(k-1), so that a method whose estimate is of order h^k errs by about
// ScalingConstant (h nu)^k |y'|/nu. The larger of estimate and law must meet the tolerance, and the first step is the
// one for which the law does. omega bounds every eigenvalue of J, so that steps of at most longest_step/omega are
// stable.
//
// Stiffness. Explicit steps cost about omega per unit of time, those of an L-stable Rosenbrock method of order 5 about
// L sigma/tolerance^(1/5). Where the second has been much less for `patience` steps in
// succession (a moving average that follows closely, a slow drift along fixed points, a feature that has converged),
// the Rosenbrock method takes over for good. Its steps grow without bound as the solution flattens: a converged feature
// passes any horizon within 5^k steps of k. One thing must not happen: an L-stable method damps what grows as readily
// as what decays, so that a step much longer than 1/mu would hold a solution on a fixed point with an unstable
// direction of rate mu. Steps for which J - 1/h is not stable (Routh-Hurwitz) are halved until it is.
#include "jepa_ode/layer_solver.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "jepa_ode/double_double.hpp"
#include "jepa_ode/layer_step.hpp"

namespace jepa_ode {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

template <class Method>
struct ScalingConstant;
template <>
struct ScalingConstant<Tsit5> {
  static constexpr double value = 1e-4;
};
template <>
struct ScalingConstant<Dop853> {
  static constexpr double value = 1e-6;
};

constexpr double longest_step = 2.0;          // in units of 1/omega
constexpr double largest_tolerance = 0.1;     // relative to w: beyond, no estimate means anything
constexpr double driven_part = 1e-3;          // of the size of what drives a layer through zero, at depth 1
constexpr double smallest_response = 1e-200;  // below, errors are controlled in absolute terms,
constexpr double risen_response = 1e-180;     // and who has been there must not come back to here
constexpr double smallest_change = 0x1p-70;   // h omega of a step that no tolerance asks for
constexpr double largest_time = 1e300;
constexpr double patience = 8;
constexpr std::size_t largest_chunk = 512;

// Logarithm and power of two to about a per cent: what a step-size factor needs.
Pack rough_log2(Pack x) noexcept {
  const Pack exponent = __builtin_convertvector((bits_of(x) >> 52) - 1023, Pack);
  const Pack fraction = from_bits((bits_of(x) & 0x000fffffffffffff) | 0x3ff0000000000000) - 1.0;
  return exponent + fraction * (1.345 - 0.345 * fraction);
}

Pack rough_exp2(Pack x) noexcept {
  const Pack bounded = min(max(x, pack(-1000.0)), pack(1000.0)) + 1023.0;
  const IntPack whole = __builtin_convertvector(bounded, IntPack);  // truncated: the floor of a positive number
  const Pack fraction = bounded - __builtin_convertvector(whole, Pack);
  return from_bits(whole << 52) * (1.0 + fraction * (0.66 + 0.34 * fraction));
}

// Proportional-integral control as in controller.hpp, a controller per lane.
class LaneController {
 public:
  explicit LaneController(int order) noexcept
      : proportional_(0.7 / order), integral_(0.4 / order), plain_(1.0 / order) {}

  void start(Mask lane) noexcept {
    last_ = select(lane, Pack{}, last_);
    rejected_ &= ~lane;
  }

  // What to multiply the steps by.
  Pack factor(Mask accepted, Pack error) noexcept {
    const Pack log_error = rough_log2(min(max(error, pack(1e-10)), pack(1e300)));
    const Pack wish = 0.9 * rough_exp2(integral_ * last_ - proportional_ * log_error);
    const Pack largest = select(rejected_, pack(1.0), pack(5.0));
    const Pack grown = min(max(wish, pack(0.2)), largest);
    const Pack shrunk = min(max(0.9 * rough_exp2(-plain_ * log_error), pack(0.2)), pack(0.9));
    last_ = select(accepted, log_error, last_);
    rejected_ = ~accepted;
    return select(accepted, grown, select(error <= 1e300, shrunk, pack(0.2)));
  }

 private:
  double proportional_, integral_, plain_;
  Pack last_{};
  Mask rejected_{};
};

// A feature between two pools of lanes.
struct Journey {
  std::size_t feature;
  double y[3];
  double rest[3];  // of y, beyond its last bit
  DoubleDouble clock;
  double h;  // 0: not started
  std::size_t next;
  std::int64_t steps, evaluations;
};

struct Task {
  const LayerProblem& problem;
  const double* times;
  std::size_t n_times;
  bool row_per_feature;
  const RungeKuttaOptions& options;
  const LayerOutput& output;

  const double* times_of(std::size_t feature) const noexcept {
    return times + (row_per_feature ? feature * n_times : 0);
  }
};

template <class Step, class System>
class LanePool {
 public:
  static constexpr std::size_t n = System::size;
  using State = LayerState<n>;

  LanePool(const Task& task, const System& system, double scaling, Interrupt& interrupt)
      : task_(task),
        system_(system),
        scaling_(scaling),
        smallest_layer_(std::pow(smallest_response, 1 / system.depth)),
        risen_layer_(std::pow(risen_response, 1 / system.depth)),
        driven_part_(passage(system.depth, task.options.rtol)),
        stiffness_(4 * system.depth * std::pow(std::max(0.01 / task.options.rtol, 100.0), 0.2)),
        controller_(Step::order),
        interrupt_(interrupt) {}

  // Takes every journey to its end, or until it turns stiff, where `stiff` is given.
  void run(std::vector<Journey>& journeys, std::vector<Journey>* stiff) {
    waiting_ = &journeys;
    stiff_ = stiff;
    if (stiff) stiff->reserve(journeys.size());  // an attempt must not throw
    for (std::size_t lane = 0; lane < lanes; ++lane) refill(lane);
    for (unsigned round = 0; any(active_); ++round) {
      if (round % 256 == 255 && interrupt_.stop()) return;
      attempt();
    }
  }

 private:
  void attempt() noexcept {
    const LayerJacobian jacobian = system_.jacobian(y_);
    const State size = sizes(y_);
    const Pack tolerance = relative_tolerance();
    Pack omega{}, speed{}, pace{};
    if constexpr (Step::is_explicit) {
      speed = largest_part(step_.slope(), size);
      omega = natural_rate(jacobian, size, size) + 2 * system_.depth * speed;
      pace = natural_rate(jacobian, step_.slope(), size) / max(speed, pack(1 / largest_time)) +
             max(2 * system_.depth * speed, pack(1 / largest_time));
      h_ = select(fresh_, first_step(pace, speed, tolerance), h_);
      h_ = min(h_, longest_step / omega);
    } else {
      omega = natural_rate(jacobian, size, size);
      for (int halving = 0; halving < 8; ++halving) h_ = select(contained(jacobian), h_, 0.5 * h_);
    }
    fresh_ = Mask{};

    const State increment = step_.take(system_, jacobian, y_, h_);
    evaluations_ += static_cast<std::int64_t>(Step::evaluations);
    steps_ += 1;
    State after;
    for (std::size_t i = 0; i < n; ++i) after[i] = y_[i] + increment[i];
    Pack error = step_.error(h_, weights(size, sizes(after), tolerance));
    if constexpr (Step::is_explicit) {
      const Pack law = power<Step::order>(h_ * pace) * (scaling_ * speed / (pace * tolerance));
      error = select(law > error, law, error);
    }
    for (std::size_t i = 0; i < n; ++i) error = select(abs(after[i]) <= largest_double, error, pack(infinity));
    const Mask accepted = active_ & (error <= 1.0);

    write_dense(accepted);
    const Pack taken = h_;
    h_ = min(h_ * controller_.factor(accepted, error), pack(largest_time));
    advance(accepted, increment, taken);
    const Mask finished = active_ & (due_ == infinity);
    // Either no step is short enough, or a response is back from where it was not resolved.
    const Mask risen = sunk_ & (abs(y_[0]) > risen_layer_);
    const Mask lost = active_ & (risen | (~accepted & ~(h_ * omega > smallest_change)));
    const Mask tired = active_ & (steps_ >= task_.options.max_steps);
    if constexpr (Step::is_explicit) {
      limited_ = select(accepted & (omega > stiffness_ * speed), limited_ + 1.0, Pack{});
    }
    const Mask turned = active_ & (limited_ >= patience);
    if (!any(finished | lost | tired | turned)) return;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      if (finished[lane] != 0) {
        finish(lane, Status::ok);
      } else if (lost[lane] != 0) {
        finish(lane, std::isfinite(error[lane]) ? Status::step_too_small : Status::not_finite);
      } else if (tired[lane] != 0) {
        finish(lane, Status::max_steps);
      } else if (turned[lane] != 0) {
        hand_over(lane);
      } else {
        continue;
      }
      refill(lane);
    }
  }

  // --- sizes and rates -------------------------------------------------------------------------------

  State sizes(const State& y) const noexcept {
    State size;
    size[0] = max(abs(y[0]), pack(smallest_layer_));
    if constexpr (System::driven) {
      if (system_.depth < 2) size[0] = max(size[0], driven_part_ * abs(y[n - 1]));
    }
    size[1] = max(abs(y[1]), size[0]);
    if constexpr (n == 3) size[2] = max(abs(y[2]), driven_part * size[0]);
    return size;
  }

  Pack relative_tolerance() const noexcept {
    const RungeKuttaOptions& options = task_.options;
    Pack wish = pack(options.rtol);
    if (options.atol > 0) wish += options.atol / max(system_.response(y_[0]), pack(smallest_response));
    return min(wish, pack(largest_tolerance)) / system_.depth;
  }

  // The part of the driving size that a layer on its way through zero keeps. a' ~ a^(L-1) makes an error d there delay
  // the passage by about d^(2-L), which is to be rtol: d = part * rtol.
  static double passage(double depth, double rtol) noexcept {
    return depth < 2 ? std::max(driven_part * std::pow(rtol, (depth - 1) / (2 - depth)), smallest_response) : 0.0;
  }

  static State weights(const State& before, const State& after, Pack tolerance) noexcept {
    State weight;
    for (std::size_t i = 0; i < n; ++i) weight[i] = 1.0 / (max(before[i], after[i]) * tolerance);
    return weight;
  }

  static Pack largest_part(const State& of, const State& size) noexcept {
    Pack largest = abs(of[0]) / size[0];
    for (std::size_t i = 1; i < n; ++i) largest = max(largest, abs(of[i]) / size[i]);
    return largest;
  }

  // |J| |y| in units of the sizes.
  Pack natural_rate(const LayerJacobian& j, const State& y, const State& size) const noexcept {
    State product;
    product[0] = abs(j.aa * y[0]) + abs(j.av * y[1]);
    product[1] = abs(j.va * y[0]) + abs(j.vv * y[1]);
    if constexpr (n == 3) {
      product[0] += abs(j.ab * y[2]);
      product[1] += abs(j.vb * y[2]);
      product[2] = system_.rate * (abs(y[0]) + abs(y[2]));
    }
    return max(largest_part(product, size), pack(1 / largest_time));
  }

  Pack first_step(Pack pace, Pack speed, Pack tolerance) const noexcept {
    Pack h{};
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      const double room = tolerance[lane] * pace[lane] / (scaling_ * speed[lane]);
      h[lane] = std::min(std::pow(room, 1.0 / Step::order) / pace[lane], largest_time);
    }
    return h;
  }

  // Whether every eigenvalue of J lies left of 1/h: Routh-Hurwitz for M = h J - 1.
  Mask contained(const LayerJacobian& j) const noexcept {
    const Pack aa = h_ * j.aa - 1.0, av = h_ * j.av, va = h_ * j.va, vv = h_ * j.vv - 1.0;
    const Pack trace = aa + vv, minor = aa * vv - av * va;
    if constexpr (n == 2) {
      return (trace < 0) & (minor > 0);
    } else {
      const Pack rate = h_ * system_.rate, ab = h_ * j.ab, vb = h_ * j.vb;
      const Pack bb = -rate - 1.0;
      const Pack minors = minor + bb * trace - ab * rate;
      const Pack determinant = bb * minor + rate * (av * vb - ab * vv);
      const Pack sum = trace + bb;
      return (sum < 0) & (determinant < 0) & (sum * minors < determinant);
    }
  }

  template <int exponent>
  static Pack power(Pack x) noexcept {
    if constexpr (exponent == 1) {
      return x;
    } else {
      const Pack half = power<exponent / 2>(x);
      return exponent % 2 == 0 ? half * half : half * half * x;
    }
  }

  // --- output ----------------------------------------------------------------------------------------

  Pack ahead() const noexcept { return (due_ - clock_) - clock_rest_; }

  // Writes the values at the times that the step just taken has reached.
  void write_dense(Mask accepted) noexcept {
    Mask pending = accepted & (ahead() <= h_);
    if (!any(pending)) return;
    step_.prepare_dense(system_, y_, h_);
    evaluations_ -= pending & -static_cast<std::int64_t>(Step::dense_evaluations);
    for (; any(pending); pending = accepted & (ahead() <= h_)) {
      const State increment = step_.at(max(ahead(), Pack{}) / h_);
      State point;
      for (std::size_t i = 0; i < n; ++i) point[i] = y_[i] + (rest_[i] + increment[i]);
      const Pack w = system_.response(point[0]);
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        if (pending[lane] == 0) continue;
        const std::size_t at = journeys_[lane].feature * task_.n_times + journeys_[lane].next;
        task_.output.response[at] = w[lane];
        task_.output.predictor[at] = point[1][lane];
        if constexpr (n == 3) task_.output.target[at] = point[2][lane];
        ++journeys_[lane].next;
        set_due(lane);
      }
    }
  }

  void set_due(std::size_t lane) noexcept {
    const Journey& journey = journeys_[lane];
    due_[lane] = journey.next < task_.n_times ? task_.times_of(journey.feature)[journey.next] : infinity;
  }

  void advance(Mask accepted, const State& increment, Pack taken) noexcept {
    for (std::size_t i = 0; i < n; ++i) add(accepted, increment[i], y_[i], rest_[i]);
    add(accepted, taken, clock_, clock_rest_);
    step_.advance(accepted);
    sunk_ |= accepted & (abs(y_[0]) < smallest_layer_);
  }

  // sum + rest += term, in two doubles.
  static void add(Mask lane, Pack term, Pack& sum, Pack& rest) noexcept {
    const Pack total = sum + term;
    const Pack other = total - sum;
    const Pack lost = ((sum - (total - other)) + (term - other)) + rest;
    const Pack rounded = total + lost;
    rest = select(lane, lost - (rounded - total), rest);
    sum = select(lane, rounded, sum);
  }

  // --- lanes -----------------------------------------------------------------------------------------

  void refill(std::size_t lane) noexcept {
    active_[lane] = 0;
    if (waiting_->empty()) return;
    journeys_[lane] = waiting_->back();
    waiting_->pop_back();
    const Journey& journey = journeys_[lane];
    const LayerProblem& problem = task_.problem;
    system_.lambda[lane] = problem.features.lambda[journey.feature];
    system_.sigma2[lane] = problem.features.sigma2[journey.feature];
    system_.sigma2_y[lane] = problem.sigma2_y != nullptr ? problem.sigma2_y[journey.feature] : 0.0;
    for (std::size_t i = 0; i < n; ++i) {
      y_[i][lane] = journey.y[i];
      rest_[i][lane] = journey.rest[i];
    }
    clock_[lane] = journey.clock.hi;
    clock_rest_[lane] = journey.clock.lo;
    h_[lane] = journey.h;
    steps_[lane] = journey.steps;
    evaluations_[lane] = journey.evaluations;
    limited_[lane] = 0.0;
    sunk_[lane] = 0;
    set_due(lane);
    const Mask here = lane_numbers() == int_pack(static_cast<std::int64_t>(lane));
    active_ |= here;
    fresh_ |= here & (h_ == 0);
    controller_.start(here);
    if constexpr (Step::is_explicit) {
      step_.start(here, system_(y_));
      evaluations_[lane] += 1;
    }
  }

  void hand_over(std::size_t lane) {
    Journey& journey = journeys_[lane];
    for (std::size_t i = 0; i < n; ++i) {
      journey.y[i] = y_[i][lane];
      journey.rest[i] = rest_[i][lane];
    }
    journey.clock = {clock_[lane], clock_rest_[lane]};
    journey.h = h_[lane];
    journey.steps = steps_[lane];
    journey.evaluations = evaluations_[lane];
    stiff_->push_back(journey);
  }

  // What was not reached is NaN, and so is everything from the first value beyond the range of a double on.
  void finish(std::size_t lane, Status status) noexcept {
    const Journey& journey = journeys_[lane];
    const LayerOutput& output = task_.output;
    const std::size_t row = journey.feature * task_.n_times;
    std::size_t reached = 0;
    const auto finite = [&](std::size_t at) {
      return std::isfinite(output.response[at]) && std::isfinite(output.predictor[at]);
    };
    while (reached < journey.next && finite(row + reached)) ++reached;
    if (reached < journey.next) status = Status::not_finite;
    for (std::size_t at = row + reached; at < row + task_.n_times; ++at) {
      output.response[at] = output.predictor[at] = nan;
      if constexpr (n == 3) output.target[at] = nan;
    }
    output.status[journey.feature] = status;
    output.evaluations[journey.feature] = evaluations_[lane];
  }

  static constexpr double largest_double = std::numeric_limits<double>::max();

  const Task& task_;
  System system_;
  Step step_;
  double scaling_;
  double smallest_layer_, risen_layer_;
  double driven_part_;
  double stiffness_;  // omega/speed from which explicit steps are a waste
  LaneController controller_;
  Interrupt& interrupt_;
  std::vector<Journey>* waiting_ = nullptr;
  std::vector<Journey>* stiff_ = nullptr;

  Journey journeys_[lanes] = {};
  State y_{}, rest_{};
  Pack clock_{}, clock_rest_{};
  Pack due_{};  // the next time asked for; inf when there is none
  Pack h_{};
  Pack limited_{};  // such steps in succession
  Mask active_{}, fresh_{}, sunk_{};
  IntPack steps_{}, evaluations_{};
};

// The journeys of features [begin, end) that have any way to go: values at time 0 are the start itself.
std::vector<Journey> departures(const Task& task, std::size_t begin, std::size_t end) {
  const LayerProblem& problem = task.problem;
  std::vector<Journey> journeys;
  journeys.reserve(end - begin);
  for (std::size_t feature = end; feature-- > begin;) {
    const double a = std::pow(problem.features.eps[feature], 1 / problem.depth);
    const double v = problem.predictor != nullptr ? problem.predictor[feature] : a;
    Journey journey{feature, {a, v, a}, {}, {0.0, 0.0}, 0.0, 0, 0, 0};
    const double* times = task.times_of(feature);
    for (; journey.next < task.n_times && times[journey.next] == 0; ++journey.next) {
      const std::size_t at = feature * task.n_times + journey.next;
      task.output.response[at] = problem.features.eps[feature];
      task.output.predictor[at] = v;
      if (task.output.target != nullptr) task.output.target[at] = a;
    }
    task.output.status[feature] = Status::ok;
    task.output.evaluations[feature] = 0;
    if (journey.next < task.n_times) journeys.push_back(journey);
  }
  return journeys;
}

template <class Method, class System>
void solve(const Task& task, const System& system, unsigned threads, Interrupt& interrupt) {
  const std::size_t count = task.problem.features.size;
  const std::size_t chunk = std::clamp<std::size_t>(count / (4 * threads), 4 * lanes, largest_chunk);
  parallel_for(count, chunk, threads, interrupt, [&](std::size_t begin, std::size_t end) {
    std::vector<Journey> journeys = departures(task, begin, end);
    std::vector<Journey> stiff;
    LanePool<ExplicitLayerStep<Method, System::size>, System>(task, system, ScalingConstant<Method>::value, interrupt)
        .run(journeys, &stiff);
    LanePool<RosenbrockLayerStep<System::size>, System>(task, system, 0.0, interrupt).run(stiff, nullptr);
  });
}

template <class Method, LayerTarget target, class Power>
void solve(const Task& task, const Power& power, unsigned threads, Interrupt& interrupt) {
  LayerSystem<target, Power> system{power};
  system.depth = task.problem.depth;
  system.decay = task.problem.decay;
  system.rate = 1 / task.problem.tau;
  solve<Method>(task, system, threads, interrupt);
}

template <class Method, LayerTarget target>
void solve(const Task& task, unsigned threads, Interrupt& interrupt) {
  constexpr double largest_whole = 1024;
  const double depth = task.problem.depth;
  if (depth == std::floor(depth) && depth <= largest_whole) {
    solve<Method, target>(task, WholeLanePower(static_cast<unsigned>(depth) - 1), threads, interrupt);
  } else {
    solve<Method, target>(task, RealLanePower(depth - 1), threads, interrupt);
  }
}

template <class Method>
void solve(const Task& task, unsigned threads, Interrupt& interrupt) {
  switch (task.problem.target) {
    case LayerTarget::own:
      return solve<Method, LayerTarget::own>(task, threads, interrupt);
    case LayerTarget::differentiated:
      return solve<Method, LayerTarget::differentiated>(task, threads, interrupt);
    case LayerTarget::average:
      return solve<Method, LayerTarget::average>(task, threads, interrupt);
    case LayerTarget::data:
      return solve<Method, LayerTarget::data>(task, threads, interrupt);
  }
}

}  // namespace

void solve_layers(const LayerProblem& problem, const double* times, std::size_t n_times, bool row_per_feature,
                  const RungeKuttaOptions& options, unsigned threads, Interrupt& interrupt, const LayerOutput& output) {
  const Task task{problem, times, n_times, row_per_feature, options, output};
  switch (options.method) {
    case RungeKuttaMethod::tsit5:
      return solve<Tsit5>(task, threads, interrupt);
    case RungeKuttaMethod::dop853:
      return solve<Dop853>(task, threads, interrupt);
  }
}

}  // namespace jepa_ode
