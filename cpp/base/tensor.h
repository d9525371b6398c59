// The tensor descriptor: what the program file stores, the verifier checks and an op sees.
#pragma once
#include "base/dtype.h"

namespace wl {

constexpr int kMaxRank = 6;

// Where a tensor lives. Numbers are part of the program format.
enum class Buffer : uint8_t {
  arena = 0,     // planned scratch of one instance; contents last for one run
  params = 1,    // canonical weights, shared by all programs of a model
  grads = 2,     // gradients, same layout as params
  state = 3,     // running statistics
  opt = 4,       // optimizer state
  prepared = 5,  // packed / folded copies, written by entry `prepare`
  consts = 6,    // read-only bytes inside the program file
  input = 7,     // bound before each run; `offset` is slot + 65536 * offset in bytes
  output = 8,    // bound before each run; `offset` as for input
};
constexpr int kBufferCount = 9;

struct Tensor {
  char* data = nullptr;  // resolved by the instance; null inside a program
  DType dtype = DType::f32;
  uint8_t rank = 0;
  Buffer buffer = Buffer::arena;
  bool batch = false;              // dims[0] is the batch extent: planned N in the program, n while running
  int64_t offset = 0;              // bytes from the start of the buffer
  int64_t dims[kMaxRank] = {};     // extents
  int64_t strides[kMaxRank] = {};  // in elements; 0 repeats (broadcast), never negative

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
  float* f32() const { return as<float>(); }
  int64_t dim_from_end(int i) const { return dims[rank - 1 - i]; }  // dim_from_end(0) is the channel extent
  int64_t elements() const {
    int64_t e = 1;
    for (int i = 0; i < rank; ++i) e *= dims[i];
    return e;
  }
  // Row-major without gaps (extents of 1 may have any stride).
  bool dense() const {
    int64_t expect = 1;
    for (int i = rank - 1; i >= 0; --i) {
      if (dims[i] != 1 && strides[i] != expect) return false;
      expect *= dims[i];
    }
    return true;
  }
};

}  // namespace wl
