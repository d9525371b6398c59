// Writes programs and containers for tests: docs/program-format.md without Python.
#pragma once
#include <string.h>

#include <string>
#include <utility>
#include <vector>

#include "base/crc32.h"
#include "ops/op.h"
#include "runtime/program.h"

namespace harness {

using wl::AttrKey;
using wl::Buffer;
using wl::DType;
using wl::Opcode;

inline int64_t slot_at(int slot, int64_t offset = 0) {
  return slot | offset << 16;
}

struct Bytes {
  std::string data;
  template <class T>
  Bytes& put(T value) {
    data.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  void pad(size_t multiple) { data.append((multiple - data.size() % multiple) % multiple, '\0'); }
};

struct TensorSpec {
  std::string name;
  Buffer buffer = Buffer::arena;
  int64_t offset = 0;
  std::vector<int64_t> dims;
  bool batch = false;
  DType dtype = DType::f32;
  std::vector<int64_t> strides;  // empty: dense
};

struct AttrSpec {
  AttrKey key;
  bool real;
  int64_t i;
  double f;
};
inline AttrSpec attr(AttrKey key, int value) {
  return {key, false, value, 0};
}
inline AttrSpec attr(AttrKey key, double value) {
  return {key, true, 0, value};
}

struct StepSpec {
  int entry;
  Opcode opcode;
  std::vector<int> in, out;  // -1: absent
  std::vector<AttrSpec> attrs;
  std::string path = "layer";
};

struct ProgramSpec {
  int64_t batch = 0;
  int64_t bytes[7] = {};  // arena, params, grads, state, opt, prepared, consts
  std::vector<TensorSpec> tensors;
  std::vector<int> inputs, outputs;
  std::vector<StepSpec> steps;
  std::string consts;

  int tensor(TensorSpec t) {
    tensors.push_back(std::move(t));
    return int(tensors.size()) - 1;
  }

