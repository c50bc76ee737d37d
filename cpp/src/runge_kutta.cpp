// Strategy. Each feature is integrated alone, in the frame of feature_ode.hpp, until the last requested time is behind
// it or nothing is left to integrate.
//
// What is controlled. Tolerances are of w, and dw/w = L du/u, so a step may err by (y/L) (rtol + atol/w) in y. That is
// also what the plateau of a deep encoder needs: its end comes after 1/((p-1) y'/y), so a relative error of u shifts
// the clock by p - 1 times as much, and p - 1 < 2L.
//
// How. The embedded estimate of a scalar autonomous equation changes sign along the trajectory. Where it does it claims
// perfection, a controller that believes it takes several times too long a step, and errors stop following the
// tolerance (measured: 100 rtol at rtol = 1e-11). The equation's own scales give what cannot vanish: with the natural
// rate
//
//     omega = p |y'|/y + q b y^(2L)        (plateau: p |y'|/y, decay from above: (p+q) |y'|/y, end: q a y*^(p-1))
//
// the k-th derivative of y is |y'| omega^(k-1) times a number of order 1, and a method whose estimate is of order h^k
// errs by about scaling_constant (h omega)^k |y'|/omega. The terms that follow form a geometric series up to the
// nearest singularity in time, which for both power laws lies farther than h_max = y / ((p+q) |y'|): the sum divides by
// 1 - h/h_max. The larger of estimate and law is what must meet the tolerance. The first step is the one for which the
// law meets it.
//
// Clock. The rise of a deep encoder is shorter than one rounding of t, so time is a sum of two doubles and steps far
// below the spacing of t are ordinary steps.
#include "jepa_ode/runge_kutta.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "jepa_ode/controller.hpp"
#include "jepa_ode/explicit_step.hpp"
#include "jepa_ode/feature_ode.hpp"

namespace jepa_ode {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// Constants of the scaling law, chosen so that the law, which knows no sign, just covers the estimate: errors are then
// proportional to rtol over ten decades, at 0.02 to 0.06 of it (tests/test_runge_kutta.py), for 1.2 to 2 times the
// work.
template <class Method>
constexpr double scaling_constant = 0.0;
template <>
constexpr double scaling_constant<Tsit5> = 1e-2;
template <>
constexpr double scaling_constant<Dop853> = 1e-3;

// Closer than this to its fixed point, in units of the tolerance, a feature rests.
constexpr double rest_distance = 0.02;

// The largest error that a step is ever allowed, relative to w: beyond, no estimate means anything.
constexpr double largest_tolerance = 0.1;

// The longest step, in units of 1/omega. Near the fixed point, where the error no longer limits it, both methods
// multiply the distance by a number between 0 and 1 up to here: the approach stays stable and monotone.
constexpr double longest_step = 2.0;

// A step that changes y by less than this at its natural rate is not one that any tolerance asks for.
constexpr double smallest_change = 0x1p-70;

template <int exponent>
double whole_power(double x) noexcept {
  if constexpr (exponent == 0) {
    return 1.0;
  } else {
    const double half = whole_power<exponent / 2>(x);
    return exponent % 2 == 0 ? half * half : half * half * x;
  }
}

// One feature on its way: y, compensated, at clock T, compensated, in `frame_`.
template <class Method, Objective objective, class Power>
class Trajectory {
 public:
  Trajectory(const Power& power, double depth, double lambda, double sigma2, double eps,
             const RungeKuttaOptions& options)
      : options_(options),
        depth_(depth),
        p_(exponents(objective, depth).p),
        q_(exponents(objective, depth).q),
        radius_(frame_radius(depth)),
        lambda_(lambda),
        sigma2_(sigma2),
        frame_(objective, depth, lambda, sigma2, eps),
        ode_{power},
        controller_(Method::estimate_order) {
    enter_frame();
    h_ = std::pow(error_scale(y_) / scaling_law(1.0), 1.0 / Method::estimate_order);
  }

  // Fills the row w. The steps do not depend on the times, but for when to stop.
  void solve(const double* times, std::size_t n_times, Interrupt& interrupt, double* w) {
    std::size_t next = 0;
    for (; next < n_times && times[next] == 0; ++next) w[next] = frame_.response(1.0);  // eps, to the last bit
    while (next < n_times && status_ == Status::ok) {
      if (times[next] == infinity) {
        w[next++] = limit();
      } else if (at_rest()) {
        w[next++] = frame_.response(v_);
      } else if (steps_ == options_.max_steps) {
        status_ = Status::max_steps;
      } else {
        if (steps_++ % 256 == 255 && interrupt.stop()) return;
        if (try_step()) {
          next = write_dense(times, next, n_times, w);
          advance();
        }
      }
    }
    // A response beyond the range of a double was not reached either (the fixed point rho^L may be one).
    double* const reached = std::find_if_not(w, w + next, [](double value) { return std::isfinite(value); });
    if (reached != w + next) status_ = Status::not_finite;
    std::fill(reached, w + n_times, nan);
  }

