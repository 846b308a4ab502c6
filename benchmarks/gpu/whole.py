"""Speed of whole networks beside PyTorch: the second half of item 2, and item 3 of the table."""

from __future__ import annotations

from typing import Any

import torch
from peers import TorchNetwork
from products import all_calls, unoptimized_call
from setup import Setup

import onebit
from onebit.bench.random_model import random_program
from onebit.program import Program
from onebit.runtime.cuda.engine.cuda_engine import CudaEngine


def images(setup: Setup, program: Program, batch: int) -> torch.Tensor:
    """Random pixels for a network of one u8 input."""
    (name,) = program.inputs
    shape = (batch, *program.values[name].shape)
    drawn = torch.randint(0, 256, shape, generator=setup.generator, device=setup.where)
    return drawn.to(torch.uint8)


def mnist_program(hidden: int) -> Program:
    """The paper's MLP with random signs; BatchNorm statistics leave every sign undecided."""
    torch.manual_seed(0)
    model = onebit.models.create("bnn_mlp", hidden=(hidden,) * 3)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d) and module.running_mean is not None:
            module.running_mean.normal_(0, 8)
    return onebit.convert(model.eval(), torch.zeros(1, 1, 28, 28, dtype=torch.uint8))


def engine_of(setup: Setup, program: Program) -> CudaEngine:
    """As onebit.Engine(program, device="cuda"), but on the device of the run, and without looking for NaN."""
    return CudaEngine(program, device=setup.device, trust_inputs=True)


def engine_seconds(setup: Setup, engine: CudaEngine, batches: list[torch.Tensor]) -> float:
    """Seconds a batch."""
    return setup.seconds([lambda x=x: engine(x) for x in batches], 1.0)  # type: ignore[misc]


def torch_seconds(
    setup: Setup,
    program: Program,
    batches: list[torch.Tensor],
    dtype: torch.dtype,
    *,
    last: bool,
    compiled: bool,
) -> float:
    """Seconds a batch of the same network in PyTorch, pixels scaled before."""
    network = TorchNetwork(program, dtype, setup.where, last)
    feeds = [network.prepare(x, dtype) for x in batches]
    call: Any = network
    with torch.inference_mode():
        if compiled and not setup.dry:
            # Not dynamic: another network, compiled before, must not make this one's sizes variables.
            call = torch.compile(network, dynamic=False)
            try:
                call(feeds[0])
            except Exception as error:  # whatever the compiler and its own compiler say
                setup.record.check("torch.compile works", False, f"eager instead: {error}"[:200])
                call = network
        return setup.seconds([lambda x=x: call(x) for x in feeds], 1.0)  # type: ignore[misc]


def unoptimized_seconds(setup: Setup, program: Program, batch: int) -> float:
    """Seconds of the MLP with the unoptimized kernel for products and PyTorch for what is between."""
    network = TorchNetwork(program, torch.float32, setup.where, False)
    linears = [own for op, own in zip(network.network.ops, network.own, strict=True) if op.kind == "linear"]
    calls = []
    x = setup.signs(batch, linears[0]["weight"].shape[1]).float()
    for own in linears:
        weights = own["weight"].t().contiguous()
        out = torch.empty(batch, weights.shape[1], device=setup.where)
        calls.append(unoptimized_call(setup, x, weights, out))
        bias = own.get("bias", torch.zeros(1, device=setup.where))
        calls.append(lambda out=out, bias=bias: out.add_(bias).clamp_(-1, 1))  # type: ignore[misc]
        x = out
    return setup.seconds([all_calls(calls)], 1.5)