  std::string payload() const {
    std::string names(1, '\0');
    const auto name = [&](const std::string& text) {
      const size_t at = names.size();
      names += text;
      names += '\0';
      return text.empty() ? 0u : uint32_t(at);
    };
    Bytes table, slots, steps_out;
    for (const TensorSpec& t : tensors) {
      int64_t dims[6] = {}, strides[6] = {}, stride = 1;
      for (int d = int(t.dims.size()) - 1; d >= 0; --d) {
        dims[d] = t.dims[size_t(d)];
        strides[d] = t.strides.empty() ? stride : t.strides[size_t(d)];
        stride *= dims[d];
      }
      table.put(uint8_t(t.dtype)).put(uint8_t(t.dims.size())).put(uint8_t(t.buffer)).put(uint8_t(t.batch)).put(name(t.name)).put(t.offset);
      for (int64_t d : dims) table.put(d);
      for (int64_t s : strides) table.put(s);
      table.put(1.0f).put(int32_t(0));
    }
    for (int id : inputs) slots.put(uint32_t(id));
    for (int id : outputs) slots.put(uint32_t(id));
    for (const StepSpec& s : steps) {
      steps_out.put(uint16_t(s.opcode))
          .put(uint8_t(s.in.size()))
          .put(uint8_t(s.out.size()))
          .put(uint8_t(s.attrs.size()))
          .put(uint8_t(s.entry));
      steps_out.put(uint16_t(0)).put(name(s.path)).put(uint32_t(0));
      for (int id : s.in) steps_out.put(uint32_t(id));
      for (int id : s.out) steps_out.put(uint32_t(id));
      steps_out.pad(8);
      for (const AttrSpec& a : s.attrs) {
        steps_out.put(uint16_t(a.key)).put(uint8_t(a.real)).put(uint8_t(0)).put(uint32_t(0));
        a.real ? steps_out.put(a.f) : steps_out.put(a.i);
      }
    }
    Bytes out;
    out.put(uint32_t(0)).put(uint32_t(0)).put(batch);
    for (int64_t b : bytes) out.put(b);
    out.put(uint32_t(tensors.size())).put(uint32_t(steps.size())).put(uint32_t(inputs.size())).put(uint32_t(outputs.size()));
    out.put(uint64_t(names.size())).put(uint64_t(steps_out.data.size())).put(uint64_t(0)).put(uint64_t(0)).put(uint64_t(0));
    out.data += table.data + slots.data + steps_out.data + names;
    out.pad(64);
    out.data += consts;
    return out.data;
  }
};

inline std::string container(const std::vector<std::pair<std::string, std::string>>& sections) {
  Bytes table, body;
  const size_t begin = 32 + 32 * sections.size();
  body.data.assign(begin, '\0');
  for (const auto& [tag, payload] : sections) {
    body.pad(64);
    table.data += tag;
    table.put(wl::crc32(payload.data(), payload.size())).put(uint64_t(body.data.size())).put(uint64_t(payload.size())).put(uint64_t(0));
    body.data += payload;
  }
  Bytes head;
  head.data = std::string("\x89WSL\r\n\x1a\n", 8);
  head.put(uint32_t(0)).put(uint32_t(sections.size())).put(uint64_t(body.data.size()));
  head.put(wl::crc32(table.data.data(), table.data.size())).put(uint32_t(0));
  body.data.replace(0, 32, head.data);
  body.data.replace(32, table.data.size(), table.data);
  return body.data;
}

inline std::string file_of(const ProgramSpec& spec) {
  return container({{"PROG", spec.payload()}});
}

struct ArraySpec {
  std::string name;
  std::vector<int64_t> dims;
  std::vector<float> values;
};

// A section WGHT.
inline std::string arrays(const std::vector<ArraySpec>& list) {
  Bytes out;
  out.put(uint32_t(list.size())).put(uint32_t(0));
  for (const ArraySpec& a : list) {
    out.put(uint16_t(a.name.size()));
    out.data += a.name;
    out.put(uint8_t(0)).put(uint8_t(a.dims.size()));
    for (int64_t d : a.dims) out.put(d);
    const size_t data = size_t(wl::round_up(int64_t(out.data.size()) + 16, 64));
    out.put(uint64_t(data)).put(uint64_t(a.values.size() * 4));
    out.data.resize(data);
    out.data.append(reinterpret_cast<const char*>(a.values.data()), a.values.size() * 4);
  }
  return out.data;
}

// y = relu(x * w + b) per row of four, planned for `batch` rows; grad: g = y at row 0, update: w -= lr * g. Every entry has work.
inline ProgramSpec small_net(int64_t batch = 8) {
  ProgramSpec p;
  const bool has_batch = batch > 0;
  const int64_t n = has_batch ? batch : 1, c = 4, row = c * 4;
  p.batch = batch;
  p.bytes[int(Buffer::arena)] = wl::round_up(n * row, 64);
  p.bytes[int(Buffer::params)] = 64;
  p.bytes[int(Buffer::grads)] = 64;
  p.bytes[int(Buffer::prepared)] = 64;
  p.bytes[int(Buffer::consts)] = 64;
  const float b[16] = {0.5f, -0.5f, 1, -1};
  p.consts.assign(reinterpret_cast<const char*>(b), sizeof b);
  const int x = p.tensor({"x", Buffer::input, slot_at(0), {n, c}, has_batch, DType::f32, {}});
  const int w = p.tensor({"w", Buffer::params, 0, {c}, false, DType::f32, {}});
  const int pw = p.tensor({"w.prepared", Buffer::prepared, 0, {c}, false, DType::f32, {}});
  const int pw_rows = p.tensor({"", Buffer::prepared, 0, {n, c}, has_batch, DType::f32, {0, 1}});
  const int b_rows = p.tensor({"", Buffer::consts, 0, {n, c}, has_batch, DType::f32, {0, 1}});
  const int t = p.tensor({"t", Buffer::arena, 0, {n, c}, has_batch, DType::f32, {}});
  const int y = p.tensor({"y", Buffer::output, slot_at(0), {n, c}, has_batch, DType::f32, {}});
  const int first = p.tensor({"", Buffer::arena, 0, {c}, false, DType::f32, {}});
  const int g = p.tensor({"w.grad", Buffer::grads, 0, {c}, false, DType::f32, {}});
  p.inputs = {x};
  p.outputs = {y};
  const auto kind = [](wl::BinaryKind k) { return attr(AttrKey::kind, int(k)); };
  p.steps.push_back({wl::kPrepare, Opcode::copy, {w}, {pw}, {}, "prepare"});
  p.steps.push_back({wl::kForward, Opcode::binary, {x, pw_rows}, {t}, {kind(wl::BinaryKind::mul)}, "scale"});
  p.steps.push_back({wl::kForward, Opcode::binary, {t, b_rows}, {t}, {kind(wl::BinaryKind::add)}, "shift"});
  p.steps.push_back({wl::kForward, Opcode::unary, {t}, {y}, {attr(AttrKey::kind, int(wl::UnaryKind::relu))}, "relu"});
  p.steps.push_back({wl::kGrad, Opcode::copy, {first}, {g}, {}, "grad"});
  p.steps.push_back({wl::kUpdate,
                     Opcode::sgd_update,
                     {g, w},
                     {w},
                     {attr(AttrKey::momentum, 0.0), attr(AttrKey::weight_decay, 0.0), attr(AttrKey::slot, int(wl::kSlotFirstGroup))},
                     "update"});
  return p;
}

}  // namespace harness
