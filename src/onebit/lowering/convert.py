"""convert(): from a trained PyTorch model to a Program, by small passes, each verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from onebit.lowering.capture.constant_folding import fold
from onebit.lowering.capture.model_checks import check
from onebit.lowering.capture.reader import capture
from onebit.lowering.capture.single_sample import check_single_sample
from onebit.lowering.lower import lower
from onebit.lowering.passes.cleanup import name_values, remove_dead_code
from onebit.lowering.passes.thresholds import make_thresholds
from onebit.nn.wrappers import unwrapped
from onebit.program import Program, verify
from onebit.program.float_environment import default_float_environment, in_fresh_thread
from onebit.program.graph import CLASSES


@default_float_environment()
def convert(
    model: torch.nn.Module,
    example_inputs: Any,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
) -> Program:
    """The inference of `model` as a Program: bits, integer thresholds, and floats only where needed.

    model: in eval mode, float32, on the CPU. What torch.compile, DistributedDataParallel or DataParallel made
        of one is the model inside.
    example_inputs: a tensor, or a tuple of tensors in the order of `model.forward`, batch first; float32 or
        uint8. Only shapes and dtypes matter: the shape of one sample becomes the Program's input shape, and
        any batch size can be run later.
    name: stored as the Program's metadata "name", a str; the model's class name if None.
    classes: the names of the classes, one a channel of the (first) output, as in a data set's `classes`. The
        Program keeps them as its metadata "classes", and `onebit run` shows them.

    An output that is a sign stays bits, which engines return as int8 ±1; every other output is float32.
    Raises ConversionError, which names each layer that cannot be converted, why, and what to do; ProgramError
    where `classes` are not as many names as there are channels.
    """
    model = unwrapped(model)
    inputs = check(model, example_inputs, name)
    captured = capture(model, inputs, name or type(model).__name__)
    program, hints = in_fresh_thread(lambda: lower(fold(captured)))  # PyTorch computes constants there
    verify(program)
    check_single_sample(model, inputs)
    for transform in (make_thresholds, remove_dead_code):
        program = transform(program)
        verify(program)
    program = name_values(program, hints)
    if classes is not None:
        program = replace(program, metadata={**program.metadata, CLASSES: _listed(classes)})
    verify(program)
    return program


def _listed(classes: Any) -> Any:
    """A list, unless it is no sequence or a single text, which `verify` refuses."""
    return list(classes) if isinstance(classes, Sequence) and not isinstance(classes, str) else classes
