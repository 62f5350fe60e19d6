"""Bytes as people write them."""

from __future__ import annotations

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: int) -> str:
    """As people write it.

    >>> size(50 * 2**30), size(1536)
    ('50 GiB', '1.5 KiB')
    """
    value, unit = float(count), "bytes"
    for unit in _UNITS:
        if value < 1024 or unit == "PiB":
            break
        value /= 1024
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def part_of(part: int, whole: int) -> str:
    """Both in the unit of the whole.

    >>> part_of(12 * 2**30 + 2**28, 41 * 2**30)
    '12.2 of 41.0 GiB'
    """
    power = min(len(_UNITS) - 1, max(0, (whole.bit_length() - 1) // 10))
    digits = 1 if power else 0
    unit = 1024**power
    return f"{part / unit:.{digits}f} of {whole / unit:.{digits}f} {_UNITS[power]}"
