#include "jepa_ode/sample_moments.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "jepa_ode/row_job.hpp"

namespace jepa_ode {

namespace {

constexpr Index rows_of_part = 1024, most_parts = 64;
constexpr Index rows_of_block = 256;  // copied to where rows are padded

// Sums over rows [first, last). The symmetric ones are complete on and above the diagonal.
SampleMoments sums(const Samples& x, const Samples& y, Index first, Index last, Interrupt& interrupt) {
  const Index d = x.columns;
  PaddedMatrix xx(d, d), yx(d, d), yy(d, d);
  PaddedMatrix of_x, of_y;
  for (Index begin = first; begin < last; begin += rows_of_block) {
    const Index end = std::min(begin + rows_of_block, last);
    if (of_x.rows() != end - begin) of_x = of_y = PaddedMatrix(end - begin, d);
    using Kind = RowJob::Kind;
    RowWorker worker{{nullptr, begin}, {}, interrupt};
    RowJob{Kind::gather, &of_x, nullptr, nullptr, 1, nullptr, &x}.run(0, end - begin, worker);
    RowJob{Kind::gather, &of_y, nullptr, nullptr, 1, nullptr, &y}.run(0, end - begin, worker);
    worker.prefetch = {x, y, {nullptr, end}, 0, std::min(rows_of_block, last - end)};
    RowJob{Kind::gram, &xx, &of_x, nullptr, 1, &xx}.run(0, d, worker);
    RowJob{Kind::gram, &yy, &of_y, nullptr, 1, &yy}.run(0, d, worker);
    RowJob{Kind::product_left, &yx, &of_y, &of_x, 1, &yx}.run(0, d, worker);
  }
  SampleMoments sum{Matrix(d, d), Matrix(d, d), Matrix(d, d)};
  xx.copy_to(sum.xx.data());
  yx.copy_to(sum.yx.data());
  yy.copy_to(sum.yy.data());
  return sum;
}

}  // namespace

SampleMoments sample_moments(const double* x, const double* y, Index samples, Index d, unsigned threads,
                             Interrupt& interrupt) {
  const Index rows = std::max(rows_of_part, (samples + most_parts - 1) / most_parts);
  std::vector<SampleMoments> parts(static_cast<std::size_t>((samples + rows - 1) / rows));
  parallel_for(parts.size(), 1, threads, interrupt, [&](std::size_t begin, std::size_t end) {
    for (std::size_t k = begin; k < end; ++k) {
      const Index first = static_cast<Index>(k) * rows;
      parts[k] = sums({x, d}, {y, d}, first, std::min(first + rows, samples), interrupt);
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
    *moment = Matrix(moment->selfadjointView<Eigen::Upper>());
  }
  return total;
}

}  // namespace jepa_ode
