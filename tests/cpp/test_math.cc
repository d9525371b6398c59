// The elementary functions against the C library in double, through the unary kernels of every ISA; edge cases; derivatives.
#include "kernels/eltwise/eltwise.h"
#include "vectors.h"

using namespace harness;
using wl::UnaryKind;

static const double kSeluAlpha = 1.6732632423543772, kSeluScale = 1.0507009873554805;

static double value(UnaryKind kind, double x, double alpha, double beta) {
  switch (kind) {
    case UnaryKind::none: return x;
    case UnaryKind::relu: return x > 0 ? x : isnan(x) ? x : 0;
    case UnaryKind::relu6: return isnan(x) ? x : fmin(fmax(x, 0), 6);
    case UnaryKind::leaky_relu: return x > 0 ? x : alpha * x;
    case UnaryKind::sigmoid: return 1 / (1 + exp(-x));
    case UnaryKind::tanh: return tanh(x);
    case UnaryKind::elu: return x > 0 ? x : alpha * expm1(x);
    case UnaryKind::selu: return kSeluScale * (x > 0 ? x : kSeluAlpha * expm1(x));
    case UnaryKind::gelu: return x * 0.5 * erfc(-x / sqrt(2.0));
    case UnaryKind::silu: return x / (1 + exp(-x));
    case UnaryKind::softplus: return fmax(x, 0) + log1p(exp(-fabs(x)));
    case UnaryKind::hard_swish: return x * fmin(fmax(x + 3, 0), 6) / 6;
    case UnaryKind::hard_sigmoid: return fmin(fmax(x + 3, 0), 6) / 6;
    case UnaryKind::exp: return exp(x);
    case UnaryKind::log: return log(x);
    case UnaryKind::sqrt: return sqrt(x);
    case UnaryKind::square: return x * x;
    case UnaryKind::abs: return fabs(x);
    case UnaryKind::affine: return alpha * x + beta;
  }
  return NAN;
}

static char saves(UnaryKind kind) {
#define SAVES(name, number, what) \
  if (kind == UnaryKind::name) return #what[0];
  WL_UNARY_KINDS(SAVES)
#undef SAVES
  return 0;
}

struct Bound {
  UnaryKind kind;
  double low, high;  // range in which the bound holds
  double ulps;
};

static void check_accuracy(const wl::Kernels& k) {
  const Bound bounds[] = {
      {UnaryKind::exp, -87, 88.7, 1.5},   {UnaryKind::log, 1e-37, 3e38, 1.5},   {UnaryKind::tanh, -30, 30, 2},
      {UnaryKind::sigmoid, -87, 87, 2.5}, {UnaryKind::softplus, -80, 100, 3},   {UnaryKind::elu, -30, 30, 2.5},
      {UnaryKind::selu, -30, 30, 3},      {UnaryKind::silu, -80, 80, 3.5},      {UnaryKind::sqrt, 0, 3e38, 0.51},
      {UnaryKind::gelu, -1, 40, 4},       {UnaryKind::square, -1e9, 1e9, 0.51}, {UnaryKind::hard_swish, -2.5, 10, 3},
      {UnaryKind::relu, -3e38, 3e38, 0},  {UnaryKind::abs, -3e38, 3e38, 0},
  };
  constexpr int kBlock = 259;
  for (const Bound& b : bounds) {
    double worst = 0;
    float worst_x = 0;
    // Every exponent and sign, with mantissas spread by a prime step.
    float x[kBlock], y[kBlock];
    int n = 0;
    const auto flush = [&] {
      k.eltwise->unary(b.kind, 1.0f, 0.0f, n, x, y);
      for (int i = 0; i < n; ++i) {
        const double u = ulps(y[i], value(b.kind, x[i], 1, 0));
        if (u > worst) worst = u, worst_x = x[i];
      }
      n = 0;
    };
    for (uint64_t bits = 0; bits < 0x100000000u; bits += 9973) {
      const uint32_t word = (uint32_t)bits;
      memcpy(&x[n], &word, 4);
      if (!(x[n] >= b.low && x[n] <= b.high) || fabsf(x[n]) < 1e-37f) continue;
      if (fabs(value(b.kind, x[n], 1, 0)) < 1.2e-38 || fabs(value(b.kind, x[n], 1, 0)) > 3.4e38) continue;
      if (++n == kBlock) flush();
    }
    flush();
    CHECK(worst <= b.ulps, "%s: kind %d is off by %.2f ulp at %.9g", k.isa, (int)b.kind, worst, worst_x);
  }
}

