// What the verifiers of many ops ask of their operands.
#pragma once
#include "ops/op.h"

namespace wl {

// Equal extents, whatever the running batch extent is.
inline bool same_extents(const Tensor& a, const Tensor& b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; ++i)
    if (a.dims[i] != b.dims[i]) return false;
  return a.rank == 0 || a.dims[0] == 1 || a.batch == b.batch;
}

// As same_extents for an input whose first axis may repeat: then it need not carry the batch flag.
inline bool reads_as(const Tensor& x, const Tensor& y) {
  Tensor t = x;
  if (t.rank && t.strides[0] == 0) t.batch = y.batch;
  return same_extents(t, y);
}

// No two elements share storage, so that tasks may write them in any order.
inline bool writes_once(const Tensor& t) {
  // Visit axes by growing stride; each must step over all that the smaller ones reach.
  int64_t reach = 0, above = 0;
  for (int seen = 0; seen < t.rank;) {
    int64_t stride = INT64_MAX;
    int count = 0;
    for (int i = 0; i < t.rank; ++i) {
      if (t.dims[i] == 1) continue;
      if (t.strides[i] > above && t.strides[i] < stride) stride = t.strides[i];
    }
    for (int i = 0; i < t.rank; ++i) {
      if (t.dims[i] == 1) continue;
      if (t.strides[i] == 0) return false;
      if (t.strides[i] == stride) {
        if (++count > 1 || stride <= reach) return false;
        reach += (t.dims[i] - 1) * stride;
      }
    }
    if (!count) break;
    seen += count;
    above = stride;
  }
  return true;
}

inline bool unit_channels(const Tensor& t) {
  return t.rank >= 1 && (t.dim_from_end(0) == 1 || t.strides[t.rank - 1] == 1);
}

// Operand counts: inputs [required, most], outputs alike; required ones are present.
inline Status check_arity(const Step& s, int required_in, int most_in, int required_out, int most_out) {
  WL_CHECK(s.n_in >= required_in && s.n_in <= most_in, "%s: %d inputs instead of %d to %d", s.path, s.n_in, required_in, most_in);
  WL_CHECK(s.n_out >= required_out && s.n_out <= most_out, "%s: %d outputs instead of %d to %d", s.path, s.n_out, required_out, most_out);
  for (int i = 0; i < required_in; ++i) WL_CHECK(s.in[i], "%s: input %d is absent", s.path, i);
  for (int i = 0; i < required_out; ++i) WL_CHECK(s.out[i], "%s: output %d is absent", s.path, i);
  return Status::good();
}

// Every present operand is float32 and every output is written once per element.
inline Status check_float(const Step& s) {
  for (int i = 0; i < s.n_in; ++i) WL_CHECK(!s.in[i] || s.in[i]->dtype == DType::f32, "%s: input %d is not float32", s.path, i);
  for (int i = 0; i < s.n_out; ++i) WL_CHECK(!s.out[i] || s.out[i]->dtype == DType::f32, "%s: output %d is not float32", s.path, i);
  return Status::good();
}

inline Status check_outputs(const Step& s) {
  for (int i = 0; i < s.n_out; ++i)
    WL_CHECK(!s.out[i] || writes_once(*s.out[i]), "%s: output %d has elements that share storage", s.path, i);
  return Status::good();
}

// A tensor over channels: rows of `like`'s extents with channel stride 1.
inline Status check_rows(const Step& s, const Tensor& t, const Tensor& like, const char* what) {
  WL_CHECK(reads_as(t, like), "%s: %s differs in extents", s.path, what);
  WL_CHECK(unit_channels(t), "%s: the last axis of %s has stride %lld, not 1", s.path, what, (long long)t.strides[t.rank - 1]);
  return Status::good();
}

// A dense float32 vector of `n` elements that does not grow with the batch.
inline Status check_vector(const Step& s, const Tensor& t, int64_t n, const char* what) {
  WL_CHECK(t.dtype == DType::f32 && t.rank == 1 && t.dims[0] == n && t.dense() && !t.batch, "%s: %s is not a dense float32 (%lld)", s.path,
           what, (long long)n);
  return Status::good();
}

inline Status check_scalar(const Step& s, const Tensor& t, const char* what) {
  WL_CHECK(t.dtype == DType::f32 && t.rank == 0, "%s: %s is not a float32 scalar", s.path, what);
  return Status::good();
}

inline Status check_int(const Step& s, AttrKey key, const char* name, int64_t low, int64_t high, int64_t otherwise = 0) {
  const int64_t v = s.i(key, otherwise);
  WL_CHECK(v >= low && v <= high, "%s: %s is %lld, outside %lld to %lld", s.path, name, (long long)v, (long long)low, (long long)high);
  return Status::good();
}

inline Status check_real(const Step& s, AttrKey key, const char* name, double low, double high, double otherwise = 0) {
  const double v = s.f(key, otherwise);
  WL_CHECK(v >= low && v <= high, "%s: %s is %g, outside %g to %g", s.path, name, v, low, high);
  return Status::good();
}

// Inputs `first` to `first` + 3 are mean, var, [gamma] and [beta] of a batch normalisation over `channels`, beside the attribute eps.
inline Status check_batch_norm(const Step& s, int first, int64_t channels) {
  static const char* const names[] = {"mean", "var", "gamma", "beta"};
  for (int i = 0; i < 4; ++i) {
    WL_CHECK(s.in[first + i] || i > 1, "%s: a batch normalisation needs %s", s.path, names[i]);
    if (s.in[first + i]) WL_TRY(check_vector(s, *s.in[first + i], channels, names[i]));
  }
  return check_real(s, AttrKey::eps, "eps", 0, 1e30);
}

// 'x', 'y' or 'n': what the gradient of a unary kind reads (kinds.h); 0 for an unknown number.
inline char unary_saves(int64_t kind) {
#define WL_SAVES(name, number, saves) \
  if (kind == number) return #saves[0];
  WL_UNARY_KINDS(WL_SAVES)
#undef WL_SAVES
  return 0;
}

}  // namespace wl
