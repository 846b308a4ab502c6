"""What is packed in a model, what is not and why, and the bytes of it."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from onebit.ops.eligible import parts_of
from onebit.ops.layers import PackedLayer
from onebit.ops.pack_model import binary_layers


class PackLayerReport(NamedTuple):
    """One binary layer. Bytes are those of its parameters and buffers."""

    name: str
    layer: str  # as it was written, e.g. "BinaryLinear(64, 32)"
    packed: bool
    why_not: str  # "" if it is packed
    bytes_before: int
    bytes_after: int


class PackReport(NamedTuple):
    """All binary layers of a model, and the bytes of the whole of it. `print` shows a table."""

    layers: tuple[PackLayerReport, ...]
    bytes_before: int
    bytes_after: int

    def __str__(self) -> str:
        """One line a layer, and the totals."""
        lines = []
        for layer in self.layers:
            sizes = f"{layer.bytes_before} → {layer.bytes_after} bytes"
            lines.append(
                f"{layer.name or '(model)'}  {layer.layer}  {sizes if layer.packed else 'not packed'}"
            )
            if layer.why_not:
                lines.append(f"    {layer.why_not}")
        count = sum(layer.packed for layer in self.layers)
        sizes = f"{self.bytes_before} → {self.bytes_after} bytes"
        lines.append(f"{count} of {len(self.layers)} binary layers packed; the model: {sizes}")
        return "\n".join(lines)


def report(model: nn.Module) -> PackReport:
    """What is packed in a model that `onebit.pack` returned, what is not, and why.

    A model that was not packed has a report too: what `onebit.pack` would leave, and why. Parameters and
    buffers that several modules share count once.
    """
    layers = []
    for name, module in model.named_modules():
        if isinstance(module, PackedLayer):
            after = _bytes_of(module, recurse=False)
            layers.append(PackLayerReport(name, module.replaces, True, "", module.unpacked_bytes, after))
    for name, layer in binary_layers(model):
        parts = parts_of(layer, real_inputs=False)
        why = parts if isinstance(parts, str) else "onebit.pack was not called on it"
        size = _bytes_of(layer, recurse=False)
        text = f"{type(layer).__name__}({layer.extra_repr()})"
        layers.append(PackLayerReport(name, text, False, why, size, size))
    order = {name: i for i, (name, _) in enumerate(model.named_modules())}
    layers.sort(key=lambda layer: order[layer.name])
    after = _bytes_of(model, recurse=True)
    saved = sum(layer.bytes_before - layer.bytes_after for layer in layers)
    return PackReport(tuple(layers), after + saved, after)


def _bytes_of(module: nn.Module, *, recurse: bool) -> int:
    tensors = {id(t): t for t in (*module.parameters(recurse), *module.buffers(recurse))}
    return sum(t.numel() * t.element_size() for t in tensors.values())
