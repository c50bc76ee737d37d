#include "jepa_ode/motion.hpp"

#include <algorithm>
#include <cmath>

#include "jepa_ode/pack_math.hpp"

namespace jepa_ode {

namespace {

constexpr double meeting_of_decay = -0x1.62e42fefa39efp-1;  // log v = -log 2: there its two integrals meet

// As many features as there are lanes.
struct Block {
  Pack lambda, sigma2, eps;
  // log v0; x0 is v0 or, above the fixed point, its inverse, rest = 1 - x0, and `excess` what log x0 lacks for the
  // rounding of x0.
  Pack log_v0, x0, rest, log_x0, excess, power;
  Pack scale, rate, start;
};

Mask ordinary(Pack x) noexcept { return (x > pack(1e-250)) & (x < pack(1e250)); }

class MotionSorter {
 public:
  MotionSorter(ExactCurve& exact, const Ensemble& features, Motions& motions)
      : exact_(exact),
        curve_(exact.curve()),
        in_packs_(exact.tabulated() && exact.curve().serves_packs()),
        features_(features),
        motions_(motions) {}

  // Features [first, first + count), count <= lanes.
  void sort(std::size_t first, std::size_t count) {
    const auto load = [&](const double* from) noexcept { return load_first(from + first, count, 1.0); };
    Block block{};
    block.lambda = load(features_.lambda);
    block.sigma2 = load(features_.sigma2);
    block.eps = load(features_.eps);
    const Pack size = abs(block.lambda);
    const Mask takes = ordinary(block.sigma2) & ordinary(block.eps) & ordinary(size) & ordinary(size / block.sigma2);
    // Any tame numbers keep the other lanes quiet.
    block.lambda = select(takes, block.lambda, pack(1.0));
    block.sigma2 = select(takes, block.sigma2, pack(1.0));
    block.eps = select(takes, block.eps, pack(1.0));
    take_powers(block);
    if (in_packs_) take_starts(block);
    if (count == lanes && all(takes) && append_rises(block, first)) return;
    for (std::size_t lane = 0; lane < count; ++lane) {
      const bool done = bits(takes) >> lane & 1 ? append(block, lane, first + lane) : append_algebraic(first + lane);
      if (!done) motions_.others.push_back(first + lane);
    }
  }

 private:
  // What the branch of a lane needs of logarithms and powers. `log` and `exp` of packs keep enough digits for the p - 1
  // times amplification of deep encoders.
  void take_powers(Block& block) noexcept {
    const Pack lambda = abs(block.lambda);
    const PackPair log_ratio = log_quotient(lambda, block.sigma2);  // of u*^q
    if (any(block.eps != eps_)) {                                   // most ensembles start at one response
      eps_ = block.eps;
      log_start_ = log(eps_) * curve_.q_over_depth;
    }
    const PackPair log_v0 = log_start_ - log_ratio;
    block.log_v0 = log_v0.hi;

    const Pack limit = pack(largest_exponent);
    const auto bounded = [&](PackPair x) { return PackPair{max(min(x.hi, limit), -limit), x.lo}; };
    const DoubleDouble alpha = curve_.precise_alpha;
    block.scale = exp(bounded(log_ratio * curve_.depth_over_q));
    block.rate = pack(curve_.q) * exp(bounded(log_ratio * -alpha)) * lambda;

    // The rounded x0, and everything of it exactly.
    const Pack threshold = select(block.lambda < pack(0.0), pack(meeting_of_decay), pack(0.0));
    const Mask inverted = log_v0.hi > threshold;
    const PackPair log_x = {select(inverted, -log_v0.hi, log_v0.hi), select(inverted, -log_v0.lo, log_v0.lo)};
    block.x0 = exp(bounded(log_x));
    if (curve_.p == 1) return;  // the closed form asks for no more
    const PackPair log_x0 = log(block.x0);
    const PackPair excess = log_x - log_x0;
    block.log_x0 = log_x0.hi;
    // Next to the fixed point the logarithm is the distance from it.
    const Mask close = abs(log_v0.hi) < pack(0x1p-40);
    block.rest = select(close, abs(log_v0.hi), pack(1.0) - block.x0);
    block.excess = select(close, pack(0.0), excess.hi);
    const PackPair down = log_x0 * alpha, up = log_x0 * (DoubleDouble{1.0, 0.0} - alpha);  // x0^alpha or x0^beta
    block.power = exp(bounded({select(inverted, up.hi, down.hi), select(inverted, up.lo, down.lo)}));
  }

  // tau at the start of the lanes that rise or fall.
  void take_starts(Block& block) {
    const auto time = [&](Branch branch) {
      return exact_.table(branch).time(block.x0, block.rest, block.power, block.log_x0);
    };
    const Mask grows = block.lambda > pack(0.0);
    const Mask rises = grows & (block.log_v0 < pack(0.0)), falls = grows & (block.log_v0 > pack(0.0));
    if (any(rises)) block.start = time(Branch::rise);
    if (any(falls)) block.start = select(falls, time(Branch::fall), block.start);
    block.start += block.excess * block.power / block.rest;
  }

  // Everything that a feature is asked for stays an ordinary number.
  Mask tame(const Block& block) const noexcept {
    return (abs(block.log_v0) * pack(curve_.beta) < pack(largest_exponent)) & ordinary(block.rate) &
           ordinary(block.scale) & (block.log_v0 != pack(0.0));
  }

