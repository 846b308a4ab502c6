"""The autograd functions of `save_bits_`: PyTorch's own kernels, with packed tensors saved between.

Each restores the floats it needs in its backward pass, exactly, and hands them to the kernel that autograd
would have called; saved_bits.py has the why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from onebit.nn.convolution import padded
from onebit.nn.markers import sign_formula

__all__ = [
    "PIXELS",
    "SIGNS",
    "SavedGrid",
    "batch_norm",
    "decode",
    "encode",
    "max_pool2d",
    "pack_mask",
    "product",
    "sign",
    "unpack_mask",
]

_Function = torch.autograd.Function
_PACK = 0x0102040810204080  # times eight bytes of 0 or 1 as one number: its top byte holds the eight as bits


@dataclass(frozen=True)
class SavedGrid:
    """What values a tensor can hold: integers from -bound to bound, times quantum (a power of two)."""

    quantum: float
    bound: int

    @property
    def dtype(self) -> torch.dtype | None:
        """The smallest integer type for them; None where float32 is as small."""
        return torch.int8 if self.bound < 2**7 else torch.int16 if self.bound < 2**15 else None


SIGNS = SavedGrid(1.0, 1)  # +1 and -1, never 0
PIXELS = SavedGrid(2.0**-8, 255)


def pack_mask(mask: Tensor) -> Tensor:
    """bool, any shape → uint8 (ceil(elements / 8),): element 8·i + j in memory order is bit j of byte i."""
    flat = (mask.permute(0, 2, 3, 1) if is_channels_last(mask) else mask).reshape(-1)
    flat = F.pad(flat.to(torch.uint8), (0, -flat.numel() % 8))
    return ((flat.view(torch.int64) * _PACK) >> 56).to(torch.uint8)


def unpack_mask(code: Tensor, shape: torch.Size, channels_last: bool) -> Tensor:
    """The inverse of `pack_mask`: bool of that shape; channels_last says how it lay in memory."""
    return _rows(_table(code.device) != 0, code, shape, channels_last)


def _table(device: torch.device) -> Tensor:
    """(256, 8): the bits of each byte, a row a byte. Rows of a table are the quickest way back from bits."""
    return (torch.arange(256, device=device).unsqueeze(1) >> torch.arange(8, device=device)) & 1


def _rows(table: Tensor, code: Tensor, shape: torch.Size, channels_last: bool) -> Tensor:
    flat = table.index_select(0, code.int()).reshape(-1)[: shape.numel()]
    if not channels_last:
        return flat.view(shape)
    n, c, h, w = shape
    return flat.view(n, h, w, c).permute(0, 3, 1, 2)


def is_channels_last(x: Tensor) -> bool:
    """Whether x, (N, C, H, W), lies in memory as (N, H, W, C)."""
    return x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def encode(x: Tensor, grid: SavedGrid | None) -> Tensor:
    """x as bits or small integers; x itself where grid is None or needs as many bytes as float32."""
    if grid == SIGNS:
        return pack_mask(x > 0)
    if grid is None or grid.dtype is None:
        return x
    return (x * (1 / grid.quantum)).to(grid.dtype)


def decode(
    code: Tensor, grid: SavedGrid | None, shape: torch.Size, channels_last: bool, dtype: torch.dtype
) -> Tensor:
    """The inverse of `encode`: exact, since a quantum is a power of two."""
    if grid == SIGNS:
        return _rows(_table(code.device).to(dtype) * 2 - 1, code, shape, channels_last)
    if grid is None or grid.dtype is None:
        return code
    return code.to(dtype) * grid.quantum


class _Sign(_Function):
    """sign with the saturating STE (quantizers.py); saves the mask |x| <= window as bits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: float) -> Tensor:
        ctx.save_for_backward(pack_mask(x.abs() <= window))
        ctx.layout = x.shape, is_channels_last(x)
        return sign_formula(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (code,) = ctx.saved_tensors
        return torch.where(unpack_mask(code, *ctx.layout), grad_outputs[0], 0), None


class _GridProduct(_Function):
    """A matrix product or convolution of x and weight, each on its grid, and saved as that allows.

    how: (padding value, stride, padding before, dilation, groups, padding after) of a convolution, None for a
        matrix product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        grid: SavedGrid | None,
        weight_grid: SavedGrid | None,
        how: tuple[Any, ...] | None,
    ) -> Tensor:
        ctx.save_for_backward(encode(x, grid), encode(weight, weight_grid))
        ctx.of_x = grid, x.shape, is_channels_last(x), x.dtype
        ctx.of_weight = weight_grid, weight.shape, is_channels_last(weight), weight.dtype
        ctx.how = how
        if how is None:
            return F.linear(x, weight)
        wide, padding = padded(x, how[0], how[2], how[5])
        return torch.convolution(
            wide, weight, None, how[1], padding, how[3], False, [0] * len(padding), how[4]
        )

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (g,), how = grad_outputs, ctx.how
        codes = ctx.saved_tensors  # read once, as torch.utils.checkpoint demands
        x, weight = decode(codes[0], *ctx.of_x), decode(codes[1], *ctx.of_weight)
        needs = ctx.needs_input_grad[:2]
        if how is None:
            flat = g.reshape(-1, g.shape[-1])
            gx = (flat @ weight).reshape(x.shape) if needs[0] else None
            gw = flat.t() @ x.reshape(-1, x.shape[-1]) if needs[1] else None
            return gx, gw, None, None, None
        wide, padding = padded(x, how[0], how[2], how[5])
        gx, gw, _ = torch.ops.aten.convolution_backward(
            g,
            wide,
            weight,
            None,
            how[1],
            padding,
            how[3],
            False,
            [0] * len(padding),
            how[4],
            [*needs, False],
        )
        if gx is not None and wide is not x:
            for axis, (size, before) in enumerate(zip(x.shape[2:], how[2], strict=True), start=2):
                gx = gx.narrow(axis, before, size)
        return gx, gw, None, None, None


class _BatchNorm(_Function):
    """BatchNorm in training mode of an x on a grid, which it saves as integers.

    Returns (y, running mean, running variance), the last two as they are to be stored.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
        factor: float,
        eps: float,
        grid: SavedGrid,
    ) -> Any:
        y, mean, invstd, new_mean, new_var = torch.ops.aten._native_batch_norm_legit_functional(
            x, weight, bias, running_mean, running_var, True, factor, eps
        )
        ctx.save_for_backward(encode(x, grid), weight, mean, invstd)
        ctx.of_x = grid, x.shape, is_channels_last(x), x.dtype
        ctx.eps = eps
        ctx.mark_non_differentiable(new_mean, new_var)
        return y, new_mean, new_var

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        code, weight, mean, invstd = ctx.saved_tensors
        x = decode(code, *ctx.of_x)
        affine = weight is not None
        gx, gw, gb = torch.ops.aten.native_batch_norm_backward(
            grad_outputs[0], x, weight, None, None, mean, invstd, True, ctx.eps, [True, affine, affine]
        )
        return gx, gw, gb, None, None, None, None, None


