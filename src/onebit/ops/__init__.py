"""Torch operators on packed bits, and `pack`: the binary layers of any PyTorch model → packed ones."""

from __future__ import annotations

from onebit.ops import cpu, cuda, operators
from onebit.ops.layers import PackedConv1d, PackedConv2d, PackedLinear
from onebit.ops.packing import pack
from onebit.ops.report import LayerReport, Report, report

operators.register(cpu, "CPU")
operators.register(cuda, "CUDA")

__all__ = ["LayerReport", "PackedConv1d", "PackedConv2d", "PackedLinear", "Report", "pack", "report"]
