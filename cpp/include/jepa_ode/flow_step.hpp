// One step of the gradient flow of a network: explicit pairs for accuracy, a stabilised method for plateaus.
//
// Once a feature is learned its direction relaxes at a rate that stays, while the features still to come creep: the
// flow is stiff, mildly (rates of the order of lambda w^(2-2/L) against 1/T), and along the negative real axis, for the
// flow is nearly a gradient. An explicit pair then takes steps of a few units of the fastest rate, whatever its
// tolerance; a stabilised method of s stages goes 0.27 s^2 units.
#pragma once

#include <Eigen/Core>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "jepa_ode/linear_network.hpp"
#include "jepa_ode/parallel.hpp"
#include "jepa_ode/tableau.hpp"

namespace jepa_ode {

using Vector = Eigen::VectorXd;
using VectorRef = Eigen::Ref<Vector>;

// The right-hand side, counted and interruptible, and the norm that tolerances are of.
class FlowSystem {
 public:
  FlowSystem(LinearNetworkFlow& flow, double rtol, double atol, Interrupt& interrupt)
      : flow_(flow), rtol_(rtol), atol_(atol), interrupt_(interrupt) {}

  Index size() const { return flow_.state_size(); }
  std::int64_t evaluations() const { return evaluations_; }
  double rtol() const { return rtol_; }

  void evaluate(const Vector& state, VectorRef velocity) {
    if (interrupt_.stop()) interrupt_.throw_if_stopped();
    ++evaluations_;
    flow_.velocity(state.data(), velocity.data());
  }

  // out = expression, coefficient by coefficient. Aliases are fine.
  template <class Expression>
  void assign(VectorRef out, const Expression& expression) {
    share(out.size(), [&](Index begin, Index size) { out.segment(begin, size) = expression.segment(begin, size); });
  }

  // body(begin, size) for ranges of a state's entries.
  template <class Body>
  void share(Index entries, const Body& body) {
    constexpr Index least = 16'384, multiple = 8;  // 128 KiB of each vector
    flow_.team().share(entries, least, multiple, [&](Index begin, Index end, Index) { body(begin, end - begin); });
  }

  // Frobenius norm of every block in units of atol + rtol * (root mean square singular value), together. Unlike a norm
  // that scales each entry by itself it is the same in every basis of a hidden layer, as is then the whole integration.
  // A layer that is zero and stays so adds nothing; one whose norm overflows adds infinity.
  double norm(const Vector& vector, const Vector& before, const Vector& after) const;

 private:
  LinearNetworkFlow& flow_;
  double rtol_, atol_;
  Interrupt& interrupt_;
  std::int64_t evaluations_ = 0;
};

// A trial from (state, velocity) over h: fills `next` and `next_velocity`.
class FlowStep {
 public:
  explicit FlowStep(FlowSystem& system) : system_(system), scratch_(system.size()) {}
  virtual ~FlowStep() = default;
  FlowStep(const FlowStep&) = delete;
  FlowStep& operator=(const FlowStep&) = delete;

  // How far a step from here may go for the method to be stable.
  virtual double longest(const Vector& /*state*/, const Vector& /*velocity*/) {
    return std::numeric_limits<double>::infinity();
  }

  // The error in units of the tolerance; infinity where `next` is not finite.
  virtual double attempt(const Vector& state, const Vector& velocity, double h, Vector& next,
                         Vector& next_velocity) = 0;

  // The state at a part theta of the last attempt, which was taken.
  virtual void between(const Vector& state, const Vector& velocity, double h, double theta, const Vector& next,
                       const Vector& next_velocity, Vector& out) = 0;

  // Told of the start of every step that is taken, before the next one.
  virtual void taken(const Vector& /*state*/, const Vector& /*velocity*/, double /*h*/) {}

  virtual int estimate_order() const = 0;

  // Whether the last attempt speaks for the stabilised method: stability limits the step of a pair, or accuracy lets
  // the stabilised method take longer ones than a pair could.
  virtual bool stiff() const = 0;

 protected:
  FlowSystem& system_;
  Vector scratch_;
};

template <class Pair>
class ExplicitFlowStep final : public FlowStep {
 public:
  explicit ExplicitFlowStep(FlowSystem& system) : FlowStep(system), stages_(system.size(), Pair::extended) {}

  double attempt(const Vector& state, const Vector& velocity, double h, Vector& next, Vector& next_velocity) override;
  void between(const Vector& state, const Vector& velocity, double h, double theta, const Vector& next,
               const Vector& next_velocity, Vector& out) override;
  int estimate_order() const override { return Pair::estimate_order; }
  bool stiff() const override { return stiffness_ > 0.4; }  // the stabilised method goes as far with fewer evaluations

 private:
  static constexpr Index last_stage = static_cast<Index>(Pair::stages);

  void evaluate_stages(const Vector& state, double h, std::size_t first, std::size_t last);
  void combine(const double* base, double h, const double* weights, std::size_t count, Vector& out) const;

  Eigen::MatrixXd stages_;  // k_j in column j
  double stiffness_ = 0.0;  // the length of the last attempt over the longest stable one
  bool extended_ = false;   // whether the stages of the continuous extension are those of the last attempt
};

// The stabilised method of order 4 of rock4_table.hpp: s stages are stable for rates up to 0.27 s^2 / h, decay there,
// and so forgive rates that are not quite real.
class Rock4FlowStep final : public FlowStep {
 public:
  explicit Rock4FlowStep(FlowSystem& system);

  void taken(const Vector& state, const Vector& velocity, double h) override;

  double longest(const Vector& state, const Vector& velocity) override;
  double attempt(const Vector& state, const Vector& velocity, double h, Vector& next, Vector& next_velocity) override;
  void between(const Vector& state, const Vector& velocity, double h, double theta, const Vector& next,
               const Vector& next_velocity, Vector& out) override;
  int estimate_order() const override { return 5; }
  bool stiff() const override { return stiff_; }

 private:
  static constexpr std::size_t memory = 3;  // steps

  void estimate_radius(const Vector& state, const Vector& velocity);

  Eigen::MatrixXd stages_;  // the derivatives in the last four stages
  Vector before_;
  double reach_;                       // of the longest method that the tolerance allows
  std::array<Vector, memory> starts_;  // where the last steps began, the very last one first
  std::array<double, memory> since_;   // how long before this step that was; infinite: there was none
  Vector last_velocity_;               // where the very last step began
  Vector direction_;                   // of the fastest rate, empty before it was sought
  double radius_ = 0.0;                // the fastest rate, and then some
  int age_ = 0;                        // attempts since it was estimated
  bool refused_ = false;
  bool stiff_ = true;
};

}  // namespace jepa_ode
