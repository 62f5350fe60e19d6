"""Dirty pages sent to the disk early, so that a sync at the end has little to wait for.

Python has no name for sync_file_range(2), which begins that and waits for nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

EVERY = 8 << 20
"""Bytes: of more at a time a call takes 10 ms and more, since it waits when the disk is behind."""

_WRITE = 2  # SYNC_FILE_RANGE_WRITE


def begin(fd: int) -> None:
    """Begins to write what is dirty of this file. A hint: where it cannot be given, nothing is
    lost. Blocking for milliseconds."""
    if _sync_file_range is not None:
        _sync_file_range(fd, 0, 0, _WRITE)


def _find() -> Callable[..., int] | None:
    try:
        function = ctypes.CDLL(None).sync_file_range  # which releases the interpreter's lock
    except (AttributeError, OSError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return function


_sync_file_range = _find()
