// The sums as planar.h defines them, one pixel at a time.
#include "kernels/planar/planar.h"
#include "simd/activation.h"

namespace wl {
namespace WL_ISA {
namespace {

constexpr int kPixels = 4;

void to_planes(int64_t channels, int64_t pixels, const float* from, int64_t step, float* planes, int64_t plane) {
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t c = 0; c < channels; ++c) planes[c * plane + p] = from[p * step + c];
}

float sum(const PlanarArgs& g, const PlanarVector& v, int64_t place, int r) {
  float total = 0, part = 0;
  for (int64_t t = v.begin; t < v.end; ++t) {
    if (t % kPlanarFlush == 0) total = total + part, part = 0;
    part = part + g.w[t * g.rows + r] * g.x[place + g.offsets[t]];
  }
  return total + part;
}

void run(const PlanarArgs& g) {
  const PlanarOutput& o = g.out;
  for (int64_t i = 0; i < g.count; ++i) {
    const PlanarVector& v = g.vectors[i];
    int64_t row = v.row, column = v.column;
    for (int l = 0; l < v.lanes; ++l, ++column) {
      if (column == g.pitch) ++row, column = 0;
      if (column >= g.columns) continue;
      for (int r = 0; r < g.rows; ++r) {
        f32v y{};
        y[0] = sum(g, v, row * g.pitch + column, r);
        if (o.bias) y[0] = y[0] + o.bias[r];
        if (o.residual) y[0] = y[0] + o.residual[row * o.residual_row + column * o.residual_col + r];
        o.y[row * o.y_row + column * o.y_col + r] = unary_apply(o.activation, y, set1(o.alpha), set1(o.beta))[0];
      }
    }
  }
}

void weights(const PlanarWeightsArgs& g) {
  for (int64_t t = 0; t < g.terms; ++t)
    for (int r = 0; r < g.rows; ++r)
      for (int l = 0; l < kPixels; ++l) {
        float part = 0;
        for (int64_t p = l; p < g.pixels; p += kPixels) part = part + g.x[p + g.offsets[t]] * g.dy[r * g.dy_plane + p];
        float& to = g.sums[(t * g.rows + r) * kPixels + l];
        to = g.add ? to + part : part;
      }
}

void add_lanes(int64_t count, const float* sums, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    float total = 0;
    for (int l = 0; l < kPixels; ++l) total = total + sums[i * kPixels + l];
    to[i] = total;
  }
}

}  // namespace

extern const PlanarKernels planar;
const PlanarKernels planar = {kPixels, 3, "plain", to_planes, run, weights, add_lanes};

}  // namespace WL_ISA
}  // namespace wl
