/* Prints the machine's multiply-add peak (fp32 GFLOP/s) and memory bandwidth (GB/s, copy: bytes read + written) of all threads.
 * cc -O3 -march=native -fopenmp peak.c -o peak */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, CHAINS = 24 };
#elif defined(__AVX__)
enum { LANES = 8, CHAINS = 12 };
#else
enum { LANES = 4, CHAINS = 12 };
#endif
typedef float vec __attribute__((vector_size(4 * LANES)));

/* CHAINS independent accumulators hide the latency of the multiply-add; the compiler contracts a * b + c. */
static float multiply_add(long rounds) {
  vec acc[CHAINS], a, b;
  for (int l = 0; l < LANES; ++l) a[l] = 0.999f, b[l] = 1e-6f;
  for (int i = 0; i < CHAINS; ++i) acc[i] = b * (float)i;
  for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
    for (int i = 0; i < CHAINS; ++i) acc[i] = acc[i] * a + b;
  }
  vec sum = acc[0];
  for (int i = 1; i < CHAINS; ++i) sum += acc[i];
  return sum[0];
}

int main(void) {
  enum { TRIES = 7 };
  const long rounds = 20 * 1000 * 1000;
  double flops = 0, bytes = 0;
  volatile float sink = 0;
  for (int t = 0; t < TRIES; ++t) {
    double start = omp_get_wtime();
#pragma omp parallel
    sink = multiply_add(rounds);
    double rate = 2.0 * LANES * CHAINS * rounds * omp_get_max_threads() / (omp_get_wtime() - start);
    if (rate > flops) flops = rate;
  }
  const size_t size = (size_t)256 << 20, part = size / (size_t)omp_get_max_threads();
  char *from = malloc(size), *to = malloc(size);
  if (!from || !to) return 1;
  for (int t = 0; t < TRIES; ++t) {
    double start = omp_get_wtime();
#pragma omp parallel
    memcpy(to + part * (size_t)omp_get_thread_num(), from + part * (size_t)omp_get_thread_num(), part);
    double rate = 2.0 * (double)(part * (size_t)omp_get_max_threads()) / (omp_get_wtime() - start);
    if (t && rate > bytes) bytes = rate; /* the first pass pages the memory in */
  }
  printf("{\"fma_GFLOP/s\": %.1f, \"memory_GB/s\": %.1f}\n", flops / 1e9, bytes / 1e9);
  return 0;
}
