// Products of matrices of up to a few hundred rows, by tiles.
//
// A panel of the right factor, as wide as a tile, stays in the first cache while the rows of the left one pass over it.
// Packing what is multiplied costs Eigen a tenth of the time of such a product, and more where rows are not whole
// packs. Here a panel's first tile reads it where it is and leaves it packed for the others: while it multiplies there
// is time for that. The left factor is read in place, or likewise packed by the first panel's tiles if it is the
// transpose of a matrix whose rows are far apart.
//
// An entry is a chain of multiply-adds over the inner index, cut into blocks that depend on the sizes alone: its bits
// do not depend on which rows are computed together, hence not on the number of threads.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <type_traits>

#include "jepa_ode/product_tile.hpp"

namespace jepa_ode {

// Memory for so many numbers at least; what it held is lost where it grows.
inline double* grown(Eigen::VectorXd& memory, Index size) {
  if (memory.size() < size) memory = Eigen::VectorXd(size);  // what throws in resize leaves a freed one
  return memory.data();
}

class TiledProduct {
 public:
  // Where this is faster than Eigen's products, as measured (bench/bench_right_hand_side.py). Larger factors leave the
  // second cache and are better packed before.
  static bool suits(Index rows, Index inner, Index columns) {
    constexpr Index least = 8, most = lanes == 8 ? 288 : lanes == 4 ? 512 : 0;
    return std::min({rows, inner, columns}) >= least && std::max({rows, inner, columns}) <= most;
  }

  // The memory that a product with this left factor takes.
  template <class A>
  void reserve(const A& a) {
    const Index length = std::min(a.cols(), inner_block);
    grown(panel_, length * tile_packs * pack_width);
    if (!A::IsRowMajor) grown(left_, length * a.rows());
  }

  // Rows [begin, end) of out = scale a b, or of out += scale a b: tile_rows of them or more.
  template <bool add, class Out, class A, class B>
  void run(Out& out, double scale, const A& a, const B& b, Index begin, Index end) noexcept {
    const Index inner = a.cols(), blocks = (inner + inner_block - 1) / inner_block;
    const Index packs = (b.cols() + pack_width - 1) / pack_width;
    for (Index block = 0; block < blocks; ++block) {
      const Index k = inner * block / blocks, length = inner * (block + 1) / blocks - k;
      for (Index pack = 0, count = 0; pack < packs; pack += count) {
        count = panel_packs(packs - pack);
        const Range range{begin, end, k, length, pack * pack_width, add || block > 0};
        if (count == 3) multiply_panel<3>(out, scale, a, b, range);
        if (count == 2) multiply_panel<2>(out, scale, a, b, range);
        if (count == 1) multiply_panel<1>(out, scale, a, b, range);
      }
    }
  }

 private:
  static constexpr Index inner_block = 256;  // rows of a panel that stay in caches near enough
  static constexpr Index far = 12'000;       // numbers between the first row of a block and its last, when it is packed

  // What of a product is computed next: rows [begin, end) of the panel from `column` on, with inner indices
  // [k, k + length).
  struct Range {
    Index begin, end, k, length, column;
    bool adds;  // to what is there
  };

  // Of a factor, where it is or packed.
  struct Entries {
    const double* data;
    Index stride;
  };

  template <Fresh fresh>
  using Is = std::integral_constant<Fresh, fresh>;

  template <int packs, class Out, class A, class B>
  void multiply_panel(Out& out, double scale, const A& a, const B& b, const Range& range) noexcept {
    if (range.column + packs * pack_width <= b.cols()) {
      multiply_panel<packs, true>(out, scale, a, b, range);
    } else {
      multiply_panel<packs, false>(out, scale, a, b, range);
    }
  }

