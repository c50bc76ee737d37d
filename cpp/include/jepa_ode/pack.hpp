// Packs of doubles: the SIMD lanes of the instruction set that this file is compiled for.
//
// A pack is a vector of GCC and Clang, so + - * / and comparisons are written as for numbers, and `mask ? a : b`
// becomes `select(mask, a, b)`. What the language has no word for is named below, once per instruction set. Every
// operation acts on each lane alone, so the value of a lane does not depend on the width or on its neighbours; between
// instruction sets only `fma` differs (without the instruction it rounds twice).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

// For what is called from one loop alone and long: a call would pass its packs through memory.
#define JEPA_ODE_INLINE inline __attribute__((always_inline))

namespace jepa_ode {

#if defined(__AVX512F__)
constexpr std::size_t lanes = 8;
#elif defined(__AVX2__)
constexpr std::size_t lanes = 4;
#else
constexpr std::size_t lanes = 2;
#endif

using Pack = double __attribute__((vector_size(lanes * sizeof(double))));
using IntPack = std::int64_t __attribute__((vector_size(lanes * sizeof(std::int64_t))));
using Mask = IntPack;  // of a comparison: all bits of a lane, or none

inline Pack load(const double* from) noexcept {
  Pack x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

inline void store(double* to, Pack x) noexcept { std::memcpy(to, &x, sizeof x); }

inline Pack pack(double x) noexcept { return x - Pack{}; }

// The first `count` lanes from and to memory, no byte beyond them. Lanes not loaded are `other`.
inline Pack load_first(const double* from, std::size_t count, double other) noexcept {
#if defined(__AVX512F__)
  return _mm512_mask_loadu_pd(pack(other), static_cast<__mmask8>((1u << count) - 1), from);
#else
  Pack x = pack(other);
  for (std::size_t i = 0; i < lanes; ++i) {
    if (i < count) x[i] = from[i];
  }
  return x;
#endif
}

template <class Real>  // double or float
inline void store_first(Real* to, Pack x, std::size_t count) noexcept {
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask8>((1u << count) - 1);
  if constexpr (sizeof(Real) == sizeof(double)) {
    _mm512_mask_storeu_pd(to, mask, x);
  } else {
    _mm256_mask_storeu_ps(to, mask, _mm512_cvtpd_ps(x));
  }
#else
  for (std::size_t i = 0; i < lanes; ++i) {
    if (i < count) to[i] = static_cast<Real>(x[i]);
  }
#endif
}

inline IntPack int_pack(std::int64_t x) noexcept { return x - IntPack{}; }

// 0, 1, 2, ...
inline IntPack lane_numbers() noexcept {
  IntPack k{};
  for (std::size_t i = 0; i < lanes; ++i) k[i] = static_cast<std::int64_t>(i);
  return k;
}

inline IntPack bits_of(Pack x) noexcept { return reinterpret_cast<IntPack>(x); }

inline Pack from_bits(IntPack bits) noexcept { return reinterpret_cast<Pack>(bits); }

inline Pack select(Mask mask, Pack a, Pack b) noexcept { return mask ? a : b; }

inline Pack abs(Pack x) noexcept { return from_bits(bits_of(x) & int_pack(0x7fffffffffffffff)); }

// As `a < b ? a : b` and `a > b ? a : b`: b where either is NaN.
inline Pack min(Pack a, Pack b) noexcept {
#if defined(__AVX512F__)
  return _mm512_min_pd(a, b);
#elif defined(__AVX2__)
  return _mm256_min_pd(a, b);
#elif defined(__SSE2__)
  return _mm_min_pd(a, b);
#else
  return a < b ? a : b;
#endif
}

inline Pack max(Pack a, Pack b) noexcept {
#if defined(__AVX512F__)
  return _mm512_max_pd(a, b);
#elif defined(__AVX2__)
  return _mm256_max_pd(a, b);
#elif defined(__SSE2__)
  return _mm_max_pd(a, b);
#else
  return a > b ? a : b;
#endif
}

inline Pack fma(Pack a, Pack b, Pack c) noexcept {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_pd(a, b, c);
#else
  return a * b + c;
#endif
}

inline Pack sqrt(Pack x) noexcept {
#if defined(__AVX512F__)
  return _mm512_sqrt_pd(x);
#elif defined(__AVX2__)
  return _mm256_sqrt_pd(x);
#elif defined(__SSE2__)
  return _mm_sqrt_pd(x);
#else
  for (std::size_t i = 0; i < lanes; ++i) x[i] = std::sqrt(x[i]);
  return x;
#endif
}

// 1/sqrt(x) to 1.5 units of the last place, for 1e-290 < x < 1e290.
inline Pack reciprocal_sqrt(Pack x) noexcept {
#if defined(__AVX512F__)
  // From 14 bits by one step of order 4: a quarter of what square root and quotient take.
  const Pack r = _mm512_rsqrt14_pd(x);
  const Pack e = fma(x * r, -r, pack(1.0));
  const Pack more = fma(fma(pack(5.0 / 16), e, pack(3.0 / 8)), e, pack(0.5));
  return fma(r * e, more, r);
#else
  return pack(1.0) / sqrt(x);
#endif
}

// table[index] of each lane.
inline Pack gather(const double* table, IntPack index) noexcept {
#if defined(__AVX512F__)
  return _mm512_i64gather_pd(reinterpret_cast<__m512i>(index), table, 8);
#elif defined(__AVX2__)
  return _mm256_i64gather_pd(table, reinterpret_cast<__m256i>(index), 8);
#else
  Pack x{};
  for (std::size_t i = 0; i < lanes; ++i) x[i] = table[index[i]];
  return x;
#endif
}

inline void store(float* to, Pack x) noexcept {
#if defined(__AVX512F__)
  _mm256_storeu_ps(to, _mm512_cvtpd_ps(x));
#elif defined(__AVX2__)
  _mm_storeu_ps(to, _mm256_cvtpd_ps(x));
#else
  for (std::size_t i = 0; i < lanes; ++i) to[i] = static_cast<float>(x[i]);
#endif
}

// columns[k][lane] = row(lane)[k]: eight numbers of each row cost one or two loads and the transposition, where eight
// gathers would take several times as long.
template <class Row>
inline void transpose_rows(const Row& row, Pack (&columns)[8]) noexcept {
#if defined(__AVX512F__)
  // Rows 0 and 2, 1 and 3, ... side by side: their halves then need two shuffles a column and not three.
  for (std::size_t half = 0; half < 8; half += 4) {
    const auto pair = [&](std::size_t i) noexcept {
      const __m512d low = _mm512_castpd256_pd512(_mm256_loadu_pd(row(i) + half));
      return _mm512_insertf64x4(low, _mm256_loadu_pd(row(i + 2) + half), 1);
    };
    const __m512d r02 = pair(0), r13 = pair(1), r46 = pair(4), r57 = pair(5);
    const __m512d a = _mm512_unpacklo_pd(r02, r13), b = _mm512_unpackhi_pd(r02, r13);
    const __m512d c = _mm512_unpacklo_pd(r46, r57), d = _mm512_unpackhi_pd(r46, r57);
    columns[half] = _mm512_shuffle_f64x2(a, c, 0x88);
    columns[half + 1] = _mm512_shuffle_f64x2(b, d, 0x88);
    columns[half + 2] = _mm512_shuffle_f64x2(a, c, 0xdd);
    columns[half + 3] = _mm512_shuffle_f64x2(b, d, 0xdd);
  }
#elif defined(__AVX2__)
  for (std::size_t half = 0; half < 8; half += 4) {
    __m256d r[4];
    for (std::size_t i = 0; i < 4; ++i) r[i] = _mm256_loadu_pd(row(i) + half);
    const __m256d a = _mm256_unpacklo_pd(r[0], r[1]), b = _mm256_unpackhi_pd(r[0], r[1]);
    const __m256d c = _mm256_unpacklo_pd(r[2], r[3]), d = _mm256_unpackhi_pd(r[2], r[3]);
    columns[half] = _mm256_permute2f128_pd(a, c, 0x20);
    columns[half + 1] = _mm256_permute2f128_pd(b, d, 0x20);
    columns[half + 2] = _mm256_permute2f128_pd(a, c, 0x31);
    columns[half + 3] = _mm256_permute2f128_pd(b, d, 0x31);
  }
#else
  for (std::size_t k = 0; k < 8; ++k) {
    for (std::size_t i = 0; i < lanes; ++i) columns[k][i] = row(i)[k];
  }
#endif
}

// columns[k][lane] = table[8 * row[lane] + k]: a row of eight numbers is one cache line.
inline void load_rows(const double* table, IntPack row, Pack (&columns)[8]) noexcept {
  transpose_rows([&](std::size_t lane) noexcept { return table + 8 * row[lane]; }, columns);
}

// How many neighbours `pick` chooses from; 0: no instruction does that.
#if defined(__AVX512F__)
constexpr std::size_t window = 16;
#else
constexpr std::size_t window = 0;
#endif

// from[index] of each lane, 0 <= index < window: two loads and one instruction.
inline Pack pick([[maybe_unused]] const double* from, [[maybe_unused]] IntPack index) noexcept {
#if defined(__AVX512F__)
  return _mm512_permutex2var_pd(load(from), reinterpret_cast<__m512i>(index), load(from + lanes));
#else
  return Pack{};
#endif
}

// The nearest whole number, for |x| < 2^51.
inline Pack round(Pack x) noexcept {
  const Pack shift = pack(0x1.8p52);
  return (x + shift) - shift;
}

// A whole number |k| < 2^51 as a double, and back.
inline Pack to_double(IntPack k) noexcept {
  const Pack shift = pack(0x1.8p52);
  return from_bits(k + bits_of(shift)) - shift;
}

inline IntPack to_int(Pack k) noexcept {
  const Pack shift = pack(0x1.8p52);
  return bits_of(k + shift) - bits_of(shift);
}

// x * 2^n where both are normal numbers; n is a whole number.
inline Pack ldexp(Pack x, Pack n) noexcept { return from_bits(bits_of(x) + (to_int(n) << 52)); }

// One bit for each lane of a comparison, that of lane 0 the lowest.
inline unsigned bits(Mask mask) noexcept {
#if defined(__AVX512F__)
  return _mm512_movepi64_mask(reinterpret_cast<__m512i>(mask));
#elif defined(__AVX2__)
  return static_cast<unsigned>(_mm256_movemask_pd(reinterpret_cast<Pack>(mask)));
#elif defined(__SSE2__)
  return static_cast<unsigned>(_mm_movemask_pd(reinterpret_cast<Pack>(mask)));
#else
  unsigned set = 0;
  for (std::size_t i = 0; i < lanes; ++i) set |= mask[i] != 0 ? 1u << i : 0u;
  return set;
#endif
}

inline bool any(Mask mask) noexcept { return bits(mask) != 0; }

inline bool all(Mask mask) noexcept { return !any(~mask); }

}  // namespace jepa_ode
