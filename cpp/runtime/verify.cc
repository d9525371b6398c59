#include "runtime/verify.h"

#include <inttypes.h>

namespace wl {
namespace {

constexpr int64_t kMaxElements = int64_t(1) << 40;

constexpr bool bound_per_run(Buffer b) {
  return b == Buffer::input || b == Buffer::output;
}

// Buffers that the steps of each entry may write.
constexpr unsigned bit(Buffer b) {
  return 1u << int(b);
}
constexpr unsigned kWritable[kEntries] = {
    bit(Buffer::arena) | bit(Buffer::prepared),
    bit(Buffer::arena) | bit(Buffer::output) | bit(Buffer::state),
    bit(Buffer::arena) | bit(Buffer::output) | bit(Buffer::grads),
    bit(Buffer::arena) | bit(Buffer::output) | bit(Buffer::grads) | bit(Buffer::params) | bit(Buffer::state) | bit(Buffer::opt),
};

// The largest element offset that the axes from `first` on reach, in elements; false on overflow.
bool reach(const Tensor& t, int first, int64_t* last) {
  *last = 0;
  for (int d = first; d < t.rank; ++d) {
    int64_t step;
    if (__builtin_mul_overflow(t.dims[d] - 1, t.strides[d], &step) || __builtin_add_overflow(*last, step, last)) return false;
  }
  return true;
}

// Whether no two positions of the tensor are one element: each stride steps over all that the finer axes reach.
bool distinct_elements(const Tensor& t) {
  bool used[kMaxRank] = {};
  int64_t span = 1;
  for (int round = 0; round < t.rank; ++round) {
    int finest = -1;
    for (int d = 0; d < t.rank; ++d)
      if (!used[d] && (finest < 0 || t.strides[d] < t.strides[finest])) finest = d;
    used[finest] = true;
    if (t.dims[finest] == 1) continue;
    if (t.strides[finest] < span) return false;
    span += (t.dims[finest] - 1) * t.strides[finest];  // inside the buffer: no overflow
  }
  return true;
}

bool same_storage(const Tensor& a, const Tensor& b) {
  if (a.offset != b.offset || a.dtype != b.dtype || a.rank != b.rank) return false;
  for (int d = 0; d < a.rank; ++d)
    if (a.dims[d] != b.dims[d] || (a.dims[d] != 1 && a.strides[d] != b.strides[d])) return false;
  return true;
}

bool same_array(const Tensor& a, const Tensor& b) {
  return a.buffer == b.buffer && (!bound_per_run(a.buffer) || slot_of(a) == slot_of(b));
}

// With rows of `pitch` bytes that begin where the tensor does: the first columns of each, all that the tensor touches; more than a row when
// it is no set of columns.
int64_t columns(const Tensor& t, int64_t pitch) {
  const int64_t size = int64_t(dtype_size(t.dtype));
  int64_t span = size;
  for (int d = 0; d < t.rank; ++d) {
    const int64_t stride = t.strides[d] * size;
    if (t.dims[d] > 1 && stride % pitch != 0) span += (t.dims[d] - 1) * stride;
  }
  return span;
}

Status verify_slots(const Program& p, Buffer buffer, const int* described, int n) {
  for (int s = 0; s < n; ++s) {
    const Tensor& t = p.tensors[described[s]];
    if (t.buffer != buffer || slot_of(t) != s || slot_offset(t) != 0 || !t.dense())
      return Status::error(Code::corrupt, "%s slot %d: its tensor '%s' must be dense, in buffer %s and name this slot", buffer_name(buffer),
                           s, p.tensor_names[described[s]], buffer_name(buffer));
  }
  return Status::good();
}

// A view of a slot's array fits inside it for every batch extent n.
Status verify_view(const Program& p, int index) {
  const Tensor& t = p.tensors[index];
  const bool input = t.buffer == Buffer::input;
  const int slot = slot_of(t);
  if (t.offset < 0 || slot >= (input ? p.n_inputs : p.n_outputs))
    return Status::error(Code::corrupt, "tensor %d '%s': there is no %s slot %d", index, p.tensor_names[index], buffer_name(t.buffer),
                         slot);
  const Tensor& whole = p.tensors[(input ? p.input_tensors : p.output_tensors)[slot]];
  const int64_t size = int64_t(dtype_size(t.dtype));
  int64_t begin, end, last;
  bool fits = tensor_range(t, &begin, &end) && begin % size == 0;
  const int64_t bytes = whole.elements() * int64_t(dtype_size(whole.dtype));
  if (fits && whole.batch) {
    const int64_t row = bytes / whole.dims[0];
    fits = t.batch && t.strides[0] * size <= row && reach(t, 1, &last) && begin + (last + 1) * size <= row;
  }
  if (!fits || end > bytes)
    return Status::error(Code::corrupt, "tensor %d '%s' reaches outside the array of %s slot %d", index, p.tensor_names[index],
                         buffer_name(t.buffer), slot);
  return Status::good();
}

Status verify_aliases(const Step& step, const Op& op) {
  const char* opcode = op.name;
  for (int o = 0; o < step.n_out; ++o) {
    const Tensor* y = step.out[o];
    if (!y) continue;
    if (!(kWritable[step.entry] & bit(y->buffer)))
      return Status::error(Code::corrupt, "%s at '%s': output %d lies in %s, which entry %s must not write", opcode, step.path, o,
                           buffer_name(y->buffer), entry_name(step.entry));
    if (!distinct_elements(*y))
      return Status::error(Code::corrupt, "%s at '%s': output %d has elements that share storage", opcode, step.path, o);
    for (int i = 0; i < step.n_in; ++i) {
      if (!step.in[i] || disjoint(*step.in[i], *y)) continue;
      if (!same_storage(*step.in[i], *y))
        return Status::error(Code::corrupt, "%s at '%s': input %d and output %d overlap, but are not the same storage", opcode, step.path,
                             i, o);
      if (!(op.in_place & in_place(i, o)))
        return Status::error(Code::corrupt, "%s at '%s': output %d lies where input %d does, and this op cannot work in place", opcode,
                             step.path, o, i);
    }
    for (int other = 0; other < o; ++other)
      if (step.out[other] && !disjoint(*step.out[other], *y))
        return Status::error(Code::corrupt, "%s at '%s': outputs %d and %d overlap", opcode, step.path, other, o);
  }
  return Status::good();
}

// Entry prepare runs alone, before anything is bound.
Status verify_prepare(const Step& step, const char* opcode) {
  for (int o = 0; o < step.n_in + step.n_out; ++o) {
    const Tensor* t = o < step.n_in ? step.in[o] : step.out[o - step.n_in];
    if (t && (t->batch || bound_per_run(t->buffer)))
      return Status::error(Code::corrupt, "%s at '%s': entry prepare has no batch and no input or output slots", opcode, step.path);
  }
  return Status::good();
}

Status ask_op(const Op& op, const Step& step) {
  const Status status = op.verify(step);
  if (status) return status;
  return Status::error(status.code, "%s at '%s': %s", op.name, step.path, status.text);
}

}  // namespace

const char* buffer_name(Buffer buffer) {
  static const char* const names[kBufferCount] = {"arena", "params", "grads", "state", "opt", "prepared", "consts", "input", "output"};
  return names[int(buffer)];
}

const char* entry_name(int entry) {
  static const char* const names[kEntries] = {"prepare", "forward", "grad", "update"};
  return names[entry];
}

bool tensor_range(const Tensor& t, int64_t* begin, int64_t* end) {
  const int64_t size = int64_t(dtype_size(t.dtype));
  int64_t last;
  *begin = bound_per_run(t.buffer) ? slot_offset(t) : t.offset;
  return reach(t, 0, &last) && !__builtin_add_overflow(last, 1, &last) && !__builtin_mul_overflow(last, size, &last) &&
         !__builtin_add_overflow(*begin, last, end);
}

bool disjoint(const Tensor& a, const Tensor& b) {
  if (!same_array(a, b)) return true;
  int64_t a_begin = 0, a_end = 0, b_begin = 0, b_end = 0;
  tensor_range(a, &a_begin, &a_end);
  tensor_range(b, &b_begin, &b_end);
  if (a_end <= b_begin || b_end <= a_begin) return true;
  if (b_begin < a_begin) return disjoint(b, a);
  const Tensor* const both[] = {&a, &b};
  for (const Tensor* t : both)
    for (int d = 0; d < t->rank; ++d) {
      const int64_t pitch = t->strides[d] * int64_t(dtype_size(t->dtype));
      if (t->dims[d] == 1 || pitch <= 0) continue;
      // The columns of b are those from `start` on; past the end of a row they would meet those of a again.
      const int64_t start = (b_begin - a_begin) % pitch;
      if (columns(a, pitch) <= start && start + columns(b, pitch) <= pitch) return true;
    }
  return false;
}

Status verify_tensors(const Program& p) {
  for (int i = 0; i < p.n_tensors; ++i) {
    const Tensor& t = p.tensors[i];
    const char* name = p.tensor_names[i];
    int64_t elements = 1, begin, end;
    for (int d = 0; d < t.rank; ++d)
      if (__builtin_mul_overflow(elements, t.dims[d], &elements) || elements > kMaxElements)
        return Status::error(Code::corrupt, "tensor %d '%s' has more than 2^40 elements", i, name);
    if (t.batch && (t.rank < 1 || p.batch < 1 || t.dims[0] != p.batch))
      return Status::error(Code::corrupt, "tensor %d '%s': its leading extent %" PRId64 " is not the planned batch %" PRId64, i, name,
                           t.dims[0], p.batch);
    if (bound_per_run(t.buffer)) continue;
    const int64_t size = int64_t(dtype_size(t.dtype)), bytes = p.bytes[int(t.buffer)];
    if (t.offset < 0 || t.offset % size != 0 || !tensor_range(t, &begin, &end) || end > bytes)
      return Status::error(Code::corrupt, "tensor %d '%s' at offset %" PRId64 " reaches outside the %" PRId64 " bytes of %s", i, name,
                           t.offset, bytes, buffer_name(t.buffer));
  }
  WL_TRY(verify_slots(p, Buffer::input, p.input_tensors, p.n_inputs));
  WL_TRY(verify_slots(p, Buffer::output, p.output_tensors, p.n_outputs));
  for (int i = 0; i < p.n_tensors; ++i)
    if (bound_per_run(p.tensors[i].buffer)) WL_TRY(verify_view(p, i));
  return Status::good();
}

Status verify_step(const Program& p, const Step& step) {
  const Op& op = *find_op(uint16_t(step.opcode));
  WL_TRY(verify_aliases(step, op));
  if (step.entry == kPrepare) WL_TRY(verify_prepare(step, op.name));
  WL_TRY(ask_op(op, step));
  if (p.batch <= 1) return Status::good();

  // The same step as it will be at n = 1: an op whose operands agree there too agrees for every n.
  Tensor operands[kMaxInputs + kMaxOutputs];
  Step small = step;
  bool batch = false;
  for (int o = 0; o < step.n_in + step.n_out; ++o) {
    const Tensor*& operand = o < step.n_in ? small.in[o] : small.out[o - step.n_in];
    if (!operand || !operand->batch) continue;
    operands[o] = *operand;
    operands[o].dims[0] = 1;
    operand = &operands[o];
    batch = true;
  }
  if (!batch) return Status::good();
  const Status status = op.verify(small);
  if (status) return status;
  return Status::error(status.code, "%s at '%s': its operands disagree about which axis is the batch: with a batch of 1, %s", op.name,
                       step.path, status.text);
}

}  // namespace wl
