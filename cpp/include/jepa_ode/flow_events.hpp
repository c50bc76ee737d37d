// What happens between the output times of a flow: responses that reach a level, plateaus of the loss, rest.
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "jepa_ode/linear_network.hpp"

namespace jepa_ode {

struct EventSettings {
  const double* levels = nullptr;  // [features], of the responses; null: not wanted
  double* crossings = nullptr;  // [features]: when each level is first reached, 0 where it is at the start, or infinity
  bool stop_when_crossed = false;  // every level
  // Stop at rest: neither in as much time again as has passed do the weights change by this part of their norm, nor is
  // their speed above this part of the largest so far. 0: do not stop.
  double rest = 0;
  // A plateau is an interval, longer than a tenth of its start, in which |d loss / d log t| is below this part of the
  // largest loss so far. 0: not wanted; needs Moments::yy.
  double plateau = 0;
};

class FlowEvents {
 public:
  using Vector = Eigen::VectorXd;
  using Between = std::function<const Vector&(double)>;  // the state at a part theta of the step
  using Interval = std::array<double, 2>;

  FlowEvents(LinearNetworkFlow& flow, const EventSettings& settings, const double* directions, Index features);

  void begin(const Vector& state, const Vector& velocity);

  // Told of every step. Returns whether the flow is to stop at its end.
  bool after_step(double time, double h, const Vector& next, const Vector& next_velocity, const Between& between);

  // With the one that lasts, if one does, however short.
  std::vector<Interval> plateaus(double end) const;

 private:
  void locate_crossings(double time, double h, const Between& between);
  void follow_loss(double time, double h, const Vector& next);
  void respond(const Vector& state, std::vector<double>& response);

  LinearNetworkFlow& flow_;
  const EventSettings& settings_;
  const double* directions_;
  Index features_;

  std::vector<double> before_, after_;  // responses at the ends of a step
  std::vector<std::vector<double>> inside_;
  Index waiting_ = 0;  // levels not yet reached

  double fastest_ = 0;  // speed of the weights so far

  double loss_ = 0, largest_loss_ = 0;
  double middle_ = 0, slope_ = 0;  // of the last step: its middle, and |d loss / d log t| in units of the threshold
  bool flat_ = true;
  double flat_since_ = 0;
  std::vector<Interval> plateaus_;
};

}  // namespace jepa_ode
