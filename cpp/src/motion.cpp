#include "jepa_ode/motion.hpp"

#include <algorithm>
#include <cmath>

#include "jepa_ode/pack_math.hpp"

namespace jepa_ode {

namespace {

constexpr double meeting_of_decay = -0x1.62e42fefa39efp-1;  // log v = -log 2: there its two integrals meet

struct Block {
  alignas(64) double lambda[lanes], sigma2[lanes], eps[lanes];
  // log v0; x0 is v0 or, above the fixed point, its inverse, and `excess` what log x0 lacks for its rounding
  alignas(64) double log_v0[lanes], x0[lanes], rest[lanes], log_x0[lanes], excess[lanes], power[lanes];
  alignas(64) double scale[lanes], rate[lanes], start[lanes];
};

// What the branch of a lane needs of logarithms and powers. `log` and `exp` of packs keep enough digits for the p - 1
// times amplification of deep encoders.
void take_powers(const MasterCurve& curve, Block& block) noexcept {
  const Pack lambda = abs(load(block.lambda)), sigma2 = load(block.sigma2);
  const PackPair log_ratio = log_quotient(lambda, sigma2);  // of u*^q
  const PackPair log_v0 = log(load(block.eps)) * curve.q_over_depth - log_ratio;
  store(block.log_v0, log_v0.hi);

  const Pack limit = pack(largest_exponent);
  const auto bounded = [&](PackPair x) { return PackPair{max(min(x.hi, limit), -limit), x.lo}; };
  const DoubleDouble alpha = curve.precise_alpha;
  store(block.scale, exp(bounded(log_ratio * curve.depth_over_q)));
  store(block.rate, pack(curve.q) * exp(bounded(log_ratio * -alpha)) * lambda);

  // The rounded x0, and everything of it exactly.
  const Pack threshold = select(load(block.lambda) < pack(0.0), pack(meeting_of_decay), pack(0.0));
  const Mask inverted = log_v0.hi > threshold;
  const PackPair log_x = {select(inverted, -log_v0.hi, log_v0.hi), select(inverted, -log_v0.lo, log_v0.lo)};
  const Pack x0 = exp(bounded(log_x));
  store(block.x0, x0);
  if (curve.p == 1) return;  // the closed form asks for no more
  const PackPair log_x0 = log(x0);
  const PackPair excess = log_x - log_x0;
  store(block.log_x0, log_x0.hi);
  // Next to the fixed point the logarithm is the distance from it.
  const Mask close = abs(log_v0.hi) < pack(0x1p-40);
  store(block.rest, select(close, abs(log_v0.hi), pack(1.0) - x0));
  store(block.excess, select(close, pack(0.0), excess.hi));
  const PackPair down = log_x0 * alpha, up = log_x0 * (DoubleDouble{1.0, 0.0} - alpha);  // x0^alpha or x0^beta
  store(block.power, exp(bounded({select(inverted, up.hi, down.hi), select(inverted, up.lo, down.lo)})));
}

// tau at the start of the lanes that rise or fall.
void take_starts(ExactCurve& curve, Block& block) {
  const Pack x0 = load(block.x0), rest = load(block.rest), power = load(block.power), log_x0 = load(block.log_x0);
  const Pack growth = load(block.lambda), log_v0 = load(block.log_v0);
  const Mask rises = (growth > pack(0.0)) & (log_v0 < pack(0.0)), falls = (growth > pack(0.0)) & (log_v0 > pack(0.0));
  Pack start{};
  if (any(rises)) start = curve.table(Branch::rise).time(x0, rest, power, log_x0);
  if (any(falls)) start = select(falls, curve.table(Branch::fall).time(x0, rest, power, log_x0), start);
  store(block.start, start + load(block.excess) * power / rest);
}

class MotionSorter {
 public:
  MotionSorter(ExactCurve& exact, Motions& motions)
      : exact_(exact),
        curve_(exact.curve()),
        in_packs_(exact.tabulated() && exact.curve().serves_packs()),
        motions_(motions) {}

  void add(std::size_t feature, double lambda, double sigma2, double eps) {
    const double size = std::abs(lambda);
    if (!ordinary(sigma2) || !ordinary(eps) || !(lambda == 0 || (ordinary(size) && ordinary(size / sigma2)))) {
      motions_.others.push_back(feature);
    } else if (lambda == 0) {  // (eps/w)^2 = 1 + 2 L sigma^2 eps^2 t (THEORY.md 2)
      const double rate = 2 * curve_.depth * (sigma2 * eps * eps);
      if (!ordinary(rate)) return motions_.others.push_back(feature);
      append(Kind::algebraic, feature, 0.0, rate, 0.0, 1e290 / rate, eps);
    } else {
      block_.lambda[count_] = lambda;
      block_.sigma2[count_] = sigma2;
      block_.eps[count_] = eps;
      feature_[count_] = feature;
      if (++count_ == lanes) flush();
    }
  }

