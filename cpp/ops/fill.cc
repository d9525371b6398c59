#include "ops/axes.h"
#include "ops/check.h"

namespace wl {
namespace {

Status verify(const Step& s) {
  WL_TRY(check_arity(s, 0, 0, 1, 1));
  const DType t = s.out[0]->dtype;
  WL_CHECK(t == DType::f32 || t == DType::f64 || t == DType::u8 || t == DType::i8 || t == DType::i32, "%s: cannot fill dtype %d", s.path,
           (int)t);
  const double v = s.f(AttrKey::value);
  const double low = t == DType::u8   ? 0
                     : t == DType::i8 ? -128
                                      : -2147483648.0,
               high = t == DType::u8   ? 255
                      : t == DType::i8 ? 127
                                       : 2147483647.0;
  if (t != DType::f32 && t != DType::f64)
    WL_CHECK(v >= low && v <= high && v == (double)(int64_t)v, "%s: %g does not fit dtype %d", s.path, v, (int)t);
  return check_outputs(s);
}

template <class T>
void fill(const Step& s, const Run& run) {
  const Tensor& y = *s.out[0];
  const T value = (T)s.f(AttrKey::value);
  for_each_rect(run, collapse<1>({&y}), 0.2, [&](const Rect<1>& r) {
    for (int64_t i = 0; i < r.rows; ++i) {
      T* row = y.as<T>() + r.offset[0] + i * r.row[0];
      if (r.col[0] == 1) {
        for (int64_t j = 0; j < r.cols; ++j) row[j] = value;
      } else {
        for (int64_t j = 0; j < r.cols; ++j) row[j * r.col[0]] = value;
      }
    }
  });
}

void run(const Step& s, const Run& r) {
  switch (s.out[0]->dtype) {
    case DType::f64: return fill<double>(s, r);
    case DType::u8: return fill<uint8_t>(s, r);
    case DType::i8: return fill<int8_t>(s, r);
    case DType::i32: return fill<int32_t>(s, r);
    default: return fill<float>(s, r);
  }
}

}  // namespace

extern const Op op_fill;
const Op op_fill = {"fill", verify, nullptr, run};

}  // namespace wl
