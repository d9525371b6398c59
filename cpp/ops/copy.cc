// Copies between any two strided layouts of equal extents: transpose, concat (into a view), slice, pad, broadcast.
#include "kernels/eltwise/eltwise.h"
#include "ops/axes.h"
#include "ops/check.h"

namespace wl {
namespace {

Status verify(const Step& s) {
  WL_TRY(check_arity(s, 1, 1, 1, 1));
  WL_CHECK(s.in[0]->dtype == s.out[0]->dtype, "%s: copy cannot change the dtype", s.path);
  WL_CHECK(reads_as(*s.in[0], *s.out[0]), "%s: copy needs equal extents", s.path);
  return check_outputs(s);
}

constexpr int64_t kShort = 8;

void swap_axes(Axes<2>* axes, int a, int b) {
  const int64_t extent = axes->extent[a];
  axes->extent[a] = axes->extent[b], axes->extent[b] = extent;
  for (auto& stride : axes->stride) {
    const int64_t s = stride[a];
    stride[a] = stride[b], stride[b] = s;
  }
}

void run(const Step& s, const Run& r) {
  const Tensor &x = *s.in[0], &y = *s.out[0];
  Axes<2> axes = collapse<2>({&y, &x});
  const int last = axes.rank - 1;
  // The last axis is the one that y has next to each other; where x has another one so, it comes second to last: a transposition.
  for (int a = 0; a < last; ++a)
    if (axes.stride[0][a] < axes.stride[0][last]) swap_axes(&axes, a, last);
  bool transposes = false;
  for (int a = 0; a < last; ++a)
    if (axes.stride[1][a] == 1 && axes.stride[1][last] != 1) {
      transposes = true;
      if (a != last - 1) swap_axes(&axes, a, last - 1);
    }
  // The kernel copies rectangles of the last two axes. One too short to be worth a call gives its place to the longest; the rows of a
  // rectangle of a transposition stay, unless they are few.
  if (last > 1 && axes.extent[last - 1] < kShort) {
    int longest = last - 1;
    for (int a = 0; a < last; ++a)
      if (axes.extent[a] > axes.extent[longest]) longest = a;
    if (longest != last - 1) swap_axes(&axes, longest, last - 1);
  }
  const int size = (int)dtype_size(x.dtype);
  const auto copy = r.kernels->eltwise->copy;
  for_each_rect(
      r, axes, 0.05 * size,
      [&](const Rect<2>& t) {
        copy(size, t.rows, t.cols, x.data + size * t.offset[1], t.row[1], t.col[1], y.data + size * t.offset[0], t.row[0], t.col[0]);
      },
      transposes ? 128 : kTaskElements);
}

}  // namespace

extern const Op op_copy;
const Op op_copy = {"copy", verify, nullptr, run};

}  // namespace wl
