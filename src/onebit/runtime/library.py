"""The compiled library: finding it, its errors, and the thread pools that it makes."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from ctypes import byref, c_int, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any

from onebit.errors import EngineError
from onebit.runtime.abi import (
    ABI,
    MAX_THREADS,
    OTHER_FUNCTIONS,
    STATUS_FUNCTIONS,
    IsaInfo,
    Sharing,
    Status,
)

ISA_VARIABLE = "ONEBIT_ISA"
SHARING_VARIABLE = "ONEBIT_SHARING"
_NAMES = ("libonebit.so", "libonebit.dylib", "onebit.dll")


@dataclass(frozen=True)
class Isa:
    """An instruction set that kernels are written for.

    Attributes:
        name: what `Engine(isa=...)` and ONEBIT_ISA take, e.g. "avx2".
        architecture: "x86-64", "AArch64", or "any".
        features: what the CPU must have, as Linux's /proc/cpuinfo calls it.
        native: whether it is of the architecture that the library is built for.
        available: whether this machine runs it.
    """

    name: str
    architecture: str
    features: tuple[str, ...]
    native: bool
    available: bool


class Library:
    """The loaded library. `call` turns a status into an EngineError; the functions stand in `functions`."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.functions = ctypes.CDLL(path)
        except OSError as error:
            raise EngineError(f"the compiled library {path} does not load: {error}") from error
        self._declare()
        found = self.functions.onebit_abi()
        if found != ABI:
            raise EngineError(
                f"the compiled library {path} has interface {found}, this package needs {ABI}: "
                "install the package again (pip install .)"
            )

    def _declare(self) -> None:
        try:
            for name, arguments in STATUS_FUNCTIONS.items():
                self._declare_one(name, c_int, arguments)
            for name, (result, arguments) in OTHER_FUNCTIONS.items():
                self._declare_one(name, result, arguments)
        except AttributeError as error:
            raise EngineError(
                f"the compiled library {self.path} is of another version ({error}): "
                "install the package again (pip install .)"
            ) from error

    def _declare_one(self, name: str, result: Any, arguments: Sequence[Any]) -> None:
        function = getattr(self.functions, name)
        function.restype, function.argtypes = result, arguments

    @cached_property
    def isas(self) -> tuple[Isa, ...]:
        """Every instruction set that kernels are written for; of one architecture the best comes first."""
        found: list[Isa] = []
        info = IsaInfo()
        while self.functions.onebit_isa_at(len(found), byref(info)) == Status.OK:
            name, architecture = info.name.decode(), info.architecture.decode()
            features = tuple(info.features.decode().split())
            found.append(Isa(name, architecture, features, bool(info.native), bool(info.available)))
        return tuple(found)

    def last_error(self) -> str:
        """The sentence that this thread's latest failed call left."""
        return str(self.functions.onebit_last_error().decode(errors="replace"))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that returns a status; raise EngineError with its message if it failed."""
        if getattr(self.functions, name)(*arguments) != Status.OK:
            raise EngineError(self.last_error())


@cache
def library() -> Library:
    """The compiled library, loaded once. Raises EngineError if it is missing or of another version."""
    package = resources.files("onebit.runtime")
    for name in _NAMES:
        path = package.joinpath(name)
        if path.is_file():
            return Library(str(path))
    raise EngineError(
        f"the compiled library ({_NAMES[0]}) is missing from {package}: the package was not built; "
        "install it with `pip install .` (a C compiler is needed)"
    )


def available_isas() -> tuple[str, ...]:
    """The names of the instruction sets that this machine can run, the best first."""
    return tuple(isa.name for isa in library().isas if isa.available)


def check_threads(threads: object) -> None:
    """Raise EngineError unless `threads` is an int from 1 to MAX_THREADS."""
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise EngineError(f"threads is {threads!r}; it must be an int from 1 to {MAX_THREADS}")


def choose_isa(isa: str | None = None) -> str:
    """The instruction set to use: `isa`, else the environment variable ONEBIT_ISA, else the best.

    Raises EngineError for a name that is unknown, or that this machine cannot run.
    """
    source, name = "isa", isa
    if name is None:
        source, name = ISA_VARIABLE, os.environ.get(ISA_VARIABLE) or None
    available = available_isas()
    if name is None:
        return available[0]
    if name not in available:
        known = {isa.name: isa.architecture for isa in library().isas}
        why = "there is no such instruction set"
        if name in known:
            why = f"an instruction set of {known[name]} that is not here"
        raise EngineError(f"{source} is {name!r}: {why}; this machine has {', '.join(available)}")
    return name


class ThreadPool:
    """Threads of the library, for one engine or for several that take turns.

    Args:
        lib: the library.
        threads: how many, the caller's included.

    With ONEBIT_SHARING=always in the environment every op, however small, is done by all threads: slow, and
    for tests that must see them at work.
    """

    def __init__(self, lib: Library, threads: int) -> None:
        always = os.environ.get(SHARING_VARIABLE) == "always"
        self.threads = threads
        self.handle = c_void_p()
        self._library = lib
        sharing = Sharing.ALWAYS if always else Sharing.LARGE
        lib.call("onebit_thread_pool_create", threads, sharing, byref(self.handle))
        weakref.finalize(self, lib.functions.onebit_thread_pool_release, self.handle)

    def shares(self) -> tuple[int, ...]:
        """For each thread, its caller's first, how many shares of ops it has done."""
        numbers = (c_uint64 * self.threads)()
        self._library.call("onebit_thread_pool_shares", self.handle, numbers)
        return tuple(numbers)
