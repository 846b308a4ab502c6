"""torch.export as onebit uses it: free batch size, no dynamo, errors in the user's own terms."""

from __future__ import annotations

import contextlib
import io
import linecache
import logging
import traceback
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any, cast

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.export.dynamic_shapes import ShapesCollection

from onebit.errors import ConversionError, Problem
from onebit.lowering.refusals import SUPPORTED


def export(model: torch.nn.Module, example_inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """Run the model once, then export it with the batch size left open.

    A batch of 1 is doubled first: export treats a size of 1 as a constant. The decomposition table is empty,
    since the default one takes PReLU and Linear apart. For the named dimension see decision 0005. Raises
    ConversionError.
    """
    doubled = tuple(torch.cat([x, x]) if x.shape[0] == 1 else x.clone() for x in example_inputs)
    try:
        with torch.no_grad():
            model(*doubled)
    except Exception as error:
        raise ConversionError([_failed(model, error)]) from error
    shapes, batch = ShapesCollection(), Dim("batch")  # type: ignore[no-untyped-call]
    for x in doubled:
        shapes[x] = {0: batch}
    try:
        with _quiet(), torch.no_grad():
            exported = torch.export.export(model, doubled, strict=False, dynamic_shapes=cast(Any, shapes))
            return cast(ExportedProgram, exported.run_decompositions({}))
    except Exception as error:
        raise ConversionError([_not_exported(model, error)]) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Export prints whole graphs and internal warnings before it raises; our one error says what matters."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _failed(model: torch.nn.Module, error: Exception) -> Problem:
    layer, kind, place = _blame(model, error.__traceback__)
    return Problem(
        layer,
        kind,
        place,
        f"the model itself fails on these example inputs ({type(error).__name__}: {_first_line(error)})",
        "pass example inputs as the model takes them, batch first, e.g. torch.zeros(1, 784)",
    )


def _not_exported(model: torch.nn.Module, error: Exception) -> Problem:
    text, kind_of_error = str(error), type(error).__name__
    if "data-dependent" in text or kind_of_error == "GuardOnDataDependentSymNode":
        why = (
            "its forward takes a Python decision (if, while, int(), .item()) on the values in a tensor, "
            "and a Program has no branches"
        )
        fix = "decide by arithmetic on both outcomes, or move the decision out of the model"
    elif "Constraints violated" in text or kind_of_error == "ConstraintViolationError":
        if "specialized it to be a constant" in text:
            why = "it works for one batch size only, and a Program takes any"
        else:
            why = "it decides by the batch size, and a Program computes the same for any"
        fix = "use x.shape[0] or -1 where a number, or len(x), stands for the batch size, and in shapes only"
    else:
        why = f"torch.export cannot follow it ({kind_of_error}: {_first_line(error)})"
        fix = SUPPORTED
    return Problem(*_blame(model, error.__traceback__), why, fix)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else "no message"


def _blame(model: torch.nn.Module, trace: TracebackType | None) -> tuple[str, str, str]:
    """(dotted path, class, source line) of the innermost module of `model` whose forward was running."""
    paths = {id(module): path for path, module in model.named_modules()}
    layer, kind, place = "", type(model).__name__, ""
    for frame, line in traceback.walk_tb(trace):
        code = frame.f_code
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if code.co_name == "forward" and id(owner) in paths:
            layer, kind = paths[id(owner)], type(owner).__name__
            file = code.co_filename.replace("\\", "/")
            if "/torch/nn/modules/" not in file:
                source = linecache.getline(code.co_filename, line).strip()
                place = f'{file.rsplit("/", 1)[-1]}:{line} "{source}"'
    return layer, kind, place
