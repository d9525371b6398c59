#include "kernels/winograd/winograd.h"

#include "simd/activation.h"

#define WL_LAMBDA __attribute__((always_inline))  // a call per vector would pass its values through memory

namespace wl {
namespace WL_ISA {
namespace {

constexpr int kWidth = 2 * kLanes;  // columns of a panel, as brgemm's

// Each struct is one size: its five one-dimensional transforms. A two-dimensional transform applies one along columns, then along rows.
struct F2 {
  static constexpr int kM = 2, kT = 4;
  static inline __attribute__((always_inline)) void bt(const f32v* d, f32v* v) {
    v[0] = d[2] - d[0];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  }
  static inline __attribute__((always_inline)) void at(const f32v* m, f32v* y) {
    y[0] = m[0] + (m[1] + m[2]);
    y[1] = (m[1] - m[2]) + m[3];
  }
  static inline __attribute__((always_inline)) void g(const f32v* w, f32v* u) {
    const f32v half = set1(0.5f), even = half * (w[0] + w[2]), odd = half * w[1];
    u[0] = -w[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = w[2];
  }
  static inline __attribute__((always_inline)) void a(const f32v* y, f32v* v) {
    v[0] = y[0];
    v[1] = y[0] + y[1];
    v[2] = y[0] - y[1];
    v[3] = y[1];
  }
  static inline __attribute__((always_inline)) void gt(const f32v* s, f32v* w) {
    const f32v half = set1(0.5f), even = half * (s[1] + s[2]), odd = half * (s[1] - s[2]);
    w[0] = even - s[0];
    w[1] = odd;
    w[2] = even + s[3];
  }
};

struct F4 {
  static constexpr int kM = 4, kT = 6;
  static constexpr float kA = 0.625f, kB = 1.5f;        // the points ±a, ±b
  static constexpr float kA2 = kA * kA, kB2 = kB * kB;  // exact in float32
  static constexpr float kA3 = kA2 * kA, kB3 = kB2 * kB;
  static constexpr double kNa = 2.0 * kA2 * (double(kA2) - kB2), kNb = 2.0 * kB2 * (double(kB2) - kA2), kN0 = double(kA2) * kB2;

