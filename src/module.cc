// The module wiesel._core. Contract: python/wiesel/_core.pyi.
#include "arrays.h"
#include "runtime/threads.h"
#include "wiesel/wiesel.h"

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  m.doc() = "The compiled core: kernel selection, choice of algorithms, programs and their instances.";
  m.attr("VERSION") = wl_version();
  wl::watch_forks();
  wl_py::bind_base(m);
  wl_py::bind_program(m);
  wl_py::bind_instance(m);
}
