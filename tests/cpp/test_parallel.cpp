// Every index once, whatever the number of threads; exceptions and interrupts reach the caller (DESIGN.md 3, threads).
#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.hpp"
#include "jepa_ode/parallel.hpp"

namespace {

using jepa_ode::Interrupt;
using jepa_ode::Interrupted;
using jepa_ode::parallel_for;

const std::vector<std::size_t> counts{0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 1000};
const std::vector<std::size_t> grains{0, 1, 4, 16, 2000};
const std::vector<unsigned> thread_counts{0, 1, 2, 3, 7};

TEST(every_index_is_visited_once) {
  for (const std::size_t count : counts) {
    for (const std::size_t grain : grains) {
      for (const unsigned threads : thread_counts) {
        std::vector<int> visits(count, 0);
        Interrupt interrupt;
        parallel_for(count, grain, threads, interrupt, [&](std::size_t begin, std::size_t end) {
          CHECK(begin < end && end <= count);
          for (std::size_t i = begin; i < end; ++i) ++visits[i];
        });
        CHECK(std::all_of(visits.begin(), visits.end(), [](int n) { return n == 1; }));
      }
    }
  }
}

TEST(pieces_do_not_depend_on_threads) {
  for (const unsigned threads : thread_counts) {
    std::vector<std::size_t> ends(100, 0);
    Interrupt interrupt;
    parallel_for(ends.size(), 7, threads, interrupt, [&](std::size_t begin, std::size_t end) {
      CHECK(begin % 7 == 0);
      ends[begin] = end;
    });
    for (std::size_t begin = 0; begin < ends.size(); begin += 7) CHECK(ends[begin] == std::min(begin + 7, ends.size()));
  }
}

TEST(the_caller_is_one_of_the_threads) {
  const std::thread::id caller = std::this_thread::get_id();
  Interrupt interrupt;
  std::atomic<int> foreign{0};
  parallel_for(100, 1, 1, interrupt,
               [&](std::size_t, std::size_t) { foreign += std::this_thread::get_id() != caller; });
  CHECK(foreign == 0);
}

TEST(an_exception_of_any_thread_reaches_the_caller) {
  for (const unsigned threads : thread_counts) {
    for (const std::size_t bad : {std::size_t{0}, std::size_t{37}, std::size_t{99}}) {
      Interrupt interrupt;
      CHECK_THROWS(std::domain_error, parallel_for(100, 1, threads, interrupt, [&](std::size_t begin, std::size_t) {
                     if (begin == bad) throw std::domain_error("bad");
                   }));
    }
  }
}

TEST(an_interrupt_stops_all_threads) {
  for (const unsigned threads : thread_counts) {
    std::atomic<bool> asked{false};
    Interrupt interrupt([&] { return asked = true; });
    // Bodies that would never end by themselves.
    CHECK_THROWS(Interrupted, parallel_for(64, 1, threads, interrupt, [&](std::size_t, std::size_t) {
                   while (!interrupt.stop()) std::this_thread::yield();
                 }));
    CHECK(asked);
  }
}

TEST(the_caller_listens_while_the_others_work) {
  // The caller is out of pieces at once; only the other thread is busy when the user interrupts.
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<bool> other_started{false};
  Interrupt interrupt([] { return true; });
  CHECK_THROWS(Interrupted, parallel_for(2, 1, 2, interrupt, [&](std::size_t, std::size_t) {
                 if (std::this_thread::get_id() == caller) {
                   while (!other_started) std::this_thread::yield();
                 } else {
                   other_started = true;
                   while (!interrupt.stop()) std::this_thread::yield();
                 }
               }));
}

TEST(only_the_caller_polls) {
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> foreign{0};
  Interrupt interrupt([&] {
    foreign += std::this_thread::get_id() != caller;
    return false;
  });
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
  parallel_for(4, 1, 4, interrupt, [&](std::size_t, std::size_t) {
    while (std::chrono::steady_clock::now() < end) CHECK(!interrupt.stop());
  });
  CHECK(foreign == 0);
}

}  // namespace
