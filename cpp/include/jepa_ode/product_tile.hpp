// A tile of a product of matrices that stays in registers: the kernel of products of matrices.
#pragma once

#include <Eigen/Core>
#include <cstring>

#include "jepa_ode/pack.hpp"

namespace jepa_ode {

using Eigen::Index;

constexpr Index pack_width = static_cast<Index>(lanes);
// A tile of the result fits in registers beside a row of the right factor and an entry of the left one: of 32
// registers, or of 16, where without a fused multiply-add one more is needed.
constexpr int tile_rows = lanes == 8 ? 8 : 4, tile_packs = lanes >= 4 ? 3 : 2;

// How many packs of columns to multiply next when so many are left. Of four two and two, rather than three and one: a
// single one would leave the processor waiting for its sums.
constexpr Index panel_packs(Index left) {
  if (tile_packs == 3 && left == 4) return 2;
  return left < tile_packs ? left : tile_packs;
}

// The factors that a tile is the first to read. It asks memory for what the next one reads, as a processor does not
// foresee that in matrices whose rows are far apart, and leaves them packed: all that belongs to the first k, then to
// the next.
enum class Fresh { nothing, left, right, both };

// to[i, j] = base[i, j] + scale * sum_k left[i, k] right[k, j] for Rows rows and Packs packs of columns. A left factor
// is packed only if it is transposed.
template <int Rows, int Packs, bool Transposed, Fresh fresh = Fresh::nothing>
void product_tile(const double* a, Index a_stride, const double* b, Index b_stride, Index inner, double scale,
                  const double* base, Index base_stride, double* to, Index to_stride,
                  [[maybe_unused]] double* packed_left = nullptr, [[maybe_unused]] double* packed_right = nullptr) {
  constexpr bool left_is_fresh = fresh == Fresh::left || fresh == Fresh::both;
  constexpr bool right_is_fresh = fresh == Fresh::right || fresh == Fresh::both;
  constexpr Index line = 8;  // numbers that come together
  if (base) {                // read last, when it is too late to ask
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 8
      for (int p = 0; p < Packs; ++p) __builtin_prefetch(base + i * base_stride + p * pack_width);
    }
  }
  Pack sum[Rows][Packs] = {};
  for (Index k = 0; k < inner; ++k) {
    Pack right[Packs];
#pragma GCC unroll 8
    for (int p = 0; p < Packs; ++p) {
      right[p] = load(b + k * b_stride + p * pack_width);
      if constexpr (right_is_fresh) {
        store(packed_right + (k * Packs + p) * pack_width, right[p]);
        __builtin_prefetch(b + k * b_stride + (Packs + p) * pack_width, 0, 2);
      }
    }
    if constexpr (left_is_fresh && Transposed) {
      std::memcpy(packed_left + k * Rows, a + k * a_stride, Rows * sizeof(double));
      __builtin_prefetch(a + k * a_stride + Rows, 0, 2);
    } else if constexpr (left_is_fresh) {
      __builtin_prefetch(a + (Rows + k % Rows) * a_stride + k / Rows * line, 0, 2);
    }
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const Pack left = (Transposed ? a[k * a_stride + i] : a[i * a_stride + k]) - Pack{};
#pragma GCC unroll 8
      for (int p = 0; p < Packs; ++p) sum[i][p] = fma(left, right[p], sum[i][p]);
    }
  }
  const Pack factor = scale - Pack{};
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 8
    for (int p = 0; p < Packs; ++p) {
      const Pack before = base ? load(base + i * base_stride + p * pack_width) : Pack{};
      store(to + i * to_stride + p * pack_width, fma(factor, sum[i][p], before));
    }
  }
}

}  // namespace jepa_ode
