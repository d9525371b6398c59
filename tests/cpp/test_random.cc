// Philox against the published test vectors, its vector form against the scalar one, distributions, permutations.
#include "base/random.h"
#include "kernels/eltwise/eltwise.h"
#include "vectors.h"

using namespace harness;

static void check_vectors() {
  struct Known {
    uint32_t counter[4], key[2], result[4];
  };
  // kat_vectors of Random123 (Salmon et al. 2011), philox4x32 with 10 rounds.
  const Known known[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const Known& k : known) {
    uint32_t c[4];
    memcpy(c, k.counter, sizeof c);
    wl::philox(c, k.key[0], k.key[1]);
    CHECK(!memcmp(c, k.result, sizeof c), "%08x %08x %08x %08x", c[0], c[1], c[2], c[3]);
  }
}

// Ones through dropout at every alignment of the first element.
static void check_lanes(const wl::Kernels& k) {
  const uint64_t key = 0xfedcba9876543210, sample = 0x100000007;
  for (uint64_t first : {(uint64_t)0, (uint64_t)1, (uint64_t)63, (uint64_t)64 * 1000 + 5, ((uint64_t)1 << 40) + 17}) {
    Guarded<float> x(200), y(200);
    for (auto& v : x) v = 1;
    k.eltwise->dropout(200, x.data(), y.data(), 0x60000000, 2.0f, key, sample, first);
    for (uint64_t i = 0; i < 200; ++i) {
      uint32_t numbers[wl::kRandomGroup];
      wl::random_group(key, sample, (first + i) / wl::kRandomGroup, numbers);
      CHECK(y[(int64_t)i] == (numbers[(first + i) % wl::kRandomGroup] >= 0x60000000 ? 2 : 0), "%s first %d", k.isa, (int)first);
    }
    CHECK(y.intact(), "%s", k.isa);
  }
}

static void check_distributions() {
  const int64_t n = 200001;
  Guarded<float> u(n), g(n);
  wl::random_uniform_fill(wl::random_key(1, 0, 2, 3, 4), n, u.data());
  wl::random_normal_fill(wl::random_key(1, 0, 2, 3, 4), n, g.data());
  double mean = 0, square = 0, normal = 0, normal2 = 0, normal4 = 0;
  int64_t beyond = 0;
  for (int64_t i = 0; i < n; ++i) {
    CHECK(u[i] >= 0 && u[i] < 1, "%g", u[i]);
    mean += u[i], square += u[i] * u[i];
    normal += g[i], normal2 += g[i] * g[i], normal4 += pow(g[i], 4);
    beyond += fabs(g[i]) > 3;
    // The same 32 bits under both maps: u = Phi(g).
    CHECK(fabs(0.5 * erfc(-g[i] / sqrt(2.0)) - u[i]) < 3e-7, "%g and %g", u[i], g[i]);
  }
  CHECK(fabs(mean / (double)n - 0.5) < 0.003 && fabs(square / (double)n - 1.0 / 3) < 0.003, "uniform moments");
  CHECK(fabs(normal / (double)n) < 0.01 && fabs(normal2 / (double)n - 1) < 0.02 && fabs(normal4 / (double)n - 3) < 0.15, "normal moments");
  CHECK(fabs((double)beyond / (double)n - 0.0027) < 0.0006, "normal tails");
  CHECK(u.intact() && g.intact(), "fills");
  CHECK(wl::random_key(1, 0, 2, 3, 4) != wl::random_key(1, 0, 2, 4, 3), "keys");
}

static void check_permutation() {
  for (int64_t n : {0, 1, 2, 10, 60000}) {
    std::vector<int64_t> y((size_t)n), seen((size_t)n, 0);
    wl::random_permutation(wl::random_key(5, 1, 0, 0, 0), n, y.data());
    for (int64_t v : y) ++seen[(size_t)v];
    for (int64_t v : seen) CHECK(v == 1, "n %d", (int)n);
  }
  // Every place is equally likely for the first element.
  int counts[5] = {};
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    int64_t y[5];
    wl::random_permutation(wl::random_key(seed, 1, 0, 0, 0), 5, y);
    for (int i = 0; i < 5; ++i) counts[i] += y[i] == 0;
  }
  for (int c : counts) CHECK(abs(c - 1000) < 130, "%d of 1000", c);
}

int main() {
  check_vectors();
  for_each_kernels(check_lanes);
  check_distributions();
  check_permutation();
  return finish();
}
