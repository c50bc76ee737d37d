// Packs do on each lane what the operation does on a number, and their logarithms keep twice the digits.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>

#include "check.hpp"
#include "jepa_ode/double_double.hpp"
#include "jepa_ode/pack.hpp"
#include "jepa_ode/pack_math.hpp"

using namespace jepa_ode;

namespace {

Pack numbered(double first, double step) {
  Pack x{};
  for (std::size_t i = 0; i < lanes; ++i) x[i] = first + static_cast<double>(i) * step;
  return x;
}

}  // namespace

TEST(operations_act_on_each_lane) {
  const Pack x = numbered(-1.5, 2.0), y = pack(0.25);
  const Pack low = min(x, y), high = max(x, y), size = jepa_ode::abs(x), root = jepa_ode::sqrt(size),
             sum = jepa_ode::fma(x, y, y), chosen = select(x < y, pack(1.0), x);
  for (std::size_t i = 0; i < lanes; ++i) {
    CHECK(low[i] == std::min(x[i], y[i]));
    CHECK(high[i] == std::max(x[i], y[i]));
    CHECK(size[i] == std::abs(x[i]));
    CHECK(root[i] == std::sqrt(size[i]));
    CHECK(sum[i] == x[i] * y[i] + y[i]);  // exact here
    CHECK(chosen[i] == (x[i] < y[i] ? 1.0 : x[i]));
  }
  CHECK(any(x < pack(0.0)));
  CHECK(!all(x < pack(0.0)));
  CHECK(all(x < pack(100.0)));
}

TEST(whole_numbers) {
  const Pack x = numbered(-2.6, 1.3);
  const Pack rounded = jepa_ode::round(x), back = to_double(to_int(rounded)), scaled = jepa_ode::ldexp(x, rounded);
  for (std::size_t i = 0; i < lanes; ++i) {
    CHECK(rounded[i] == std::nearbyint(x[i]));
    CHECK(back[i] == rounded[i]);
    CHECK(scaled[i] == std::ldexp(x[i], static_cast<int>(rounded[i])));
  }
}

TEST(rows_arrive_as_columns) {
  double table[16 * 8];
  for (std::size_t k = 0; k < 16 * 8; ++k) table[k] = static_cast<double>(k);
  IntPack row{};
  for (std::size_t i = 0; i < lanes; ++i) row[i] = static_cast<std::int64_t>((5 * i + 3) % 16);
  Pack columns[8];
  load_rows(table, row, columns);
  const Pack gathered = gather(table, row * 8);
  for (std::size_t i = 0; i < lanes; ++i) {
    for (std::size_t k = 0; k < 8; ++k) CHECK(columns[k][i] == table[static_cast<std::size_t>(8 * row[i]) + k]);
    CHECK(gathered[i] == columns[0][i]);
  }
}

TEST(windows_are_picked_from) {
  double table[64];
  for (std::size_t k = 0; k < 64; ++k) table[k] = static_cast<double>(k);
  for (std::int64_t first = 0; first + 2 * static_cast<std::int64_t>(window) <= 64 && window > 0; ++first) {
    IntPack index{};
    for (std::size_t i = 0; i < lanes; ++i)
      index[i] = static_cast<std::int64_t>((7 * i + 5) % std::max<std::size_t>(window, 1));
    const Pack picked = pick(table + first, index);
    for (std::size_t i = 0; i < lanes; ++i) CHECK(picked[i] == static_cast<double>(first + index[i]));
  }
}

TEST(first_lanes_alone_cross_memory) {
  const double from[] = {1, 2, 3, 4, 5, 6, 7, 8};
  for (std::size_t count = 0; count <= lanes; ++count) {
    const Pack x = load_first(from, count, -1.0);
    double doubles[lanes];
    float floats[lanes];
    std::fill_n(doubles, lanes, 0.0);
    std::fill_n(floats, lanes, 0.0f);
    store_first(doubles, x, count);
    store_first(floats, x, count);
    for (std::size_t i = 0; i < lanes; ++i) {
      CHECK(x[i] == (i < count ? from[i] : -1.0));
      CHECK(doubles[i] == (i < count ? from[i] : 0.0));
      CHECK(floats[i] == (i < count ? static_cast<float>(from[i]) : 0.0f));
    }
  }
}

TEST(reciprocal_square_roots) {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> exponent(-667, 667);  // e^667 is 1e290
  double worst = 0.0;
  for (int k = 0; k < 100'000; ++k) {
    Pack x{};
    for (std::size_t i = 0; i < lanes; ++i) x[i] = std::exp(exponent(random));
    const Pack r = reciprocal_sqrt(x);
    for (std::size_t i = 0; i < lanes; ++i) {
      const long double exact = 1 / std::sqrt(static_cast<long double>(x[i]));
      worst = std::max(worst, static_cast<double>(std::abs(static_cast<long double>(r[i]) / exact - 1)));
    }
  }
  CHECK(worst < 1.5 * 0x1p-52);
}

TEST(floats_are_rounded_doubles) {
  float out[lanes];
  const Pack x = numbered(0.1, 0.7);
  store(out, x);
  for (std::size_t i = 0; i < lanes; ++i) CHECK(out[i] == static_cast<float>(x[i]));
}

TEST(logarithms_and_exponentials) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> exponent(-500, 500), near_one(-0.01, 0.01);
  double worst_log = 0.0, worst_exp = 0.0;
  for (int k = 0; k < 20'000; ++k) {
    Pack x{};
    for (std::size_t i = 0; i < lanes; ++i) x[i] = k % 2 ? std::exp(exponent(random)) : 1 + near_one(random);
    const PackPair l = jepa_ode::log(x);
    const Pack back = jepa_ode::exp(l);
    for (std::size_t i = 0; i < lanes; ++i) {
      const DoubleDouble reference = jepa_ode::log(static_cast<double>(x[i]));
      const double error = std::abs((l.hi[i] - reference.hi) + (l.lo[i] - reference.lo));
      worst_log = std::max(worst_log, error / std::max(1.0, std::abs(reference.hi)));
      worst_exp = std::max(worst_exp, std::abs(back[i] / x[i] - 1));
    }
  }
  CHECK(worst_log < 0x1p-64);
  CHECK(worst_exp < 0x1p-52);
  CHECK(all(jepa_ode::log(pack(1.0)).hi == pack(0.0)));
}

TEST(quotients_have_no_scale) {
  const Pack a = numbered(0.3, 0.9), b = numbered(7.1, -0.4);
  const PackPair plain = log_quotient(a, b), scaled = log_quotient(a * pack(0x1p300), b * pack(0x1p300));
  CHECK(all(plain.hi == scaled.hi));
  CHECK(all(plain.lo == scaled.lo));
  const PackPair apart = jepa_ode::log(a) - jepa_ode::log(b);
  for (std::size_t i = 0; i < lanes; ++i) {
    CHECK(std::abs((plain.hi[i] - apart.hi[i]) + (plain.lo[i] - apart.lo[i])) < 0x1p-60);
  }
}
