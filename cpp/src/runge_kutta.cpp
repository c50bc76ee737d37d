// Strategy. Features advance in lanes (wide.hpp), each in its own frame (feature_ode.hpp) with its own clock and steps
// (step_law.hpp), until its last requested time is behind it or nothing is left to integrate (StepLaw::at_rest). The
// lane then takes the next feature, so that no lane waits for a slow neighbour. What happens once in a feature's life
// (entering, leaving, changing the frame, a rejected step) is done for its lane alone, in plain numbers.
//
// Clock. The rise of a deep encoder is shorter than one rounding of t, so time is a sum of two doubles and steps far
// below the spacing of t are ordinary steps.
//
// Values between the ends of a step (hermite.hpp) are computed for one lane at a time, over packs of its times: these,
// and the values in the feature's row, are neighbours in memory.
#include "jepa_ode/runge_kutta.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <limits>

#include "jepa_ode/explicit_step.hpp"
#include "jepa_ode/feature_ode.hpp"
#include "jepa_ode/hermite.hpp"
#include "jepa_ode/step_law.hpp"
#include "jepa_ode/wide.hpp"

namespace jepa_ode {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// A step that changes y by less than this at its natural rate is not one that any tolerance asks for.
constexpr double smallest_change = 0x1p-70;

// What the solution of an ensemble needs, so that the choice of types below reads in one place.
struct Problem {
  Objective objective;
  double depth;
  const Ensemble& features;
  const double* times;
  std::size_t n_times;
  bool row_per_feature;
  const RungeKuttaOptions& options;
  double* w;
  Status* status;
  std::int64_t* evaluations;
};

// How many values of a row are fetched into the cache before its feature starts: saves a tenth of the time of 200.
constexpr std::size_t fetched = 256;

// Hands out the features to the threads of a call.
class Queue {
 public:
  // Pieces of a cache line of statuses, for two threads that write to one wait for each other (measured: 4% of the time
  // of two threads); smaller where there would be too few of them to keep all threads busy to the end.
  Queue(std::size_t size, unsigned threads) noexcept
      : size_(size), piece_(std::clamp<std::size_t>(size / (16 * std::size_t{threads}), 16, 64)) {}

  std::size_t pieces() const noexcept { return size_ / piece_ + (size_ % piece_ != 0); }

  // The next piece [begin, end), empty when all are taken.
  struct Piece {
    std::size_t begin, end;
  };
  Piece take() noexcept {
    const std::size_t begin = std::min(next_.fetch_add(piece_, std::memory_order_relaxed), size_);
    return {begin, std::min(begin + piece_, size_)};
  }

 private:
  std::size_t size_, piece_;
  std::atomic<std::size_t> next_{0};
};

// The row of times of a feature and that of its values: filled from the left, as the feature reaches its times.
class Row {
 public:
  Row() = default;
  Row(const double* times, double* values, std::size_t size) noexcept
      : times_(times), values_(values), size_(size), finite_(size) {
    while (finite_ > 0 && times[finite_ - 1] == infinity) --finite_;
    // So many rows are written in turns that the processor does not see it coming.
    for (std::size_t k = 0; k < std::min(size, fetched); k += 8) __builtin_prefetch(values + k, 1);
  }

  // The next time that steps can reach; infinity when there is none.
  double next_time() const noexcept { return next_ < finite_ ? times_[next_] : infinity; }

  // The times `ahead` places after the next one.
  JEPA_ODE_INLINE Pack times(std::size_t ahead) const noexcept {
    const std::size_t k = next_ + ahead;
    return k + lanes <= size_ ? load(times_ + k) : load_first(times_ + k, k < size_ ? size_ - k : 0, infinity);
  }

  // Leaves the place of the next `count` values to be written by the caller.
  double* skip(std::size_t count) noexcept {
    double* const place = values_ + next_;
    next_ += count;
    return place;
  }

  // Writes one value at all times up to t.
  void fill_until(double t, double value) noexcept {
    while (next_ < size_ && times_[next_] <= t) values_[next_++] = value;
  }

  // Writes one value at all other times, or all other finite times.
  void fill(double value) noexcept { next_ = fill(value, size_); }
  void fill_finite(double value) noexcept { next_ = fill(value, finite_); }

