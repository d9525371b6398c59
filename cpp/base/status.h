// Errors travel as a Status with text; nothing below the C API throws, aborts or prints.
#pragma once
#include <stdarg.h>
#include <stdio.h>

namespace wl {

enum class Code : int { ok = 0, invalid = 1, corrupt = 2, unsupported = 3, no_memory = 4, interrupted = 5, state = 6 };

struct Status {
  Code code = Code::ok;
  char text[512] = {0};

  explicit operator bool() const { return code == Code::ok; }  // true when all is well

  static Status good() { return Status{}; }
#if defined(__GNUC__)
  __attribute__((format(printf, 2, 3)))
#endif
  static Status
  error(Code code, const char* format, ...) {
    Status s;
    s.code = code;
    va_list args;
    va_start(args, format);
    vsnprintf(s.text, sizeof s.text, format, args);
    va_end(args);
    return s;
  }
};

// Leaves the enclosing function with the status of `expr` unless it is good.
#define WL_TRY(expr)                          \
  do {                                        \
    ::wl::Status wl_try_status = (expr);      \
    if (!wl_try_status) return wl_try_status; \
  } while (0)

// Leaves the enclosing function with an `invalid` status unless `cond` holds.
#define WL_CHECK(cond, ...)                                                    \
  do {                                                                         \
    if (!(cond)) return ::wl::Status::error(::wl::Code::invalid, __VA_ARGS__); \
  } while (0)

}  // namespace wl
