"""What a user of a float runtime would fold before timing. Values stay, up to float32 rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onebit.export.float_ops import FloatNetwork, FloatOp, spread, use_counts
from onebit.program.tensors import FloatArray

_PRODUCTS = ("linear", "conv")


def fold(network: FloatNetwork) -> FloatNetwork:
    """Affines into products, affines and clamps before a max-pool, scaling of inputs to the caller."""
    ops = _without_reshapes(list(network.ops), network)
    while (folded := _fold_once(ops, network)) is not None:
        ops = folded
    ops, prepared = _peel_inputs(ops, network)
    shapes = {name: network.shapes[name] for name in network.inputs}
    shapes.update((op.output, network.shapes[op.output]) for op in ops)
    return FloatNetwork(network.inputs, network.outputs, tuple(ops), shapes, prepared)


def _without_reshapes(ops: list[FloatOp], network: FloatNetwork) -> list[FloatOp]:
    """No reshape of a reshape, and none that changes nothing, save where an output only repeats a value."""
    made: dict[str, FloatOp] = {}
    alias: dict[str, str] = {}
    kept: list[FloatOp] = []
    for op in ops:
        op = replace(op, inputs=tuple(alias.get(name, name) for name in op.inputs))
        source = made.get(op.inputs[0])
        if op.kind == "reshape" and source is not None and source.kind == "reshape":
            op = replace(op, inputs=source.inputs)
        same = op.kind == "reshape" and network.shapes[op.inputs[0]] == network.shapes[op.output]
        if same and op.output not in network.outputs:
            alias[op.output] = op.inputs[0]
            continue
        kept.append(op)
        made[op.output] = op
    return _name_outputs(kept, network)


def _name_outputs(ops: list[FloatOp], network: FloatNetwork) -> list[FloatOp]:
    """Values that nobody reads go; a value that an output only repeats takes the output's name."""
    needed = set(network.outputs)
    for op in reversed(ops):
        if op.output in needed:
            needed.update(op.inputs)
    ops = [op for op in ops if op.output in needed]
    fixed = {*network.inputs, *network.outputs}
    names: dict[str, str] = {}
    kept = []
    for op in ops:
        source = op.inputs[0]
        same = op.kind == "reshape" and network.shapes[source] == network.shapes[op.output]
        if same and op.output in network.outputs and source not in fixed and source not in names:
            names[source] = op.output
        else:
            kept.append(op)
    return [
        replace(op, inputs=tuple(names.get(n, n) for n in op.inputs), output=names.get(op.output, op.output))
        for op in kept
    ]


def _fold_once(ops: list[FloatOp], network: FloatNetwork) -> list[FloatOp] | None:
    """The ops after the first fold that applies; None where none does."""
    uses = use_counts(ops, network.outputs)
    made = {op.output: place for place, op in enumerate(ops)}
    for place, op in enumerate(ops):
        source = made.get(op.inputs[0])
        if source is None or len(op.inputs) != 1 or uses[op.inputs[0]] != 1:
            continue
        before = ops[source]
        if op.kind == "affine" and (merged := _merged(before, op, network)) is not None:
            return [*ops[:source], *ops[source + 1 : place], merged, *ops[place + 1 :]]
        first = made.get(before.inputs[0])
        if before.kind != "max_pool" or first is None or uses[before.inputs[0]] != 1:
            continue
        if ops[first].kind == "conv" and _rises(op):
            swapped = _swapped(before, op, network)
            return [*ops[:source], *swapped, *ops[source + 1 : place], *ops[place + 1 :]]
    return None


def _rises(op: FloatOp) -> bool:
    return op.kind == "signum" or (op.kind == "affine" and bool((op.arrays["scale"] > 0).all()))


def _merged(before: FloatOp, op: FloatOp, network: FloatNetwork) -> FloatOp | None:
    """`before` and the affine after it as one op."""
    scale, shift = (op.arrays[key].astype(np.float64) for key in ("scale", "shift"))
    if before.kind == "affine" and before.attrs["axis"] == op.attrs["axis"]:
        moved = before.arrays["shift"] * scale + shift
        arrays = {"scale": before.arrays["scale"] * scale, "shift": moved}
    elif before.kind in _PRODUCTS and op.attrs["axis"] == _channels_of(before, network):
        weight = before.arrays["weight"]
        bias = before.arrays.get("bias", np.float32(0)) * scale + shift
        arrays = {"weight": weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), "bias": bias}
    else:
        return None
    floats = {key: np.ascontiguousarray(array, dtype=np.float32) for key, array in arrays.items()}
    return replace(before, output=op.output, arrays=floats)


def _channels_of(product: FloatOp, network: FloatNetwork) -> int:
    return 0 if product.kind == "conv" else len(network.shapes[product.output]) - 1


def _swapped(pool: FloatOp, op: FloatOp, network: FloatNetwork) -> list[FloatOp]:
    """A rising function of every element commutes with the maximum; before the pool it joins the product."""
    inner = f"{op.output}.before_pool"
    network.shapes[inner] = network.shapes[pool.inputs[0]]
    first = replace(op, inputs=pool.inputs, output=inner)
    return [first, replace(pool, inputs=(inner,), output=op.output)]


def _peel_inputs(
    ops: list[FloatOp], network: FloatNetwork
) -> tuple[list[FloatOp], dict[str, tuple[FloatArray, FloatArray]]]:
    """An affine that alone reads an input is the caller's: pixels come scaled."""
    uses = use_counts(ops, network.outputs)
    prepared: dict[str, tuple[FloatArray, FloatArray]] = {}
    alias: dict[str, str] = {}
    kept = []
    for op in ops:
        op = replace(op, inputs=tuple(alias.get(name, name) for name in op.inputs))
        source = op.inputs[0]
        first = op.kind == "affine" and source in network.inputs and uses[source] == 1
        if first and op.output not in network.outputs:
            scale, shift = (spread(op.arrays[key], op, network.shapes) for key in ("scale", "shift"))
            prepared[source] = (scale, shift)
            alias[op.output] = source
        else:
            kept.append(op)
    return kept, prepared
