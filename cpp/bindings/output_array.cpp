#include "output_array.hpp"

#include <algorithm>
#include <cstddef>
#include <list>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace jepa_ode::bindings {

namespace {

constexpr std::size_t mebibyte = std::size_t{1} << 20;
constexpr std::size_t smallest = mebibyte, largest = 64 * mebibyte;
constexpr std::align_val_t alignment{2 * mebibyte};  // of a huge page

struct Block {
  void* memory;
  std::size_t size;
};

// One block is a list too, so that to move it takes no memory.
using Blocks = std::list<Block>;

// Blocks that wait for reuse, the last one given back first. Guarded by the GIL, which every caller holds.
class Pool {
 public:
  void take(std::size_t size, Blocks& to) {
    const auto fits = [&](const Block& block) { return block.size >= size && block.size <= 2 * size; };
    const auto found = std::find_if(waiting_.begin(), waiting_.end(), fits);
    if (found != waiting_.end()) {
      total_ -= found->size;
      to.splice(to.begin(), waiting_, found);
      return;
    }
    const std::size_t rounded = (size + 2 * mebibyte - 1) / (2 * mebibyte) * (2 * mebibyte);
    Blocks one(1, Block{nullptr, rounded});
    void*& memory = one.front().memory;
    memory = ::operator new(rounded, alignment);
#if defined(__linux__)
    madvise(memory, rounded, MADV_HUGEPAGE);  // advice: it may be declined
#endif
    to.splice(to.begin(), one);
  }

  void give_back(Blocks& blocks) noexcept {
    for (const Block& block : blocks) total_ += block.size;
    waiting_.splice(waiting_.begin(), blocks);
    while (total_ > largest) {
      total_ -= waiting_.back().size;
      ::operator delete(waiting_.back().memory, alignment);
      waiting_.pop_back();
    }
  }

 private:
  Blocks waiting_;
  std::size_t total_ = 0;
};

Pool& pool() {
  static Pool* const only = new Pool;  // never destroyed: arrays may outlive the module
  return *only;
}

struct GiveBack {
  void operator()(Blocks* blocks) const noexcept {
    pool().give_back(*blocks);
    delete blocks;
  }
};
using Owned = std::unique_ptr<Blocks, GiveBack>;

}  // namespace

py::array output_array(py::ssize_t rows, py::ssize_t columns, bool single) {
  const py::dtype type = single ? py::dtype::of<float>() : py::dtype::of<double>();
  // Neither factor is near the end of its type: Python has checked that the product is an address.
  const auto size =
      static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns) * static_cast<std::size_t>(type.itemsize());
  if (size < smallest || size > largest) return py::array(type, {rows, columns});
  Owned block(new Blocks);
  pool().take(size, *block);
  void* const memory = block->front().memory;
  const py::capsule owner(block.get(), [](void* data) { const Owned mine(static_cast<Blocks*>(data)); });
  block.release();  // the capsule has it
  return py::array(type, {rows, columns}, memory, owner);
}

}  // namespace jepa_ode::bindings
