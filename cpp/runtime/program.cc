#include "runtime/program.h"

#include <inttypes.h>

#include <new>

#include "base/memory.h"
#include "runtime/bytes.h"
#include "runtime/verify.h"

namespace wl {
namespace {

constexpr size_t kHeader = 128, kTensorEntry = 120, kStepHead = 16, kAttrEntry = 16;
constexpr uint64_t kMaxBytes = uint64_t(1) << 40;
constexpr uint32_t kMaxTensors = 1u << 20, kMaxSteps = 1u << 20, kAbsent = 0xffffffff;

// Where the parts of a PROG section and of the program object lie.
struct Layout {
  const char* data = nullptr;  // the payload
  size_t base = 0;             // its offset in the file
  uint32_t n_tensors = 0, n_steps = 0, n_inputs = 0, n_outputs = 0;
  size_t tensors = 0, slots = 0, steps = 0, names = 0, names_end = 0, consts = 0, consts_bytes = 0;  // offsets in the payload
  // Offsets in the object; the copy of consts comes last, so that it can be left out.
  size_t at_tensors = 0, at_names = 0, at_steps = 0, at_slots = 0, at_text = 0, at_consts = 0;
};

Status parse_header(const Section& section, Layout* out) {
  Layout l;
  const char* data = l.data = section.data;
  const size_t size = section.size, base = l.base = section.offset;
  if (size < kHeader) return file_error(base, "a program of %zu bytes; its header alone has %zu", size, kHeader);
  const auto version = read_at<uint32_t>(data, 0);
  if (version != 0)
    return Status::error(Code::unsupported, "byte %zu of the file: program version %u; this library runs version 0", base, version);
  if (!all_zero(data, 4, 8)) return file_error(base + 4, "must be 0");
  const auto batch = read_at<int64_t>(data, 8);
  if (batch < 0 || batch > int64_t(kMaxBytes)) return file_error(base + 8, "a planned batch of %" PRId64, batch);
  for (int b = 0; b <= int(Buffer::consts); ++b) {
    const auto bytes = read_at<uint64_t>(data, 16 + 8 * b);
    if (bytes % 64 != 0 || bytes > kMaxBytes)
      return file_error(base + 16 + 8 * b, "%" PRIu64 " bytes for buffer %s: must be a multiple of 64 and at most 2^40", bytes,
                        buffer_name(Buffer(b)));
  }
  l.n_tensors = read_at<uint32_t>(data, 72);
  l.n_steps = read_at<uint32_t>(data, 76);
  l.n_inputs = read_at<uint32_t>(data, 80);
  l.n_outputs = read_at<uint32_t>(data, 84);
  if (l.n_tensors > kMaxTensors || l.n_steps > kMaxSteps || l.n_inputs > uint32_t(kMaxSlots) || l.n_outputs > uint32_t(kMaxSlots))
    return file_error(base + 72, "%u tensors, %u steps, %u input and %u output slots: at most %u, %u, %d and %d are possible", l.n_tensors,
                      l.n_steps, l.n_inputs, l.n_outputs, kMaxTensors, kMaxSteps, kMaxSlots, kMaxSlots);
  const auto name_bytes = read_at<uint64_t>(data, 88), step_bytes = read_at<uint64_t>(data, 96);
  if (name_bytes < 1 || name_bytes > size || step_bytes > size || step_bytes % 8 != 0)
    return file_error(base + 88, "a name table of %" PRIu64 " and a step table of %" PRIu64 " bytes in a program of %zu", name_bytes,
                      step_bytes, size);
  if (!all_zero(data, 104, kHeader)) return file_error(base + 104, "must be 0");

  l.tensors = kHeader;
  l.slots = l.tensors + l.n_tensors * kTensorEntry;
  l.steps = l.slots + (size_t(l.n_inputs) + l.n_outputs) * 4;
  l.names = l.steps + step_bytes;
  l.names_end = l.names + name_bytes;
  l.consts = size_t(round_up(int64_t(l.names_end), 64));
  l.consts_bytes = size_t(read_at<uint64_t>(data, 16 + 8 * int(Buffer::consts)));
  if (l.consts > size || l.consts_bytes != size - l.consts)
    return file_error(base, "tables of %zu bytes and consts of %zu do not make up the program's %zu bytes", l.consts, l.consts_bytes, size);
  if (size_t(l.n_steps) * kStepHead > step_bytes)
    return file_error(base + 96, "%u steps do not fit into %" PRIu64 " bytes", l.n_steps, step_bytes);
  if (!all_zero(data, l.names_end, l.consts)) return file_error(base + l.names_end, "the gap before consts must be zeros");
  if (data[l.names] != 0 || data[l.names_end - 1] != 0)
    return file_error(base + l.names, "the name table begins with the empty string and ends with NUL");

  l.at_tensors = size_t(round_up(sizeof(Program), 64));
  l.at_names = l.at_tensors + l.n_tensors * sizeof(Tensor);
  l.at_steps = l.at_names + l.n_tensors * sizeof(char*);
  l.at_slots = l.at_steps + l.n_steps * sizeof(Step);
  l.at_text = l.at_slots + (size_t(l.n_inputs) + l.n_outputs) * sizeof(int);
  l.at_consts = size_t(round_up(int64_t(l.at_text + name_bytes), 64));
  *out = l;
  return Status::good();
}

// The name at an offset of the name table; null when none begins there.
const char* name_at(const Layout& l, const char* text, uint32_t offset) {
  if (offset >= l.names_end - l.names || (offset > 0 && text[offset - 1] != 0)) return nullptr;
  return valid_utf8(text + offset, strlen(text + offset)) ? text + offset : nullptr;
}

Status parse_tensor(const Layout& l, const char* text, uint32_t index, Tensor* tensor, const char** name) {
  const char* data = l.data;
  const size_t at = l.tensors + index * kTensorEntry, file = l.base + at;
  const auto dtype = read_at<uint8_t>(data, at), rank = read_at<uint8_t>(data, at + 1), buffer = read_at<uint8_t>(data, at + 2),
             flags = read_at<uint8_t>(data, at + 3);
  if (dtype >= kDTypeCount || rank > kMaxRank || buffer >= kBufferCount || flags > 1)
    return file_error(file, "tensor %u: dtype %u, rank %u, buffer %u, flags %u: unknown", index, dtype, rank, buffer, flags);
  *name = name_at(l, text, read_at<uint32_t>(data, at + 4));
  if (!*name)
    return file_error(file + 4, "tensor %u: no UTF-8 name begins at %u of the name table", index, read_at<uint32_t>(data, at + 4));
  tensor->dtype = DType(dtype);
  tensor->rank = rank;
  tensor->buffer = Buffer(buffer);
  tensor->batch = flags & 1;
  tensor->offset = read_at<int64_t>(data, at + 8);
  for (int d = 0; d < kMaxRank; ++d) {
    const auto extent = read_at<int64_t>(data, at + 16 + 8 * d), stride = read_at<int64_t>(data, at + 64 + 8 * d);
    const bool fits =
        d < rank ? extent >= 1 && extent <= int64_t(kMaxBytes) && stride >= 0 && stride <= int64_t(kMaxBytes) : extent == 0 && stride == 0;
    if (!fits)
      return file_error(file + 16 + 8 * d, "tensor %u '%s': extent %" PRId64 " with stride %" PRId64 " on axis %d of %d", index, *name,
                        extent, stride, d, rank);
    tensor->dims[d] = extent;
    tensor->strides[d] = stride;
  }
  if (!__builtin_isfinite(read_at<float>(data, at + 112)))
    return file_error(file + 112, "tensor %u '%s': the scale is not finite", index, *name);
  return Status::good();
}

// Kind of attribute `key`: 0 int, 1 real, -1 unknown.
int attr_kind(uint16_t key) {
  enum { kind_int = 0, kind_real = 1 };
  switch (key) {
#define WL_ATTR(number, name, kind) \
  case number:                      \
    return kind_##kind;
#include "ops/attrs.inc"
#undef WL_ATTR
  }
  return -1;
}

// Reads the step at *at of the payload and moves *at behind it.
Status parse_step(const Layout& l, const char* text, const Tensor* tensors, uint32_t index, size_t* at, Step* step) {
  const char* data = l.data;
  const size_t start = *at, file = l.base + start;
  if (l.names - start < kStepHead) return file_error(file, "step %u: the step table is cut off", index);
  const auto opcode = read_at<uint16_t>(data, start);
  const auto n_in = read_at<uint8_t>(data, start + 2), n_out = read_at<uint8_t>(data, start + 3),
             n_attr = read_at<uint8_t>(data, start + 4), entry = read_at<uint8_t>(data, start + 5);
  if (!find_op(opcode)) return Status::error(Code::unsupported, "byte %zu of the file: step %u: unknown opcode %u", file, index, opcode);
  if (n_in > kMaxInputs || n_out > kMaxOutputs || n_attr > kMaxAttrs || entry >= kEntries)
    return file_error(file + 2, "step %u: %u inputs, %u outputs, %u attributes, entry %u: at most %d, %d, %d and %d", index, n_in, n_out,
                      n_attr, entry, kMaxInputs, kMaxOutputs, kMaxAttrs, kEntries - 1);
  if (!all_zero(data, start + 6, start + 8) || !all_zero(data, start + 12, start + 16))
    return file_error(file + 6, "step %u: must be 0", index);
  const int operands = n_in + n_out;
  const size_t attrs = start + kStepHead + size_t(round_up(operands * 4, 8)), end = attrs + n_attr * kAttrEntry;
  if (end > l.names) return file_error(file, "step %u: the step table is cut off", index);
  step->opcode = Opcode(opcode);
  step->n_in = n_in;
  step->n_out = n_out;
  step->n_attr = n_attr;
  step->entry = entry;
  step->path = name_at(l, text, read_at<uint32_t>(data, start + 8));
  if (!step->path)
    return file_error(file + 8, "step %u: no UTF-8 name begins at %u of the name table", index, read_at<uint32_t>(data, start + 8));
  for (int o = 0; o < operands; ++o) {
    const auto id = read_at<uint32_t>(data, start + kStepHead + 4 * o);
    if (id != kAbsent && id >= l.n_tensors)
      return file_error(file + kStepHead + 4 * o, "step %u: operand %d is tensor %u of %u", index, o, id, l.n_tensors);
    (o < n_in ? step->in[o] : step->out[o - n_in]) = id == kAbsent ? nullptr : &tensors[id];
  }
  if (!all_zero(data, start + kStepHead + 4 * operands, attrs))
    return file_error(file + kStepHead, "step %u: the padding must be zeros", index);
  for (int a = 0; a < n_attr; ++a) {
    const size_t entry_at = attrs + a * kAttrEntry;
    const auto key = read_at<uint16_t>(data, entry_at);
    const auto real = read_at<uint8_t>(data, entry_at + 2);
    if (attr_kind(key) != int(real) || !all_zero(data, entry_at + 3, entry_at + 8))
      return file_error(l.base + entry_at, "step %u: attribute %u of kind %u is unknown", index, key, real);
    Attr& attr = step->attrs[a];
    attr.key = AttrKey(key);
    attr.real = real == 1;
    if (attr.real) {
      attr.f = read_at<double>(data, entry_at + 8);
      if (!__builtin_isfinite(attr.f)) return file_error(l.base + entry_at + 8, "step %u: attribute %u is not finite", index, key);
    } else {
      attr.i = read_at<int64_t>(data, entry_at + 8);
    }
    for (int b = 0; b < a; ++b)
      if (step->attrs[b].key == attr.key) return file_error(l.base + entry_at, "step %u: attribute %u occurs twice", index, key);
  }
  *at = end;
  return Status::good();
}

// Parses and verifies everything into `memory`. `consts` is where the program reads them.
Status build(const Layout& l, char* memory, const char* consts) {
  auto* program = new (memory) Program;
  auto* tensors = reinterpret_cast<Tensor*>(memory + l.at_tensors);
  auto* names = reinterpret_cast<const char**>(memory + l.at_names);
  auto* steps = reinterpret_cast<Step*>(memory + l.at_steps);
  auto* slots = reinterpret_cast<int*>(memory + l.at_slots);
  char* text = memory + l.at_text;
  memcpy(text, l.data + l.names, l.names_end - l.names);

  program->batch = read_at<int64_t>(l.data, 8);
  for (int b = 0; b <= int(Buffer::consts); ++b) program->bytes[b] = read_at<int64_t>(l.data, 16 + 8 * b);
  program->consts = consts;
  program->n_tensors = int(l.n_tensors);
  program->n_steps = int(l.n_steps);
  program->n_inputs = int(l.n_inputs);
  program->n_outputs = int(l.n_outputs);
  program->tensors = tensors;
  program->tensor_names = names;
  program->steps = steps;
  program->input_tensors = slots;
  program->output_tensors = slots + l.n_inputs;
  for (uint32_t t = 0; t < l.n_tensors; ++t) WL_TRY(parse_tensor(l, text, t, new (&tensors[t]) Tensor, &names[t]));
  for (uint32_t s = 0; s < l.n_inputs + l.n_outputs; ++s) {
    const auto id = read_at<uint32_t>(l.data, l.slots + 4 * s);
    if (id >= l.n_tensors) return file_error(l.base + l.slots + 4 * s, "slot %u is described by tensor %u of %u", s, id, l.n_tensors);
    slots[s] = int(id);
  }
  WL_TRY(verify_tensors(*program));

  // Two walks over the step table: count the steps of each entry, then put each where its entry has room.
  int count[kEntries] = {};
  Step step;
  size_t at = l.steps;
  for (uint32_t s = 0; s < l.n_steps; ++s) {
    step = Step{};
    WL_TRY(parse_step(l, text, tensors, s, &at, &step));
    ++count[step.entry];
  }
  if (at != l.names) return file_error(l.base + at, "%zu bytes behind the last step of the table", l.names - at);
  int next[kEntries];
  for (int e = 0; e < kEntries; ++e) {
    next[e] = program->entry_begin[e];
    program->entry_begin[e + 1] = next[e] + count[e];
  }
  at = l.steps;
  for (uint32_t s = 0; s < l.n_steps; ++s) {
    step = Step{};
    WL_TRY(parse_step(l, text, tensors, s, &at, &step));
    WL_TRY(verify_step(*program, step));
    steps[next[step.entry]++] = step;
  }
  return Status::good();
}

Status find_program(const Container& container, Layout* layout) {
  const Section* section = container.find(section_tag("PROG"));
  if (!section) return Status::error(Code::invalid, "the file holds no program (section PROG): export one with wiesel.export");
  return parse_header(*section, layout);
}

}  // namespace

Status program_load(const void* data, size_t size, Program** out) {
  Container container;
  Layout layout;
  WL_TRY(container_parse(data, size, &container));
  WL_TRY(find_program(container, &layout));
  const size_t bytes = layout.at_consts + layout.consts_bytes;
  char* memory = memory_alloc(bytes);
  if (!memory) return Status::error(Code::no_memory, "no memory for a program of %zu bytes", bytes);
  char* consts = memory + layout.at_consts;
  if (layout.consts_bytes) memcpy(consts, layout.data + layout.consts, layout.consts_bytes);
  const Status status = build(layout, memory, consts);
  if (!status) {
    memory_free(memory, bytes);
    return status;
  }
  *out = reinterpret_cast<Program*>(memory);
  return status;
}

void program_free(Program* program) {
  if (program)
    memory_free(reinterpret_cast<char*>(program),
                size_t(program->consts - reinterpret_cast<char*>(program)) + size_t(program->bytes[int(Buffer::consts)]));
}

Status program_size(const void* data, size_t size, size_t* bytes) {
  Container container;
  Layout layout;
  WL_TRY(container_parse(data, size, &container));
  WL_TRY(find_program(container, &layout));
  *bytes = layout.at_consts;
  return Status::good();
}

Status program_place(const void* data, size_t size, void* memory, Program** out) {
  Container container;
  Layout layout;
  WL_CHECK(reinterpret_cast<uintptr_t>(data) % 64 == 0 && reinterpret_cast<uintptr_t>(memory) % 64 == 0,
           "the file and the program's memory must begin at a multiple of 64 bytes");
  WL_TRY(container_parse(data, size, &container));
  WL_TRY(find_program(container, &layout));
  WL_TRY(build(layout, static_cast<char*>(memory), layout.data + layout.consts));
  auto* program = static_cast<Program*>(memory);
  if (const Section* weights = container.find(section_tag("WGHT"))) program->weights = *weights;
  *out = program;
  return Status::good();
}

MemoryNeed program_memory(const Program& program, const Kernels& kernels, int threads) {
  MemoryNeed need{program.bytes[int(Buffer::arena)], 0, program.bytes[int(Buffer::prepared)]};
  for (int s = 0; s < program.n_steps; ++s) {
    const Step& step = program.steps[s];
    const Op* op = find_op(uint16_t(step.opcode));
    if (!op->choose) continue;
    Choice choice;
    op->choose(step, kernels, threads, &choice);
    need.workspace = max_of(need.workspace, choice.workspace);
  }
  need.workspace = round_up(need.workspace, kCacheLine);
  return need;
}

}  // namespace wl
