"""Engine: a Program on the compiled kernels, and the way to the engine on a GPU."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from ctypes import addressof, byref, c_char, c_double, c_void_p
from functools import cache
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np

from onebit.errors import EngineError
from onebit.program import ARRAY_DTYPES, Program, TensorType, check_inputs, load, verify
from onebit.program.float_environment import default_float_environment
from onebit.program.tensors import Array
from onebit.runtime.abi import MemoryInfo, Status
from onebit.runtime.builder import OpRecord, build_plan
from onebit.runtime.library import Library, ThreadPool, check_threads, choose_isa, library
from onebit.runtime.profile import OpProfile, best_rates, profile

DEVICES: dict[str, Callable[[], Any]] = {}
"""Kind of device other than the CPU → its class of engines, which is imported when first asked for.

`onebit.runtime` fills it, for those classes build on this module."""

DEFAULT_MAX_MEMORY = 4 * 2**30

# A forked child has none of the parent's other threads: a lock that one of them held would stay locked.
_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def _renew_locks() -> None:
    for engine in list(_ENGINES):
        engine._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


class Memory(NamedTuple):
    """Bytes that an engine owns, and how many samples a pass takes. Clones share weights and constants."""

    weights: int  # prepacked
    constants: int  # thresholds, scales, biases
    arena: int  # activations of one pass
    scratch: int  # of the kernels, all threads
    chunk: int  # samples a pass

    @property
    def total(self) -> int:
        """All bytes together."""
        return self.weights + self.constants + self.arena + self.scratch


class _Port(NamedTuple):
    """One input or output as a caller sees it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Engine:
    """Runs a Program on the compiled kernels; NumPy arrays in, NumPy arrays out, bit for bit as defined.

    Args:
        program: a Program, or the path of a `.onebit` file. It is verified; its constants are copied
            (prepacked for the instruction set) and not kept alive.
        device: "cpu", or "cuda" or "cuda:1" for a GPU (the extra `onebit[cuda]`; see docs/gpu.md). A GPU's
            engine takes and returns torch tensors that lie there, on torch's current stream, or NumPy arrays.
        threads: threads of one run, the caller's included (1 to 256). Results are the same
            for any number. CPU only.
        isa: one of `available_isas()`; None takes the environment variable ONEBIT_ISA, else the best.
            CPU only.
        max_memory: the most bytes the engine may own (default 4 GiB): a tiny program can ask for a huge
            arena. Weights, constants, arena and scratch count.
        trust_inputs: do not look for NaN, or for bits other than ±1, in tensors on a GPU. Looking waits for
            the GPU at the end of a run; programs over bytes and integers need none and never wait. GPU only.

    Raises:
        ProgramError: the program or the file is malformed.
        EngineError: no Program and no path, an instruction set or a device this machine lacks, a wrong
            `threads`, an argument of the other kind of device, more memory than allowed.

    Calls on one engine wait for each other (the GIL is released meanwhile); `clone()` gives another engine
    with the same weights for use at the same time. Close it, use it as a context manager, or let it go. It
    works in a forked child too.
    """

    def __new__(cls, program: Any = None, *, device: Any = "cpu", **_: Any) -> Self:
        """An engine of the class that runs on `device`."""
        if cls is Engine and device != "cpu":
            engine_class = DEVICES.get(device.split(":")[0]) if isinstance(device, str) else None
            if engine_class is None:
                raise EngineError(
                    f"device is {device!r}; it must be 'cpu', 'cuda' or, for the second GPU, 'cuda:1'"
                )
            made: Self = super().__new__(engine_class())
            return made
        return super().__new__(cls)

    @default_float_environment()
    def __init__(
        self,
        program: Program | str | os.PathLike[str],
        *,
        device: str = "cpu",
        threads: int = 1,
        isa: str | None = None,
        max_memory: int | None = None,
        trust_inputs: bool = False,
    ) -> None:
        check_threads(threads)
        if trust_inputs:
            raise EngineError("trust_inputs is for device='cuda': looking costs a CPU next to nothing")
        limit = check_max_memory(max_memory)
        lib = library()
        chosen = choose_isa(isa)
        program = verified(program)
        plan, ops = build_plan(lib, program, chosen, limit)
        try:
            handle = c_void_p()
            pool = ThreadPool(lib, threads)
            lib.call("onebit_engine_create", plan, pool.handle, byref(handle))
        finally:
            lib.functions.onebit_plan_release(plan)
        self._set_up(lib, handle, signature_of(program), ops, chosen, threads)

    def _set_up(
        self,
        lib: Library,
        handle: c_void_p,
        signature: Program,
        ops: Sequence[OpRecord],
        isa: str,
        threads: int,
    ) -> None:
        self._library = lib
        self._handle = handle
        self._signature = signature
        self.ops = tuple(ops)
        self.isa = isa
        self.threads = threads
        self._lock = threading.Lock()
        _ENGINES.add(self)
        self._function = lib.functions.onebit_engine_run
        self._finalizer = weakref.finalize(self, lib.functions.onebit_engine_destroy, handle)
        self._inputs = _ports(signature, signature.inputs)
        self._outputs = _ports(signature, signature.outputs)
        self._input_pointers = (c_void_p * len(self._inputs))()
        self._output_pointers = (c_void_p * len(self._outputs))()
        self._arguments = (addressof(self._input_pointers), addressof(self._output_pointers))

    def __call__(self, *inputs: Array) -> Any:
        """Run a batch.

        Args:
            inputs: one array an input of the program, (batch, *shape) of exactly its dtype; int8 ±1 for
                bits. Any batch size, 0 included. A non-contiguous array is copied.

        Returns:
            The output, (batch, *shape), or a tuple of them; bits come back as int8 ±1.

        Raises:
            ProgramError: a wrong number of inputs, dtype or shape, a NaN, or a bits input that is not ±1.
            EngineError: the engine is closed, or the system refuses memory.
        """
        arrays = self._accept(inputs)
        outputs = self._empty_outputs(len(arrays[0]))
        self._run(arrays, outputs, None)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _accept(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """The inputs, ready for the library: a quick look, and a slow one for what is unusual."""
        if len(inputs) != len(self._inputs):
            return self._repair(inputs)
        for x, port in zip(inputs, self._inputs, strict=True):
            if type(x) is not np.ndarray or x.dtype != port.dtype or x.ndim == 0 or x.shape[1:] != port.shape:
                return self._repair(inputs)
            flags = x.flags
            if not flags.c_contiguous or not flags.aligned or len(x) != len(inputs[0]):
                return self._repair(inputs)
        return inputs

    def _repair(self, inputs: Sequence[Array]) -> Sequence[Array]:
        arrays = check_inputs(self._signature, inputs)
        return [
            np.require(x, port.dtype, ("C", "A", "E")) for x, port in zip(arrays, self._inputs, strict=True)
        ]

    def _empty_outputs(self, batch: int) -> list[Array]:
        return [np.empty((batch, *port.shape), port.dtype) for port in self._outputs]

    def _run(self, arrays: Sequence[Array], outputs: Sequence[Array], seconds: Any) -> None:
        with self._lock:
            if not self._finalizer.alive:
                raise EngineError("this engine is closed")
            for i, array in enumerate(arrays):
                self._input_pointers[i] = _address(array)
            for i, array in enumerate(outputs):
                self._output_pointers[i] = _address(array)
            status = self._function(self._handle, len(arrays[0]), *self._arguments, seconds)
        if status != Status.OK:
            message = self._library.last_error()
            if status == Status.ERROR_INPUT:
                check_inputs(self._signature, arrays)  # finds the element and says what to do
            raise EngineError(message)

    def profile(self, *inputs: Array, repeats: int = 10) -> list[OpProfile]:
        """Run a batch `repeats` times and return the median time of each op, in the order of a run.

        Each op is timed alone. In a run that is not profiled, neighbouring elementwise ops take turns on
        blocks of rows, so that it may be a little quicker than the sum of these times. The first call
        measures the attainable peaks too (`measure_peaks`), under 0.2 s a process on one thread.
        """
        arrays = self._accept(inputs)
        products = len(arrays[0]) and any(op.macs for op in self.ops)
        peaks = measure_peaks(self.isa, self.threads) if products else {}
        return profile(self.ops, len(arrays[0]), self.time_ops(*arrays, repeats=repeats), peaks)

    def time_ops(self, *inputs: Array, repeats: int) -> list[list[float]]:
        """Run a batch `repeats` times: for each run the seconds of each of `ops`."""
        if type(repeats) is not int or repeats < 1:
            raise EngineError(f"repeats is {repeats!r}; it must be an int, 1 or more")
        arrays = self._accept(inputs)
        outputs = self._empty_outputs(len(arrays[0]))
        runs = []
        for _ in range(repeats):
            seconds = (c_double * max(len(self.ops), 1))()
            self._run(arrays, outputs, seconds)
            runs.append(list(seconds[: len(self.ops)]))
        return runs

    @property
    def variants(self) -> dict[str, str]:
        """Op, e.g. "binary_gemm" or "sign" → the kernel that runs it, e.g. "binary_gemm/avx512"."""
        return {op.op.split("+")[0]: op.variant for op in self.ops}

    @property
    def memory(self) -> Memory:
        """What the engine owns, by its own count."""
        info = MemoryInfo()
        with self._lock:
            if not self._finalizer.alive:
                raise EngineError("this engine is closed")
            self._library.call("onebit_engine_memory", self._handle, byref(info))
        return Memory(*(getattr(info, field) for field in Memory._fields))

    @property
    def input_types(self) -> dict[str, TensorType]:
        """Name and type of each input, in order; the shape is that of one sample."""
        return {name: self._signature.values[name] for name in self._signature.inputs}

    @property
    def output_types(self) -> dict[str, TensorType]:
        """Name and type of each output, in order; the shape is that of one sample."""
        return {name: self._signature.values[name] for name in self._signature.outputs}

    def clone(self) -> Engine:
        """Another engine that shares the weights and has its own arena and threads, for concurrent calls."""
        handle = c_void_p()
        with self._lock:
            if not self._finalizer.alive:
                raise EngineError("this engine is closed")
            self._library.call("onebit_engine_clone", self._handle, byref(handle))
        copy = Engine.__new__(Engine)
        copy._set_up(self._library, handle, self._signature, self.ops, self.isa, self.threads)
        return copy

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an Engine holds threads and prepacked weights of this process, so it can be neither copied nor "
            "pickled: use clone() here, and in another process build an Engine of the Program or its file"
        )

    def close(self) -> None:
        """Give back memory and threads, once a call in progress has ended. A second close does nothing."""
        with self._lock:
            self._finalizer()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} {type_}" for name, type_ in self.input_types.items())
        outputs = ", ".join(f"{name} {type_}" for name, type_ in self.output_types.items())
        return f"<onebit.Engine {inputs} → {outputs}; {self.isa}, {self.threads} threads>"


