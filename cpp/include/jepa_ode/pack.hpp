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

// The first `count` lanes from and to memory, no byte beyond them. Lanes not loaded are `other`.
inline Pack load_first(const double* from, std::size_t count, double other) noexcept {
  Pack x = other - Pack{};
  for (std::size_t i = 0; i < lanes; ++i) {
    if (i < count) x[i] = from[i];
  }
  return x;
}

inline void store_first(double* to, Pack x, std::size_t count) noexcept {
#if defined(__AVX512F__)
  _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1), x);
#else
  if (count == lanes) return store(to, x);
  for (std::size_t i = 0; i < lanes; ++i) {
    if (i < count) to[i] = x[i];
  }
#endif
}

inline Pack pack(double x) noexcept { return x - Pack{}; }

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
