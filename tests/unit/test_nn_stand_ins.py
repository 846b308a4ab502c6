"""What binarize and pack put in a layer's place answers what that layer answered."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import onebit
from onebit.nn import BinaryConv1d, BinaryConv2d, BinaryLinear, binarize

CONV = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
)
ASKED = {
    nn.Linear: ("in_features", "out_features"),
    nn.Conv1d: (*CONV, "transposed", "output_padding"),
    nn.Conv2d: (*CONV, "transposed", "output_padding"),
}
LAYERS = [
    nn.Linear(64, 32),
    nn.Linear(64, 32, bias=False),
    nn.Conv1d(64, 32, 3, stride=2, padding=1, dilation=2, groups=2),
    nn.Conv1d(64, 32, 4, padding="same", bias=False),
    nn.Conv2d(64, 32, 3, stride=2, padding=(1, 0)),
    nn.Conv2d(64, 32, (3, 5), padding="same", dilation=(1, 2)),
    nn.Conv2d(64, 32, 3, padding="valid", groups=4, bias=False),
]


def answers(stand_in: nn.Module, layer: nn.Module) -> None:
    for name in ASKED[type(layer)]:
        assert getattr(stand_in, name) == getattr(layer, name), name
    for name in {*ASKED[nn.Linear], *ASKED[nn.Conv2d]} - {*ASKED[type(layer)]}:
        assert not hasattr(stand_in, name)
    weight: Tensor = stand_in.weight
    assert (weight.shape, weight.dtype, weight.device) == (
        layer.weight.shape,
        layer.weight.dtype,
        layer.weight.device,
    )
    assert (stand_in.bias is None) == (layer.bias is None)
    if layer.bias is not None:
        assert torch.equal(stand_in.bias, layer.bias)
    first = next(stand_in.parameters())
    assert (first.dtype, first.device) == (weight.dtype, weight.device)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("norm", ["batch", None])
def test_stand_ins_answer(layer: nn.Module, norm) -> None:
    binary = binarize(layer.eval(), keep_ends=False, norm=norm)
    assert hasattr(binary, "norm") == (norm is not None)
    answers(binary, layer)
    packed = onebit.pack(binary)
    answers(packed, layer)
    assert torch.equal(packed.weight, torch.where(binary.weight >= 0, 1.0, -1.0))
    for copied in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        answers(copied, layer)
        assert torch.equal(copied.weight, packed.weight)


def test_what_is_set_on_a_normed_layer_reaches_the_layer() -> None:
    binary = binarize(nn.Conv2d(64, 64, 3, stride=2, padding=1).eval(), keep_ends=False)
    x = torch.randn(2, 64, 9, 9)
    binary.stride, binary.dilation, binary.padding = (1, 1), (2, 2), (2, 2)  # as one dilates a ResNet
    assert binary(x).shape == x.shape
    binary.bias = None
    assert binary.product.bias is None
    weight = nn.Parameter(torch.ones_like(binary.weight))
    binary.weight = weight
    assert binary.product.weight is weight
    assert dict(binary.named_parameters()).keys() == {"norm.weight", "norm.bias", "product.weight"}
    with pytest.raises(AttributeError, match="'NormedLayer' object has no attribute 'strides'"):
        _ = binary.strides


def test_a_padding_that_is_set_is_checked_and_holds() -> None:
    layer = BinaryConv2d(3, 4, 4, padding="same")
    assert (layer.padding, layer.padding_before, layer.padding_after) == ("same", (1, 1), (2, 2))
    layer.padding = 1
    assert (layer.padding, layer.padding_before, layer.padding_after) == ((1, 1), (1, 1), (1, 1))
    assert layer(torch.randn(1, 3, 6, 6)).shape == (1, 4, 5, 5)
    with pytest.raises(ValueError, match="padding must be an integer"):
        layer.padding = (1, 2, 3)
    assert BinaryConv1d(3, 4, 3, padding_value=1).padding_mode == "constant"


class Asks(nn.Module):
    """As foreign code does: sizes from the layer, the dtype of the next layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(32, 32, 3, stride=2), nn.Linear(32, 64)

    def forward(self, x: Tensor) -> Tensor:
        by = self.conv.kernel_size[0] - self.conv.stride[0]
        x = self.conv(nn.functional.pad(x, (0, by, 0, by))).relu().mean((2, 3))
        return self.head(x.to(self.head.weight.dtype)) * self.head.weight.shape[0]


def test_code_that_asks_compiles_whole() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 32, 1), Asks(), nn.Linear(64, 2)).eval(), torch.randn(2, 3, 8, 8)
    binary = binarize(model, example=x)
    assert not isinstance(binary[1].conv, nn.Conv2d)  # whoever takes it for one would use latent weights
    packed = onebit.pack(binary)
    with torch.no_grad():
        want = binary(x)
        assert torch.equal(packed(x), want)
        for one in (binary, packed):
            assert torch.equal(torch.compile(one, backend="aot_eager", fullgraph=True)(x), want)


def test_a_packed_model_has_parameters_that_nobody_trains() -> None:
    model = nn.Sequential(BinaryLinear(64, 64), nn.BatchNorm1d(64, affine=False), BinaryLinear(64, 4)).eval()
    packed = onebit.pack(model)
    assert [p.requires_grad for p in packed.parameters()] == [False, False]
    assert sum(p.numel() for p in packed.parameters()) == 0  # the weights are bits
    assert set(packed.state_dict()) >= {"0.bits", "0.like", "2.bits"}
    other = onebit.pack(nn.Sequential(BinaryLinear(64, 64), model[1], BinaryLinear(64, 4)).eval())
    other.load_state_dict(packed.state_dict())
    x = torch.randn(3, 64)
    with torch.inference_mode():
        assert torch.equal(other(x), packed(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_packed_model_in_another_dtype(dtype: torch.dtype) -> None:
    """Computed in float32, with α and the bias as that dtype has rounded them."""
    torch.manual_seed(0)
    layer = BinaryLinear(64, 8, weight_scale="learned", bias=True).eval()
    assert layer.scale is not None
    assert layer.bias is not None
    with torch.no_grad():
        layer.bias.normal_()
    packed, x = onebit.pack(layer), torch.randn(3, 64)
    with torch.inference_mode():
        assert torch.equal(packed(x), layer(x))  # and so prepares its product
        packed = packed.to(dtype)
        assert packed.weight.dtype == next(packed.parameters()).dtype == dtype
        sums = torch.where(x >= 0, 1.0, -1.0) @ torch.where(layer.weight >= 0, 1.0, -1.0).T
        want = sums * layer.scale.to(dtype).float() + layer.bias.to(dtype).float()
        assert torch.equal(packed(x.to(dtype)), want.to(dtype))
