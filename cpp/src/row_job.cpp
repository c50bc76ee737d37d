#include "jepa_ode/row_job.hpp"

#include <algorithm>
#include <cmath>

#include "jepa_ode/product_tile.hpp"

namespace jepa_ode {

namespace {

// So many rows of a panel of the right factor, and of a tile's rows of the left one, fit in a first cache of 32 KiB.
constexpr Index inner_block = 128;

constexpr Index width = pack_width;

Index packs_of(Index columns) { return (columns + width - 1) / width; }

template <int Rows, int Packs>
void multiply_tile(const RowJob& job, Index i, Index pack_index, Index k, Index inner, const PaddedMatrix* base) {
  const Index j = pack_index * width;
  const PaddedMatrix& right = job.kind == RowJob::Kind::gram ? *job.a : *job.b;
  const double* before = base ? base->row(i) + j : nullptr;
  const Index before_stride = base ? base->stride() : 0;
  const Index a_stride = job.a->stride();
  if (job.kind == RowJob::Kind::product) {
    product_tile<Rows, Packs, false>(job.a->row(i) + k, a_stride, right.row(k) + j, right.stride(), inner, job.scale,
                                     before, before_stride, job.to->row(i) + j, job.to->stride());
  } else {
    product_tile<Rows, Packs, true>(job.a->row(k) + i, a_stride, right.row(k) + j, right.stride(), inner, job.scale,
                                    before, before_stride, job.to->row(i) + j, job.to->stride());
  }
}

// Rows [begin, end) of a panel of Packs packs, in tiles as high as fit.
template <int Packs>
void multiply_panel(const RowJob& job, Index begin, Index end, Index pack_index, Index k, Index inner,
                    const PaddedMatrix* base, Prefetch& prefetch) {
  Index i = begin;
  for (; i + tile_rows <= end; i += tile_rows) {
    prefetch.step();
    multiply_tile<tile_rows, Packs>(job, i, pack_index, k, inner, base);
  }
  if constexpr (tile_rows > 4) {
    for (; i + 4 <= end; i += 4) multiply_tile<4, Packs>(job, i, pack_index, k, inner, base);
  }
  for (; i + 2 <= end; i += 2) multiply_tile<2, Packs>(job, i, pack_index, k, inner, base);
  for (; i < end; ++i) multiply_tile<1, Packs>(job, i, pack_index, k, inner, base);
}

void multiply_packs(Index packs, const RowJob& job, Index begin, Index end, Index pack_index, Index k, Index inner,
                    const PaddedMatrix* base, Prefetch& prefetch) {
  if (packs == 3) multiply_panel<3>(job, begin, end, pack_index, k, inner, base, prefetch);
  if (packs == 2) multiply_panel<2>(job, begin, end, pack_index, k, inner, base, prefetch);
  if (packs == 1) multiply_panel<1>(job, begin, end, pack_index, k, inner, base, prefetch);
}

void multiply(const RowJob& job, Index begin, Index end, RowWorker& worker) {
  const Index inner = job.kind == RowJob::Kind::product ? job.a->columns() : job.a->rows();
  const Index packs = packs_of(job.to->columns());
  const Index blocks = (inner + inner_block - 1) / inner_block;
  for (Index block = 0; block < blocks; ++block) {
    const Index k = inner * block / blocks;
    const Index length = inner * (block + 1) / blocks - k;
    const PaddedMatrix* base = block == 0 ? job.base : job.to;
    if (worker.interrupt.stop()) return;
    for (Index p = 0, count = 0; p < packs; p += count) {
      count = panel_packs(packs - p);
      if (job.kind != RowJob::Kind::gram) {
        multiply_packs(count, job, begin, end, p, k, length, base, worker.prefetch);
        continue;
      }
      for (Index q = p; q < p + count; ++q) {  // down to the diagonal, pack by pack
        const Index above = q == p ? begin : std::max(begin, q * width);
        multiply_packs(p + count - q, job, above, std::min(end, (q + 1) * width), q, k, length, base, worker.prefetch);
      }
    }
  }
}

// Rows [i, i + rows) of the transpose, and of them the first columns; at most eight rows.
void transpose(const PaddedMatrix& from, PaddedMatrix& to, Index i, Index rows, Index columns) {
  Index j = 0;
  for (; rows == 8 && j + width <= columns; j += width) {
    Pack block[8];
    transpose_rows([&](std::size_t lane) noexcept { return from.row(j + static_cast<Index>(lane)) + i; }, block);
    for (Index q = 0; q < 8; ++q) store(to.row(i + q) + j, block[q]);
  }
  for (; j < columns; ++j) {
    for (Index q = 0; q < rows; ++q) to.row(i + q)[j] = from.row(j)[i + q];
  }
}

}  // namespace

PaddedMatrix::PaddedMatrix(Index rows, Index columns)
    : entries_(Matrix::Zero(rows, (packs_of(columns) | 1) * width)), columns_(columns) {}

void PaddedMatrix::assign(const double* dense) {
  entries_.leftCols(columns_) = ConstMatrixView(dense, rows(), columns_);
}

void PaddedMatrix::copy_to(double* dense) const { MatrixView(dense, rows(), columns_) = entries_.leftCols(columns_); }

void Prefetch::step() noexcept {
  if (next_ >= end_) return;
  constexpr Index line = 64 / sizeof(double);
  const Samples& from = *samples_[next_ % 2];
  const double* row = from.data + batch_[next_ / 2] * from.columns;
  for (Index j = 0; j < from.columns; j += line) __builtin_prefetch(row + j, 0, 2);
  ++next_;
}

double RowJob::work() const {
  const double size = static_cast<double>(to->rows() * to->columns());
  switch (kind) {
    case Kind::product:
      return 2 * size * static_cast<double>(a->columns());
    case Kind::product_left:
      return 2 * size * static_cast<double>(a->rows());
    case Kind::gram:
      return std::floor(1.15 * size) * static_cast<double>(a->rows());  // half the tiles and those on the diagonal
    case Kind::mirror:
    case Kind::gather:
      return 8 * size;  // as measured
    case Kind::transpose:
      return 16 * size;
  }
  return 0;
}

Index RowJob::row_at(double share) const {
  if (share <= 0) return 0;
  if (share >= 1) return to->rows();
  if (kind == Kind::gram) share = 1 - std::sqrt(1 - share);
  if (kind == Kind::mirror) share = std::sqrt(share);
  return 2 * static_cast<Index>(share * static_cast<double>(to->rows()) / 2);
}

void RowJob::run(Index begin, Index end, RowWorker& worker) const {
  switch (kind) {
    case Kind::product:
    case Kind::product_left:
    case Kind::gram:
      multiply(*this, begin, end, worker);
      return;
    case Kind::mirror:
      for (Index i = begin; i < end; i += 8) {
        const Index rows = std::min<Index>(8, end - i);
        transpose(*to, *to, i, rows, i);
        for (Index q = 1; q < rows; ++q) {
          for (Index j = i; j < i + q; ++j) to->row(i + q)[j] = to->row(j)[i + q];
        }
      }
      return;
    case Kind::transpose:
      for (Index i = begin; i < end; i += 8) transpose(*a, *to, i, std::min<Index>(8, end - i), to->columns());
      return;
    case Kind::gather:
      for (Index i = begin; i < end; ++i) {
        std::copy_n(samples->data + worker.batch[i] * samples->columns, samples->columns, to->row(i));
      }
      return;
  }
}

std::vector<std::vector<RowTask>> row_tasks(const std::vector<RowJob>& jobs, unsigned ranks) {
  double total = 0;
  for (const RowJob& job : jobs) total += job.work();
  std::vector<std::vector<RowTask>> parts(ranks);
  for (unsigned rank = 0; rank < ranks; ++rank) {
    const double begin = total * rank / ranks, end = total * (rank + 1) / ranks;
    double before = 0;
    for (const RowJob& job : jobs) {
      const double work = job.work();
      const Index first = job.row_at((begin - before) / work), last = job.row_at((end - before) / work);
      for (Index row = first; row < last;) {
        const Index left = last - row, half = (left + tile_rows) / (2 * tile_rows) * tile_rows;
        const Index rows = left < 2 * tile_rows ? left : half;
        parts[rank].push_back({&job, row, row + rows});
        row += rows;
      }
      before += work;
    }
  }
  return parts;
}

}  // namespace jepa_ode
