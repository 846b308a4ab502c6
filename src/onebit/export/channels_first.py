"""Where the values of a Program stand in a network whose images are [C, H, W], as PyTorch and ONNX have them.

A value of the Program stands there with its axes in some order: `Placed.axes[i]` is the Program's axis that
axis i holds. A permute only changes that order. Flattening an image leaves a vector in another order than the
Program's (`Placed.index`), which the next product takes into its columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import cast

import numpy as np
import numpy.typing as npt

from onebit.program import DType, Node, Program, unpack_bits
from onebit.program.tensors import Array

IMAGE = (2, 0, 1)  # channels, rows, columns of the Program's [H, W, C]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Placed:
    """Where a value of the Program is: the name it has there, the order of its axes, or of a flat vector."""

    name: str
    axes: tuple[int, ...]
    index: npt.NDArray[np.intp] | None = None


def moves_nothing(shape: Shape, axes: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """From one order of the axes to another no element moves: only axes of size 1 change place."""
    return [a for a in axes if shape[a] != 1] == [a for a in to if shape[a] != 1]


class ChannelsFirst(ABC):
    """Keeps track of layouts while a Program's nodes are written one by one; subclasses write."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.placed: dict[str, Placed] = {}
        self._moved: dict[tuple[str, tuple[int, ...]], str] = {}

    @abstractmethod
    def write_reshape(self, source: str, target: str, shape: Shape) -> str:
        """Write `target`: `source` with this shape of a sample. Returns the name it got."""

    @abstractmethod
    def write_transpose(self, source: str, target: str, shape: Shape, order: tuple[int, ...]) -> str:
        """Write `target`: axis i is axis order[i] of `source`, shape as it becomes. Returns its name."""

    @abstractmethod
    def write_take(self, source: str, target: str, shape: Shape, index: npt.NDArray[np.intp]) -> str:
        """Write `target`: the elements `index` of the vector `source`. Returns its name."""

    def shape(self, name: str) -> Shape:
        """A value's shape as the Program has it."""
        return self.program.values[name].shape

    def fresh(self, output: str) -> str:
        """The name for a value; an output's own name is kept for what is handed out."""
        return f"{output}.value" if output in self.program.outputs else output

    def to(self, name: str, axes: tuple[int, ...]) -> Placed:
        """The value with its axes in this order; moved there, once, if it is not."""
        placed, shape = self.placed[name], self.shape(name)
        if placed.index is not None:
            flat = (placed.name, placed.axes)
            if flat not in self._moved:
                back = np.argsort(placed.index)
                self._moved[flat] = self.write_take(placed.name, f"{placed.name}.ordered", shape, back)
            placed = Placed(self._moved[flat], placed.axes)
        if placed.axes == axes:
            return placed
        # Several values of the Program may be one value here, in other orders: the key is what moves where.
        order = tuple(placed.axes.index(axis) for axis in axes)
        key = (placed.name, order)
        if key not in self._moved:
            target = f"{placed.name}.{'_'.join(map(str, order))}"
            physical = tuple(shape[axis] for axis in axes)
            if moves_nothing(shape, placed.axes, axes):
                self._moved[key] = self.write_reshape(placed.name, target, physical)
            else:
                self._moved[key] = self.write_transpose(placed.name, target, physical, order)
        return Placed(self._moved[key], axes)

    def in_order(self, name: str) -> Placed:
        """The value with the Program's own axes."""
        return self.to(name, tuple(range(len(self.shape(name)))))

    def channel_axis(self, placed: Placed) -> int:
        """Where the Program's last axis is."""
        return placed.axes.index(len(placed.axes) - 1)

    def per_channel(self, placed: Placed, *arrays: Array) -> list[Array]:
        """Constants of a number a channel, in the order of this value's channels."""
        return [array if placed.index is None else array[placed.index] for array in arrays]

    def same_axes(self, names: tuple[str, ...]) -> list[Placed]:
        """Values of one rank with the same axes; one of a single channel broadcasts in any order of them."""
        placed = [self.placed[name] for name in names]
        if any(p.axes != placed[0].axes or p.index is not None for p in placed):
            whole = next((p for p in placed if p.index is None), None)
            axes = whole.axes if whole else placed[0].axes
            placed = [self.to(name, axes) for name in names]
        return placed

    def constant(self, name: str) -> Array:
        """A constant of the Program as numbers; bits as float32 ±1."""
        constant = self.program.constants[name]
        if constant.type.dtype is not DType.BITS:
            return constant.array
        positive = unpack_bits(constant.array, constant.type.channels)
        return np.where(positive, np.float32(1), np.float32(-1))

    def permute(self, node: Node) -> None:
        """Nothing moves: the axes get other names."""
        placed = self.placed[node.inputs[0]]
        axes = cast(tuple[int, ...], node.attrs["axes"])  # axis i of the result is axis axes[i] of x
        if placed.index is None:
            self.placed[node.output] = Placed(placed.name, tuple(axes.index(axis) for axis in placed.axes))
        else:
            self.placed[node.output] = placed  # a vector

    def reshape(self, node: Node) -> None:
        """A flat image keeps the order in which it lies; other shapes need the Program's own order."""
        source, target = self.shape(node.inputs[0]), self.shape(node.output)
        placed = self.placed[node.inputs[0]]
        in_order = tuple(range(len(source)))
        if placed.index is None and not moves_nothing(source, placed.axes, in_order):
            if [n for n in source if n != 1] == [n for n in target if n != 1]:
                self._reshape_of_ones(node, placed)
                return
            if len(target) == 1:
                index = np.arange(prod(source)).reshape(source).transpose(placed.axes).reshape(-1)
                name = self.write_reshape(placed.name, self.fresh(node.output), target)
                self.placed[node.output] = Placed(name, (0,), index)
                return
        if placed.index is not None or not moves_nothing(source, placed.axes, in_order):
            placed = self.in_order(node.inputs[0])
        name = self.write_reshape(placed.name, self.fresh(node.output), target)
        self.placed[node.output] = Placed(name, tuple(range(len(target))))

    def _reshape_of_ones(self, node: Node, placed: Placed) -> None:
        """Axes of size 1 come or go, and the others stay in the order in which they are."""
        source, target = self.shape(node.inputs[0]), self.shape(node.output)
        pairs = zip(
            [a for a, n in enumerate(source) if n != 1],
            [a for a, n in enumerate(target) if n != 1],
            strict=True,
        )
        new = dict(pairs)
        order = tuple(new[axis] for axis in placed.axes if source[axis] != 1)
        axes = (*(a for a, n in enumerate(target) if n == 1), *order)
        if len(target) == 3 and moves_nothing(target, axes, IMAGE):
            axes = IMAGE
        shape = tuple(target[axis] for axis in axes)
        name = self.write_reshape(placed.name, self.fresh(node.output), shape)
        self.placed[node.output] = Placed(name, axes)
