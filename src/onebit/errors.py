"""Every kind of error that onebit defines, under one base. A leaf: any room may import it, it imports none.

    try:
        ...
    except onebit.OnebitError as error:
        print(error)  # written for the user: what was given, what is wrong with it, what to do

A wrong argument of a call is a ValueError or TypeError, as in PyTorch and NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class OnebitError(Exception):
    """The base of onebit's own errors."""


class ProgramError(OnebitError, ValueError):
    """A program, a file or an input breaks a rule. The message names the place and the rule."""


class EngineError(OnebitError, RuntimeError):
    """The engine cannot be built or run: an instruction set, a limit, memory, or the compiled library."""


class DataError(OnebitError, ValueError):
    """A data set cannot be had, or is not what was asked for. The message names it and says what to do."""


class TrainError(OnebitError, ValueError):
    """Training cannot begin or go on. The message says why and what to do."""


class RecipeError(TrainError):
    """A recipe, or an override of one of its fields, is wrong. The message repeats the user's words."""


class CheckpointError(TrainError):
    """A checkpoint cannot be read, or belongs to a run that differs from the one asked for."""


class ExportError(OnebitError, ValueError):
    """A Program has no such form, or was asked for in one that does not exist. The message says why."""


class MissingPackageError(OnebitError, ImportError):
    """A package is not installed that this needs. The message says which, and how to install it."""


class FileKindError(OnebitError, OSError):
    """A path leads to a folder, a pipe, a socket or a device where a regular file is needed."""

    def __init__(self, path: str, kind: str) -> None:
        self.path, self.kind = path, kind
        super().__init__(f"{path!r} is {kind}; a regular file is needed")

    def __reduce__(self) -> Any:
        """Pickled by what it was made of."""
        return type(self), (self.path, self.kind)


@dataclass(frozen=True)
class Problem:
    """One reason why a model cannot be converted.

    layer: dotted path of the module, "" for the model itself.  kind: that module's class.
    place: operation and source line, as far as known.  why, fix: sentences without a final full stop.
    """

    layer: str
    kind: str
    place: str
    why: str
    fix: str

    def __str__(self) -> str:
        who = f"layer '{self.layer}' ({self.kind})" if self.layer else f"the model ({self.kind})"
        where = f", {self.place}" if self.place else ""
        return f"{who}{where}: {self.why}. What to do: {self.fix}."


_SHOWN = 20  # problems that a message spells out


class ConversionError(OnebitError, ValueError):
    """A model cannot become a Program. `problems` lists every reason found; the message holds them all."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            text = f"cannot convert: {self.problems[0]}"
        else:
            lines = [f"  {i}. {problem}" for i, problem in enumerate(self.problems[:_SHOWN], 1)]
            if len(self.problems) > _SHOWN:
                lines.append(f"  ... and {len(self.problems) - _SHOWN} more, in the error's `problems`")
            text = "\n".join([f"cannot convert, for {len(self.problems)} reasons:", *lines])
        super().__init__(text)

    def __reduce__(self) -> Any:
        """Pickled by its problems, from which its text follows."""
        return type(self), (self.problems,)
