"""structlog without rich, by which it would colour tracebacks: the log never does, and rich takes a
twentieth of the time in which a mirror starts."""

from __future__ import annotations

import sys
from typing import Any

_LEFT_OUT = "rich"

if _LEFT_OUT in sys.modules:  # a command prints by it
    import structlog.stdlib
    import structlog.tracebacks
else:
    modules: Any = sys.modules
    modules[_LEFT_OUT] = None  # whoever imports it is told that it is not there
    try:
        import structlog.stdlib
        import structlog.tracebacks
    finally:
        del sys.modules[_LEFT_OUT]

__all__ = ["structlog"]
