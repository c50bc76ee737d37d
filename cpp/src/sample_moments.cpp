#include "jepa_ode/sample_moments.hpp"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace jepa_ode {

namespace {

constexpr Index rows_of_block = 1024, most_blocks = 64;

SampleMoments sums(const ConstMatrixView& x, const ConstMatrixView& y) {
  const Index d = x.cols();
  SampleMoments sum{Matrix::Zero(d, d), Matrix::Zero(d, d), Matrix::Zero(d, d)};
  sum.xx.selfadjointView<Eigen::Lower>().rankUpdate(x.transpose());
  sum.yy.selfadjointView<Eigen::Lower>().rankUpdate(y.transpose());
  sum.yx.noalias() = y.transpose() * x;
  return sum;
}

}  // namespace

SampleMoments sample_moments(const double* x, const double* y, Index samples, Index d, unsigned threads,
                             Interrupt& interrupt) {
  const Index rows = std::max(rows_of_block, (samples + most_blocks - 1) / most_blocks);
  std::vector<SampleMoments> parts(static_cast<std::size_t>((samples + rows - 1) / rows));
  parallel_for(parts.size(), 1, threads, interrupt, [&](std::size_t begin, std::size_t end) {
    for (std::size_t k = begin; k < end; ++k) {
      const Index first = static_cast<Index>(k) * rows, count = std::min(rows, samples - first);
      parts[k] = sums({x + first * d, count, d}, {y + first * d, count, d});
    }
  });
  SampleMoments total = std::move(parts.front());
  for (std::size_t k = 1; k < parts.size(); ++k) {
    total.xx += parts[k].xx;
    total.yx += parts[k].yx;
    total.yy += parts[k].yy;
  }
  const double scale = 1 / static_cast<double>(samples);
  total.yx *= scale;
  for (Matrix* moment : {&total.xx, &total.yy}) {
    *moment *= scale;
    *moment = Matrix(moment->selfadjointView<Eigen::Lower>());
  }
  return total;
}

}  // namespace jepa_ode
