#include "output_array.hpp"

#include <algorithm>
#include <cstddef>
#include <list>
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

// Blocks that wait for reuse, the last one given back first. Guarded by the GIL, which every caller holds.
class Pool {
 public:
  Block take(std::size_t size) {
    const auto fits = [&](const Block& block) { return block.size >= size && block.size <= 2 * size; };
    const auto found = std::find_if(waiting_.begin(), waiting_.end(), fits);
    if (found != waiting_.end()) {
      const Block block = *found;
      waiting_.erase(found);
      total_ -= block.size;
      return block;
    }
    const std::size_t rounded = (size + 2 * mebibyte - 1) / (2 * mebibyte) * (2 * mebibyte);
    const Block block{::operator new(rounded, alignment), rounded};
#if defined(__linux__)
    madvise(block.memory, block.size, MADV_HUGEPAGE);  // advice: it may be declined
#endif
    return block;
  }

  void give_back(Block block) {
    waiting_.push_front(block);
    total_ += block.size;
    while (total_ > largest) {
      total_ -= waiting_.back().size;
      ::operator delete(waiting_.back().memory, alignment);
      waiting_.pop_back();
    }
  }

 private:
  std::list<Block> waiting_;
  std::size_t total_ = 0;
};

Pool& pool() {
  static Pool* const only = new Pool;  // never destroyed: arrays may outlive the module
  return *only;
}

}  // namespace

py::array output_array(py::ssize_t rows, py::ssize_t columns, bool single) {
  const py::dtype type = single ? py::dtype::of<float>() : py::dtype::of<double>();
  // Neither factor is near the end of its type: Python has checked that the product is an address.
  const auto size =
      static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns) * static_cast<std::size_t>(type.itemsize());
  if (size < smallest || size > largest) return py::array(type, {rows, columns});
  auto* const block = new Block(pool().take(size));
  const py::capsule owner(block, [](void* data) {
    auto* const mine = static_cast<Block*>(data);
    pool().give_back(*mine);
    delete mine;
  });
  return py::array(type, {rows, columns}, block->memory, owner);
}

}  // namespace jepa_ode::bindings
