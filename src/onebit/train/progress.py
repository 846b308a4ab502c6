"""What a person sees while training: a bar on a terminal, one line an epoch elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

_REFRESH_SECONDS = 0.2


class Progress:
    """Writes to `stream` (standard error unless told), so that standard output stays free for results.

    `total` and `done` count steps over the whole run. With `quiet` it writes nothing.
    """

    def __init__(
        self, total: int, done: int, epochs: int, stream: TextIO | None = None, *, quiet: bool = False
    ) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._epochs = epochs
        self._total = total
        self._first = self._done = done
        self._began = time.monotonic()
        self._shown = 0.0
        self._bar = self._make_bar() if self._stream.isatty() and not quiet else None

    def _make_bar(self) -> Any:
        try:
            from tqdm import tqdm
        except ImportError:
            return None
        return tqdm(
            total=self._total,
            initial=self._done,
            file=self._stream,
            unit="step",
            dynamic_ncols=True,
            mininterval=0,
            leave=False,
        )

    def due(self) -> bool:
        """True when the bar should be redrawn; numbers are fetched from the device only then."""
        return self._bar is not None and time.monotonic() - self._shown >= _REFRESH_SECONDS

    def show(self, done: int, epoch: int, loss: float, accuracy: float) -> None:
        """Redraw the bar: `done` steps of the run, in epoch `epoch` (1-based)."""
        if self._bar is not None:
            self._bar.set_description_str(f"epoch {epoch}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.2f} %", refresh=False)
            self._bar.update(done - self._bar.n)
            self._bar.refresh()
            self._shown = time.monotonic()

    def epoch(self, done: int, record: dict[str, Any]) -> None:
        """One line for a finished epoch (the record of metrics.jsonl)."""
        self._done = done
        parts = [
            f"epoch {record['epoch']}/{self._epochs}",
            f"loss {record['train_loss']:.4f}",
            f"accuracy {record['train_accuracy']:.2f} %",
        ]
        if record.get("validation_accuracy") is not None:
            parts.append(f"validation {record['validation_accuracy']:.2f} %")
        parts.append(f"{record['seconds']:.1f} s")
        parts.append(f"{_duration(self._seconds_left())} left")
        self.note(", ".join(parts))

    def note(self, line: str) -> None:
        """A line of its own, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        elif not self._quiet:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def _seconds_left(self) -> float:
        made = self._done - self._first
        return (time.monotonic() - self._began) / made * (self._total - self._done) if made else 0.0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
