"""How a binary network is doing, layer by layer: what a loss curve does not show.

Of the weights of a layer (latent weights w, signs s as they are packed, sign(w) with most quantizers):
    flip_ratio       fraction of signs that differ from those at the last look: the network's real step size.
                     Near 0 it has stopped learning, whatever the latent weights do; a high one is noise.
    saturation       fraction of latent weights at or beyond ±1, where clipping holds them and a saturating
                     straight-through estimator gives them no gradient from outside.
    weight_entropy   mean over filters of H(p), p the share of +1 among a filter's signs: 1 bit at best.
    unique_filters   of a convolution of 2 or more axes: distinct kernels among all (output, input) pairs, a
                     kernel and its inverse counted once. "Binarized Neural Networks" (arXiv 1602.02830,
                     section 4.2) finds 42 % in its CIFAR-10 ConvNet; what repeats need not be computed twice.
Of the signs that a layer is given, over all samples and places of a channel:
    dead_channels    fraction of channels that always have the same sign: they tell the layer nothing.
    input_entropy    mean over channels of H(p), p the share of +1.

H(p) = −p·log2(p) − (1−p)·log2(1−p).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from onebit.nn.binary_layer import BinaryLayer
from onebit.nn.modes import modes_kept

__all__ = ["Diagnosis", "FlipCounter", "LayerDiagnosis", "diagnose"]


@dataclass(frozen=True)
class LayerDiagnosis:
    """Figures of one layer, each a fraction or bits; None where it does not apply or was not measured."""

    layer: str
    saturation: float | None = None
    weight_entropy: float | None = None
    unique_filters: float | None = None
    dead_channels: float | None = None
    input_entropy: float | None = None
    flip_ratio: float | None = None


MEASURES = tuple(field.name for field in fields(LayerDiagnosis) if field.name != "layer")


@dataclass(frozen=True)
class Diagnosis:
    """One row a layer with one-bit weights, in the model's order. `str()` is a table."""

    layers: tuple[LayerDiagnosis, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, ready for JSON."""
        return {"layers": [asdict(layer) for layer in self.layers]}

    def __str__(self) -> str:
        header = ("layer", *(name.replace("_", " ") for name in MEASURES))
        rows = [
            header,
            *((row.layer, *map(_text, (getattr(row, m) for m in MEASURES))) for row in self.layers),
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = []
        for first, *others in rows:
            cells = [first.ljust(widths[0]), *(o.rjust(w) for o, w in zip(others, widths[1:], strict=True))]
            lines.append("  ".join(cells))
        return "\n".join(lines)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


class FlipCounter:
    """Remembers the signs of a model's weights, one byte each, and says how many have changed.

    model: layers are found when the counter is made. The first look compares with the signs of that moment.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = _layers_of(model)
        self._signs = {name: _signs(layer) for name, layer in self._layers.items()}

    def __call__(self) -> dict[str, float]:
        """Layer name → fraction of signs changed since the last call."""
        ratios = {}
        for name, layer in self._layers.items():
            now = _signs(layer)
            ratios[name] = (now != self._signs[name]).float().mean().item()
            self._signs[name] = now
        return ratios

    def state_dict(self) -> dict[str, Tensor]:
        """The signs, for a checkpoint."""
        return dict(self._signs)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from the signs of a checkpoint. ValueError for those of another model."""
        if state.keys() != self._signs.keys():
            raise ValueError(f"signs of the layers {list(state)}; this model has {list(self._signs)}")
        self._signs = {name: signs.to(self._signs[name].device) for name, signs in state.items()}


@torch.no_grad()
def diagnose(model: nn.Module, batches: Iterable[Tensor] = (), flips: FlipCounter | None = None) -> Diagnosis:
    """Look at every layer with one-bit weights.

    batches: what the model takes, on its device; without any, the figures of inputs are None. The model runs
        in eval mode, without gradients, and is left in the mode that it was in. Channels are axis 1 of a
        convolution's input and the last axis of a linear layer's.
    flips: a counter made earlier; looking at it starts its next interval.

    ValueError for a model without such layers.
    """
    layers = _layers_of(model)
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no layer with one-bit weights; onebit.nn.binarize makes some"
        )
    inputs = _watch_inputs(model, layers, batches)
    ratios = flips() if flips else {}
    return Diagnosis(
        tuple(
            LayerDiagnosis(
                name,
                saturation=(layer.weight.abs() >= 1).float().mean().item(),
                weight_entropy=_entropy(_signs(layer).flatten(1).float().mean(1)),
                unique_filters=_unique_filters(_signs(layer)),
                dead_channels=_share_dead(inputs.get(name)),
                input_entropy=None if name not in inputs else _entropy(inputs[name]),
                flip_ratio=ratios.get(name),
            )
            for name, layer in layers.items()
        )
    )


def _layers_of(model: nn.Module) -> dict[str, BinaryLayer]:
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, BinaryLayer) and layer.weight_quantizer is not None
    }


@torch.no_grad()
def _signs(layer: BinaryLayer) -> Tensor:
    """True for +1, as they are packed: some quantizers shift a filter before they take its signs."""
    with modes_kept(layer):  # in eval mode, where stochastic signs are not drawn
        return layer.eval().quantized_weight()[0] >= 0


def _entropy(p: Tensor) -> float:
    """Mean H(p) in bits; torch.special.entr is −p·ln(p), 0 at 0."""
    p = p.double()
    bits = (torch.special.entr(p) + torch.special.entr(1 - p)) / torch.log(torch.tensor(2.0, dtype=p.dtype))
    return float(bits.mean())


def _unique_filters(signs: Tensor) -> float | None:
    """signs: (out, in, *kernel), bool. A kernel whose first sign is −1 stands for its inverse."""
    if signs.ndim < 4:
        return None
    kernels = signs.flatten(2).flatten(0, 1)
    kernels = kernels == kernels[:, :1]
    return len(torch.unique(kernels, dim=0)) / len(kernels)


def _share_dead(positive: Tensor | None) -> float | None:
    return None if positive is None else ((positive == 0) | (positive == 1)).float().mean().item()


def _watch_inputs(
    model: nn.Module, layers: dict[str, BinaryLayer], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Layer name → share of +1 a channel, of the layers whose product sees ±1 alone."""
    counts: dict[str, list[Tensor]] = {}
    real: set[str] = set()

    def watch(name: str, layer: BinaryLayer) -> Any:
        def look(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            (x,) = arguments
            q = layer.quantized_input(x)
            if not bool((q.abs() == 1).all()):
                real.add(name)
                return
            channels = q.ndim - 1 if layer.weight.ndim == 2 else 1
            positive = (q > 0).movedim(channels, 0).flatten(1)
            total = torch.tensor(positive.shape[1], device=q.device)
            counts.setdefault(name, []).append(torch.stack([positive.sum(1), total.expand(len(positive))]))

        return layer.register_forward_pre_hook(look)

    hooks = [watch(name, layer) for name, layer in layers.items()]
    try:
        with modes_kept(model):
            model.eval()
            for batch in batches:
                model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    sums = {name: torch.stack(seen).sum(0) for name, seen in counts.items() if name not in real}
    return {name: (positive / total) for name, (positive, total) in sums.items()}
