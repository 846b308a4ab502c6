"""The `onebit` command: one file a command. Other rooms are imported inside the commands, so start-up is fast."""

from __future__ import annotations

from onebit.cli.shell import main

__all__ = ["main"]
