"""Pass 3: PyTorch calls -> Program nodes, one rule for each operation.

A rule is a function `(context, call, *operands) -> Value`, registered under PyTorch's name of the operation:

    @lowers("aten.relu.default")
    def relu(context, call, x): ...

Rules stand in `rules_*.py`. A rule that cannot proceed raises through `context.refuse(why, fix)`; lowering goes
on with the calls that do not depend on it, so that one run reports every problem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
import torch

from onebit.lowering.builder import Builder
from onebit.lowering.captured import BatchSize, Call, Captured, Input, substitute
from onebit.lowering.errors import ConversionError, Problem
from onebit.lowering.refusals import advice
from onebit.lowering.values import Bytes, Floats, Known, Signs, Sums, Value
from onebit.program import DType, Program, ProgramError, TensorType

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


class _Refused(Exception):
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
        assert self.call is not None
        origin = self.call.origin
        place = f"{self.call.op} at {origin.source}" if origin.source else self.call.op
        raise _Refused(Problem(origin.layer, origin.kind, place, why, fix))

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
        """Shape of one sample of the current call's result; refuses a result whose first axis is not the batch."""
        assert self.call is not None
        result = self.call.result
        if result is None or result.sample is None:
            shape = result.shape if result is not None else "unknown"
            self.refuse(
                f"its result, of shape {shape}, does not keep the batch as its first axis, untouched",
                "work on each sample alone: keep axis 0, e.g. x.flatten(1) or x.view(x.shape[0], -1)",
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
        if isinstance(value, Bytes) and value.floats is not None:
            return value.floats
        if isinstance(value, Bytes):
            self.refuse(
                "it computes with bytes (torch.uint8)",
                "put onebit.nn.ScalePixels() first, or convert with x.float()",
            )
        self.refuse(
            "it needs a value, and this is the same constant for every sample", "store the constant instead"
        )

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
                f"a constant of shape {tuple(known.tensor.shape)} does not broadcast to one sample of shape {sample}",
                "give the constant the shape of one sample or of its last axis",
            )
        if not np.isfinite(array).all():
            name = f" '{known.hint}'" if known.hint else ""
            self.refuse(
                f"the constant{name} holds NaN or infinity (or a number beyond float32)",
                "train again or repair the stored values; a NaN has no sign",
            )
        return self.builder.floats(np.atleast_1d(array), known.hint)


def lower(captured: Captured) -> tuple[Program, Mapping[str, str]]:
    """Returns the Program and, for its constants, the dotted names they should get. Raises ConversionError."""
    import onebit.lowering.rules_arithmetic
    import onebit.lowering.rules_linear
    import onebit.lowering.rules_shape
    import onebit.lowering.rules_sign  # noqa: F401

    context = Context(captured)
    values: dict[str, Value | None] = {  # None: could not be lowered, and that has been reported
        name: Known(tensor, captured.constant_names.get(name, ""))
        for name, tensor in captured.constants.items()
    }
    for spec in captured.inputs:
        values[spec.name] = _input(context, spec)
    problems: list[Problem] = []
    for call in captured.calls:
        if any(values.get(ref) is None for ref in call.refs()):
            values[call.name] = None
            continue
        context.call = call
        try:
            values[call.name] = _apply(context, call, values)
        except _Refused as refused:
            values[call.name] = None
            if refused.problem not in problems:
                problems.append(refused.problem)
    context.call = None
    if problems:
        raise ConversionError(problems)
    return _finish(context, captured, values), context.builder.hints


def _input(context: Context, spec: Input) -> Value:
    if spec.dtype is torch.uint8:
        name = context.builder.input(spec.name, TensorType(DType.U8, spec.sample))
        return Bytes(name, torch.arange(256, dtype=torch.uint8))
    return Floats(context.builder.input(spec.name, TensorType(DType.F32, spec.sample)))


def _apply(context: Context, call: Call, values: Mapping[str, Value | None]) -> Value:
    rule = RULES.get(call.op)
    if rule is None:
        why, fix = advice(call.op)
        context.refuse(why, fix)
    if call.result is not None and call.result.dtype in (torch.float64, torch.float16, torch.bfloat16):
        context.refuse(
            f"it computes in {call.result.dtype}", "use float32: model.float(), and float32 constants"
        )
    args = substitute(call.args, values.__getitem__)
    kwargs = {k: substitute(v, values.__getitem__) for k, v in call.kwargs.items()}
    return rule(context, call, *args, **kwargs)


def _finish(context: Context, captured: Captured, values: Mapping[str, Value | None]) -> Program:
    outputs: list[str] = []
    for position, name in enumerate(captured.outputs):
        value = values[name]
        if value is None or isinstance(value, Known):
            problem = Problem("", captured.name, f"output {position}", "it is a constant: it depends on no input",
                              "leave it out of the outputs")  # fmt: skip
            raise ConversionError([problem])
        if (isinstance(value, Signs) and value.is_plus_minus) or (
            isinstance(value, Bytes) and value.floats is None
        ):
            made = value.name
        else:
            made = context.floats(value)
        if made in outputs:
            made = context.node("reshape", made, shape=context.builder.type_of(made).shape)
        outputs.append(made)
    return context.builder.program(tuple(outputs), {"name": captured.name})


__all__ = ["RULES", "BatchSize", "Context", "lower", "lowers"]
