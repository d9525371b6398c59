#include "kernels/eltwise/eltwise.h"
#include "ops/axes.h"
#include "ops/check.h"

namespace wl {
namespace {

bool known(int64_t kind) {
#define WL_KNOWN(name, number) \
  if (kind == number) return true;
  WL_BINARY_KINDS(WL_KNOWN)
#undef WL_KNOWN
  return false;
}

Status verify(const Step& s) {
  WL_TRY(check_arity(s, 2, 2, 1, 1));
  WL_TRY(check_float(s));
  WL_CHECK(known(s.i(AttrKey::kind)), "%s: no binary kind %lld", s.path, (long long)s.i(AttrKey::kind));
  for (int i = 0; i < 2; ++i)
    WL_CHECK(reads_as(*s.in[i], *s.out[0]), "%s: operand %d and the result differ in extents (broadcast by stride 0)", s.path, i);
  return check_outputs(s);
}

void run(const Step& s, const Run& r) {
  const Tensor &a = *s.in[0], &b = *s.in[1], &y = *s.out[0];
  const BinaryKind kind = (BinaryKind)s.i(AttrKey::kind);
  for_each_rect(r, collapse<3>({&y, &a, &b}), 0.4, [&](const Rect<3>& t) {
    r.kernels->eltwise->binary(kind, t.rows, t.cols, {a.f32() + t.offset[1], t.row[1], t.col[1]},
                               {b.f32() + t.offset[2], t.row[2], t.col[2]}, y.f32() + t.offset[0], t.row[0], t.col[0]);
  });
}

}  // namespace

extern const Op op_binary;
const Op op_binary = {"binary", verify, nullptr, run, in_place(0, 0) | in_place(1, 0)};

}  // namespace wl
