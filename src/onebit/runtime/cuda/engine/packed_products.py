"""Binary products on tensors of a device, for `onebit.ops`: the kernels of an engine, without an engine.

A product is a Program of one op and its epilogue, made into stages as for an engine, which then run on packed
words as PyTorch holds them: int32, ⌈k/32⌉ a row. On the device a row is a multiple of 16 bytes, so rows of
other sizes are copied on the way in, and bits on the way out.

A NaN becomes −1, unlike on a CPU: to look for one would wait for the device.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from onebit.errors import EngineError
from onebit.program import Constant, DType, Node, Program, TensorType, verify
from onebit.program.tensors import Array
from onebit.runtime.abi import EpilogueKind
from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.engine.stage_builder import make_stages
from onebit.runtime.cuda.kernels import pack as packing
from onebit.runtime.cuda.kernels.buffers import TORCH_DTYPES, BufferForm, DeviceValue
from onebit.runtime.cuda.kernels.pack import Bits, empty_bits, row_bytes
from onebit.runtime.products import Conv2d, Matmul, Source

_MAX_ELEMENTS = 2**31 - 1  # kernels count in int32


def pack_signs(device: Device, x: torch.Tensor) -> torch.Tensor:
    """Signs of x, (..., C) of a dtype that `packing.pack` takes → int32 (..., ⌈C/32⌉)."""
    bits = packing.pack(device, x.reshape(-1, x.shape[-1]).contiguous())
    return _words(bits, x.shape[:-1])


class DeviceProduct:
    """A binary product with its weights on a device.

    Args:
        device: where it runs.
        shape: a Matmul or a Conv2d.
        source: what x is.
        kind: what becomes of the sums.
        constants: int32 "weights" (n, …, words) as `shape` says; "scale" and "bias", float32 (n); "threshold"
            and "flip", int32 (n) and (words(n)). Any but the weights may be missing.

    Raises:
        EngineError: sizes beyond the kernels'.
    """

    def __init__(
        self,
        device: Device,
        shape: Matmul | Conv2d,
        source: Source,
        kind: EpilogueKind,
        constants: Mapping[str, torch.Tensor],
    ) -> None:
        self._device = device
        self._shape = shape
        arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in constants.items()}
        program = _program(shape, source == Source.REAL, kind, arrays)
        verify(program)
        made = make_stages(device, program)
        self._stages = [stage for stage in made.stages if stage.op != "unpack"]
        self._types = made.types
        self._counted = made.counted
        self._output = program.outputs[0]
        self._largest = max(BufferForm.of(type_).index for type_ in made.types.values())

    def __call__(self, x: torch.Tensor, batch: int) -> torch.Tensor:
        """Run on the current stream.

        Args:
            x: contiguous; packed words or float32, as `source` says.
            batch: samples.

        Returns:
            (batch, n), or (batch, height, width, n): int32, float32, or packed words.
        """
        if batch * self._largest > _MAX_ELEMENTS:
            raise EngineError(f"a batch of {batch} has more elements than kernels count; run smaller ones")
        rows, channels = self._shape.rows()
        values: dict[str, DeviceValue] = {"x": self._entered(x, batch * rows, channels)}
        for stage in self._stages:
            values.update((name, self._empty(name, batch, stage.counts)) for name in stage.outputs)
            stage.run([values[name] for name in stage.inputs], [values[name] for name in stage.outputs])
        y = values[self._output]
        if not isinstance(y, Bits):
            return y
        return _words(y, (batch, *self._types[self._output].shape[:-1]))

    def _entered(self, x: torch.Tensor, rows: int, channels: int) -> DeviceValue:
        type_ = self._types["x"]
        if type_.dtype is not DType.BITS:
            return x.reshape(-1, *type_.shape)
        if x.dtype == torch.int32:
            return _bits(x, rows, channels)
        return packing.pack(self._device, x.reshape(rows, channels))

    def _empty(self, name: str, batch: int, counts: bool) -> DeviceValue:
        type_ = self._types[name]
        if type_.dtype is DType.BITS:
            form = BufferForm.of(type_)
            sums = counts and name in self._counted
            return empty_bits(self._device, batch * form.rows, form.channels, sums=sums)
        dtype = TORCH_DTYPES[type_.dtype]
        return torch.empty((batch, *type_.shape), dtype=dtype, device=self._device.torch_device)


def _bits(words: torch.Tensor, rows: int, count: int) -> Bits:
    """Words (rows, ⌈count/32⌉) as a device's rows: the same memory where it can be."""
    matrix = words.reshape(rows, words.shape[-1])
    missing = row_bytes(count) // 4 - matrix.shape[1]
    if missing:
        matrix = F.pad(matrix, (0, missing))
    elif matrix.data_ptr() % 16:
        matrix = matrix.clone()
    return Bits(matrix.view(torch.uint8), count)


