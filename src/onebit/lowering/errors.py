"""The one exception type of the `lowering` room, and the problems it reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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


class ConversionError(ValueError):
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
