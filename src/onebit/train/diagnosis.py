"""A look at the binary layers after each epoch (`onebit.nn.diagnose`), as metrics and as a plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from onebit.errors import TrainError
from onebit.nn import FlipCounter, diagnose
from onebit.nn.diagnostics import MEASURES

PLOT_NAME = "layers.png"
KEY = "layers"  # of an epoch's record: layer → measure → number


class Watch:
    """Remembers the signs of an epoch's start. `state_dict` is for the checkpoint.

    Raises `TrainError` for a model that has no layer with one-bit weights.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._flips = FlipCounter(model)
        if not self._flips.state_dict():
            raise TrainError(
                f"diagnose = true: {type(model).__name__} has no layer with one-bit weights to look at"
                " (--set diagnose=false)"
            )

    def record(self, batches: Iterable[Tensor]) -> dict[str, Any]:
        """An entry for the epoch's record; the next epoch starts from these signs."""
        found = diagnose(self._model, batches, self._flips)
        return {KEY: {row.layer: _measured(asdict(row)) for row in found.layers}}

    def state_dict(self) -> dict[str, Tensor]:
        """The signs at the start of this epoch."""
        return self._flips.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from those."""
        self._flips.load_state_dict(state)


def _measured(row: dict[str, Any]) -> dict[str, float]:
    return {measure: row[measure] for measure in MEASURES if row[measure] is not None}


def plot_layers(path: Path, title: str, history: list[dict[str, Any]], note: Callable[[str], None]) -> None:
    """Draw each measure by epoch, a line a layer, into a PNG file; without matplotlib, say how to get it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        note(f"no {path.name}: pip install 'onebit[train]' (matplotlib) to have it")
        return
    figure = Figure(figsize=(12, 6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, measure in zip(figure.subplots(2, 3).flat, MEASURES, strict=True):
        for layer in history[0][KEY]:
            points = [(r["epoch"], r[KEY][layer][measure]) for r in history if measure in r[KEY][layer]]
            if points:
                axes.plot(*zip(*points, strict=True), label=layer)
        axes.set(title=measure.replace("_", " "), xlabel="epoch")
        axes.grid(alpha=0.3)
    handles = max((axes.get_legend_handles_labels() for axes in figure.axes), key=lambda found: len(found[0]))
    figure.legend(*handles, loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=110)