  Status status() const noexcept { return status_; }
  std::int64_t evaluations() const noexcept { return evaluations_; }

 private:
  // Where every trajectory ends: w* = (lambda / sigma^2)^(L/q), or 0.
  double limit() const noexcept {
    if (lambda_ > 0) return exp(log_quotient(lambda_, sigma2_) * depth_ / q_).value();
    return lambda_ <= 0 ? 0.0 : nan;
  }

  // Whether every later value equals the present one to within the tolerance, so that no more steps are needed. The
  // flow is scalar and autonomous: u moves monotonically towards its limit and never past it, so every later value lies
  // between the present one and the limit, and these are a small part of the tolerance apart. (Without atol a w that
  // decays to 0 rests when it is 0 in double.)
  bool at_rest() const noexcept {
    const double fixed_point = frame_.fixed_point();
    if (fixed_point == 0) return frame_.response(v_) <= rest_distance * options_.atol;
    return std::abs(y_ - fixed_point) < rest_radius() * fixed_point;
  }

  double rest_radius() const noexcept {
    return std::max(rest_distance * tolerance(v_) / depth_, 4 * std::numeric_limits<double>::epsilon());
  }

  // The relative error that w = w(v) may have.
  double tolerance(double v) const noexcept {
    const double wish = options_.atol > 0 ? options_.rtol + options_.atol / frame_.response(v) : options_.rtol;
    return std::min(wish, largest_tolerance);
  }

  // The error in y that a step from y_ to y may make.
  double error_scale(double y) const noexcept {
    const double v = options_.atol > 0 && y > y_ ? ode_.power(y) : v_;
    return std::min(y, y_) * tolerance(v) / depth_;
  }

  double scaling_law(double h) const noexcept {
    const double slope = std::abs(step_.derivative_at_start());
    return scaling_constant<Method> * whole_power<Method::estimate_order>(h * omega_) * slope / omega_;
  }

  // How much of the way to the nearest singularity a step leaves, at least.
  double remaining_radius(double h) const noexcept {
    return 1 - h * (p_ + q_) * std::abs(step_.derivative_at_start()) / y_;
  }

  bool try_step() noexcept {
    h_ = std::min(h_, longest_step / omega_);
    increment_ = step_.take(ode_, y_, h_);
    evaluations_ += static_cast<std::int64_t>(ExplicitStep<Method>::evaluations);
    const double y = y_ + increment_;
    const double radius = remaining_radius(h_);
    double error = std::max(step_.error(h_), scaling_law(h_) / radius) / error_scale(y);
    if (!(radius > 0 && y > 0 && std::isfinite(y)) || passes_fixed_point(y)) error = infinity;
    if (Controller::accepts(error)) {
      taken_ = h_;
      h_ *= controller_.after_accepted(error);
      return true;
    }
    h_ *= controller_.after_rejected(error);
    if (!(h_ * omega_ > smallest_change)) status_ = std::isfinite(error) ? Status::step_too_small : Status::not_finite;
    return false;
  }

  // No trajectory crosses its fixed point: a step that does so visibly is too long, whatever its estimated error.
  bool passes_fixed_point(double y) const noexcept {
    const double fixed_point = frame_.fixed_point();
    return (y - fixed_point) * (y_ - fixed_point) < 0 && std::abs(y - fixed_point) > rest_radius() * fixed_point;
  }

  // Writes the values at the times that the step just taken has reached; returns the index of the next one.
  std::size_t write_dense(const double* times, std::size_t next, std::size_t n_times, double* w) noexcept {
    double ahead = next < n_times ? clock_ahead(times[next]) : infinity;
    if (!(ahead <= taken_)) return next;
    step_.prepare_dense(ode_, y_, taken_);
    evaluations_ += static_cast<std::int64_t>(ExplicitStep<Method>::dense_evaluations);
    for (; ahead <= taken_; ahead = next < n_times ? clock_ahead(times[next]) : infinity) {
      w[next++] = frame_.response(ode_.power(y_ + step_.increment(ahead / taken_)));
    }
    return next;
  }

