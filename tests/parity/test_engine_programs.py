"""Random Programs: the reference executor == the engine, for every instruction set and 1 and 2 threads."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from onebit.program import verify
from onebit.program.fusion import fuse
from onebit.runtime import Engine
from onebit.runtime.builder import ENGINE_OPS
from onebit.runtime.library import SHARING_VARIABLE
from parity.agreement_engine import IMAGE_OPS, compare, run
from parity.random_images import ImageMaker
from parity.random_programs import ProgramMaker
from program_samples import bytes_mlp, feed, float_zoo

SEEDS = range(60)
BATCHES = (1, 2, 5, 67)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_programs_equal_the_reference(seed: int, isa: str, request: pytest.FixtureRequest) -> None:
    work = False
    maker = ProgramMaker(seed)
    program = maker.make(ops=14)
    verify(program)
    seen = program.with_outputs(*(node.output for node in program.nodes))
    for threads in (1, 2):
        for version in (program, seen):  # some values fused away; every value kept
            with Engine(version, threads=threads, isa=isa) as engine:
                work = work or len(engine.ops) > 0
                for batch in BATCHES:
                    context = f"seed {seed}, {isa}, {threads} threads, batch {batch}"
                    compare(version, engine, maker.feed(batch), context)
    if not work:  # nothing but other names for memory
        request.applymarker(pytest.mark.idle_threads)


def test_the_seeds_cover_every_op_and_every_epilogue() -> None:
    ops: Counter[str] = Counter()
    epilogues: Counter[tuple[str, str]] = Counter()
    longest = 0
    for seed in SEEDS:
        program = ProgramMaker(seed).make(ops=14)
        for step in fuse(program):
            ops.update(node.op for node in step.nodes)
            epilogues[step.nodes[0].op, step.epilogue] += 1
            longest = max(longest, len(step.nodes))
    assert set(ops) == {op for op in ENGINE_OPS if op not in IMAGE_OPS}
    for family in ("binary_gemm", "u8_gemm"):
        for epilogue in ("i32", "f32", "bits"):
            assert epilogues[family, epilogue] > 0, (family, epilogue)
    assert epilogues["f32_gemm", "f32"] > 0
    assert epilogues["f32_binary_gemm", "f32"] > 0
    assert longest >= 4, "no GEMM took to_float and two more steps"


@pytest.mark.idle_threads  # whoever is free takes a share: on a busy machine the caller may take them all
def test_threads_share_as_users_have_it(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the sharing that tests force: small ops by the caller alone, the shares of large ones by
    whoever is free, in any order from run to run."""
    monkeypatch.delenv(SHARING_VARIABLE)
    for maker, ops in (
        (ProgramMaker(2), 14),
        (ProgramMaker(5), 14),
        (ImageMaker(3), 12),
        (ImageMaker(8), 12),
    ):
        program = maker.make(ops=ops)
        for threads in (2, 3):
            with Engine(program, threads=threads, isa=isa) as engine:
                for batch in (1, 5, 67):
                    compare(program, engine, maker.feed(batch), f"{isa}, {threads} threads, batch {batch}")
    wide = bytes_mlp(784, 1024, 33)
    (x,) = feed(wide, 300)
    for threads in (2, 3):
        with Engine(wide, threads=threads, isa=isa) as engine:
            for _ in range(5):
                compare(wide, engine, [x], f"{isa}, {threads} threads, wide")


def test_a_row_does_not_depend_on_its_batch(isa: str) -> None:
    """A sample gives the same bytes alone, in a chunk and across chunks, whatever the thread count."""
    rng = np.random.default_rng(5)
    for program, shapes in (
        (bytes_mlp(70, 65, 33), [(600, 70)]),
        (float_zoo(66, 33), [(600, 1, 2, 33), (600, 66)]),
    ):
        inputs = [rng.integers(0, 256, shapes[0], dtype=np.uint8)]
        if len(shapes) == 2:
            inputs.append(rng.normal(size=shapes[1]).astype(np.float32))
        results = []
        for threads in (1, 2, 3):
            with Engine(program, threads=threads, isa=isa) as engine:
                whole = run(engine, *inputs)
                parts = [run(engine, *(x[i : i + 1] for x in inputs)) for i in (0, 1, 255, 256, 599)]
                for output, row in ((o, r) for o in range(len(whole)) for r in range(len(parts))):
                    index = (0, 1, 255, 256, 599)[row]
                    assert whole[output][index].tobytes() == parts[row][output][0].tobytes()
                results.append([output.tobytes() for output in whole])
        assert results[0] == results[1] == results[2]
