// Strategy. Features are taken in blocks: motion.hpp sorts a block by branch and finds what does not depend on time.
// Then a response is one look into the branch's table. Lanes are consecutive times of a feature, whose bins are
// neighbours: where a window holds them (pack.hpp), 90% of W1, the lanes pick from it, a third faster than from rows of
// their own. With few times the lanes are features instead. Either way a lane computes the same bits: a value depends
// neither on the other times nor on the other features. Numbers out of the tables' reach go through FeatureCurve.
#include "jepa_ode/exact.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "jepa_ode/feature_curve.hpp"
#include "jepa_ode/motion.hpp"
#include "jepa_ode/pack_math.hpp"

namespace jepa_ode {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// What a pack of features, or a feature of all lanes, needs to know of itself.
struct Lanes {
  Pack start, rate, scale, eps, low, high;  // responses stay within [low, high]
};

// The responses of each kind of motion at times below its end.

template <Branch branch>
class Tabulated {
 public:
  explicit Tabulated(ExactCurve& curve)
      : table_(curve.table(branch)),
        last_(pack(table_.last())),
        rows_(table_.rows()),
        columns_(table_.columns()),
        column_length_(table_.column_length()) {}

  // With `ordered` lanes the times of the lanes do not fall, so neither do their rows. A feature that starts at a tau
  // of -1e50 comes to the end of its motion up to 1e34 too late: times are rounded.
  template <bool ordered>
  Pack response(const Lanes& lane, Pack t) const noexcept {
    const Pack w = lane.scale * value<ordered>(min(fma(lane.rate, t, lane.start), last_));
    return max(min(w, lane.high), lane.low);
  }

 private:
  // y at tau (curve_table.hpp).
  template <bool ordered>
  Pack value(Pack tau) const noexcept {
    const Pack g = branch == Branch::rise ? abs(tau) + pack(CurveTable::rise_offset) : tau;
    IntPack row = bins::number(g);
    if constexpr (branch == Branch::rise) {
      // Up to the sign, which inverts all bits of a row on the plateau, this is a difference: g >= 2 has the bit.
      static_assert(bins::first(CurveTable::first_rise_binade) == 0x8000);
      row = row ^ int_pack(0x8000) ^ (bits_of(tau) >> 63);
    } else {
      row -= int_pack(bins::first(CurveTable::lowest_binade));
    }
    for (std::size_t n = 0; n < lanes; ++n) assert(table_.holds(row[n]));
    const Pack place = bins::place(g);
    Pack c[bins::coefficients];
    if (ordered && window > 0 && row[lanes - 1] - row[0] < static_cast<std::int64_t>(window)) {
      const double* const column = columns_ + row[0];
      const IntPack ahead = row - int_pack(row[0]);
      for (std::size_t k = 0; k < bins::coefficients; ++k)
        c[k] = pick(column + static_cast<std::int64_t>(k) * column_length_, ahead);
    } else if (ordered && row[0] == row[lanes - 1]) {  // without windows; 10% faster with 2000 times
      const double* const same = rows_ + 8 * row[0];
      for (std::size_t k = 0; k < bins::coefficients; ++k) c[k] = pack(same[k]);
    } else {
      load_rows(rows_, row, c);
    }
    return bins::sum(c, place);
  }

  const CurveTable& table_;
  const Pack last_;
  const double* rows_;
  const double* columns_;
  std::int64_t column_length_;
};

// MAE at depth 1: v' = +-v (1 -+ v) in tau = 2 |lambda| t. Each form is a sum of terms of one sign.
//
//     rise    v0 < 1       (eps/w)^2 = v0 + (1 - v0) e^-tau
//     fall    v0 > 1       (eps/w)^2 = 1 + (v0 - 1) (1 - e^-tau)
//     decay   lambda < 0   (eps/w)^2 = (1 + v0 (1 - e^-tau)) / e^-tau
template <Branch branch>
class Logistic {
 public:
  explicit Logistic(ExactCurve&) noexcept {}

  template <bool>
  Pack response(const Lanes& lane, Pack t) const noexcept {
    const Pack v0 = lane.start, tau = lane.rate * t;
    Pack w{};
    if constexpr (branch == Branch::rise) {
      w = lane.eps * reciprocal_sqrt(fma(decay(tau).left, pack(1.0) - v0, v0));
    } else if constexpr (branch == Branch::fall) {
      w = lane.eps * reciprocal_sqrt(fma(decay(tau).gone, v0 - pack(1.0), pack(1.0)));
    } else {  // by half of tau, for e^-tau may be too small a number
      const Decay half = decay(pack(0.5) * tau);
      const Pack gone = half.gone * (pack(1.0) + half.left);
      w = lane.eps * half.left * reciprocal_sqrt(fma(v0, gone, pack(1.0)));
    }
    return max(min(w, lane.high), lane.low);
  }
};

// lambda = 0: u' = -sigma^2 u^(2L+1) has (eps/w)^2 = 1 + 2 L sigma^2 eps^2 t (THEORY.md 2).
class Algebraic {
 public:
  explicit Algebraic(ExactCurve&) noexcept {}

