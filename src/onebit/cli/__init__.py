"""The `onebit` command: one file a command. Other rooms are imported inside the commands."""

from __future__ import annotations

from onebit.cli.shell import main

__all__ = ["main"]
