"""A Program's nodes as float ops, one by one, with images as [C, H, W] throughout."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from onebit.export.channels_first import IMAGE, ChannelsFirst, Placed, Shape
from onebit.export.float_ops import FloatNetwork, FloatOp, NotComparable
from onebit.program import OPS, Node, Program
from onebit.program.ops import FloatKind
from onebit.program.tensors import Array


def translate(program: Program) -> FloatNetwork:
    """The float network, nothing folded. NotComparable for an op that is not known here."""
    translator = _Translator(program)
    for node in program.nodes:
        if node.op not in OPS:
            raise NotComparable(f"op {node.op!r} (layer {node.layer!r}) has no float32 peer here")
        _RULES[OPS[node.op].float_form.kind](translator, node)
    translator.finish()
    return FloatNetwork(program.inputs, program.outputs, tuple(translator.ops), translator.shapes)


class _Translator(ChannelsFirst):
    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.ops: list[FloatOp] = []
        self.shapes: dict[str, Shape] = {}
        for name in program.inputs:
            self.shapes[name] = program.values[name].shape
            self.placed[name] = Placed(name, tuple(range(len(self.shapes[name]))))

    def write_reshape(self, source: str, target: str, shape: Shape) -> str:
        return self.emit("reshape", (source,), target, shape, attrs={"shape": shape})

    def write_transpose(self, source: str, target: str, shape: Shape, order: tuple[int, ...]) -> str:
        return self.emit("transpose", (source,), target, shape, attrs={"axes": order})

    def write_take(self, source: str, target: str, shape: Shape, index: npt.NDArray[np.intp]) -> str:
        return self.emit("take", (source,), target, shape, arrays={"index": index})

    def emit(self, kind: str, inputs: tuple[str, ...], name: str, shape: Shape, **fields: Any) -> str:
        """Append an op; `arrays`, `attrs` and `form` in fields. Returns the name of its value."""
        self.ops.append(FloatOp(kind, inputs, name, **fields))
        self.shapes[name] = shape
        return name

    def place(self, node: Node, kind: str, inputs: tuple[str, ...], like: Placed, **fields: Any) -> None:
        """Append the op of `node`, whose value has the axes (and the order) of `like`."""
        shape = tuple(self.shape(node.output)[axis] for axis in like.axes)
        name = self.emit(kind, inputs, self.fresh(node.output), shape, **fields)
        self.placed[node.output] = Placed(name, like.axes, like.index)

    def finish(self) -> None:
        """Give each output its own name and the Program's axes; `fold` removes what that does not need."""
        for name in dict.fromkeys(self.program.outputs):
            if name in self.program.inputs:
                continue
            placed, shape = self.in_order(name), self.shape(name)
            self.emit("reshape", (placed.name,), name, shape, attrs={"shape": shape})

    def affine(self, node: Node, scale: Array, shift: Array) -> None:
        """x·scale + shift, one number of each a channel."""
        like = self.placed[node.inputs[0]]
        scale, shift = self.per_channel(like, scale.astype(np.float32), shift.astype(np.float32))
        arrays, attrs = {"scale": scale, "shift": shift}, {"axis": self.channel_axis(like)}
        self.place(node, "affine", (like.name,), like, arrays=arrays, attrs=attrs)


def _linear(t: _Translator, node: Node) -> None:
    placed = t.placed[node.inputs[0]]
    if placed.index is None:
        placed = t.in_order(node.inputs[0])
    weight = t.constant(node.inputs[1])
    arrays = {}
    if node.op == "u8_gemm":
        multiplier, offset = _number(node, "multiplier"), _number(node, "offset")
        arrays["bias"] = (weight.sum(axis=1) * offset).astype(np.float32)
        weight = (weight * multiplier).astype(np.float32)
    arrays["weight"] = weight if placed.index is None else np.ascontiguousarray(weight[:, placed.index])
    t.place(node, "linear", (placed.name,), Placed("", placed.axes), arrays=arrays)


def _conv(t: _Translator, node: Node) -> None:
    placed = t.to(node.inputs[0], IMAGE)
    weight = np.ascontiguousarray(t.constant(node.inputs[1]).transpose(0, 3, 1, 2))
    attrs = {key: node.attrs[key] for key in ("stride", "padding", "dilation", "groups")}
    attrs["padding_value"] = node.attrs.get("padding_value", 0)
    source = placed.name
    if node.op == "u8_conv2d":  # bytes as the multiplier and the offset make them; nothing outside the image
        channels = t.shape(node.inputs[0])[2]
        scale, shift = (np.full(channels, _number(node, key), np.float32) for key in ("multiplier", "offset"))
        arrays = {"scale": scale, "shift": shift}
        pixels, shape = f"{node.output}.pixels", t.shapes[source]
        source = t.emit("affine", (source,), pixels, shape, arrays=arrays, attrs={"axis": 0})
    t.place(node, "conv", (source,), placed, arrays={"weight": weight}, attrs=attrs)


