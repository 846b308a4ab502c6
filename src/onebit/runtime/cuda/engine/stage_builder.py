"""From a Program to the stages of an engine.

`program.fusion` has fused products with what follows them; here further elementwise ops become chains, one
kernel each, and each product gets its kernel family. Values that a Program lacks (sums before an epilogue of
their own, bits unpacked for the user) have names that begin with a NUL, which no name in a Program does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from onebit.errors import EngineError
from onebit.program import DType, Node, Program, TensorType
from onebit.program.fusion import Step, fuse
from onebit.program.ops import Kind
from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.engine.kernel_choice import make_product, make_residual
from onebit.runtime.cuda.engine.residual_fusion import find_sum
from onebit.runtime.cuda.engine.stage import Stage, StageRun, Stages
from onebit.runtime.cuda.kernels.buffers import BufferForm, DeviceValue, tensor_of
from onebit.runtime.cuda.kernels.elementwise import (
    CHAIN_OPS,
    FMA_CODE,
    MAX_STEPS,
    ChainStep,
    ElementwiseChain,
    OperandMode,
    ThresholdOp,
    main_input,
    step_of,
    unpack,
)
from onebit.runtime.cuda.kernels.layout_ops import Concat, Copy, Permute, ReshapeBits, is_alias
from onebit.runtime.cuda.kernels.pack import Bits
from onebit.runtime.cuda.kernels.pool import ChannelMean, Pool


@dataclass
class _OpenChain:
    """A chain that may still grow; its output is that of its last node."""

    source: str
    steps: list[ChainStep]
    nodes: list[Node]
    output: str
    position: int
    signs: str = ""  # bits that it makes beside its output


class _Unpack:
    nbytes = 0

    def __init__(self, device: Device) -> None:
        self._device = device

    def __call__(self, inputs: Sequence[DeviceValue], outs: Sequence[DeviceValue]) -> None:
        bits = inputs[0]
        assert isinstance(bits, Bits)
        unpack(self._device, bits, tensor_of(outs[0]))


def make_stages(device: Device, program: Program) -> Stages:
    """The stages that compute the program's outputs. The program must be verified."""
    return _StageBuilder(device, program).build()


