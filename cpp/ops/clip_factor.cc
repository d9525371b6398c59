// Gradient clipping by global norm: factor = min(1, max_norm / (norm + 1e-6)), the norm being over all inputs together (torch).
#include "kernels/reduce/reduce.h"
#include "ops/combining_time.h"
#include "ops/flat.h"

namespace wl {
namespace {

Status verify(const Step& s) {
  WL_TRY(check_arity(s, 1, kMaxInputs, 1, 1));
  WL_TRY(check_float(s));
  for (int i = 0; i < s.n_in; ++i) WL_CHECK(s.in[i] && s.in[i]->dense() && !s.in[i]->batch, "%s: gradient %d is not dense", s.path, i);
  WL_TRY(check_scalar(s, *s.out[0], "the factor"));
  return check_real(s, AttrKey::max_norm, "max_norm", 0, 1e30, -1);
}

void choose(const Step& s, const Kernels&, int, Choice* choice) {
  int64_t chunks = 0;
  for (int i = 0; i < s.n_in; ++i) chunks = max_of(chunks, chunks_of(s.in[i]->elements()));
  choice->workspace = round_up(chunks * (int64_t)sizeof(double), kCacheLine);
}

void run(const Step& s, const Run& r) {
  double* partial = reinterpret_cast<double*>(r.workspace);
  double sum = 0;
  for (int i = 0; i < s.n_in; ++i) {
    const int64_t elements = s.in[i]->elements();
    for_each_chunk(r, elements, 0.2, [&](int64_t begin, int64_t n, int64_t chunk) {
      partial[chunk] = r.kernels->reduce->sum_squares(n, s.in[i]->f32() + begin);
    });
    const CombiningTime combining(r);
    for (int64_t c = 0; c < chunks_of(elements); ++c) sum += partial[c];
  }
  const float factor = (float)(s.f(AttrKey::max_norm) / (__builtin_sqrt(sum) + 1e-6));
  *s.out[0]->f32() = factor > 1.0f ? 1.0f : factor;  // NaN stays
}

}  // namespace

extern const Op op_clip_factor;
const Op op_clip_factor = {"clip_factor", verify, choose, run};

}  // namespace wl
