// Tables of the core as dictionaries, kernel selection, threads, random numbers, CRC.
#include <atomic>
#include <cstring>

#include "arrays.h"
#include "base/crc32.h"
#include "base/random.h"
#include "block.h"
#include "heap.h"
#include "ops/op.h"
#include "runtime/probe.h"
#include "runtime/threads.h"
#include "runtime/verify.h"

namespace wl_py {
namespace {

std::atomic<int> chosen_threads{0};  // 0: the default, asked for when it is first needed

void bind_tables(py::module_& m) {
  py::dict opcodes, attrs, unary, saves, binary, reduce, algorithms, dtypes, buffers, slots;
#define WL_OP(number, name) opcodes[#name] = number;
#include "ops/ops.inc"
#undef WL_OP
#define WL_ATTR(number, name, kind) attrs[#name] = py::make_tuple(number, #kind);
#include "ops/attrs.inc"
#undef WL_ATTR
#define WL_ENTRY(name, number, reads) unary[#name] = number, saves[#name] = #reads;
  WL_UNARY_KINDS(WL_ENTRY)
#undef WL_ENTRY
#define WL_ENTRY(name, number) binary[#name] = number;
  WL_BINARY_KINDS(WL_ENTRY)
#undef WL_ENTRY
#define WL_ENTRY(name, number) reduce[#name] = number;
  WL_REDUCE_KINDS(WL_ENTRY)
#undef WL_ENTRY
#define WL_ENTRY(name, number) algorithms[#name] = number;
  WL_ALGORITHMS(WL_ENTRY)
#undef WL_ENTRY
  for (int i = 0; i < wl::kDTypeCount; ++i) dtypes[dtype_name(wl::DType(i))] = i;
  for (int i = 0; i < wl::kBufferCount; ++i) buffers[wl::buffer_name(wl::Buffer(i))] = i;
  slots["seed"] = int(wl::kSlotSeed);
  slots["step"] = int(wl::kSlotStep);
  slots["micro_step"] = int(wl::kSlotMicroStep);
  slots["sample"] = int(wl::kSlotSample);
  slots["accumulate"] = int(wl::kSlotAccumulate);
  slots["first_group"] = int(wl::kSlotFirstGroup);
  slots["count"] = int(wl::kScalarSlots);
  m.attr("OPCODES") = opcodes;
  m.attr("ATTRS") = attrs;
  m.attr("UNARY_KINDS") = unary;
  m.attr("UNARY_SAVES") = saves;
  m.attr("BINARY_KINDS") = binary;
  m.attr("REDUCE_KINDS") = reduce;
  m.attr("ALGORITHMS") = algorithms;
  m.attr("DTYPES") = dtypes;
  m.attr("BUFFERS") = buffers;
  m.attr("SLOTS") = slots;
}

py::object random_fill(const std::string& kind, uint64_t seed, uint64_t purpose, uint64_t stream, uint64_t step, const py::tuple& shape) {
  if (kind != "uniform" && kind != "normal") throw py::value_error("random_fill: kind '" + kind + "'; known: uniform, normal");
  std::vector<py::ssize_t> dims;
  for (const auto& extent : shape) dims.push_back(extent.cast<py::ssize_t>());
  py::array_t<float> y(dims);
  const uint64_t key = wl::random_key(seed, purpose, stream, step, 0);
  float* data = y.mutable_data();
  const int64_t n = y.size();
  {
    const py::gil_scoped_release release;
    (kind == "normal" ? wl::random_normal_fill : wl::random_uniform_fill)(key, n, data);
  }
  return y;
}

py::object random_permutation(int64_t n, uint64_t seed, uint64_t purpose, uint64_t stream, uint64_t step) {
  if (n < 0) throw py::value_error("random_permutation: n is " + std::to_string(n) + ", must be at least 0");
  py::array_t<int64_t> y(n);
  int64_t* data = y.mutable_data();
  {
    const py::gil_scoped_release release;
    wl::random_permutation(wl::random_key(seed, purpose, stream, step, 0), n, data);
  }
  return y;
}

uint32_t crc32_of(const py::buffer& data) {
  Py_buffer view;
  if (PyObject_GetBuffer(data.ptr(), &view, PyBUF_SIMPLE) != 0) throw py::error_already_set();
  uint32_t crc;
  {
    const py::gil_scoped_release release;
    crc = wl::crc32(view.buf, size_t(view.len));
  }
  PyBuffer_Release(&view);
  return crc;
}

double probe_flops(double seconds, const py::object& isa, int threads) {
  const wl::Kernels& kernels = kernels_of(isa);
  threads = threads_of(threads);
  const py::gil_scoped_release release;
  return wl::probe_flops(kernels, threads, seconds);
}

// Numbers in a block, every page written once: pages that are only read would all be one page of zeros.
float* written(const Block& block) {
  std::memset(block.data, 0, block.bytes);
  return reinterpret_cast<float*>(block.data);
}

double probe_products(double seconds, const py::object& isa, int threads) {
  const wl::Kernels& kernels = kernels_of(isa);
  threads = threads_of(threads);
  const Block memory(wl::probe_products_floats(kernels, threads) * int64_t(sizeof(float)));
  const py::gil_scoped_release release;
  return wl::probe_products(kernels, threads, seconds, written(memory));
}

double probe_bytes(const std::string& kind, int64_t nbytes, double seconds, const py::object& isa, int threads) {
  if (kind != "read" && kind != "copy") throw py::value_error("probe_bytes: kind '" + kind + "'; known: read, copy");
  if (nbytes < 4096 || nbytes > int64_t(1) << 40)
    throw py::value_error("probe_bytes: nbytes is " + std::to_string(nbytes) + ", must be 4096 to 2**40");
  const wl::Kernels& kernels = kernels_of(isa);
  threads = threads_of(threads);
  const int64_t half = nbytes / 2 / wl::kCacheLine * wl::kCacheLine;
  const Block memory(2 * half);
  const bool copies = kind == "copy";
  const py::gil_scoped_release release;
  float* const data = written(memory);
  return wl::probe_bytes(kernels, threads, seconds, (copies ? half : 2 * half) / 4, data, copies ? data + half / 4 : nullptr);
}

}  // namespace

int num_threads() {
  int threads = chosen_threads.load();
  if (threads == 0) chosen_threads = threads = wl::default_threads();
  return threads;
}

int threads_of(int threads) {
  if (threads == 0) return num_threads();
  if (threads < 0 || threads > wl::kMaxThreads)
    throw py::value_error("threads is " + std::to_string(threads) + "; 1 to " + std::to_string(wl::kMaxThreads) +
                          " are possible, 0 means num_threads()");
  return threads;
}

void bind_base(py::module_& m) {
  bind_tables(m);
  m.def("isa", [] { return std::string(kernels_of(py::none()).isa); });
  m.def("isas", [] {
    py::list names;
    for (const wl::Kernels* const* k = wl::runnable_kernels(); *k; ++k) names.append((*k)->isa);
    return names;
  });
  m.def("default_threads", &wl::default_threads);
  m.def("num_threads", &num_threads);
  m.def(
      "set_num_threads",
      [](int n) {
        if (n < 1 || n > wl::kMaxThreads)
          throw py::value_error("the number of threads is " + std::to_string(n) + "; 1 to " + std::to_string(wl::kMaxThreads) +
                                " are possible");
        chosen_threads = n;
      },
      py::arg("n"));
  m.def("probe_flops", &probe_flops, py::arg("seconds"), py::arg("isa") = py::none(), py::arg("threads") = 0);
  m.def("probe_products", &probe_products, py::arg("seconds"), py::arg("isa") = py::none(), py::arg("threads") = 0);
  m.def("probe_bytes", &probe_bytes, py::arg("kind"), py::arg("nbytes"), py::arg("seconds"), py::arg("isa") = py::none(),
        py::arg("threads") = 0);
  m.def("heap_allocations", &heap_allocations);
  m.def("random_fill", &random_fill, py::arg("kind"), py::arg("seed"), py::arg("purpose"), py::arg("stream"), py::arg("step"),
        py::arg("shape"));
  m.def("random_permutation", &random_permutation, py::arg("n"), py::arg("seed"), py::arg("purpose"), py::arg("stream"), py::arg("step"));
  m.def("crc32", &crc32_of, py::arg("data"));
}

}  // namespace wl_py
