"""Engine: inputs and their errors, limits, life and memory, dispatch, threads."""

from __future__ import annotations

import gc
import os
import pickle
import re
import threading
import weakref
from copy import copy as shallow_copy
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onebit.bench.machine import cpu_flags
from onebit.program import Program, ProgramError, execute
from onebit.runtime import (
    BYTES,
    ONE_BIT,
    REAL,
    Engine,
    EngineError,
    available_isas,
    choose_isa,
    kind_of,
    library,
    measure_peaks,
)
from onebit.runtime.builder import ENGINE_OPS
from onebit.runtime.library import Isa
from program_samples import bits, bytes_mlp, constant, f32, feed, float_zoo, one_op, signs
from support import kernel_for, require

K = 70


@pytest.fixture
def engine() -> Any:
    with Engine(bytes_mlp(K)) as made:
        yield made


def _images(batch: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(batch).integers(0, 256, (batch, K), dtype=np.uint8)


# ---- inputs ----


def test_takes_arrays_of_any_layout(engine: Engine) -> None:
    x = _images(300)
    wanted = execute(bytes_mlp(K), x)["y"]
    padded = np.zeros((300, K + 3), np.uint8)
    padded[:, 1:-2] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    for same in (x, np.asfortranarray(x), padded[:, 1:-2], read_only, x[::-1][::-1], x.view(np.recarray)):
        assert np.array_equal(engine(same), wanted)


def test_takes_unaligned_floats(isa: str) -> None:
    program = float_zoo(66, 33)
    image, z = feed(program, 5)
    raw = np.zeros(z.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(z.shape)
    assert not unaligned.flags.aligned
    unaligned[...] = z
    with Engine(program, isa=isa) as engine:
        for a, b in zip(engine(image, z), engine(image, unaligned), strict=True):
            assert np.array_equal(a, b)
        unaligned[4, 2] = np.nan
        with pytest.raises(ProgramError, match="NaN"):
            engine(image, unaligned)


def test_a_batch_of_none_gives_outputs_of_none() -> None:
    with Engine(bytes_mlp(K)) as engine:
        assert engine(_images(0)).shape == (0, 3)
    with Engine(float_zoo()) as engine:
        r, b = engine(np.zeros((0, 1, 2, 3), np.uint8), np.zeros((0, 6), np.float32))
        assert (r.shape, r.dtype, b.shape, b.dtype) == ((0, 4), np.float32, (0, 4), np.int8)


def test_a_float_that_is_no_number_per_sample() -> None:
    """Rank 0: a sample is one number."""
    with Engine(one_op("relu", {"x": f32()}, {}, f32())) as engine:
        assert engine(np.array([-1, 2], np.float32)).tolist() == [0, 2]


def test_an_input_may_be_an_output() -> None:
    program = bytes_mlp(K).with_outputs("x", "h0", "y")
    x = _images(300)
    wanted = execute(program, x)
    with Engine(program) as engine:
        for name, found in zip(program.outputs, engine(x), strict=True):
            assert np.array_equal(found, wanted[name])
        assert not np.shares_memory(engine(x)[0], x)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((), "number of inputs: found 0, expected 1"),
        ((np.zeros((1, K), np.uint8), 1), "number of inputs: found 2"),
        ((np.zeros((1, K), np.float32),), "dtype: found float32, expected uint8"),
        ((np.zeros((1, K), ">u2"),), "dtype: found >u2"),
        (
            (np.zeros(K, np.uint8),),
            re.escape(f"shape: found ({K},), expected (batch, {K}); add the batch axis"),
        ),
        ((np.zeros((1, K + 1), np.uint8),), re.escape(f"shape: found (1, {K + 1}), expected (batch, {K})")),
        ((np.zeros((1, 1, K), np.uint8),), "shape: found"),
        ((np.zeros((), np.uint8),), "shape: found"),
        (([[1] * K],), "found builtins.list, expected a NumPy array"),
        ((None,), "found builtins.NoneType"),
    ],
)
def test_wrong_inputs_are_told_what_is_expected(engine: Engine, inputs: Any, words: str) -> None:
    with pytest.raises(ProgramError, match=words):
        engine(*inputs)
    assert engine(_images(1)).shape == (1, 3)


def test_inputs_of_different_batches_are_refused() -> None:
    with Engine(float_zoo()) as engine, pytest.raises(ProgramError, match="batch: found 2, expected 3"):
        engine(np.zeros((3, 1, 2, 3), np.uint8), np.zeros((2, 6), np.float32))


