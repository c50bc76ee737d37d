// A few threads that work in step: all do the same phases, and meet after each one.
#pragma once

#include <atomic>
#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace jepa_ode {

class Team {
 public:
  // Calls work(rank) on `size` threads at once, on fewer where the system gives no more; the caller is rank 0. Work
  // must not throw, and all ranks must meet equally often.
  template <class Work>
  void run(unsigned size, const Work& work) {
    std::vector<std::thread> others;
    std::atomic<bool> complete{false};  // until then nobody knows how many there are
    try {
      for (unsigned rank = 1; rank < size; ++rank) {
        others.emplace_back([&, rank]() noexcept {
          wait_until([&] { return complete.load(std::memory_order_acquire); });
          work(rank);
        });
      }
    } catch (const std::system_error&) {
    }
    size_ = static_cast<unsigned>(others.size()) + 1;
    complete.store(true, std::memory_order_release);
    work(0);
    for (std::thread& other : others) other.join();
  }

  unsigned size() const noexcept { return size_; }

  // Returns once every rank has come here.
  void meet() noexcept {
    const unsigned round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
    } else {
      wait_until([&] { return round_.load(std::memory_order_acquire) != round; });
    }
  }

 private:
  // Phases last microseconds, so that to sleep would take longer than to wait; where threads share a CPU the one that
  // waits gives way.
  template <class Ready>
  static void wait_until(const Ready& ready) noexcept {
    constexpr int patience = 4000;
    for (int spins = 0; !ready(); ++spins) {
      if (spins < patience) {
#if defined(__SSE2__)
        _mm_pause();
#endif
      } else {
        std::this_thread::yield();
      }
    }
  }

  unsigned size_ = 1;
  alignas(64) std::atomic<unsigned> arrived_{0};
  alignas(64) std::atomic<unsigned> round_{0};
};

}  // namespace jepa_ode
