// The rates that a profile is read against, measured with the threads and the vectors that a run has. Figures for people: nothing is chosen
// by them, for bits must not depend on a timing.
#pragma once
#include "kernels/kernels.h"

namespace wl {

// Floating-point operations per second of independent multiply-adds in registers, each counted as two. Takes about `seconds`; the best of
// the rounds counts, since others may be using the machine.
double probe_flops(const Kernels& kernels, int threads, double seconds);

// Operations per second of the products that convolutions are made of, with operands in a core's caches: on average over `seconds`, so it
// shows what others leave of the machine, where the multiply-adds in registers show what it can do. `memory` has the floats that
// probe_products_floats tells, of any finite values.
int64_t probe_products_floats(const Kernels& kernels, int threads);
double probe_products(const Kernels& kernels, int threads, double seconds, float* memory);

// Bytes per second of reading `count` floats at `from`, over and over; with `to`, of copying them there: bytes read and bytes written.
double probe_bytes(const Kernels& kernels, int threads, double seconds, int64_t count, const float* from, float* to);

}  // namespace wl