@pytest.mark.parametrize("where", [(0, 0), (299, 6), (256, 3)])
def test_nan_is_refused_wherever_it_is(where: tuple[int, int], isa: str) -> None:
    x = np.ones((300, 7), np.float32)
    x[:, 1] = np.inf
    with Engine(one_op("sign", {"x": f32(7)}, {}, bits(7)), isa=isa) as engine:
        assert np.all(engine(x) == 1)
        x[where] = np.nan
        with pytest.raises(ProgramError, match=re.escape(f"NaN: found one at index {where}")):
            engine(x)


def test_bits_that_are_not_signs_are_refused() -> None:
    program = one_op("to_float", {"x": bits(33)}, {}, f32(33))
    x = signs(np.random.default_rng(0), 300, 33)
    with Engine(program) as engine:
        assert np.array_equal(engine(x), x.astype(np.float32))
        x[280, 32] = 0
        with pytest.raises(ProgramError, match="found 0 at index"):
            engine(x)


# ---- building ----


@pytest.mark.parametrize("threads", [0, -1, 257, 1.0, True, "2", None])
def test_threads_out_of_range_are_refused(threads: Any) -> None:
    with pytest.raises(EngineError, match=f"threads is {threads!r}"):
        Engine(bytes_mlp(), threads=threads)


@pytest.mark.parametrize("limit", [0, -1, 1.5, 2**63, "4GB"])
def test_a_limit_that_is_no_size_is_refused(limit: Any) -> None:
    with pytest.raises(EngineError, match="max_memory is"):
        Engine(bytes_mlp(), max_memory=limit)


def test_a_program_that_is_none_is_refused(tmp_path: Path) -> None:
    program = bytes_mlp()
    wrong = Program(program.inputs, ("nowhere",), program.nodes, program.constants, program.values)
    with pytest.raises(ProgramError, match="nowhere"):
        Engine(wrong)
    (tmp_path / "x.onebit").write_bytes(b"no program")
    with pytest.raises(ProgramError):
        Engine(tmp_path / "x.onebit")


@pytest.mark.parametrize("program", [None, 3, b"net.onebit", {"a": 1}])
def test_what_is_neither_a_program_nor_a_path_is_refused(program: Any) -> None:
    with pytest.raises(EngineError, match=f"type builtins.{type(program).__name__}; pass a Program"):
        Engine(program)


@pytest.mark.parametrize("duplicate", [shallow_copy, deepcopy, pickle.dumps])
def test_copying_and_pickling_point_to_clone(engine: Engine, duplicate: Any) -> None:
    with pytest.raises(TypeError, match=r"use clone\(\) here"):
        duplicate(engine)
    assert engine(_images(1)).shape == (1, 3)


def test_takes_a_path(tmp_path: Path) -> None:
    program = bytes_mlp(K)
    program.save(tmp_path / "net.onebit")
    x = _images(3)
    for path in (tmp_path / "net.onebit", str(tmp_path / "net.onebit")):
        with Engine(path) as engine:
            assert np.array_equal(engine(x), execute(program, x)["y"])


def test_a_tiny_program_cannot_ask_for_a_huge_arena() -> None:
    wide = 2**27
    row = np.ones(1, np.float32)
    huge = one_op("add", {"x": f32(wide, 8)}, {"c": constant(row)}, f32(wide, 8))
    with pytest.raises(EngineError, match="max_memory"):
        Engine(huge, max_memory=2**20)
    column = constant(np.ones((1024, 1), np.float32))
    spread = one_op("add", {"x": f32(1024, 512)}, {"c": column}, f32(1024, 512))
    with pytest.raises(EngineError, match="max_memory"):
        Engine(spread, max_memory=2**20)


def test_max_memory_holds_for_everything_owned() -> None:
    program = bytes_mlp(K, 65)
    with Engine(program) as engine:
        total, chunk = engine.memory.total, engine.memory.chunk
    with Engine(program, max_memory=total) as engine:
        assert engine.memory.chunk == chunk
    with Engine(program, max_memory=total - 1) as engine:
        assert engine.memory.chunk < chunk
        assert engine.memory.total < total
        x = _images(300)
        assert np.array_equal(engine(x), execute(program, x)["y"])
    with pytest.raises(EngineError, match="max_memory"):
        Engine(program, max_memory=1000)


def test_the_error_names_the_layer_that_does_not_fit() -> None:
    with pytest.raises(EngineError, match="layer 'fc0'"):
        Engine(bytes_mlp(4096, 4096), max_memory=2**20)