  template <bool>
  Pack response(const Lanes& lane, Pack t) const noexcept {
    return lane.eps / sqrt(fma(lane.rate, t, pack(1.0)));
  }
};

constexpr bool decays(Kind kind) noexcept {
  return kind == Kind::decay || kind == Kind::logistic_decay || kind == Kind::algebraic;
}

// The times of one piece of work: for all features or one row per feature.
struct Times {
  const double* values;
  std::size_t row_length;  // between rows of `values` and of the responses
  std::size_t begin, end;  // of each row
  bool row_per_feature;

  const double* row(std::size_t feature) const noexcept {
    return values + (row_per_feature ? feature * row_length : 0);
  }
};

// Writes the responses of the features [begin, end) at some times.
template <class Real>
class Piece {
 public:
  Piece(ExactCurve& curve, const Ensemble& features, const Times& times, Real* w)
      : curve_(curve), features_(features), times_(times), w_(w) {}

  // Whether a response was too large.
  bool write(std::size_t begin, std::size_t end) {
    double last_time = 0.0;
    for (std::size_t i = begin; i < (times_.row_per_feature ? end : begin + 1); ++i) {
      last_time = std::max(last_time, times_.row(i)[times_.end - 1]);
    }
    const Motions motions(curve_, features_, begin, end);
    motions.cover(curve_, last_time);
    write<Kind::rise, Tabulated<Branch::rise>>(motions);
    write<Kind::fall, Tabulated<Branch::fall>>(motions);
    write<Kind::decay, Tabulated<Branch::decay>>(motions);
    write<Kind::logistic_rise, Logistic<Branch::rise>>(motions);
    write<Kind::logistic_fall, Logistic<Branch::fall>>(motions);
    write<Kind::logistic_decay, Logistic<Branch::decay>>(motions);
    write<Kind::algebraic, Algebraic>(motions);
    for (const std::size_t i : motions.others) write_slowly(i, times_.begin);
    return overflowed_;
  }

 private:
  template <Kind kind, class Law>
  void write(const Motions& motions) {
    const Motion& motion = motions[kind];
    if (motion.size() == 0) return;
    const Law law(curve_);
    if (times_.end - times_.begin < lanes) {
      for (std::size_t k = 0; k < motion.size(); k += lanes) write_features<kind>(law, motion, k);
    } else {
      for (std::size_t k = 0; k < motion.size(); ++k) write_row<kind>(law, motion, k);
    }
    constexpr double largest = std::numeric_limits<Real>::max();
    for (std::size_t k = 0; k < motion.size(); ++k) {
      if (motion.scale[k] > largest || motion.eps[k] > largest) withdraw_infinite(motion.feature[k]);
    }
  }

  template <Kind kind>
  static Lanes bounded(Pack start, Pack rate, Pack scale, Pack eps) noexcept {
    const Pack limit = decays(kind) ? pack(0.0) : scale;
    return {start, rate, scale, eps, min(eps, limit), max(eps, limit)};
  }

  // Lanes are times of feature k.
  template <Kind kind, class Law>
  void write_row(const Law& law, const Motion& motion, std::size_t k) {
    const std::size_t i = motion.feature[k];
    const Lanes lane =
        bounded<kind>(pack(motion.start[k]), pack(motion.rate[k]), pack(motion.scale[k]), pack(motion.eps[k]));
    const double* const t = times_.row(i);
    Real* const w = w_ + i * times_.row_length;
    const double end = motion.end[k];
    std::size_t j = times_.begin;
    for (; j + lanes <= times_.end && t[j + lanes - 1] < end; j += lanes) {
      store(w + j, law.template response<true>(lane, load(t + j)));
    }
    // Fewer than a pack are left before the end: the last time stands in for those that are missing.
    const std::size_t left = std::min(lanes, times_.end - j);
    const auto count =
        static_cast<std::size_t>(__builtin_popcount(bits(load_first(t + j, left, infinity) < pack(end))));
    const std::size_t stop = j + count;
    if (count > 0) {
      store_first(w + j, law.template response<true>(lane, load_first(t + j, count, t[stop - 1])), count);
    }
    if (decays(kind)) {
      write_slowly(i, stop);
    } else {
      std::fill(w + stop, w + times_.end, static_cast<Real>(motion.scale[k]));
    }
    for (j = times_.begin; j < times_.end && t[j] == 0; ++j)
      w[j] = static_cast<Real>(motion.eps[k]);  // to the last bit
  }