static void check_edges(const wl::Kernels& k) {
  const auto of = [&](UnaryKind kind, float x, float alpha = 1.0f) {
    float y;
    k.eltwise->unary(kind, alpha, 0.0f, 1, &x, &y);
    return y;
  };
  for (float s : {-1.0f, 1.0f}) {
    CHECK(of(UnaryKind::tanh, 20 * s) == s, "%s", k.isa);
    CHECK(of(UnaryKind::tanh, INFINITY * s) == s, "%s", k.isa);
    CHECK(of(UnaryKind::sigmoid, 1000 * s) == (s > 0 ? 1.0f : 0.0f), "%s", k.isa);
  }
  CHECK(of(UnaryKind::exp, -1000) == 0 && of(UnaryKind::exp, -INFINITY) == 0, "%s", k.isa);
  CHECK(of(UnaryKind::exp, 1000) == INFINITY && of(UnaryKind::exp, 0) == 1, "%s", k.isa);
  CHECK(of(UnaryKind::log, 0) == -INFINITY && isnan(of(UnaryKind::log, -1)), "%s", k.isa);
  CHECK(of(UnaryKind::log, INFINITY) == INFINITY && of(UnaryKind::log, 1) == 0, "%s", k.isa);
  CHECK(of(UnaryKind::softplus, 1000) == 1000 && of(UnaryKind::softplus, -1000) == 0, "%s", k.isa);
  CHECK(of(UnaryKind::elu, -1000) == -1 && of(UnaryKind::elu, 1000) == 1000, "%s", k.isa);
  CHECK(of(UnaryKind::gelu, 50) == 50 && of(UnaryKind::gelu, -50) == 0, "%s", k.isa);
  CHECK(fabs(of(UnaryKind::gelu, -3) - value(UnaryKind::gelu, -3, 0, 0)) < 1e-7, "%s", k.isa);
#define PASSES(name, ...) CHECK(isnan(of(UnaryKind::name, NAN)), "%s: NaN does not pass " #name, k.isa);
  WL_UNARY_KINDS(PASSES)
#undef PASSES
}

// dx = dy * (f(x + h) - f(x - h)) / 2h, from the kernels' own saved tensor, away from kinks.
static void check_gradients(const wl::Kernels& k) {
  const int n = 61;
  for (int number = 0; number <= (int)UnaryKind::affine; ++number) {
    const UnaryKind kind = (UnaryKind)number;
    const float alpha = 0.75f, beta = -0.5f;
    float x[n], y[n], dy[n], dx[n];
    Random random(7);
    for (int i = 0; i < n; ++i) {
      x[i] = random.real() * 5 + 0.013f;
      if (kind == UnaryKind::log || kind == UnaryKind::sqrt) x[i] = fabsf(x[i]) + 0.1f;
      dy[i] = random.real();
    }
    k.eltwise->unary(kind, alpha, beta, n, x, y);
    const float* saved = saves(kind) == 'x' ? x : saves(kind) == 'y' ? y : nullptr;
    k.eltwise->unary_grad(kind, alpha, beta, n, saved, dy, dx);
    for (int i = 0; i < n; ++i) {
      if (fabs(x[i]) < 1e-3 || fabs(fabs(x[i]) - 3) < 1e-3 || fabs(x[i] - 6) < 1e-3) continue;
      const double h = 1e-5, slope = (value(kind, x[i] + h, alpha, beta) - value(kind, x[i] - h, alpha, beta)) / (2 * h);
      CHECK(near(dx[i], dy[i] * slope, 2e-5, 1e-2), "%s: kind %d at %g: %g instead of %g", k.isa, number, x[i], dx[i], dy[i] * slope);
    }
  }
  float zero = 0, one = 1, dx;
  for (UnaryKind kind : {UnaryKind::relu, UnaryKind::relu6, UnaryKind::abs}) {
    k.eltwise->unary_grad(kind, 0, 0, 1, &zero, &one, &dx);
    CHECK(dx == 0, "%s: kind %d has slope %g at 0", k.isa, (int)kind, dx);
  }
}

int main() {
  for_each_kernels([](const wl::Kernels& k) {
    check_accuracy(k);
    check_edges(k);
    check_gradients(k);
  });
  return finish();
}
