// Element types of tensors. The numbers are part of the program format: never reused, never reordered.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace wl {

enum class DType : uint8_t { f32 = 0, f64 = 1, bf16 = 2, f16 = 3, u8 = 4, i8 = 5, i32 = 6 };
constexpr int kDTypeCount = 7;

constexpr size_t dtype_size(DType t) {
  switch (t) {
    case DType::f64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16:
    case DType::f16: return 2;
    case DType::u8:
    case DType::i8: return 1;
  }
  return 0;
}

}  // namespace wl