def _threshold(t: _Translator, node: Node) -> None:
    """(x >= t) xor flip is the sign of ±(2(x − t) + 1): for an integer x an odd number."""
    thresholds = t.constant(node.inputs[1]).astype(np.float64)
    direction = -t.constant(node.inputs[2]).astype(np.float64)  # flip bit 1 inverts
    doubled = 2 * np.clip(thresholds, -(2.0**24), 2.0**24) - 1
    level = Node("affine", node.inputs[:1], f"{node.output}.level")
    like = t.placed[node.inputs[0]]
    arrays = dict(
        zip(("scale", "shift"), t.per_channel(like, 2 * direction, -doubled * direction), strict=True)
    )
    arrays = {key: array.astype(np.float32) for key, array in arrays.items()}
    shape, attrs = t.shapes[like.name], {"axis": t.channel_axis(like)}
    name = t.emit("affine", (like.name,), level.output, shape, arrays=arrays, attrs=attrs)
    t.place(node, "signum", (name,), like)


def _affine(t: _Translator, node: Node) -> None:
    t.affine(node, *(t.constant(name) for name in node.inputs[1:]))


def _scale_pixels(t: _Translator, node: Node) -> None:
    channels = t.shape(node.output)[-1]
    t.affine(node, np.full(channels, 2 / 256), np.full(channels, -255 / 256))


def _binary(t: _Translator, node: Node) -> None:
    op = OPS[node.op]
    constants = tuple(t.constant(name) if name in t.program.constants else None for name in node.inputs)
    other = next((array for array in constants if array is not None), None)
    if other is None:
        placed = t.same_axes(node.inputs)
        t.place(node, "binary", tuple(p.name for p in placed), placed[0], form=op.float_form)
        return
    swapped = constants[0] is not None
    value = node.inputs[1 if swapped else 0]
    moved = op.scale_shift(constants)
    if moved is not None and prod(other.shape[:-1]) == 1 and t.shape(value):
        channels = t.shape(value)[-1]
        scale, shift = (
            np.full(channels, plain) if array is None else np.broadcast_to(array.reshape(-1), (channels,))
            for array, plain in ((moved.scale, 1.0), (moved.shift, 0.0))
        )
        t.affine(Node("affine", (value,), node.output), scale, shift)
        return
    placed_value = t.in_order(value)
    fields = {"arrays": {"other": other.astype(np.float32)}, "attrs": {"swapped": swapped}}
    t.place(node, "binary", (placed_value.name,), placed_value, form=op.float_form, **fields)


def _sign(t: _Translator, node: Node) -> None:
    like = t.placed[node.inputs[0]]
    t.place(node, "sign", (like.name,), like)


def _function(t: _Translator, node: Node) -> None:
    like, op = t.placed[node.inputs[0]], OPS[node.op]
    attrs = {name: node.attrs[name] for name in op.attrs}
    t.place(node, "function", (like.name,), like, attrs=attrs, form=op.float_form)


def _prelu(t: _Translator, node: Node) -> None:
    like = t.placed[node.inputs[0]]
    slope = np.broadcast_to(t.constant(node.inputs[1]), t.shape(node.output)[-1:])
    arrays = {"slope": np.ascontiguousarray(*t.per_channel(like, slope))}
    t.place(node, "prelu", (like.name,), like, arrays=arrays, attrs={"axis": t.channel_axis(like)})


def _pool(t: _Translator, node: Node) -> None:
    placed = t.to(node.inputs[0], IMAGE)
    t.place(node, OPS[node.op].float_form.kind.value, (placed.name,), placed, attrs=dict(node.attrs))


def _mean(t: _Translator, node: Node) -> None:
    placed = t.placed[node.inputs[0]]
    attrs = {"axis": t.channel_axis(placed)}
    t.place(node, "mean", (placed.name,), Placed("", placed.axes), attrs=attrs)


def _concat(t: _Translator, node: Node) -> None:
    placed = t.same_axes(node.inputs)
    like = Placed("", placed[0].axes)
    names = tuple(p.name for p in placed)
    t.place(node, "concat", names, like, attrs={"axis": t.channel_axis(like)})


def _same(t: _Translator, node: Node) -> None:
    t.placed[node.output] = t.placed[node.inputs[0]]


_RULES: dict[FloatKind, Callable[[_Translator, Node], None]] = {
    FloatKind.LINEAR: _linear,
    FloatKind.CONV: _conv,
    FloatKind.MAX_POOL: _pool,
    FloatKind.AVG_POOL: _pool,
    FloatKind.MEAN: _mean,
    FloatKind.SIGN: _sign,
    FloatKind.LEVEL: _threshold,
    FloatKind.SCALE_SHIFT: _affine,
    FloatKind.SCALE_PIXELS: _scale_pixels,
    FloatKind.SAME: _same,
    FloatKind.BINARY: _binary,
    FloatKind.FUNCTION: _function,
    FloatKind.PRELU: _prelu,
    FloatKind.CONCAT: _concat,
    FloatKind.TRANSPOSE: ChannelsFirst.permute,
    FloatKind.RESHAPE: ChannelsFirst.reshape,
}


def _number(node: Node, name: str) -> float:
    value = node.attrs[name]
    if not isinstance(value, int | float):
        raise NotComparable(f"{node.op}: attribute {name}={value!r} is no number")
    return value
