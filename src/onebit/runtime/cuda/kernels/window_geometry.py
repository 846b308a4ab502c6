"""The windows of a convolution or pool as kernels take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from onebit.program import Node, TensorType


@dataclass(frozen=True)
class WindowGeometry:
    """The windows of a convolution or pool, in the order in which kernels take them."""

    height: int
    width: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    top: int
    left: int
    out_h: int
    out_w: int

    @classmethod
    def of(cls, node: Node, x: TensorType, out: TensorType, kernel: tuple[int, int]) -> WindowGeometry:
        """That of a node over x[H, W, C] → out[OH, OW, ·]."""
        stride, padding = ints(node, "stride"), ints(node, "padding")
        dilation = ints(node, "dilation") if "dilation" in node.attrs else (1, 1)
        # One tap along an axis has no use for a dilation, which may be as large as an int32 can be.
        near = [d if k > 1 else 1 for d, k in zip(dilation, kernel, strict=True)]
        numbers = (*x.shape[:2], *kernel, *stride, *near, padding[0], padding[2], *out.shape[:2])
        return cls(*numbers)

    @property
    def is_pointwise(self) -> bool:
        """Whether each output has one tap, the pixel at its own place."""
        kernel, stride = (self.kernel_h, self.kernel_w), (self.stride_h, self.stride_w)
        same = (self.out_h, self.out_w, self.top, self.left) == (self.height, self.width, 0, 0)
        return kernel == stride == (1, 1) and same

    @property
    def numbers(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(vars(self).values())


def ints(node: Node, name: str) -> tuple[int, ...]:
    """An attribute that holds integers."""
    return cast(tuple[int, ...], node.attrs[name])
