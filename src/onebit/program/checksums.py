"""The checksum that tells a damaged `.onebit` file: a CRC-32 over all its bytes.

It is that of zlib and PNG, as eight hexadecimal digits. They stand in the header, which is covered too: where
they stand first in it, the checksum is taken over eight zeros. CRC-32, for every language has it and it costs
loading the least (several GB/s; BLAKE2b and SHA-256 take two to four times as long): it finds every damage of
up to 32 bits in a row, and misses one in 2^32 of others. It is no signature: who changes a file on purpose
can write another checksum.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

DIGITS = 8
PLACEHOLDER = "0" * DIGITS


def is_checksum(text: str) -> bool:
    """Whether this is how a checksum is written."""
    return re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", text, re.ASCII) is not None


def take(parts: Iterable[bytes | memoryview]) -> str:
    """The checksum of these bytes, one after another."""
    total = 0
    for part in parts:
        total = zlib.crc32(part, total)
    return f"{total:0{DIGITS}x}"


def put(header: bytes, checksum: str) -> bytes:
    """The header with `checksum` where the first eight zeros stand."""
    return header.replace(PLACEHOLDER.encode(), checksum.encode(), 1)


def without(header: bytes, checksum: str) -> bytes:
    """The header as the checksum is taken: eight zeros where `checksum` stands first."""
    return header.replace(checksum.encode(), PLACEHOLDER.encode(), 1)
