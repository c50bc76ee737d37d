// A test framework in one page: cases register themselves, checks report and go on, the exit status tells ctest.
//
//     #include "check.hpp"
//     TEST(sum_of_two) {
//       CHECK(1 + 1 == 2);
//       CHECK_CLOSE(0.1 + 0.2, 0.3, 1e-15);  // |a - b| <= tol * max(|a|, |b|)
//       CHECK_THROWS(std::runtime_error, fails());
//     }
//
// What is measured of a property of RELIABILITY.md is a record too, a line that `make campaign` collects
// (tests/record.py):
//
//     RECORD(3, "order of tsit5: distance to 5", std::abs(order - 5), 0.3);  // fails beyond the mark
//     RECORD(28, "failed allocations mishandled", mishandled, 0, cases);     // of so many cases, 1 unless said
//
// The program runs every case, or those whose names are its arguments.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <vector>

namespace check {

struct Case {
  const char* name;
  void (*body)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

inline std::atomic<int> failures{0};  // checks may stand in threads

struct Registration {
  Registration(const char* name, void (*body)()) { cases().push_back({name, body}); }
};

inline void report(bool passed, const char* file, int line, const char* what) {
  if (passed) return;
  ++failures;
  std::printf("%s:%d: failed: %s\n", file, line, what);
}

inline void report_close(double a, double b, double tolerance, const char* file, int line, const char* what) {
  const bool same = a == b || (std::isnan(a) && std::isnan(b));  // infinities included
  if (same || std::abs(a - b) <= tolerance * std::max(std::abs(a), std::abs(b))) return;
  ++failures;
  std::printf("%s:%d: failed: %s: %.17g against %.17g, tolerance %.3g\n", file, line, what, a, b, tolerance);
}

inline void record(const char* file, int line, int property, const char* quantity, double value, double at_most,
                   int cases = 1) {
  report(value <= at_most, file, line, quantity);
  std::printf("@record {\"property\": %d, \"quantity\": \"%s\", \"worst\": %.17g, \"at_most\": %.17g, \"cases\": %d}\n",
              property, quantity, value, at_most, cases);
}

}  // namespace check

#define TEST(name)                                                      \
  static void test_##name();                                            \
  static const check::Registration register_##name(#name, test_##name); \
  static void test_##name()

#define CHECK(...) check::report(static_cast<bool>(__VA_ARGS__), __FILE__, __LINE__, #__VA_ARGS__)
#define CHECK_CLOSE(a, b, tolerance) check::report_close(a, b, tolerance, __FILE__, __LINE__, #a " == " #b)
#define RECORD(...) check::record(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK_THROWS(exception, ...)                                               \
  do {                                                                             \
    bool thrown = false;                                                           \
    try {                                                                          \
      __VA_ARGS__;                                                                 \
    } catch (const exception&) {                                                   \
      thrown = true;                                                               \
    }                                                                              \
    check::report(thrown, __FILE__, __LINE__, #__VA_ARGS__ " throws " #exception); \
  } while (false)

int main(int argc, char** argv) {
  for (const check::Case& test : check::cases()) {
    const auto named = [&](const char* argument) { return std::strcmp(argument, test.name) == 0; };
    if (argc > 1 && std::none_of(argv + 1, argv + argc, named)) continue;
    try {
      test.body();
    } catch (const std::exception& error) {
      ++check::failures;
      std::printf("%s: unexpected exception: %s\n", test.name, error.what());
    }
  }
  std::printf("%d failed checks\n", check::failures.load());
  return check::failures == 0 ? 0 : 1;
}
