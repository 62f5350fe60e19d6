"""What tags pointed to before: how much of it is kept, and how Redis keeps it."""

from __future__ import annotations

import math

from ..interfaces import TagEvent, TagRecord
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid

MOST = 32
"""Events of one tag; the oldest go first."""

KEPT = 400 * 86400.0
"""Seconds after which what was not said again is forgotten: "the same day last year" is there."""

NOTE = """
local digest, first
if redis.call('TYPE', KEYS[1]).ok == 'list' then
  digest, first = string.match(redis.call('LINDEX', KEYS[1], 0), '^(%S+) (%S+) %S+$')
end
if not tonumber(first or '') then  -- nothing, or nothing of ours
  redis.call('DEL', KEYS[1])
  digest = nil
end
if digest == ARGV[1] then
  if tonumber(ARGV[2]) < tonumber(first) then first = ARGV[2] end
  redis.call('LSET', KEYS[1], 0, digest .. ' ' .. first .. ' ' .. ARGV[2])
elseif digest or ARGV[1] ~= '-' then
  redis.call('LPUSH', KEYS[1], ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[2])
  redis.call('LTRIM', KEYS[1], 0, ARGV[3] - 1)
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
"""
"""For EVAL, with one key and what `noting` gives: notes a record in a list, the newest event first.

A script, since two nodes that note at once must not lose one another's events.
"""


def noting(record: TagRecord) -> tuple[str, str, int, int]:
    """The arguments of NOTE."""
    said = "-" if record.descriptor is None else str(record.descriptor.digest)
    return said, repr(record.checked_at), MOST, int(KEPT * 1000)


def read_event(line: object) -> TagEvent | None:
    """An element of the list that NOTE keeps; None for anything else whatsoever."""
    if not isinstance(line, bytes):
        return None
    try:
        said, first, last = line.decode("ascii").split(" ")
        event = TagEvent(None if said == "-" else Digest.parse(said), float(first), float(last))
    except (ValueError, DigestInvalid):
        return None
    return event if math.isfinite(event.first_seen + event.last_seen) else None
