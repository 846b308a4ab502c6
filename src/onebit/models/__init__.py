"""Models by name. A family is one file, named after its paper; importing this package registers them all."""

from __future__ import annotations

from onebit.models.binaryconnect_mlp import BinaryConnectMlp
from onebit.models.bnn_convnet import BnnConvNet
from onebit.models.bnn_mlp import BnnMlp
from onebit.models.registry import ModelEntry, create, create_small, entry, example_input, names, register

__all__ = [
    "BinaryConnectMlp",
    "BnnConvNet",
    "BnnMlp",
    "ModelEntry",
    "create",
    "create_small",
    "entry",
    "example_input",
    "names",
    "register",
]
