#include "jepa_ode/flow_events.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace jepa_ode {

namespace {

// Where a step is looked into for crossings: its ends, and between them the extrema of a Chebyshev polynomial. The
// response is interpolated by a polynomial of degree 5, no worse than the state itself.
constexpr std::size_t nodes = 6;
constexpr double theta[nodes] = {0.0, 0.09549150281252629, 0.34549150281252633, 0.6545084971874737, 0.9045084971874737,
                                 1.0};
constexpr double barycentric[nodes] = {0.5, -1, 1, -1, 1, -0.5};

double interpolate(const double (&values)[nodes], double x) {
  double above = 0, below = 0;
  for (std::size_t j = 0; j < nodes; ++j) {
    if (x == theta[j]) return values[j];
    const double weight = barycentric[j] / (x - theta[j]);
    above += weight * values[j];
    below += weight;
  }
  return above / below;
}

// The first root of values that begin negative and do not end so.
double first_root(const double (&values)[nodes]) {
  std::size_t j = 1;
  while (j + 1 < nodes && values[j] < 0) ++j;
  double low = theta[j - 1], high = theta[j];
  for (int k = 0; k < 60 && high - low > 1e-15; ++k) {
    const double middle = 0.5 * (low + high);
    (interpolate(values, middle) < 0 ? low : high) = middle;
  }
  return high;
}

constexpr double shortest_plateau = 0.1;  // in units of the time at which it begins

}  // namespace

FlowEvents::FlowEvents(LinearNetworkFlow& flow, const EventSettings& settings, const double* directions, Index features)
    : flow_(flow), settings_(settings), directions_(directions), features_(features) {
  if (!settings_.levels) return;
  const auto count = static_cast<std::size_t>(features_);
  before_.resize(count);
  after_.resize(count);
  std::fill_n(settings_.crossings, count, std::numeric_limits<double>::infinity());
  inside_.assign(nodes - 2, std::vector<double>(count));
}

void FlowEvents::respond(const Vector& state, std::vector<double>& response) {
  flow_.response(state.data(), directions_, features_, response.data(), 1);
}

void FlowEvents::begin(const Vector& state, const Vector& velocity) {
  if (settings_.levels) {
    respond(state, before_);
    waiting_ = 0;
    for (std::size_t i = 0; i < before_.size(); ++i) {
      const bool reached = before_[i] >= settings_.levels[i];
      settings_.crossings[i] = reached ? 0.0 : std::numeric_limits<double>::infinity();
      waiting_ += !reached;
    }
  }
  fastest_ = velocity.norm();
  if (settings_.plateau > 0) largest_loss_ = loss_ = flow_.loss(state.data());
}

bool FlowEvents::after_step(double time, double h, const Vector& next, const Vector& next_velocity,
                            const Between& between) {
  if (settings_.levels && waiting_ > 0) {
    respond(next, after_);
    locate_crossings(time, h, between);
    before_.swap(after_);
  }
  if (settings_.plateau > 0) follow_loss(time, h, next);
  if (settings_.stop_when_crossed && waiting_ == 0) return true;
  if (settings_.rest > 0) {
    const double speed = next_velocity.norm();
    fastest_ = std::max(fastest_, speed);
    return speed <= settings_.rest * fastest_ && (time + h) * speed <= settings_.rest * next.norm();
  }
  return false;
}

void FlowEvents::locate_crossings(double time, double h, const Between& between) {
  const auto crosses = [&](std::size_t i) {
    return std::isinf(settings_.crossings[i]) && after_[i] >= settings_.levels[i];
  };
  bool any = false;
  for (std::size_t i = 0; i < after_.size(); ++i) any = any || crosses(i);
  if (!any) return;
  for (std::size_t j = 0; j < inside_.size(); ++j) respond(between(theta[j + 1]), inside_[j]);
  for (std::size_t i = 0; i < after_.size(); ++i) {
    if (!crosses(i)) continue;
    double values[nodes];
    for (std::size_t j = 0; j < nodes; ++j) {
      const double response = j == 0 ? before_[i] : j + 1 == nodes ? after_[i] : inside_[j - 1][i];
      values[j] = response - settings_.levels[i];
    }
    settings_.crossings[i] = time + h * first_root(values);
    --waiting_;
  }
}

void FlowEvents::follow_loss(double time, double h, const Vector& next) {
  const double loss = flow_.loss(next.data());
  largest_loss_ = std::max(largest_loss_, loss);
  const double middle = time + 0.5 * h;
  const double slope = std::abs(loss - loss_) / h * middle / (settings_.plateau * largest_loss_);
  const bool flat = !(slope >= 1);
  if (flat != flat_) {
    // Where the slope passes 1, by interpolation of its logarithm.
    double when = middle;
    if (slope_ > 0 && slope > 0 && slope != slope_) {
      const double part = std::clamp(-std::log(slope_) / std::log(slope / slope_), 0.0, 1.0);
      when = middle_ + part * (middle - middle_);
    }
    if (flat) {
      flat_since_ = when;
    } else if (when - flat_since_ > shortest_plateau * flat_since_) {
      plateaus_.push_back({flat_since_, when});
    }
    flat_ = flat;
  }
  loss_ = loss;
  middle_ = middle;
  slope_ = slope;
}

std::vector<FlowEvents::Interval> FlowEvents::plateaus(double end) const {
  std::vector<Interval> all = plateaus_;
  if (settings_.plateau > 0 && flat_) all.push_back({flat_since_, end});
  return all;
}

}  // namespace jepa_ode