def test_an_op_that_the_engine_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onebit.runtime.builder.ENGINE_OPS", ENGINE_OPS - {"div"})
    with pytest.raises(EngineError, match=r"div \(layer 'norm'\): the engine has no op 'div'"):
        Engine(float_zoo())


# ---- instruction sets ----


def test_available_isas_are_those_of_the_machine() -> None:
    """Linux prints a feature only when it enabled its state; it shares no code with csrc/base."""
    flags = cpu_flags()
    require(flags, "a system that lists the features of its CPU in /proc/cpuinfo")
    isas = library().isas
    assert [isa.name for isa in isas if isa.native and set(isa.features) <= flags] == list(available_isas())
    assert available_isas()[-1] == "generic"


@pytest.mark.parametrize("name", ["", "AVX2", "sse9", "any"])
def test_an_unknown_isa_is_refused_with_a_list(name: str) -> None:
    with pytest.raises(EngineError, match=f"isa is '{name}': there is no such.*this machine has .*generic"):
        Engine(bytes_mlp(), isa=name)


def test_an_isa_of_another_machine_is_refused_by_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Isa("mmx9", "PDP-11", (), native=False, available=False)
    monkeypatch.setattr(library(), "isas", (elsewhere, *library().isas))
    with pytest.raises(EngineError, match=r"isa is 'mmx9': an instruction set of PDP-11 that is not here"):
        Engine(bytes_mlp(), isa="mmx9")


