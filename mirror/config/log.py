"""The section `log`."""

from __future__ import annotations

from typing import Annotated, Literal

from . import values
from .section import Read, Section

_FORMATS = ("auto", "json", "text")
_LEVELS = ("debug", "info", "warning", "error")
_REQUESTS = ("all", "misses", "none")


class LogConfig(Section):
    """`format` auto: text where standard error is a terminal, else JSON. `level`: the least that is
    told. `requests`: which of them, or in text which pulls."""

    format: Annotated[Literal["auto", "json", "text"], Read(values.choice(*_FORMATS))] = "auto"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Read(values.choice(*_LEVELS))
    ] = "info"
    requests: Annotated[Literal["all", "misses", "none"], Read(values.choice(*_REQUESTS))] = "all"