  // How far ahead of the present time t is, on the frame's clock.
  double clock_ahead(double t) const noexcept {
    const double since_start = ((t - frame_start_.hi) - frame_start_.lo) * clock_scale_[0] * clock_scale_[1];
    return (since_start - clock_.hi) - clock_.lo;
  }

  void advance() noexcept {
    const DoubleDouble y = quick_two_sum(y_, y_rest_ + increment_);
    y_ = y.hi;
    y_rest_ = y.lo;
    const DoubleDouble clock = two_sum(clock_.hi, taken_);
    clock_ = quick_two_sum(clock.hi, clock.lo + clock_.lo);
    step_.advance();
    v_ = ode_.power(y_);
    if (y_ > radius_ || y_ < 1 / radius_) {
      change_frame();
    } else {
      set_omega();
    }
  }

  void set_omega() noexcept { omega_ = p_ * std::abs(step_.derivative_at_start()) / y_ + q_ * ode_.b * v_ * v_; }

  void change_frame() noexcept {
    const double scale_back[2] = {1 / clock_scale_[0], 1 / clock_scale_[1]};  // powers of two
    frame_start_ = frame_start_ +
                   DoubleDouble{clock_.hi * scale_back[0] * scale_back[1], clock_.lo * scale_back[0] * scale_back[1]};
    const std::int64_t exponent = frame_.clock_exponent();
    frame_.move(objective, y_, v_);
    h_ = Scaled{h_, frame_.clock_exponent() - exponent}.value();
    y_ = v_ = 1.0;
    y_rest_ = 0.0;  // part of a rounding, once in a frame
    enter_frame();
    if (!frame_.in_range()) status_ = Status::not_finite;
  }

  void enter_frame() noexcept {
    ode_.a = frame_.a();
    ode_.b = frame_.b();
    clock_ = {0.0, 0.0};
    // 2^clock_exponent may be out of range where its product with a time is not: two factors.
    const int exponent = static_cast<int>(std::clamp<std::int64_t>(frame_.clock_exponent(), -2000, 2000));
    clock_scale_[0] = std::ldexp(1.0, exponent / 2);
    clock_scale_[1] = std::ldexp(1.0, exponent - exponent / 2);
    step_.start(ode_(1.0));
    ++evaluations_;
    set_omega();
  }

  const RungeKuttaOptions& options_;
  double depth_, p_, q_;
  double radius_;
  double lambda_, sigma2_;

  Frame frame_;
  FeatureOde<objective, Power> ode_;
  ExplicitStep<Method> step_;
  Controller controller_;

  double y_ = 1.0, y_rest_ = 0.0;
  double v_ = 1.0;                      // y^L
  double omega_ = 0.0;                  // the natural rate at y
  DoubleDouble frame_start_{0.0, 0.0};  // t at clock 0 of the frame
  DoubleDouble clock_{0.0, 0.0};        // since then
  double clock_scale_[2] = {1.0, 1.0};  // their product takes t to the clock
  double h_ = 0.0;                      // the step to try next
  double taken_ = 0.0;                  // the last one accepted, with
  double increment_ = 0.0;              // what it adds to y
  std::int64_t steps_ = 0, evaluations_ = 0;
  Status status_ = Status::ok;
};

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

template <class Method, Objective objective, class Power>
void solve(const Problem& problem, const Power& power, unsigned threads, Interrupt& interrupt) {
  const Ensemble& features = problem.features;
  parallel_for(features.size, 16, threads, interrupt, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      Trajectory<Method, objective, Power> trajectory(power, problem.depth, features.lambda[i], features.sigma2[i],
                                                      features.eps[i], problem.options);
      const double* const times = problem.times + (problem.row_per_feature ? i * problem.n_times : 0);
      trajectory.solve(times, problem.n_times, interrupt, problem.w + i * problem.n_times);
      problem.status[i] = trajectory.status();
      problem.evaluations[i] = trajectory.evaluations();
    }
  });
}

template <class Method, Objective objective>
void solve(const Problem& problem, unsigned threads, Interrupt& interrupt) {
  constexpr double largest_whole = 1024;
  if (problem.depth == std::floor(problem.depth) && problem.depth <= largest_whole) {
    solve<Method, objective>(problem, WholePower(static_cast<unsigned>(problem.depth)), threads, interrupt);
  } else {
    solve<Method, objective>(problem, RealPower(problem.depth), threads, interrupt);
  }
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
