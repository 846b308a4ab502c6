"""Options that several commands share, and the types that check their values."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A whole number from 1 on."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return value


def batch_sizes(text: str) -> list[int]:
    """`1,256` → [1, 256]."""
    return [positive(part) for part in text.split(",")]


def add_threads(parser: argparse.ArgumentParser, *, default: int | None = 1, shown: str = "1") -> None:
    """--threads N; `shown` says what the default is."""
    parser.add_argument(
        "--threads", type=positive, default=default, metavar="N", help=f"CPU threads (default: {shown})"
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """--data-dir FOLDER."""
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="read the data set from this folder instead of the network"
    )
