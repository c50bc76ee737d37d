// Products of matrices whose memory is kept.
//
// Small factors are read in place by the kernel of product_tile.hpp, those of up to a few hundred rows by
// tiled_product.hpp. Larger ones are Eigen's, who packs blocks of both factors before multiplying them, and allocates
// the memory for that anew in every product that needs more than 128 KiB of it (EIGEN_STACK_ALLOCATION_LIMIT). The
// limit could be raised, to the size of a cache; but stacks of threads are small on some systems. So the memory is kept
// here, and the rest is Eigen's: its block sizes and its kernel, to the bit. Threads share a product by rows of the
// result; as blocks are those of the whole, and rows are cut between those that a kernel takes together, that changes
// no bit.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <type_traits>
#include <vector>

#include "jepa_ode/product_tile.hpp"
#include "jepa_ode/team.hpp"
#include "jepa_ode/tiled_product.hpp"

namespace jepa_ode {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ConstMatrixView = Eigen::Map<const Matrix>;
using MatrixView = Eigen::Map<Matrix>;

// One per thread, or per team. Factors are matrices and views of them, or their transposes; `out` overlaps neither.
class MatrixProduct {
 public:
  MatrixProduct() = default;
  explicit MatrixProduct(Team& team) : team_(&team), blocks_(static_cast<std::size_t>(team.size())) {}  // one a part

