"""The MLP of "BinaryConnect" (arXiv 1511.00363): one-bit weights, real activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from onebit.models.mlp import DenseNet, dense_layers
from onebit.models.registry import register
from onebit.nn import quantizers

__all__ = ["BinaryConnectMlp"]


@register("binaryconnect_mlp", small={"input_shape": (1, 5, 7), "classes": 3, "hidden": (33, 65)})
class BinaryConnectMlp(DenseNet):
    """Dense (one-bit weights) → BatchNorm → ReLU → dropout, repeated; last, Dense → BatchNorm (scores).

    Input: (N, *input_shape), uint8 (scale_pixels=True) or floating point. Output: (N, classes) float32.

    The defaults are the paper's MNIST network (784-3×1024-10; the authors' published script has 3×2048) with
    BatchNorm ε 1e-4 and momentum 0.15 as in that script. Pixels are scaled by ScalePixels.

    weight_quantizer: "ste_sign" (deterministic BinaryConnect) or "stochastic_sign".
    test_weights: what a stochastically trained network uses in eval mode. "binary": the sign, one bit a
        weight. "real": the latent weights, as in the paper's section 2.6, for comparing with its 1.18 %;
        not one-bit.
    ValueError for sizes, probabilities or names that make no sense.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 28, 28),
        classes: int = 10,
        hidden: Sequence[int] = (1024, 1024, 1024),
        *,
        dropout_input: float = 0.0,
        dropout_hidden: float = 0.0,
        weight_quantizer: str = "ste_sign",
        test_weights: Literal["binary", "real"] = "binary",
        bn_eps: float = 1e-4,
        bn_momentum: float = 0.15,
        scale_pixels: bool = True,
    ) -> None:
        if test_weights not in ("binary", "real"):
            raise ValueError(f"test_weights must be 'binary' or 'real'; got {test_weights!r}")
        if test_weights == "real" and weight_quantizer != "stochastic_sign":
            raise ValueError(
                f"test_weights='real' belongs to weight_quantizer='stochastic_sign'; got {weight_quantizer!r}"
            )
        options = {"real_in_eval": True} if test_weights == "real" else {}
        layers = dense_layers(
            input_shape=input_shape,
            classes=classes,
            hidden=hidden,
            activation=nn.ReLU,
            weight_quantizer=lambda: quantizers.create(weight_quantizer, **options),
            dropout_input=dropout_input,
            dropout_hidden=dropout_hidden,
            bn_eps=bn_eps,
            bn_momentum=bn_momentum,
            scale_pixels=scale_pixels,
        )
        super().__init__(layers, input_shape, scale_pixels=scale_pixels)
