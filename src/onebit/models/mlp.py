"""The plumbing that the MLP families share; a family's file states its paper and its choices."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from onebit.nn import BinaryLinear, ScalePixels

__all__ = ["DenseNet", "check_sizes", "dense_layers"]


def _check_probability(argument: str, p: float) -> None:
    if not 0 <= p < 1:
        raise ValueError(f"{argument} must be at least 0 and below 1; got {p!r}")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def check_sizes(argument: str, sizes: Sequence[int]) -> None:
    """ValueError unless sizes is a list or tuple of positive integers."""
    if not isinstance(sizes, (list, tuple, torch.Size)) or not all(map(_is_size, sizes)):
        raise ValueError(f"{argument} must be a sequence of positive integers; got {sizes!r}")


def dense_layers(
    *,
    input_shape: Sequence[int],
    classes: int,
    hidden: Sequence[int],
    activation: Callable[[], nn.Module],
    weight_quantizer: Callable[[], nn.Module],
    dropout_input: float,
    dropout_hidden: float,
    bn_eps: float,
    bn_momentum: float,
    scale_pixels: bool,
    norm: type[nn.Module] = nn.BatchNorm1d,
) -> OrderedDict[str, nn.Module]:
    """The layers, named as they appear in a state_dict and in error messages:

    [pixels] flatten input_dropout (linear1 norm1 activation1 dropout1) (linear2 …) … linearL normL

    Dropout follows the activation. Before it, a dropped 0 would be binarized to +1 in place of being
    absent; that is why the sign is a module of its own here and the linear layers take their input as it
    comes.
    ValueError for sizes that are not positive or probabilities outside [0, 1).
    """
    check_sizes("input_shape", input_shape)
    check_sizes("hidden", hidden)
    if not _is_size(classes):
        raise ValueError(f"classes must be a positive integer; got {classes!r}")
    _check_probability("dropout_input", dropout_input)
    _check_probability("dropout_hidden", dropout_hidden)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if scale_pixels:
        layers["pixels"] = ScalePixels()
    layers["flatten"] = nn.Flatten()
    layers["input_dropout"] = nn.Dropout(dropout_input)
    widths = [math.prod(input_shape), *hidden, classes]
    for i, (fan_in, fan_out) in enumerate(pairwise(widths), start=1):
        layers[f"linear{i}"] = BinaryLinear(
            fan_in, fan_out, input_quantizer=None, weight_quantizer=weight_quantizer()
        )
        layers[f"norm{i}"] = norm(fan_out, eps=bn_eps, momentum=bn_momentum)
        if i <= len(hidden):
            layers[f"activation{i}"] = activation()
            layers[f"dropout{i}"] = nn.Dropout(dropout_hidden)
    return layers


class DenseNet(nn.Sequential):
    """A Sequential that knows its input: `input_shape` of one sample, and whether it is bytes or floats."""

    def __init__(
        self, layers: OrderedDict[str, nn.Module], input_shape: Sequence[int], *, scale_pixels: bool
    ) -> None:
        super().__init__(layers)
        self.input_shape = tuple(input_shape)
        self.scale_pixels = scale_pixels

    def example_input(self, batch_size: int = 2) -> Tensor:
        """A random batch: uint8 in 0..255 if the model scales pixels, else float32 in [-1, 1)."""
        shape = (batch_size, *self.input_shape)
        if self.scale_pixels:
            return torch.randint(0, 256, shape, dtype=torch.uint8)
        return torch.rand(shape) * 2 - 1
