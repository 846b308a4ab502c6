"""Compile a kernel's source with g++ into a shared library that runs it on the emulator."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from support import ROOT

HERE = Path(__file__).resolve().parent
CUDA = ROOT / "csrc" / "cuda"
BUILD = ROOT / "build" / "cuda_emulation"  # ignored by git; everything in it is named by its content

_COMMON = ["-std=c++20", "-fPIC", "-g1", "-fno-gnu-unique", "-ffp-contract=off"]
_KERNEL = ["-O1", "-fsanitize=thread,alignment", "--param", "tsan-instrument-func-entry-exit=0"]
_KERNEL += ["-fno-stack-protector", "-fno-threadsafe-statics"]


class CompileError(Exception):
    """A source does not compile for the emulator."""


def compiler() -> str | None:
    """Path of g++, or None where there is none."""
    return shutil.which("g++")


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CompileError(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def _digest(*parts: str | bytes) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.hexdigest()[:24]


@cache
def _tool() -> tuple[str, str]:
    """g++ and what its output depends on besides the source."""
    program = compiler()
    if program is None:
        raise CompileError("the emulator needs g++")
    return program, _run([program, "--version"]) + platform.machine()


def _popcount() -> list[str]:
    return ["-mpopcnt"] if platform.machine() in ("x86_64", "AMD64") else []


@cache
def _core() -> Path:
    """The emulator itself, as one object file."""
    sources = sorted(HERE.glob("core/*.cpp"))
    headers = sorted(HERE.glob("core/*.h"))
    program, version = _tool()
    flags = [*_COMMON, *_popcount(), "-O2", "-Wall"]
    text = [path.read_bytes() for path in (*sources, *headers)]
    target = BUILD / f"core-{_digest(version, ' '.join(flags), *text)}.o"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            whole, compiled = Path(folder) / "core.cpp", Path(folder) / "core.o"
            whole.write_text("".join(f'#include "{path}"\n' for path in sources))
            _run([program, *flags, "-c", str(whole), "-o", str(compiled)])
            compiled.replace(target)
    return target


_KERNEL_HEAD = re.compile(
    r'extern\s+"C"\s+void\s+(?:ONEBIT_CLUSTER\(((?:[^()]|\([^()]*\))*)\)\s*)?(\w+)\s*\([^;]*?\)\s*{'
)


def kernels(preprocessed: str) -> dict[str, str]:
    """The kernels of a preprocessed source, and the arguments of each one's __cluster_dims__ (or nothing)."""
    return {name: cluster or "" for cluster, name in _KERNEL_HEAD.findall(preprocessed)}


def build(
    source: Path, defines: Mapping[str, int | str], capability: tuple[int, int]
) -> tuple[Path, dict[str, int]]:
    """Compile a source for the emulator.

    Args:
        source: the .cu file.
        defines: macros and their values.
        capability: sets __CUDA_ARCH__, and __CUDA_ARCH_FEAT_SM90_ALL for (9, 0).

    Returns:
        The shared library that launches its kernels, and the number of each kernel in it.

    Raises:
        CompileError: no g++, or the source does not compile.
    """
    program, version = _tool()
    macros = {"ONEBIT_EMULATE": 1, "__CUDA_ARCH__": capability[0] * 100 + capability[1] * 10, **defines}
    if capability == (9, 0):
        macros["__CUDA_ARCH_FEAT_SM90_ALL"] = 1
    flags = [*_COMMON, *_KERNEL, *_popcount(), "-w", *(f"-D{key}={value}" for key, value in macros.items())]
    flags += [f"-I{HERE}", f"-I{CUDA.parent}"]
    read = ["-E", "-P", "-DONEBIT_READ_CLUSTER", "-D__cluster_dims__(...)=ONEBIT_CLUSTER(__VA_ARGS__)"]
    prelude = f'#include "builtins.h"\n#include "{source}"\n'
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        generated, compiled, library = (Path(folder) / f"kernels.{suffix}" for suffix in ("cpp", "o", "so"))
        generated.write_text(prelude)
        preprocessed = _run([program, *flags, *read, str(generated)])
        found = kernels(preprocessed)
        key = _digest(version, " ".join(flags), preprocessed, _core().name, (HERE / "launch.h").read_text())
        target = BUILD / f"{source.stem}-{key}.so"
        if not target.exists():
            table = ", ".join(
                f'entry<&::{name}>("{name}", cluster_shape({cluster}))' for name, cluster in found.items()
            )
            generated.write_text(
                f'{prelude}#include "launch.h"\nnamespace onebit_emulation {{\n'
                f'extern "C" const Kernel onebit_emulation_kernels[] = {{{table}}};\n}}\n'
            )
            _run([program, *flags, "-c", str(generated), "-o", str(compiled)])
            _run([program, "-shared", "-Wl,-Bsymbolic", str(compiled), str(_core()), "-o", str(library)])
            library.replace(target)  # two processes may build the same; either result will do
    return target, {name: i for i, name in enumerate(found)}