  // A response beyond the range of a double was not reached.
  void remove_infinities() noexcept {
    std::replace_if(values_, values_ + next_, [](double value) { return !std::isfinite(value); }, nan);
  }

  bool complete() const noexcept { return next_ == size_; }

 private:
  std::size_t fill(double value, std::size_t end) noexcept {
    std::fill(values_ + next_, values_ + std::max(next_, end), value);
    return std::max(next_, end);
  }

  const double* times_ = nullptr;
  double* values_ = nullptr;
  std::size_t size_ = 0;
  std::size_t finite_ = 0;  // times before the first infinite one
  std::size_t next_ = 0;    // the first value not yet written
};

template <class Method, Objective objective, class Power>
class Lanes {
 public:
  Lanes(const Problem& problem, const Power& power, Queue& queue)
      : problem_(problem),
        queue_(queue),
        p_(exponents(objective, problem.depth).p),
        q_(exponents(objective, problem.depth).q),
        radius_(frame_radius(problem.depth)),
        law_(objective, problem.depth, problem.options.rtol, problem.options.atol),
        ode_{power} {}

  void run(Interrupt& interrupt) {
    for (std::size_t i = 0; i < width; ++i) enter(i);
    for (unsigned count = 0;; ++count) {
      settle();
      if (busy_ == 0 || (count % 64 == 63 && interrupt.stop())) return;
      advance();
    }
  }

 private:
  // One feature on its way.
  struct Feature {
    std::size_t index;
    Row row;
    Frame frame;
    std::int64_t frames;  // that it has been in
    Status status;
  };

  // Features that are done leave, others take their lanes.
  void settle() noexcept {
    const auto done = [this] {
      const WideMask spent = wide(static_cast<double>(problem_.options.max_steps)) <= steps_;
      return busy_ & (failed_ | bits(law_.at_rest(at_, response_) | spent | ~(next_time_ < wide(infinity))));
    };
    for (std::uint32_t lanes_done = done(); lanes_done != 0; lanes_done = done()) {
      for (std::size_t i = 0; i < width; ++i) {
        if ((lanes_done >> i & 1) == 0) continue;
        leave(i);
        enter(i);
      }
    }
  }

  void enter(std::size_t i) noexcept {
    failed_ &= ~(1u << i);
    if (piece_.begin == piece_.end) piece_ = queue_.take();
    if (piece_.begin == piece_.end) {
      busy_ &= ~(1u << i);
      return;
    }
    busy_ |= 1u << i;
    Feature& feature = features_[i];
    feature.index = piece_.begin++;
    const Ensemble& all = problem_.features;
    const double eps = all.eps[feature.index];
    if (!(eps == eps_)) {
      start_ = Start(objective, problem_.depth, eps);
      eps_ = eps;
    }
    feature.frame = Frame(start_, all.lambda[feature.index], all.sigma2[feature.index]);
    feature.frames = 0;
    feature.status = Status::ok;
    const std::size_t n_times = problem_.n_times;
    feature.row = Row(problem_.times + (problem_.row_per_feature ? feature.index * n_times : 0),
                      problem_.w + feature.index * n_times, n_times);
    feature.row.fill_until(0.0, feature.frame.response(1.0));  // eps, to the last bit
    next_time_.set(i, feature.row.next_time());
    steps_.set(i, 0.0);
    start_time_.set(i, 0.0);
    start_time_rest_.set(i, 0.0);
    enter_frame(i);
  }

  // A frame begins at y = 1.
  void enter_frame(std::size_t i) noexcept {
    Feature& feature = features_[i];
    const Frame& frame = feature.frame;
    ++feature.frames;
    ode_.a.set(i, frame.a());
    ode_.b.set(i, frame.b());
    at_.y.set(i, 1.0);
    at_.v.set(i, 1.0);
    at_.slope.set(i, frame.a() - frame.b());
    at_.growth.set(i, frame.a());
    at_.decay.set(i, frame.b());
    y_rest_.set(i, 0.0);  // on a change of frames part of a rounding is lost
    response_.set(i, frame.response());
    clock_.set(i, 0.0);
    clock_rest_.set(i, 0.0);
    // 2^clock_exponent may be out of range where its product with a time is not: two factors.
    const auto exponent = std::clamp<std::int64_t>(frame.clock_exponent(), -2000, 2000);
    clock_scale_[0].set(i, Scaled::power_of_two(exponent / 2));
    clock_scale_[1].set(i, Scaled::power_of_two(exponent - exponent / 2));
    elapsed_before_.set(i, start_time_[i] * clock_scale_[0][i] * clock_scale_[1][i]);
    longest_.set(i, infinity);
    if (!frame.in_range()) fail(i, Status::not_finite);
  }

