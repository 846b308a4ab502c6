"""Activations with a learned place: ReActNet's RSign and RPReLU (arXiv 2003.03488).

    RSign(x)   = +1 where x >= α, else -1                            α a channel
    RPReLU(x)  = (x - γ) + ζ where x > γ, else β·(x - γ) + ζ          γ, β, ζ a channel

(The paper has x > α; sign(0) is +1 everywhere in this package.)

One shift a channel lets a network move the threshold of its signs, and the kink of its PReLU, to where the
distribution of its activations wants them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit.nn import quantizers
from onebit.nn.binary_layer import check_count
from onebit.nn.tracing import is_traced, one_node

__all__ = ["RPReLU", "RSign"]


def _by_channel(parameter: Tensor, x: Tensor, who: str) -> Tensor:
    """parameter, (channels,), shaped to broadcast over axis 1 of x; ValueError if x has other channels."""
    if x.ndim < 2 or x.shape[1] != parameter.shape[0]:
        raise ValueError(
            f"{who}({parameter.shape[0]}) takes inputs of shape (batch, {parameter.shape[0]}, ...); "
            f"got {tuple(x.shape)}"
        )
    return parameter.reshape(-1, *[1] * (x.ndim - 2))


class RSign(nn.Module):
    """sign(x - α), α a learned number a channel that starts at 0.

    x: (N, channels, ...), floating point -> ±1 in x's dtype and shape. In floating point x - α >= 0 exactly
    where x >= α: the subtraction cannot change the sign.

    channels: a positive count.
    quantizer: name or module of the sign behind the shift; "approx_sign" as in the authors' code. Its
        gradient g reaches x as it is and α as -Σ g over everything but the channel.
    device, dtype: of its parameters.
    ValueError for an input of other channels.
    """

    def __init__(
        self,
        channels: int,
        *,
        quantizer: str | nn.Module = "approx_sign",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_count("channels", channels)
        sign = quantizers.resolve(quantizer, "quantizer")
        if sign is None:
            raise TypeError("quantizer must be a name or a torch.nn.Module; got None")
        self.quantizer = sign
        self.to(device=device, dtype=dtype)  # the quantizer's own tensors
        self.shift = nn.Parameter(torch.zeros(channels, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        shifted: Tensor = self.quantizer(x - _by_channel(self.shift, x, "RSign"))
        return shifted

    def extra_repr(self) -> str:
        return str(self.shift.shape[0])


class RPReLU(nn.Module):
    """PReLU with learned shifts before and after it: prelu(x - γ) + ζ, slope β where x < γ.

    x: (N, channels, ...), floating point -> the same dtype and shape. `shift_in` (γ) and `shift_out` (ζ)
    start at 0, `slope` (β) at 0.25; each (channels,). Three roundings: the subtraction, the slope, the
    addition.

    channels: a positive count. device, dtype: of its parameters.
    ValueError for an input of other channels.
    """

    def __init__(
        self,
        channels: int,
        *,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_count("channels", channels)
        self.shift_in = nn.Parameter(torch.zeros(channels, device=device, dtype=dtype))
        self.slope = nn.Parameter(torch.full((channels,), 0.25, device=device, dtype=dtype))
        self.shift_out = nn.Parameter(torch.zeros(channels, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        if is_traced(x):
            return one_node(self, x)
        y = F.prelu(x - _by_channel(self.shift_in, x, "RPReLU"), self.slope)
        return y + _by_channel(self.shift_out, x, "RPReLU")

    def extra_repr(self) -> str:
        return str(self.slope.shape[0])