  static inline __attribute__((always_inline)) void bt(const f32v* d, f32v* v) {
    const f32v a = set1(kA), b = set1(kB), na2 = set1(-kA2), nb2 = set1(-kB2), ab = set1(kA2 * kB2), sum = set1(-(kA2 + kB2));
    v[0] = fma(ab, d[0], fma(sum, d[2], d[4]));
    const f32v even_a = fma(nb2, d[2], d[4]), odd_a = fma(nb2, d[1], d[3]);
    v[1] = fma(a, odd_a, even_a);
    v[2] = fma(-a, odd_a, even_a);
    const f32v even_b = fma(na2, d[2], d[4]), odd_b = fma(na2, d[1], d[3]);
    v[3] = fma(b, odd_b, even_b);
    v[4] = fma(-b, odd_b, even_b);
    v[5] = fma(ab, d[1], fma(sum, d[3], d[5]));
  }
  static inline __attribute__((always_inline)) void at(const f32v* m, f32v* y) {
    const f32v sum_a = m[1] + m[2], dif_a = m[1] - m[2], sum_b = m[3] + m[4], dif_b = m[3] - m[4];
    y[0] = m[0] + (sum_a + sum_b);
    y[1] = fma(set1(kA), dif_a, set1(kB) * dif_b);
    y[2] = fma(set1(kA2), sum_a, set1(kB2) * sum_b);
    y[3] = fma(set1(kA3), dif_a, fma(set1(kB3), dif_b, m[5]));
  }
  static inline __attribute__((always_inline)) void g(const f32v* w, f32v* u) {
    const f32v even_a = set1(float(1 / kNa)) * fma(set1(kA2), w[2], w[0]), odd_a = set1(float(kA / kNa)) * w[1];
    const f32v even_b = set1(float(1 / kNb)) * fma(set1(kB2), w[2], w[0]), odd_b = set1(float(kB / kNb)) * w[1];
    u[0] = set1(float(1 / kN0)) * w[0];
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = w[2];
  }
  static inline __attribute__((always_inline)) void a(const f32v* y, f32v* v) {
    const f32v even_a = fma(set1(kA2), y[2], y[0]), odd_a = set1(kA) * fma(set1(kA2), y[3], y[1]);
    const f32v even_b = fma(set1(kB2), y[2], y[0]), odd_b = set1(kB) * fma(set1(kB2), y[3], y[1]);
    v[0] = y[0];
    v[1] = even_a + odd_a;
    v[2] = even_a - odd_a;
    v[3] = even_b + odd_b;
    v[4] = even_b - odd_b;
    v[5] = y[3];
  }
  static inline __attribute__((always_inline)) void gt(const f32v* s, f32v* w) {
    const f32v sum_a = set1(float(1 / kNa)) * (s[1] + s[2]), dif_a = s[1] - s[2];
    const f32v sum_b = set1(float(1 / kNb)) * (s[3] + s[4]), dif_b = s[3] - s[4];
    w[0] = fma(set1(float(1 / kN0)), s[0], sum_a + sum_b);
    w[1] = fma(set1(float(kA / kNa)), dif_a, set1(float(kB / kNb)) * dif_b);
    w[2] = fma(set1(kA2), sum_a, fma(set1(kB2), sum_b, s[5]));
  }
};

// T in Tt for an In x In matrix: transforms the columns, then the rows. get(e) reads element e of the matrix, put(e, v) takes element e of
// the Out x Out result; both row-major. Between the two passes the matrix lies on the stack: it has more vectors than there are registers.
template <int In, int Out, class Get, class Transform, class Put>
WL_INLINE void both_axes(Get get, Transform transform, Put put) {
  f32v half[Out][In];
#pragma GCC unroll 8
  for (int x = 0; x < In; ++x) {
    f32v column[In], done[Out];
#pragma GCC unroll 8
    for (int y = 0; y < In; ++y) column[y] = get(y * In + x);
    transform(column, done);
#pragma GCC unroll 8
    for (int y = 0; y < Out; ++y) half[y][x] = done[y];
  }
#pragma GCC unroll 8
  for (int y = 0; y < Out; ++y) {
    f32v done[Out];
    transform(half[y], done);
#pragma GCC unroll 8
    for (int x = 0; x < Out; ++x) put(y * Out + x, done[x]);
  }
}

// Runs body(load_fn, store_fn, c) over the channels, whole vectors first and a masked one for the tail.
template <class Body>
WL_INLINE void over_channels(int64_t channels, Body body) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes)
    body([](const float* p) WL_LAMBDA { return load(p); }, [](float* p, f32v v) WL_LAMBDA { store(p, v); }, c);
  if (const int rest = int(channels - c))
    body([rest](const float* p) WL_LAMBDA { return load_partial(p, rest); },
         [rest](float* p, f32v v) WL_LAMBDA { store_partial(p, v, rest); }, c);
}

// From pixels to places: In x In pixels of whole tiles, in panels, see WinogradPlaces.
// New pixels are the last M of each row: the first overlap with those of the tile before. What is near needs no asking (`kAhead`).
template <int In, int Out, int M, bool kAhead, class Transform>
WL_INLINE void to_places_of(const WinogradPixels& d, const WinogradPlaces& to, int64_t channels, Transform transform) {
  const float* const* at = d.at;
  const int64_t next_tile = d.next, stride = to.stride, panel = to.panel;
  const bool far = to.far;
  over_channels(channels, [=](auto get, auto, int64_t c) WL_LAMBDA {
    float* v = to.v + c / kWidth * panel + c % kWidth;
    const float* next = c + kWidth < channels ? v + panel : to.v + kWidth + c % kWidth;
    both_axes<In, Out>(
        [=](int p) WL_LAMBDA {
          if (kAhead && p % In >= In - M) __builtin_prefetch(at[p] + c + next_tile);
          return get(at[p] + c);
        },
        transform,
        [=](int e, f32v y) WL_LAMBDA {
          if (kAhead && far) __builtin_prefetch(next + e * stride, 1);
          store(v + e * stride, y);
        });
  });
}

template <int In, int Out, int M, class Transform>
WL_INLINE void to_places(const WinogradPixels& d, const WinogradPlaces& to, int64_t channels, Transform transform) {
  if (d.next || to.far)
    to_places_of<In, Out, M, true>(d, to, channels, transform);
  else
    to_places_of<In, Out, M, false>(d, to, channels, transform);
}

template <class F>
void input(const WinogradPixels& d, const WinogradPlaces& to, int64_t channels) {
  to_places<F::kT, F::kT, F::kM>(d, to, channels, F::bt);
}

template <class F>
void output_bwd(const WinogradPixels& dy, const WinogradPlaces& to, int64_t channels) {
  to_places<F::kM, F::kT, F::kM>(dy, to, channels, F::a);
}

template <class F>
void output(const float* m, int64_t stride, const WinogradOutput& to, int64_t channels) {
  const f32v alpha = set1(to.alpha), beta = set1(to.beta);
  over_channels(channels, [=, &to](auto get, auto put, int64_t c) WL_LAMBDA {
    const float* from = m + c;
    const f32v bias = to.bias ? get(to.bias + c) : zero();
    f32v out[F::kM * F::kM];
    both_axes<F::kT, F::kM>([=](int e) WL_LAMBDA { return get(from + e * stride); }, F::at,
                            [&](int p, f32v y) WL_LAMBDA { out[p] = y + bias; });
    for (int p = 0; p < F::kM * F::kM; ++p) {
      if (!to.y[p]) continue;
      f32v y = out[p];
      if (to.next) __builtin_prefetch(to.y[p] + c + to.next, 1);
      if (to.residual) y = y + get(to.residual[p] + c);
      put(to.y[p] + c, unary_apply(to.activation, y, alpha, beta));
    }
  });
}

template <class F>
void weights(const float* w, int64_t tap_stride, float* u, int64_t stride, int64_t channels) {
  over_channels(channels, [=](auto get, auto put, int64_t c) WL_LAMBDA {
    both_axes<3, F::kT>([=](int tap) WL_LAMBDA { return get(w + tap * tap_stride + c); }, F::g,
                        [=](int e, f32v y) WL_LAMBDA {
                          __builtin_prefetch(u + e * stride + c + kWidth, 1);
                          put(u + e * stride + c, y);
                        });
  });
}

template <class F>
void weights_bwd(const float* s, int64_t stride, float* dw, int64_t tap_stride, int64_t channels) {
  over_channels(channels, [=](auto get, auto put, int64_t c) WL_LAMBDA {
    both_axes<F::kT, 3>([=](int e) WL_LAMBDA { return get(s + e * stride + c); }, F::gt,
                        [=](int tap, f32v y) WL_LAMBDA { put(dw + tap * tap_stride + c, y); });
  });
}

}  // namespace

extern const WinogradKernels winograd;
const WinogradKernels winograd = {
    {input<F2>, input<F4>},           {output<F2>, output<F4>},           {weights<F2>, weights<F4>},
    {output_bwd<F2>, output_bwd<F4>}, {weights_bwd<F2>, weights_bwd<F4>},
};

}  // namespace WL_ISA
}  // namespace wl
