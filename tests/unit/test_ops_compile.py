"""Packed models under torch.compile: one graph, and the numbers of eager mode."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import onebit
from onebit.nn import BinaryConv1d, BinaryConv2d, BinaryLinear, RSign
from onebit.ops import prepared


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(7)
    torch._dynamo.reset()
    yield
    torch.set_num_threads(threads)


class Mixed(nn.Module):
    """Every kind of packed layer, with PyTorch's own between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = BinaryConv2d(5, 33, 3, padding=1, weight_scale="learned", input_scale="xnor", bias=True)
        self.down = BinaryConv2d(33, 8, 3, stride=2, padding=1, padding_value=-1, input_quantizer=RSign(33))
        self.line = BinaryConv1d(8, 6, 3, padding=1, bias=True)
        self.real = BinaryLinear(6, 31, input_quantizer=None)
        self.head = BinaryLinear(31, 4, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(torch.relu(self.conv(x)))
        x = self.line(x.flatten(2)).transpose(1, 2)
        return self.head(self.real((x > 0).to(x.dtype)).squeeze(1))


def packed_model() -> nn.Module:
    model = Mixed().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_()
    return onebit.pack(model, real_inputs="pack")


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_one_graph_and_the_same_numbers(backend: str) -> None:
    packed = packed_model()
    compiled = torch.compile(packed, fullgraph=True, backend=backend)
    with torch.no_grad():
        for shape in ((2, 5, 8, 8), (3, 5, 8, 8), (3, 5, 6, 10)):
            x = torch.randn(shape)
            assert torch.equal(compiled(x), packed(x))


def test_inductor_with_sizes_that_change() -> None:
    packed = packed_model()
    compiled = torch.compile(packed, fullgraph=True, dynamic=True)
    prepared._prepared.clear()
    with torch.inference_mode():
        for batch in (2, 5):
            x = torch.randn(batch, 5, 8, 8)
            y = compiled(x)
            # α, K and the bias are one operation each, which inductor does not contract.
            assert torch.equal(y, packed(x))
    # Compiled and eager runs found each other's prepared weights: the same tensors come to the operators.
    assert len(prepared._prepared) == len(list(packed.children()))


def test_a_compiled_model_says_that_it_has_no_gradients() -> None:
    packed = onebit.pack(nn.Sequential(BinaryLinear(40, 8)).eval())
    compiled = torch.compile(packed, fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="onebit::binary_matmul is for inference and has no gradient"):
        compiled(torch.randn(3, 40, requires_grad=True))


def test_an_exported_model_runs() -> None:
    packed = packed_model()
    x = torch.randn(2, 5, 8, 8)
    exported = torch.export.export(packed, (x,))
    targets = {str(node.target) for node in exported.graph.nodes}
    assert {"onebit.binary_conv2d.default", "onebit.binary_matmul.default"} <= targets
    with torch.no_grad():
        assert torch.equal(exported.module()(x), packed(x))
