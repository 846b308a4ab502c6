"""Chains of elementwise ops, each one kernel launch; thresholds; packing and unpacking of inputs and outputs.

The kernels are in csrc/cuda/elementwise.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch

from onebit.program import OPS, DType, Node, Program, TensorType
from onebit.program.ops import FloatKind
from onebit.program.tensors import Array
from onebit.runtime.abi import Binary, Unary
from onebit.runtime.builder import rounded_attributes
from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.kernels.buffers import BufferForm, DeviceValue, launch_over, put, tensor_of
from onebit.runtime.cuda.kernels.entry import Entry
from onebit.runtime.cuda.kernels.pack import Bits

MAX_STEPS = 12  # of a chain
CHAIN_OPS = frozenset(name for name, op in OPS.items() if op.is_elementwise) - {"threshold"}

SOURCES = {DType.F32: 0, DType.I32: 1, DType.U8: 2, DType.BITS: 3}
_FLOATS, _BITS, _BOTH = 0, 1, 2  # TARGET
_CHAINS = {
    (goal, width): Entry(
        "elementwise/chain.cu", "chain", {"TARGET": goal, "WIDTH": width, "MAX_STEPS": MAX_STEPS}
    )
    for goal in (_FLOATS, _BITS, _BOTH)
    for width in (1, 4)
}
_THRESHOLD, _UNPACK, _PACK, _FIND_NAN = (
    Entry("elementwise/bits.cu", name, {}) for name in ("threshold", "unpack", "pack", "find_nan")
)
ENTRIES = (*_CHAINS.values(), _THRESHOLD, _UNPACK, _PACK, _FIND_NAN)

FMA_CODE = 0
"""The code of a step that is one fused multiply-add."""


def unary_code(op: Unary) -> int:
    """The code of a step that is a function of the number v; chain.cu has the same rule."""
    return 1 + op


def binary_code(op: Binary, *, v_first: bool = True) -> int:
    """The code of a step that is a function of v and its operand."""
    return 1 + len(Unary) + 2 * op + (not v_first)


class OperandMode(IntEnum):
    """Where the operand of an element comes from; the order is that of chain.cu."""

    NUMBER = 0
    CHANNEL = 1
    ELEMENT = 2
    SAMPLE = 3
    ROW = 4


class _StepStruct(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_int32),
        ("mode", ctypes.c_int32),
        ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("x", ctypes.c_float),
        ("y", ctypes.c_float),
    )


class _ChainStruct(ctypes.Structure):
    _fields_ = (
        ("source", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("sample", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("unused", ctypes.c_int32),
        ("step", _StepStruct * MAX_STEPS),
    )


@dataclass(frozen=True)
class ChainStep:
    """One step: constants a and b (of NUMBER arrays of one), or the name of a value that is the operand."""

    code: int
    mode: OperandMode = OperandMode.NUMBER
    a: Array | None = None
    b: Array | None = None
    value: str = ""


_UNARY = {kind.name.lower(): kind for kind in Unary}
_BINARY = {kind.name.lower(): kind for kind in Binary}
_NUMBER = np.float32


def main_input(program: Program, types: Mapping[str, TensorType], node: Node) -> str:
    """The input that becomes v: the one with the shape of the output."""
    shape = types[node.output].shape
    fits = [name for name in node.inputs if name not in program.constants and types[name].shape == shape]
    return fits[0]


def step_of(program: Program, types: Mapping[str, TensorType], node: Node, main: str) -> ChainStep | None:
    """What a node does with its input `main`; None where converting it to float32 is all."""
    constants = [program.constants[name].array for name in node.inputs if name in program.constants]
    if node.facts.float_form.kind in (FloatKind.SAME, FloatKind.SIGN):
        return None
    if node.op == "scale_pixels":  # (2x − 255)/256: every step of it is exact
        return ChainStep(FMA_CODE, a=np.array([2 / 256], _NUMBER), b=np.array([-255 / 256], _NUMBER))
    if node.op in _UNARY:
        parameters = rounded_attributes(node)
        first, second = (parameters[i : i + 1] if i < parameters.size else None for i in range(2))
        return ChainStep(unary_code(_UNARY[node.op]), a=first, b=second)
    if node.op == "affine":
        return ChainStep(FMA_CODE, OperandMode.CHANNEL, constants[0], constants[1])
    code = binary_code(_BINARY[node.op], v_first=node.inputs[0] == main)
    if constants:
        return _with_constant(code, constants[0], types[node.output])
    other = node.inputs[1] if node.inputs[0] == main else node.inputs[0]
    same = types[other].shape == types[node.output].shape
    return ChainStep(code, OperandMode.ELEMENT if same else OperandMode.ROW, value=other)


def _with_constant(code: int, constant: Array, type_: TensorType) -> ChainStep:
    """A broadcast constant: one number, one a channel, or one an element of a sample."""
    if constant.size == 1:
        return ChainStep(code, OperandMode.NUMBER, constant.reshape(1))
    if constant.shape[-1] == constant.size == type_.channels:
        return ChainStep(code, OperandMode.CHANNEL, constant.reshape(-1))
    return ChainStep(code, OperandMode.SAMPLE, np.broadcast_to(constant, type_.shape))


class ElementwiseChain:
    """A chain ready to run: `inputs` are the source and then the values that steps name, in order.

    It makes float32, bits by their signs, or both, in this order.
    """

    def __init__(
        self,
        device: Device,
        source: DType,
        steps: Sequence[ChainStep],
        shape: tuple[int, ...],
        floats: bool,
        bits: bool,
    ) -> None:
        self._device = device
        form = BufferForm.of(TensorType(DType.F32, shape))
        self._width = 4 if form.channels % 4 == 0 else 1
        self._goal = _BOTH if floats and bits else _BITS if bits else _FLOATS
        self._constants: list[torch.Tensor] = []  # kept alive: the structure holds their addresses
        self._values = [index for index, step in enumerate(steps) if step.value]
        self._chain = _ChainStruct(SOURCES[source], 0, form.channels, form.rows * form.channels, len(steps))
        for index, step in enumerate(steps):
            into = self._chain.step[index]
            into.code, into.mode = step.code, step.mode
            if step.mode is OperandMode.NUMBER:
                into.x = float(step.a[0]) if step.a is not None else 0.0
                into.y = float(step.b[0]) if step.b is not None else 0.0
            else:
                into.a, into.b = (self._address(array) for array in (step.a, step.b))

    def _address(self, array: Array | None) -> int | None:
        if array is None:
            return None
        self._constants.append(put(array, self._device))
        return self._constants[-1].data_ptr()

    @property
    def nbytes(self) -> int:
        """Bytes of the constants."""
        return sum(tensor.nbytes for tensor in self._constants)

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        """Run on the current stream."""
        chain = _ChainStruct.from_buffer_copy(self._chain)  # concurrent runs share self
        first = outs[0]
        chain.rows = first.rows if isinstance(first, Bits) else first.numel() // chain.channels
        for index, value in zip(self._values, inputs[1:], strict=True):
            chain.step[index].a = tensor_of(value).data_ptr()
        targets: list[torch.Tensor | None] = [tensor_of(out) for out in outs]
        if self._goal == _BITS:
            targets.insert(0, None)
        entry = _CHAINS[self._goal, self._width]
        lanes = chain.channels if self._goal == _FLOATS else -(-chain.channels // 32) * 32
        pieces = chain.rows * lanes // self._width
        launch_over(self._device, entry, pieces, tensor_of(inputs[0]), *targets, chain)


class ThresholdOp:
    """The op `threshold` where no product does it: int32 → bits."""

    def __init__(self, device: Device, thresholds: Array, flip: Array) -> None:
        self._device = device
        self._thresholds, self._flip = put(thresholds, device), put(flip, device)

    @property
    def nbytes(self) -> int:
        """Bytes of the constants."""
        return self._thresholds.nbytes + self._flip.nbytes

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        """Run on the current stream."""
        (out,) = outs
        assert isinstance(out, Bits)
        pieces = out.data.numel() * 8
        launch_over(
            self._device,
            _THRESHOLD,
            pieces,
            tensor_of(inputs[0]),
            self._thresholds,
            self._flip,
            out.data,
            out.rows,
            out.count,
        )


def unpack(device: Device, bits: Bits, out: torch.Tensor) -> None:
    """Bits → int8 of −1 and +1, as many."""
    launch_over(device, _UNPACK, out.numel(), bits.data, out, bits.rows, bits.count)


def pack(device: Device, signs: torch.Tensor, out: Bits, wrong: torch.Tensor) -> None:
    """int8 of −1 and +1 → bits; anything else among them makes `wrong` (int32 [1]) not 0."""
    launch_over(device, _PACK, out.data.numel() * 8, signs, out.data, wrong, out.rows, out.count)


def find_nan(device: Device, x: torch.Tensor, wrong: torch.Tensor) -> None:
    """Make `wrong` (int32 [1]) not 0 if x (float32) holds a NaN."""
    launch_over(device, _FIND_NAN, x.numel(), x, wrong, ctypes.c_uint64(x.numel()))
