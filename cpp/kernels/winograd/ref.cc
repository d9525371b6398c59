#include "kernels/winograd/winograd.h"
#include "simd/activation.h"

namespace wl {
namespace ref {
namespace {

constexpr int kWidth = 8;  // columns of a panel, as brgemm's

// The matrices of one size, made from the interpolation points: Bt's rows hold the coefficients of the polynomials that vanish at all other
// points, At's columns and G's rows the powers of the point (G's divided by the product of its distances to the others); the last one is ∞.
struct Matrices {
  int m = 0, t = 0;
  double bt[6][6] = {}, at[4][6] = {}, g[6][3] = {};
};

Matrices matrices(int size) {
  Matrices f;
  f.m = winograd_m(size);
  f.t = winograd_t(size);
  const double two[3] = {0, 1, -1}, four[5] = {0, 0.625, -0.625, 1.5, -1.5};
  const double* point = size == 0 ? two : four;
  const int finite = f.t - 1;
  for (int row = 0; row < f.t; ++row) {
    double polynomial[7] = {1}, distance = 1;
    int degree = 0;
    for (int other = 0; other < finite; ++other) {
      if (other == row) continue;
      for (int d = ++degree; d >= 0; --d) polynomial[d] = (d ? polynomial[d - 1] : 0) - point[other] * polynomial[d];
      if (row < finite) distance *= point[row] - point[other];
    }
    for (int d = 0; d <= degree; ++d) f.bt[row][d] = polynomial[d];
    if (row == finite) {
      f.at[f.m - 1][row] = 1;
      f.g[row][2] = 1;
      continue;
    }
    double power = 1;
    for (int i = 0; i < f.m; ++i, power *= point[row]) f.at[i][row] = power;
    power = 1;
    for (int i = 0; i < 3; ++i, power *= point[row]) f.g[row][i] = power / distance;
  }
  return f;
}

// out (rows x rows) = T in (cols x cols) Tt with T[i][j] = t(i, j).
template <class T>
void both_axes(int rows, int cols, T t, const double* in, double* out) {
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < rows; ++j) {
      double sum = 0;
      for (int p = 0; p < cols; ++p)
        for (int q = 0; q < cols; ++q) sum += t(i, p) * in[p * cols + q] * t(j, q);
      out[i * rows + j] = sum;
    }
}

float& element(const WinogradPlaces& to, int64_t e, int64_t c) {
  return to.v[e * to.stride + c / kWidth * to.panel + c % kWidth];
}

template <int size>
void input(const WinogradPixels& d, const WinogradPlaces& to, int64_t channels) {
  const Matrices f = matrices(size);
  for (int64_t c = 0; c < channels; ++c) {
    double in[36], out[36];
    for (int p = 0; p < f.t * f.t; ++p) in[p] = double(d.at[p][c]);
    both_axes(
        f.t, f.t, [&](int i, int j) { return f.bt[i][j]; }, in, out);
    for (int e = 0; e < f.t * f.t; ++e) element(to, e, c) = float(out[e]);
  }
}

template <int size>
void output(const float* m, int64_t stride, const WinogradOutput& to, int64_t channels) {
  const Matrices f = matrices(size);
  for (int64_t c = 0; c < channels; ++c) {
    double in[36], out[16];
    for (int e = 0; e < f.t * f.t; ++e) in[e] = double(m[e * stride + c]);
    both_axes(
        f.m, f.t, [&](int i, int j) { return f.at[i][j]; }, in, out);
    for (int p = 0; p < f.m * f.m; ++p)
      if (to.y[p]) {
        const float sum = float(out[p]) + (to.bias ? to.bias[c] : 0) + (to.residual ? to.residual[p][c] : 0);
        to.y[p][c] = unary_apply(to.activation, set1(sum), set1(to.alpha), set1(to.beta))[0];
      }
  }
}

template <int size>
void weights(const float* w, int64_t tap_stride, float* u, int64_t stride, int64_t channels) {
  const Matrices f = matrices(size);
  for (int64_t c = 0; c < channels; ++c) {
    double in[9], out[36];
    for (int tap = 0; tap < 9; ++tap) in[tap] = double(w[tap * tap_stride + c]);
    both_axes(
        f.t, 3, [&](int i, int j) { return f.g[i][j]; }, in, out);
    for (int e = 0; e < f.t * f.t; ++e) u[e * stride + c] = float(out[e]);
  }
}

template <int size>
void output_bwd(const WinogradPixels& dy, const WinogradPlaces& to, int64_t channels) {
  const Matrices f = matrices(size);
  for (int64_t c = 0; c < channels; ++c) {
    double in[16], out[36];
    for (int p = 0; p < f.m * f.m; ++p) in[p] = double(dy.at[p][c]);
    both_axes(
        f.t, f.m, [&](int i, int j) { return f.at[j][i]; }, in, out);
    for (int e = 0; e < f.t * f.t; ++e) element(to, e, c) = float(out[e]);
  }
}

template <int size>
void weights_bwd(const float* s, int64_t stride, float* dw, int64_t tap_stride, int64_t channels) {
  const Matrices f = matrices(size);
  for (int64_t c = 0; c < channels; ++c) {
    double in[36], out[9];
    for (int e = 0; e < f.t * f.t; ++e) in[e] = double(s[e * stride + c]);
    both_axes(
        3, f.t, [&](int i, int j) { return f.g[j][i]; }, in, out);
    for (int tap = 0; tap < 9; ++tap) dw[tap * tap_stride + c] = float(out[tap]);
  }
}

}  // namespace

extern const WinogradKernels winograd;
const WinogradKernels winograd = {
    {input<0>, input<1>},           {output<0>, output<1>},           {weights<0>, weights<1>},
    {output_bwd<0>, output_bwd<1>}, {weights_bwd<0>, weights_bwd<1>},
};

}  // namespace ref
}  // namespace wl
