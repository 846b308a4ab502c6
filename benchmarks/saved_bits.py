"""Training that saves bits for its backward pass beside plain PyTorch: memory, step time, gradients.

    .venv/bin/python benchmarks/saved_bits.py [MODEL] [--batch 50] [--threads 1] [--device cpu]

Both networks have the same weights and see the same batch; their steps (forward, loss, backward) take turns.
Bytes are those of the storages that autograd holds between forward and backward, inputs and parameters
left out.
"""

from __future__ import annotations

import argparse
import copy
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from onebit import models
from onebit.bench import describe_machine, package_versions
from onebit.nn import save_bits_, square_hinge


def step(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Seconds of one forward and backward pass; the gradients stay in the parameters."""
    model.zero_grad(set_to_none=True)
    if x.is_cuda:
        torch.cuda.synchronize()
    start = perf_counter()
    square_hinge(model(x), labels).backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    return perf_counter() - start


def saved_bytes(model: nn.Module, x: Tensor, labels: Tensor) -> int:
    """What autograd keeps for the backward pass of one step."""
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), x, labels]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            kept[address] = tensor  # held, so that no later storage gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        square_hinge(model(x), labels)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def main() -> None:
    """Print one line a network, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", default="bnn_convnet_cifar10")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    eager = models.create(arguments.model).to(arguments.device).train()
    x = torch.randint(0, 256, (arguments.batch, *eager.input_shape), dtype=torch.uint8).to(arguments.device)
    labels = torch.randint(0, 10, (arguments.batch,)).to(arguments.device)
    lean = copy.deepcopy(eager)
    changed = save_bits_(lean, x[:2])
    for key, value in {**describe_machine(), **package_versions()}.items():
        print(f"# {key}: {value}")
    print(f"{arguments.model}, batch {arguments.batch}, {arguments.threads} thread(s), {arguments.device}")
    print(f"{len(changed)} modules save less")
    contenders = {"plain PyTorch": eager, "saved as bits": lean}
    for model in contenders.values():
        step(model, x, labels)
    pairs = zip(eager.parameters(), lean.parameters(), strict=True)
    equal = all(torch.equal(p.grad, q.grad) for p, q in pairs if p.grad is not None and q.grad is not None)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(arguments.rounds):
        for name, model in contenders.items():
            times[name].append(step(model, x, labels))
    sizes = {name: saved_bytes(model, x, labels) for name, model in contenders.items()}
    for name in contenders:
        print(f"  {name:14} {sizes[name] / 1e6:9.2f} MB saved   {median(times[name]) * 1e3:9.1f} ms a step")
    plain, saved = contenders
    memory, time = sizes[plain] / sizes[saved], median(times[saved]) / median(times[plain])
    gradients = "equal" if equal else "DIFFERENT"
    print(f"  {memory:.2f}× less memory, the step takes {time:.3f}× as long, gradients {gradients}")


if __name__ == "__main__":
    main()
