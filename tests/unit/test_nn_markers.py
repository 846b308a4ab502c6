"""The marker operators: real kernels, fake kernels, and when they appear."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim

from onebit.nn import BinaryLinear, ScalePixels, SteSign, markers


def export(module: nn.Module, x: torch.Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(module.eval(), (x,), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_sign_kernel(dtype: torch.dtype) -> None:
    x = torch.tensor([[-0.0, 0.0, 1e-38], [-1e-38, 5.0, -5.0]], dtype=dtype)
    y = torch.ops.onebit.sign(x)
    assert y.dtype == dtype
    assert y.tolist() == [[1, 1, 1], [-1, 1, -1]]


def test_operators_pass_pytorchs_own_check() -> None:
    """Schema, fake kernels (shape, dtype, strides) and aliasing, as torch.library.opcheck sees them."""
    tests = ("test_schema", "test_faketensor")
    for x in (
        torch.randn(3, 5),
        torch.randn(5, 3).T,
        torch.randn(4, dtype=torch.bfloat16),
        torch.zeros(0, 3),
    ):
        torch.library.opcheck(torch.ops.onebit.sign.default, (x,), test_utils=tests)
    for x in (torch.zeros(3, 5, dtype=torch.uint8), torch.zeros(5, 3, dtype=torch.uint8).T):
        torch.library.opcheck(torch.ops.onebit.scale_pixels.default, (x,), test_utils=tests)


def test_markers_are_off_outside_export() -> None:
    assert not markers.emits_markers()


def test_markers_are_off_under_compile() -> None:
    torch.compiler.reset()
    seen = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        seen.append(graph)
        return graph.forward

    module = nn.Sequential(ScalePixels(), SteSign(), BinaryLinear(5, 3, input_quantizer=None))
    x = torch.randint(0, 256, (4, 5), dtype=torch.uint8)
    y = torch.compile(module, backend=backend, fullgraph=True)(x)
    y.sum().backward()
    assert len(seen) == 1
    assert "onebit" not in seen[0].code
    assert module[2].weight.grad.count_nonzero() > 0


def test_export_emits_them_and_the_program_runs() -> None:
    module = nn.Sequential(ScalePixels(), SteSign(), BinaryLinear(5, 3))
    x = torch.randint(0, 256, (4, 5), dtype=torch.uint8)
    program = export(module, x).run_decompositions({})
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(torch.ops.onebit.scale_pixels.default) == 1
    assert targets.count(torch.ops.onebit.sign.default) == 3
    assert torch.equal(program.module()(x), module(x))


def test_export_of_a_scaled_layer_keeps_scale_and_bias_apart() -> None:
    module = BinaryLinear(5, 3, weight_scale="learned", bias=True)
    targets = [n.target for n in export(module, torch.randn(4, 5)).run_decompositions({}).graph.nodes]
    order = [torch.ops.aten.linear.default, torch.ops.aten.mul.Tensor, torch.ops.aten.add.Tensor]
    assert [t for t in targets if t in order] == order


def test_exported_program_survives_saving(tmp_path) -> None:
    module = nn.Sequential(ScalePixels(), BinaryLinear(5, 3))
    x = torch.randint(0, 256, (4, 5), dtype=torch.uint8)
    torch.export.save(export(module, x), tmp_path / "program.pt2")
    assert torch.equal(torch.export.load(tmp_path / "program.pt2").module()(x), module(x))


def test_training_still_works_after_an_export() -> None:
    module = BinaryLinear(5, 3)
    export(module, torch.randn(4, 5))
    module.train()
    module(torch.randn(4, 5)).sum().backward()
    assert module.weight.grad.count_nonzero() > 0