  // How many rows of a product a thread should have, at least: work for some 30 microseconds.
  static Index least_rows(Index inner, Index columns) {
    return std::max(2 * kernel_rows, 800'000 / (inner * columns + 1));
  }

  // out = scale a b
  template <class Out, class A, class B>
  void assign(Out&& out, double scale, const A& a, const B& b) {
    if (is_direct(a, b)) {
      multiply_direct<false>(out, scale, a, b);
    } else if (TiledProduct::suits(a.rows(), a.cols(), b.cols())) {
      multiply_tiled<false>(out, scale, a, b);
    } else if (is_small(a, b)) {
      out.noalias() = scale * a * b;
    } else {
      multiply_packed<false>(out, scale, a, b);
    }
  }

  // out += scale a b
  template <class Out, class A, class B>
  void add(Out&& out, double scale, const A& a, const B& b) {
    if (is_direct(a, b)) {
      multiply_direct<true>(out, scale, a, b);
    } else if (TiledProduct::suits(a.rows(), a.cols(), b.cols())) {
      multiply_tiled<true>(out, scale, a, b);
    } else if (is_small(a, b)) {
      out.noalias() += scale * a * b;
    } else {
      multiply_packed<true>(out, scale, a, b);
    }
  }

 private:
  static constexpr Index kernel_rows = 8;  // a multiple of the rows that Eigen's kernel takes together

  // Factors that fit in the first cache together, and rows of whole packs.
  template <class A, class B>
  static bool is_direct(const A& a, const B& b) {
    constexpr Index least = 8, most = lanes == 4 ? 32 : 64;  // as far as it is faster than what follows
    const bool fits = std::max({a.rows(), a.cols(), b.cols()}) <= most && std::min(a.rows(), a.cols()) >= least;
    return fits && b.cols() >= least && b.cols() % pack_width == 0 && (B::IsRowMajor || a.cols() % 8 == 0);
  }

  template <bool add, class Out, class A, class B>
  void multiply_direct(Out& out, double scale, const A& a, const B& b) {
    const Index columns = b.cols(), inner = a.cols(), packs = columns / pack_width;
    const double* right = b.data();
    if constexpr (!B::IsRowMajor) right = transposed(b.data(), inner, columns);
    const auto panel = [&](auto count, Index first) {
      constexpr int n = decltype(count)::value;
      const auto tile = [&](auto height, Index i) {
        constexpr bool turned = !A::IsRowMajor;
        double* to = out.data() + i * columns + first * pack_width;
        product_tile<decltype(height)::value, n, turned>(a.data() + (turned ? i : i * inner), a.outerStride(),
                                                         right + first * pack_width, columns, inner, scale,
                                                         add ? to : nullptr, columns, to, columns);
      };
      Index i = 0;
      for (; i + tile_rows <= a.rows(); i += tile_rows) tile(std::integral_constant<int, tile_rows>{}, i);
      for (; i + 2 <= a.rows(); i += 2) tile(std::integral_constant<int, 2>{}, i);
      if (i < a.rows()) tile(std::integral_constant<int, 1>{}, i);
    };
    for (Index p = 0, count = 0; p < packs; p += count) {
      count = panel_packs(packs - p);
      if (count == 3) panel(std::integral_constant<int, 3>{}, p);
      if (count == 2) panel(std::integral_constant<int, 2>{}, p);
      if (count == 1) panel(std::integral_constant<int, 1>{}, p);
    }
  }

  // The transpose of what is stored as [columns, inner], in blocks of eight numbers of each row.
  const double* transposed(const double* stored, Index inner, Index columns) {
    double* to = grown(blocks_[0].b, inner * columns);
    for (Index j = 0; j < columns; j += pack_width) {
      for (Index k = 0; k < inner; k += 8) {
        Pack block[8];
        transpose_rows([&](std::size_t lane) { return stored + (j + static_cast<Index>(lane)) * inner + k; }, block);
        for (Index q = 0; q < 8; ++q) store(to + (k + q) * columns + j, block[q]);
      }
    }
    return to;
  }

  template <bool add, class Out, class A, class B>
  void multiply_tiled(Out& out, double scale, const A& a, const B& b) {
    for (Blocks& blocks : blocks_) blocks.tiled.reserve(a);  // here, as what a team does must not throw
    share(out.rows(), a.cols(), b.cols(), [&](Index begin, Index end, Index part) {
      blocks_[static_cast<std::size_t>(part)].tiled.run<add>(out, scale, a, b, begin, end);
    });
  }

  // body(begin, end, part) over the rows of a product.
  template <class Body>
  void share(Index rows, Index inner, Index columns, const Body& body) {
    if (team_) {
      team_->share(rows, least_rows(inner, columns), kernel_rows, body);
    } else {
      body(0, rows, 0);
    }
  }

  // What Eigen multiplies without packing: small matrices, vectors, and nothing at all.
  template <class A, class B>
  static bool is_small(const A& a, const B& b) {
    return a.rows() + a.cols() + b.cols() < EIGEN_GEMM_TO_COEFFBASED_THRESHOLD || a.rows() <= 1 || b.cols() <= 1;
  }

  using EigenBlocking = Eigen::internal::gemm_blocking_space<Eigen::RowMajor, double, double, Eigen::Dynamic,
                                                             Eigen::Dynamic, Eigen::Dynamic>;

  struct Blocks {
    Eigen::VectorXd a, b;
    TiledProduct tiled;
  };

  // Eigen's sizes of the blocks, in our memory.
  class Blocking : public EigenBlocking {
   public:
    Blocking(const EigenBlocking& sizes, Blocks& blocks) : EigenBlocking(sizes) {
      this->m_blockA = blocks.a.data();
      this->m_blockB = blocks.b.data();
    }
    ~Blocking() { this->m_blockA = this->m_blockB = nullptr; }  // or the base would free them
    Blocking(const Blocking&) = delete;
    Blocking& operator=(const Blocking&) = delete;
  };

  template <class Factor>
  static constexpr int order = Factor::IsRowMajor ? Eigen::RowMajor : Eigen::ColMajor;

  template <class A, class B>
  using EigenProduct = Eigen::internal::general_matrix_matrix_product<Index, double, order<A>, false, double, order<B>,
                                                                      false, Eigen::RowMajor, 1>;

  // Where row i of a factor that is stored in either order begins.
  template <class Factor>
  static const double* row(const Factor& factor, Index i) {
    return factor.data() + (Factor::IsRowMajor ? i * factor.outerStride() : i);
  }

  template <bool add, class Out, class A, class B>
  void multiply_packed(Out& out, double scale, const A& a, const B& b) {
    const Index inner = a.cols(), columns = out.cols(), stride = out.outerStride();
    const EigenBlocking sizes(out.rows(), columns, inner, 1, true);
    for (Blocks& blocks : blocks_) {  // as above
      grown(blocks.a, sizes.mc() * sizes.kc());
      grown(blocks.b, sizes.kc() * sizes.nc());
    }
    share(out.rows(), inner, columns, [&](Index begin, Index end, Index part) {
      if constexpr (!add) out.middleRows(begin, end - begin).setZero();
      Blocking blocking(sizes, blocks_[static_cast<std::size_t>(part)]);
      EigenProduct<A, B>::run(end - begin, columns, inner, row(a, begin), a.outerStride(), b.data(), b.outerStride(),
                              out.data() + begin * stride, 1, stride, scale, blocking);
    });
  }

  Team* team_ = nullptr;
  std::vector<Blocks> blocks_ = std::vector<Blocks>(1);
};

}  // namespace jepa_ode
