#include "kernels/eltwise/eltwise.h"
#include "ops/axes.h"
#include "ops/check.h"

namespace wl {
namespace {

template <int K>
bool gapless_inner(const Axes<K>& axes) {
  const int last = axes.rank - 1;
  if (axes.extent[last] == 1) return true;
  for (int k = 0; k < K; ++k)
    if (axes.stride[k][last] != 1) return false;
  return true;
}

// Rough time of one element in nanoseconds.
double cost(UnaryKind kind) {
  switch (kind) {
    case UnaryKind::none:
    case UnaryKind::relu:
    case UnaryKind::relu6:
    case UnaryKind::leaky_relu:
    case UnaryKind::square:
    case UnaryKind::abs:
    case UnaryKind::affine: return 0.3;
    default: return 1.0;
  }
}

Status verify_unary(const Step& s) {
  WL_TRY(check_arity(s, 1, 1, 1, 1));
  WL_TRY(check_float(s));
  WL_CHECK(unary_saves(s.i(AttrKey::kind)), "%s: no unary kind %lld", s.path, (long long)s.i(AttrKey::kind));
  WL_CHECK(same_extents(*s.in[0], *s.out[0]), "%s: x and y differ in extents", s.path);
  WL_CHECK(gapless_inner(collapse<2>({s.out[0], s.in[0]})), "%s: the innermost axis of x and y needs stride 1", s.path);
  return check_outputs(s);
}

void run_unary(const Step& s, const Run& r) {
  const Tensor &x = *s.in[0], &y = *s.out[0];
  const UnaryKind kind = (UnaryKind)s.i(AttrKey::kind);
  const float alpha = (float)s.f(AttrKey::alpha), beta = (float)s.f(AttrKey::beta);
  for_each_rect(r, collapse<2>({&y, &x}), cost(kind), [&](const Rect<2>& t) {
    for (int64_t i = 0; i < t.rows; ++i)
      r.kernels->eltwise->unary(kind, alpha, beta, t.cols, x.f32() + t.offset[1] + i * t.row[1], y.f32() + t.offset[0] + i * t.row[0]);
  });
}

// `s` may be absent for the kinds whose derivative reads nothing.
Status verify_grad(const Step& s) {
  WL_TRY(check_arity(s, 0, 2, 1, 1));
  WL_TRY(check_float(s));
  const char saves = unary_saves(s.i(AttrKey::kind));
  WL_CHECK(saves, "%s: no unary kind %lld", s.path, (long long)s.i(AttrKey::kind));
  WL_CHECK(s.n_in == 2 && s.in[1], "%s: dy is absent", s.path);
  WL_CHECK(s.in[0] || saves == 'n', "%s: this kind's gradient needs the saved tensor", s.path);
  for (int i = 0; i < 2; ++i) WL_CHECK(!s.in[i] || same_extents(*s.in[i], *s.out[0]), "%s: input %d and dx differ in extents", s.path, i);
  WL_CHECK(gapless_inner(collapse<3>({s.out[0], s.in[1], s.in[0] ? s.in[0] : s.in[1]})), "%s: the innermost axis needs stride 1", s.path);
  return check_outputs(s);
}

void run_grad(const Step& s, const Run& r) {
  const Tensor &dy = *s.in[1], &dx = *s.out[0], &saved = s.in[0] ? *s.in[0] : dy;
  const UnaryKind kind = (UnaryKind)s.i(AttrKey::kind);
  const float alpha = (float)s.f(AttrKey::alpha), beta = (float)s.f(AttrKey::beta);
  for_each_rect(r, collapse<3>({&dx, &dy, &saved}), cost(kind), [&](const Rect<3>& t) {
    for (int64_t i = 0; i < t.rows; ++i)
      r.kernels->eltwise->unary_grad(kind, alpha, beta, t.cols, saved.f32() + t.offset[2] + i * t.row[2],
                                     dy.f32() + t.offset[1] + i * t.row[1], dx.f32() + t.offset[0] + i * t.row[0]);
  });
}

}  // namespace

extern const Op op_unary, op_unary_bwd;
const Op op_unary = {"unary", verify_unary, nullptr, run_unary, in_place(0, 0)};
const Op op_unary_bwd = {"unary_bwd", verify_grad, nullptr, run_grad, in_place(1, 0)};

}  // namespace wl
