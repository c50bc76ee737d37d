// Feeds a fuzz target where the compiler brings no libFuzzer: inputs made from their numbers, some random, some
// mutations of a random one. Takes libFuzzer's arguments that `make fuzz` uses, and -first=N to begin with input N
// again.
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

unsigned long long number = 0;  // of the input at work

void tell() { std::fprintf(stderr, "input: -first=%llu\n", number); }

void tell_abort(int) {
  tell();
  std::_Exit(1);
}

std::vector<std::uint8_t> input(unsigned long long k) {
  std::mt19937_64 family(k / 16), own(k);  // sixteen in a row are mutations of one
  std::vector<std::uint8_t> bytes(1 + family() % 2048);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(family());
  const std::uint64_t mutations = k % 16 == 0 ? 0 : 1 + own() % 8;
  for (std::uint64_t m = 0; m < mutations; ++m) bytes[own() % bytes.size()] = static_cast<std::uint8_t>(own());
  return bytes;
}

double option(int argc, char** argv, const char* name, double otherwise) {
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], name, std::strlen(name)) == 0) return std::atof(argv[i] + std::strlen(name));
  }
  return otherwise;
}

}  // namespace

int main(int argc, char** argv) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](Clock::duration duration) { return std::chrono::duration<double>(duration).count(); };
  const double total = option(argc, argv, "-max_total_time=", 60), limit = option(argc, argv, "-timeout=", 2);
  const auto first = static_cast<unsigned long long>(option(argc, argv, "-first=", 0));
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_set_death_callback(tell);
#endif
  std::signal(SIGABRT, tell_abort);

  const Clock::time_point start = Clock::now();
  double longest = 0;
  for (number = first; seconds(Clock::now() - start) < total; ++number) {
    const std::vector<std::uint8_t> bytes = input(number);
    const std::clock_t before = std::clock();  // of this process: others may be at work beside it
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    const double taken = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
    if (taken > longest) longest = taken;
    if (taken > limit) {
      std::fprintf(stderr, "took %.1f s\n", taken);
      tell();
      return 1;
    }
  }
  std::fprintf(stderr, "Done %llu runs in %.0f second(s), the longest of %.2f s\n", number - first,
               seconds(Clock::now() - start), longest);
}
