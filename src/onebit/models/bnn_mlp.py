"""The MLP of "Binarized Neural Networks" (arXiv 1602.02830): one-bit weights and activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from onebit.models.mlp import DenseNet, dense_layers
from onebit.models.registry import register
from onebit.nn import ShiftBatchNorm1d, quantizers

__all__ = ["BnnMlp"]

_NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "shift": ShiftBatchNorm1d}


@register("bnn_mlp", small={"input_shape": (1, 5, 7), "classes": 3, "hidden": (33, 65)})
class BnnMlp(DenseNet):
    """Dense → BatchNorm → sign → dropout, repeated; the last layer is one-bit Dense → BatchNorm (scores).

    Input: (N, *input_shape), uint8 (scale_pixels=True) or floating point. Output: (N, classes) float32.

    The defaults are the paper's MNIST network as in the authors' Theano code (784-3×4096-10; BatchNorm ε
    1e-4, momentum 0.1; every layer one-bit, the last included), without dropout; their MNIST run used
    dropout_input=0.2 and dropout_hidden=0.5. They gave it pixels in [-1, 1]; ScalePixels gives (2x -
    255)/256 instead of (2x - 255)/255, which is exact.

    hidden: widths of the hidden layers, any number of them.
    activation, weight_quantizer: names of quantizers; "stochastic_sign" is stochastic in training mode only.
    norm: "batch", or "shift" for the paper's shift-based BatchNorm (algorithm 3), as in the authors' Torch7
        code, whose MNIST network has 3×2048 hidden units.
    ValueError for sizes, probabilities or names that make no sense.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 28, 28),
        classes: int = 10,
        hidden: Sequence[int] = (4096, 4096, 4096),
        *,
        dropout_input: float = 0.0,
        dropout_hidden: float = 0.0,
        activation: str = "ste_sign",
        weight_quantizer: str = "ste_sign",
        norm: Literal["batch", "shift"] = "batch",
        bn_eps: float = 1e-4,
        bn_momentum: float = 0.1,
        scale_pixels: bool = True,
    ) -> None:
        if norm not in _NORMS:
            raise ValueError(f"norm must be one of {', '.join(map(repr, _NORMS))}; got {norm!r}")
        layers = dense_layers(
            input_shape=input_shape,
            classes=classes,
            hidden=hidden,
            activation=lambda: quantizers.create(activation),
            weight_quantizer=lambda: quantizers.create(weight_quantizer),
            dropout_input=dropout_input,
            dropout_hidden=dropout_hidden,
            bn_eps=bn_eps,
            bn_momentum=bn_momentum,
            scale_pixels=scale_pixels,
            norm=_NORMS[norm],
        )
        super().__init__(layers, input_shape, scale_pixels=scale_pixels)
