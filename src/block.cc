#include "block.h"

#include <sys/mman.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "base/memory.h"

namespace wl_py {
namespace {

struct Kept {
  std::unique_ptr<Block> block;
  bool offered = false;  // to the operating system
};

// The oldest first. Lives until the process ends: arrays may outlive everything else.
std::vector<Kept>& kept() {
  static auto* blocks = new std::vector<Kept>;
  return *blocks;
}

// All but the youngest, kMostResident bytes of them.
void offer_old() {
#ifdef MADV_FREE
  size_t younger = 0;
  for (auto old = kept().rbegin(); old != kept().rend(); ++old) {
    younger += old->block->bytes;
    if (younger <= kMostResident || std::exchange(old->offered, true)) continue;
    madvise(old->block->data, old->block->bytes, MADV_FREE);
  }
#endif
}

void keep(Block* given) {
  std::unique_ptr<Block> block(given);
  if (block->bytes > kMostKept) return;
  while (kept_bytes() > kMostKept - block->bytes) kept().erase(kept().begin());
  kept().push_back({std::move(block)});
  offer_old();
}

}  // namespace

Block::Block(int64_t size) : bytes(size_t(size)) {
  if (size < 0) throw py::value_error("a buffer of " + std::to_string(size) + " bytes");
  data = wl::memory_alloc(bytes);
  if (!data) {
    PyErr_Format(PyExc_MemoryError, "no memory for a buffer of %lld bytes", (long long)size);
    throw py::error_already_set();
  }
}
Block::~Block() {
  wl::memory_free(data, bytes);
}

BlockPtr kept_block(size_t bytes) {
  auto& blocks = kept();
  const auto last = std::find_if(blocks.rbegin(), blocks.rend(), [&](const Kept& old) { return old.block->bytes == bytes; });
  if (last == blocks.rend()) return BlockPtr(new Block(int64_t(bytes)), keep);
  Block* const block = last->block.release();
  blocks.erase(std::next(last).base());
  return BlockPtr(block, keep);
}

size_t kept_bytes() {
  size_t bytes = 0;
  for (const Kept& old : kept()) bytes += old.block->bytes;
  return bytes;
}

void drop_kept() {
  kept().clear();
}

}  // namespace wl_py
