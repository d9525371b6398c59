// What holds for every program that runs, whatever its ops are; each op's own verify() is asked last.
#pragma once
#include "runtime/program.h"

namespace wl {

const char* buffer_name(Buffer buffer);
const char* entry_name(int entry);

// The bytes [begin, end) from the start of its buffer (of its slot's array) that a tensor reaches; false when they overflow.
bool tensor_range(const Tensor& tensor, int64_t* begin, int64_t* end);

// Whether two tensors of one buffer cannot touch a common byte: separate ranges, or separate columns of one pitch.
bool disjoint(const Tensor& a, const Tensor& b);

Status verify_tensors(const Program& program);
Status verify_step(const Program& program, const Step& step);

}  // namespace wl
