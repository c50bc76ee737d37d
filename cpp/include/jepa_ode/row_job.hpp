// Products of matrices by rows, so that threads can share them: any rows of the result, by whoever has time.
//
// An entry is one chain of multiply-adds over the inner index, cut into blocks that depend on the sizes alone. So its
// bits do not depend on which rows are computed together, hence not on the number of threads. At the sizes of
// training (d about 100) nothing is packed: a panel of the right factor stays in the first cache while the rows of the
// left one pass over it.
#pragma once

#include <cstdint>
#include <vector>

#include "jepa_ode/linear_network.hpp"
#include "jepa_ode/parallel.hpp"

namespace jepa_ode {

// Row-major, each row filled with zeros to an odd number of packs: whole packs can be read and written, and the rows of
// a column lie in different sets of the cache.
class PaddedMatrix {
 public:
  PaddedMatrix() = default;
  PaddedMatrix(Index rows, Index columns);

  Index rows() const { return entries_.rows(); }
  Index columns() const { return columns_; }
  Index stride() const { return entries_.cols(); }
  double* row(Index i) { return entries_.data() + i * stride(); }
  const double* row(Index i) const { return entries_.data() + i * stride(); }

  // From and to a matrix without padding.
  void assign(const double* dense);
  void copy_to(double* dense) const;

 private:
  Matrix entries_;
  Index columns_ = 0;
};

// Samples [*, columns], one in a row.
struct Samples {
  const double* data = nullptr;
  Index columns = 0;
};

// Those of a batch begin at row `first`, or at position `first` of a list of rows.
struct BatchRows {
  const std::int64_t* rows = nullptr;  // null: in the order of the data
  std::int64_t first = 0;

  std::int64_t operator[](Index i) const { return rows ? rows[first + i] : first + i; }
};

// The samples of the next batch, asked for from memory little by little while products keep the processor busy.
class Prefetch {
 public:
  Prefetch() = default;
  Prefetch(const Samples& x, const Samples& y, const BatchRows& batch, Index begin, Index end)
      : samples_{&x, &y}, batch_(batch), next_(2 * begin), end_(2 * end) {}

  void step() noexcept;

 private:
  const Samples* samples_[2] = {nullptr, nullptr};
  BatchRows batch_;
  Index next_ = 0, end_ = 0;  // rows of x and y in turns
};

// What a rank brings to its share of a job.
struct RowWorker {
  BatchRows batch;
  Prefetch prefetch;
  Interrupt& interrupt;
};

// One step of a computation on matrices, whose rows can be done in any order.
struct RowJob {
  enum class Kind {
    product,       // to = base + scale A B
    product_left,  // to = base + scale A^T B
    gram,          // to = scale A^T A, on and above the diagonal
    mirror,        // to below the diagonal = to above it
    transpose,     // to = A^T
    gather         // to = the samples of the batch
  };

  Kind kind;
  PaddedMatrix* to;
  const PaddedMatrix* a = nullptr;
  const PaddedMatrix* b = nullptr;
  double scale = 1.0;
  const PaddedMatrix* base = nullptr;  // null: zero; may be `to`
  const Samples* samples = nullptr;

  // In floating-point operations, or what takes as long; a whole number, so that sums are exact.
  double work() const;
  Index row_at(double share) const;  // rows [0, row_at(share)) are about this share of the work
  void run(Index begin, Index end, RowWorker& worker) const;
};

// Rows of a job, for a rank to do at a time.
struct RowTask {
  const RowJob* job;
  Index begin, end;
};

// Jobs that do not depend on each other, cut so that all ranks have as much to do, in pieces that get smaller: a rank
// that is done early can help with the last ones of the others.
std::vector<std::vector<RowTask>> row_tasks(const std::vector<RowJob>& jobs, unsigned ranks);

}  // namespace jepa_ode