def _words(bits: Bits, lead: tuple[int, ...]) -> torch.Tensor:
    """A device's rows as words, contiguous: the same memory where it can be."""
    used = -(-bits.count // 32)
    return bits.data.view(torch.int32)[:, :used].contiguous().view(*lead, used)


def _program(shape: Matmul | Conv2d, real: bool, kind: EpilogueKind, arrays: Mapping[str, Array]) -> Program:
    """The op and its epilogue: x → sums → y."""
    x, sums = _types(shape, real)
    constants = {"weights": _weights(shape, arrays["weights"])}
    product = Node(_op(shape, real), ("x", "weights"), "sums", _attributes(shape, real))
    values, nodes, last = {"x": x, "sums": sums}, [product], "sums"
    n = sums.channels
    if kind == EpilogueKind.BITS:
        flip = arrays.get("flip", np.zeros(-(-n // 32), np.int32)).view(np.uint32)
        constants["threshold"] = Constant(TensorType(DType.I32, (n,)), arrays["threshold"])
        constants["flip"] = Constant(TensorType(DType.BITS, (n,)), flip)
        nodes.append(Node("threshold", ("sums", "threshold", "flip"), "y"))
        values["y"], last = TensorType(DType.BITS, sums.shape), "y"
    elif kind == EpilogueKind.F32:
        if not real:
            nodes.append(Node("to_float", ("sums",), "floats"))
            values["floats"], last = TensorType(DType.F32, sums.shape), "floats"
        if "scale" in arrays or "bias" in arrays:
            vector = TensorType(DType.F32, (n,))
            constants["scale"] = Constant(vector, arrays.get("scale", np.ones(n, np.float32)))
            constants["bias"] = Constant(vector, arrays.get("bias", np.full(n, -0.0, np.float32)))
            nodes.append(Node("affine", (last, "scale", "bias"), "y"))
            values["y"], last = TensorType(DType.F32, sums.shape), "y"
    return Program(("x",), (last,), tuple(nodes), constants, values)


def _types(shape: Matmul | Conv2d, real: bool) -> tuple[TensorType, TensorType]:
    """The types of x and of the sums."""
    into, out = (DType.F32, DType.F32) if real else (DType.BITS, DType.I32)
    if isinstance(shape, Matmul):
        return TensorType(into, (shape.k,)), TensorType(out, (shape.n,))
    x = TensorType(into, (*shape.size, shape.channels))
    return x, TensorType(out, (*shape.out_size(), shape.n))


def _weights(shape: Matmul | Conv2d, words: Array) -> Constant:
    if isinstance(shape, Matmul):
        type_ = TensorType(DType.BITS, (shape.n, shape.k))
    else:
        type_ = TensorType(DType.BITS, (shape.n, *shape.kernel, shape.channels // shape.groups))
    return Constant(type_, words.view(np.uint32))


def _op(shape: Matmul | Conv2d, real: bool) -> str:
    kind = "binary_gemm" if isinstance(shape, Matmul) else "binary_conv2d"
    return f"f32_{kind}" if real else kind


def _attributes(shape: Matmul | Conv2d, real: bool) -> dict[str, int | tuple[int, ...]]:
    if isinstance(shape, Matmul):
        return {}
    (top, left) = shape.padding
    attributes: dict[str, int | tuple[int, ...]] = {
        "stride": shape.stride,
        "padding": (top, top, left, left),
        "dilation": shape.dilation,
        "groups": shape.groups,
    }
    return attributes if real else {**attributes, "padding_value": shape.padding_value}
