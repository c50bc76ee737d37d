#include "jepa_ode/gradient_flow.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "jepa_ode/controller.hpp"
#include "jepa_ode/flow_step.hpp"

namespace jepa_ode {

namespace {

// When "auto" changes the method: after so many trials in a row that speak for the other one. Its patience with a pair
// grows with each return to it, up to a bound at which the next attempt costs a sixth of what it may save.
constexpr int first_patience = 4, largest_patience = 64, patience_with_stabilised = 10;

constexpr double unknown_time = -1;

// The spacing of doubles at t.
double spacing(double t) { return std::nextafter(t, std::numeric_limits<double>::infinity()) - t; }

class FlowIntegrator {
 public:
  FlowIntegrator(LinearNetworkFlow& flow, const double* start, const FlowSettings& settings,
                 const FlowObservation& observation, Interrupt& interrupt, const FlowProgress& progress)
      : flow_(flow),
        settings_(settings),
        observation_(observation),
        interrupt_(interrupt),
        progress_(progress),
        system_(flow, settings.rtol, settings.atol, interrupt),
        events_(flow, observation.events, observation.directions, observation.features),
        state_(Eigen::Map<const Vector>(start, flow.state_size())),
        velocity_(state_.size()),
        next_(state_.size()),
        next_velocity_(state_.size()),
        between_(state_.size()) {}

  FlowResult run() {
    result_.status = integrate();
    result_.nfev = system_.evaluations();
    result_.time = time_;
    result_.plateaus = events_.plateaus(time_);
    if (observation_.final_weights) std::copy_n(state_.data(), flow_.weights_size(), observation_.final_weights);
    for (std::size_t k = result_.reached; k < observation_.count; ++k) mark_unreached(k);
    return result_;
  }

 private:
  Status integrate() {
    // Observed before the start is judged: what was asked for at time 0 is known.
    while (result_.reached < observation_.count && observation_.times[result_.reached] <= 0) observe(state_);
    if (result_.reached == observation_.count) return Status::ok;
    const double end = observation_.times[observation_.count - 1];

    system_.evaluate(state_, velocity_);
    if (!state_.allFinite() || !velocity_.allFinite()) return Status::not_finite;
    events_.begin(state_, velocity_);
    use(settings_.method == FlowMethod::rock4);
    double step = first_step(end);
    if (std::isnan(step)) return Status::not_finite;  // the norm of the weights overflows
    bool overflowed = false;

    while (result_.reached < observation_.count) {
      if (result_.steps + result_.rejected >= settings_.max_steps) return Status::max_steps;
      if (progress_ && progress_(time_)) interrupt_.request_stop();
      if (step < 2 * spacing(time_)) return overflowed ? Status::not_finite : Status::step_too_small;
      step = std::min(step, method_->longest(state_, velocity_));
      const bool last = step >= end - time_;
      const double h = last ? end - time_ : step;

      const double error = method_->attempt(state_, velocity_, h, next_, next_velocity_);
      if (!Controller::accepts(error)) {
        ++result_.rejected;
        overflowed = !std::isfinite(error);
        step = h * controller_.after_rejected(error);
        consider_switch();
        continue;
      }
      ++result_.steps;
      result_.stabilised_steps += stabilised_;
      overflowed = false;
      const double next_time = last ? end : time_ + h;
      observe_step(time_, h, next_time);
      const bool stop = events_.after_step(time_, h, next_, next_velocity_, [&](double theta) -> const Vector& {
        method_->between(state_, velocity_, h, theta, next_, next_velocity_, between_);
        between_time_ = unknown_time;
        return between_;
      });
      method_->taken(state_, velocity_, h);
      time_ = next_time;
      step = h * controller_.after_accepted(error);
      state_.swap(next_);
      velocity_.swap(next_velocity_);
      if (stop && result_.reached < observation_.count) return Status::stopped;
      consider_switch();
    }
    return Status::ok;
  }

