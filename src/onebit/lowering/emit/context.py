"""What a lowering rule works with, and the table of rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch

from onebit.errors import Problem
from onebit.lowering.capture.captured import Captured, TorchCall
from onebit.lowering.emit.program_builder import ProgramBuilder
from onebit.lowering.values.image_layout import ImageLayout
from onebit.lowering.values.kinds import Floats, Known, Padded, Signs, Sums, Value, Varying, moved
from onebit.program import OPS, ProgramError
from onebit.program.tensors import Array

Rule = Callable[..., Value | Padded]
RULES: dict[str, Rule] = {}
TAKES_PADDING: set[str] = set()  # those whose operand may be Padded
_R = TypeVar("_R", bound=Rule)
_V = TypeVar("_V", bound=Varying)


def lowers(*ops: str, padded: bool = False) -> Callable[[_R], _R]:
    """Register a rule for these PyTorch operations; `padded` if it takes Padded operands too.

    A name that is taken raises RuntimeError.
    """

    def add(rule: _R) -> _R:
        for op in ops:
            if op in RULES:
                raise RuntimeError(f"two lowering rules for {op!r}")
            RULES[op] = rule
        if padded:
            TAKES_PADDING.update(ops)
        return rule

    return add


class Refused(Exception):
    """Raised by `Context.refuse`, caught where lowering walks the calls."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Context:
    """What a rule works with: the Program under construction and the call being lowered."""

    def __init__(self, captured: Captured) -> None:
        self.builder = ProgramBuilder()
        self.captured = captured
        self.call: TorchCall | None = None
        self._layouts: dict[str, ImageLayout] = {}  # of the values that are not plain
        self._numbers: dict[tuple[str, str, bytes], str] = {}

    def refuse(self, why: str, fix: str) -> NoReturn:
        """Stop lowering this call; `why` and `fix` complete the error that names its layer and line."""
        if self.call is None:
            raise Refused(Problem("", self.captured.kind, "its outputs", why, fix))
        origin = self.call.origin
        place = f"{self.call.op} in {origin.source}" if origin.source else self.call.op
        raise Refused(Problem(origin.layer, origin.kind, place, why, fix))

    def node(self, op: str, *inputs: str, layout: ImageLayout | None = None, **attrs: Any) -> str:
        """Append a node that belongs to the layer of the current call.

        layout: how its output lies; the output of an elementwise op lies as its widest operand.
        """
        if OPS[op].is_elementwise:
            layouts = [self._layouts[name] for name in inputs if name in self._layouts]
            layout = max(layouts, key=lambda one: one.channels, default=None)
        layer = self.call.origin.layer if self.call is not None else ""
        try:
            name = self.builder.node(op, *inputs, layer=layer, attrs=attrs, tag=layout)
        except ProgramError as error:
            self.refuse(
                f"the operation {op} of a Program does not fit ({error})", "change the shapes or sizes"
            )
        if layout is not None:
            self._layouts[name] = layout
        return name

    def image_node(self, op: str, *inputs: str, axes: int, **attrs: Any) -> str:
        """`node` for an op from image to image, [H, W, C] -> [H', W', C'], over `axes` axes in PyTorch."""
        plain = self.node(op, *inputs, **attrs)
        *sizes, channels = self.builder.type_of(plain).shape
        self._layouts[plain] = ImageLayout(channels, tuple(sizes[2 - axes :]))
        return plain

    def sample(self) -> tuple[int, ...]:
        """Shape of one sample of the call's result; refuses a result whose first axis is not the batch."""
        result = None if self.call is None else self.call.result
        if result is None or result.sample is None:
            shape = "unknown" if result is None else result.shape
            self.refuse(
                f"its result, of shape {shape}, does not keep the batch as its first axis, untouched",
                "work on each sample alone: keep axis 0, as in x.flatten(1) or x.view(x.shape[0], -1)",
            )
        return result.sample

    def layout(self, value: Value) -> ImageLayout | None:
        """How a value lies; None for a plain one."""
        return None if isinstance(value, Known) else self._layouts.get(value.name)

    def shape(self, value: Value) -> tuple[int, ...]:
        """Shape of one sample of a value, in PyTorch."""
        if isinstance(value, Known):
            return tuple(value.tensor.shape)
        layout = self._layouts.get(value.name)
        return self.builder.type_of(value.name).shape if layout is None else layout.torch_shape

    def plain(self, value: _V) -> _V:
        """The value in PyTorch's own shape and order."""
        return moved(value, self._plain)

    def image(self, value: _V) -> _V:
        """The value as an image, its channels (PyTorch's axis 1) last; refuses a value without other axes."""
        return moved(value, self._image)

    def channels_last(self, value: _V) -> tuple[_V, Callable[[Array], Array]]:
        """The value with its channels (PyTorch's axis 1) last, and what puts a vector over them in order."""
        if len(self.shape(value)) > 1:
            return self.image(value), lambda vector: vector
        layout = self.layout(value)
        return value, (lambda vector: vector) if layout is None else layout.columns

    def _plain(self, name: str) -> str:
        layout = self._layouts.get(name)
        if layout is None:
            return name
        if not layout.keeps_order:
            if layout.flat or len(layout.sizes) == 1:
                name = self.node("reshape", name, shape=(*layout.sizes, layout.channels))
            last = len(layout.sizes)
            name = self.node("permute", name, axes=(last, *range(last)))
            if self.builder.type_of(name).shape == layout.torch_shape:
                return name
        return self.node("reshape", name, shape=layout.torch_shape)

    def _image(self, name: str) -> str:
        layout = self._layouts.get(name)
        if layout is not None and not layout.flat:
            return name
        shape = self.builder.type_of(name).shape
        if len(shape) < 2:
            self.refuse(
                f"it takes images, and one sample has the shape {shape}", "keep (channels, height, width)"
            )
        layout = ImageLayout(shape[0], shape[1:])
        if layout.keeps_order:
            return self.node("reshape", name, layout=layout, shape=layout.program_shape)
        axes = (*range(1, len(shape)), 0)
        if len(shape) > 2:
            return self.node("permute", name, layout=layout, axes=axes)
        return self.node(
            "reshape", self.node("permute", name, axes=axes), layout=layout, shape=layout.program_shape
        )

    def floats(self, value: Value) -> str:
        """The f32 value of the Program that holds what PyTorch sees."""
        if isinstance(value, Floats):
            return value.name
        if isinstance(value, Sums):
            x = self.node("to_float", value.name)
            return x if value.unit == 1 else self.node("mul", x, self._number(value.unit, "unit"))
        if isinstance(value, Signs):
            return self._signs_as_floats(value)
        if isinstance(value, Known):
            self.refuse("it takes a constant where a Program needs a value", "compute it from the input")
        if value.floats is None:
            self.refuse(
                "it computes with bytes (torch.uint8)",
                "put onebit.nn.ScalePixels() first, or convert with x.float()",
            )
        return value.floats

    def _number(self, number: float, hint: str) -> str:
        """A constant of one number; a layer has one of each, so that equal nodes are found equal."""
        layer = self.call.origin.layer if self.call is not None else ""
        key = (layer, hint, np.float32(number).tobytes())
        if key not in self._numbers:
            self._numbers[key] = self.builder.floats(np.array([number]), hint)
        return self._numbers[key]

    def _signs_as_floats(self, value: Signs) -> str:
        if value.pair.dtype is not torch.float32:
            self.refuse(f"it computes with {value.pair.dtype} values", "cast them with .float() first")
        x = self.node("to_float", value.name)
        low, high = (np.float32(v) for v in value.pair.tolist())
        if not (np.isfinite(low) and np.isfinite(high)):
            self.refuse(f"a comparison that chooses between {low} and {high}", "use finite numbers")
        half, middle = (high - low) / np.float32(2), (high + low) / np.float32(2)
        if middle - half != low or middle + half != high:
            # high·relu(x) + low·relu(−x): one of the two products is 0, so nothing rounds.
            above = self.node("mul", self.node("relu", x), self._number(float(high), "high"))
            minus = self.node("mul", x, self._number(-1.0, "minus"))
            below = self.node("mul", self.node("relu", minus), self._number(float(low), "low"))
            return self.node("add", above, below)
        if half != 1:
            x = self.node("mul", x, self._number(float(half), "half"))
        if middle != 0:
            x = self.node("add", x, self._number(float(middle), "middle"))
        return x

    def constant(self, known: Known, sample: tuple[int, ...], layout: ImageLayout | None = None) -> str:
        """A float32 constant that broadcasts to `sample`, without the batch axis; it lies as `layout`."""
        array = known.tensor.detach().to(torch.float32).numpy()
        if array.ndim == len(sample) + 1 and array.shape[0] == 1:
            array = array[0]
        try:
            fits = np.broadcast_shapes(array.shape, sample) == sample
        except ValueError:
            fits = False
        if not fits:
            self.refuse(
                f"a constant of shape {tuple(known.tensor.shape)} does not broadcast to one sample, {sample}",
                "give the constant the shape of one sample or of its channels",
            )
        if not np.isfinite(array).all():
            name = f" '{known.hint}'" if known.hint else ""
            self.refuse(
                f"the constant{name} holds NaN or infinity (or a number beyond float32)",
                "train again or repair the stored values; a NaN has no sign",
            )
        array = array if layout is None else layout.constant(array)
        if array.size == 1 and not known.hint:
            return self._number(float(array.reshape(())), "")
        return self.builder.floats(np.atleast_1d(array), known.hint)
