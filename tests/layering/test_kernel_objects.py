"""What the compiled kernels hold and call: no variable that outlives a call, nothing but moves of memory.

The includes and the calls in the text are read by test_includes; this reads the objects, macros and all.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from layering.includes import is_isa_file
from support import ROOT, require, require_tool

KERNELS = ROOT / "csrc" / "kernels"
# fmaf where the instruction set lacks it, moves of memory, what compilers call of themselves (popcounts, the
# table by which position-independent code finds symbols), and of our own the repack that all of pack share.
ALLOWED = re.compile(
    r"fmaf|memcpy|memmove|memset|memcmp|__popcount[sd]i2|_GLOBAL_OFFSET_TABLE_|__stack_chk_fail"
    r"|onebit_pack_repack"
)
_WRITABLE = re.compile(r"\.(data(?!\.rel\.ro)|bss|tdata|tbss)\b|\*COM\*")


def defects(source: str, object_file: Path) -> list[str]:
    """What the object defines in writable memory, or takes from elsewhere without leave."""
    command = (require_tool("objdump"), "--syms", str(object_file))
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = []
    for line in table.splitlines():
        match = re.fullmatch(r"[0-9a-f]+ .{7} (\S+)\s+[0-9a-f]+\s+(?:\.hidden )?(\S+)", line)
        if match is None:
            continue
        section, name = match.groups()
        if name != section and _WRITABLE.match(section):
            found.append(f"{source}: {name} is a variable that outlives a call ({section})")
        elif section == "*UND*" and not ALLOWED.fullmatch(name):
            found.append(f"{source}: calls {name}")
    return found


def test_no_kernel_has_globals_or_calls_the_system() -> None:
    sources = [path for path in KERNELS.glob("*/*.c") if path.name == "generic.c" or is_isa_file(path)]
    found, read = [], set()
    for source in sources:
        pattern = f"*/CMakeFiles/onebit_objects.dir/{source.relative_to(ROOT)}.o"
        for built in (ROOT / "build").glob(pattern):
            if built.relative_to(ROOT / "build").parts[0].startswith("py3-"):
                read.add(source.name)
                found += defects(str(source.relative_to(ROOT)), built)
    require("generic.c" in read, "the objects of the library, below build/: make .venv/.built")
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("static int calls;\nint f(void) { return ++calls; }", "calls is a variable that outlives a call"),
        ("int f(void) { static int calls = 7; return ++calls; }", "is a variable that outlives a call"),
        ("_Thread_local int f = 1;", "f is a variable that outlives a call"),
        ("void *malloc(unsigned long);\nvoid *f(void) { return malloc(8); }", "calls malloc"),
        (
            "#define TAKE(x) x##lloc\nvoid *TAKE(ma)(unsigned long);\nvoid *f(void) { return malloc(8); }",
            "malloc",
        ),
        ("int pthread_self(void);\nint f(void) { return pthread_self(); }", "calls pthread_self"),
        ("static const int t[2] = {1, 2};\nint f(int i) { return t[i]; }", None),
        (
            "void onebit_threads_run(void);\nvoid f(void) { onebit_threads_run(); }",
            "calls onebit_threads_run",
        ),
        ("static int g(void) { return 1; }\nint (*const f[])(void) = {g};", None),
    ],
)
def test_the_check_sees_it(tmp_path: Path, code: str, message: str | None) -> None:
    source, built = tmp_path / "a.c", tmp_path / "a.o"
    source.write_text(code + "\n")
    subprocess.run([require_tool("cc"), "-O1", "-fPIC", "-c", source, "-o", built], check=True)
    found = defects("a.c", built)
    assert [message in text for text in found] == [True] if message else found == []
