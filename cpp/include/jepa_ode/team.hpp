// A few threads that work on the same matrices together, for microseconds at a time.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace jepa_ode {

// To sleep would take longer than to wait; where threads share a CPU the one that waits gives way.
inline void pause(int spins) noexcept {
  constexpr int patience = 1000;
  if (spins < patience) {
#if defined(__SSE2__)
    _mm_pause();
#endif
  } else {
    std::this_thread::yield();
  }
}

template <class Ready>
void wait_until(const Ready& ready) noexcept {
  for (int spins = 0; !ready(); ++spins) pause(spins);
}

// Helpers of one thread, the caller: it cuts a piece of work into parts, and goes on once all are done. Whoever is free
// takes one, so that a helper that has no CPU at the moment keeps nobody waiting, except for the part that it is at.
class Team {
 public:
  // `size` threads with the caller; fewer where the system gives no more.
  explicit Team(unsigned size) {
    helpers_.reserve(size);
    try {
      while (helpers_.size() + 1 < size) helpers_.emplace_back([this]() noexcept { help(); });
    } catch (const std::exception&) {  // no thread, or no memory for one
    }
  }

  ~Team() {
    ended_.store(true);
    wake();
    for (std::thread& helper : helpers_) helper.join();
  }

  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  std::int64_t size() const noexcept { return static_cast<std::int64_t>(helpers_.size()) + 1; }

  // body(begin, end, part) over [0, count) in at most size() parts, of at least `least` each, that begin at multiples
  // of `multiple`. It must not throw.
  template <class Body>
  void share(std::int64_t count, std::int64_t least, std::int64_t multiple, const Body& body) noexcept {
    const std::int64_t parts = std::max<std::int64_t>(std::min(size(), count / least), 1);
    const auto cut = [&](std::int64_t part) {
      return part < parts ? count * part / parts / multiple * multiple : count;
    };
    run(parts, [&](std::int64_t part) { body(cut(part), cut(part + 1), part); });
  }

  // work(rank) for each rank below size(), on all threads at once, or one after the other where a thread comes late: it
  // must not wait for a certain one. It must not throw.
  template <class Work>
  void each(const Work& work) noexcept {
    run(size(), work);
  }

 private:
  using Call = void (*)(const void*, std::int64_t);

  template <class Part>
  void run(std::int64_t parts, const Part& part) noexcept {
    if (parts == 1) return part(0);
    call_ = [](const void* what, std::int64_t index) { (*static_cast<const Part*>(what))(index); };
    what_ = &part;
    done_.store(0, std::memory_order_relaxed);
    left_.store(parts);  // from here on helpers may take some
    if (asleep_.load() > 0) wake();
    while (take()) continue;
    wait_until([&] { return done_.load(std::memory_order_acquire) == parts; });
  }

  // Does a part, if one is left. A helper that was late finds none, or one of the next piece of work: as it counts down
  // before it looks at what there is to do, it never sees what is over.
  bool take() noexcept {
    std::int64_t left = left_.load(std::memory_order_relaxed);
    do {
      if (left == 0) return false;
    } while (!left_.compare_exchange_weak(left, left - 1, std::memory_order_acquire, std::memory_order_relaxed));
    call_(what_, left - 1);
    done_.fetch_add(1, std::memory_order_release);
    return true;
  }

  void help() noexcept {
    constexpr int patience = 20'000;  // some milliseconds: more than lies between two pieces of work
    const auto called = [this] { return left_.load() > 0 || ended_.load(); };
    while (!ended_.load()) {
      if (take()) continue;
      int spins = 0;
      while (!called() && ++spins < patience) pause(spins);
      if (spins < patience) continue;
      std::unique_lock<std::mutex> lock(mutex_);
      asleep_.fetch_add(1);  // before it looks again, as the caller calls before it looks for who is asleep
      called_.wait(lock, called);
      asleep_.fetch_sub(1);
    }
  }

  void wake() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);  // nobody is between looking and falling asleep
    called_.notify_all();
  }

  std::vector<std::thread> helpers_;
  Call call_ = nullptr;
  const void* what_ = nullptr;
  alignas(64) std::atomic<std::int64_t> left_{0};
  alignas(64) std::atomic<std::int64_t> done_{0};
  alignas(64) std::atomic<int> asleep_{0};
  std::atomic<bool> ended_{false};
  std::mutex mutex_;
  std::condition_variable called_;
};

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
