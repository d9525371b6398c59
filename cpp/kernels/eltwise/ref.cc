// The same in a few loops: documentation and oracle. Vectors have one lane here.
#include "kernels/eltwise/eltwise.h"
#include "simd/activation.h"
#include "simd/philox.h"

namespace wl {
namespace WL_ISA {
namespace {

float one(UnaryKind kind, float x, float alpha, float beta) {
  return unary_slow(kind, set1(x), set1(alpha), set1(beta))[0];
}
float one_grad(UnaryKind kind, float s, float dy, float alpha, float beta) {
  return unary_grad_slow(kind, set1(s), set1(dy), set1(alpha), set1(beta))[0];
}
float exp_of(float x) {
  return exp(set1(x))[0];
}
float log_of(float x) {
  return log(set1(x))[0];
}

void unary_ref(UnaryKind kind, float alpha, float beta, int64_t n, const float* x, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = one(kind, x[i], alpha, beta);
}

void unary_grad_ref(UnaryKind kind, float alpha, float beta, int64_t n, const float* s, const float* dy, float* dx) {
  for (int64_t i = 0; i < n; ++i) dx[i] = one_grad(kind, s ? s[i] : 0.0f, dy[i], alpha, beta);
}

float binary_of(BinaryKind kind, float a, float b) {
  switch (kind) {
    case BinaryKind::add: return a + b;
    case BinaryKind::sub: return a - b;
    case BinaryKind::mul: return a * b;
    case BinaryKind::div: return a / b;
    case BinaryKind::maximum: return a > b || a != a ? a : b;
    case BinaryKind::minimum: return a < b || a != a ? a : b;
    case BinaryKind::greater_equal: return a >= b ? 1.0f : 0.0f;
    case BinaryKind::greater: return a > b ? 1.0f : 0.0f;
    case BinaryKind::equal: return a == b ? 1.0f : 0.0f;
  }
  return 0.0f;
}

void binary_ref(BinaryKind kind, int64_t rows, int64_t cols, Plane a, Plane b, float* y, int64_t y_row, int64_t y_col) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      y[r * y_row + c * y_col] = binary_of(kind, a.data[r * a.row + c * a.col], b.data[r * b.row + c * b.col]);
}

template <class T>
void normalize_ref(int64_t rows, int64_t channels, const T* x, int64_t x_row, const float* mean, const float* scale, float* y,
                   int64_t y_row) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < channels; ++c) y[r * y_row + c] = ((float)x[r * x_row + c] - mean[c]) * scale[c];
}

void bn_apply_ref(int64_t rows, int64_t channels, const BnApply& p) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < channels; ++c) {
      float v = (p.x[r * p.x_row + c] - p.mean[c]) * p.scale[c] + p.shift[c];
      if (p.residual) v += p.residual[r * p.residual_row + c];
      p.y[r * p.y_row + c] = one(p.activation, v, p.alpha, p.beta);
    }
}

void bn_grad_ref(int64_t rows, int64_t channels, const BnGrad& p) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < channels; ++c) {
      float g = p.dy[r * p.dy_row + c];
      if (p.activation != UnaryKind::none) {
        const float y =
            p.y ? p.y[r * p.y_row + c] : one(p.activation, (p.x[r * p.x_row + c] - p.mean[c]) * p.scale[c] + p.offset[c], p.alpha, p.beta);
        g = one_grad(p.activation, y, g, p.alpha, p.beta);
      }
      float v = p.a[c] * g;
      if (p.x) v += p.b[c] * (p.x[r * p.x_row + c] - p.mean[c]) + p.shift[c];
      p.dx[r * p.dx_row + c] = v;
      if (p.dresidual) p.dresidual[r * p.dresidual_row + c] = g;
    }
}

float lrn_denominator(const Lrn& p, const float* x, int64_t c) {
  float sum = 0;
  for (int64_t j = c - p.before; j <= c + p.after; ++j)
    if (j >= 0 && j < p.channels) sum += x[j] * x[j];
  return p.k + p.alpha * sum;
}

void lrn_ref(const Lrn& p, const float* x, float* y, float* d) {
  for (int64_t c = 0; c < p.channels; ++c) d[c] = lrn_denominator(p, x, c);
  for (int64_t c = 0; c < p.channels; ++c) y[c] = x[c] * exp_of(-p.beta * log_of(d[c]));
}

void lrn_grad_ref(const Lrn& p, const float* x, const float* y, const float* dy, float* dx, float* scratch) {
  float *d = scratch, *terms = scratch + p.channels;
  for (int64_t c = 0; c < p.channels; ++c) {
    d[c] = lrn_denominator(p, x, c);
    terms[c] = dy[c] * y[c] / d[c];
  }
  for (int64_t i = 0; i < p.channels; ++i) {
    float sum = 0;
    for (int64_t j = i - p.after; j <= i + p.before; ++j)
      if (j >= 0 && j < p.channels) sum += terms[j];
    dx[i] = dy[i] * exp_of(-p.beta * log_of(d[i])) - 2 * p.alpha * p.beta * x[i] * sum;
  }
}

