#include "block.h"

#include <sys/mman.h>

#include <string>
#include <vector>

#include "base/memory.h"

namespace wl_py {
namespace {

struct Kept {
  std::vector<Block*> blocks;  // the oldest first
  size_t bytes = 0;
};
// Lives until the process ends: arrays may outlive everything else.
Kept& kept() {
  static auto* all = new Kept;
  return *all;
}

void drop_until(size_t most) {
  Kept& all = kept();
  size_t gone = 0;
  for (; all.bytes > most; ++gone) {
    all.bytes -= all.blocks[gone]->bytes;
    delete all.blocks[gone];
  }
  all.blocks.erase(all.blocks.begin(), all.blocks.begin() + std::ptrdiff_t(gone));
}

void keep(Block* block) {
  if (block->bytes > kMostKept) {
    delete block;
    return;
  }
  drop_until(kMostKept - block->bytes);
#ifdef MADV_FREE
  madvise(block->data, block->bytes, MADV_FREE);
#endif
  kept().blocks.push_back(block);
  kept().bytes += block->bytes;
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
  Kept& all = kept();
  for (size_t i = all.blocks.size(); i-- > 0;) {
    Block* const block = all.blocks[i];
    if (block->bytes != bytes) continue;
    all.blocks.erase(all.blocks.begin() + std::ptrdiff_t(i));
    all.bytes -= bytes;
    return BlockPtr(block, keep);
  }
  return BlockPtr(new Block(int64_t(bytes)), keep);
}

size_t kept_bytes() {
  return kept().bytes;
}

void drop_kept() {
  drop_until(0);
}

}  // namespace wl_py
