"""Models by name. A family is one file, named after its paper; importing this package registers them all."""

from __future__ import annotations

from onebit.needs_torch import torch  # noqa: F401

# isort: split
from onebit.models.alexnet import AlexNet
from onebit.models.binaryconnect_convnet import BinaryConnectConvNet
from onebit.models.binaryconnect_mlp import BinaryConnectMlp
from onebit.models.bit_encoder import BitEncoder
from onebit.models.bnn_convnet import BnnConvNet
from onebit.models.bnn_mlp import BnnMlp
from onebit.models.googlenet_bnn import GoogLeNetBnn
from onebit.models.keyword_spotting import KeywordSpotter
from onebit.models.lenet5_xnor import LeNet5Xnor
from onebit.models.nin_xnor import NinXnor
from onebit.models.pretrained import FloatWeights, load_float_weights
from onebit.models.quicknet import QuickNet
from onebit.models.reactnet import ReActNetA
from onebit.models.registry import (
    ModelEntry,
    convertible_names,
    create,
    create_small,
    entry,
    example_input,
    names,
    register,
)
from onebit.models.resnet18 import ResNet18

__all__ = [
    "AlexNet",
    "BinaryConnectConvNet",
    "BinaryConnectMlp",
    "BitEncoder",
    "BnnConvNet",
    "BnnMlp",
    "FloatWeights",
    "GoogLeNetBnn",
    "KeywordSpotter",
    "LeNet5Xnor",
    "ModelEntry",
    "NinXnor",
    "QuickNet",
    "ReActNetA",
    "ResNet18",
    "convertible_names",
    "create",
    "create_small",
    "entry",
    "example_input",
    "load_float_weights",
    "names",
    "register",
]
