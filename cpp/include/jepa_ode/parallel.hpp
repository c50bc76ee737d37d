// Threads of one call: started in it, joined in it, stopped by Ctrl-C or by the first exception.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace jepa_ode {

// Thrown on the calling thread when its poll asked to stop; the binding turns it into Python's pending exception.
struct Interrupted : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// The stop flag that the threads of one call share. Only the calling thread polls (Python delivers signals to it
// alone), and at most every 50 ms, so that `stop()` may stand in inner loops.
class Interrupt {
 public:
  using Poll = std::function<bool()>;  // true: stop now

  explicit Interrupt(Poll poll = {}) : poll_(std::move(poll)), caller_(std::this_thread::get_id()) {}

  bool stop() noexcept {
    if (stopped_.load(std::memory_order_relaxed)) return true;
    if (!poll_ || std::this_thread::get_id() != caller_) return false;
    const auto now = std::chrono::steady_clock::now();
    if (now - last_poll_ < std::chrono::milliseconds(50)) return false;
    last_poll_ = now;
    if (poll_()) request_stop();
    return stopped_.load(std::memory_order_relaxed);
  }

  void request_stop() noexcept { stopped_.store(true, std::memory_order_relaxed); }

  void throw_if_stopped() const {
    if (stopped_.load(std::memory_order_relaxed)) throw Interrupted{};
  }

 private:
  Poll poll_;
  std::thread::id caller_;
  std::chrono::steady_clock::time_point last_poll_ = std::chrono::steady_clock::now();
  std::atomic<bool> stopped_{false};
};

// Calls body(begin, end) over [0, count) in pieces of at most `grain`, on `threads` threads of which the caller is one.
// Pieces are handed out as threads become free; a body must therefore depend on its own indices only, which is also
// what makes results independent of the number of threads. Exceptions of any thread reach the caller.
template <class Body>
void parallel_for(std::size_t count, std::size_t grain, unsigned threads, Interrupt& interrupt, Body&& body) {
  grain = std::max<std::size_t>(grain, 1);
  const std::size_t pieces = count / grain + (count % grain != 0);
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::condition_variable finished;
  std::exception_ptr failure;
  std::size_t running = 0;

  const auto work = [&]() noexcept {
    try {
      while (!interrupt.stop()) {
        const std::size_t piece = next.fetch_add(1, std::memory_order_relaxed);
        if (piece >= pieces) break;
        body(piece * grain, std::min(count, (piece + 1) * grain));
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!failure) failure = std::current_exception();
      interrupt.request_stop();
    }
  };

  std::vector<std::thread> others;
  others.reserve(threads);
  for (std::size_t k = 1; k < std::min<std::size_t>(threads, pieces); ++k) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      ++running;
    }
    try {
      others.emplace_back([&]() noexcept {
        work();
        const std::lock_guard<std::mutex> lock(mutex);
        --running;
        finished.notify_one();
      });
    } catch (const std::exception&) {  // no more threads, or no memory for one: those that run, the caller too, do all
      const std::lock_guard<std::mutex> lock(mutex);
      --running;
      break;
    }
  }
  work();
  {
    // The caller is out of pieces while others may be deep in theirs: it goes on listening for Ctrl-C.
    std::unique_lock<std::mutex> lock(mutex);
    while (!finished.wait_for(lock, std::chrono::milliseconds(20), [&] { return running == 0; })) {
      lock.unlock();
      interrupt.stop();
      lock.lock();
    }
  }
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
  interrupt.throw_if_stopped();
}

}  // namespace jepa_ode
