// Memory that Python objects own.
#pragma once
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace wl_py {

namespace py = pybind11;

// wl::memory_alloc's: zeroed, aligned. MemoryError when there is none. Class Buffer in Python.
struct Block {
  char* data = nullptr;
  size_t bytes = 0;
  explicit Block(int64_t size);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
};
using BlockPtr = std::shared_ptr<Block>;

// A block that holds whatever an earlier one of its size has left. When nobody has it any more it is kept for the next, up to kMostKept
// bytes in all, the oldest going first: each page of new memory is a fault, all together as long as the convolution that fills them, or
// longer. What is kept beyond kMostResident bytes, the operating system may take when it needs memory; to offer it costs up to half a
// millisecond, so the youngest are not. Under the GIL.
BlockPtr kept_block(size_t bytes);
constexpr size_t kMostKept = size_t(256) << 20, kMostResident = size_t(64) << 20;
size_t kept_bytes();
void drop_kept();

}  // namespace wl_py
