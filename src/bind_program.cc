// class Program, and choose().
#include "ops/op.h"
#include "program.h"
#include "runtime/verify.h"

namespace wl_py {
namespace {

const char* algorithm_name(wl::Algorithm algorithm) {
  switch (algorithm) {
#define WL_ENTRY(name, number) \
  case wl::Algorithm::name: return #name;
    WL_ALGORITHMS(WL_ENTRY)
#undef WL_ENTRY
  }
  return "?";
}

py::list refusals(const char* text) {  // "a: why; b: why"
  py::list list;
  for (const char* p = text; *p;) {
    const char* end = strstr(p, "; ");
    list.append(end ? std::string(p, end) : std::string(p));
    if (!end) break;
    p = end + 2;
  }
  return list;
}

py::dict choice_dict(const wl::Op& op, const wl::Step& step, const wl::Kernels& kernels, int threads) {
  wl::Choice choice;
  if (op.choose) op.choose(step, kernels, threads, &choice);
  py::dict d;
  d["algorithm"] = algorithm_name(choice.algorithm);
  d["kernel"] = choice.kernel;
  d["blocking"] = choice.blocking;
  d["refused"] = refusals(choice.refused);
  d["workspace"] = choice.workspace;
  d["packed"] = choice.packed;
  return d;
}

uint16_t opcode_named(const std::string& name) {
#define WL_OP(number, op) \
  if (name == #op) return number;
#include "ops/ops.inc"
#undef WL_OP
  throw py::value_error("unknown opcode '" + name + "'");
}

// Number and kind of an attribute.
struct AttrEntry {
  const char* name;
  uint16_t number;
  bool real;
};
const AttrEntry kAttrs[] = {
#define WL_ATTR_int false
#define WL_ATTR_real true
#define WL_ATTR(number, name, kind) {#name, number, WL_ATTR_##kind},
#include "ops/attrs.inc"
#undef WL_ATTR
#undef WL_ATTR_int
#undef WL_ATTR_real
};

void set_attrs(wl::Step& step, const py::dict& attrs) {
  if (attrs.size() > size_t(wl::kMaxAttrs)) throw py::value_error("a step has at most " + std::to_string(wl::kMaxAttrs) + " attributes");
  for (const auto& [key, value] : attrs) {
    const auto name = py::cast<std::string>(key);
    const AttrEntry* found = nullptr;
    for (const AttrEntry& entry : kAttrs)
      if (name == entry.name) found = &entry;
    if (!found) throw py::value_error("unknown attribute '" + name + "'");
    wl::Attr& attr = step.attrs[step.n_attr++];
    attr.key = wl::AttrKey(found->number);
    attr.real = found->real;
    if (found->real)
      attr.f = py::cast<double>(value);
    else
      attr.i = py::cast<int64_t>(value);
    if (found->real && !__builtin_isfinite(attr.f)) throw py::value_error("attribute '" + name + "' is not finite");
  }
}

// Dense tensors for a sequence of (dtype, extents) or None.
int set_operands(const py::sequence& given, int limit, wl::Tensor* tensors, const wl::Tensor** operands) {
  int n = 0;
  for (const auto& item : given) {
    if (n == limit) throw py::value_error("too many operands: at most " + std::to_string(limit));
    if (!item.is_none()) {
      const auto pair = py::cast<py::tuple>(item);
      const auto extents = py::cast<py::tuple>(pair[1]);
      wl::Tensor& t = tensors[n];
      if (extents.size() > size_t(wl::kMaxRank)) throw py::value_error("a tensor has at most 6 axes");
      t.dtype = dtype_named(py::cast<std::string>(pair[0]));
      t.rank = uint8_t(extents.size());
      int64_t stride = 1;
      for (int d = t.rank - 1; d >= 0; --d) {
        t.dims[d] = py::cast<int64_t>(extents[size_t(d)]);
        t.strides[d] = stride;
        if (t.dims[d] < 1 || __builtin_mul_overflow(stride, t.dims[d], &stride) || stride > int64_t(1) << 40)
          throw py::value_error("an extent of " + std::to_string(t.dims[d]) + " is outside what a tensor can have");
      }
      operands[n] = &t;
    }
    ++n;
  }
  return n;
}

py::dict choose(const std::string& opcode, const py::sequence& inputs, const py::sequence& outputs, const py::dict& attrs,
                const py::object& isa, int threads) {
  wl::Step step;
  wl::Tensor tensors[wl::kMaxInputs + wl::kMaxOutputs];
  step.opcode = wl::Opcode(opcode_named(opcode));
  step.path = "choose";
  step.n_in = uint8_t(set_operands(inputs, wl::kMaxInputs, tensors, step.in));
  step.n_out = uint8_t(set_operands(outputs, wl::kMaxOutputs, tensors + wl::kMaxInputs, step.out));
  set_attrs(step, attrs);
  const wl::Op& op = *wl::find_op(uint16_t(step.opcode));
  const wl::Status status = op.verify(step);
  if (!status) throw py::value_error(opcode + ": " + status.text);
  return choice_dict(op, step, kernels_of(isa), threads_of(threads));
}

ProgramPtr load(const py::buffer& data) {
  Py_buffer view;
  if (PyObject_GetBuffer(data.ptr(), &view, PyBUF_SIMPLE) != 0) throw py::error_already_set();
  auto handle = std::make_shared<ProgramHandle>();
  wl::Status status;
  {
    const py::gil_scoped_release release;
    status = wl::program_load(view.buf, size_t(view.len), &handle->program);
  }
  PyBuffer_Release(&view);
  raise_unless_good(status);
  return handle;
}

py::dict memory(const ProgramHandle& self, const py::object& isa, int threads) {
  const wl::Program& p = *self.program;
  const wl::MemoryNeed need = wl::program_memory(p, kernels_of(isa), threads_of(threads));
  py::dict d;
  d["arena"] = need.arena;
  d["workspace"] = need.workspace;
  d["prepared"] = need.prepared;
  for (const auto buffer : {wl::Buffer::params, wl::Buffer::grads, wl::Buffer::state, wl::Buffer::opt, wl::Buffer::consts})
    d[wl::buffer_name(buffer)] = p.bytes[int(buffer)];
  return d;
}

py::list operand_list(const wl::Program& p, const wl::Tensor* const* operands, int n) {
  py::list list;
  for (int i = 0; i < n; ++i) {
    if (!operands[i]) {
      list.append(py::none());
      continue;
    }
    const wl::Tensor& t = *operands[i];
    py::tuple shape(t.rank);
    for (int d = 0; d < t.rank; ++d) shape[size_t(d)] = t.dims[d];
    py::dict d;
    d["name"] = p.tensor_names[operands[i] - p.tensors];
    d["dtype"] = dtype_name(t.dtype);
    d["shape"] = shape;
    d["buffer"] = wl::buffer_name(t.buffer);
    d["batch"] = t.batch;
    list.append(d);
  }
  return list;
}

py::list steps(const ProgramHandle& self, const py::object& isa, int threads) {
  const wl::Program& p = *self.program;
  const wl::Kernels& kernels = kernels_of(isa);
  threads = threads_of(threads);
  py::list list;
  for (int s = 0; s < p.n_steps; ++s) {
    const wl::Step& step = p.steps[s];
    const wl::Op& op = *wl::find_op(uint16_t(step.opcode));
    py::dict d = choice_dict(op, step, kernels, threads);
    d["entry"] = wl::entry_name(step.entry);
    d["opcode"] = op.name;
    d["path"] = step.path;
    d["inputs"] = operand_list(p, step.in, step.n_in);
    d["outputs"] = operand_list(p, step.out, step.n_out);
    list.append(d);
  }
  return list;
}

}  // namespace

void bind_program(py::module_& m) {
  m.def("choose", &choose, py::arg("opcode"), py::arg("inputs"), py::arg("outputs"), py::arg("attrs"), py::arg("isa") = py::none(),
        py::arg("threads") = 0);
  py::class_<ProgramHandle, ProgramPtr>(m, "Program")
      .def(py::init(&load), py::arg("data"))
      .def_property_readonly("batch", [](const ProgramHandle& self) { return self.program->batch; })
      .def("memory", &memory, py::arg("isa") = py::none(), py::arg("threads") = 0)
      .def("steps", &steps, py::arg("isa") = py::none(), py::arg("threads") = 0);
}

}  // namespace wl_py
