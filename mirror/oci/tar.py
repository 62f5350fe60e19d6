"""Tar archives, block by block (POSIX.1-2017 pax, "ustar Interchange Format"; GNU's long names and
large numbers). Archives are strangers' until they are read: links, devices, holes and names that
lead elsewhere are refused.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Mapping

from ..frozen import dataclass
from .errors import quoted

BLOCK = 512
END = b"\0" * (2 * BLOCK)

LONGEST_NOTE = 64 << 10
"""Bytes of a header that says more of the next entry: a long name, or the keywords of pax."""

_FILES = (b"0", b"\0", b"7")
_FOLDER = b"5"
_PAX, _PAX_OF_ALL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a file with holes",
}
_LONGEST_NAME = 1024
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"\x28\xb5\x2f\xfd": "zstd -d",
    b"\xfd7zXZ": "xz -d",
    b"BZh": "bunzip2",
}
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=\n]+)=")


class TarInvalid(Exception):
    """This is no archive that is taken; the message says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """`kind`: file, folder, or note (its bytes are for `Notes.take`)."""

    name: str
    size: int
    kind: str
    type: bytes = b"0"

    @property
    def padding(self) -> int:
        """Bytes behind its own, up to a whole block."""
        return -self.size % BLOCK


class Notes:
    """What was said of the next entry, before it."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._size: int | None = None

    def take(self, header: Header, data: bytes) -> None:
        """Raises TarInvalid."""
        if header.type == _LONG_NAME:
            self._name = _text(data.rstrip(b"\0"))
        elif header.type in (_PAX, _PAX_OF_ALL):
            found = _records(data)
            if any(key.startswith("GNU.sparse") for key in found):
                raise TarInvalid("it has a file with holes (GNU.sparse)")
            if header.type == _PAX_OF_ALL and found.keys() & {"path", "size", "linkpath"}:
                raise TarInvalid("one header gives all entries the same name or size")
            if header.type == _PAX and "path" in found:
                self._name = _text(found["path"])
            if header.type == _PAX and "size" in found:
                self._size = _decimal(found["size"])

    def header(self, block: bytes) -> Header:
        """Reads the block that begins an entry. Raises TarInvalid."""
        header = _read(block)
        if header.kind == "note":
            return header
        name = header.name if self._name is None else self._name
        size = header.size if self._size is None else self._size
        self._name = self._size = None
        return Header(_checked(name), 0 if header.kind == "folder" else size, header.kind)


def file_header(name: str, size: int) -> bytes:
    """The blocks before a file's bytes: of root, of the year 1970, readable by all."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def compression(first: bytes) -> str | None:
    """The program that undoes the compression with which these first bytes were made."""
    return next((told for magic, told in _COMPRESSED.items() if first.startswith(magic)), None)


def _read(block: bytes) -> Header:
    if (told := compression(block)) is not None:
        raise TarInvalid(f"it is compressed: undo that first ({told})")
    total = sum(block) - sum(block[148:156]) + 8 * 32
    try:
        is_whole = _number(block[148:156]) == total
    except TarInvalid:
        is_whole = False
    if not is_whole:
        raise TarInvalid("it is no tar archive, or damaged: a header's checksum is wrong")
    size, kind = _number(block[124:136]), block[156:157]
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    if kind in _REFUSED:
        raise TarInvalid(f"it has {_REFUSED[kind]}, {quoted(_text(name))}")
    if kind in (_PAX, _PAX_OF_ALL, _LONG_NAME, _LONG_LINK):
        if size > LONGEST_NOTE:
            raise TarInvalid(f"a name or header in it has {size} bytes")
        return Header("", size, "note", kind)
    if kind not in (*_FILES, _FOLDER):
        raise TarInvalid(f"it has an entry of the unknown type {quoted(_text(kind))}")
    return Header(
        _text(prefix + b"/" + name if prefix else name),
        size,
        "folder" if kind == _FOLDER else "file",
    )


def _checked(name: str) -> str:
    """Without `./` before it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or len(name) > _LONGEST_NAME or "\0" in name:
        raise TarInvalid(f"an entry's name leads out of it, or is too long: {quoted(name[:200])}")
    return "/".join(parts)


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base 256 (GNU)
        if field[0] != 0x80:
            raise TarInvalid("a size in it is negative, or too large")
        return int.from_bytes(field[1:], "big")
    digits = field.replace(b"\0", b" ").strip()
    if digits.strip(b"01234567"):
        raise TarInvalid("a number in a header is none")
    return int(digits or b"0", 8)


def _decimal(text: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,19}", text):
        raise TarInvalid("a size in it is no number")
    return int(text)


def _records(data: bytes) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    at = 0
    while at < len(data) and data[at : at + 1] != b"\0":
        record = _RECORD.match(data, at)
        end = at + int(record[1]) if record else 0
        if record is None or end <= record.end() or data[end - 1 : end] != b"\n":
            raise TarInvalid("a header of pax in it is malformed")
        found[_text(record[2])] = data[record.end() : end - 1]
        at = end
    return found


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise TarInvalid("a name in it is no UTF-8") from None
