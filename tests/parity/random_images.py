"""Random Programs over images: convolutions, pools, and what moves elements, beside the ops of
`random_programs`, and as exact: floats are dyadic wherever an order of summation would show."""

from __future__ import annotations

from math import prod
from typing import Any

from onebit.program import DType, TensorType
from parity.random_programs import UNKNOWN, Facts, ProgramMaker
from program_samples import HURTING, bits_constant, constant, signs

_SIDES = (1, 2, 3, 5, 6, 7, 8, 13)
_KERNELS = (1, 1, 2, 3, 3, 3, 4, 5, 7)
_MAX_PRODUCTS = 400_000  # of one convolution and sample, for the reference is slow


class ImageMaker(ProgramMaker):
    """Grows one random Program whose inputs are images [H, W, C]. The same seed makes the same one."""

    def _input(self) -> None:
        dtype = self._choice([DType.BITS, DType.BITS, DType.U8, DType.F32, DType.F32, DType.I32, DType.I8])
        height, width = self._choice(_SIDES), self._choice(_SIDES)
        channels = self._choice([n for n in (1, 2, 3, *HURTING) if n * height * width <= 6000])
        self._add_input(TensorType(dtype, (height, width, channels)))

    def _grow(self, x: str) -> None:
        type_ = self.values[x]
        roll = self.rng.random()
        if len(type_.shape) != 3 or roll < 0.25:
            super()._grow(x)
        elif roll < 0.35:
            self._choice([self._permute, self._concat])(x, type_)
        elif type_.dtype is DType.BITS:
            self._choice([self._binary_conv, self._binary_conv, self._max_pool])(x, type_)
        elif type_.dtype is DType.U8:
            self._choice([self._u8_conv, self._u8_conv, self._max_pool])(x, type_)
        elif type_.dtype is DType.I32:
            self._choice([self._max_pool, self._threshold])(x, type_)
        elif type_.dtype is DType.F32:
            choices = [self._float_conv] * 3 + [self._max_pool, self._avg_pool, self._mean, self._abs]
            self._choice(choices)(x, type_)

    def _geometry(self, sides: tuple[int, ...], pool: bool, dilated: bool = True) -> dict[str, Any] | None:
        """Kernel and attributes, and the output sides; None where the draw does not fit."""
        kernel = self._choice(_KERNELS)
        kernels = (kernel, kernel) if self.rng.random() < 0.7 else (kernel, self._choice(_KERNELS))
        stride = (self._choice([1, 1, 2, 3]), self._choice([1, 1, 2, 3]))
        dilation = (self._choice([1, 1, 1, 2]), self._choice([1, 1, 1, 2])) if dilated else (1, 1)
        padding, outputs = [], []
        for side, k, s, d in zip(sides, kernels, stride, dilation, strict=True):
            most = min(d * (k - 1), 3)
            before, after = (int(self.rng.integers(0, most + 1)) for _ in range(2))
            out = (side + before + after - d * (k - 1) - 1) // s + 1
            if out < 1 or (pool and (d > side or (out - 1) * s - before >= side)):
                return None
            padding += [before, after]
            outputs.append(out)
        attrs: dict[str, Any] = {"stride": stride, "padding": tuple(padding)}
        if dilated:
            attrs["dilation"] = dilation
        return {"kernel": kernels, "attrs": attrs, "out": tuple(outputs)}

    def _conv_plan(self, type_: TensorType) -> tuple[dict[str, Any], tuple[int, int, int, int], int] | None:
        """Geometry, shape of the weights, and products of a sum."""
        geometry = self._geometry(type_.shape[:2], pool=False)
        if geometry is None:
            return None
        channels = type_.channels
        groups = 1
        if self.rng.random() < 0.35:
            groups = self._choice([d for d in range(1, channels + 1) if channels % d == 0])
        n = groups * self._choice([1, 2, 3, 33] if groups > 1 else [1, 3, 31, 32, 33, 64, 65])
        shape = (n, *geometry["kernel"], channels // groups)
        if prod(geometry["out"]) * prod(shape) > _MAX_PRODUCTS:
            return None
        geometry["attrs"]["groups"] = groups
        return geometry, shape, prod(shape[1:])

    def _integer_conv(self, op: str, x: str, type_: TensorType, **attrs: int) -> None:
        plan = self._conv_plan(type_)
        if plan is None:
            return
        geometry, shape, _ = plan
        w = self._constant(bits_constant(signs(self.rng, *shape)))
        out = TensorType(DType.I32, (*geometry["out"], shape[0]))
        made = self._add(op, (x, w), out, **geometry["attrs"], **attrs)
        if self.rng.random() < 0.4:
            made = self._max_pool(made, out) or made
            if self.rng.random() < 0.7:
                self._threshold(made, self.values[made])
                return
        self._then(made)

    def _binary_conv(self, x: str, type_: TensorType) -> None:
        self._integer_conv("binary_conv2d", x, type_, padding_value=self._choice([0, 0, 1, -1]))

    def _u8_conv(self, x: str, type_: TensorType) -> None:
        multiplier, offset = self._choice([(1, 0), (2, -255), (-3, 17)])
        self._integer_conv("u8_conv2d", x, type_, multiplier=multiplier, offset=offset)

    def _float_conv(self, x: str, type_: TensorType) -> None:
        plan, facts = self._conv_plan(type_), self.facts[x]
        if plan is None or facts.places is None:
            return
        geometry, shape, k = plan
        if facts.bound * 4 * k * 2.0 ** (facts.places + 3) > 2**24:
            return
        out = TensorType(DType.F32, (*geometry["out"], shape[0]))
        if self.rng.random() < 0.5:
            w = self._constant(bits_constant(signs(self.rng, *shape)))
            known = Facts(facts.places, facts.bound * k)
            made = self._add("f32_binary_conv2d", (x, w), out, known, **geometry["attrs"])
        else:
            w = self._constant(constant(self._dyadic(*shape)))
            known = Facts(facts.places + 3, facts.bound * 4 * k)
            made = self._add("f32_conv2d", (x, w), out, known, **geometry["attrs"])
        if self.rng.random() < 0.5:
            self._choice([self._affine, self._arithmetic])(made, out)

    def _max_pool(self, x: str, type_: TensorType) -> str | None:
        geometry = self._geometry(type_.shape[:2], pool=True)
        if geometry is None:
            return None
        out = TensorType(type_.dtype, (*geometry["out"], type_.channels))
        return self._add(
            "max_pool2d", (x,), out, self.facts[x], kernel=geometry["kernel"], **geometry["attrs"]
        )

    def _avg_pool(self, x: str, type_: TensorType) -> None:
        """Where the sum is exact, one rounded division follows in every executor."""
        geometry, facts = self._geometry(type_.shape[:2], pool=True, dilated=False), self.facts[x]
        if geometry is None or not self._sums(facts, prod(geometry["kernel"])):
            return
        out = TensorType(DType.F32, (*geometry["out"], type_.channels))
        include = int(self.rng.integers(2))
        attrs = {"kernel": geometry["kernel"], "count_include_pad": include, **geometry["attrs"]}
        self._add("avg_pool2d", (x,), out, **attrs)

    def _mean(self, x: str, type_: TensorType) -> None:
        """K of XNOR-Net, mostly multiplied into a value of as many pixels."""
        if not self._sums(self.facts[x], type_.channels):
            return
        k = self._add("channel_mean", (x,), TensorType(DType.F32, (*type_.shape[:-1], 1)))
        if self.rng.random() < 0.8:
            pair = (x, k) if self.rng.random() < 0.5 else (k, x)
            self._add(self._choice(["mul", "add", "sub"]), pair, type_)

    @staticmethod
    def _sums(facts: Facts, count: int) -> bool:
        """Whether `count` such numbers sum exactly in float32."""
        return facts.places is not None and facts.bound * count * 2.0**facts.places <= 2**24

    def _abs(self, x: str, type_: TensorType) -> None:
        self._add("abs", (x,), type_, self.facts[x])

    def _permute(self, x: str, type_: TensorType) -> None:
        axes = tuple(int(axis) for axis in self.rng.permutation(len(type_.shape)))
        out = TensorType(type_.dtype, tuple(type_.shape[axis] for axis in axes))
        self._add("permute", (x,), out, self.facts[x], axes=axes)

    def _concat(self, x: str, type_: TensorType) -> None:
        fits = [
            name
            for name, other in self.values.items()
            if other.dtype is type_.dtype and other.shape[:-1] == type_.shape[:-1] and other.shape
        ]
        count = self._choice([2, 2, 3, 4, 11])
        parts = (x, *(str(self._choice(fits)) for _ in range(count - 1)))
        channels = sum(self.values[name].channels for name in parts)
        if channels * prod(type_.shape[:-1]) > 10_000:
            return
        facts = UNKNOWN
        places = [self.facts[name].places for name in parts]
        known = [place for place in places if place is not None]
        if len(known) == len(places):
            facts = Facts(max(known), max(self.facts[name].bound for name in parts))
        self._add("concat", parts, TensorType(type_.dtype, (*type_.shape[:-1], channels)), facts)
