"""Which kernel family does a product, and whether its epilogue is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onebit.program import Program, TensorType
from onebit.runtime.cuda.binary_gemm import MOST_BITS, BinaryGemm
from onebit.runtime.cuda.device import Device
from onebit.runtime.cuda.epilogue import Epilogue, Raw, ScaleBias, Threshold
from onebit.runtime.cuda.floats import FloatConv, FloatGemm
from onebit.runtime.cuda.packing import Bits
from onebit.runtime.cuda.values import Value
from onebit.runtime.cuda.windows import DirectProduct
from onebit.runtime.plan import Step

if TYPE_CHECKING:
    from onebit.runtime.cuda.stages import Run


@dataclass(frozen=True)
class ReadyProduct:
    """A product with its weights on the device."""

    run: Run
    fused: bool  # `run` does the whole step; else its output are the raw sums
    reads_sums: bool = False  # it is quicker if the sums of its input's rows are there
    counts: bool = False  # it fills the sums of its output


class _BinaryGemm:
    def __init__(self, gemm: BinaryGemm) -> None:
        self._gemm = gemm
        self.nbytes = gemm.nbytes

    def __call__(self, inputs: Sequence[Value], outs: Sequence[Value]) -> None:
        (x,), (out,) = inputs, outs
        assert isinstance(x, Bits)
        self._gemm(x, out if isinstance(out, Bits) else out.view(x.rows, self._gemm.columns))


def epilogue_of(step: Step) -> Epilogue:
    """What the kernels' epilogue does for a step."""
    if step.threshold is not None and step.flip is not None:
        return Threshold(step.threshold, step.flip)
    if step.store == "f32" and step.scale is not None and step.bias is not None:
        return ScaleBias(step.scale, step.bias)
    return Raw()


def make_product(
    device: Device, program: Program, step: Step, x: TensorType, out: TensorType
) -> ReadyProduct:
    """The product of a step, over x → out (types of one sample)."""
    node = step.nodes[0]
    weights = program.constants[node.inputs[1]]
    if node.op == "binary_gemm" and x.channels <= MOST_BITS:
        run = _BinaryGemm(BinaryGemm(device, weights.array, x.channels, epilogue_of(step)))
        return ReadyProduct(run, True, reads_sums=True, counts=step.store == "bits")
    if node.op == "f32_gemm":
        return ReadyProduct(FloatGemm(device, program, node), fused=_plain(step))
    if node.op == "f32_conv2d":
        return ReadyProduct(FloatConv(device, program, node), fused=_plain(step))
    return ReadyProduct(DirectProduct(device, program, node, x, out), fused=_plain(step))


def _plain(step: Step) -> bool:
    """Whether the step is the product alone, so that the raw sums are its output."""
    return len(step.nodes) == 1