@cache
def measure_peaks(isa: str, threads: int) -> dict[str, float]:
    """Kind of product → GMAC/s of this engine's best, found once a process."""
    return best_rates(lambda program: Engine(program, threads=threads, isa=isa), threads)


def check_max_memory(max_memory: int | None) -> int:
    """The limit in bytes; EngineError unless it is None or a positive int."""
    limit = DEFAULT_MAX_MEMORY if max_memory is None else max_memory
    if type(limit) is not int or not 0 < limit < 2**63:
        raise EngineError(f"max_memory is {max_memory!r}; it must be a positive number of bytes")
    return limit


def verified(program: Any) -> Program:
    """The Program that a caller gave, or the one in the file that a caller named."""
    if isinstance(program, Program):
        verify(program)
        return program
    if isinstance(program, (str, os.PathLike)):
        return load(program)
    raise EngineError(
        f"program is of type {type(program).__module__}.{type(program).__qualname__}; pass a Program "
        "(onebit.convert makes one of a model), or the path of a .onebit file as a str or Path"
    )


def _address(array: Array) -> int:
    """Where the data of a C-contiguous array begins. The first way is the quicker by a microsecond."""
    if array.flags.writeable and array.size:
        return addressof(c_char.from_buffer(array))  # type: ignore[arg-type] # typed as a buffer from 3.12 on
    return int(array.__array_interface__["data"][0])


def signature_of(program: Program) -> Program:
    """The program's inputs and outputs without its nodes and constants, which the engine must not keep."""
    names = {*program.inputs, *program.outputs}
    values = {name: type_ for name, type_ in program.values.items() if name in names}
    return Program(program.inputs, program.outputs, (), {}, values)


def _ports(signature: Program, names: Sequence[str]) -> tuple[_Port, ...]:
    types = (signature.values[name] for name in names)
    return tuple(_Port(ARRAY_DTYPES[type_.dtype], type_.shape) for type_ in types)
