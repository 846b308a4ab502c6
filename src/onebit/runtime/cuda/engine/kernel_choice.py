"""Which kernel family does a product, and whether its epilogue is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from onebit.program import Node, Program, TensorType
from onebit.program.fusion import Step
from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.engine.residual_fusion import ResidualSum
from onebit.runtime.cuda.engine.stage import StageRun
from onebit.runtime.cuda.kernels import binary_conv, u8_conv
from onebit.runtime.cuda.kernels.binary_conv import BinaryConv
from onebit.runtime.cuda.kernels.binary_gemm import MAX_BITS, BinaryGemm
from onebit.runtime.cuda.kernels.buffers import DeviceValue
from onebit.runtime.cuda.kernels.direct import DirectProduct
from onebit.runtime.cuda.kernels.epilogue import Epilogue, Raw, Residual, ScaleBias, Threshold
from onebit.runtime.cuda.kernels.float_products import FloatConv, FloatGemm
from onebit.runtime.cuda.kernels.pack import Bits
from onebit.runtime.cuda.kernels.u8_conv import U8Conv, U8Gemm
from onebit.runtime.cuda.kernels.window_geometry import WindowGeometry


@dataclass(frozen=True)
class ReadyProduct:
    """A product with its weights on the device."""

    run: StageRun
    fused: bool  # `run` does the whole step; else its output are the raw sums
    reads_sums: bool = False  # it is quicker if the sums of its input's rows are there
    counts: bool = False  # it fills the sums of its output


class _OnBits:
    """A product of bits as a stage."""

    def __init__(self, product: BinaryGemm | BinaryConv) -> None:
        self._product = product
        self.nbytes = product.nbytes

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        (x,), (out,) = inputs, outs
        assert isinstance(x, Bits)
        self._product(x, out if isinstance(out, Bits) else out.view(-1, self._product.columns))


class _WithResidual:
    """A convolution of bits and the sum after it as a stage: inputs x and what is added."""

    def __init__(self, product: BinaryConv, total: bool) -> None:
        self._product = product
        self._total = total
        self.nbytes = product.nbytes

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        x, other = inputs
        assert isinstance(x, Bits)
        assert isinstance(other, torch.Tensor)
        floats = outs[0] if self._total else None
        signs = outs[-1] if isinstance(outs[-1], Bits) else None
        assert not isinstance(floats, Bits)
        self._product.add_to(other, x, floats, signs)


class _OnBytes:
    """A first layer as a stage."""

    def __init__(self, product: U8Conv) -> None:
        self._product = product
        self.nbytes = product.nbytes

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        (x,), (out,) = inputs, outs
        assert isinstance(x, torch.Tensor)
        self._product(x, out)


def epilogue_of(step: Step) -> Epilogue:
    """What the kernels' epilogue does for a step."""
    if step.threshold is not None and step.flip is not None:
        return Threshold(step.threshold, step.flip)
    if step.epilogue == "f32" and step.scale is not None and step.bias is not None:
        return ScaleBias(step.scale, step.bias)
    return Raw()


def make_product(
    device: Device, program: Program, step: Step, x: TensorType, out: TensorType
) -> ReadyProduct:
    """The product of a step, over x → out (types of one sample)."""
    node = step.nodes[0]
    fast = _fast(device, program, step, x, out)
    if isinstance(fast, BinaryGemm | BinaryConv):
        reads = isinstance(fast, BinaryGemm)
        return ReadyProduct(_OnBits(fast), True, reads_sums=reads, counts=step.epilogue == "bits")
    if fast is not None:
        return ReadyProduct(_OnBytes(fast), True, counts=step.epilogue == "bits")
    if node.op == "f32_gemm":
        return ReadyProduct(FloatGemm(device, program, node), fused=_plain(step))
    if node.op == "f32_conv2d":
        return ReadyProduct(FloatConv(device, program, node), fused=_plain(step))
    return ReadyProduct(DirectProduct(device, program, node, x, out), fused=_plain(step))


def make_residual(
    device: Device, program: Program, step: Step, x: TensorType, found: ResidualSum
) -> StageRun | None:
    """The run of a convolution of bits with the sum after it; None where no kernel does both."""
    node = step.nodes[0]
    if node.op != "binary_conv2d":
        return None
    fast = _binary_conv(device, program, node, x, program.values[node.output], found.epilogue)
    return _WithResidual(fast, bool(found.total)) if isinstance(fast, BinaryConv) else None


def _fast(
    device: Device, program: Program, step: Step, x: TensorType, out: TensorType
) -> BinaryGemm | BinaryConv | U8Conv | None:
    """The product of integers by a fast kernel with its epilogue, or None where no such kernel takes it."""
    node, epilogue = step.nodes[0], epilogue_of(step)
    if not node.facts.is_integer_product:
        return None
    weights = program.constants[node.inputs[1]].array
    if node.op == "binary_gemm":
        return BinaryGemm(device, weights, x.channels, epilogue) if x.channels <= MAX_BITS else None
    if node.op == "u8_gemm":
        multiplier, offset = _int(node, "multiplier"), _int(node, "offset")
        return U8Gemm(device, weights, x.channels, multiplier=multiplier, offset=offset, epilogue=epilogue)
    if node.op == "binary_conv2d":
        return _binary_conv(device, program, node, x, out, epilogue)
    geometry = WindowGeometry.of(node, x, out, (weights.shape[1], weights.shape[2]))
    groups = _int(node, "groups")
    if not u8_conv.covers(geometry, out.channels, groups):
        return None
    return U8Conv(
        device,
        weights,
        x.channels,
        geometry,
        multiplier=_int(node, "multiplier"),
        offset=_int(node, "offset"),
        groups=groups,
        epilogue=epilogue,
    )


def _binary_conv(
    device: Device, program: Program, node: Node, x: TensorType, out: TensorType, epilogue: Epilogue
) -> BinaryGemm | BinaryConv | None:
    weights = program.constants[node.inputs[1]].array
    geometry = WindowGeometry.of(node, x, out, (weights.shape[1], weights.shape[2]))
    groups = _int(node, "groups")
    pointwise = geometry.is_pointwise and groups == 1 and not isinstance(epilogue, Residual)
    if pointwise and x.channels <= MAX_BITS:  # each output pixel is the product with one row
        return BinaryGemm(device, weights[:, 0, 0], x.channels, epilogue)
    if not binary_conv.covers(geometry, x.channels, out.channels, groups):
        return None
    return BinaryConv(
        device,
        weights,
        x.channels,
        geometry,
        groups=groups,
        padding_value=_int(node, "padding_value"),
        epilogue=epilogue,
    )


def _int(node: Node, name: str) -> int:
    return cast(int, node.attrs[name])


def _plain(step: Step) -> bool:
    """Whether the step is the product alone, so that the raw sums are its output."""
    return len(step.nodes) == 1
