"""`main`: picks the command, and turns every way it can end into an exit code.

0 success; 1 the command ran and the answer is bad (demo: predictions differ; doctor: no engine
can run); 2 the user's mistake, told without a traceback, which ONEBIT_DEBUG=1 shows; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn, Protocol

from onebit import __version__
from onebit.cli import bench, convert, demo, doctor, eval, export, inspect, run, train
from onebit.cli.errors import UserError, did_you_mean, missing_package
from onebit.errors import OnebitError


class Command(Protocol):
    """What each command's module offers."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's own options."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; return the exit code."""


COMMANDS: dict[str, Command] = {
    "demo": demo,
    "train": train,
    "eval": eval,
    "convert": convert,
    "run": run,
    "bench": bench,
    "inspect": inspect,
    "export": export,
    "doctor": doctor,
}


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line and suggest the nearest known word."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} --help`)")

    def unknown(self, words: Sequence[str]) -> NoReturn:
        options = [option for action in self._actions for option in action.option_strings]
        word = words[0]
        if word.startswith("-"):
            hint = did_you_mean(word.partition("=")[0], [o for o in options if o.startswith("--")])
            raise UserError(f"unknown option {word!r}{hint}")
        raise UserError(f"unexpected argument {word!r} (see `{self.prog} --help`)")


def build_parser() -> tuple[_Parser, dict[str, _Parser]]:
    """The top-level parser, and the parser of each command."""
    parser = _Parser(
        prog="onebit",
        description="Train, pack and run one-bit neural networks.",
        epilog="Start with `onebit demo`. Each command explains itself: `onebit train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"onebit {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    parsers: dict[str, _Parser] = {}
    for name, module in COMMANDS.items():
        parsers[name] = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(parsers[name])
    return parser, parsers


def _parse(argv: list[str]) -> argparse.Namespace | None:
    parser, parsers = build_parser()
    if not argv:
        parser.print_help()
        return None
    if not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise UserError(f"unknown command {argv[0]!r}{did_you_mean(argv[0], COMMANDS)}")
    args, rest = parser.parse_known_args(argv)
    if rest:
        parsers.get(args.command, parser).unknown(rest)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. `argv` defaults to the process's own arguments."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal without ×, µ or ─ shows ? instead of a traceback
            stream.reconfigure(errors="replace")
    try:
        args = _parse(list(sys.argv[1:] if argv is None else argv))
        if args is None:
            return 0
        code = COMMANDS[args.command].run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\nonebit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `onebit inspect x | head`: the reader has gone, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        message = users_mistake(error)
        if message is None:
            raise
        if os.environ.get("ONEBIT_DEBUG"):
            traceback.print_exc()
        print(f"onebit: {message}", file=sys.stderr)
        return 2


def users_mistake(error: Exception) -> str | None:
    """The message if `error` is the user's mistake; None if it is a defect, which keeps its traceback.

    An OnebitError, and a ValueError, TypeError or OSError that onebit's own code raises,
    carry messages written for users. What comes out of other packages does not, except for a file that
    cannot be opened and a package that is missing.
    """
    if isinstance(error, OnebitError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("onebit"):
        return missing_package(error.name)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {str(error.filename)!r}" if error.filename else error.strerror
    if isinstance(error, (ValueError, TypeError, OSError)) and _raised_by_us(error):
        return str(error)
    return None


def _raised_by_us(error: Exception) -> bool:
    """True if the innermost frame is in onebit and stands on a `raise` statement."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return False
    last = frames[-1]
    package = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")  # noqa: PTH118,PTH120,PTH100
    return os.path.abspath(last.filename).startswith(package) and (last.line or "").startswith("raise ")  # noqa: PTH100