  // Features that wait for more of them are sorted as they are.
  void flush() {
    if (count_ == 0) return;
    for (std::size_t lane = count_; lane < lanes; ++lane) {  // lanes without a feature: any tame numbers
      block_.lambda[lane] = block_.sigma2[lane] = block_.eps[lane] = 1.0;
    }
    take_powers(curve_, block_);
    if (in_packs_) take_starts(exact_, block_);
    for (std::size_t lane = 0; lane < count_; ++lane) {
      if (!sort(lane)) motions_.others.push_back(feature_[lane]);
    }
    count_ = 0;
  }

 private:
  // Whether the feature of a lane has a kind.
  bool sort(std::size_t lane) {
    const double lambda = block_.lambda[lane], eps = block_.eps[lane], x0 = block_.x0[lane];
    const double log_v0 = block_.log_v0[lane], rate = block_.rate[lane], scale = block_.scale[lane];
    // Everything below stays an ordinary number.
    if (!(std::abs(log_v0) * curve_.beta < largest_exponent) || !ordinary(rate) || !ordinary(scale)) return false;
    if (log_v0 == 0) return false;
    const bool inverted = log_v0 > (lambda < 0 ? meeting_of_decay : 0.0);
    if (curve_.p == 1) {
      const double end = lambda < 0 ? 1200.0 : 80.0 + std::max(0.0, -log_v0);
      append(lambda < 0 ? Kind::logistic_decay : Kind::logistic, feature_[lane], inverted ? 1 / x0 : x0, rate, scale,
             end / rate, eps);
      return true;
    }
    if (!exact_.tabulated()) return false;

    const Branch branch = lambda < 0 ? Branch::decay : log_v0 < 0 ? Branch::rise : Branch::fall;
    double start = block_.start[lane];
    if (!in_packs_ || branch == Branch::decay) {
      const CurveTable& table = exact_.table(branch);
      const CurveTable::Point at{inverted, x0, block_.rest[lane]};
      start = table.time(at, block_.power[lane], block_.log_x0[lane]) +
              table.delay(at, block_.power[lane], block_.excess[lane]);
    }
    const double g = branch == Branch::rise ? std::abs(start) + CurveTable::rise_offset : start;
    if (!(g > CurveTable::nearest && g < CurveTable::farthest / 4)) return false;

    const double last = branch == Branch::decay ? CurveTable::farthest / 2 : CurveTable::settled;
    const double end = std::max(0.0, (last - start) / rate);
    append(static_cast<Kind>(branch), feature_[lane], start, rate, scale, end, eps);
    return true;
  }

  void append(Kind kind, std::size_t feature, double start, double rate, double scale, double end, double eps) {
    Motion& motion = motions_.of_kind[static_cast<std::size_t>(kind)];
    motion.feature.push_back(feature);
    motion.start.push_back(start);
    motion.rate.push_back(rate);
    motion.scale.push_back(scale);
    motion.end.push_back(end);
    motion.eps.push_back(eps);
  }

  ExactCurve& exact_;
  const MasterCurve& curve_;
  const bool in_packs_;  // the starts
  Motions& motions_;
  Block block_;  // of features that wait for their pack to fill
  std::size_t feature_[lanes] = {};
  std::size_t count_ = 0;
};

}  // namespace

Motions::Motions(ExactCurve& curve, const Ensemble& features, std::size_t begin, std::size_t end) {
  MotionSorter sorter(curve, *this);
  for (std::size_t i = begin; i < end; ++i) {
    sorter.add(i, features.lambda[i], features.sigma2[i], features.eps[i]);
  }
  sorter.flush();
}

void Motions::cover(ExactCurve& curve, double last_time) const {
  const Motion &rise = (*this)[Kind::rise], &fall = (*this)[Kind::fall], &decay = (*this)[Kind::decay];
  if (rise.size() > 0) {  // the side past tau = 0 is always there
    const double first = *std::min_element(rise.start.begin(), rise.start.end());
    curve.table(Branch::rise).cover(CurveTable::rise_offset, CurveTable::rise_offset + std::max(0.0, -first));
  }
  if (fall.size() > 0) {
    curve.table(Branch::fall).cover(*std::min_element(fall.start.begin(), fall.start.end()), CurveTable::settled);
  }
  if (decay.size() > 0) {
    double last = 0.0;
    for (std::size_t k = 0; k < decay.size(); ++k) {
      last = std::max(last, decay.start[k] + decay.rate[k] * std::min(decay.end[k], last_time));
    }
    curve.table(Branch::decay).cover(*std::min_element(decay.start.begin(), decay.start.end()), last);
  }
}

}  // namespace jepa_ode
