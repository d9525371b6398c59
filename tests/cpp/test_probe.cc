// The kernels that the machine is measured with: their formulas, the bounds of what they touch, and rates that are above zero.
#include "kernels/probe/probe.h"
#include "runtime/probe.h"
#include "vectors.h"

using namespace harness;

static void check_kernels(const wl::Kernels& k) {
  const wl::ProbeKernels& probe = *k.probe;
  // Chain c starts at c: with a = 1 every round adds b to it.
  const double chains = probe.chains, lanes = k.lanes;
  const double begin = chains * (chains - 1) / 2 * lanes;
  CHECK(probe.multiply_adds(0, 1.0f, 2.0f) == (float)begin, "%s: no round", k.isa);
  CHECK(probe.multiply_adds(5, 1.0f, 2.0f) == (float)(begin + 10 * chains * lanes), "%s: five rounds", k.isa);
  for (int64_t count : {1, 7, 16, 127, 128, 129, 1000}) {
    Guarded<float> x(count), y(count);
    Random random((uint64_t)count);
    fill_integers(x, random);
    double sum = 0;
    for (float v : x) sum += v;
    CHECK(probe.read(count, x.data()) == (float)sum, "%s: sum of %d", k.isa, (int)count);
    probe.copy(count, x.data(), y.data());
    for (int64_t i = 0; i < count; ++i) CHECK(y[i] == x[i], "%s: copy of %d at %d", k.isa, (int)count, (int)i);
    CHECK(y.intact(), "%s: copy of %d wrote elsewhere", k.isa, (int)count);
  }
}

static void check_rates(const wl::Kernels& k) {
  std::vector<float> from(1 << 14, 1.0f), to(1 << 14);
  for (int threads : {1, 2}) {
    CHECK(wl::probe_flops(k, threads, 0.002) > 1e6, "%s, %d threads", k.isa, threads);
    Guarded<float> memory(wl::probe_products_floats(k, threads), wl::kCacheLine);
    CHECK(wl::probe_products(k, threads, 0.002, memory.data()) > 1e6 && memory.intact(), "%s, %d threads", k.isa, threads);
    CHECK(wl::probe_bytes(k, threads, 0.002, (int64_t)from.size(), from.data(), nullptr) > 1e6, "%s, %d threads", k.isa, threads);
    CHECK(wl::probe_bytes(k, threads, 0.002, (int64_t)from.size(), from.data(), to.data()) > 1e6, "%s, %d threads", k.isa, threads);
    CHECK(to == from, "%s: copied", k.isa);
  }
}

int main() {
  for (const wl::Kernels* const* k = wl::runnable_kernels(); *k; ++k) {
    check_kernels(**k);
    check_rates(**k);
  }
  return finish();
}