def test_the_environment_chooses_the_isa(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_isa() == available_isas()[0]
    monkeypatch.setenv("ONEBIT_ISA", "generic")
    with Engine(bytes_mlp()) as engine:
        assert engine.isa == "generic"
        assert set(engine.variants.values()) == {"u8_gemm/generic", "binary_gemm/generic"}
    assert choose_isa(available_isas()[0]) == available_isas()[0]
    monkeypatch.setenv("ONEBIT_ISA", "avx9")
    with pytest.raises(EngineError, match="ONEBIT_ISA is 'avx9'"):
        Engine(bytes_mlp())


def test_each_op_runs_the_best_kernel_listed_for_the_isa(isa: str) -> None:
    seen: dict[str, str] = {}
    for program in (bytes_mlp(), float_zoo(), bytes_mlp().with_outputs("a0", "h0", "r1")):
        with Engine(program, isa=isa) as engine:
            seen |= engine.variants
    assert {"u8_gemm", "binary_gemm", "f32_gemm", "f32_binary_gemm", "sign", "div"} <= set(seen)
    for op, variant in seen.items():
        family, _, tier = variant.partition("/")
        assert tier == kernel_for(family, isa), op


# ---- life ----


def test_a_closed_engine_says_so(engine: Engine) -> None:
    copy = engine.clone()
    engine.close()
    engine.close()
    for use in (lambda: engine(_images(1)), lambda: engine(_images(0)), engine.clone, lambda: engine.memory):
        with pytest.raises(EngineError, match="closed"):
            use()
    assert copy(_images(2)).shape == (2, 3)
    copy.close()


def test_clones_share_weights_and_give_the_same(isa: str) -> None:
    program = bytes_mlp(K)
    x = _images(300)
    engine = Engine(program, threads=2, isa=isa)
    copies = [engine.clone() for _ in range(3)]
    wanted = engine(x)
    engine.close()
    for copy in copies:
        assert (copy.threads, copy.isa) == (2, isa)
        assert np.array_equal(copy(x), wanted)


def test_constants_of_the_program_are_not_kept_alive() -> None:
    program = bytes_mlp(K)
    constants = [weakref.ref(constant.array) for constant in program.constants.values()]
    engine = Engine(program)
    copy = engine.clone()
    del program
    gc.collect()
    assert [array() for array in constants] == [None] * len(constants)
    assert np.array_equal(engine(_images(2)), copy(_images(2)))


@pytest.mark.idle_threads
def test_an_engine_let_go_gives_back_its_memory() -> None:
    """60 engines of more than 4 MiB each: were they kept, that would be seen."""
    require(Path("/proc/self/statm").exists(), "/proc/self/statm, to see the memory of this process")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    rng = np.random.default_rng(0)
    w = constant(rng.normal(size=(1024, 1024)).astype(np.float32))
    program = one_op("f32_gemm", {"x": f32(1024)}, {"w": w}, f32(1024))
    Engine(program)
    before = resident()
    for number in range(60):
        engine = Engine(program, threads=2)
        if number % 2:
            engine.close()
        else:
            engine.clone()
    del engine
    assert resident() - before < 64 * 2**20


@pytest.mark.idle_threads
def test_memory_is_counted(engine: Engine) -> None:
    memory = engine.memory
    assert memory.weights >= (33 * 3 + 3 * 2) * 4  # the packed weights, and what their tiles pad
    assert memory.constants >= 33 * 4 + 8 + 3 * 4 * 2
    assert memory.arena >= memory.chunk * 2 * 4  # one chunk of 33 hidden bits
    assert memory.total == memory.weights + memory.constants + memory.arena + memory.scratch
    with Engine(bytes_mlp(K), threads=3) as three:
        assert three.memory.scratch == 3 * memory.scratch


def test_profile_names_each_op(engine: Engine) -> None:
    profile = engine.profile(_images(300), repeats=3)
    assert [(op.layer, op.op) for op in profile] == [
        ("fc0", "u8_gemm+threshold"),
        ("fc1", "binary_gemm+to_float+affine"),
    ]
    assert [op.macs for op in profile] == [300 * K * 33, 300 * 33 * 3]
    for op in profile:
        assert op.variant in engine.variants.values()
        assert op.seconds > 0
        assert op.gmacs == pytest.approx(op.macs / op.seconds / 1e9)
        assert op.peak_share == pytest.approx(
            op.gmacs / measure_peaks(engine.isa, engine.threads)[kind_of(op.op)]
        )
    with pytest.raises(EngineError, match="repeats is 0"):
        engine.profile(_images(1), repeats=0)


def test_peaks_are_of_each_kind_of_product() -> None:
    peaks = measure_peaks("generic", 1)
    assert set(peaks) == {ONE_BIT, BYTES, REAL}
    assert all(peak > 0 for peak in peaks.values())
    assert measure_peaks("generic", 1) is peaks  # measured once
    assert kind_of("u8_conv2d+threshold") == BYTES


def test_profile_passes_over_what_only_renames_memory() -> None:
    program = float_zoo(66, 33)
    with Engine(program) as engine:
        profile = engine.profile(*feed(program), repeats=1)
    ops = [op.op for op in profile]
    assert "reshape" not in ops
    assert profile[0].peak_share is None  # it is no product
    assert ops[0] == "scale_pixels"


def test_repr_and_types(engine: Engine) -> None:
    assert "x u8[70] → y f32[3]" in repr(engine)
    assert [str(t) for t in (*engine.input_types.values(), *engine.output_types.values())] == [
        "u8[70]",
        "f32[3]",
    ]


# ---- threads ----


@pytest.mark.parametrize("threads", [1, 2])
def test_one_engine_from_several_python_threads(threads: int) -> None:
    program = bytes_mlp(K, 129, 33)
    batches = [_images(n) for n in (1, 7, 64, 300, 513)]
    wanted = [execute(program, x)["y"] for x in batches]
    wrong: list[str] = []
    with Engine(program, threads=threads) as engine:
        clones = [engine.clone() for _ in range(2)]
        start = threading.Barrier(6)

        def work(number: int) -> None:
            used = engine if number < 4 else clones[number - 4]
            start.wait()
            for step in range(60):
                which = (number + step) % len(batches)
                try:
                    if not np.array_equal(used(batches[which]), wanted[which]):
                        wrong.append(f"thread {number}, step {step}: another result")
                    if step % 7 == 0:
                        used(batches[which][:, 1:])
                        wrong.append(f"thread {number}, step {step}: a wrong shape was taken")
                except ProgramError:
                    pass

        workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert wrong == []


def test_closing_while_others_run_ends_with_an_error_not_a_crash() -> None:
    engine = Engine(bytes_mlp(K, 129), threads=2)
    x = _images(300)
    ended: list[str] = []

    def work() -> None:
        try:
            while True:
                engine(x)
        except EngineError as error:
            ended.append(str(error))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    engine(x)
    engine.close()
    for worker in workers:
        worker.join(timeout=60)
    assert ended == ["this engine is closed"] * 3


def test_flushing_of_subnormals_by_others_changes_nothing() -> None:
    """PyTorch can set the processor to flush subnormals in the calling thread; the definition does not."""
    torch = pytest.importorskip("torch")
    tiny = np.full((1, 5), 1e-40, np.float32)
    program = one_op("mul", {"x": f32(5)}, {"c": constant(np.float32(0.5))}, f32(5))
    with Engine(program) as engine:
        wanted = engine(tiny).tobytes()
        assert np.frombuffer(wanted, np.float32).all()
        if not torch.set_flush_denormal(True):
            require(False, "a processor that can flush subnormals")
        try:
            assert engine(tiny).tobytes() == wanted
        finally:
            torch.set_flush_denormal(False)
