"""What `binarize` did, layer by layer: which became binary, which stayed real, why, and what each weighs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import is_lazy

from onebit.nn.binary_layer import BinaryLayer

__all__ = ["BinarizeLayerReport", "BinarizeReport", "weigh"]


@dataclass(frozen=True)
class BinarizeLayerReport:
    """One product layer. name: as in model.named_modules(). kind: its class now. reason: why it is as it is.
    parameters: how many it holds, a normalization in front included. bits: what they take in inference, one
    bit a one-bit weight."""

    name: str
    kind: str
    binary: bool
    reason: str
    parameters: int
    bits: int


@dataclass(frozen=True)
class BinarizeReport:
    """The layers in the order of the model, and the parameters outside them; `print(report)` is a table.

    bits_before: what all parameters of the float model took.
    notes: what else was changed: activations left out, a fast path switched off.
    """

    layers: tuple[BinarizeLayerReport, ...]
    other_parameters: int
    other_bits: int
    bits_before: int
    notes: tuple[str, ...] = ()

    @property
    def binary(self) -> tuple[BinarizeLayerReport, ...]:
        """The layers that became binary."""
        return tuple(layer for layer in self.layers if layer.binary)

    @property
    def real(self) -> tuple[BinarizeLayerReport, ...]:
        """The layers that stayed as they were."""
        return tuple(layer for layer in self.layers if not layer.binary)

    @property
    def parameters(self) -> int:
        """All parameters of the binarized model."""
        return self.other_parameters + sum(layer.parameters for layer in self.layers)

    @property
    def bits(self) -> int:
        """What all parameters take in inference."""
        return self.other_bits + sum(layer.bits for layer in self.layers)

    def __str__(self) -> str:
        rows = [
            (
                layer.name or "(the model)",
                layer.kind,
                "binary" if layer.binary else "real",
                f"{layer.parameters:,}",
                f"{layer.bits:,}",
                layer.reason,
            )
            for layer in self.layers
        ]
        if self.other_parameters:
            rows.append(
                (
                    "(all else)",
                    "",
                    "real",
                    f"{self.other_parameters:,}",
                    f"{self.other_bits:,}",
                    "no product layers",
                )
            )
        total = (
            f"{len(self.binary)} of {len(self.layers)} layers binary; {self.parameters:,} parameters, "
            f"{self.bits / 8 / 1024:,.1f} KiB in inference, {self.bits_before / 8 / 1024:,.1f} KiB before"
        )
        table = _table([("layer", "now", "", "parameters", "bits", "why"), *rows])
        return "\n".join([*table, total, *self.notes])


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numbers = (3, 4)
    return [
        "  ".join(
            cell.rjust(width) if i in numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def weigh(modules: Iterable[nn.Module], seen: set[int] | None = None) -> tuple[int, int]:
    """(number, bits in inference) of the parameters that these modules hold themselves, children apart.

    A quantized weight takes one bit each, and its α one number an output; everything else what its dtype
    takes. seen: ids of parameters counted before, which do not count again and to which these are added.
    """
    seen = set() if seen is None else seen
    count = bits = 0
    for module in modules:
        binary = isinstance(module, BinaryLayer) and module.weight_quantizer is not None
        for name, parameter in module._parameters.items():
            if parameter is None or is_lazy(parameter) or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            width, numbers = 8 * parameter.element_size(), parameter.numel()
            count += numbers
            if binary and name == "weight":
                scaled = module.weight_scale not in (None, "learned")  # learned: a parameter of its own
                bits += numbers + (parameter.shape[0] * width if scaled else 0)
            else:
                bits += numbers * width
    return count, bits
