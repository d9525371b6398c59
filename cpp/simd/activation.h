// The unary functions of ops/kinds.h and their derivatives on f32v: shared by the element-wise kernels, the convolution's epilogue and
// batch normalisation.
#pragma once
#include "ops/kinds.h"
#include "simd/math.h"

namespace wl {
namespace WL_ISA {
namespace {

constexpr float kSeluAlpha = 1.6732632423543772f, kSeluScale = 1.0507009873554805f;

// y = kind(x). The kind is a template argument where loops are specialised: a switch inside a loop over elements is too slow.
template <UnaryKind kind>
WL_INLINE f32v unary(f32v x, f32v alpha, f32v beta) {
  (void)alpha, (void)beta;
  if constexpr (kind == UnaryKind::relu) return max(x, zero());
  if constexpr (kind == UnaryKind::relu6) return min(max(x, zero()), set1(6.0f));
  if constexpr (kind == UnaryKind::leaky_relu) return select(x > 0.0f, x, alpha * x);
  if constexpr (kind == UnaryKind::sigmoid) return sigmoid(x);
  if constexpr (kind == UnaryKind::tanh) return tanh(x);
  if constexpr (kind == UnaryKind::elu) return select(x > 0.0f, x, alpha * expm1(x));
  if constexpr (kind == UnaryKind::selu) return kSeluScale * select(x > 0.0f, x, kSeluAlpha * expm1(x));
  if constexpr (kind == UnaryKind::gelu) return x * normal_cdf(x);
  if constexpr (kind == UnaryKind::silu) return x * sigmoid(x);
  if constexpr (kind == UnaryKind::softplus) return max(x, zero()) + log1p_positive(exp(-abs(x)));
  if constexpr (kind == UnaryKind::hard_swish) return x * (min(max(x + 3.0f, zero()), set1(6.0f)) * (1.0f / 6.0f));
  if constexpr (kind == UnaryKind::hard_sigmoid) return min(max(x + 3.0f, zero()), set1(6.0f)) * (1.0f / 6.0f);
  if constexpr (kind == UnaryKind::exp) return exp(x);
  if constexpr (kind == UnaryKind::log) return log(x);
  if constexpr (kind == UnaryKind::sqrt) return sqrt(x);
  if constexpr (kind == UnaryKind::square) return x * x;
  if constexpr (kind == UnaryKind::abs) return abs(x);
  if constexpr (kind == UnaryKind::affine) return fma(alpha, x, beta);
  return x;
}

// dy * kind'(x), where s is the output y or the input x as WL_UNARY_KINDS says. At kinks the derivative is torch's.
template <UnaryKind kind>
WL_INLINE f32v unary_grad(f32v s, f32v dy, f32v alpha, f32v beta) {
  (void)s, (void)alpha, (void)beta;
  const f32v none = zero();
  if constexpr (kind == UnaryKind::relu) return select(s <= 0.0f, none, dy);
  if constexpr (kind == UnaryKind::relu6) return select((s <= 0.0f) | (s >= 6.0f), none, dy);
  if constexpr (kind == UnaryKind::leaky_relu) return select(s > 0.0f, dy, alpha * dy);
  if constexpr (kind == UnaryKind::sigmoid) return dy * (s * (1.0f - s));
  if constexpr (kind == UnaryKind::tanh) return dy * fma(-s, s, set1(1.0f));
  if constexpr (kind == UnaryKind::elu) return select(s > 0.0f, dy, dy * (s + alpha));
  if constexpr (kind == UnaryKind::selu) return dy * select(s > 0.0f, set1(kSeluScale), s + kSeluScale * kSeluAlpha);
  if constexpr (kind == UnaryKind::gelu) {
    const f32v density = exp(-0.5f * s * s) * 0.398942280f;
    return dy * fma(s, density, normal_cdf(s));
  }
  if constexpr (kind == UnaryKind::silu) {
    const f32v p = sigmoid(s);
    return dy * (p * fma(s, 1.0f - p, set1(1.0f)));
  }
  if constexpr (kind == UnaryKind::softplus) return dy * sigmoid(s);
  if constexpr (kind == UnaryKind::hard_swish)
    return select(s <= -3.0f, none, select(s >= 3.0f, dy, dy * fma(s, set1(1.0f / 3.0f), set1(0.5f))));
  if constexpr (kind == UnaryKind::hard_sigmoid) return select((s <= -3.0f) | (s >= 3.0f), none, dy * (1.0f / 6.0f));
  if constexpr (kind == UnaryKind::exp) return dy * s;
  if constexpr (kind == UnaryKind::log) return dy / s;
  if constexpr (kind == UnaryKind::sqrt) return dy * 0.5f / s;
  if constexpr (kind == UnaryKind::square) return dy * (s + s);
  if constexpr (kind == UnaryKind::abs) return select(s == 0.0f, none, select(s < 0.0f, -dy, dy));
  if constexpr (kind == UnaryKind::affine) return alpha * dy;
  return dy;
}

// Calls body(KindTag<kind>) with the kind as a compile-time constant, so that a loop inside is specialised for it.
template <UnaryKind k>
struct KindTag {
  static constexpr UnaryKind kind = k;
};
template <class Body>
WL_INLINE void with_kind(UnaryKind kind, Body&& body) {
  switch (kind) {
#define WL_KIND_CASE(name, ...) \
  case UnaryKind::name: return body(KindTag<UnaryKind::name>{});
    WL_UNARY_KINDS(WL_KIND_CASE)
#undef WL_KIND_CASE
  }
}

// The same with the kind known only at run time: one call per vector, out of line so that kernels stay small.
static __attribute__((noinline, unused)) f32v unary_slow(UnaryKind kind, f32v x, f32v alpha, f32v beta) {
  f32v y = x;
  with_kind(kind, [&](auto tag) { y = unary<decltype(tag)::kind>(x, alpha, beta); });
  return y;
}
static __attribute__((noinline, unused)) f32v unary_grad_slow(UnaryKind kind, f32v s, f32v dy, f32v alpha, f32v beta) {
  f32v dx = dy;
  with_kind(kind, [&](auto tag) { dx = unary_grad<decltype(tag)::kind>(s, dy, alpha, beta); });
  return dx;
}

// relu and relu6 in one form, min(max(x, least), most), so that loops need no code of their own for each: `most` of relu cuts nothing off.
WL_INLINE bool is_clip(UnaryKind kind) {
  return kind == UnaryKind::relu || kind == UnaryKind::relu6;
}
struct Clip {
  f32v least, most;
};
// Loaded where it stands, and opaque: for a maximum with what it knows to be zero the compiler takes two instructions, and what it can have
// earlier takes registers from the loops before.
WL_INLINE Clip clip_of(UnaryKind kind) {
  static const float kBounds[] = {0.0f, kInfinity, 6.0f};
  const float* bounds = kBounds;
  asm volatile("" : "+r"(bounds));
  return {set1(bounds[0]), set1(bounds[kind == UnaryKind::relu6 ? 2 : 1])};
}
WL_INLINE f32v clip(f32v x, const Clip& to) {
  return min(max(x, to.least), to.most);
}
// dy where s, the input or the output, is not cut off; `most` of relu is a number that no other reaches.
WL_INLINE f32v clip_grad(f32v s, f32v dy, f32v most) {
  return select((s <= 0.0f) | (s >= most), zero(), dy);
}
WL_INLINE float clip_grad_at(UnaryKind kind) {
  return kind == UnaryKind::relu6 ? 6.0f : __builtin_nanf("");
}

// kind(x) for epilogues that touch each element once after much arithmetic.
WL_INLINE f32v unary_apply(UnaryKind kind, f32v x, f32v alpha, f32v beta) {
  if (kind == UnaryKind::none) return x;
  if (is_clip(kind)) return clip(x, clip_of(kind));
  return unary_slow(kind, x, alpha, beta);
}

// For loops that are bound by memory: calls body(act) with act(x) = kind(x), specialised for what nets put behind a normalisation.
template <class Body>
WL_INLINE void with_activation(UnaryKind kind, float alpha, float beta, Body&& body) {
  const f32v a = set1(alpha), b = set1(beta);
  const Clip bounds = clip_of(kind);
  if (kind == UnaryKind::none) return body([](f32v x) { return x; });
  if (is_clip(kind)) return body([=](f32v x) { return clip(x, bounds); });
  body([=](f32v x) { return unary_slow(kind, x, a, b); });
}
// The same for body(grad) with grad(s, dy) = dy * kind'.
template <class Body>
WL_INLINE void with_activation_grad(UnaryKind kind, float alpha, float beta, Body&& body) {
  const f32v a = set1(alpha), b = set1(beta), most = set1(clip_grad_at(kind));
  if (kind == UnaryKind::none) return body([](f32v, f32v dy) { return dy; });
  if (is_clip(kind)) return body([=](f32v s, f32v dy) { return clip_grad(s, dy, most); });
  body([=](f32v s, f32v dy) { return unary_grad_slow(kind, s, dy, a, b); });
}

// The same with grad(v, dy) for the input v of an activation whose derivative is read off its output.
template <class Body>
WL_INLINE void with_activation_grad_at(UnaryKind kind, float alpha, float beta, Body&& body) {
  const f32v a = set1(alpha), b = set1(beta), most = set1(clip_grad_at(kind));
  if (is_clip(kind)) return body([=](f32v v, f32v dy) { return clip_grad(v, dy, most); });
  body([=](f32v v, f32v dy) { return unary_grad_slow(kind, unary_slow(kind, v, a, b), dy, a, b); });
}

}  // namespace
}  // namespace WL_ISA
}  // namespace wl
