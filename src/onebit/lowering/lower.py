"""Pass 3: PyTorch calls -> Program nodes, one rule for each operation.

A rule is a function `(context, call, *operands) -> Value`, registered under PyTorch's name of the operation:

    @lowers("aten.relu.default")
    def relu(context, call, x): ...

Rules stand in `rules/`. A rule that cannot proceed raises through `context.refuse(why, fix)`; lowering
goes on with the calls that do not depend on it, so that one run reports every problem.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch

from onebit.errors import ConversionError, Problem
from onebit.lowering.capture.captured import Captured, Input, TorchCall, batch_sizes, substitute
from onebit.lowering.capture.constant_folding import is_random
from onebit.lowering.emit.context import RULES, TAKES_PADDING, Context, Refused
from onebit.lowering.refusals import FROM_BATCH_SIZE, FROM_DATA, RANDOM, advice, padded_elsewhere
from onebit.lowering.rules import arithmetic, conv, linear, norm, pool, shape, sign
from onebit.lowering.values.kinds import Bytes, Floats, Known, Padded, Signs, Value, Varying
from onebit.program import DType, Program, TensorType

RULE_MODULES = (arithmetic, conv, linear, norm, pool, shape, sign)  # importing them fills RULES
_IMAGE_OP = re.compile(r"aten\.(?:conv|max_pool|avg_pool|adaptive_avg_pool|adaptive_max_pool)([12])d\.")


def lower(captured: Captured) -> tuple[Program, Mapping[str, str]]:
    """The Program and, for its constants, the names they would like. ConversionError with every problem."""
    context = Context(captured)
    values: dict[str, Value | Padded | None] = {  # None: its type is unknown after a refusal
        name: Known(tensor, captured.constant_names.get(name, ""), name in captured.from_signs)
        for name, tensor in captured.constants.items()
    }
    image_ranks = {1 + int(m[1]) for call in captured.calls if (m := _IMAGE_OP.match(call.op))}
    for spec in captured.inputs:
        x = _input(context, spec)
        # Images are turned once, as they come in: as bytes that costs least.
        values[spec.name] = context.image(x) if len(spec.sample) in image_ranks else x
    problems: list[Problem] = []
    for call in captured.calls:
        if any(ref in values and values[ref] is None for ref in call.refs()):
            values[call.name] = None
            continue
        context.call = call
        try:
            values[call.name] = _apply(context, call, values)
        except Refused as refused:
            values[call.name] = _stand_in(context, call)
            if refused.problem not in problems:
                problems.append(refused.problem)
    if problems:
        raise ConversionError(problems)
    try:
        return _finish(context, captured, values), context.builder.hints
    except Refused as refused:
        raise ConversionError([refused.problem]) from None


def _input(context: Context, spec: Input) -> Varying:
    if spec.dtype is torch.uint8:
        name = context.builder.input(spec.name, TensorType(DType.U8, spec.sample))
        return Bytes(name, torch.arange(256, dtype=torch.uint8))
    return Floats(context.builder.input(spec.name, TensorType(DType.F32, spec.sample)))


def _stand_in(context: Context, call: TorchCall) -> Value | Padded | None:
    """A value of the type that a refused call would have, so that the calls after it are checked too."""
    result = call.result
    if result is None or result.sample is None or result.dtype is not torch.float32:
        return None
    return Floats(context.builder.input(f"stand-in for {call.name}", TensorType(DType.F32, result.sample)))


def _apply(context: Context, call: TorchCall, values: Mapping[str, Value | Padded | None]) -> Value | Padded:
    rule = RULES.get(call.op)
    if rule is None:
        context.refuse(*(RANDOM if is_random(call) and "dropout" not in call.op else advice(call.op)))
    if not all(ref in values for ref in call.refs()):
        context.refuse(
            "it takes a Python object that is no tensor", "use tensors, parameters and numbers only"
        )
    if rule is not shape.view and (numbers := batch_sizes(call)):
        context.refuse(*(FROM_DATA if any(n.from_data for n in numbers) else FROM_BATCH_SIZE))
    if call.result is not None and call.result.dtype in (torch.float64, torch.float16, torch.bfloat16):
        context.refuse(
            f"it computes in {call.result.dtype}", "use float32: model.float(), and float32 constants"
        )
    args = substitute(call.args, values.__getitem__)
    kwargs = {k: substitute(v, values.__getitem__) for k, v in call.kwargs.items()}
    if call.op not in TAKES_PADDING:
        for x in (*args, *kwargs.values()):
            _refuse_padded(context, x)
    try:
        inspect.signature(rule).bind(context, call, *args, **kwargs)
    except TypeError as error:
        context.refuse(f"it is called in a way that onebit does not know ({error})", "use its plain form")
    value = rule(context, call, *args, **kwargs)
    if not isinstance(value, (Known, Padded)) and context.shape(value) != context.sample():
        context.refuse(
            f"a sample of its result has the shape {context.sample()}, of its operand {context.shape(value)}",
            "give the constants no more axes than the value that they meet",
        )
    return value


def _refuse_padded(context: Context, operand: Any) -> None:
    if isinstance(operand, (tuple, list)):
        for item in operand:
            _refuse_padded(context, item)
    if isinstance(operand, Padded):
        context.refuse(*padded_elsewhere(operand.fill))


def _finish(context: Context, captured: Captured, values: Mapping[str, Value | Padded | None]) -> Program:
    context.call = None
    outputs: list[str] = []
    for name in captured.outputs:
        value = values[name]
        if value is None or isinstance(value, Known):
            context.refuse("one of them depends on no input", "return only what the input decides")
        if isinstance(value, Padded):
            context.refuse(*padded_elsewhere(value.fill))
        value = context.plain(value if _is_compact_output(value) else Floats(context.floats(value)))
        made = value.name
        if made in outputs:  # a Program's outputs have different names
            made = context.node("reshape", made, shape=context.builder.type_of(made).shape)
        outputs.append(made)
    return context.builder.program(tuple(outputs), {"name": captured.name})


def _is_compact_output(value: Value) -> bool:
    """Signs leave as bits and untouched bytes as bytes; sums leave as the float32 that PyTorch returns."""
    return (isinstance(value, Signs) and value.is_plus_minus) or (
        isinstance(value, Bytes) and value.floats is None
    )
