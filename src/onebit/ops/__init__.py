"""Torch operators on packed bits, and `pack`: the binary layers of any PyTorch model → packed ones."""

from __future__ import annotations

from onebit.needs_torch import torch  # noqa: F401

# isort: split
from onebit.ops import cpu, cuda, operators, plain, prepared
from onebit.ops.layers import PackedConv1d, PackedConv2d, PackedLinear
from onebit.ops.pack_model import pack
from onebit.ops.report import PackLayerReport, PackReport, report

for _key, _backend in (("CPU", cpu), ("CUDA", cuda)):
    _products = prepared.Products(_backend)
    operators.register("pack_bits", _backend.pack_bits, _key)
    operators.register("unpack_bits", plain.unpack_bits, _key)
    for _name in operators.PRODUCTS:
        operators.register(_name, getattr(_products, _name), _key)

__all__ = ["PackLayerReport", "PackReport", "PackedConv1d", "PackedConv2d", "PackedLinear", "pack", "report"]
