"""Bytes and times as the commands, the log and the page write them: three figures, the field's
units."""

from __future__ import annotations

from datetime import UTC, datetime

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SPANS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"))


def size(count: float | None) -> str:
    """Bytes that go over a network.

    >>> size(0), size(999), size(41_600_000), size(1.1e9), size(None)
    ('0 B', '999 B', '41.6 MB', '1.1 GB', '–')
    """
    return "–" if count is None else _scaled(count, 1000, _DECIMAL)


def binary_size(count: float | None) -> str:
    """Bytes on a disk, as mirror.yaml has them.

    >>> binary_size(50 * 2**30), binary_size(1536)
    ('50 GiB', '1.5 KiB')
    """
    return "–" if count is None else _scaled(count, 1024, _BINARY)


def part_of(part: int, whole: int) -> str:
    """Both in the unit of the whole, as `binary_size` has them.

    >>> part_of(12 * 2**30 + 2**28, 41 * 2**30)
    '12.2 of 41.0 GiB'
    """
    power = min(len(_BINARY) - 1, max(0, (whole.bit_length() - 1) // 10))
    digits = 1 if power else 0
    unit = 1024**power
    return f"{part / unit:.{digits}f} of {whole / unit:.{digits}f} {_BINARY[power]}"


def _scaled(count: float, base: int, units: tuple[str, ...]) -> str:
    number, unit = float(max(count, 0)), 0
    while round(number) >= base and unit < len(units) - 1:
        number /= base
        unit += 1
    return f"{_figures(number) if unit else int(number)} {units[unit]}"


def _figures(number: float) -> str:
    text = f"{number:.1f}" if number < 99.95 else f"{number:.0f}"
    return text.removesuffix(".0")


def lasted(seconds: float | None) -> str:
    """
    >>> [lasted(each) for each in (None, 0.0003, 0.041, 0.31, 8.1, 75, 3 * 86400 + 4 * 3600)]
    ['–', '0.3 ms', '41 ms', '0.31 s', '8.1 s', '1 m 15 s', '3 d 4 h']
    >>> [lasted(each) for each in (300, 7200, 86400)]
    ['5 m', '2 h', '1 d']
    """
    if seconds is None:
        return "–"
    seconds = max(seconds, 0.0)
    if seconds < 0.1:
        return f"{_figures(seconds * 1000)} ms"
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds >= 1 else f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return _two(int(seconds), 60, "m", 1, "s")
    if seconds < 3600:
        return f"{int(seconds // 60)} m"
    if seconds < 86400:
        return _two(int(seconds), 3600, "h", 60, "m")
    return _two(int(seconds), 86400, "d", 3600, "h")


def _two(seconds: int, large: int, unit: str, small: int, rest_unit: str) -> str:
    """In two units, or in the larger one where nothing is left for the other."""
    count, rest = seconds // large, seconds % large // small
    return f"{count} {unit} {rest} {rest_unit}" if rest else f"{count} {unit}"


def ago(at: float | None, now: float) -> str:
    """
    >>> ago(990.0, 1000.0), ago(100.0, 90_000.0), ago(1000.0, 1000.0), ago(None, 5.0), ago(0, 5.0)
    ('10 s', '1 d', 'now', 'never', 'never')
    """
    if not at:
        return "never"
    age = now - at
    if age < 2:
        return "now"
    for length, unit in _SPANS:
        if age >= length:
            return f"{int(age // length)} {unit}"
    return f"{int(age)} s"


def share(part: float, whole: float) -> str:
    """
    >>> share(97, 100), share(999, 1000), share(0, 0), share(1000, 1000), share(1, 1000)
    ('97 %', '99 %', '–', '100 %', '1 %')
    """
    if whole <= 0:
        return "–"
    percent = 100 * part / whole
    # Neither all nor nothing is said of what is only nearly so.
    near = min(99, max(1, round(percent))) if 0 < percent < 100 else round(percent)
    return f"{near} %"


def moment(at: float) -> str:
    """In UTC; the page's script writes the reader's own time. "?": no calendar has it, as of a
    clock that was very wrong.

    >>> moment(0.0), moment(1e30)
    ('1970-01-01T00:00:00Z', '?')
    """
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "?"


def clock(at: float) -> str:
    """
    >>> clock(0.0)
    '00:00:00'
    """
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