  // From here on, steps of the explicit pair or of the stabilised method.
  void use(bool stabilised) {
    stabilised_ = stabilised;
    if (stabilised) {
      method_ = std::make_unique<Rock4FlowStep>(system_);
    } else if (settings_.method == FlowMethod::tsit5) {
      method_ = std::make_unique<ExplicitFlowStep<Tsit5>>(system_);
    } else {
      method_ = std::make_unique<ExplicitFlowStep<Dop853>>(system_);
    }
    controller_ = Controller(method_->estimate_order());
    contrary_ = 0;
  }

  // Many trials in a row that say so change the method. To change back costs some steps of either; each time it takes
  // more to go once again.
  void consider_switch() {
    if (settings_.method != FlowMethod::automatic) return;
    contrary_ = method_->stiff() != stabilised_ ? contrary_ + 1 : 0;
    if (contrary_ < (stabilised_ ? patience_with_stabilised : patience_)) return;
    if (stabilised_) patience_ = std::min(2 * patience_, largest_patience);
    use(!stabilised_);
  }

  // A step whose error would be a hundredth of the tolerance if all that changes did so at one rate, that of the state
  // or of its velocity over a hundredth of the state's size, whichever is faster. The idea is that of Hairer, Norsett,
  // Wanner, Solving Ordinary Differential Equations I, II.4; there the unit of time matters, here a power of two in it
  // changes no bit.
  double first_step(double end) {
    const double size = system_.norm(state_, state_, state_);
    const double slope = system_.norm(velocity_, state_, state_);
    if (!(slope > 0)) return end;  // at rest
    const double guess = std::min(0.01 * size / slope, end);
    next_ = state_ + guess * velocity_;
    system_.evaluate(next_, next_velocity_);
    between_ = next_velocity_ - velocity_;
    const double bend = system_.norm(between_, state_, state_) / guess;
    const double rate = std::max(slope / size, bend / slope);
    const double step = std::pow(0.01 / size, 1.0 / method_->estimate_order()) / rate;
    return std::isfinite(bend) && step > 0 ? std::min(100 * guess, step) : guess;
  }

  // Every requested time in (time, next_time].
  void observe_step(double time, double h, double next_time) {
    while (result_.reached < observation_.count && observation_.times[result_.reached] <= next_time) {
      const double wanted = observation_.times[result_.reached];
      if (wanted == next_time) {
        observe(next_);
        continue;
      }
      if (between_time_ != wanted) {  // duplicates cost nothing
        method_->between(state_, velocity_, h, (wanted - time) / h, next_, next_velocity_, between_);
        between_time_ = wanted;
      }
      observe(between_);
    }
  }

  void observe(const Vector& state) {
    const std::size_t k = result_.reached++;
    if (observation_.loss) observation_.loss[k] = flow_.loss(state.data());
    if (observation_.response)
      flow_.response(state.data(), observation_.directions, observation_.features, observation_.response + k,
                     static_cast<Index>(observation_.count));
    if (observation_.weights) std::copy_n(state.data(), flow_.weights_size(), weights_row(k));
    if (observation_.visit) observation_.visit(k, state.data());
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

  FlowSystem system_;
  FlowEvents events_;
  std::unique_ptr<FlowStep> method_;
  bool stabilised_ = false;
  Controller controller_{1};
  int contrary_ = 0;               // trials in a row that speak for the other method
  int patience_ = first_patience;  // how many it takes to turn to the stabilised one

  double time_ = 0;
  Vector state_, velocity_;
  Vector next_, next_velocity_;
  Vector between_;  // the state at a requested time inside a step
  double between_time_ = unknown_time;
  FlowResult result_;
};

}  // namespace

FlowResult gradient_flow(LinearNetworkFlow& flow, const double* start, const FlowSettings& settings,
                         const FlowObservation& observation, Interrupt& interrupt, const FlowProgress& progress) {
  return FlowIntegrator(flow, start, settings, observation, interrupt, progress).run();
}

}  // namespace jepa_ode
