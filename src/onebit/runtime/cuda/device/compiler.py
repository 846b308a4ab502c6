"""From a kernel's source to machine code: NVRTC through `cuda-core`, with a cache on disk. Needs no GPU.

A compiled kernel is kept under the user's cache folder ($XDG_CACHE_HOME/onebit/cuda, ~/.cache by default)
in a file named by a digest of all that decides it: the text of the source and of each header it includes,
the options and NVRTC's version. The file begins with a digest of the code, so a damaged one is seen and made
anew, and it is written whole or not at all, so that several processes may share the folder. Without a folder
that can be written, kernels are compiled in each process.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from onebit.errors import EngineError
from onebit.program.atomic import write_atomically

INSTALL = "install it with `pip install 'onebit[cuda]'`"
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)
_IMPORTING = threading.Lock()  # cuda.core puts another module in its place, half made for a second thread
_DIGEST_BYTES = hashlib.sha256().digest_size


def source_root() -> Path:
    """The folder csrc; kernels write `#include "cuda/base/bits.cuh"`.

    It is that of the source tree if the package runs from one, else the copy that the wheel installs.
    """
    tree = Path(__file__).resolve().parents[5] / "csrc"
    if (tree / "cuda").is_dir():
        return tree
    packaged = resources.files("onebit").joinpath("csrc")
    if not packaged.joinpath("cuda").is_dir():
        raise EngineError(
            f"the sources of the CUDA kernels are missing from {packaged}: install the package again"
        )
    return Path(str(packaged))


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "onebit" / "cuda"


def cubin(file: str, defines: Mapping[str, int | str], target: str) -> bytes:
    """The machine code of a source, from the cache if it is there.

    Args:
        file: the source, relative to csrc/cuda.
        defines: macros and their values.
        target: the architecture, e.g. "sm_90a" (see `device.target`).

    Raises:
        EngineError: no such file, no compiler, or an error in the source.
    """
    key = _key(file, defines, target)
    path = None
    with suppress(OSError, RuntimeError):  # RuntimeError: no home folder
        path = cache_folder() / f"{key}.cubin"
        kept = _read(path)
        if kept is not None:
            return kept
    code, _ = compile_source(file, defines, target)
    if path is not None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, [hashlib.sha256(code).digest(), code])
    return code


def _read(path: Path) -> bytes | None:
    """The code kept in a file, or None where there is none or it is damaged."""
    if not path.is_file():
        return None
    data = path.read_bytes()
    digest, code = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return code if code and hashlib.sha256(code).digest() == digest else None


def options(file: str, defines: Mapping[str, int | str], target: str) -> Any:
    """The cuda.core.ProgramOptions that a source is compiled with."""
    root = source_root()
    return cuda_core().ProgramOptions(
        name=file,
        arch=target,
        std="c++17",
        include_path=[str(root), str(_path(root, file).parent)],
        define_macro=[(name, str(value)) for name, value in sorted(defines.items())] or None,
        # The numerics contract: every float operation as written and rounded to nearest, subnormals kept, an
        # fma only where the source says fmaf.
        fma=False,
        ftz=False,
        prec_div=True,
        prec_sqrt=True,
        ptxas_options=["-v"],
    )


def compile_source(file: str, defines: Mapping[str, int | str], target: str) -> tuple[bytes, str]:
    """Compile now: the machine code, and what the assembler says of registers, stack and spills a kernel."""
    core = cuda_core()
    text = _path(source_root(), file).read_text(encoding="utf-8")
    how = options(file, defines, target)
    log = io.StringIO()
    try:
        compiled = core.Program(text, "c++", how).compile("cubin", logs=log)
    except Exception as error:
        if "compilation log" not in str(error):  # not an error in the source: no library, or too old a one
            raise EngineError(_no_compiler(error)) from error
        macros = "".join(f" -D{name}={value}" for name, value in defines.items())
        raise EngineError(f"csrc/cuda/{file}{macros} does not compile for {target}: {error}") from error
    return bytes(compiled.code), log.getvalue()


def _path(root: Path, file: str) -> Path:
    path = root / "cuda" / file
    if not path.is_file():
        raise EngineError(f"there is no kernel source {path}")
    return path


def _key(file: str, defines: Mapping[str, int | str], target: str) -> str:
    digest = hashlib.sha256()
    macros = sorted((name, str(value)) for name, value in defines.items())
    digest.update(repr((2, _nvrtc_version(), file, macros, target)).encode())
    root = source_root()
    for name, text in sorted(_with_headers(root, _path(root, file)).items()):
        digest.update(repr((name, len(text))).encode() + text)
    return digest.hexdigest()


def _with_headers(root: Path, source: Path) -> dict[str, bytes]:
    """The text of a source and of each header it includes, by path, but for those that NVRTC brings."""
    texts: dict[str, bytes] = {}
    waiting = [source]
    while waiting:
        path = waiting.pop()
        name = os.path.relpath(path, root)
        if name in texts:
            continue
        texts[name] = path.read_bytes()
        for match in _INCLUDE.findall(texts[name]):
            beside, below = path.parent / match.decode(), root / match.decode()
            waiting.extend(candidate for candidate in (beside, below) if candidate.is_file())
    return texts


@cache
def _nvrtc_version() -> tuple[int, ...]:
    cuda_core()
    try:
        nvrtc = import_module("cuda.bindings.nvrtc")
        return tuple(int(part) for part in nvrtc.nvrtcVersion()[1:])
    except Exception as error:
        raise EngineError(_no_compiler(error)) from error


def cuda_core() -> Any:
    """The package cuda.core. EngineError, saying what to install, where it is missing."""
    try:
        with _IMPORTING:
            core = import_module("cuda.core")
    except ImportError as error:
        raise EngineError(
            f"CUDA kernels are compiled by the package cuda-core ({error}): {INSTALL}"
        ) from error
    if not hasattr(core, "Program"):
        raise EngineError(f"the package cuda-core is too old: {INSTALL}")
    return core


def _no_compiler(error: Exception) -> str:
    return f"the CUDA compiler NVRTC does not work ({error}): {INSTALL}"
