"""Random Programs over images: the reference executor == the engine, fused and unfused, for every instruction
set, 1 and 2 threads."""

from __future__ import annotations

from collections import Counter

import pytest

from onebit.program import verify
from onebit.program.fusion import fuse
from onebit.runtime import Engine
from parity.agreement_engine import IMAGE_OPS, compare
from parity.random_images import ImageMaker

SEEDS = range(80)
BATCHES = (1, 2, 5)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_image_programs_equal_the_reference(
    seed: int, isa: str, request: pytest.FixtureRequest
) -> None:
    work = False
    maker = ImageMaker(seed)
    program = maker.make(ops=12)
    verify(program)
    seen = program.with_outputs(*(node.output for node in program.nodes))
    for version in (program, seen):  # some values fused away; every value kept
        for threads in (1, 2):
            with Engine(version, threads=threads, isa=isa) as engine:
                work = work or len(engine.ops) > 0
                for batch in BATCHES:
                    context = f"seed {seed}, {isa}, {threads} threads, batch {batch}"
                    compare(version, engine, maker.feed(batch), context)
    if not work:  # nothing but other names for memory
        request.applymarker(pytest.mark.idle_threads)


def test_the_seeds_cover_every_image_op_and_every_epilogue() -> None:
    ops: Counter[str] = Counter()
    epilogues: Counter[tuple[str, str]] = Counter()
    flipped = grouped = 0
    padding_values = set()
    for seed in SEEDS:
        for step in fuse(ImageMaker(seed).make(ops=12)):
            ops.update(node.op for node in step.nodes)
            epilogues[step.nodes[0].op, step.epilogue] += 1
            flipped += step.op == "max_pool2d" and step.flip is not None
            grouped += step.nodes[0].attrs.get("groups", 1) != 1
            padding_values.add(step.nodes[0].attrs.get("padding_value"))
    assert not IMAGE_OPS - set(ops)
    for family in ("binary_conv2d", "u8_conv2d"):
        for epilogue in ("i32", "f32", "bits"):
            assert epilogues[family, epilogue] > 0, (family, epilogue)
    assert epilogues["f32_conv2d", "f32"] > 0
    assert epilogues["f32_binary_conv2d", "f32"] > 0
    assert flipped > 3, "no max_pool2d of bits took the flips of the threshold behind it"
    assert grouped > 10
    assert padding_values >= {0, 1, -1}
