#include <string.h>

#include "ops/axes.h"
#include "ops/check.h"

namespace wl {
namespace {

Status verify(const Step& s) {
  WL_TRY(check_arity(s, 1, 1, 1, 1));
  const Tensor &i = *s.in[0], &y = *s.out[0];
  WL_CHECK(i.dtype == DType::i32, "%s: indices are int32", s.path);
  WL_CHECK(y.dtype == DType::f32 && y.dense() && y.rank >= 1, "%s: one_hot gives dense float32", s.path);
  Tensor samples = y;
  --samples.rank;
  WL_CHECK(i.dense() && same_extents(i, samples), "%s: indices and the leading axes of the result differ in extents", s.path);
  return Status::good();
}

// An index outside [0, classes) gives a row of NaN.
void run(const Step& s, const Run& r) {
  const Tensor &index = *s.in[0], &y = *s.out[0];
  const int64_t classes = y.dim_from_end(0), rows = index.elements(), tasks = min_of(rows, div_up(rows * classes, kTaskElements));
  parallel_for(r, tasks, 0.2 * (double)(rows * classes), [&](int64_t task, int) {
    const Range range = piece(rows, tasks, task);
    for (int64_t i = range.begin; i < range.end; ++i) {
      float* row = y.f32() + i * classes;
      const int32_t label = index.as<int32_t>()[i];
      const bool known = label >= 0 && label < classes;
      const float other = known ? 0.0f : __builtin_nanf("");
      for (int64_t c = 0; c < classes; ++c) row[c] = other;
      if (known) row[label] = 1.0f;
    }
  });
}

}  // namespace

extern const Op op_one_hot;
const Op op_one_hot = {"one_hot", verify, nullptr, run};

}  // namespace wl