  void fail(std::size_t i, Status status) noexcept {
    failed_ |= 1u << i;
    features_[i].status = status;
  }

  void leave(std::size_t i) noexcept {
    Feature& feature = features_[i];
    Row& row = feature.row;
    if ((failed_ >> i & 1) == 0 && row.next_time() < infinity) {
      if ((bits(law_.at_rest(at_, response_)) >> i & 1) != 0) {
        fill_row(feature, feature.frame.response(at_.v[i]));
      } else {
        fail(i, Status::max_steps);
      }
    }
    if ((failed_ >> i & 1) == 0 && !row.complete()) {
      const double value = limit(feature.index);
      if (std::isfinite(value)) {
        row.fill(value);
      } else {
        fail(i, Status::not_finite);
      }
    }
    row.fill(nan);
    if (feature.status == Status::not_finite) row.remove_infinities();
    problem_.status[feature.index] = feature.status;
    problem_.evaluations[feature.index] =
        feature.frames + static_cast<std::int64_t>(steps_[i]) * static_cast<std::int64_t>(Method::stages);
  }

  // A response beyond the range of a double was not reached either (the fixed point rho^L may be one).
  void fill_row(Feature& feature, double value) noexcept {
    if (std::isfinite(value)) {
      feature.row.fill_finite(value);
    } else {
      feature.status = Status::not_finite;
      feature.row.fill(nan);
    }
  }

  // Where a trajectory ends: w* = (lambda / sigma^2)^(L/q), or 0.
  double limit(std::size_t feature) const noexcept {
    const double lambda = problem_.features.lambda[feature], sigma2 = problem_.features.sigma2[feature];
    if (lambda > 0) return exp(log_quotient(lambda, sigma2) * problem_.depth / q_).value();
    return lambda <= 0 ? 0.0 : nan;
  }

  // A step of all lanes.
  void advance() noexcept {
    const Wide tolerance = law_.tolerance(at_, response_, elapsed_before_ + clock_);
    const Wide h = min(law_.step(at_, tolerance), longest_);
    const Wide increment = step_.take(ode_, at_.y, at_.slope, h);
    const Wide total = y_rest_ + increment;
    const Wide y = at_.y + total;
    const Point end = ode_.at(y);
    const WideMask small = step_.errs_within(law_.largest_estimate(at_, tolerance), h, end.slope);
    const WideMask sound = (wide(0.0) < y) & (y < wide(infinity)) & ~law_.crosses(at_, end, tolerance);
    const WideMask taken = sound & small;
    steps_ = 1.0 + steps_;

    const std::uint32_t reached = busy_ & bits(taken & (clock_ahead(next_time_) <= h));
    if (reached != 0) write(reached, Hermite<StepConstants<Method>::derivatives>(at_, end, increment, p_, q_, h), h);

    y_rest_ = select(taken, total - (y - at_.y), y_rest_);
    advance_clock(select(taken, h, wide(0.0)));
    at_.y = select(taken, end.y, at_.y);
    at_.v = select(taken, end.v, at_.v);
    at_.slope = select(taken, end.slope, at_.slope);
    at_.growth = select(taken, end.growth, at_.growth);
    at_.decay = select(taken, end.decay, at_.decay);
    longest_ = wide(infinity);
    if ((busy_ & ~bits(taken)) != 0) reject(busy_ & ~bits(taken), h, sound);
    const std::uint32_t strayed = busy_ & bits(wide(radius_) < at_.y | at_.y < wide(1 / radius_));
    if (strayed != 0) change_frames(strayed);
  }

