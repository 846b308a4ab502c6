"""Random Programs made of nodes directly, to run on the reference executor and on the engine.

Floats are dyadic: a value knows the grid it lies on (multiples of 2^-places) and how large it can be. A float
product with a matrix is drawn only where every partial sum fits float32, so that every order gives the same
float and results can be compared with ==. Ops that round once may follow anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onebit.program import Constant, DType, Node, Program, TensorType
from program_samples import HURTING, bits_constant, constant, feed, signs

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Facts:
    """What is known of a value: the size of its grid and its largest magnitude; None where nothing is."""

    places: int | None = None
    bound: float = 0.0
    nonzero: bool = False


UNKNOWN = Facts()
_MAX_ELEMENTS = 3000  # of one sample


class ProgramMaker:
    """Grows one random Program. The same seed makes the same one."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.inputs: list[str] = []
        self.nodes: list[Node] = []
        self.constants: dict[str, Constant] = {}
        self.values: dict[str, TensorType] = {}
        self.facts: dict[str, Facts] = {}

    def make(self, ops: int) -> Program:
        """A program of about `ops` nodes, some of whose values are outputs."""
        for _ in range(int(self.rng.integers(1, 4))):
            self._input()
        tries = 0
        while len(self.nodes) < ops and tries < 50 * ops:
            tries += 1
            self._grow(self._pick_value())
        names = [node.output for node in self.nodes] + self.inputs
        wanted = {names[len(self.nodes) - 1], *self.rng.choice(names, int(self.rng.integers(1, 4)))}
        return Program(
            tuple(self.inputs),
            tuple(sorted(wanted)),
            tuple(self.nodes),
            dict(self.constants),
            dict(self.values),
        )

    def _input(self) -> None:
        dtype = self._choice(list(DType))
        rank = int(self.rng.integers(1, 4)) if dtype is DType.BITS else int(self.rng.integers(0, 4))
        shape = tuple(self._size(rank) for _ in range(rank))
        self._add_input(TensorType(dtype, shape))

    def _add_input(self, type_: TensorType) -> None:
        name = f"in{len(self.inputs)}"
        self.inputs.append(name)
        self.values[name] = type_
        self.facts[name] = Facts(4, 8.0) if type_.dtype is DType.F32 else UNKNOWN

    def feed(self, batch: int) -> list[Array]:
        """Inputs of the kinds that `facts` promises."""
        rng = np.random.default_rng(batch)
        arrays = feed(Program(tuple(self.inputs), (), (), {}, self.values), batch, seed=batch)
        for index, name in enumerate(self.inputs):
            if self.values[name].dtype is DType.F32:
                arrays[index] = (rng.integers(-128, 129, arrays[index].shape) / 16).astype(np.float32)
            elif self.values[name].dtype is DType.I32:
                limits = np.iinfo(np.int32)
                arrays[index] = rng.integers(limits.min, limits.max + 1, arrays[index].shape, dtype=np.int32)
        return arrays

    def _choice(self, items: list[Any]) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def _size(self, rank: int) -> int:
        return int(self._choice([n for n in HURTING if n ** max(rank, 1) <= _MAX_ELEMENTS]))

    def _pick_value(self) -> str:
        """Late values more often, so that chains grow."""
        names = list(self.values)
        return names[-1] if self.rng.random() < 0.6 else str(self._choice(names))

    def _constant(self, made: Constant) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = made
        return name

    def _dyadic(self, *shape: int) -> Array:
        return (self.rng.integers(-32, 33, shape) / 8).astype(np.float32)

    def _add(
        self, op: str, inputs: tuple[str, ...], type_: TensorType, facts: Facts = UNKNOWN, **attrs: Any
    ) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(Node(op, inputs, name, attrs, layer=f"layer{len(self.nodes)}"))
        self.values[name] = type_
        self.facts[name] = facts
        return name

    def _grow(self, x: str) -> None:
        type_ = self.values[x]
        if self.rng.random() < 0.15:
            self._reshape(x, type_)
        elif type_.dtype is DType.BITS:
            self._choice([self._binary_gemm, self._binary_gemm, self._to_float])(x, type_)
        elif type_.dtype is DType.U8:
            self._choice([self._u8_gemm, self._u8_gemm, self._to_float, self._scale_pixels])(x, type_)
        elif type_.dtype is DType.I32:
            self._choice([self._threshold, self._to_float])(x, type_)
        elif type_.dtype is DType.F32:
            self._float(x, type_)

    def _float(self, x: str, type_: TensorType) -> None:
        choices = [self._arithmetic] * 4 + [self._activation]
        if type_.shape:
            choices += [
                self._affine,
                self._affine,
                self._sign,
                self._prelu,
                self._float_gemm,
                self._float_gemm,
            ]
        self._choice(choices)(x, type_)

    def _reshape(self, x: str, type_: TensorType) -> None:
        elements = type_.elements
        divisors = [d for d in range(1, elements + 1) if elements % d == 0]
        shapes: list[tuple[int, ...]] = [(d, elements // d) for d in divisors] + [(elements,)]
        if elements == 1 and type_.dtype is not DType.BITS:
            shapes.append(())
        shape = self._choice(shapes)
        self._add("reshape", (x,), TensorType(type_.dtype, shape), self.facts[x], shape=shape)

    def _weights(self, k: int) -> tuple[str, int]:
        n = self._size(2)
        return self._constant(bits_constant(signs(self.rng, n, k))), n

    def _binary_gemm(self, x: str, type_: TensorType) -> None:
        w, n = self._weights(type_.channels)
        self._then(self._add("binary_gemm", (x, w), TensorType(DType.I32, (*type_.shape[:-1], n))))

    def _u8_gemm(self, x: str, type_: TensorType) -> None:
        if not type_.shape:
            return
        w, n = self._weights(type_.channels)
        multiplier, offset = self._choice([(1, 0), (2, -255), (-3, 17)])
        out = TensorType(DType.I32, (*type_.shape[:-1], n))
        self._then(self._add("u8_gemm", (x, w), out, multiplier=multiplier, offset=offset))

    def _then(self, x: str) -> None:
        """What mostly follows an integer GEMM, so that the epilogues get their share."""
        kind = self.rng.random()
        if kind < 0.35:
            self._threshold(x, self.values[x])
        elif kind < 0.8:
            self._to_float(x, self.values[x])
            for _ in range(int(self.rng.integers(0, 4))):
                last = f"v{len(self.nodes) - 1}"
                self._choice([self._arithmetic, self._arithmetic, self._affine])(last, self.values[last])

    def _threshold(self, x: str, type_: TensorType) -> None:
        if not type_.shape:
            return
        thresholds = self.rng.integers(-20, 21, type_.channels).astype(np.int32)
        thresholds[self.rng.random(type_.channels) < 0.1] = np.iinfo(np.int32).min
        flips = bits_constant(signs(self.rng, type_.channels))
        names = (x, self._constant(constant(thresholds)), self._constant(flips))
        self._add("threshold", names, TensorType(DType.BITS, type_.shape))

    def _to_float(self, x: str, type_: TensorType) -> None:
        facts = {DType.BITS: Facts(0, 1.0, True), DType.U8: Facts(0, 255.0)}.get(type_.dtype, UNKNOWN)
        self._add("to_float", (x,), TensorType(DType.F32, type_.shape), facts)

    def _scale_pixels(self, x: str, type_: TensorType) -> None:
        self._add("scale_pixels", (x,), TensorType(DType.F32, type_.shape), Facts(8, 1.0, True))

    def _sign(self, x: str, type_: TensorType) -> None:
        self._add("sign", (x,), TensorType(DType.BITS, type_.shape))

    def _affine(self, x: str, type_: TensorType) -> None:
        numbers = self.rng.normal(size=(2, type_.channels)).astype(np.float32)
        scale, shift = (self._constant(constant(row)) for row in numbers)
        self._add("affine", (x, scale, shift), type_)

    def _prelu(self, x: str, type_: TensorType) -> None:
        slopes = self._choice([1, type_.channels])
        self._add("prelu", (x, self._constant(constant(self._dyadic(slopes)))), type_)

    def _activation(self, x: str, type_: TensorType) -> None:
        facts = self.facts[x]
        kind = self.rng.random()
        if kind < 0.4:
            self._add("relu", (x,), type_, Facts(facts.places, facts.bound))
        elif kind < 0.6:
            self._add("hardswish", (x,), type_)
        else:
            self._add("hardtanh", (x,), type_, Facts(facts.places, 1.0), min=-1.0, max=0.75)

    def _arithmetic(self, x: str, type_: TensorType) -> None:
        op = self._choice(["add", "sub", "mul", "div"])
        others = [name for name in self.values if self.values[name] == type_]
        other = str(self._choice(others))
        if self.rng.random() < 0.3 and (op != "div" or self.facts[other].nonzero):
            self._add(op, (x, other), type_)
            return
        shapes: list[tuple[int, ...]] = [()]
        if type_.shape:
            shapes += [(1,), type_.shape, type_.shape[-1:], (*type_.shape[:-1], 1)]
        shape = self._choice(shapes)
        numbers = self._dyadic(*shape) if self.rng.random() < 0.5 else 2.0 ** self.rng.integers(-4, 5, shape)
        numbers = np.asarray(numbers, np.float32)
        numbers[numbers == 0] = 0.5
        c = self._constant(constant(numbers))
        first = self.rng.random() < 0.3 and (op != "div" or self.facts[x].nonzero)
        self._add(op, (c, x) if first else (x, c), type_)

    def _float_gemm(self, x: str, type_: TensorType) -> None:
        facts, k = self.facts[x], type_.channels
        n = self._size(2)
        out = TensorType(DType.F32, (*type_.shape[:-1], n))
        if facts.places is None or facts.bound * 4 * k * 2.0 ** (facts.places + 3) > 2**24:
            return
        if self.rng.random() < 0.5:
            w = self._constant(bits_constant(signs(self.rng, n, k)))
            self._add("f32_binary_gemm", (x, w), out, Facts(facts.places, facts.bound * k))
        else:
            w = self._constant(constant(self._dyadic(n, k)))
            self._add("f32_gemm", (x, w), out, Facts(facts.places + 3, facts.bound * 4 * k))
