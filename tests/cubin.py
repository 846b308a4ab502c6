"""What a compiled CUDA kernel uses, read from the assembler's log and, independently, from the ELF file."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

_LOG = re.compile(
    r"Function properties for (?P<name>\w+)\s*\n"
    r"[^\n]*?(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\s*\n"
    r"[^\n]*?Used (?P<registers>\d+) registers"
)

# An entry of a section .nv.info is a header of 4 bytes (format, attribute, size) and, of format 4, a value:
# for these two attributes a symbol's index and a number.
_FORMAT_SIZED = 4
_FRAME_SIZE, _REGISTERS = 0x11, 0x2F


@dataclass(frozen=True)
class Usage:
    """What one kernel uses: registers a thread, bytes of stack (local memory) a thread, bytes spilled."""

    name: str
    registers: int
    stack: int
    spilled: int


def from_log(log: str) -> list[Usage]:
    """Every kernel that the log of `ptxas -v` names."""
    return [
        Usage(m["name"], int(m["registers"]), int(m["stack"]), int(m["stores"]) + int(m["loads"]))
        for m in _LOG.finditer(log)
    ]


def _sections(elf: bytes) -> list[tuple[str, int, bytes]]:
    """Name, type and content of each section of a 64-bit little-endian ELF file."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + i * size) for i in range(count)]
    strings = headers[names][4]
    found = []
    for name, kind, _, _, offset, length in headers:
        end = elf.index(b"\0", strings + name)
        content = b"" if kind == 8 else elf[offset : offset + length]  # 8: no content in the file
        found.append((elf[strings + name : end].decode(), kind, content))
    return found


def from_elf(elf: bytes) -> dict[str, dict[str, int]]:
    """ "stack" and "registers" of each function that the ELF file names, by its name."""
    sections = _sections(elf)
    by_name = {name: content for name, _, content in sections}
    symbols, strings = by_name[".symtab"], by_name[".strtab"]

    def symbol(index: int) -> str:
        (name,) = struct.unpack_from("<I", symbols, index * 24)
        return strings[name : strings.index(b"\0", name)].decode()

    info, found, at = by_name[".nv.info"], {}, 0
    while at + 4 <= len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        if form == _FORMAT_SIZED and attribute in (_FRAME_SIZE, _REGISTERS):
            index, value = struct.unpack_from("<II", info, at + 4)
            key = "stack" if attribute == _FRAME_SIZE else "registers"
            found.setdefault(symbol(index), {})[key] = value
        at += 4 + (size if form == _FORMAT_SIZED else 0)
    return found
