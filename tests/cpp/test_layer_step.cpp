// Steps of layer systems: the Rosenbrock method has the order that it claims, its estimate and its continuous extension
// too, it damps what is stiff, and the Jacobian is the derivative.
#include <cmath>

#include "check.hpp"
#include "jepa_ode/layer_step.hpp"

namespace {

using namespace jepa_ode;

template <LayerTarget target>
using System = LayerSystem<target, WholeLanePower>;

template <LayerTarget target>
System<target> system_at(double depth, double rate) {
  System<target> system{WholeLanePower(static_cast<unsigned>(depth) - 1)};
  system.depth = depth;
  system.decay = 0.02;
  system.rate = rate;
  system.lambda = pack(0.9);
  system.sigma2 = pack(1.1);
  system.sigma2_y = pack(1.5);
  return system;
}

template <std::size_t n>
LayerState<n> start() {
  LayerState<n> y;
  const double values[] = {0.55, 0.6, 0.55};
  for (std::size_t i = 0; i < n; ++i) y[i] = pack(values[i]);
  return y;
}

// The state a time `end` later, by steps of equal length; `error` is the largest estimate.
template <class Step, class System>
typename System::State integrate(const System& system, double end, int steps, double* error = nullptr) {
  using State = typename System::State;
  Step step;
  State y = start<System::size>(), unit;
  for (std::size_t i = 0; i < System::size; ++i) unit[i] = pack(1.0);
  const Pack h = pack(end / steps);
  for (int k = 0; k < steps; ++k) {
    step.start(~Mask{}, system(y));
    const State increment = step.take(system, system.jacobian(y), y, h);
    if (error != nullptr) *error = std::max(*error, step.error(h, unit)[0]);
    for (std::size_t i = 0; i < System::size; ++i) y[i] += increment[i];
  }
  return y;
}

template <std::size_t n>
double distance(const LayerState<n>& a, const LayerState<n>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(a[i][0] - b[i][0]));
  return largest;
}

// The explicit methods are proved at compile time (order_conditions.hpp).
template <class System>
void check_rosenbrock(const System& system) {
  using Step = RosenbrockLayerStep<System::size>;
  constexpr int order = 5, dense_order = 4;
  using State = typename System::State;
  const double end = 2.4;
  const State exact = integrate<ExplicitLayerStep<Dop853, System::size>>(system, end, 400);
  double coarse_estimate = 0, fine_estimate = 0;
  const double coarse = distance(integrate<Step>(system, end, 8, &coarse_estimate), exact);
  const double fine = distance(integrate<Step>(system, end, 16, &fine_estimate), exact);
  CHECK(coarse > 1e-12);
  RECORD(3, "fitted order less order, Rosenbrock", std::abs(std::log2(coarse / fine) - order), 0.3);
  CHECK(std::log2(coarse_estimate / fine_estimate) > Step::order - 0.7);

  double errors[2];
  for (int halving = 0; halving < 2; ++halving) {
    const double h = 1.0 / (1 << halving);
    Step step;
    const State y = start<System::size>();
    step.start(~Mask{}, system(y));
    step.take(system, system.jacobian(y), y, pack(h));
    step.prepare_dense(system, y, pack(h));
    errors[halving] = 0;
    for (const double theta : {0.3, 0.7}) {
      State point = step.at(pack(theta));
      for (std::size_t i = 0; i < System::size; ++i) point[i] += y[i];
      const State there = integrate<ExplicitLayerStep<Dop853, System::size>>(system, theta * h, 100);
      errors[halving] = std::max(errors[halving], distance(point, there));
    }
  }
  CHECK(std::log2(errors[0] / errors[1]) > dense_order + 1 - 0.7);
}

TEST(orders_of_methods_estimates_and_extensions) {
  check_rosenbrock(system_at<LayerTarget::own>(2, 1));
  check_rosenbrock(system_at<LayerTarget::differentiated>(3, 1));
  check_rosenbrock(system_at<LayerTarget::average>(2, 1.5));
  check_rosenbrock(system_at<LayerTarget::data>(2, 1));
}

template <LayerTarget target>
void check_jacobian(double depth, double sign) {
  const auto system = system_at<target>(depth, 0.7);
  constexpr std::size_t n = System<target>::size;
  LayerState<n> y = start<n>();
  y[0] *= sign;
  const LayerJacobian j = system.jacobian(y);
  const Pack entries[2][3] = {{j.aa, j.av, j.ab}, {j.va, j.vv, j.vb}};
  const double h = 1e-6;
  for (std::size_t column = 0; column < n; ++column) {
    LayerState<n> up = y, down = y;
    up[column] += h;
    down[column] -= h;
    const LayerState<n> right = system(up), left = system(down);
    for (std::size_t row = 0; row < 2; ++row) {
      CHECK(std::abs((right[row][0] - left[row][0]) / (2 * h) - entries[row][column][0]) < 1e-9);
    }
  }
}

TEST(jacobian_is_the_derivative) {
  for (const double depth : {1.0, 2.0, 5.0}) {
    for (const double sign : {1.0, -1.0}) {
      check_jacobian<LayerTarget::own>(depth, sign);
      check_jacobian<LayerTarget::differentiated>(depth, sign);
      check_jacobian<LayerTarget::average>(depth, sign);
      check_jacobian<LayerTarget::data>(depth, sign);
    }
  }
}

TEST(what_is_stiff_is_damped) {
  const auto system = system_at<LayerTarget::average>(2, 1e9);
  const auto y = integrate<RosenbrockLayerStep<3>>(system, 0.5, 40);
  CHECK(std::abs(y[0][0] - y[2][0]) < 1e-8);  // b follows a
  const auto plain = integrate<RosenbrockLayerStep<2>>(system_at<LayerTarget::own>(2, 1), 0.5, 40);
  CHECK(std::abs(y[0][0] - plain[0][0]) < 1e-6);
}

}  // namespace
