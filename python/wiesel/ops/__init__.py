"""Every operation of the library as a function: of arrays, computed at once, or of the symbolic tensors that flow through ``forward``."""

from wiesel.ops import planned  # noqa: F401  (registers the ops that passes add)
from wiesel.ops.batch_norm import batch_norm, batch_norm_backward, batch_stats, running_stats
from wiesel.ops.binary import add, divide, equal, greater, greater_equal, less, less_equal, maximum, minimum, multiply, subtract
from wiesel.ops.conv import conv1d, conv1d_backward, conv2d, conv2d_backward, conv_transpose2d, conv_transpose2d_backward
from wiesel.ops.dropout import dropout
from wiesel.ops.loss import cross_entropy, cross_entropy_backward, hinge, mse
from wiesel.ops.lrn import local_response_norm, local_response_norm_backward
from wiesel.ops.matmul import linear, linear_backward, matmul, matmul_backward
from wiesel.ops.normalize import normalize
from wiesel.ops.one_hot import one_hot
from wiesel.ops.pool import (
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool2d,
    global_max_pool2d,
    max_pool2d,
    max_pool2d_backward,
    sum_pool2d,
    sum_pool2d_backward,
)
from wiesel.ops.reduce import max, mean, sum
from wiesel.ops.shape import broadcast_to, concat, flatten, pad, reshape, slice, stop_gradient, transpose
from wiesel.ops.softmax import log_softmax, softmax, softmax_backward
from wiesel.ops.unary import (
    abs,
    activation,
    activation_backward,
    affine,
    elu,
    exp,
    gelu,
    hard_sigmoid,
    hard_swish,
    leaky_relu,
    log,
    negative,
    prelu,
    relu,
    relu6,
    relu_backward,
    selu,
    sigmoid,
    sigmoid_backward,
    silu,
    softplus,
    sqrt,
    square,
    tanh,
    tanh_backward,
)

__all__ = [
    "abs", "activation", "activation_backward", "add", "affine", "avg_pool2d", "avg_pool2d_backward", "batch_norm", "batch_norm_backward",
    "batch_stats", "broadcast_to", "concat", "conv1d", "conv1d_backward", "conv2d", "conv2d_backward", "conv_transpose2d",
    "conv_transpose2d_backward", "cross_entropy", "cross_entropy_backward", "divide", "dropout", "elu", "equal", "exp", "flatten", "gelu",
    "global_avg_pool2d", "global_max_pool2d", "greater", "greater_equal", "hard_sigmoid", "hard_swish", "hinge", "leaky_relu", "less",
    "less_equal", "linear", "linear_backward", "local_response_norm", "local_response_norm_backward", "log", "log_softmax", "matmul",
    "matmul_backward", "max", "max_pool2d", "max_pool2d_backward", "maximum", "mean", "minimum", "mse", "multiply", "negative", "normalize",
    "one_hot", "pad", "prelu", "relu", "relu6", "relu_backward", "reshape", "running_stats", "selu", "sigmoid", "sigmoid_backward", "silu",
    "slice", "softmax", "softmax_backward", "softplus", "sqrt", "square", "stop_gradient", "subtract", "sum", "sum_pool2d",
    "sum_pool2d_backward", "tanh", "tanh_backward", "transpose",
]  # fmt: skip
