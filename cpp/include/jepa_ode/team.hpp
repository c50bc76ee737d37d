// A few threads that do the same phases together: each has its part of a phase, and helps with those of others.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace jepa_ode {

// Phases last microseconds, so that to sleep would take longer than to wait; where threads share a CPU the one that
// waits gives way.
template <class Ready>
void wait_until(const Ready& ready) noexcept {
  constexpr int patience = 1000;
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

// Calls work(rank) on `size` threads at once, on fewer where the system gives no more; the caller is rank 0. Work must
// not throw.
template <class Work>
void run_team(unsigned size, const Work& work) {
  std::vector<std::thread> others;
  others.reserve(size);
  try {
    for (unsigned rank = 1; rank < size; ++rank) others.emplace_back([&work, rank]() noexcept { work(rank); });
  } catch (const std::exception&) {  // no thread, or no memory for one: those that run do it all
  }
  work(0);
  for (std::thread& other : others) other.join();
}

// A phase that is done again and again, in rounds: a list of tasks for each rank, which the others take from when they
// have no more of their own. A round is over when all tasks are done, whether or not every rank came to do some: one
// that has no CPU at the moment keeps nobody waiting, except for the task that it is at. It must be done round by
// round.
template <class Task>
class Phase {
 public:
  explicit Phase(std::vector<std::vector<Task>> parts) : parts_(parts.size()) {
    for (std::size_t r = 0; r < parts.size(); ++r) {
      parts_[r].tasks = std::move(parts[r]);
      size_ += static_cast<std::int64_t>(parts_[r].tasks.size());
    }
  }

  // Does what is left of a round, and returns once it is over.
  template <class Body>
  void run(unsigned rank, std::int64_t round, const Body& body) noexcept {
    std::int64_t count = 0;
    for (std::size_t s = 0; s < parts_.size(); ++s) {
      Part& part = parts_[(rank + s) % parts_.size()];
      const auto size = static_cast<std::int64_t>(part.tasks.size());
      std::int64_t next = part.taken.load(std::memory_order_relaxed);  // over all rounds
      while (next < (round + 1) * size) {
        if (!part.taken.compare_exchange_weak(next, next + 1, std::memory_order_relaxed)) continue;
        body(part.tasks[static_cast<std::size_t>(next - round * size)]);
        ++count;
        next = part.taken.load(std::memory_order_relaxed);
      }
    }
    done_.fetch_add(count, std::memory_order_acq_rel);
    wait_until([&] { return done_.load(std::memory_order_acquire) >= (round + 1) * size_; });
  }

 private:
  struct alignas(64) Part {
    std::vector<Task> tasks;
    std::atomic<std::int64_t> taken{0};
  };

  std::vector<Part> parts_;
  std::int64_t size_ = 0;
  alignas(64) std::atomic<std::int64_t> done_{0};
};

}  // namespace jepa_ode
