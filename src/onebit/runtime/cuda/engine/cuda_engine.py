"""CudaEngine: a Program on a GPU. `onebit.Engine(program, device="cuda")` makes one."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch

from onebit.errors import EngineError
from onebit.program import DType, Program
from onebit.program.arena import Access, ArenaLayout, lay_out, lifetimes
from onebit.program.float_environment import default_float_environment
from onebit.runtime.builder import OpRecord
from onebit.runtime.cuda.device.driver import cuda_device
from onebit.runtime.cuda.device.interface import Device
from onebit.runtime.cuda.engine.graph_replay import GraphReplay
from onebit.runtime.cuda.engine.io_checks import CheckedInputs, aligned, check_batch, needs_look, refuse
from onebit.runtime.cuda.engine.stage import Stage, Stages
from onebit.runtime.cuda.engine.stage_builder import make_stages
from onebit.runtime.cuda.engine.stream_order import StreamOrder
from onebit.runtime.cuda.kernels.buffers import ALIGNMENT, TORCH_DTYPES, BufferForm, DeviceValue
from onebit.runtime.cuda.kernels.elementwise import find_nan, pack
from onebit.runtime.cuda.kernels.pack import Bits
from onebit.runtime.engine import Engine, Memory, check_max_memory, signature_of, verified

_MAX_INDEX = 2**31 - 1  # of an element of a value within a pass: kernels count in int32
_MAX_VIEWS = 8  # batch sizes whose views of the arena are kept


class CudaEngine(Engine):
    """Runs a Program on a GPU; torch tensors there or NumPy arrays in, the same out. See `onebit.Engine`."""

    @default_float_environment()
    def __init__(
        self,
        program: Program | str | os.PathLike[str],
        *,
        device: str | Device = "cuda",
        threads: int = 1,
        isa: str | None = None,
        max_memory: int | None = None,
        trust_inputs: bool = False,
    ) -> None:
        if threads != 1 or isa is not None:
            raise EngineError("threads and isa are for device='cpu': a GPU has its own")
        limit = check_max_memory(max_memory)
        program = verified(program)
        self._device = cuda_device(device) if isinstance(device, str) else device
        with _memory_errors():
            stages = make_stages(self._device, program)
        self._prepare(self._device, signature_of(program), stages, limit, trust_inputs)

    def _prepare(
        self, device: Device, signature: Program, stages: Stages, limit: int, trust_inputs: bool
    ) -> None:
        self._device = device
        self._signature = signature
        self._stages = stages
        self._limit = limit
        self._trust_inputs = trust_inputs
        self._forms = {name: BufferForm.of(type_) for name, type_ in stages.types.items()}
        products = [stage.macs > 0 for stage in stages.stages]
        sizes = [stage.run.nbytes for stage in stages.stages]
        self._weights = sum(size for size, product in zip(sizes, products, strict=True) if product)
        self._constants = sum(sizes) - self._weights
        counted = {name for stage in stages.stages if stage.counts for name in stage.outputs}
        self._with_sums = counted & stages.counted  # the values beside which the sums of their rows lie
        self._layout = self._lay_out()
        self._chunk = self._largest_chunk()
        self._arena: torch.Tensor | None = None
        self._captured: list[torch.Tensor] = []  # arenas that graphs of the user's own work in
        self._views: OrderedDict[int, dict[str, DeviceValue]] = OrderedDict()
        self._graphs = GraphReplay(device)
        self._order = StreamOrder(device)
        self._lock = threading.Lock()
        self._closed = False
        self.ops = tuple(
            OpRecord(stage.layer, stage.op, type(stage.run).__name__, stage.macs) for stage in stages.stages
        )

    # ---- planning -------------------------------------------------------------------------------------

    def _root(self, name: str) -> str:
        while name in self._stages.aliases:
            name = self._stages.aliases[name]
        return name

    def _lay_out(self) -> ArenaLayout:
        """Place every value of the arena: packed inputs, and what stages make but the user's results."""
        values = lifetimes(
            [Access(stage.inputs, stage.outputs) for stage in self._stages.stages],
            self._bytes_of,
            inputs=[name for name in self._signature.inputs if self._is_bits(name)],
            outside=self._stages.results,
            aliases=self._stages.aliases,
        )
        return lay_out(values, ALIGNMENT)

    def _is_bits(self, name: str) -> bool:
        return self._stages.types[name].dtype is DType.BITS

    def _bytes_of(self, name: str) -> int:
        form = self._forms[name]
        return form.nbytes + (4 * form.rows if name in self._with_sums else 0)

    def _largest_chunk(self) -> int:
        """Samples a pass: what memory and int32 indices allow, a multiple of 16 where it can be."""
        fixed = self._weights + self._constants
        free = self._limit - fixed
        per_sample = self._layout.nbytes
        if free < per_sample:
            raise EngineError(
                f"one sample needs {per_sample:,} bytes beside {fixed:,} of weights and constants, "
                f"more than max_memory={self._limit:,}"
            )
        largest = max((form.index for form in self._forms.values()), default=1)
        if largest > _MAX_INDEX:
            raise EngineError(
                f"a value of {largest:,} elements a sample: the GPU's kernels count to 2^31 - 1"
            )
        chunk = min(free // per_sample if per_sample else _MAX_INDEX, _MAX_INDEX // largest)
        return chunk if chunk < 16 else chunk // 16 * 16

    def _values_in_arena(self, batch: int) -> dict[str, DeviceValue]:
        """The arena's values for a batch size."""
        views = self._views.get(batch)
        if views is not None:
            self._views.move_to_end(batch)
            return views
        needed = batch * self._layout.nbytes
        if self._arena is None or self._arena.numel() < needed:
            self._views.clear()  # they are views of the old arena
            self._arena = None
            self._arena = torch.empty(max(needed, 1), dtype=torch.uint8, device=self._device.torch_device)
        views = {}
        for name, offset in self._layout.offsets.items():
            form = self._forms[name]
            value = form.view(self._arena[offset * batch :], batch)
            if isinstance(value, Bits) and name in self._with_sums:
                begin = offset * batch + form.nbytes * batch
                sums = self._arena[begin : begin + 4 * form.rows * batch].view(torch.int32)
                value = Bits(value.data, value.count, sums)
            views[name] = value
        self._views[batch] = views
        while len(self._views) > _MAX_VIEWS:
            self._views.popitem(last=False)
        return views

    # ---- running --------------------------------------------------------------------------------------

    def __call__(self, *inputs: Any) -> Any:
        """Run a batch on the current stream; see `onebit.Engine`. Tensors come back once all is launched."""
        checked = check_batch(self._signature, inputs, self._device)
        with self._lock, _memory_errors(), _plain_tensors():
            if self._closed:
                raise EngineError("this engine is closed")
            outputs = [self._empty(name, checked.batch) for name in self._stages.results]
            if checked.batch:
                self._compute(checked, outputs)
        results = [x.cpu().numpy() for x in outputs] if checked.numpy else outputs
        return results[0] if len(results) == 1 else tuple(results)

    def _empty(self, name: str, batch: int) -> torch.Tensor:
        type_ = self._stages.types[name]
        dtype = TORCH_DTYPES[type_.dtype]
        return torch.empty((batch, *type_.shape), dtype=dtype, device=self._device.torch_device)

    def _compute(self, checked: CheckedInputs, outputs: list[torch.Tensor]) -> None:
        look = not (checked.trusted or self._trust_inputs)
        look = look and any(needs_look(self._signature, name) for name in self._signature.inputs)
        if look and self._graphs.capturing():
            raise EngineError(
                "a CUDA graph is being captured, so inputs cannot be checked for NaN or other than ±1: "
                "build the engine with trust_inputs=True"
            )
        wrong = torch.zeros(1, dtype=torch.int32, device=self._device.torch_device)
        with self._order.enter(self._arena):
            if checked.batch <= self._chunk and self._graphs.wants(checked.batch):
                self._graphs.run(checked.batch, checked.tensors, outputs, wrong, self._pass, self._arena_of)
            else:
                self._chunks(checked, outputs, wrong)
        if self._arena is not None and self._graphs.capturing():
            self._keep(self._arena)
        if look and int(wrong.item()):
            refuse(self._signature, checked.tensors)

    def _keep(self, arena: torch.Tensor) -> None:
        """Hold an arena until the engine is closed: a captured graph works in it each time it is replayed."""
        if all(kept is not arena for kept in self._captured):
            self._captured.append(arena)

    def _arena_of(self) -> torch.Tensor | None:
        return self._arena

    def _chunks(self, checked: CheckedInputs, outputs: list[torch.Tensor], wrong: torch.Tensor) -> None:
        for begin in range(0, checked.batch, self._chunk):
            end = min(begin + self._chunk, checked.batch)
            parts = [aligned(x[begin:end]) for x in checked.tensors]
            targets = [y[begin:end] for y in outputs]
            direct = [y if y.data_ptr() % 16 == 0 else torch.empty_like(y) for y in targets]
            self._pass(parts, direct, wrong)
            for y, target in zip(direct, targets, strict=True):
                if y is not target:
                    target.copy_(y)

    def _pass(
        self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor], wrong: torch.Tensor
    ) -> None:
        """Launch all for one chunk. `wrong` becomes other than 0 if an input holds what it must not."""
        values = self._enter(inputs, wrong)
        batch = len(inputs[0])
        values.update(zip(self._stages.results, outputs, strict=True))
        for stage in self._stages.stages:
            self._launch(stage, values, batch)

    def _launch(self, stage: Stage, values: Mapping[str, DeviceValue], batch: int) -> None:
        inputs = [self._value(values, name, batch) for name in stage.inputs]
        stage.run(inputs, [values[name] for name in stage.outputs])

    def _enter(self, inputs: Sequence[torch.Tensor], wrong: torch.Tensor) -> dict[str, DeviceValue]:
        """The values before the first stage: the arena's, and the inputs, looked through and packed."""
        values = dict(self._values_in_arena(len(inputs[0])))
        for name, x in zip(self._signature.inputs, inputs, strict=True):
            if self._is_bits(name):
                packed = values[name]
                assert isinstance(packed, Bits)
                pack(self._device, x, packed, wrong)
            else:
                values[name] = x
                if needs_look(self._signature, name) and not self._trust_inputs:
                    find_nan(self._device, x, wrong)
        return values

    def _value(self, values: Mapping[str, DeviceValue], name: str, batch: int) -> DeviceValue:
        root = self._root(name)
        return values[root] if root == name else self._forms[name].alias(values[root], batch)

    # ---- the rest of an Engine ------------------------------------------------------------------------

    def time_ops(self, *inputs: Any, repeats: int) -> list[list[float]]:
        """Run a batch `repeats` times: for each run the seconds of each of `ops`, by CUDA events."""
        if type(repeats) is not int or repeats < 1:
            raise EngineError(f"repeats is {repeats!r}; it must be an int, 1 or more")
        checked = check_batch(self._signature, inputs, self._device)
        if not 0 < checked.batch <= self._chunk:
            raise EngineError(f"a batch of {checked.batch} cannot be timed; give 1 to {self._chunk} samples")
        outputs = [self._empty(name, checked.batch) for name in self._stages.results]
        wrong = torch.zeros(1, dtype=torch.int32, device=self._device.torch_device)
        runs = []
        with self._lock, _memory_errors(), _plain_tensors(), self._order.enter(self._arena):
            if self._closed:
                raise EngineError("this engine is closed")
            for _ in range(repeats):
                values = self._enter(checked.tensors, wrong)
                values.update(zip(self._stages.results, outputs, strict=True))
                marks = [self._order.mark()]
                for stage in self._stages.stages:
                    self._launch(stage, values, checked.batch)
                    marks.append(self._order.mark())
                runs.append(self._order.seconds(marks))
        return runs

    def profile(self, *inputs: Any, repeats: int = 10) -> NoReturn:
        """Not on a GPU: `time_ops` gives the times, and torch.profiler sees each kernel."""
        raise EngineError(
            "profile compares with the attainable peaks of a CPU; on a GPU use "
            "engine.time_ops(x, repeats=10), or torch.profiler"
        )

    @property
    def memory(self) -> Memory:
        """What the engine owns on the device, by its own count; PyTorch's working memory is not in it."""
        with self._lock:
            if self._closed:
                raise EngineError("this engine is closed")
            arena = 0 if self._arena is None else self._arena.numel()
            return Memory(self._weights, self._constants, arena, 0, self._chunk)

    def clone(self) -> CudaEngine:
        """Another engine that shares the weights and has its own arena, for use on another stream."""
        with self._lock:
            if self._closed:
                raise EngineError("this engine is closed")
        copy = CudaEngine.__new__(CudaEngine)
        copy._prepare(self._device, self._signature, self._stages, self._limit, self._trust_inputs)
        return copy

    def close(self) -> None:
        """Give back memory once what has been launched is done with it. A second close does nothing."""
        with self._lock:
            self._closed = True
            self._order.finish()
            self._arena = None
            self._captured.clear()
            self._views.clear()
            self._graphs.clear()
            self._stages = Stages()

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} {type_}" for name, type_ in self.input_types.items())
        outputs = ", ".join(f"{name} {type_}" for name, type_ in self.output_types.items())
        return f"<onebit.Engine {inputs} → {outputs}; {self._device.torch_device}>"


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Inside, gradients are off, and so is a caller's inference mode: memory made in it, such as the arena,
    could not be written to by a later call outside."""
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turns PyTorch's out-of-memory error into an EngineError that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"out of memory on the GPU: {error}. Run smaller batches, pass a smaller max_memory=, or free "
            "what else uses this GPU"
        ) from error
