"""The compiler, its cache, and what the CUDA driver room can show without a GPU."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from onebit.runtime import EngineError
from onebit.runtime.cuda.device import compiler, driver
from onebit.runtime.cuda.device.interface import target
from support import ROOT, require

CPU = torch.device("cpu")
KERNEL = 'extern "C" __global__ void twice(float *y) { y[threadIdx.x] *= FACTOR * ONE; }\n'


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree with one kernel and its header, and an empty cache folder beside it."""
    try:
        import cuda.core  # noqa: F401
    except ImportError:
        require(False, "the package cuda-core")
    root = tmp_path / "csrc"
    (root / "cuda" / "base").mkdir(parents=True)
    (root / "cuda" / "demo").mkdir()
    (root / "cuda" / "base" / "one.cuh").write_text("#pragma once\n#define ONE 1.0f\n")
    (root / "cuda" / "demo" / "twice.cu").write_text('#include "cuda/base/one.cuh"\n' + KERNEL)
    monkeypatch.setattr(compiler, "source_root", lambda: root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return root


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each real compilation adds the file it compiled."""
    files: list[str] = []
    real = compiler.compile_source

    def counted(file: str, *rest: Any) -> tuple[bytes, str]:
        files.append(file)
        return real(file, *rest)

    monkeypatch.setattr(compiler, "compile_source", counted)
    return files


def _twice(factor: int = 2, architecture: str = "sm_80") -> bytes:
    return compiler.cubin("demo/twice.cu", {"FACTOR": factor}, architecture)


def test_a_kernel_is_compiled_once_and_then_read(tree: Path, compilations: list[str]) -> None:
    code = _twice()
    assert code[:4] == b"\x7fELF"
    assert b"twice" in code
    assert _twice() == code
    assert compilations == ["demo/twice.cu"]


def test_whatever_decides_the_code_decides_the_key(tree: Path, compilations: list[str]) -> None:
    _twice()
    _twice(factor=3)
    _twice(architecture="sm_90a")
    (tree / "cuda" / "base" / "one.cuh").write_text("#pragma once\n#define ONE 7.0f\n")
    changed = _twice()
    (tree / "cuda" / "demo" / "twice.cu").write_text(KERNEL.replace("ONE", "9.0f"))
    assert _twice() != changed
    assert len(compilations) == 5


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 4000])
def test_a_damaged_cache_file_is_compiled_anew(tree: Path, compilations: list[str], damage: bytes) -> None:
    code = _twice()
    (kept,) = compiler.cache_folder().glob("*.cubin")
    kept.write_bytes(damage)
    assert _twice() == code
    assert len(compilations) == 2
    assert _twice() == code, "the new file is whole"
    assert len(compilations) == 2


def test_without_a_cache_folder_kernels_are_compiled_each_time(
    tree: Path, compilations: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert _twice() == _twice()
    assert len(compilations) == 2


def test_an_error_in_a_source_names_file_macros_and_line(tree: Path) -> None:
    (tree / "cuda" / "demo" / "twice.cu").write_text("\n\nint wrong(\n")
    with pytest.raises(
        EngineError, match=r"csrc/cuda/demo/twice.cu -DFACTOR=2 does not compile for sm_80"
    ) as e:
        _twice()
    assert "twice.cu(3)" in str(e.value)


def test_a_missing_source_is_named(tree: Path) -> None:
    with pytest.raises(EngineError, match=r"no kernel source .*nowhere.cu"):
        compiler.cubin("demo/nowhere.cu", {}, "sm_80")


def test_multiplications_and_additions_are_not_contracted(tree: Path) -> None:
    """The contract of numerics: `a * b + c` rounds twice; only fmaf rounds once."""
    source = 'extern "C" __global__ void f(float *y) { y[0] = BODY; }\n'
    (tree / "cuda" / "demo" / "twice.cu").write_text(source)
    plain = compiler.cubin("demo/twice.cu", {"BODY": "y[0] * y[1] + y[2]"}, "sm_80")
    fused = compiler.cubin("demo/twice.cu", {"BODY": "fmaf(y[0], y[1], y[2])"}, "sm_80")
    products = compiler.cubin("demo/twice.cu", {"BODY": "__fadd_rn(__fmul_rn(y[0], y[1]), y[2])"}, "sm_80")
    assert _text(plain) == _text(products) != _text(fused)


def _text(cubin: bytes) -> bytes:
    """The machine instructions of the one kernel, from the ELF section .text.f."""
    offset, size, count = (int.from_bytes(cubin[a:b], "little") for a, b in ((40, 48), (58, 60), (60, 62)))
    names_index = int.from_bytes(cubin[62:64], "little")
    headers = [cubin[offset + i * size : offset + (i + 1) * size] for i in range(count)]

    def body(header: bytes) -> bytes:
        begin, length = (int.from_bytes(header[a:b], "little") for a, b in ((24, 32), (32, 40)))
        return cubin[begin : begin + length]

    names = body(headers[names_index])
    for header in headers:
        at = int.from_bytes(header[:4], "little")
        if names[at:].split(b"\0")[0] == b".text.f":
            return body(header)
    raise AssertionError("no .text.f")


def test_the_sources_are_those_of_the_tree() -> None:
    assert compiler.source_root() == ROOT / "csrc"


def test_an_installed_package_brings_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "onebit"
    (package / "csrc" / "cuda").mkdir(parents=True)
    monkeypatch.setattr(compiler, "__file__", str(package / "runtime" / "cuda" / "compiler.py"))
    monkeypatch.setattr(compiler.resources, "files", lambda name: package)
    assert compiler.source_root() == package / "csrc"
    (package / "csrc" / "cuda").rmdir()
    with pytest.raises(EngineError, match="install the package again"):
        compiler.source_root()


def test_cmake_installs_every_kind_of_kernel_source() -> None:
    install = (ROOT / "CMakeLists.txt").read_text()
    suffixes = {path.suffix for path in (ROOT / "csrc" / "cuda").rglob("*") if path.is_file()}
    assert {".cu", ".cuh"} <= suffixes
    for suffix in suffixes:
        assert f'PATTERN "*{suffix}"' in install, suffix


def test_a_missing_cuda_core_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(EngineError, match=r"pip install 'onebit\[cuda\]'"):
        compiler.compile_source("demo/any.cu", {}, "sm_80")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(EngineError, match=r"pip install 'onebit\[cuda\]'"):
        driver.cuda_device("cuda")


def test_a_missing_compiler_says_what_to_install(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cuda.core

    def missing(*_: object, **__: object) -> None:
        raise RuntimeError("libnvrtc.so not found")

    monkeypatch.setattr(cuda.core, "Program", missing)
    with pytest.raises(EngineError, match=r"libnvrtc.so not found.*pip install 'onebit\[cuda\]'"):
        _twice()


@pytest.mark.parametrize(
    ("version", "available", "device", "message"),
    [
        (None, False, "cuda", "built without CUDA; install one with it"),
        ("13.0", False, "cuda", "no NVIDIA GPU or driver found"),
        ("13.0", True, "cuda:3", "device cuda:3: this machine has 2 GPUs"),
    ],
)
def test_no_gpu_says_why(
    version: str | None, available: bool, device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(EngineError, match=message):
        driver.cuda_device(device)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), "sm_90a"), ((8, 0), "sm_80"), ((7, 5), "sm_75"), ((12, 0), "sm_120")],
)
def test_the_target_of_a_device(capability: tuple[int, int], expected: str) -> None:
    assert target(capability) == expected


class Pair(ctypes.Structure):
    _fields_ = (("a", ctypes.c_int32), ("b", ctypes.c_float))


def test_arguments_get_the_types_that_kernels_declare() -> None:
    tensor = torch.zeros(3)
    pair = Pair(1, 2.0)
    wide = ctypes.c_uint64(2**40)
    values = driver.marshal((tensor, 7, 0.5, None, wide, pair, -(2**31), True), CPU)
    assert [type(value) for value in values[:4]] == [
        ctypes.c_void_p,
        ctypes.c_int32,
        ctypes.c_float,
        ctypes.c_void_p,
    ]
    assert [value.value for value in values[:4]] == [tensor.data_ptr(), 7, 0.5, None]
    assert values[4] is wide
    assert values[5] is pair
    assert [value.value for value in values[6:]] == [-(2**31), 1]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (2**31, "argument 1: 2147483648 does not fit an int32"),
        ("text", "argument 1: str is no kernel argument"),
        (torch.zeros(1, device="meta"), "argument 1: a tensor on meta, expected cpu"),
    ],
)
def test_a_wrong_argument_is_refused(argument: Any, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        driver.marshal((1, argument), CPU)


@pytest.mark.parametrize(
    ("shape", "dtype", "box", "swizzle", "message"),
    [
        ((4, 64), torch.int8, (4, 32), 0, "must be uint8"),
        ((4, 65), torch.uint8, (4, 32), 0, "multiples of 16"),
        ((0, 64), torch.uint8, (4, 32), 0, "must be uint8"),
        ((4, 64), torch.uint8, (257, 32), 0, "at most 256"),
        ((4, 64), torch.uint8, (4, 24), 0, "a multiple of 16"),
        ((4, 64), torch.uint8, (4, 64), 32, "swizzle 32 for boxes of 64"),
        ((4, 64), torch.uint8, (4, 64), 48, "swizzle 48"),
    ],
)
def test_a_wrong_tensor_map_is_refused(
    shape: tuple[int, int], dtype: torch.dtype, box: tuple[int, int], swizzle: int, message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        driver.check_map_arguments(torch.zeros(shape, dtype=dtype), *box, swizzle)


def test_a_right_tensor_map_passes() -> None:
    driver.check_map_arguments(torch.zeros((4, 256), dtype=torch.uint8), 128, 128, 128)