float row_max(int64_t n, const float* x) {
  float m = -kInfinity;
  for (int64_t c = 0; c < n; ++c) m = m < x[c] ? x[c] : m;
  return m;
}
float row_sum_exp(int64_t n, const float* x, float m) {
  double sum = 0;
  for (int64_t c = 0; c < n; ++c) sum += exp_of(x[c] - m);
  return (float)sum;
}

void softmax_ref(bool log, int64_t rows, int64_t classes, const float* x, int64_t x_row, float* y, int64_t y_row) {
  for (int64_t r = 0; r < rows; ++r, x += x_row, y += y_row) {
    const float m = row_max(classes, x), sum = row_sum_exp(classes, x, m);
    for (int64_t c = 0; c < classes; ++c) y[c] = log ? (x[c] - m) - log_of(sum) : exp_of(x[c] - m) / sum;
  }
}

void softmax_grad_ref(bool log, int64_t rows, int64_t classes, const float* y, int64_t y_row, const float* dy, int64_t dy_row, float* dx,
                      int64_t dx_row) {
  for (int64_t r = 0; r < rows; ++r, y += y_row, dy += dy_row, dx += dx_row) {
    float sum = 0;
    for (int64_t c = 0; c < classes; ++c) sum += log ? dy[c] : y[c] * dy[c];
    for (int64_t c = 0; c < classes; ++c) dx[c] = log ? dy[c] - exp_of(y[c]) * sum : y[c] * (dy[c] - sum);
  }
}

// The smoothed target of row r, class c.
float target_of(const ClassRows& t, int64_t r, int64_t c, int64_t classes) {
  const float own = t.labels ? (t.labels[r * t.label_stride] == c ? 1.0f : 0.0f) : t.targets[r * t.target_row + c];
  return (1 - t.smoothing) * own + t.smoothing / (float)classes;
}
// The row's weight; NaN for a label out of range.
float weight_of(const ClassRows& t, int64_t r, int64_t classes) {
  if (t.labels && (t.labels[r * t.label_stride] < 0 || t.labels[r * t.label_stride] >= classes)) return __builtin_nanf("");
  return t.weight ? t.weight[r * t.weight_stride] : 1.0f;
}

void cross_entropy_ref(int64_t rows, int64_t classes, const float* logits, int64_t logits_row, const ClassRows& t, float* loss, float* prob,
                       int64_t prob_row) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* z = logits + r * logits_row;
    const float m = row_max(classes, z), sum = row_sum_exp(classes, z, m);
    float l = 0;
    for (int64_t c = 0; c < classes; ++c) {
      const float target = target_of(t, r, c, classes);
      if (!t.labels || target != 0.0f) l += target * (log_of(sum) - (z[c] - m));
    }
    loss[r] = weight_of(t, r, classes) * l;
    for (int64_t c = 0; c < classes; ++c) prob[r * prob_row + c] = exp_of(z[c] - m) / sum;
  }
}

void cross_entropy_grad_ref(int64_t rows, int64_t classes, const float* prob, int64_t prob_row, const ClassRows& t, float factor,
                            float* dlogits, int64_t dlogits_row) {
  for (int64_t r = 0; r < rows; ++r) {
    float sum = 0;
    for (int64_t c = 0; c < classes; ++c) sum += target_of(t, r, c, classes);
    if (t.labels) sum = 1.0f;
    const float w = factor * weight_of(t, r, classes);
    for (int64_t c = 0; c < classes; ++c) dlogits[r * dlogits_row + c] = w * (prob[r * prob_row + c] * sum - target_of(t, r, c, classes));
  }
}

void dropout_ref(int64_t n, const float* x, float* y, uint32_t threshold, float scale, uint64_t key, uint64_t sample, uint64_t first) {
  uint32_t numbers[kRandomGroup];
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t element = first + (uint64_t)i;
    if (i == 0 || element % kRandomGroup == 0) random_group(key, sample, element / kRandomGroup, numbers);
    y[i] = numbers[element % kRandomGroup] >= threshold ? x[i] * scale : 0.0f;
  }
}

void copy_ref(int size, int64_t rows, int64_t cols, const void* x, int64_t x_row, int64_t x_col, void* y, int64_t y_row, int64_t y_col) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      memcpy((char*)y + size * (r * y_row + c * y_col), (const char*)x + size * (r * x_row + c * x_col), (size_t)size);
}

}  // namespace

extern const EltwiseKernels eltwise;
const EltwiseKernels eltwise = {
    unary_ref,    unary_grad_ref, binary_ref,       normalize_ref<float>, normalize_ref<uint8_t>, bn_apply_ref, bn_grad_ref, lrn_ref,
    lrn_grad_ref, softmax_ref,    softmax_grad_ref, cross_entropy_ref,    cross_entropy_grad_ref, dropout_ref,  copy_ref,
};

}  // namespace WL_ISA
}  // namespace wl
