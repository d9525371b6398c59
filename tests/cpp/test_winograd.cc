// Winograd in three directions against direct sums in double, on every level: tiles cut by the picture's edge, every padding, one channel
// more and less than a vector, both schedules, fewer tiles than a block and more, groups.
#include <algorithm>

#include "harness.h"
#include "ops/winograd.h"

using namespace wl;
using harness::Guarded;

namespace {

// Operands, and what comes of them: sums in double.
struct Problem {
  ConvShape s{};
  Guarded<float> x, w, bias, residual, dy;
  std::vector<double> y, dx, dw;
  Problem(int64_t n, int64_t ih, int64_t iw, int64_t ic, int64_t oc, int64_t top, int64_t left, int64_t bottom, int64_t right,
          int64_t groups = 1)
      : x(n * ih * iw * ic),
        w(9 * ic / groups * oc),
        bias(oc),
        residual(n * (ih + top + bottom - 2) * (iw + left + right - 2) * oc),
        dy(residual.size()),
        y(size_t(dy.size())),
        dx(size_t(x.size())),
        dw(size_t(w.size())) {
    s.n = n, s.ih = ih, s.iw = iw, s.ic = ic, s.oc = oc, s.kh = s.kw = 3, s.sh = s.sw = s.dilh = s.dilw = 1, s.g = groups;
    s.pad_top = top, s.pad_left = left, s.pad_bottom = bottom, s.pad_right = right;
    s.oh = ih + top + bottom - 2, s.ow = iw + left + right - 2;
    harness::Random random(7);
    for (Guarded<float>* operand : {&x, &w, &bias, &residual, &dy}) harness::fill_reals(*operand, random);
    each([&](int64_t xi, int64_t wi, int64_t yi) {
      y[size_t(yi)] += double(x[xi]) * double(w[wi]);
      dx[size_t(xi)] += double(dy[yi]) * double(w[wi]);
      dw[size_t(wi)] += double(dy[yi]) * double(x[xi]);
    });
    for (int64_t i = 0; i < dy.size(); ++i) y[size_t(i)] = std::max(0.0, y[size_t(i)] + double(bias[i % oc]) + double(residual[i]));
  }
  // Calls body(x index, w index, y index) for every multiply-add.
  template <class Body>
  void each(Body body) const {
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t oy = 0; oy < s.oh; ++oy)
        for (int64_t ox = 0; ox < s.ow; ++ox)
          for (int64_t tap = 0; tap < 9; ++tap) {
            const int64_t iy = oy - s.pad_top + tap / 3, ix = ox - s.pad_left + tap % 3;
            if (iy < 0 || ix < 0 || iy >= s.ih || ix >= s.iw) continue;
            for (int64_t o = 0; o < s.oc; ++o)
              for (int64_t i = 0, first = o / s.ocg() * s.icg(); i < s.icg(); ++i)
                body(((n * s.ih + iy) * s.iw + ix) * s.ic + first + i, (tap * s.icg() + i) * s.oc + o,
                     ((n * s.oh + oy) * s.ow + ox) * s.oc + o);
          }
  }
};

void compare(const Guarded<float>& got, const std::vector<double>& want, double terms, const Problem& p, const Kernels& kernels,
             Algorithm a, const char* what) {
  double worst = 0;
  for (int64_t i = 0; i < got.size(); ++i) worst = std::max(worst, fabs(double(got[i]) - want[size_t(i)]));
  // Inputs lie in [-1, 1]; the transforms amplify rounding by a bounded factor, and errors add up like a random walk.
  const double bound = 6e-7 * (a == Algorithm::winograd4 ? 16 : 4) * (4 + sqrt(terms));
  CHECK(worst <= bound, "%s %s n%d %dx%d %d->%d: error %.2e over %.2e", what, kernels.isa, int(p.s.n), int(p.s.ih), int(p.s.iw),
        int(p.s.ic), int(p.s.oc), worst, bound);
  CHECK(got.intact());
}

struct Workspace {
  Guarded<char> memory;
  Run run;
  Workspace(const Problem& p, ConvDirection direction, Algorithm a, const Kernels& kernels, int threads)
      : memory(bytes(p, direction, a, kernels, threads), 64) {
    run.kernels = &kernels, run.threads = threads, run.workspace = memory.data();
  }
  static int64_t bytes(const Problem& p, ConvDirection direction, Algorithm a, const Kernels& kernels, int threads) {
    Choice choice;
    winograd_choose(p.s, direction, a, kernels, threads, &choice);
    return choice.workspace;
  }
};