def same_predictions(
    setup: Setup, program: Program, engine: CudaEngine, count: int, exact: bool = True
) -> None:
    """Images through the engine and through PyTorch float32: the same class for each.

    Not `exact`: float sums stand before a sign, so the share of equal predictions is told and not judged.
    """
    pixels = images(setup, program, count)
    network = TorchNetwork(program, torch.float32, setup.where, channels_last=False)
    with torch.inference_mode():
        expected = network(network.prepare(pixels, torch.float32)).argmax(1)
    got = engine(pixels).argmax(1)
    differ = int((got != expected).sum())
    name = f"{program.metadata.get('name', 'MNIST 3×4096')}, the same predictions, {count:,} images"
    note = f"{differ} differ; {len(got.unique())} classes seen"
    if exact:
        setup.record.check(name, differ == 0, note)
    else:
        setup.record.number(name, 1 - differ / count, "", note=note)


def run_mnist(setup: Setup) -> None:
    """The section `mnist`."""
    record = setup.record
    program = mnist_program(setup.size(4096, 40))
    engine = engine_of(setup, program)
    same_predictions(setup, program, engine, setup.size(10_000, 8))
    batch = setup.size(65_536, 4)
    batches = [images(setup, program, batch) for _ in range(2)]
    ours = engine_seconds(setup, engine, batches)
    record.number(
        f"MNIST 3×4096, batch {batch}", batch / ours * 1e-6, "M images/s", note=f"{ours * 1e3:.3f} ms"
    )
    for dtype, bar in ((torch.float32, 60.0), (torch.bfloat16, 4.0)):
        seconds = torch_seconds(setup, program, batches, dtype, last=False, compiled=True)
        name = f"cuBLAS {str(dtype).removeprefix('torch.')}"
        record.number(
            f"MNIST, batch {batch}, over {name}", seconds / ours, "×", bar=bar, note=f"{seconds * 1e3:.2f} ms"
        )
    part = batch // setup.size(8, 1)  # the time is proportional to the batch
    seconds = unoptimized_seconds(setup, program, part) * batch / part
    note = f"{seconds * 1e3:.1f} ms, from a batch of {part}"
    record.number(
        f"MNIST, batch {batch}, over the unoptimized kernel", seconds / ours, "×", bar=300, note=note
    )
    single(setup, program, engine)


def single(setup: Setup, program: Program, engine: CudaEngine) -> None:
    """Batch 1: both captured in CUDA graphs, and ours called as a user calls it."""
    batches = [images(setup, program, 1) for _ in range(4)]
    ours = engine_seconds(setup, engine, batches)
    seconds = torch_seconds(setup, program, batches, torch.bfloat16, last=False, compiled=True)
    note = f"{ours * 1e6:.2f} µs against {seconds * 1e6:.2f} µs"
    setup.record.number(
        "MNIST, batch 1, over PyTorch bfloat16, both in graphs", seconds / ours, "×", bar=1, note=note
    )
    if setup.where.type == "cuda":
        called = setup.event_seconds(lambda: engine(batches[0]), 1, 0.5)
        setup.record.number("MNIST, batch 1, a call from Python", called * 1e6, "µs")


def run_images(setup: Setup) -> None:
    """The section `images`: item 3. A dry run takes one network, small enough for the emulator."""
    networks = {"lenet5_xnor": 0.0} if setup.dry else {"bnn_convnet_cifar10": 4.0, "birealnet18": 2.0}
    for name, bar in networks.items():
        program = random_program(name)
        engine = engine_of(setup, program)
        batch = setup.size(1024, 1)
        batches = [images(setup, program, batch) for _ in range(2)]
        same_predictions(setup, program, engine, batch, exact=name == "bnn_convnet_cifar10")
        ours = engine_seconds(setup, engine, batches)
        note = f"{ours * 1e3:.3f} ms"
        setup.record.number(f"{name}, batch {batch}", batch / ours, "images/s", note=note)
        seconds = torch_seconds(setup, program, batches, torch.bfloat16, last=True, compiled=True)
        text = f"{name} over PyTorch bfloat16, compiled"
        setup.record.number(text, seconds / ours, "×", bar=bar, note=f"{seconds * 1e3:.3f} ms")
        engine.close()
