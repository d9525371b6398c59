// What the tests of element-wise ops share: comparison in units of the last place, and views with strides and gaps.
#pragma once
#include "harness.h"

namespace harness {

// |got - want| in units of the last place of `want` (of the smallest normal number where that is larger); 0 where both are NaN or equal.
inline double ulps(float got, double want) {
  if (got == (float)want || (isnan(got) && isnan(want))) return 0;
  if (isnan(got) || isnan(want)) return 1e30;
  int e;
  frexp(fmax(fabs(want), 1.17549435e-38), &e);
  return fabs((double)got - want) / ldexp(1.0, e - 24);
}

// Within `relative` of the larger of |want| and `scale`.
inline bool near(float got, double want, double relative, double scale = 0) {
  if (got == (float)want || (isnan(got) && isnan(want))) return true;
  return fabs((double)got - want) <= relative * fmax(fabs(want), scale);
}

template <class A, class B>
bool same_bytes(const A& a, const B& b) {
  return a.size() == b.size() && memcmp(a.data(), b.data(), (size_t)a.size() * sizeof(*a.data())) == 0;
}

// Calls body(threads) for 1…4 and checks that every call leaves the same bytes in `out`.
template <class Buffer, class Body>
void same_for_threads(Buffer& out, Body body) {
  std::vector<char> first;
  for (int threads = 1; threads <= 4; ++threads) {
    memset((void*)out.data(), 0, (size_t)out.size() * sizeof(*out.data()));
    body(threads);
    const char* bytes = (const char*)out.data();
    const size_t n = (size_t)out.size() * sizeof(*out.data());
    if (threads == 1)
      first.assign(bytes, bytes + n);
    else
      CHECK(memcmp(first.data(), bytes, n) == 0, "%d threads change bits", threads);
  }
}

// Elements that a descriptor reaches.
inline int64_t reach(const wl::Tensor& t) {
  int64_t last = 0;
  for (int i = 0; i < t.rank; ++i) last += (t.dims[i] - 1) * t.strides[i];
  return last + 1;
}

// Calls body(linear index, element offset) over the elements of t in row-major order.
template <class Body>
void each_element(const wl::Tensor& t, Body body) {
  const int64_t n = t.elements();
  for (int64_t i = 0; i < n; ++i) {
    int64_t rest = i, offset = 0;
    for (int a = t.rank - 1; a >= 0; --a) offset += rest % t.dims[a] * t.strides[a], rest /= t.dims[a];
    body(i, offset);
  }
}

}  // namespace harness