  // How far ahead of the present time t is, on the frame's clock.
  JEPA_ODE_INLINE Wide clock_ahead(Wide t) const noexcept {
    const Wide since_start = ((t - start_time_) - start_time_rest_) * clock_scale_[0] * clock_scale_[1];
    return (since_start - clock_) - clock_rest_;
  }

  JEPA_ODE_INLINE Pack clock_ahead(Pack t, std::size_t i) const noexcept {
    const Pack since_start = ((t - start_time_[i]) - start_time_rest_[i]) * clock_scale_[0][i] * clock_scale_[1][i];
    return (since_start - clock_[i]) - clock_rest_[i];
  }

  JEPA_ODE_INLINE void advance_clock(Wide h) noexcept {
    const Wide sum = clock_ + h;
    const Wide h_part = sum - clock_;
    const Wide rest = ((clock_ - (sum - h_part)) + (h - h_part)) + clock_rest_;
    clock_ = sum + rest;
    clock_rest_ = rest - (clock_ - sum);
  }

  // Writes the values at the times that the step of length h has reached. First the times are sought, then the values
  // computed: how many packs of them a lane has is not predictable, but a list of packs is.
  template <class Interpolant>
  JEPA_ODE_INLINE void write(std::uint32_t reached, const Interpolant& values, Wide h) noexcept {
    const Wide inverse = 1.0 / h;
    while (reached != 0) {
      std::size_t count = 0;
      for (std::uint32_t rest = reached; rest != 0; rest &= rest - 1) {
        const auto i = static_cast<std::size_t>(__builtin_ctz(rest));
        count = seek(i, h[i], inverse[i], count, reached);
      }
      for (std::size_t k = 0; k < count; ++k) write(outputs_[k], values);
    }
  }

  // Some values of one feature, at neighbouring times.
  struct Output {
    Pack theta;
    double* place;
    std::uint32_t lane, count;
  };

  // Lists up to two packs of times that lane i has reached; removes the lane from `reached` if these were all.
  JEPA_ODE_INLINE std::size_t seek(std::size_t i, double h, double inverse, std::size_t listed,
                                   std::uint32_t& reached) noexcept {
    Row& row = features_[i].row;
    const Pack near = clock_ahead(row.times(0), i), far = clock_ahead(row.times(lanes), i);
    const auto near_count = static_cast<std::uint32_t>(__builtin_popcount(bits(near <= h)));
    const auto far_count = static_cast<std::uint32_t>(__builtin_popcount(bits(far <= h)));
    outputs_[listed] = {near * inverse, row.skip(near_count), static_cast<std::uint32_t>(i), near_count};
    listed += near_count != 0;
    outputs_[listed] = {far * inverse, row.skip(far_count), static_cast<std::uint32_t>(i), far_count};
    listed += far_count != 0;
    next_time_.set(i, row.next_time());
    reached &= ~(static_cast<std::uint32_t>(far_count < lanes) << i);
    return listed;
  }

  template <class Interpolant>
  JEPA_ODE_INLINE void write(const Output& output, const Interpolant& values) noexcept {
    const std::size_t i = output.lane;
    const Frame& frame = features_[i].frame;
    const Pack v = ode_.power(at_.y[i] + values.increment(i, output.theta));
    if (frame.plain()) {
      store_first(output.place, frame.response() * v, output.count);
      return;
    }
    for (std::size_t k = 0; k < output.count; ++k) {
      output.place[k] = frame.response(v[k]);
      if (!std::isfinite(output.place[k])) fail(i, Status::not_finite);
    }
  }

  void reject(std::uint32_t rejected, Wide h, WideMask sound) noexcept {
    for (std::size_t i = 0; i < width; ++i) {
      if ((rejected >> i & 1) == 0) continue;
      const bool finite = (bits(sound) >> i & 1) != 0;
      longest_.set(i, h[i] * (finite ? 0.5 : 0.2));
      if (!(h[i] * law_.rate(at_)[i] > smallest_change)) {
        fail(i, finite ? Status::step_too_small : Status::not_finite);
      }
    }
  }

