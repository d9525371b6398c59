// NumPy arrays and wiesel's element types. Errors are Python exceptions.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "base/status.h"
#include "base/tensor.h"
#include "kernels/kernels.h"

namespace wl_py {

namespace py = pybind11;

// ValueError, MemoryError or RuntimeError for a status that is not good.
void raise_unless_good(const wl::Status& status);

const char* dtype_name(wl::DType dtype);         // "f32"
wl::DType dtype_named(const std::string& name);  // ValueError for an unknown one
const py::dtype& numpy_dtype(wl::DType dtype);   // bf16 is uint16: NumPy has no such type

// What binding needs of an array, read without calling into NumPy.
struct ArrayView {
  char* data;
  int rank;
  const Py_intptr_t* dims;
  int type_number;
  bool contiguous, writable;  // contiguous: C order, aligned, native byte order
};
// False when `object` is no ndarray.
bool view_array(PyObject* object, ArrayView* view);
int numpy_type_number(wl::DType dtype);

// A new C-contiguous array, not initialised; from kKeptFrom bytes on in a block that earlier arrays may have left (block.h).
constexpr size_t kKeptFrom = size_t(1) << 20;
py::object new_array(wl::DType dtype, int rank, const int64_t* dims);

// Whether the array is what `slot` describes, its leading extent being n where it is the batch.
bool fits_slot(const ArrayView& array, const wl::Tensor& slot, int64_t n);
// The ValueError to raise when it is not.
[[noreturn]] void raise_misfit(PyObject* object, const char* kind, int index, const char* name, const wl::Tensor& slot, int64_t n);

std::string shape_text(int rank, const int64_t* dims);

// The kernels of `isa`, or those in force; ValueError that names the runnable ones otherwise.
const wl::Kernels& kernels_of(const py::object& isa);

// Threads of an instance: `threads` where it is positive, else num_threads().
int num_threads();
int threads_of(int threads);

void bind_base(py::module_& m);
void bind_program(py::module_& m);
void bind_instance(py::module_& m);

}  // namespace wl_py
