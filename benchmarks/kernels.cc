// GFLOP/s of single steps: convolutions in their directions and matrix products, by ISA and threads, beside the multiply-add peak of this
// machine.
//
//   kernels [--isa avx512] [--threads 1] [--op fwd|bwd_data|bwd_weights|pack|matmul|brgemm] [case…]
//
// A case is a line as in tests/cases/*.txt ("n8ih28iw28ic128oc128kh3kw3pt1pl1pb1pr1", "m64n1024k1024"). Without cases they are read from
// standard input, one at a time, and each is answered by one line "milliseconds GFLOP/s": so another process can take turns with its own
// contender. Weights are packed beforehand, as a training step does once for each direction; figures are minima of rounds of at least 30
// ms.
#include <algorithm>
#include <chrono>
#include <iostream>

#include "harness.h"
#include "kernels/brgemm/brgemm.h"
#include "ops/conv.h"
#include "runtime/probe.h"

using namespace harness;
using wl::AttrKey;
using wl::ConvDirection;
using wl::ConvShape;
using wl::Kernels;
using wl::Opcode;
using wl::Tensor;

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds of one call: the smallest of many short rounds, so that a busy machine leaves at least one alone.
template <class Body>
double seconds(Body body) {
  body();
  double start = now();
  body();
  const double once = now() - start;
  const int calls = once > 5e-4 ? 1 : (int)(5e-4 / (once + 1e-9)) + 1;
  double best = 1e30;
  const double end = now() + 0.4;
  for (int round = 0; round < 8 || (now() < end && round < 200); ++round) {
    start = now();
    for (int i = 0; i < calls; ++i) body();
    const double mean = (now() - start) / calls;
    if (mean < best) best = mean;
  }
  return best;
}

// --- cases
// -------------------------------------------------------------------------------------------------------------------------------------
// Floats on huge pages where the system gives them, as the arena has; with room behind them, so that prefetches meet mapped pages.
class Buffer {
 public:
  explicit Buffer(int64_t count) : bytes_(wl::round_up(count * 4 + 65536, 2 << 20)), data_((float*)aligned_alloc(2 << 20, bytes_)) {
    madvise(data_, bytes_, MADV_HUGEPAGE);
    Random random(7);
    for (int64_t i = 0; i < count; ++i) data_[i] = random.real();
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { free(data_); }
  float* get() { return data_; }

 private:
  size_t bytes_;
  float* data_;
};

struct Timing {
  double seconds = 0, flops = 0;
  wl::Choice choice;
};

Timing time_step(const OpRun& op, const Kernels& kernels, int threads, double flops) {
  Timing t;
  t.flops = flops;
  const wl::Status status = op.verify();
  if (!status) {
    fprintf(stderr, "%s\n", status.text);
    exit(1);
  }
  t.choice = op.choose(kernels, threads);
  Buffer workspace(t.choice.workspace / 4);
  wl::Run run;
  run.kernels = &kernels, run.threads = threads, run.workspace = (char*)workspace.get();
  t.seconds = seconds([&] { op.op().run(op.step, run); });
  return t;
}

Timing time_conv(const Case& c, const std::string& what, const Kernels& kernels, int threads) {
  ConvShape s;
  s.n = c["n"], s.ih = c["ih"], s.iw = c["iw"], s.ic = c["ic"], s.oc = c["oc"], s.kh = c["kh"], s.kw = c["kw"];
  s.sh = c.get("sh", 1), s.sw = c.get("sw", 1), s.dilh = c.get("dh", 1), s.dilw = c.get("dw", 1), s.g = c.get("g", 1);
  s.pad_top = c.get("pt", 0), s.pad_left = c.get("pl", 0), s.pad_bottom = c.get("pb", 0), s.pad_right = c.get("pr", 0);
  s.oh = (s.ih + s.pad_top + s.pad_bottom - s.dilh * (s.kh - 1) - 1) / s.sh + 1;
  s.ow = (s.iw + s.pad_left + s.pad_right - s.dilw * (s.kw - 1) - 1) / s.sw + 1;
  Buffer x(s.n * s.ih * s.iw * s.ic), y(s.n * s.oh * s.ow * s.oc), w(s.taps() * s.icg() * s.oc);
  const Tensor tx = tensor(x.get(), {s.n, s.ih, s.iw, s.ic}), ty = tensor(y.get(), {s.n, s.oh, s.ow, s.oc});
  const Tensor tw = tensor(w.get(), {s.kh, s.kw, s.icg(), s.oc});
  wl::Algorithm algorithm = wl::Algorithm(c.get("algorithm", 0));
  const auto with_attrs = [&](OpRun op) {
    op.attr(AttrKey::kernel_h, s.kh).attr(AttrKey::kernel_w, s.kw).attr(AttrKey::stride_h, s.sh).attr(AttrKey::stride_w, s.sw);
    op.attr(AttrKey::pad_top, s.pad_top).attr(AttrKey::pad_left, s.pad_left).attr(AttrKey::pad_bottom, s.pad_bottom);
    op.attr(AttrKey::pad_right, s.pad_right).attr(AttrKey::dilation_h, s.dilh).attr(AttrKey::dilation_w, s.dilw);
    return op.attr(AttrKey::groups, s.g).attr(AttrKey::algorithm, (int64_t)algorithm);
  };
  if (what == "bwd_weights")
    return time_step(with_attrs(OpRun(Opcode::conv_bwd_weights, {&tx, &ty}, {&tw})), kernels, threads, 2 * s.macs());
  const bool forward = what != "bwd_data";
  const ConvDirection direction = forward ? ConvDirection::fwd : ConvDirection::bwd_data;
  const auto convolve = [&](const Tensor& weight) {
    return forward ? with_attrs(OpRun(Opcode::conv_fwd, {&tx, &weight}, {&ty}))
                   : with_attrs(OpRun(Opcode::conv_bwd_data, {&ty, &weight}, {&tx}));
  };
  const wl::Choice choice = convolve(tw).choose(kernels, threads);
  algorithm = choice.algorithm;  // packed weights do not tell which algorithm they are for
  const int64_t bytes = choice.packed;
  if (bytes == 0) return time_step(convolve(tw), kernels, threads, 2 * s.macs());
  Buffer packed(bytes / 4);
  const Tensor tp = tensor(packed.get(), {bytes}, wl::DType::u8);
  OpRun pack = with_attrs(OpRun(Opcode::conv_pack, {&tw}, {&tp}));
  pack.attr(AttrKey::direction, (int64_t)direction);
  if (what == "pack") return time_step(pack, kernels, threads, 2 * s.macs());
  pack.run(kernels, threads);
  return time_step(convolve(tp), kernels, threads, 2 * s.macs());
}

Timing time_matmul(const Case& c, const Kernels& kernels, int threads) {
  const int64_t m = c["m"], n = c["n"], k = c["k"], ta = c.get("ta", 0), tb = c.get("tb", 0);
  Buffer a(m * k), b(k * n), y(m * n);
  const Tensor t_a = tensor(a.get(), {ta ? k : m, ta ? m : k}), t_b = tensor(b.get(), {tb ? n : k, tb ? k : n}),
               t_y = tensor(y.get(), {m, n});
  OpRun op(Opcode::matmul, {&t_a, &t_b}, {&t_y});
  op.attr(AttrKey::trans_a, ta).attr(AttrKey::trans_b, tb);
  return time_step(op, kernels, threads, 2.0 * double(m) * double(n) * double(k));
}

// The microkernel alone: m rows, packed panels, everything in cache.
Timing time_brgemm(const Case& c, const Kernels& kernels) {
  const wl::BrgemmKernels& brgemm = *kernels.brgemm;
  const int64_t m = c["m"], n = c["n"], k = c["k"], width = brgemm.panel_width(n);
  Buffer a(m * k), b(wl::round_up(n, width) * k), y(m * n);
  std::vector<const float*> a_rows(m);
  std::vector<float*> y_rows(m);
  for (int64_t r = 0; r < m; ++r) a_rows[r] = a.get() + r * k, y_rows[r] = y.get() + r * n;
  wl::BrgemmArgs g;
  g.m = m, g.n = n, g.k = k, g.a = a_rows.data(), g.a_rows = m, g.b = b.get(), g.b_stride = width, g.b_panel = width * k,
  g.out.c = y_rows.data();
  Timing t;
  t.flops = 2.0 * double(m) * double(n) * double(k);
  t.seconds = seconds([&] { brgemm.run(g); });
  snprintf(t.choice.kernel, sizeof t.choice.kernel, "brgemm %s", brgemm.tile);
  return t;
}

}  // namespace

