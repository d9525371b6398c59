// What bind_program.cc and bind_instance.cc share.
#pragma once
#include <memory>

#include "arrays.h"
#include "runtime/program.h"

namespace wl_py {

// Owner of a parsed program; shared by the Python object and its instances.
struct ProgramHandle {
  wl::Program* program = nullptr;
  ~ProgramHandle() { wl::program_free(program); }
};
using ProgramPtr = std::shared_ptr<ProgramHandle>;

}  // namespace wl_py
