"""Matrix products and convolutions, with what follows them, as ONNX nodes.

A product whose sum meets a threshold becomes a product and a clamp. With weights ±2 the product plus the bias
1 − 2t is 2·(sum − t) + 1, an odd number, which clamped to [−1, 1] is +1 where sum >= t, else −1. A channel
with flip has its weights negated: sum < t where −sum >= 1 − t. Every partial sum is an integer that float32
holds, in any order, so the bits are exact, and runtimes fuse a clamp into the product before it.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from onebit.errors import ExportError
from onebit.export.channels_first import IMAGE, Placed
from onebit.export.onnx.elementwise import write_threshold
from onebit.export.onnx.writer import EXACT_INTEGERS, Held, Writer, pads_of
from onebit.program import OPS, DType, Node, unpack_bits
from onebit.program.fusion import Step
from onebit.program.ops import Call
from onebit.program.tensors import Array


class _ProductNode:
    """One product: its operand and weights in place, and the nodes that multiply them."""

    def __init__(self, w: Writer, node: Node) -> None:
        self.w = w
        self.node = node
        self.image = len(w.program.type_of(node.inputs[1]).shape) == 4
        weights = w.constant(node.inputs[1])
        if self.image:
            self.x = w.to(node.inputs[0], IMAGE)
            self.weights = weights.transpose(0, 3, 1, 2)  # [N, C/groups, KH, KW]
            self.like = Placed("", IMAGE)
        else:
            placed = w.placed[node.inputs[0]]
            self.x = placed if placed.index is not None else w.in_order(node.inputs[0])
            self.weights = weights if self.x.index is None else weights[:, self.x.index]
            self.like = Placed("", self.x.axes)
        self.k = int(np.prod(weights.shape[1:]))
        types = tuple(w.program.type_of(name) for name in node.inputs)
        self.bits, self.bytes = types[1].dtype is DType.BITS, types[0].dtype is DType.U8
        self.call = Call(types, (False, True), node.attrs)

    def largest_sum(self) -> int:
        """The largest magnitude of an integer sum."""
        facts = OPS[self.node.op].product
        assert facts is not None
        assert facts.sums is not None
        return max(map(abs, facts.sums(self.call)))

    def operand(self) -> str:
        """x with its padding where that is not zero."""
        value = self.node.attrs.get("padding_value", 0)
        pads = pads_of(self.node.attrs["padding"]) if self.image else []
        if not value or not any(pads):
            return self.x.name
        amounts = self.w.b.constant(np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64))
        outside = self.w.b.constant(np.float32(cast(int, value)))
        return self.w.b.node("Pad", [self.x.name, amounts, outside], mode="constant")

    def weight_name(self, signs: Array | None = None) -> str:
        """The weights as a float constant; with `signs` ±2, each row times its sign."""
        laid = self.weights if self.image else self.weights.T
        if signs is not None:
            laid = laid * (signs.reshape(-1, 1, 1, 1) if self.image else signs)
        if self.bits:
            return self.w.b.signs(laid, doubled=signs is not None)
        return self.w.b.constant(np.ascontiguousarray(laid))

    def multiply(self, x: str, weights: str, bias: Array | None = None) -> str:
        """x · weights + bias."""
        b = self.w.b
        term = [] if bias is None else [b.constant(bias.astype(np.float32))]
        if self.image:
            attrs = self.node.attrs
            padded = attrs.get("padding_value", 0) != 0
            return b.node(
                "Conv",
                [x, weights, *term],
                kernel_shape=list(self.weights.shape[2:]),
                strides=list(cast(tuple[int, ...], attrs["stride"])),
                dilations=list(cast(tuple[int, ...], attrs["dilation"])),
                group=attrs["groups"],
                pads=[0, 0, 0, 0] if padded else pads_of(attrs["padding"]),
            )
        if term and len(self.x.axes) == 1:
            return b.node("Gemm", [x, weights, *term])
        product = b.node("MatMul", [x, weights])
        return b.node("Add", [product, *term]) if term else product


def write_product(w: Writer, step: Step, node: Node) -> None:
    """A product with its epilogue."""
    product = _ProductNode(w, node)
    if OPS[node.op].is_integer_product:
        _integers(w, step, product)
        return
    made = product.multiply(product.operand(), product.weight_name())
    _epilogue(w, step, product, made, Held(exact=False, sum=True))


def _integers(w: Writer, step: Step, product: _ProductNode) -> None:
    node = product.node
    bound, exact = product.largest_sum(), w.held[node.inputs[0]].exact
    if bound > EXACT_INTEGERS:
        if not product.bytes:
            raise _too_long(node, product.k)
        _epilogue(w, step, product, _by_digits(w, product), Held(bound, exact, int32=True))
        return
    x = product.operand()
    if product.bytes:
        multiplier, offset = (cast(int, node.attrs[key]) for key in ("multiplier", "offset"))
        if multiplier != 1:
            x = w.b.node("Mul", [x, w.b.constant(np.float32(multiplier))])
        if offset:
            x = w.b.node("Add", [x, w.b.constant(np.float32(offset))])
    if step.epilogue == "bits" and 4 * bound + 3 <= EXACT_INTEGERS:
        _signs_of_sums(w, step, product, x, bound)
        return
    made = product.multiply(x, product.weight_name())
    _epilogue(w, step, product, made, Held(bound, exact, sum=True))


def _signs_of_sums(w: Writer, step: Step, product: _ProductNode, x: str, bound: int) -> None:
    assert step.threshold is not None
    assert step.flip is not None
    flip = unpack_bits(step.flip, len(step.threshold))
    threshold = np.clip(step.threshold.astype(np.int64), -bound, bound + 1)
    threshold = np.where(flip, 1 - threshold, threshold)
    weights = product.weight_name(np.where(flip, np.float32(-1), np.float32(1)))
    level = product.multiply(x, weights, (1 - 2 * threshold))
    ends = [w.b.constant(np.float32(end)) for end in (-1, 1)]
    made = w.b.node("Clip", [level, *ends], w.fresh(step.output))
    w.place(step.output, made, product.like, Held(1, w.held[product.node.inputs[0]].exact))


def _by_digits(w: Writer, product: _ProductNode) -> str:
    """multiplier·Σ w·x + offset·Σ w in int32, of bytes whose sum float32 cannot hold.

    x is taken apart into digits so small that the sum of each is exact in float32. multiplier·2^shift times
    such a sum stays within K·255·|multiplier|, which with K·|offset| is what the verifier allows.
    """
    b, node, k = w.b, product.node, product.k
    width = (EXACT_INTEGERS // k + 1).bit_length() - 1  # of a digit: k·(2^width − 1) <= 2^24
    if width < 1:
        raise _too_long(node, k)
    width = min(width, 8)
    weights = product.weight_name()
    multiplier, offset = (cast(int, node.attrs[key]) for key in ("multiplier", "offset"))
    total, rest = "", product.operand()
    for shift in range(0, 8, width):
        digit = rest
        if shift + width < 8:
            size = b.constant(np.float32(2**width))
            above = b.node("Floor", [b.node("Div", [rest, size])])
            digit = b.node("Sub", [rest, b.node("Mul", [above, size])])
            rest = above
        part = b.cast(product.multiply(digit, weights), "INT32")
        part = b.node("Mul", [part, b.constant(np.int32(multiplier * 2**shift))])
        total = b.node("Add", [total, part]) if total else part
    if offset:  # Σ w over the taps inside the image: the product with an image of ones
        ones = np.array([1, *(w.shape(node.inputs[0])[axis] for axis in product.x.axes)], np.int64)
        value = b.onnx.numpy_helper.from_array(np.array([1], np.float32))
        image = b.node("ConstantOfShape", [b.constant(ones)], value=value)
        inside = b.cast(product.multiply(image, weights), "INT32")
        total = b.node("Add", [total, b.node("Mul", [inside, b.constant(np.int32(offset))])])
    return total


def _too_long(node: Node, k: int) -> ExportError:
    return ExportError(
        f"layer {node.layer!r}: {node.op} sums {k} products; ONNX multiplies in float32, which is exact "
        f"up to {EXACT_INTEGERS} only"
    )


def _epilogue(w: Writer, step: Step, product: _ProductNode, made: str, held: Held) -> None:
    """What follows the product's sum `made`."""
    first = product.node.output
    w.place(first, made, product.like, held)
    if step.epilogue == "bits":
        assert step.threshold is not None
        assert step.flip is not None
        write_threshold(w, first, step.threshold, step.flip, step.output)
    elif step.epilogue == "f32":
        assert step.scale is not None
        assert step.bias is not None
        made, held = w.fma(first, w.placed[first], step.scale, step.bias)
        w.place(step.output, made, product.like, held)