  // Lanes are features k, k + 1, ...
  template <Kind kind, class Law>
  void write_features(const Law& law, const Motion& motion, std::size_t k) {
    const std::size_t count = std::min(lanes, motion.size() - k);
    const auto load_padded = [&](const std::vector<double>& values) {
      double padded[lanes];
      for (std::size_t n = 0; n < lanes; ++n) padded[n] = values[k + std::min(n, count - 1)];
      return load(padded);
    };
    const Lanes lane = bounded<kind>(load_padded(motion.start), load_padded(motion.rate), load_padded(motion.scale),
                                     load_padded(motion.eps));
    for (std::size_t j = times_.begin; j < times_.end; ++j) {
      double t[lanes] = {};
      Real responses[lanes];
      for (std::size_t n = 0; n < count; ++n) t[n] = std::min(times_.row(motion.feature[k + n])[j], motion.end[k + n]);
      store(responses, law.template response<false>(lane, load(t)));
      for (std::size_t n = 0; n < count; ++n) {
        const std::size_t i = motion.feature[k + n];
        Real& w = w_[i * times_.row_length + j];
        w = t[n] == 0 ? static_cast<Real>(motion.eps[k + n]) : responses[n];
        if (t[n] < motion.end[k + n]) continue;
        if (decays(kind)) {
          write_slowly(i, j);
        } else {
          w = static_cast<Real>(motion.scale[k + n]);
        }
      }
    }
  }

  // Responses of feature i from time j on, one by one.
  void write_slowly(std::size_t i, std::size_t j) {
    if (j == times_.end) return;
    const FeatureCurve feature(curve_.curve(), features_.lambda[i], features_.sigma2[i], features_.eps[i]);
    for (; j < times_.end; ++j) {
      w_[i * times_.row_length + j] = static_cast<Real>(feature.response(times_.row(i)[j]));
    }
    withdraw_infinite(i);
  }

  // Responses beyond the largest number: the fixed point of a deep encoder can be.
  void withdraw_infinite(std::size_t i) {
    for (std::size_t j = times_.begin; j < times_.end; ++j) {
      Real& w = w_[i * times_.row_length + j];
      if (!std::isfinite(w)) {
        w = std::numeric_limits<Real>::quiet_NaN();
        overflowed_ = true;
      }
    }
  }

  ExactCurve& curve_;
  const Ensemble& features_;
  const Times times_;
  Real* w_;
  bool overflowed_ = false;
};

}  // namespace

template <class Real>
void solve_exact(ExactCurve& curve, const Ensemble& features, const double* times, std::size_t n_times,
                 bool row_per_feature, unsigned threads, Interrupt& interrupt, Real* w, Status* status) {
  std::fill(status, status + features.size, Status::ok);
  if (n_times == 0 || features.size == 0) return;
  // Pieces of a millisecond or so, however slow the way: Ctrl-C is heard between them. As large as that, for two
  // threads that touch one huge page of a fresh array at once both wait for it (measured: 10% of the whole); but enough
  // of them.
  const bool fast = curve.tabulated() || curve.curve().p == 1;
  const double cost = fast ? 1.0 : 16 * (1 + curve.curve().p / 64);  // of a response
  const std::size_t share = features.size * n_times / (4 * std::size_t{threads});
  const std::size_t piece_size =
      1 + static_cast<std::size_t>(static_cast<double>(std::clamp<std::size_t>(share, 4096, 262144)) / cost);
  const std::size_t block_times = std::min(n_times, (piece_size + lanes - 1) / lanes * lanes);
  const std::size_t block_features = std::clamp<std::size_t>(piece_size / block_times, 1, 4096);
  const std::size_t rows = (features.size - 1) / block_features + 1, columns = (n_times - 1) / block_times + 1;
  std::vector<std::uint8_t> overflowed(rows * columns);  // per piece: two pieces of a row must not write one status
  parallel_for(rows * columns, 1, threads, interrupt, [&](std::size_t piece, std::size_t) {
    const std::size_t row = piece / columns * block_features, column = piece % columns * block_times;
    const Times part{times, n_times, column, std::min(n_times, column + block_times), row_per_feature};
    overflowed[piece] = Piece<Real>(curve, features, part, w).write(row, std::min(features.size, row + block_features));
  });
  for (std::size_t piece = 0; piece < overflowed.size(); ++piece) {
    if (!overflowed[piece]) continue;
    const std::size_t row = piece / columns * block_features;
    for (std::size_t i = row; i < std::min(features.size, row + block_features); ++i) {
      const Real* const responses = w + i * n_times;
      if (std::any_of(responses, responses + n_times, [](Real x) { return std::isnan(x); })) {
        status[i] = Status::not_finite;
      }
    }
  }
}

