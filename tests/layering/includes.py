"""The csrc rows of the dependency table: what each folder may `#include`, and what kernels may not call."""

from __future__ import annotations

import re
from pathlib import Path

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)
# `#include NAME` with `#define NAME "path"`: the definition is judged as if it stood in an #include.
_COMPUTED = re.compile(r'^[ \t]*#[ \t]*define[ \t]+\w+[ \t]+(["])([^"]+\.(?:h|c|inc|cu|cuh))"', re.MULTILINE)
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_STRING = re.compile(r'"(?:\\.|[^"\\\n])*"')

_PURE = {
    "assert.h",
    "float.h",
    "limits.h",
    "math.h",
    "stdalign.h",
    "stdbool.h",
    "stddef.h",
    "stdint.h",
    "string.h",
}
_STANDARD = _PURE | {
    "errno.h", "fenv.h", "inttypes.h", "stdarg.h", "stdatomic.h", "stdio.h", "stdlib.h", "time.h",
}  # fmt: skip
_THREADS = {
    "pthread.h",
    "sched.h",
    "signal.h",
    "threads.h",
    "unistd.h",
    "sys/sysinfo.h",
    "sys/auxv.h",
    "sys/syscall.h",
    "linux/futex.h",
}
_INTRINSICS = {
    "immintrin.h",
    "x86intrin.h",
    "nmmintrin.h",
    "cpuid.h",
    "arm_neon.h",
    "arm_sve.h",
    "wasm_simd128.h",
}

# Names whose call means memory, files or threads. Kernels get buffers; they make none.
_FORBIDDEN_CALLS = re.compile(
    r"\b(malloc|calloc|realloc|free|aligned_alloc|posix_memalign|alloca|fopen|open|read|write|printf|fprintf"
    r"|pthread_\w+|thrd_\w+|mmap)\s*\("
)
_ISA_FILE = re.compile(r"^(x86|arm|wasm)_\w+\.c$")


def is_isa_file(path: Path) -> bool:
    """Whether the C file is the kernels of one instruction set, and may use its intrinsics."""
    return _ISA_FILE.match(path.name) is not None


def _is_test(path: Path) -> bool:
    return path.name in ("test.c", "bench.c") or path.stem.startswith(("test_", "bench_", "testing"))


def c_violations(path: Path, csrc: Path) -> list[str]:
    """What `path`, a C file below `csrc`, includes or calls against the table."""
    relative = path.relative_to(csrc)
    text = path.read_text(encoding="utf-8")
    code = _COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)
    if len(relative.parts) < 2:
        return [f"{relative}: a C file outside every folder of csrc"]
    area = relative.parts[0]
    if area not in ("base", "kernels", "engine", "cuda", "include"):
        return [
            f"{relative}: {area!r} is no folder of docs/architecture.md; add it to tests/layering/includes.py"
        ]
    if area != "cuda" and _is_test(path):
        return []
    found = []
    for match in (*_INCLUDE.finditer(code), *_COMPUTED.finditer(code)):
        problem = _judge(area, relative, quoted=match.group(1) == '"', name=match.group(2))
        if problem:
            found.append(f"{relative}:{code.count(chr(10), 0, match.start()) + 1}: {problem}")
    if area == "kernels":
        for match in _FORBIDDEN_CALLS.finditer(_STRING.sub('""', code)):
            found.append(f"{relative}: kernels may not call {match.group(1)}()")
    return found


# The public header, which only the engine implements, and what it shares with kernels and CUDA.
_PUBLIC, _SHARED = "onebit.h", "onebit_ops.h"


def _judge(area: str, relative: Path, *, quoted: bool, name: str) -> str | None:
    if not quoted:
        return _judge_system(area, relative, name)
    if ".." in Path(name).parts:
        return f'includes "{name}": write the path from csrc instead of ".."'
    if name == (f"include/{_SHARED}" if area == "cuda" else _SHARED) and area != "base":
        return None
    own_folder = "/" not in name
    target = name.split("/")[0]
    if area == "base" and not (own_folder or target == "base"):
        return f'csrc/base may not include "{name}"'
    if area == "kernels":
        if str(relative) == "kernels/families.h" and target == "kernels":
            return None  # it declares the choice of a variant of each family
        if name == "kernels/families.h" and str(relative) != "kernels/select.c":
            return (
                "a kernel may not choose other kernels: only select.c, the engine and tests know all families"
            )
        family = "/".join(name.split("/")[:2])
        shared = target == "kernels" and name.count("/") == 1
        own = family == "/".join(relative.parts[:2])
        if name == _PUBLIC or not (own_folder or target == "base" or shared or own):
            return f'a kernel family may include base, kernels/*.h and its own files, not "{name}"'
    if area == "engine":
        kernel_header = target == "kernels" and name.endswith(".h")
        if not (own_folder or target in ("base", "engine") or kernel_header):
            return f'csrc/engine may include base, engine and kernel headers, not "{name}"'
    if area == "include" and name != _PUBLIC:
        return f'the public header may not include "{name}"'
    if area == "cuda" and not (own_folder or target == "cuda"):
        return f'csrc/cuda may include only its own headers, not "{name}"'
    return None


def _judge_system(area: str, relative: Path, name: str) -> str | None:
    allowed = {
        "base": _STANDARD | _THREADS | _INTRINSICS,
        "kernels": _PURE | (_INTRINSICS if is_isa_file(relative) else set()),
        "engine": _STANDARD | _THREADS,
        "include": {"stddef.h", "stdint.h", "stdbool.h"},
        "cuda": {"cuda.h", "cuda_fp16.h", "cuda_bf16.h", "cuda/barrier", "cuda/ptx", "cuda/std/cstdint"},
    }[area]
    if name in allowed:
        return None
    return f"csrc/{area} may not include <{name}>" + (
        " outside an ISA file (x86_*.c, arm_*.c, wasm_*.c)"
        if area == "kernels" and name in _INTRINSICS
        else ""
    )