class _MaxPool2d(_Function):
    """Max-pool that saves where in its window each maximum was, one byte each, and not its input.

    how: (kernel, stride, padding, dilation) of two numbers each, ceil_mode.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, how: tuple[Any, ...]) -> Tensor:
        y, index = torch.ops.aten.max_pool2d_with_indices(x, *how)
        row, column = _corners(y.shape, how, x.device)
        (d_row, d_column), kernel_w, width = how[3], how[0][1], x.shape[-1]
        code = (index // width - row) // d_row * kernel_w + (index % width - column) // d_column
        ctx.save_for_backward(code.to(torch.uint8))
        ctx.how, ctx.shape, ctx.channels_last = how, x.shape, is_channels_last(x)
        return cast(Tensor, y)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (code,), (g,), how = ctx.saved_tensors, grad_outputs, ctx.how
        row, column = _corners(code.shape, how, code.device)
        (d_row, d_column), kernel_w = how[3], how[0][1]
        code = code.to(torch.int64)
        index = (code // kernel_w * d_row + row) * ctx.shape[-1] + code % kernel_w * d_column + column
        layout = torch.channels_last if ctx.channels_last else torch.contiguous_format
        x = torch.empty(
            ctx.shape, dtype=g.dtype, device=g.device, memory_format=layout
        )  # only its shape is read
        return torch.ops.aten.max_pool2d_with_indices_backward(g, x, *how, index), None


def _corners(shape: torch.Size, how: tuple[Any, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of the first tap of each window: (H', 1) and (W',)."""
    rows = torch.arange(shape[-2], device=device) * how[1][0] - how[2][0]
    return rows.unsqueeze(1), torch.arange(shape[-1], device=device) * how[1][1] - how[2][1]


def sign(x: Tensor, window: float) -> Tensor:
    """sign(x) with the saturating STE."""
    return cast(Tensor, _Sign.apply(x, window))  # type: ignore[no-untyped-call]


def product(
    x: Tensor,
    weight: Tensor,
    grid: SavedGrid | None,
    weight_grid: SavedGrid | None,
    how: tuple[Any, ...] | None,
) -> Tensor:
    """The matrix product or convolution of `_GridProduct`."""
    return cast(Tensor, _GridProduct.apply(x, weight, grid, weight_grid, how))  # type: ignore[no-untyped-call]


def batch_norm(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """y and the new running mean and variance; the arguments are those of `_BatchNorm`."""
    y, mean, var = _BatchNorm.apply(x, *arguments)  # type: ignore[no-untyped-call]
    return y, mean, var


def max_pool2d(x: Tensor, how: tuple[Any, ...]) -> Tensor:
    """The pool of `_MaxPool2d`."""
    return cast(Tensor, _MaxPool2d.apply(x, how))  # type: ignore[no-untyped-call]
