"""The one exception type of the `program` room, and the form of its messages."""

from __future__ import annotations

from typing import NoReturn

_MOST = 80  # characters of the user's own words in a message


class ProgramError(ValueError):
    """A program, a file or an input breaks a rule. The message names the place and the rule."""


def fail(place: str, rule: str, found: object, expected: object) -> NoReturn:
    """Raise the one error that a broken rule gets."""
    raise ProgramError(f"{place}: {rule}: found {found}, expected {expected}")


def shorten(value: object) -> str:
    """repr() of something a user or a file gave, printable and short enough for a message."""
    text = repr(value)
    text = text if text.isprintable() else ascii(value)
    return text if len(text) <= _MOST else text[: _MOST - 3] + "..."
