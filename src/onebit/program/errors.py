"""The form of a ProgramError's message."""

from __future__ import annotations

from typing import NoReturn

from onebit.errors import ProgramError

_MAX = 80  # characters of the user's own words in a message


def fail(place: str, rule: str, found: object, expected: object) -> NoReturn:
    """Raise the one error that a broken rule gets."""
    raise ProgramError(f"{place}: {rule}: found {found}, expected {expected}")


def shorten(value: object) -> str:
    """repr() of something a user or a file gave, printable and short enough for a message."""
    text = repr(value)
    text = text if text.isprintable() else ascii(value)
    return text if len(text) <= _MAX else text[: _MAX - 3] + "..."
