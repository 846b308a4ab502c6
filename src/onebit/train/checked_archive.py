"""A checksum at the end of a file that torch.save wrote, so that damage is told before anything is read.

torch does not compare the CRCs in its archives and loads many damaged ones in silence. Such an archive is a
zip file, and the checksum is its comment, which readers of zip files pass over (torch, too): the CRC-32 of
all bytes before its eight digits.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO

import torch

from onebit.errors import CheckpointError

_DIGITS = 8
_NAME = b"onebit crc32 "
_COMMENT = len(_NAME) + _DIGITS
_SIGNATURE = b"PK\x05\x06"  # of a zip file's last record
_RECORD = 22  # its bytes; the last two are the comment's length
_LENGTH = _COMMENT.to_bytes(2, "little")
_BLOCK = 2**20


def save(content: object, file: BinaryIO) -> None:
    """torch.save, with a checksum. The file is open for writing and reading, and empty."""
    torch.save(content, file)
    file.seek(-2, 2)
    file.write(_LENGTH + _NAME)
    end = file.tell()
    file.write(_crc(file, end))


def check(file: BinaryIO) -> bool:
    """Compare the checksum; False if there is none. Leaves the file at its beginning.

    Raises `CheckpointError` where the bytes give another, and where the place of the checksum is damaged.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - _RECORD - _COMMENT))
    tail = file.read()
    length, name = tail[_RECORD - 2 : _RECORD], tail[_RECORD:-_DIGITS]
    marks = [tail.startswith(_SIGNATURE), length == _LENGTH, name == _NAME]
    signed = sum(marks) >= 2  # one alone may be a chance; with one damaged the others stay
    if signed and not (all(marks) and _crc(file, size - _DIGITS) == tail[-_DIGITS:]):
        raise CheckpointError("its bytes are not those of its checksum")
    last = tail.rfind(_SIGNATURE)
    said = int.from_bytes(tail[last + _RECORD - 2 : last + _RECORD], "little")
    if last >= 0 and last + _RECORD + said != len(tail):
        raise CheckpointError("it is cut short in its checksum")
    file.seek(0)
    return signed


def _crc(file: BinaryIO, end: int) -> bytes:
    """The digits for the bytes up to `end`, where the file stands afterwards."""
    file.seek(0)
    total = 0
    while left := end - file.tell():
        block = file.read(min(left, _BLOCK))
        if not block:
            raise CheckpointError("it is cut short")
        total = zlib.crc32(block, total)
    file.seek(end)
    return f"{total:0{_DIGITS}x}".encode()