class _StageBuilder:
    def __init__(self, device: Device, program: Program) -> None:
        self.device = device
        self.program = program
        self.made = Stages(types=dict(program.values))
        self.placed: list[tuple[int, Stage]] = []
        self.open: dict[str, _OpenChain] = {}
        self.uses: Counter[str] = Counter()
        self.readers: defaultdict[str, list[Node]] = defaultdict(list)
        self.position: dict[str, int] = {}  # of the step that makes a value
        self.done: set[str] = set()  # values that a stage makes before their step comes

    def build(self) -> Stages:
        steps = fuse(self.program)
        self.uses.update(name for step in steps for node in step.nodes for name in node.inputs)
        self.uses.update(self.program.outputs)
        for position, step in enumerate(steps):
            for node in step.nodes:
                self.position[node.output] = position
                for name in node.inputs:
                    self.readers[name].append(node)
        for position, step in enumerate(steps):
            if step.output in self.done:
                continue
            try:
                self._build(position, step)
            except EngineError as error:
                layer = f" (layer {step.nodes[0].layer!r})" if step.nodes[0].layer else ""
                raise EngineError(f"{step.op}{layer}: {error}") from error
        for chain in self.open.values():
            self._close(chain)
        self.made.stages = [stage for _, stage in sorted(self.placed, key=lambda item: item[0])]
        self._results()
        return self.made

    def _type(self, name: str) -> TensorType:
        return self.made.types[name]

    def _place(
        self,
        position: int,
        nodes: Sequence[Node],
        inputs: Sequence[str],
        outputs: Sequence[str],
        run: StageRun,
        counts: bool = False,
    ) -> None:
        layer = next((node.layer for node in nodes if node.layer), "")
        macs = sum(node.facts.macs(self.program.call_of(node)) for node in nodes)
        op = "+".join(node.op for node in nodes)
        self.placed.append((position, Stage(op, layer, tuple(inputs), tuple(outputs), run, macs, counts)))

    def _build(self, position: int, step: Step) -> None:
        node = step.nodes[0]
        if node.facts.product is not None:
            self._product(position, step)
        elif node.op in CHAIN_OPS:
            self._elementwise(position, node)
        elif node.facts.kind is Kind.VIEW and is_alias(self._type(node.inputs[0]), self._type(node.output)):
            self.made.aliases[node.output] = node.inputs[0]
        else:
            values = [name for name in node.inputs if name not in self.program.constants]
            self._place(position, step.nodes, values, (node.output,), self._single(step, node))

    def _single(self, step: Step, node: Node) -> StageRun:
        """A node that stands alone."""
        x, out = self._type(node.inputs[0]), self._type(node.output)
        if node.op == "threshold" and step.threshold is not None and step.flip is not None:
            return ThresholdOp(self.device, step.threshold, step.flip)
        if node.facts.kind is Kind.POOL:
            return Pool(self.device, node, x, out, step.flip)
        if node.op == "channel_mean":
            return ChannelMean(self.device, x.channels)
        if node.facts.kind is Kind.VIEW:
            return ReshapeBits(self.device)
        if node.op == "permute":
            return Permute(self.device, x, cast(tuple[int, ...], node.attrs["axes"]))
        if node.op == "concat":
            return Concat(self.device)
        raise EngineError(f"the CUDA engine has no op {node.op!r}; `Program.run` has, slowly")

    def _product(self, position: int, step: Step) -> None:
        """A product with its epilogue, in the product's kernel or as a stage after it."""
        node, x = step.nodes[0], step.nodes[0].inputs[0]
        out = self._type(step.output)
        if step.epilogue == "bits":  # also where a pool follows, which keeps the name of the sums
            out = TensorType(DType.BITS, out.shape)
            self.made.types[step.output] = out
        if self._residual_block(step):
            return
        product = make_product(self.device, self.program, step, self._type(x), out)
        if product.reads_sums:
            self.made.counted.add(x)
        if product.fused:
            self._place(position, step.nodes, (x,), (step.output,), product.run, counts=product.counts)
            return
        raw = f"\0{step.output}"
        sums = DType.F32 if node.facts.is_float_product else DType.I32
        self.made.types[raw] = TensorType(sums, out.shape)
        self._place(position, (node,), (x,), (raw,), product.run)
        if step.epilogue == "bits" and step.threshold is not None and step.flip is not None:
            run = ThresholdOp(self.device, step.threshold, step.flip)
            self._place(position, step.nodes[1:], (raw,), (step.output,), run)
            return
        fma = ChainStep(FMA_CODE, OperandMode.CHANNEL, step.scale, step.bias)
        self.open[step.output] = _OpenChain(raw, [fma], list(step.nodes[1:]), step.output, position)

    def _residual_block(self, step: Step) -> bool:
        """A binary convolution with the sum and the signs after it as one stage, if that is what follows."""
        x = step.nodes[0].inputs[0]
        found = find_sum(self.program, self.made.types, self.readers, step)
        run = found and make_residual(self.device, self.program, step, self._type(x), found)
        if not found or not run:
            return False
        add = next(
            after for after in found.nodes if after.op == "add"
        )  # by then both of its inputs are there
        outputs = [name for name in (found.total, found.signs) if name]
        self._place(
            self.position[add.output],
            (*step.nodes, *found.nodes),
            (x, found.other),
            outputs,
            run,
            counts=bool(found.signs),
        )
        self.done.update(after.output for after in found.nodes)
        return True

    def _elementwise(self, position: int, node: Node) -> None:
        main = main_input(self.program, self.made.types, node)
        step = step_of(self.program, self.made.types, node, main)
        chain = self.open.get(main)
        if node.op == "sign" and chain is not None and self.uses[main] > 1 and not chain.signs:
            chain.signs = node.output  # others read the floats too: they and their signs are made in one pass
            chain.nodes.append(node)
            return
        full = chain is not None and len(chain.steps) == MAX_STEPS and step is not None
        if chain is None or self.uses[main] > 1 or full:
            chain = _OpenChain(main, [], [], node.output, position)
        else:
            del self.open[main]
        chain.nodes.append(node)
        chain.output, chain.position = node.output, position
        if step is not None:
            chain.steps.append(step)
        self.open[node.output] = chain
        if node.op == "sign":
            self._close(self.open.pop(node.output))

    def _close(self, chain: _OpenChain) -> None:
        values = [step.value for step in chain.steps if step.value]
        source, out = self._type(chain.source).dtype, self._type(chain.output)
        floats = out.dtype is DType.F32
        bits = bool(chain.signs) or not floats
        run = ElementwiseChain(self.device, source, chain.steps, out.shape, floats=floats, bits=bits)
        outputs = (chain.output, chain.signs) if chain.signs else (chain.output,)
        self._place(chain.position, chain.nodes, (chain.source, *values), outputs, run)

    def _results(self) -> None:
        """What the user gets: a tensor that a stage writes, or a copy of what is a view or packed."""
        written = {name for stage in self.made.stages for name in stage.outputs}
        for name in self.program.outputs:
            type_ = self._type(name)
            if name in written and type_.dtype is not DType.BITS:
                self.made.results.append(name)
                continue
            result = f"\0{name} for the user"
            bits = type_.dtype is DType.BITS
            self.made.types[result] = TensorType(DType.I8, type_.shape) if bits else type_
            run = _Unpack(self.device) if bits else Copy(BufferForm.of(type_))
            self.made.stages.append(Stage("unpack" if bits else "copy", "", (name,), (result,), run))
            self.made.results.append(result)
