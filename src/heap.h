#pragma once

namespace wl_py {

// Calls of operator new, malloc, calloc, realloc, posix_memalign and mmap by this extension so far.
long long heap_allocations();

}  // namespace wl_py
