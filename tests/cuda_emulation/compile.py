"""Compile a kernel's source with g++ into a shared library that runs it on the emulator."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from support import ROOT

HERE = Path(__file__).resolve().parent
CUDA = ROOT / "csrc" / "cuda"
BUILD = ROOT / "build" / "cuda_emulation"  # ignored by git; everything in it is named by its content

_COMMON = ["-std=c++20", "-fPIC", "-g1", "-fno-gnu-unique", "-ffp-contract=off"]
_KERNEL = ["-O1", "-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0", "-fno-stack-protector"]


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


def _publish(temporary: Path, target: Path) -> None:
    os.replace(temporary, target)  # two processes may build the same; either result will do


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
        unity = target.with_suffix(f".{os.getpid()}.cpp")
        unity.write_text("".join(f'#include "{path}"\n' for path in sources))
        temporary = target.with_suffix(f".{os.getpid()}.o")
        _run([program, *flags, "-c", str(unity), "-o", str(temporary)])
        unity.unlink()
        _publish(temporary, target)
    return target


def _cluster(preprocessed: str, name: str) -> str:
    """The arguments of the kernel's __cluster_dims__, or "1"."""
    found = re.search(rf"ONEBIT_CLUSTER\(((?:[^()]|\([^()]*\))*)\)[^;{{}}]*?\b{name}\s*\(", preprocessed)
    return found.group(1) if found else "1"


def build(source: Path, name: str, defines: Mapping[str, int | str], capability: tuple[int, int]) -> Path:
    """Compile the kernel `name` of `source` and return the shared library that launches it.

    Args:
        source: the .cu file.
        name: its `extern "C"` name.
        defines: macros and their values.
        capability: sets __CUDA_ARCH__, and __CUDA_ARCH_FEAT_SM90_ALL for (9, 0).

    Raises:
        CompileError: no g++, or the source does not compile.
    """
    program, version = _tool()
    macros = {"ONEBIT_EMULATE": 1, "__CUDA_ARCH__": capability[0] * 100 + capability[1] * 10, **defines}
    if capability == (9, 0):
        macros["__CUDA_ARCH_FEAT_SM90_ALL"] = 1
    flags = [*_COMMON, *_popcount(), "-w", *(f"-D{key}={value}" for key, value in macros.items())]
    flags += [f"-I{HERE}", f"-I{CUDA.parent}"]
    read = ["-E", "-P", "-DONEBIT_READ_CLUSTER", "-D__cluster_dims__(...)=ONEBIT_CLUSTER(__VA_ARGS__)"]
    prelude = f'#include "builtins.h"\n#include "{source}"\n'
    BUILD.mkdir(parents=True, exist_ok=True)
    stem = BUILD / f"{source.stem}-{name}.{os.getpid()}"
    generated = stem.with_suffix(stem.suffix + ".cpp")
    generated.write_text(prelude)
    preprocessed = _run([program, *flags, *read, str(generated)])
    key = _digest(version, " ".join(flags), preprocessed, name, _core().name, (HERE / "launch.h").read_text())
    target = BUILD / f"{source.stem}-{name}-{key}.so"
    if not target.exists():
        generated.write_text(
            prelude
            + '#include "launch.h"\n'
            + f'extern "C" void onebit_emulation_body(void** args) {{ onebit_emulation::call(&{name}, args); }}\n'
            + 'extern "C" void onebit_emulation_describe(void (*add)(char, size_t)) '
            + f"{{ onebit_emulation::describe(&{name}, add); }}\n"
            + 'extern "C" void onebit_emulation_cluster(int* sizes) {\n'
            + f"    int given[3] = {{{_cluster(preprocessed, name)}}};\n"
            + "    for (int i = 0; i < 3; i++) sizes[i] = given[i] ? given[i] : 1;\n}\n"
        )
        temporary = stem.with_suffix(stem.suffix + ".o")
        library = stem.with_suffix(stem.suffix + ".so")
        _run([program, *flags, *_KERNEL, "-c", str(generated), "-o", str(temporary)])
        _run([program, "-shared", str(temporary), str(_core()), "-o", str(library)])
        temporary.unlink()
        _publish(library, target)
    generated.unlink()
    return target
