"""Memory for bodies, used again and again: a fresh MiB costs a tenth of a fill, to be cleared."""

from __future__ import annotations

import ctypes
import weakref

from ..endpoint import MIB

SIZE = MIB
_SPARE = 8  # buffers that are kept while they are not lent

_spare: list[bytearray] = []
_Lent = ctypes.c_char * SIZE


def lend() -> memoryview:
    """SIZE bytes of memory, which are lent again when the last view of them is gone. What is in
    them is anything."""
    try:
        memory = _spare.pop()
    except IndexError:
        memory = bytearray(SIZE)
    # Views refer to this object, not to the memory: its end is the end of the last of them.
    lent = _Lent.from_buffer(memory)
    weakref.finalize(lent, _take_back, memory).atexit = False
    return memoryview(lent).cast("B")


def _take_back(memory: bytearray) -> None:
    if len(_spare) < _SPARE:
        _spare.append(memory)
