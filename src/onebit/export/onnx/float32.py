"""The float network as an ONNX model in float32: what ONNX Runtime would run without this engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from onebit.export.float_ops import FloatNetwork, FloatOp, NotComparable, spread
from onebit.export.onnx.writer import pads_of
from onebit.program.tensors import Array

_OPSET = 17
_IR_VERSION = 8
_BIG = np.float32(2.0**64)  # any |x| >= 2^-63 times this leaves [−1, 1] also when 1 is added

Written = tuple[str, list[str], str, dict[str, Any]]
Nodes = Iterator[Written]


def onnx_bytes(network: FloatNetwork) -> bytes:
    """The float network as an ONNX model; the batch is symbolic."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    weights: list[Any] = []

    def constant(name: str, array: Array) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    for op in network.ops:
        for kind, names, output, attrs in _FloatWriter(network, op, constant).nodes():
            nodes.append(helper.make_node(kind, names, [output], **attrs))

    def infos(names: tuple[str, ...]) -> list[Any]:
        make = helper.make_tensor_value_info
        return [make(name, TensorProto.FLOAT, ["batch", *network.shapes[name]]) for name in names]

    outputs = tuple(name for name in dict.fromkeys(network.outputs) if name not in network.inputs)
    graph = helper.make_graph(nodes, "float32 peer", infos(network.inputs), infos(outputs), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized


class _FloatWriter:
    """The ONNX nodes of one op."""

    def __init__(self, network: FloatNetwork, op: FloatOp, constant: Callable[[str, Array], str]) -> None:
        self.network = network
        self.op = op
        self.out = op.output
        self._constant = constant

    def nodes(self) -> Nodes:
        """(ONNX op, inputs, output, attributes) of each node; NotComparable for a kind unknown here."""
        write = getattr(self, f"_{self.op.kind}", None)
        if write is None:
            raise NotComparable(f"op {self.op.kind!r} has no ONNX form here")
        yield from write()

    def constant(self, name: str, array: Array | np.float32) -> str:
        """An initializer that belongs to this op."""
        return self._constant(f"{self.out}/{name}", np.asarray(array))

    def _plain(self, kind: str, **attrs: Any) -> Nodes:
        yield kind, list(self.op.inputs), self.out, attrs

    def _linear(self) -> Nodes:
        weight = self.constant("weight", self.op.arrays["weight"].T)
        bias = self.op.arrays.get("bias")
        source = self.op.inputs[0]
        if len(self.network.shapes[source]) == 1 and bias is not None:
            yield "Gemm", [source, weight, self.constant("bias", bias)], self.out, {}
        elif bias is not None:
            yield "MatMul", [source, weight], f"{self.out}/product", {}
            yield "Add", [f"{self.out}/product", self.constant("bias", bias)], self.out, {}
        else:
            yield "MatMul", [source, weight], self.out, {}

    def _conv(self) -> Nodes:
        attrs, weight = self.op.attrs, self.op.arrays["weight"]
        names = [self.op.inputs[0], self.constant("weight", weight)]
        if "bias" in self.op.arrays:
            names.append(self.constant("bias", self.op.arrays["bias"]))
        pads = pads_of(attrs["padding"])
        if attrs["padding_value"] and any(pads):
            yield self._pad(names[0], pads, attrs["padding_value"])
            names[0], pads = f"{self.out}/padded", [0, 0, 0, 0]
        yield (
            "Conv",
            names,
            self.out,
            {
                "kernel_shape": list(weight.shape[2:]),
                "strides": list(attrs["stride"]),
                "dilations": list(attrs["dilation"]),
                "group": attrs["groups"],
                "pads": pads,
            },
        )

    def _affine(self) -> Nodes:
        scale, shift = self.op.arrays["scale"], self.op.arrays["shift"]
        source = self.op.inputs[0]
        if self.op.attrs["axis"] == 0 and len(self.network.shapes[source]) == 3:
            zeros, ones = np.zeros_like(scale), np.ones_like(scale)
            names = {"scale": scale, "shift": shift, "mean": zeros, "variance": ones}
            constants = [self.constant(name, array) for name, array in names.items()]
            yield "BatchNormalization", [source, *constants], self.out, {"epsilon": 0.0}
            return
        scale, shift = (spread(array, self.op, self.network.shapes) for array in (scale, shift))
        yield "Mul", [source, self.constant("scale", scale)], f"{self.out}/scaled", {}
        yield "Add", [f"{self.out}/scaled", self.constant("shift", shift)], self.out, {}

    def _clip(self, source: str, low: float, high: float) -> Nodes:
        bounds = [self.constant("min", np.float32(low)), self.constant("max", np.float32(high))]
        yield "Clip", [source, *bounds], self.out, {}

    def _signum(self) -> Nodes:
        yield from self._clip(self.op.inputs[0], -1, 1)

    def _sign(self) -> Nodes:
        yield "Mul", [self.op.inputs[0], self.constant("big", _BIG)], f"{self.out}/large", {}
        yield "Add", [f"{self.out}/large", self.constant("one", np.float32(1))], f"{self.out}/moved", {}
        yield from self._clip(f"{self.out}/moved", -1, 1)

    def _function(self) -> Nodes:
        assert self.op.form is not None
        others = [self.constant(name, np.float32(value)) for name, value in self.op.attrs.items()]
        yield self.op.form.onnx, [self.op.inputs[0], *others], self.out, {}

    def _prelu(self) -> Nodes:
        slope = spread(self.op.arrays["slope"], self.op, self.network.shapes)
        yield "PRelu", [self.op.inputs[0], self.constant("slope", slope)], self.out, {}

    def _max_pool(self) -> Nodes:
        attrs, source = self.op.attrs, self.op.inputs[0]
        pads, kernel = pads_of(attrs["padding"]), list(attrs["kernel"])
        if any(pad >= size for pad, size in zip(pads, kernel * 2, strict=True)):  # ONNX Runtime refuses those
            yield self._pad(source, pads, -np.inf)
            source, pads = f"{self.out}/padded", [0, 0, 0, 0]
        strides, dilations = list(attrs["stride"]), list(attrs["dilation"])
        window = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
        yield "MaxPool", [source], self.out, window

    def _pad(self, source: str, pads: list[int], outside: float) -> Written:
        amounts = self.constant("pads", np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64))
        value = self.constant("outside", np.float32(outside))
        return "Pad", [source, amounts, value], f"{self.out}/padded", {"mode": "constant"}

    def _avg_pool(self) -> Nodes:
        attrs = self.op.attrs
        image = self.network.shapes[self.op.inputs[0]][1:]
        if tuple(attrs["kernel"]) == image and not any(attrs["padding"]):
            yield from self._plain("GlobalAveragePool")
            return
        yield from self._plain(
            "AveragePool",
            kernel_shape=list(attrs["kernel"]),
            strides=list(attrs["stride"]),
            pads=pads_of(attrs["padding"]),
            count_include_pad=attrs["count_include_pad"],
        )

    def _mean(self) -> Nodes:
        yield from self._plain("ReduceMean", axes=[self.op.attrs["axis"] + 1], keepdims=1)

    def _concat(self) -> Nodes:
        yield from self._plain("Concat", axis=self.op.attrs["axis"] + 1)

    def _transpose(self) -> Nodes:
        yield from self._plain("Transpose", perm=[0, *(axis + 1 for axis in self.op.attrs["axes"])])

    def _take(self) -> Nodes:
        index = self.constant("index", self.op.arrays["index"].astype(np.int64))
        yield "Gather", [self.op.inputs[0], index], self.out, {"axis": 1}

    def _reshape(self) -> Nodes:
        shape = self.constant("shape", np.array([0, *self.op.attrs["shape"]], np.int64))
        yield "Reshape", [self.op.inputs[0], shape], self.out, {}

    def _binary(self) -> Nodes:
        op = self.op
        assert op.form is not None
        second = self.constant("other", op.arrays["other"]) if op.arrays else op.inputs[1]
        pair = [op.inputs[0], second]
        yield op.form.onnx, pair[::-1] if op.attrs.get("swapped") else pair, self.out, {}
