"""Engines in forked children."""

from __future__ import annotations

import os

import pytest

from support import ROOT, require, run_python

_FORK = """
import os, numpy as np
from onebit.runtime import Engine
from program_samples import bytes_mlp
engine = Engine(bytes_mlp(784, 1024), threads=2)
x = np.random.default_rng(0).integers(0, 256, (300, 784), dtype=np.uint8)
wanted = engine(x).tobytes()
child = os.fork()
if child == 0:
    same = engine(x).tobytes() == wanted and engine(x).tobytes() == wanted
    engine.close()
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
assert engine(x).tobytes() == wanted
print("done")
"""


_FORK_DURING_A_CALL = """
import os, signal, threading, numpy as np
from onebit.runtime import Engine
from program_samples import bytes_mlp
engine = Engine(bytes_mlp(784, 1024), threads=THREADS)
x = np.random.default_rng(0).integers(0, 256, (64, 784), dtype=np.uint8)
wanted = engine(x).tobytes()
many = np.repeat(x, 64, axis=0)
go_on, begun = True, threading.Event()
def work():
    while go_on:
        begun.set()
        engine(many)
worker = threading.Thread(target=work)
worker.start()
begun.wait()
codes, held = [], 0
for _ in range(20):
    held += engine._lock.locked()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that hangs dies of it
        same = engine(x).tobytes() == wanted and engine.memory.total > 0
        with engine.clone() as other:
            same = same and other(x).tobytes() == wanted
        engine.close()
        os._exit(0 if same else 1)
    codes.append(os.waitpid(child, 0)[1])
go_on = False
worker.join()
assert held > 0, "no fork came during a call"
assert codes == [0] * 20, codes
assert engine(x).tobytes() == wanted
print("done")
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_child_forked_during_a_call_of_another_thread_can_call(threads: int) -> None:
    require(hasattr(os, "fork"), "os.fork")
    code = _FORK_DURING_A_CALL.replace("THREADS", str(threads))
    assert run_python(code, env={"PYTHONPATH": str(ROOT / "tests")}) == "done\n"


def test_an_engine_works_on_in_a_forked_child() -> None:
    require(hasattr(os, "fork"), "os.fork")
    assert run_python(_FORK, env={"PYTHONPATH": str(ROOT / "tests")}) == "done\n"
