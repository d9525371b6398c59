"""Layers, and the base class of nets."""

from wiesel.nn.activation import (
    ELU,
    GELU,
    SELU,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    activate,
)
from wiesel.nn.container import ModuleList, Sequential
from wiesel.nn.conv import Conv1d, Conv2d, ConvTranspose2d, DepthwiseConv2d
from wiesel.nn.dropout import Dropout
from wiesel.nn.graph_module import GraphModule
from wiesel.nn.linear import Linear
from wiesel.nn.module import Module
from wiesel.nn.norm import BatchNorm1d, BatchNorm2d, LocalResponseNorm, Normalize
from wiesel.nn.parameter import Parameter, State
from wiesel.nn.pool import AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, MaxPool2d, SumPool2d
from wiesel.nn.shape import Add, Concat, Flatten, Identity, Reshape

__all__ = [
    "ELU", "GELU", "SELU", "Add", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "Concat", "Conv1d", "Conv2d", "ConvTranspose2d",
    "DepthwiseConv2d", "Dropout", "Flatten", "GlobalAvgPool2d", "GlobalMaxPool2d", "GraphModule", "HardSigmoid", "HardSwish", "Identity",
    "LeakyReLU", "Linear", "LocalResponseNorm", "LogSoftmax", "MaxPool2d", "Module", "ModuleList", "Normalize", "PReLU", "Parameter",
    "ReLU", "ReLU6", "Reshape", "Sequential", "SiLU", "Sigmoid", "Softmax", "Softplus", "State", "SumPool2d", "Tanh", "activate",
]  # fmt: skip
