"""The catalog: every kernel, with its macros, that the host code can ask a device for.

Each family lists its variants once, next to the code that chooses among them; `entries` puts the lists
together, and CI compiles all of it for every target. A device that is given `file`, `name` and `defines` of
an entry and nothing else can thus never meet a kernel that was not compiled before.
"""

from __future__ import annotations

from onebit.runtime.cuda.kernels import (
    binary_conv,
    binary_gemm,
    direct,
    elementwise,
    layout_ops,
    pack,
    pool,
    u8_conv,
)
from onebit.runtime.cuda.kernels.entry import Entry

_FAMILIES = (pack, binary_gemm, binary_conv, u8_conv, elementwise, pool, direct, layout_ops)


def entries() -> tuple[Entry, ...]:
    """All kernels of all families."""
    return tuple(entry for family in _FAMILIES for entry in family.ENTRIES)
