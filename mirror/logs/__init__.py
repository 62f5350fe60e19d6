"""The log: lines on standard error, as JSON or as text for people, of what is above a level."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO, cast

from ..frozen import dataclass
from .library import structlog
from .stream import LogStream, dropped_line
from .text import line_of

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How a process logs. `is_text`: for people, one line a pull, instead of JSON, one line a
    request. `requests`: all, misses or none."""

    is_text: bool = False
    level: str = "info"
    requests: str = "all"


_stream: LogStream | None = None
_settings = LogSettings()
_is_coloured = False
_least = logging.INFO


def open_streams() -> None:
    """Opens /dev/null as each standard stream that was closed before the program began. Else the
    first file that is opened gets its number, and what is written to standard error."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_RDWR)
                os.set_inheritable(null, True)  # the lowest number that is free: this one


def is_terminal() -> bool:
    """Whether somebody reads what is logged."""
    return os.isatty(2)


def drain() -> None:
    """Waits for the last lines to be written, within bounds: before a process ends that does not
    run what was left to atexit."""
    if _stream is not None:
        _stream.drain()


def forget_stream() -> None:
    """For a process that was forked: what it inherits has no thread. `log_json` opens another."""
    global _stream
    _stream = None


def lines_dropped() -> int:
    """Lines that this process could not log."""
    return 0 if _stream is None else _stream.dropped


def settings() -> LogSettings:
    """As this process logs now."""
    return _settings


def log_as(settings: LogSettings) -> None:
    """From now on, this process logs so."""
    global _settings, _least, _is_coloured
    _settings = settings
    _least = logging.getLevelNamesMapping()[settings.level.upper()]
    _is_coloured = settings.is_text and is_terminal() and not os.environ.get("NO_COLOR")
    if _stream is not None:
        _stream.dropped_line = _dropped_text if settings.is_text else dropped_line
    libraries = logging.INFO if settings.level == "debug" else max(_least, logging.WARNING)
    logging.getLogger().setLevel(libraries)


def tell(line: str) -> None:
    """Logs this line, as it is."""
    if _stream is not None:
        _stream.write(f"{line}\n")


def is_coloured() -> bool:
    return _is_coloured


def _dropped_text(lines: int) -> bytes:
    event = {"event": "log_lines_dropped", "level": "warning", "lines": lines}
    return f"{line_of(event, is_coloured=_is_coloured)}\n".encode()


def _drop_below(_: WrappedLogger, method: str, event: EventDict) -> EventDict:
    levels = logging.getLevelNamesMapping()
    if levels.get(method.upper().replace("EXCEPTION", "ERROR"), logging.ERROR) < _least:
        raise structlog.DropEvent
    return event


_json = structlog.processors.JSONRenderer()


def _render(logger: WrappedLogger, method: str, event: EventDict) -> str | bytes:
    if _settings.is_text:
        return line_of(event, is_coloured=_is_coloured)
    return _json(logger, method, event)


def log_json() -> None:
    """From now on, what this process logs is one JSON object a line, on standard error, until
    `log_as` says otherwise; what libraries log, too. What else is printed there takes the same
    way."""
    global _stream
    if _stream is None:
        _stream = LogStream(2)
        atexit.register(_stream.drain)
    sys.stderr = cast(TextIO, _stream)
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Without the local variables of its frames: an Authorization header may be among them.
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ),
    ]
    handler = logging.StreamHandler(_stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _render],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    structlog.configure(
        processors=[_drop_below, *shared, _render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _stream)),
        cache_logger_on_first_use=True,
    )
    log_as(LogSettings())
