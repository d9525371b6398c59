#include "arrays.h"

#include "block.h"

namespace wl_py {
namespace {

struct DTypeEntry {
  const char* name;
  const char* numpy;
};
constexpr DTypeEntry kDTypes[wl::kDTypeCount] = {{"f32", "float32"}, {"f64", "float64"}, {"bf16", "uint16"}, {"f16", "float16"},
                                                 {"u8", "uint8"},    {"i8", "int8"},     {"i32", "int32"}};

// Looked up once; lives until the process ends (module teardown may come after the interpreter's).
struct NumpyDTypes {
  py::dtype dtype[wl::kDTypeCount];
  int number[wl::kDTypeCount];
  NumpyDTypes() {
    for (int i = 0; i < wl::kDTypeCount; ++i) {
      dtype[i] = py::dtype(kDTypes[i].numpy);
      number[i] = dtype[i].num();
    }
  }
};
const NumpyDTypes& numpy_dtypes() {
  static const auto* table = new NumpyDTypes;
  return *table;
}

}  // namespace

void raise_unless_good(const wl::Status& status) {
  switch (status.code) {
    case wl::Code::ok: return;
    case wl::Code::invalid:
    case wl::Code::corrupt:
    case wl::Code::unsupported: throw py::value_error(status.text);
    case wl::Code::no_memory: PyErr_SetString(PyExc_MemoryError, status.text); throw py::error_already_set();
    case wl::Code::interrupted: PyErr_SetString(PyExc_KeyboardInterrupt, status.text); throw py::error_already_set();
    case wl::Code::state: break;
  }
  throw std::runtime_error(status.text);
}

const char* dtype_name(wl::DType dtype) {
  return kDTypes[int(dtype)].name;
}

wl::DType dtype_named(const std::string& name) {
  std::string known;
  for (int i = 0; i < wl::kDTypeCount; ++i) {
    if (name == kDTypes[i].name || (i != int(wl::DType::bf16) && name == kDTypes[i].numpy)) return wl::DType(i);
    known += std::string(i ? ", " : "") + kDTypes[i].name;
  }
  throw py::value_error("unknown dtype '" + name + "'; known: " + known);
}

const py::dtype& numpy_dtype(wl::DType dtype) {
  return numpy_dtypes().dtype[int(dtype)];
}
int numpy_type_number(wl::DType dtype) {
  return numpy_dtypes().number[int(dtype)];
}

bool view_array(PyObject* object, ArrayView* view) {
  using py::detail::npy_api;
  if (!npy_api::get().PyArray_Check_(object)) return false;
  const auto* array = py::detail::array_proxy(object);
  const auto* descr = py::detail::array_descriptor_proxy(array->descr);
  view->data = array->data;
  view->rank = array->nd;
  view->dims = array->dimensions;
  view->type_number = descr->type_num;
  const int wanted = npy_api::NPY_ARRAY_C_CONTIGUOUS_ | npy_api::NPY_ARRAY_ALIGNED_;
  view->contiguous = (array->flags & wanted) == wanted && descr->byteorder != '>';
  view->writable = array->flags & npy_api::NPY_ARRAY_WRITEABLE_;
  return true;
}

py::object new_array(wl::DType dtype, int rank, const int64_t* dims) {
  using py::detail::npy_api;
  auto& api = npy_api::get();
  Py_intptr_t extents[wl::kMaxRank];
  for (int d = 0; d < rank; ++d) extents[d] = Py_intptr_t(dims[d]);
  size_t bytes = wl::dtype_size(dtype);
  for (int d = 0; d < rank; ++d) bytes *= size_t(dims[d]);
  const BlockPtr block = bytes >= kKeptFrom ? kept_block(bytes) : nullptr;
  void* const data = block ? block->data : nullptr;  // null: NumPy's own, and no flags then
  const int flags = block ? npy_api::NPY_ARRAY_C_CONTIGUOUS_ | npy_api::NPY_ARRAY_ALIGNED_ | npy_api::NPY_ARRAY_WRITEABLE_ : 0;
  PyObject* descr = numpy_dtype(dtype).ptr();
  Py_INCREF(descr);  // PyArray_NewFromDescr keeps the reference
  auto array =
      py::reinterpret_steal<py::object>(api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, rank, extents, nullptr, data, flags, nullptr));
  if (!array) throw py::error_already_set();
  if (block && api.PyArray_SetBaseObject_(array.ptr(), py::cast(block).release().ptr()) != 0) throw py::error_already_set();
  return array;
}

bool fits_slot(const ArrayView& array, const wl::Tensor& slot, int64_t n) {
  if (!array.contiguous || array.rank != slot.rank || array.type_number != numpy_type_number(slot.dtype)) return false;
  for (int d = 0; d < slot.rank; ++d)
    if (array.dims[d] != (d == 0 && slot.batch ? n : slot.dims[d])) return false;
  return true;
}

void raise_misfit(PyObject* object, const char* kind, int index, const char* name, const wl::Tensor& slot, int64_t n) {
  int64_t dims[wl::kMaxRank] = {};
  for (int d = 0; d < slot.rank; ++d) dims[d] = d == 0 && slot.batch ? n : slot.dims[d];
  std::string text = std::string(kind) + " " + std::to_string(index) + " ('" + name + "') must be a C-contiguous array of " +
                     kDTypes[int(slot.dtype)].numpy + " and shape " + shape_text(slot.rank, dims) + ", got ";
  ArrayView array;
  if (view_array(object, &array)) {
    int64_t got[64] = {};
    for (int d = 0; d < array.rank && d < 64; ++d) got[d] = array.dims[d];
    text +=
        py::str(py::reinterpret_borrow<py::object>(object).attr("dtype")).cast<std::string>() + " of shape " + shape_text(array.rank, got);
    if (!array.contiguous) text += ", not contiguous (or not aligned, or of foreign byte order)";
  } else {
    text += std::string("a ") + Py_TYPE(object)->tp_name;
  }
  throw py::value_error(text);
}

std::string shape_text(int rank, const int64_t* dims) {
  std::string text = "(";
  for (int d = 0; d < rank; ++d) text += (d ? ", " : "") + std::to_string(dims[d]);
  return text + (rank == 1 ? ",)" : ")");
}

const wl::Kernels& kernels_of(const py::object& isa) {
  const std::string name = isa.is_none() ? "" : isa.cast<std::string>();
  if (const wl::Kernels* kernels = isa.is_none() ? wl::active_kernels() : wl::find_kernels(name.c_str())) return *kernels;
  std::string runnable;
  for (const wl::Kernels* const* k = wl::runnable_kernels(); *k; ++k) runnable += std::string(runnable.empty() ? "" : ", ") + (*k)->isa;
  const char* forced = getenv("WIESEL_ISA");
  throw py::value_error((isa.is_none() ? "WIESEL_ISA=" + std::string(forced ? forced : "") : "isa '" + name + "'") +
                        ": unknown, or this machine cannot run it; runnable: " + runnable);
}

}  // namespace wl_py