  void change_frames(std::uint32_t strayed) noexcept {
    for (std::size_t i = 0; i < width; ++i) {
      if ((strayed >> i & 1) == 0) continue;
      const double scale_back[2] = {1 / clock_scale_[0][i], 1 / clock_scale_[1][i]};  // powers of two
      const DoubleDouble start =
          DoubleDouble{start_time_[i], start_time_rest_[i]} +
          DoubleDouble{clock_[i] * scale_back[0] * scale_back[1], clock_rest_[i] * scale_back[0] * scale_back[1]};
      start_time_.set(i, start.hi);
      start_time_rest_.set(i, start.lo);
      features_[i].frame.move(objective, at_.y[i], at_.v[i]);
      enter_frame(i);
    }
  }

  const Problem& problem_;
  Queue& queue_;
  double p_, q_;
  double radius_;
  StepLaw<Method> law_;

  Queue::Piece piece_{0, 0};  // features that wait for a lane
  double eps_ = nan;          // that of start_
  Start start_;

  std::uint32_t busy_ = 0, failed_ = 0;  // a bit for each lane
  std::array<Feature, width> features_;
  std::array<Output, 2 * width + 1> outputs_;

  FeatureOde<objective, Power> ode_;
  ExplicitStep<Method> step_;
  Point at_{};
  Wide y_rest_{};                          // what a rounding of y left
  Wide response_{};                        // w = response y^L
  Wide clock_{}, clock_rest_{};            // time in the frame
  Wide start_time_{}, start_time_rest_{};  // t at clock 0 of the frame
  Wide clock_scale_[2]{};                  // their product takes t to the clock
  Wide elapsed_before_{};                  // start_time_ on the clock
  Wide next_time_{};                       // the next requested t
  Wide longest_{};                         // a bound of the next step: after a rejected one
  Wide steps_{};                           // so far, rejected ones included
};

template <class Method, Objective objective, class Power>
void solve(const Problem& problem, const Power& power, unsigned threads, Interrupt& interrupt) {
  Queue queue(problem.features.size, threads);
  // One set of lanes for each thread, as long as there is a piece for it.
  parallel_for(std::min<std::size_t>(threads, queue.pieces()), 1, threads, interrupt, [&](std::size_t, std::size_t) {
    Lanes<Method, objective, Power>(problem, power, queue).run(interrupt);
  });
}

template <class Method, Objective objective>
void solve(const Problem& problem, unsigned threads, Interrupt& interrupt) {
  constexpr double largest_whole = 1024;
  const double depth = problem.depth;
  if (depth == 1) return solve<Method, objective>(problem, FixedPower<1>{}, threads, interrupt);
  if (depth == 2) return solve<Method, objective>(problem, FixedPower<2>{}, threads, interrupt);
  if (depth == 3) return solve<Method, objective>(problem, FixedPower<3>{}, threads, interrupt);
  if (depth == 4) return solve<Method, objective>(problem, FixedPower<4>{}, threads, interrupt);
  if (depth == std::floor(depth) && depth <= largest_whole) {
    return solve<Method, objective>(problem, WholePower(static_cast<unsigned>(depth)), threads, interrupt);
  }
  return solve<Method, objective>(problem, RealPower(depth), threads, interrupt);
}

template <class Method>
void solve(const Problem& problem, unsigned threads, Interrupt& interrupt) {
  switch (problem.objective) {
    case Objective::jepa:
      return solve<Method, Objective::jepa>(problem, threads, interrupt);
    case Objective::mae:
      return solve<Method, Objective::mae>(problem, threads, interrupt);
  }
}

}  // namespace

void solve_runge_kutta(Objective objective, double depth, const Ensemble& features, const double* times,
                       std::size_t n_times, bool row_per_feature, const RungeKuttaOptions& options, unsigned threads,
                       Interrupt& interrupt, double* w, Status* status, std::int64_t* evaluations) {
  const Problem problem{objective, depth, features, times, n_times, row_per_feature, options, w, status, evaluations};
  switch (options.method) {
    case RungeKuttaMethod::tsit5:
      return solve<Tsit5>(problem, threads, interrupt);
    case RungeKuttaMethod::dop853:
      return solve<Dop853>(problem, threads, interrupt);
  }
}

}  // namespace jepa_ode