  // `whole`: all columns of the panel are columns of the product.
  template <int packs, bool whole, class Out, class A, class B>
  void multiply_panel(Out& out, double scale, const A& a, const B& b, const Range& range) noexcept {
    constexpr bool turned = !A::IsRowMajor;
    constexpr Index width = packs * pack_width;
    const Index k = range.k, j = range.column, length = range.length;
    const Index a_stride = a.outerStride(), out_stride = out.outerStride();
    const Entries packed{panel_.data(), width};
    Entries right = packed;
    bool is_fresh = false;
    if constexpr (whole && B::IsRowMajor) {
      right = {b.data() + k * b.outerStride() + j, b.outerStride()};
      is_fresh = true;
    } else {
      pack_panel(b, range, std::min(width, b.cols() - j), width);
    }
    const bool packs_left = turned && length * a_stride > far;
    const auto in_place = [&](Index i) -> Entries {
      return {a.data() + (turned ? k * a_stride + i : i * a_stride + k), a_stride};
    };
    const auto packed_left = [&](Index i) { return left_.data() + (i - range.begin) * length; };

    const auto tile = [&](auto height, auto fresh, Index i, const Entries& left) {
      constexpr int rows = decltype(height)::value;
      constexpr Fresh is = decltype(fresh)::value;
      double* to = out.data() + i * out_stride + j;
      double* to_left = packs_left ? packed_left(i) : nullptr;
      const auto multiply = [&](double* result, Index stride) {
        product_tile<rows, packs, turned, is>(left.data, left.stride, right.data, right.stride, length, scale,
                                              range.adds ? result : nullptr, stride, result, stride, to_left,
                                              panel_.data());
      };
      if constexpr (whole) {
        multiply(to, out_stride);
      } else {
        const Index columns = b.cols() - j;
        double result[rows * width] = {};
        for (Index r = 0; range.adds && r < rows; ++r) std::copy_n(to + r * out_stride, columns, result + r * width);
        multiply(result, width);
        for (Index r = 0; r < rows; ++r) std::copy_n(result + r * width, columns, to + r * out_stride);
      }
    };
    const auto high = std::integral_constant<int, tile_rows>{};
    Index i = range.begin;
    const auto high_tiles = [&](auto first, auto next, const auto& left) {
      if (is_fresh) {
        tile(high, first, i, left(i));
        right = packed;
        i += tile_rows;
      }
      for (; i + tile_rows <= range.end; i += tile_rows) tile(high, next, i, left(i));
    };
    if (j == 0 && (!turned || packs_left)) {
      high_tiles(Is<Fresh::both>{}, Is<Fresh::left>{}, in_place);
    } else if (packs_left) {
      high_tiles(Is<Fresh::right>{}, Is<Fresh::nothing>{},
                 [&](Index row) { return Entries{packed_left(row), tile_rows}; });
    } else {
      high_tiles(Is<Fresh::right>{}, Is<Fresh::nothing>{}, in_place);
    }
    const auto low_tiles = [&](auto height) {
      constexpr int rows = decltype(height)::value;
      for (; i + rows <= range.end; i += rows) tile(height, Is<Fresh::nothing>{}, i, in_place(i));
    };
    if constexpr (tile_rows > 4) low_tiles(std::integral_constant<int, 4>{});
    low_tiles(std::integral_constant<int, 2>{});
    low_tiles(std::integral_constant<int, 1>{});
  }

  // The columns of a panel, with zeros up to its width.
  template <class B>
  void pack_panel(const B& b, const Range& range, Index columns, Index width) noexcept {
    const Index stride = b.outerStride(), length = range.length;
    double* panel = panel_.data();
    if constexpr (B::IsRowMajor) {
      for (Index r = 0; r < length; ++r) {
        std::copy_n(b.data() + (range.k + r) * stride + range.column, columns, panel + r * width);
        std::fill(panel + r * width + columns, panel + (r + 1) * width, 0.0);
      }
      return;
    }
    const double* stored = b.data() + range.column * stride + range.k;  // columns one after the other
    const auto pack_column = [&](Index c, Index first) {
      for (Index r = first; r < length; ++r) panel[r * width + c] = c < columns ? stored[c * stride + r] : 0;
    };
    Index c = 0;
    for (; c + pack_width <= columns; c += pack_width) {
      Index r = 0;
      for (; r + 8 <= length; r += 8) {
        Pack block[8];
        const auto column = [&](std::size_t lane) noexcept {
          return stored + (c + static_cast<Index>(lane)) * stride + r;
        };
        transpose_rows(column, block);
        for (Index q = 0; q < 8; ++q) store(panel + (r + q) * width + c, block[q]);
      }
      for (Index lane = 0; lane < pack_width; ++lane) pack_column(c + lane, r);
    }
    for (; c < width; ++c) pack_column(c, 0);
  }

  Eigen::VectorXd panel_, left_;
};

}  // namespace jepa_ode
