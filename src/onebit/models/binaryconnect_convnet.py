"""The CIFAR-10 ConvNet of "BinaryConnect" (arXiv 1511.00363), and what later papers made of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import nn

from onebit.models.images import ImageSequential, check_image, check_sizes
from onebit.models.registry import register
from onebit.nn import BinaryConv2d, BinaryLinear, RPReLU, RSign, ScalePixels, quantizers
from onebit.nn.binary_layer import InputScale

__all__ = ["BinaryConnectConvNet"]

Form = Literal["binaryconnect", "bwn", "xnor", "modern", "float"]
_SMALL = {"input_shape": (3, 9, 10), "classes": 3, "widths": (33, 31, 65), "hidden": (33,)}


@register("binaryconnect_convnet_cifar10", small=_SMALL)
@register("binaryconnect_convnet_svhn", small=_SMALL, preset={"widths": (64, 128, 256)})
@register("bwn_convnet_cifar10", small=_SMALL, preset={"form": "bwn"})
@register("xnor_convnet_cifar10", small=_SMALL, preset={"form": "xnor"})
@register("modern_convnet_cifar10", small=_SMALL, preset={"form": "modern"})
class BinaryConnectConvNet(ImageSequential):
    """2×128C3-MP2-2×256C3-MP2-2×512C3-MP2-1024FC-1024FC-10, the sizes of `bnn_convnet_cifar10`.

    Input: (N, *input_shape), uint8 (scale_pixels=True) or floating point. Output: (N, classes) float32.

    form decides what is one-bit and in which order a layer works:
        "binaryconnect": one-bit weights everywhere, real activations: layer → pool → BatchNorm → ReLU, the
            last layer → BatchNorm (BinaryConnect, section 3.2). 14,029,716 parameters.
        "bwn": the same order, weights α·sign(W) (Binary-Weight-Networks, arXiv 1603.05279, section 3.1).
        "xnor": BatchNorm → sign → layer (·α·K) → pool; before them layer → BatchNorm → ReLU, behind them
            BatchNorm → ReLU → layer (XNOR-Net, sections 3.2 and 3.3).
        "modern": RSign → layer → pool → BatchNorm → RPReLU (ReActNet, arXiv 2003.03488), for training with
            augmentation, cross-entropy and distillation.
        "float": real weights and activations, layer → pool → BatchNorm → ReLU: a teacher, or a yardstick.
    In all but "binaryconnect" the first and the last layer are real, the last with bias and nothing behind.
    BatchNorm has ε 1e-4 and momentum 0.1. Convolutions are 3×3 with padding 1, of zeros.

    widths: channels of each pair of convolutions; each pair ends in a 2×2 max-pool.
    hidden: widths of the hidden dense layers.
    weight_quantizer: of the one-bit layers; "stochastic_sign" is BinaryConnect's stochastic variant.
    test_weights: what a stochastically trained network uses in eval mode: "binary", the sign; or "real", the
        latent weights, as the paper tests it (section 2.6): not one-bit.
    input_scale: K of form "xnor": "xnor", or None to leave it out.
    ValueError for sizes, forms or names that make no sense.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        widths: Sequence[int] = (128, 256, 512),
        hidden: Sequence[int] = (1024, 1024),
        *,
        form: Form = "binaryconnect",
        weight_quantizer: str = "ste_sign",
        test_weights: Literal["binary", "real"] = "binary",
        input_scale: InputScale | None = "xnor",
        scale_pixels: bool = True,
    ) -> None:
        channels, height, width = check_image(input_shape, classes, min_size=2 ** len(widths))
        check_sizes("widths", widths)
        check_sizes("hidden", hidden)
        if form not in get_args(Form):
            raise ValueError(f"form must be one of {', '.join(map(repr, get_args(Form)))}; got {form!r}")
        if test_weights not in ("binary", "real"):
            raise ValueError(f"test_weights must be 'binary' or 'real'; got {test_weights!r}")
        if test_weights == "real" and weight_quantizer != "stochastic_sign":
            raise ValueError(
                f"test_weights='real' belongs to weight_quantizer='stochastic_sign'; got {weight_quantizer!r}"
            )
        options = {"real_in_eval": True} if test_weights == "real" else {}
        parts = _Parts(form, weight_quantizer, options, input_scale)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if scale_pixels:
            layers["pixels"] = ScalePixels()
        convolutions = [w for w in widths for _ in (0, 1)]
        for i, fan_out in enumerate(convolutions, start=1):
            first = i == 1
            _add(layers, i, {} if first else parts.before(channels, images=True))
            layers[f"conv{i}"] = parts.convolution(channels, fan_out, first=first)
            if i % 2 == 0:
                layers[f"pool{i}"] = nn.MaxPool2d(2)
                height, width = height // 2, width // 2
            _add(layers, i, parts.first(fan_out) if first else parts.after(fan_out, images=True))
            channels = fan_out
        fan_in, start = channels * height * width, len(convolutions) + 1
        for i, fan_out in enumerate(hidden, start=start):
            _add(layers, i, parts.before(channels, images=i == start))
            if i == start:
                layers["flatten"] = nn.Flatten()
            layers[f"linear{i}"] = parts.dense(fan_in, fan_out)
            _add(layers, i, parts.after(fan_out, images=False))
            channels = fan_in = fan_out
        if not hidden:
            layers["flatten"] = nn.Flatten()
        _add(layers, start + len(hidden), parts.last(fan_in, classes))
        super().__init__(layers, input_shape, takes_bytes=scale_pixels)