// What the correlation reads: packed weights, or the canonical ones that it transforms itself.
const float* weights(const Problem& p, ConvDirection direction, Algorithm a, const Run& run, Guarded<float>& packed) {
  if (packed.size() == 0) return p.w.data();
  winograd_pack(run, *run.kernels, p.s, direction, a, p.w.data(), packed.data());
  return packed.data();
}

void check(Problem& p, const Kernels& kernels, Algorithm a, int threads) {
  const auto pictures = [&](Guarded<float>& data, int64_t h, int64_t w, int64_t c) {
    return harness::tensor(data.data(), {p.s.n, h, w, c});
  };
  const Tensor x = pictures(p.x, p.s.ih, p.s.iw, p.s.ic), dy = pictures(p.dy, p.s.oh, p.s.ow, p.s.oc);
  CHECK(winograd_possible(p.s));

  {  // forward, with bias, residual and activation
    Guarded<float> y(p.dy.size());
    const Tensor residual = pictures(p.residual, p.s.oh, p.s.ow, p.s.oc);
    Guarded<float> packed(winograd_packed_bytes(p.s, ConvDirection::fwd, a) / 4, 64);
    Workspace workspace(p, ConvDirection::fwd, a, kernels, threads);
    const float* w = weights(p, ConvDirection::fwd, a, workspace.run, packed);
    ConvEpilogueOperands epilogue;
    epilogue.bias = p.bias.data(), epilogue.residual = &residual, epilogue.activation = UnaryKind::relu;
    winograd_fwd(workspace.run, kernels, p.s, a, x, w, pictures(y, p.s.oh, p.s.ow, p.s.oc), epilogue, workspace.memory.data());
    compare(y, p.y, double(9 * p.s.icg()), p, kernels, a, "forward");
    CHECK(packed.intact() && workspace.memory.intact());
  }
  {
    Guarded<float> dx(p.x.size());
    Guarded<float> packed(winograd_packed_bytes(p.s, ConvDirection::bwd_data, a) / 4, 64);
    Workspace workspace(p, ConvDirection::bwd_data, a, kernels, threads);
    const float* w = weights(p, ConvDirection::bwd_data, a, workspace.run, packed);
    winograd_bwd_data(workspace.run, kernels, p.s, a, dy, w, pictures(dx, p.s.ih, p.s.iw, p.s.ic), {}, workspace.memory.data());
    compare(dx, p.dx, double(9 * p.s.ocg()), p, kernels, a, "backward-data");
    CHECK(packed.intact() && workspace.memory.intact());
  }
  {
    Guarded<float> dw(p.w.size());
    Workspace workspace(p, ConvDirection::bwd_weights, a, kernels, threads);
    winograd_bwd_weights(workspace.run, kernels, p.s, a, x, dy, dw.data());
    compare(dw, p.dw, double(p.s.n * p.s.oh * p.s.ow), p, kernels, a, "backward-weights");
    CHECK(workspace.memory.intact());
  }
}

}  // namespace

int main() {
  Problem tiny(1, 3, 3, 1, 1, 0, 0, 0, 0), same(2, 9, 7, 5, 33, 1, 1, 1, 1), wide(1, 6, 11, 17, 3, 2, 0, 1, 2),
      even(2, 8, 8, 32, 64, 1, 1, 1, 1), grouped(2, 6, 9, 15, 51, 1, 0, 2, 1, 3), depthwise(1, 5, 5, 4, 4, 1, 1, 1, 1, 4);
  Problem many(3, 31, 30, 40, 36, 1, 1, 1, 1), broad(3, 29, 26, 100, 97, 1, 1, 1, 1),  // sums by places
      deep(1, 5, 4, 515, 530, 1, 1, 1, 1),                                             // weights by columns, sums by blocks
      broad_groups(3, 29, 26, 198, 196, 1, 1, 1, 1, 2), deep_groups(1, 5, 4, 1032, 1058, 1, 1, 1, 1, 2);
  harness::for_each_kernels([&](const Kernels& kernels) {
    for (Algorithm a : {Algorithm::winograd2, Algorithm::winograd4})
      for (int threads : {1, 2}) {
        for (Problem* p : {&tiny, &same, &wide, &even, &grouped, &depthwise}) check(*p, kernels, a, threads);
        if (kernels.lanes == 1) continue;  // slow
        for (Problem* p : {&many, &broad, &deep, &broad_groups, &deep_groups}) check(*p, kernels, a, threads);
      }
  });
  return harness::finish();
}
