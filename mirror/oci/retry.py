"""When to ask again: Retry-After (RFC 9110, 10.2.3)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

MAX_RETRY_AFTER = 86_400.0
"""A day, in seconds: who asks for more is as good as gone, or sent something else than a delay."""

_DELAY = re.compile(r"[0-9]+")

# RFC 9110, 5.6.7: the one that senders must use, then the two obsolete ones that recipients must
# still read. The names of days and months are English, as long as nobody sets the process's locale.
_DATES = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")
_LONGEST_DATE = 40


def parse_retry_after(value: str | None, now_wall: float) -> float | None:
    """Seconds to wait, from 0 to MAX_RETRY_AFTER; None when the header is missing or malformed.

    `now_wall`, in seconds since the epoch, is what a date is counted from. Where the answer has a
    Date header, pass that (`parse_http_date`): this host's clock may be wrong by hours.
    """
    text = (value or "").strip(" \t")
    if _DELAY.fullmatch(text):
        return min(float(text), MAX_RETRY_AFTER)
    date = parse_http_date(text)
    return None if date is None else min(max(0.0, date - now_wall), MAX_RETRY_AFTER)


def parse_http_date(value: str | None) -> float | None:
    """An HTTP-date in seconds since the epoch; None when it is missing or malformed."""
    text = (value or "").strip(" \t")
    if len(text) > _LONGEST_DATE or not text.isascii():
        return None
    for form in _DATES:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return None
