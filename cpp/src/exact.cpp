#include "jepa_ode/exact.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "jepa_ode/feature_curve.hpp"

namespace jepa_ode {

void solve_exact(const MasterCurve& curve, const Ensemble& features, const double* times, std::size_t n_times,
                 bool row_per_feature, unsigned threads, Interrupt& interrupt, double* w, Status* status) {
  std::fill(status, status + features.size, Status::ok);
  if (n_times == 0) return;
  // Pieces of (feature, time) pairs, some milliseconds long whatever the depth: Ctrl-C is heard between them.
  const std::size_t grain = 1 + static_cast<std::size_t>(4096 / (1 + curve.p / 64));
  const std::size_t count = features.size * n_times;
  std::vector<std::uint8_t> overflowed(count / grain + 1);  // per piece: two pieces of a row must not write one status
  parallel_for(count, grain, threads, interrupt, [&](std::size_t begin, std::size_t end) {
    for (std::size_t k = begin; k < end;) {
      const std::size_t i = k / n_times;
      const FeatureCurve feature(curve, features.lambda[i], features.sigma2[i], features.eps[i]);
      const std::size_t stop = std::min(end, (i + 1) * n_times);
      const double* row = row_per_feature ? times + i * n_times : times;
      for (; k < stop; ++k) {
        w[k] = feature.response(row[k - i * n_times]);
        if (!std::isfinite(w[k])) {  // responses beyond the largest double: the fixed point of a deep encoder can be
          w[k] = std::numeric_limits<double>::quiet_NaN();
          overflowed[begin / grain] = 1;
        }
      }
    }
  });
  for (std::size_t piece = 0; piece < overflowed.size(); ++piece) {
    if (!overflowed[piece]) continue;
    for (std::size_t k = piece * grain; k < std::min(count, (piece + 1) * grain); ++k) {
      if (std::isnan(w[k])) status[k / n_times] = Status::not_finite;
    }
  }
}

void time_to_reach(const MasterCurve& curve, const Ensemble& features, const double* w, unsigned threads,
                   Interrupt& interrupt, double* t) {
  parallel_for(features.size, 512, threads, interrupt, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      t[i] = FeatureCurve(curve, features.lambda[i], features.sigma2[i], features.eps[i]).time_to_reach(w[i]);
    }
  });
}

void critical_time(const MasterCurve& curve, const Ensemble& features, double fraction, unsigned threads,
                   Interrupt& interrupt, double* t) {
  parallel_for(features.size, 512, threads, interrupt, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      t[i] = FeatureCurve(curve, features.lambda[i], features.sigma2[i], features.eps[i]).time_to_fraction(fraction);
    }
  });
}

}  // namespace jepa_ode
