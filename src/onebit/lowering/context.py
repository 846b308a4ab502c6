"""What a lowering rule works with, and the table of rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import torch

from onebit.lowering.builder import Builder
from onebit.lowering.captured import Call, Captured
from onebit.lowering.errors import Problem
from onebit.lowering.values import Floats, Known, Signs, Sums, Value
from onebit.program import ProgramError

Rule = Callable[..., Value]
RULES: dict[str, Rule] = {}


def lowers(*ops: str) -> Callable[[Rule], Rule]:
    """Register a rule for these PyTorch operations. A name that is taken raises RuntimeError."""

    def add(rule: Rule) -> Rule:
        for op in ops:
            if op in RULES:
                raise RuntimeError(f"two lowering rules for {op!r}")
            RULES[op] = rule
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
        self.builder = Builder()
        self.captured = captured
        self.call: Call | None = None

    def refuse(self, why: str, fix: str) -> NoReturn:
        """Stop lowering this call; `why` and `fix` complete the error that names its layer and line."""
        if self.call is None:
            raise Refused(Problem("", self.captured.kind, "its outputs", why, fix))
        origin = self.call.origin
        place = f"{self.call.op} in {origin.source}" if origin.source else self.call.op
        raise Refused(Problem(origin.layer, origin.kind, place, why, fix))

    def node(self, op: str, *inputs: str, **attrs: Any) -> str:
        """Append a node that belongs to the layer of the current call."""
        layer = self.call.origin.layer if self.call is not None else ""
        try:
            return self.builder.node(op, *inputs, layer=layer, attrs=attrs)
        except ProgramError as error:
            self.refuse(
                f"the operation {op} of a Program does not fit ({error})", "change the shapes or sizes"
            )

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

    def shape(self, value: Value) -> tuple[int, ...]:
        """Shape of one sample of a value."""
        if isinstance(value, Known):
            return tuple(value.tensor.shape)
        return self.builder.type_of(value.name).shape

    def floats(self, value: Value) -> str:
        """The f32 value of the Program that holds what PyTorch sees."""
        if isinstance(value, Floats):
            return value.name
        if isinstance(value, Sums):
            return self.node("to_float", value.name)
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

    def _signs_as_floats(self, value: Signs) -> str:
        if value.pair.dtype is not torch.float32:
            self.refuse(f"it computes with {value.pair.dtype} values", "cast them with .float() first")
        x = self.node("to_float", value.name)
        low, high = (np.float32(v) for v in value.pair.tolist())
        half, middle = (high - low) / np.float32(2), (high + low) / np.float32(2)
        if middle - half != low or middle + half != high:
            self.refuse(f"the values {low} and {high} of a comparison have no exact form", "use −1 and +1")
        if half != 1:
            x = self.node("mul", x, self.builder.floats(np.array([half]), "half"))
        if middle != 0:
            x = self.node("add", x, self.builder.floats(np.array([middle]), "middle"))
        return x

    def constant(self, known: Known, sample: tuple[int, ...]) -> str:
        """A float32 constant that broadcasts to `sample`, without the batch axis."""
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
                "give the constant the shape of one sample or of its last axis",
            )
        if not np.isfinite(array).all():
            name = f" '{known.hint}'" if known.hint else ""
            self.refuse(
                f"the constant{name} holds NaN or infinity (or a number beyond float32)",
                "train again or repair the stored values; a NaN has no sign",
            )
        return self.builder.floats(np.atleast_1d(array), known.hint)