def _add(layers: OrderedDict[str, nn.Module], i: int, modules: dict[str, nn.Module]) -> None:
    layers.update({f"{name}{i}": module for name, module in modules.items()})


def _norm(channels: int, *, images: bool) -> nn.Module:
    return (nn.BatchNorm2d if images else nn.BatchNorm1d)(channels, eps=1e-4)


class _Parts:
    """The pieces of one form. The sign of "xnor" belongs to its layer, which takes K from what is before."""

    def __init__(
        self, form: Form, weight_quantizer: str, options: dict[str, bool], input_scale: InputScale | None
    ) -> None:
        self.form, self.weight_quantizer, self.options = form, weight_quantizer, options
        self.weight_scale = "channel_mean" if form in ("bwn", "xnor") else None
        self.input_scale = input_scale if form == "xnor" else None

    def _one_bit(self) -> dict[str, Any]:
        return {
            "input_quantizer": "ste_sign" if self.form == "xnor" else None,
            "weight_quantizer": quantizers.create(self.weight_quantizer, **self.options),
            "weight_scale": self.weight_scale,
            "input_scale": self.input_scale,
        }

    def convolution(self, fan_in: int, fan_out: int, *, first: bool) -> nn.Module:
        if self.form == "float" or (first and self.form != "binaryconnect"):
            return nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False)
        sign = {"input_quantizer": None} if first else {}
        return BinaryConv2d(fan_in, fan_out, 3, padding=1, **{**self._one_bit(), **sign})

    def dense(self, fan_in: int, fan_out: int) -> nn.Module:
        if self.form == "float":
            return nn.Linear(fan_in, fan_out, bias=False)
        return BinaryLinear(fan_in, fan_out, **self._one_bit())

    def before(self, channels: int, *, images: bool) -> dict[str, nn.Module]:
        """In front of a hidden layer."""
        if self.form == "xnor":
            return {"norm": _norm(channels, images=images)}
        return {"sign": RSign(channels)} if self.form == "modern" else {}

    def first(self, channels: int) -> dict[str, nn.Module]:
        """Behind the first layer."""
        if self.form == "xnor":
            return {"norm": _norm(channels, images=True), "relu": nn.ReLU()}
        return self.after(channels, images=True)

    def after(self, channels: int, *, images: bool) -> dict[str, nn.Module]:
        """Behind a hidden layer and its pool."""
        if self.form == "xnor":
            return {}
        activation = {"prelu": RPReLU(channels)} if self.form == "modern" else {"relu": nn.ReLU()}
        return {"norm": _norm(channels, images=images), **activation}

    def last(self, channels: int, classes: int) -> dict[str, nn.Module]:
        """The last layer and what stands around it."""
        if self.form == "binaryconnect":
            return {"linear": self.dense(channels, classes), "norm": _norm(classes, images=False)}
        linear = {"linear": nn.Linear(channels, classes)}
        if self.form == "xnor":
            return {"norm": _norm(channels, images=False), "relu": nn.ReLU(), **linear}
        return dict(linear)
