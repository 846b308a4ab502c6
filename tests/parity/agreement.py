"""How a converted network is compared with PyTorch. The two rules are those of docs/numerics.md.

Rule 1, exact: where every path to a sign is integer, or where all float sums are of dyadic numbers and hence
exact in any order, results are compared with ==.
Rule 2, tolerance: elsewhere each product of matrices meets its stated tolerance on identical inputs, and a
sign may differ only where its argument lies within what that tolerance leaves open. Flips are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onebit.nn import quantizers
from onebit.program import DType, Node, Program, execute, unpack_bits
from onebit.program.ops.facts import FloatKind
from onebit.runtime import Engine, available_isas

Array = np.ndarray[Any, Any]
Executor = Callable[..., list[Array]]
_QUANTIZERS = (quantizers.SteSign, quantizers.ApproxSign, quantizers.StochasticSign)
EPSILON = 2.0**-24  # half an ulp of float32, relative


def _reference(program: Program, *inputs: Array) -> list[Array]:
    results = execute(program, *inputs)
    return [results[name] for name in program.outputs]


def _engine(isa: str, threads: int) -> Executor:
    """Each sample once for each thread, so that all have work where the batch is a single row."""

    def run(program: Program, *inputs: Array) -> list[Array]:
        found = Engine(program, isa=isa, threads=threads)(*(np.concatenate([x] * threads) for x in inputs))
        results = list(found) if isinstance(found, tuple) else [found]
        parts = [np.split(result, threads) for result in results]
        assert all(part.tobytes() == first.tobytes() for first, *rest in parts for part in rest)
        return [first for first, *_ in parts]

    return run


# Everything that can run a Program. A further one is one more line.
EXECUTORS: dict[str, Executor] = {"reference": _reference}
EXECUTORS |= {f"{isa}, threads {n}": _engine(isa, n) for isa in available_isas() for n in (1, 2)}


def run_everywhere(program: Program, *inputs: Array) -> Iterator[tuple[str, list[Array]]]:
    """(executor's name, outputs) for each executor."""
    for name, executor in EXECUTORS.items():
        yield name, executor(program, *inputs)


def eager(model: nn.Module, *inputs: Tensor) -> list[Array]:
    """What PyTorch computes: float32, eager, CPU, eval."""
    with torch.no_grad():
        results = model(*inputs)
    return [r.numpy() for r in (results if isinstance(results, (tuple, list)) else [results])]


def assert_equal(model: nn.Module, program: Program, *inputs: Tensor) -> None:
    """Rule 1: each executor's outputs == PyTorch's, element for element."""
    expected = eager(model, *inputs)
    for name, found in run_everywhere(program, *(x.numpy() for x in inputs)):
        assert len(found) == len(expected), name
        for position, (a, b) in enumerate(zip(expected, found, strict=True)):
            assert a.shape == b.shape, (name, position, a.shape, b.shape)
            wrong = np.argwhere(a != b)
            assert not len(wrong), (
                f"{name}, output {position}: {len(wrong)} of {a.size} differ, first at {tuple(wrong[0])}: "
                f"PyTorch {a[tuple(wrong[0])]!r}, {name} {b[tuple(wrong[0])]!r}"
            )


def sign_outputs(program: Program) -> list[str]:
    """Names of the values that are signs, in the order in which they are computed."""
    return [node.output for node in program.nodes if node.op in ("sign", "threshold")]


def eager_signs(model: nn.Module, *inputs: Tensor) -> list[Array]:
    """The output of every quantizer of activations, in the order in which PyTorch ran them."""
    weights = {id(m.weight_quantizer) for m in model.modules() if hasattr(m, "weight_quantizer")}
    seen: list[Array] = []
    hooks = [
        module.register_forward_hook(lambda m, args, out: seen.append(out.numpy().copy()))
        for module in model.modules()
        if isinstance(module, _QUANTIZERS) and id(module) not in weights
    ]
    with torch.no_grad():
        model(*inputs)
    for hook in hooks:
        hook.remove()
    return seen


def assert_hidden_bits_equal(model: nn.Module, program: Program, *inputs: Tensor) -> int:
    """Rule 1 for every sign inside the network; returns how many signs were compared."""
    names = sign_outputs(program)
    expected = eager_signs(model, *inputs)
    assert len(names) == len(expected)
    compared = 0
    if names:
        for executor, found in run_everywhere(program.with_outputs(*names), *(x.numpy() for x in inputs)):
            for name, a, b in zip(names, expected, found, strict=True):
                b = np.moveaxis(b, -1, 1) if b.ndim == 4 else b  # images are channels last in a Program
                assert np.array_equal(a.reshape(len(a), -1), b.reshape(len(b), -1)), (executor, name)
                compared += a.size
    return compared


@dataclass
class Flips:
    """Outcome of a comparison by rule 2."""

    signs: int = 0
    flipped: int = 0
    open: int = 0  # signs whose argument lies within the tolerance


def assert_within_tolerance(program: Program, executor: Executor, *inputs: Array) -> Flips:
    """Rule 2: run `program` on `executor`, and every node again in PyTorch.

    Inputs and bits are taken from the executor's own run, so that one flip does not spread. Float values
    carry a bound on the distance that two orders of summation can put between them; outputs must stay
    within it, and signs must agree wherever the argument is farther from 0 than it.
    """
    names = [node.output for node in program.nodes]
    found = dict(zip(names, executor(program.with_outputs(*names), *inputs), strict=True))
    values: dict[str, tuple[Tensor, Tensor]] = {}  # name -> (PyTorch's value, bound)
    for name, array in zip(program.inputs, inputs, strict=True):
        values[name] = (torch.from_numpy(array).float(), torch.zeros(array.shape))
    flips = Flips()
    for node in program.nodes:
        value, bound = _in_torch(program, node, values)
        ours = torch.from_numpy(found[node.output]).float()
        if program.values[node.output].dtype is DType.F32:
            assert bool(((ours - value).abs() <= bound).all()), f"{node.op} of layer {node.layer!r}"
            values[node.output] = (value, bound)
            continue
        if node.op == "sign":
            argument, slack = values[node.inputs[0]]
            differs, near = ours != value, argument.abs() <= slack
            assert bool(near[differs].all()), f"a flip outside the tolerance in {node.layer!r}"
            flips.signs += value.numel()
            flips.flipped += int(differs.sum())
            flips.open += int(near.sum())
        else:
            assert torch.equal(ours, value), f"{node.op} of layer {node.layer!r}"
        values[node.output] = (ours, torch.zeros(ours.shape))
    return flips


def _constant(program: Program, name: str) -> Tensor:
    constant = program.constants[name]
    if constant.type.dtype is DType.BITS:
        signs = np.where(unpack_bits(constant.array, constant.type.channels), 1.0, -1.0)
        return torch.from_numpy(signs.astype(np.float32))
    return torch.from_numpy(constant.array.copy())


def _in_torch(
    program: Program, node: Node, values: dict[str, tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """One node on PyTorch: (result, bound on the difference to any other order of summation)."""
    operands = [values.get(n) or (_constant(program, n), torch.zeros(())) for n in node.inputs]
    (x, dx), rest = operands[0], operands[1:]
    match node.op:
        case "f32_gemm" | "f32_binary_gemm":
            w = rest[0][0]
            own = 2 * (x.shape[-1] + 1) * EPSILON * (x.abs() @ w.abs().T)  # two orders, each this/2 off
            return x @ w.T, dx @ w.abs().T + own
        case "f32_conv2d" | "f32_binary_conv2d":
            w = rest[0][0]
            size, spread = (_convolved(node, v.abs(), w.abs()) for v in (x, dx))
            return _convolved(node, x, w), spread + 2 * (w[0].numel() + 1) * EPSILON * size
        case "binary_conv2d":
            return _convolved(node, x, rest[0][0]), torch.zeros(())
        case "u8_conv2d":
            scaled = x * node.attrs["multiplier"] + node.attrs["offset"]
            return _convolved(node, scaled, rest[0][0]), torch.zeros(())
        case "max_pool2d":
            return _pooled(node, x, "max"), _pooled(node, dx, "max")
        case "avg_pool2d":
            own = 2 * (prod(node.attrs["kernel"]) + 2) * EPSILON * _pooled(node, x.abs(), "avg")
            return _pooled(node, x, "avg"), _pooled(node, dx, "avg") + own
        case "channel_mean":
            own = 2 * (x.shape[-1] + 2) * EPSILON * x.abs().mean(-1, keepdim=True)
            return x.mean(-1, keepdim=True), dx.mean(-1, keepdim=True) + own
        case "abs":
            return x.abs(), dx
        case "concat":
            return torch.cat([v for v, _ in operands], -1), torch.cat([d for _, d in operands], -1)
        case "permute":
            axes = (0, *(axis + 1 for axis in node.attrs["axes"]))
            return x.permute(axes), dx.permute(axes)
        case "binary_gemm":
            return x @ rest[0][0].T, dx[..., :1]
        case "u8_gemm":
            return (x * node.attrs["multiplier"] + node.attrs["offset"]) @ rest[0][0].T, dx[..., :1]
        case "affine":
            scale, shift = rest[0][0], rest[1][0]
            y = (x.double() * scale.double() + shift.double()).float()
            return y, dx * scale.abs() + 4 * EPSILON * (y.abs() + dx * scale.abs())
        case "add" | "sub" | "mul" | "div":
            return _arithmetic(node.op, x, dx, *rest[0])
        case "prelu":
            slope = rest[0][0]
            bound = dx * slope.abs().clamp(min=1) + 4 * EPSILON * x.abs()
            return torch.where(x >= 0, x, slope * x), bound
        case "relu" | "hardtanh":
            return x.clamp(node.attrs.get("min", 0.0), node.attrs.get("max", float("inf"))), dx
        case _ if node.facts.float_form.kind is FloatKind.FUNCTION:
            return _function(node, x, dx)
        case "sign":
            return torch.where(x >= 0, 1.0, -1.0), torch.zeros(x.shape)
        case "threshold":
            return torch.where((x >= rest[0][0]) != (rest[1][0] > 0), 1.0, -1.0), torch.zeros(x.shape)
        case "to_float":
            return x, dx
        case "scale_pixels":
            return (2 * x - 255) / 256, dx
        case "reshape":
            return x.reshape(len(x), *node.attrs["shape"]), dx.reshape(len(x), *node.attrs["shape"])
    raise NotImplementedError(node.op)


def _convolved(node: Node, x: Tensor, w: Tensor) -> Tensor:
    """x (B, H, W, C) and w (N, KH, KW, C/g), in the Program's layout, by PyTorch's own convolution."""
    padding, fill = node.attrs["padding"], float(node.attrs.get("padding_value", 0))
    top, bottom, left, right = padding
    image = F.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom), value=fill)
    attrs = {name: node.attrs[name] for name in ("stride", "dilation", "groups")}
    return F.conv2d(image, w.permute(0, 3, 1, 2), **attrs).permute(0, 2, 3, 1)


def _pooled(node: Node, x: Tensor, kind: str) -> Tensor:
    """x (B, H, W, C), by PyTorch's own pools on an image padded beforehand."""
    top, bottom, left, right = node.attrs["padding"]
    pads = (left, right, top, bottom)
    kernel, stride = node.attrs["kernel"], node.attrs["stride"]
    image = x.permute(0, 3, 1, 2)
    if kind == "max":
        padded = F.pad(image, pads, value=-float("inf"))
        y = F.max_pool2d(padded, kernel, stride, dilation=node.attrs["dilation"])
    else:
        y = F.avg_pool2d(F.pad(image, pads), kernel, stride)
        if not node.attrs["count_include_pad"]:
            y = y / F.avg_pool2d(F.pad(torch.ones_like(image[:1]), pads), kernel, stride)
    return y.permute(0, 2, 3, 1)


def _function(node: Node, x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    """PyTorch's function; where x is not certain, a slope of at most 2 (seen at x) carries it on."""
    function = attrgetter(node.facts.float_form.torch)(torch)
    at = x.clone().requires_grad_()
    y = function(at, *node.attrs.values())
    (slope,) = torch.autograd.grad(y.sum(), at)
    assert bool((slope.abs() <= 2).all()), f"{node.op} rises by more than 2 to 1"
    y = y.detach()
    return y, torch.where(dx > 0, 2 * dx + 8 * EPSILON * (y.abs() + 2 * dx), 0.0)


def _arithmetic(op: str, a: Tensor, da: Tensor, b: Tensor, db: Tensor) -> tuple[Tensor, Tensor]:
    y: Tensor = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}[op](a, b)
    if op == "mul":
        spread = da * b.abs() + db * a.abs() + da * db
    elif op == "div":
        # a'/b' − a/b = ((a' − a) − (a/b)·(b' − b)) / b', and |b'| >= |b| − db
        assert bool((b.abs() > db).all()), "a divisor within its tolerance of 0 leaves the quotient open"
        spread = (da + y.abs() * db) / (b.abs() - db)
    else:
        spread = da + db
    return y, torch.where(spread > 0, spread + 4 * EPSILON * (y.abs() + spread), 0.0).expand(y.shape)
