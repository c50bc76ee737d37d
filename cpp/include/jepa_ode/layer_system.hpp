// The layer system of a feature (THEORY.md 2): encoder layer a, predictor v and, for a moving-average target, target
// layer b, each feature in its own SIMD lane.
//
//     e  = v a^L sigma_x^2 - lambda * target          target = a^L (own), b^L (average), 1 (data)
//     g  = v e   (+ a^L sigma_y^2 - v a^L lambda      where the target is differentiated too)
//     a' = - a^(L-1) g - eta a
//     v' = - e a^L     - eta v
//     b' = (a - b)/tau
//
// The layers of a start that is not balanced may change sign at depths below 2. Powers are odd functions there,
// a^L = a |a|^(L-1), as at depth 1. From L = 2 on no layer ever passes zero, but roundings may: a^L = |a|^L and
// a^(L-1) = sign(a) |a|^(L-1) make the mirror image of a solution a solution, so that it does not matter.
#pragma once

#include <cmath>
#include <cstddef>

#include "jepa_ode/pack.hpp"

namespace jepa_ode {

enum class LayerTarget {
  own,             // JEPA: the encoder's own output, a constant for differentiation
  differentiated,  // JEPA without stop-gradient
  average,         // JEPA: the output of a moving average of the encoder
  data,            // MAE
};

// x^n for x >= 0.
class WholeLanePower {
 public:
  explicit WholeLanePower(unsigned exponent) noexcept : exponent_(exponent) {}

  Pack operator()(Pack x) const noexcept {
    Pack power = exponent_ % 2 == 1 ? x : pack(1.0);
    for (unsigned rest = exponent_ / 2; rest != 0; rest /= 2) {
      x *= x;
      if (rest % 2 == 1) power *= x;
    }
    return power;
  }

 private:
  unsigned exponent_;
};

class RealLanePower {
 public:
  explicit RealLanePower(double exponent) noexcept : exponent_(exponent) {}

  Pack operator()(Pack x) const noexcept {
    for (std::size_t lane = 0; lane < lanes; ++lane) x[lane] = std::pow(x[lane], exponent_);
    return x;
  }

 private:
  double exponent_;
};

template <std::size_t n>
struct LayerState {
  Pack at[n];  // a, v and, where there is one, b
  Pack& operator[](std::size_t i) noexcept { return at[i]; }
  const Pack& operator[](std::size_t i) const noexcept { return at[i]; }
};

// The derivative of the right-hand side. Of the row of b nothing but `rate` is not zero: b'_a = -b'_b = 1/tau.
struct LayerJacobian {
  Pack aa, av, va, vv;
  Pack ab, vb;  // 0 without an average
};

template <LayerTarget target, class Power>
struct LayerSystem {
  static constexpr std::size_t size = target == LayerTarget::average ? 3 : 2;
  // Whether a = 0 is a barrier at every depth; elsewhere it is one from L = 2 on.
  static constexpr bool driven = target == LayerTarget::average || target == LayerTarget::data;
  using State = LayerState<size>;

  Power power;  // x^(L-1)
  double depth = 1.0;
  double decay = 0.0;  // eta
  double rate = 0.0;   // 1/tau
  Pack lambda{}, sigma2{}, sigma2_y{};

  // a^(L-1); a^L is a times that at every depth.
  Pack below(Pack a) const noexcept {
    const Pack lower = power(abs(a));
    return depth < 2 ? lower : select(a < 0, -lower, lower);
  }

  Pack response(Pack a) const noexcept { return abs(a * below(a)); }

  State operator()(const State& y) const noexcept {
    const Pack a = y[0], v = y[1];
    const Pack lower = below(a);
    const Pack encoder = a * lower;
    const Pack e = residual(y, encoder);
    Pack g = v * e;
    if constexpr (target == LayerTarget::differentiated) g += encoder * (sigma2_y - v * lambda);
    State slope;
    slope[0] = -lower * g - decay * a;
    slope[1] = -e * encoder - decay * v;
    if constexpr (target == LayerTarget::average) slope[2] = (a - y[2]) * rate;
    return slope;
  }

  LayerJacobian jacobian(const State& y) const noexcept {
    const Pack a = y[0], v = y[1];
    const Pack lower = below(a);
    const Pack encoder = a * lower;
    const Pack e = residual(y, encoder);
    const Pack encoder_a = depth * lower;
    // The derivative of a^(L-1). At a = 0 exactly, where for L < 2 there is none, 0 does.
    const Pack lower_a = select(a == 0, Pack{}, (depth - 1) * lower / select(a == 0, pack(1.0), a));
    Pack e_a = encoder_a * v * sigma2;
    if constexpr (target == LayerTarget::own || target == LayerTarget::differentiated) {
      e_a = encoder_a * (v * sigma2 - lambda);
    }
    const Pack e_v = encoder * sigma2;
    Pack g = v * e, g_a = v * e_a, g_v = e + v * e_v;
    if constexpr (target == LayerTarget::differentiated) {
      g += encoder * (sigma2_y - v * lambda);
      g_a += encoder_a * (sigma2_y - v * lambda);
      g_v -= encoder * lambda;
    }
    LayerJacobian j{};
    j.aa = -lower_a * g - lower * g_a - decay;
    j.av = -lower * g_v;
    j.va = -e_a * encoder - e * encoder_a;
    j.vv = -e_v * encoder - decay;
    if constexpr (target == LayerTarget::average) {
      const Pack e_b = -depth * lambda * below(y[2]);
      j.ab = -lower * v * e_b;
      j.vb = -e_b * encoder;
    }
    return j;
  }

 private:
  Pack residual(const State& y, Pack encoder) const noexcept {
    if constexpr (target == LayerTarget::data) {
      return y[1] * encoder * sigma2 - lambda;
    } else if constexpr (target == LayerTarget::average) {
      return y[1] * encoder * sigma2 - lambda * (y[2] * below(y[2]));
    } else {
      return encoder * (y[1] * sigma2 - lambda);
    }
  }
};

}  // namespace jepa_ode