int main(int argc, char** argv) {
  const Kernels* kernels = wl::active_kernels();
  int threads = 1;
  std::string what = "fwd";
  std::vector<std::string> cases;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--isa" && i + 1 < argc)
      kernels = wl::find_kernels(argv[++i]);
    else if (arg == "--threads" && i + 1 < argc)
      threads = atoi(argv[++i]);
    else if (arg == "--op" && i + 1 < argc)
      what = argv[++i];
    else
      cases.push_back(arg);
  }
  const auto known = {"fwd", "bwd_data", "bwd_weights", "pack", "matmul", "brgemm"};
  if (!kernels || threads < 1 || std::find(known.begin(), known.end(), what) == known.end()) {
    fprintf(stderr, "usage: kernels [--isa NAME] [--threads N] [--op fwd|bwd_data|bwd_weights|pack|matmul|brgemm] [case...]\n");
    return 2;
  }
  const auto time_case = [&](const std::string& line) {
    const Case c = parse_case(line);
    if (what == "brgemm") return time_brgemm(c, *kernels);
    return what == "matmul" ? time_matmul(c, *kernels, threads) : time_conv(c, what, *kernels, threads);
  };
  if (cases.empty()) {
    for (std::string line; std::getline(std::cin, line);) {
      const Timing t = time_case(line);
      printf("%.6f %.3f\n", t.seconds * 1e3, t.flops / t.seconds * 1e-9);
      fflush(stdout);
    }
    return 0;
  }
  const double most = wl::probe_flops(*kernels, threads, 0.2) * 1e-9;
  printf("%s, %d threads, peak %.0f GFLOP/s\n", kernels->isa, threads, most);
  for (const std::string& line : cases) {
    const Timing t = time_case(line);
    const double rate = t.flops / t.seconds * 1e-9;
    printf("%-14s %9.3f ms %8.1f GFLOP/s %5.1f %%  %s  [%s; %s]\n", what.c_str(), t.seconds * 1e3, rate, 100 * rate / most, line.c_str(),
           t.choice.kernel, t.choice.blocking);
  }
  return 0;
}
