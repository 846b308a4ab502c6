"""What a run leaves behind for reading: metrics.jsonl, TensorBoard events, curves.png."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onebit.train.files import write_text_atomically

METRICS_NAME = "metrics.jsonl"
CURVES_NAME = "curves.png"
TENSORBOARD_NAME = "tensorboard"


class MetricsLog:
    """Writes one record an epoch. `history` is what a resumed run has behind it; later lines go."""

    def __init__(
        self, run_dir: Path, history: list[dict[str, Any]], note: Callable[[str], None], *, tensorboard: bool
    ) -> None:
        self._path = run_dir / METRICS_NAME
        write_text_atomically(self._path, "".join(json.dumps(record) + "\n" for record in history))
        self._events = _event_writer(run_dir / TENSORBOARD_NAME, len(history), note) if tensorboard else None

    def add(self, record: dict[str, Any]) -> None:
        """Append an epoch's record: plain numbers by name, with "epoch" from 1."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._events is not None:
            for key, value in record.items():
                if isinstance(value, dict):  # layer → measure → number
                    for layer, measures in value.items():
                        for measure, number in measures.items():
                            self._events.add_scalar(f"{measure}/{layer}", number, record["epoch"])
                elif key != "epoch" and value is not None:
                    self._events.add_scalar(_tag(key), value, record["epoch"])

    def close(self) -> None:
        """Flush the events."""
        if self._events is not None:
            self._events.close()


def _tag(key: str) -> str:
    """ "train_loss" → "train/loss", so that TensorBoard groups them; other names as they are."""
    part, _, rest = key.partition("_")
    return f"{part}/{rest}" if part in ("train", "validation") else key


def _event_writer(folder: Path, epochs: int, note: Callable[[str], None]) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        note("no TensorBoard events: pip install 'onebit[tensorboard]' to have them")
        return None
    # Events of epochs after the checkpoint, written before a kill, are hidden by purge_step.
    return SummaryWriter(str(folder), purge_step=epochs + 1 if epochs else None)


def plot_curves(path: Path, title: str, history: list[dict[str, Any]], note: Callable[[str], None]) -> None:
    """Draw loss and error by epoch into a PNG file; without matplotlib, say how to get it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        note("no curves.png: pip install 'onebit[train]' (matplotlib) to have it")
        return
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in history]
    for part in ("train", "validation"):
        if history and history[0].get(f"{part}_loss") is not None:
            left.plot(epochs, [record[f"{part}_loss"] for record in history], label=part)
            right.plot(epochs, [100 - record[f"{part}_accuracy"] for record in history], label=part)
    left.set(xlabel="epoch", ylabel="loss")
    right.set(xlabel="epoch", ylabel="error, %")
    for axes in (left, right):
        axes.set_yscale("log" if all(line.get_ydata().min() > 0 for line in axes.get_lines()) else "linear")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