template void solve_exact(ExactCurve&, const Ensemble&, const double*, std::size_t, bool, unsigned, Interrupt&, double*,
                          Status*);
template void solve_exact(ExactCurve&, const Ensemble&, const double*, std::size_t, bool, unsigned, Interrupt&, float*,
                          Status*);

namespace {

constexpr std::size_t block_size = 1024;  // of features whose times are found together

FeatureCurve feature_curve(const ExactCurve& curve, const Ensemble& features, std::size_t i) {
  return FeatureCurve(curve.curve(), features.lambda[i], features.sigma2[i], features.eps[i]);
}

}  // namespace

void time_to_reach(ExactCurve& curve, const Ensemble& features, const double* w, unsigned threads, Interrupt& interrupt,
                   double* t) {
  parallel_for(features.size, block_size, threads, interrupt, [&](std::size_t begin, std::size_t end) {
    const auto slowly = [&](std::size_t i) { t[i] = feature_curve(curve, features, i).time_to_reach(w[i]); };
    // Where w lies on the curve is where a feature that starts there would be.
    const Ensemble there{features.lambda, features.sigma2, w, features.size};
    const Motions from(curve, features, begin, end), to(curve, there, begin, end);
    std::vector<double> arrival(end - begin);
    for (const Kind kind : {Kind::rise, Kind::fall, Kind::decay}) {
      std::fill(arrival.begin(), arrival.end(), std::numeric_limits<double>::quiet_NaN());
      for (std::size_t k = 0; k < to[kind].size(); ++k) arrival[to[kind].feature[k] - begin] = to[kind].start[k];
      const Motion& motion = from[kind];
      for (std::size_t k = 0; k < motion.size(); ++k) {
        const std::size_t i = motion.feature[k];
        const double clock = arrival[i - begin] - motion.start[k];
        if (clock > 0) {
          t[i] = clock / motion.rate[k];
        } else {  // never, at once, or by numbers out of the ordinary
          slowly(i);
        }
      }
    }
    for (const Kind kind : {Kind::logistic_rise, Kind::logistic_fall, Kind::logistic_decay, Kind::algebraic}) {
      std::for_each(from[kind].feature.begin(), from[kind].feature.end(), slowly);
    }
    std::for_each(from.others.begin(), from.others.end(), slowly);
  });
}

void critical_time(ExactCurve& curve, const Ensemble& features, double fraction, unsigned threads, Interrupt& interrupt,
                   double* t) {
  parallel_for(features.size, block_size, threads, interrupt, [&](std::size_t begin, std::size_t end) {
    const auto slowly = [&](std::size_t i) { t[i] = feature_curve(curve, features, i).time_to_fraction(fraction); };
    const Motions motions(curve, features, begin, end);
    const Motion& rise = motions[Kind::rise];
    if (rise.size() > 0) {  // one point of the curve for all
      const double arrival = curve.table(Branch::rise).time_of(log(fraction) * curve.curve().q_over_depth);
      for (std::size_t k = 0; k < rise.size(); ++k) {
        t[rise.feature[k]] = std::max(0.0, arrival - rise.start[k]) / rise.rate[k];
      }
    }
    for (const Kind kind : {Kind::fall, Kind::logistic_fall}) {
      for (const std::size_t i : motions[kind].feature) t[i] = 0.0;  // from the start on
    }
    for (const Kind kind : {Kind::decay, Kind::logistic_decay, Kind::algebraic}) {
      for (const std::size_t i : motions[kind].feature) t[i] = infinity;
    }
    const Motion& logistic = motions[Kind::logistic_rise];  // e^tau = (v/(1 - v)) / (v0/(1 - v0)), v = fraction^2
    for (std::size_t k = 0; k < logistic.size(); ++k) {
      const double v = fraction * fraction, v0 = logistic.start[k];
      t[logistic.feature[k]] = v > v0 ? std::log1p((v - v0) / (v0 * (1 - v))) / logistic.rate[k] : 0.0;
    }
    std::for_each(motions.others.begin(), motions.others.end(), slowly);
  });
}

}  // namespace jepa_ode