  // The common case: all features of a block rise. Whether they do.
  bool append_rises(const Block& block, std::size_t first) {
    const Pack g = abs(block.start) + pack(CurveTable::rise_offset);
    if (!in_packs_ || !all(tame(block) & (block.lambda > pack(0.0)) & (block.log_v0 < pack(0.0)) &
                           (g < pack(CurveTable::farthest / 4)))) {
      return false;
    }
    Motion& motion = motions_.of_kind[static_cast<std::size_t>(Kind::rise)];
    const Pack end = max(pack(0.0), (pack(last_tau(Branch::rise)) - block.start) / block.rate);
    double values[5][lanes];
    store(values[0], block.start);
    store(values[1], block.rate);
    store(values[2], block.scale);
    store(values[3], end);
    store(values[4], block.eps);
    std::vector<double>* const columns[] = {&motion.start, &motion.rate, &motion.scale, &motion.end, &motion.eps};
    for (std::size_t k = 0; k < 5; ++k) columns[k]->insert(columns[k]->end(), values[k], values[k] + lanes);
    for (std::size_t lane = 0; lane < lanes; ++lane) motion.feature.push_back(first + lane);
    return true;
  }

  // Whether the feature of a lane has a kind.
  bool append(const Block& block, std::size_t lane, std::size_t feature) {
    if ((bits(tame(block)) >> lane & 1) == 0) return false;
    const double lambda = block.lambda[lane], eps = block.eps[lane], x0 = block.x0[lane];
    const double log_v0 = block.log_v0[lane], rate = block.rate[lane], scale = block.scale[lane];
    const bool inverted = log_v0 > (lambda < 0 ? meeting_of_decay : 0.0);
    if (curve_.p == 1) {
      const double end = lambda < 0 ? 1200.0 : 39.0 + std::max(0.0, -log_v0);  // e^-39 < 2^-56
      append(lambda < 0   ? Kind::logistic_decay
             : log_v0 < 0 ? Kind::logistic_rise
                          : Kind::logistic_fall,
             feature, inverted ? 1 / x0 : x0, rate, scale, end / rate, eps);
      return true;
    }
    if (!exact_.tabulated()) return false;

    const Branch branch = lambda < 0 ? Branch::decay : log_v0 < 0 ? Branch::rise : Branch::fall;
    double start = block.start[lane];
    if (!in_packs_ || branch == Branch::decay) {
      const CurveTable& table = exact_.table(branch);
      const CurveTable::Point at{inverted, x0, block.rest[lane]};
      start = table.time(at, block.power[lane], block.log_x0[lane]) +
              table.delay(at, block.power[lane], block.excess[lane]);
    }
    const double g = branch == Branch::rise ? std::abs(start) + CurveTable::rise_offset : start;
    if (!(g > CurveTable::nearest && g < CurveTable::farthest / 4)) return false;
    append(static_cast<Kind>(branch), feature, start, rate, scale, std::max(0.0, (last_tau(branch) - start) / rate),
           eps);
    return true;
  }

  // lambda = 0: (eps/w)^2 = 1 + 2 L sigma^2 eps^2 t (THEORY.md 2). Whether that is so and the numbers are ordinary.
  bool append_algebraic(std::size_t feature) {
    const double sigma2 = features_.sigma2[feature], eps = features_.eps[feature];
    const double rate = 2 * curve_.depth * (sigma2 * eps * eps);
    if (features_.lambda[feature] != 0 || !jepa_ode::ordinary(sigma2) || !jepa_ode::ordinary(eps) ||
        !jepa_ode::ordinary(rate)) {
      return false;
    }
    append(Kind::algebraic, feature, 0.0, rate, 0.0, 1e290 / rate, eps);
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

  // tau from which on responses are not taken from the table of a branch.
  double last_tau(Branch branch) {
    double& last = last_tau_[static_cast<std::size_t>(branch)];
    if (last == 0) last = exact_.table(branch).last();
    return last;
  }

  ExactCurve& exact_;
  const MasterCurve& curve_;
  const bool in_packs_;  // the starts
  const Ensemble& features_;
  Motions& motions_;
  Pack eps_{};               // of log_start_
  PackPair log_start_{};     // log u0^q
  double last_tau_[3] = {};  // where it was asked for
};

}  // namespace

Motions::Motions(ExactCurve& curve, const Ensemble& features, std::size_t begin, std::size_t end) {
  MotionSorter sorter(curve, features, *this);
  for (std::size_t i = begin; i < end; i += lanes) sorter.sort(i, std::min(lanes, end - i));
}

void Motions::cover(ExactCurve& curve, double last_time) const {
  const Motion &rise = (*this)[Kind::rise], &fall = (*this)[Kind::fall], &decay = (*this)[Kind::decay];
  if (rise.size() > 0) {  // the side past tau = 0 is always there
    const double first = *std::min_element(rise.start.begin(), rise.start.end());
    curve.table(Branch::rise).cover(CurveTable::rise_offset, CurveTable::rise_offset + std::max(0.0, -first));
  }
  if (fall.size() > 0) {
    curve.table(Branch::fall).cover(*std::min_element(fall.start.begin(), fall.start.end()), CurveTable::latest_end);
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
