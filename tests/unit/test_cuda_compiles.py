"""Every kernel that the host code can ask for compiles for each of its targets, and keeps to its registers.

NVRTC needs no GPU and no driver. A kernel that spills, or that holds an array in local memory, is many times
slower, and says so nowhere but here. The same holds for what ptxas only warns of: wgmma instructions made to
wait for each other, a setmaxnreg that it ignores.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cubin import Usage, from_elf, from_log
from support import ROOT, require, sweep

REMARK = re.compile(r"warning|performance loss|ignored|injected", re.IGNORECASE)

# With few registers a thread the sums do not fit; with a variable index they cannot be registers.
SPILLING = """
extern "C" __global__ void __launch_bounds__(1024) kernel(const float* x, float* y) {
    float sums[128] = {};
    for (int i = 0; i < 1000; i++)
#pragma unroll
        for (int j = 0; j < 128; j++) sums[j] = fmaf(x[i], x[i + j], sums[j]);
#pragma unroll
    for (int j = 0; j < 128; j++) y[threadIdx.x + j * 1024] = sums[j];
}
"""
INDEXED = """
extern "C" __global__ void kernel(const int* x, int* y, int n) {
    int count[8] = {};
    for (int i = 0; i < n; i++) count[x[i] & 7]++;
    for (int j = 0; j < 8; j++) y[j] = count[(j + n) & 7];
}
"""
FINE = """
extern "C" __global__ void kernel(const float* x, float* y) { y[threadIdx.x] = 2 * x[threadIdx.x]; }
"""
# Accumulators that a branch may change between two wgmma: ptxas makes the instructions wait for each other.
SERIALISED = """
#include "cuda/base/ptx.cuh"
extern "C" __global__ void __launch_bounds__(128) kernel(unsigned long long a, int* y, int n) {
    int d[32];
    for (int i = 0; i < 32; i++) d[i] = n;
    wgmma_fence();
    for (int i = 0; i < n; i++) {
        wgmma_b1<64>(d, a, a, 1);
        wgmma_commit();
        if (y[i]) d[0]++;
    }
    wgmma_wait<0>();
    for (int i = 0; i < 32; i++) y[threadIdx.x + 128 * i] = d[i];
}
"""
FLOATS = """
extern "C" __global__ void kernel(const float* x, float* y, float a, float b) {
    y[0] = x[0] * a + b;
    y[1] = x[1] / a;
    y[2] = sqrtf(x[2]);
}
"""


def need_nvrtc() -> None:
    for module in ("torch", "cuda.core", "cuda.bindings"):
        try:
            found = find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        require(found, f"{module} is not installed; cuda-core comes with onebit[cuda]")


def compiled(file: str, defines: dict[str, int], target: str) -> tuple[dict[str, Usage], str]:
    """What each kernel of the file uses, and the log; fails if the log and the ELF file do not agree."""
    from onebit.runtime.cuda.device.compiler import compile_source

    code, log = compile_source(file, defines, target)
    logged = {usage.name: usage for usage in from_log(log)}
    assert logged, f"no kernel in the assembler's log:\n{log}"
    in_file = from_elf(code)
    for name, usage in logged.items():
        assert in_file[name] == {"registers": usage.registers, "stack": usage.stack}, (
            f"{name}: {in_file} {log}"
        )
    return logged, log


def problems(usages: dict[str, Usage], log: str) -> list[str]:
    """What is wrong with compiled kernels."""
    wrong = [
        f"{usage.name}: {usage.spilled} bytes spilled, {usage.stack} of stack, {usage.registers} registers"
        for usage in usages.values()
        if usage.spilled or usage.stack
    ]
    return wrong + [line for line in log.splitlines() if REMARK.search(line)]


def targets() -> list[str]:
    """Those of the catalog; one name, to be skipped under, where it cannot be imported."""
    try:
        from onebit.runtime.cuda.kernels.entry import TARGETS
    except ImportError:
        return ["any"]
    return list(TARGETS)


@pytest.mark.slow
@sweep("target", targets(), keep=[target for target in targets() if target in ("sm_75", "sm_90a", "any")])
def test_every_kernel_compiles_without_spills(target: str) -> None:
    need_nvrtc()
    from onebit.runtime.cuda.kernels.catalog import entries

    mine = [entry for entry in entries() if target in entry.targets]
    assert mine, f"no kernel for {target}"
    wrong = []
    for entry in mine:
        defines = dict(entry.defines)
        usages, log = compiled(entry.file, defines, target)
        macros = " ".join(f"-D{name}={value}" for name, value in defines.items())
        assert entry.name in usages, f"csrc/cuda/{entry.file} {macros} has no kernel {entry.name}"
        print(f"{target} {entry.name} {macros}: {usages[entry.name].registers} registers")
        wrong += [f"csrc/cuda/{entry.file} {macros}: {text}" for text in problems(usages, log)]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "expected"),
    [(SPILLING, "bytes spilled"), (INDEXED, "of stack"), (SERIALISED, "serialized"), (FINE, None)],
    ids=["spilling", "indexed", "serialised", "fine"],
)
def test_the_check_sees_local_memory_and_warnings(tmp_path: Path, source: str, expected: str | None) -> None:
    need_nvrtc()
    path = tmp_path / "kernel.cu"
    path.write_text(source)
    found = problems(*compiled(str(path), {}, "sm_90a"))
    if expected is None:
        assert not found
    else:
        assert any(expected in line for line in found), found


def test_a_spill_is_told_from_an_array_in_local_memory(tmp_path: Path) -> None:
    need_nvrtc()
    path = tmp_path / "kernel.cu"
    path.write_text(SPILLING)
    assert compiled(str(path), {}, "sm_80")[0]["kernel"].spilled > 0
    path.write_text(INDEXED)
    usage = compiled(str(path), {}, "sm_80")[0]["kernel"]
    assert usage.stack > 0
    assert usage.spilled == 0


def float_instructions(path: Path, defines: dict[str, int], target: str) -> set[str]:
    """The PTX instructions that compute with float32, with all that they say of rounding.

    By NVRTC's own calls: cuda.core makes PTX only where there is a driver.
    """
    from cuda.bindings import nvrtc

    from onebit.runtime.cuda.device.compiler import options

    def call(function: Any, *args: Any) -> Any:
        status, *results = function(*args)
        assert int(status) == 0, (function.__name__, status)
        return results[0] if results else None

    flags = options(str(path), defines, target).as_bytes("nvrtc")
    program = call(nvrtc.nvrtcCreateProgram, path.read_bytes(), path.name.encode(), 0, [], [])
    call(nvrtc.nvrtcCompileProgram, program, len(flags), flags)
    ptx = b" " * call(nvrtc.nvrtcGetPTXSize, program)
    call(nvrtc.nvrtcGetPTX, program, ptx)
    return set(re.findall(r"\b((?:add|sub|mul|div|rcp|fma|sqrt)\.[a-z.]*f32)\b", ptx.decode()))


def test_floats_are_computed_as_written(tmp_path: Path) -> None:
    """No product and sum become an fma, no subnormal zero, no quotient or root an approximation."""
    need_nvrtc()
    path = tmp_path / "kernel.cu"
    path.write_text(FLOATS)
    for target in ("sm_80", "sm_90a"):
        found = float_instructions(path, {}, target)
        assert found == {"mul.rn.f32", "add.rn.f32", "div.rn.f32", "sqrt.rn.f32"}, target
    macros = {"TARGET": 0, "WIDTH": 1, "MAX_STEPS": 12}
    chain = float_instructions(ROOT / "csrc/cuda/elementwise/chain.cu", macros, "sm_80")
    assert {"fma.rn.f32", "div.rn.f32"} <= chain
    assert not [name for name in chain if re.search("ftz|approx|full", name)], chain
