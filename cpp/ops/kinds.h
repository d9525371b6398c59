// Small enumerations shared by ops, kernels and (through _core) Python. Numbers are part of the program format.
#pragma once
#include <stdint.h>

namespace wl {

// clang-format off
//  name, number, what the gradient rule reads: x (the input), y (the output) or - (nothing).  alpha and beta as documented.
#define WL_UNARY_KINDS(K)                                                                        \
  K(none, 0, n)           /* x */                                                                \
  K(relu, 1, y)           /* max(0, x); NaN passes */                                            \
  K(relu6, 2, y)          /* min(max(0, x), 6) */                                                \
  K(leaky_relu, 3, y)     /* x > 0 ? x : alpha * x, alpha > 0 */                                 \
  K(sigmoid, 4, y)        /* 1 / (1 + exp(-x)) */                                                \
  K(tanh, 5, y)                                                                                  \
  K(elu, 6, y)            /* x > 0 ? x : alpha * (exp(x) - 1), alpha > 0 */                      \
  K(selu, 7, y)           /* scale * elu(x, alpha) with the constants of Klambauer et al. 2017 */ \
  K(gelu, 8, x)           /* x * Phi(x), exact (erf) */                                          \
  K(silu, 9, x)           /* x * sigmoid(x) */                                                   \
  K(softplus, 10, x)      /* log(1 + exp(x)) */                                                  \
  K(hard_swish, 11, x)    /* x * relu6(x + 3) / 6 */                                             \
  K(hard_sigmoid, 12, x)  /* relu6(x + 3) / 6 */                                                 \
  K(exp, 13, y)                                                                                  \
  K(log, 14, x)                                                                                  \
  K(sqrt, 15, y)                                                                                 \
  K(square, 16, x)                                                                               \
  K(abs, 17, x)           /* gradient 0 at 0 */                                                  \
  K(affine, 18, n)        /* alpha * x + beta */

#define WL_BINARY_KINDS(K) \
  K(add, 0) K(sub, 1) K(mul, 2) K(div, 3) K(maximum, 4) K(minimum, 5) K(greater_equal, 6) /* 1.0 or 0.0 */ \
  K(greater, 7) K(equal, 8)

#define WL_REDUCE_KINDS(K) K(sum, 0) K(mean, 1) K(max, 2)
// clang-format on

#define WL_ENUM_ENTRY(name, number, ...) name = number,
enum class UnaryKind : int32_t { WL_UNARY_KINDS(WL_ENUM_ENTRY) };
enum class BinaryKind : int32_t { WL_BINARY_KINDS(WL_ENUM_ENTRY) };
enum class ReduceKind : int32_t { WL_REDUCE_KINDS(WL_ENUM_ENTRY) };
#undef WL_ENUM_ENTRY

enum class PoolKind : int32_t { average = 0, sum = 1 };
enum class ConvDirection : int32_t { fwd = 0, bwd_data = 1, bwd_weights = 2 };

// Algorithms that choose() picks between. `automatic` asks the op to choose by itself (a call without the choose pass).
#define WL_ALGORITHMS(K) K(automatic, 0) K(ref, 1) K(direct, 2) K(depthwise, 3) K(planar, 4) K(winograd2, 5) K(winograd4, 6)
#define WL_ENUM_ENTRY(name, number) name = number,
enum class Algorithm : int32_t { WL_ALGORITHMS(WL_ENUM_ENTRY) };
#undef WL_ENUM_ENTRY

// Scalar slots written before each run (8 bytes each, int64 or double). Slots from `first_group` on belong to optimizer groups.
enum ScalarSlot : int32_t {
  kSlotSeed = 0,        // int
  kSlotStep = 1,        // int
  kSlotMicroStep = 2,   // int
  kSlotSample = 3,      // int: global index of the first sample of the batch
  kSlotAccumulate = 4,  // double: 0 starts a new sum of gradients, 1 adds
  kSlotFirstGroup = 8,  // per group g: 8 + 4 g: learning rate, 1 - beta1^t, 1 - beta2^t, spare (doubles)
  kScalarSlots = 72,
};

}  // namespace wl
