#include "kernels/eltwise/eltwise.h"

#include "kernels/eltwise/channels.h"
#include "kernels/eltwise/classes.h"
#include "kernels/eltwise/maps.h"
#include "kernels/eltwise/moves.h"

namespace wl {
namespace WL_ISA {

extern const EltwiseKernels eltwise;
const EltwiseKernels eltwise = {
    unary_kernel,
    unary_grad_kernel,
    binary_kernel,
    normalize_kernel<float>,
    normalize_kernel<uint8_t>,
    bn_apply_kernel,
    bn_grad_kernel,
    lrn_kernel,
    lrn_grad_kernel,
    softmax_kernel,
    softmax_grad_kernel,
    cross_entropy_kernel,
    cross_entropy_grad_kernel,
    dropout_kernel,
    copy_kernel,
};

}  // namespace WL_ISA
}  // namespace wl
