"""Models inside torch's wrappers: convert, pack and binarize take what is inside, or name it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import onebit
from onebit.nn import BinaryLinear, binarize


@pytest.fixture
def one_process() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(BinaryLinear(40, 33), nn.BatchNorm1d(33), BinaryLinear(33, 4)).eval()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("wrap", [DistributedDataParallel, nn.DataParallel])
def test_convert_and_pack(wrap: type[nn.Module]) -> None:
    net, x = network(), torch.randn(5, 40)
    want = net(x)
    for wrapped in (wrap(net), torch.compile(wrap(net)), wrap(torch.compile(net))):
        program = onebit.convert(wrapped.eval(), x)
        assert program.metadata["name"] == "Sequential"
        assert torch.equal(torch.from_numpy(onebit.Engine(program)(x.numpy())), want)
    packed = onebit.pack(wrap(net).eval())
    assert type(packed) is nn.Sequential
    with torch.inference_mode():
        assert torch.equal(packed(x), want)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("wrap", [DistributedDataParallel, nn.DataParallel])
def test_binarize(wrap: type[nn.Module]) -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    wrapped, x = wrap(net), torch.randn(3, 64)
    assert torch.equal(binarize(wrapped, example=x)(x), binarize(net, example=x)(x))
    assert type(net[2]) is nn.Linear
    with pytest.raises(TypeError, match=r"binarize its \.module in place"):
        binarize(wrapped, inplace=True)


@pytest.mark.usefixtures("one_process")
def test_a_wrapper_further_in_is_named() -> None:
    x = torch.randn(3, 40)
    model = nn.Sequential(DistributedDataParallel(network()), BinaryLinear(4, 4)).eval()
    with pytest.raises(onebit.ConversionError, match=r"layer '0' \(DistributedDataParallel\).*put 0\.module"):
        onebit.convert(model, x)
    for tool in (onebit.pack, binarize):
        with pytest.raises(TypeError, match=r"0.* is a DistributedDataParallel: put 0\.module"):
            tool(model)
    model = nn.Sequential(nn.DataParallel(network()), BinaryLinear(4, 4)).eval()
    want = model(x)
    assert torch.equal(torch.from_numpy(onebit.Engine(onebit.convert(model, x))(x.numpy())), want)
    with torch.inference_mode():
        assert torch.equal(onebit.pack(model)(x), want)
