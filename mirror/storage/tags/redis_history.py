"""How Redis keeps what tags pointed to before.

A list for each tag, the newest event first. Redis must drop none by itself: what is forgotten could
be passed off as new. So these keys have no expiry, which keeps them from the `volatile-*` policies
of eviction, and their number is bounded here. For that, sorted sets count them: the registries and
the repositories of each by how many tags they have, the tags of each repository by when they were
last said.
"""

from __future__ import annotations

import math

from ...contracts.tags import TagEvent, TagRecord
from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from ...oci.reference import Repository
from .history_bounds import KEPT, MOST, MOST_FORGOTTEN, names_of_forgotten

MOST_TAGS = 100_000
"""Tags with a history, in all: some 50 MB."""

HISTORY = "registry-mirror:1:history:"
FORGOTTEN = "registry-mirror:1:forgotten"  # names, see names_of_forgotten, by when it was

COUNTS = "registry-mirror:1:histories"  # of registries; of all, under "*"

NOTE = """
local all, forgotten, prefix = KEYS[1], KEYS[2], ARGV[1]
local registry, repository, tag = ARGV[2], ARGV[3], ARGV[4]
local said, at, most, long_ago = ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8]
local most_tags, most_forgotten = tonumber(ARGV[9]), tonumber(ARGV[10])

local function of(name) return all .. ':' .. name end
local function list(name, tag) return prefix .. name .. ':' .. tag end
local function sorted(key)
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'zset' and kind ~= 'none' then redis.call('DEL', key) end  -- nothing of ours
  return key
end
local function score(key, name) return tonumber(redis.call('ZSCORE', key, name) or 0) end
local function set(key, number, name)
  if number > 0 then redis.call('ZADD', key, number, name) else redis.call('ZREM', key, name) end
  return number
end
local function recount(registry)  -- somebody has deleted what was counted
  local sum = 0
  for _, name in ipairs(redis.call('ZRANGE', sorted(of(registry)), 0, -1)) do
    sum = sum + set(of(registry), redis.call('ZCARD', sorted(of(name))), name)
  end
  set(all, sum, registry)
  local total = 0
  for _, name in ipairs(redis.call('ZRANGE', all, 0, -1)) do
    if name ~= '*' then total = total + score(all, name) end
  end
  set(all, total, '*')
end
for _, key in ipairs({all, of(registry), of(repository), forgotten}) do sorted(key) end

local history, digest, first = list(repository, tag), nil, nil
if redis.call('TYPE', history).ok == 'list' then
  digest, first = string.match(redis.call('LINDEX', history, 0), '^(%S+) (%S+) %S+$')
end
if not tonumber(first or '') then  -- nothing, or nothing of ours
  redis.call('DEL', history)
  digest = nil
end
if digest == said then
  if tonumber(at) < tonumber(first) then first = at end
  redis.call('LSET', history, 0, digest .. ' ' .. first .. ' ' .. at)
elseif digest or said ~= '-' then
  redis.call('LPUSH', history, said .. ' ' .. at .. ' ' .. at)
  redis.call('LTRIM', history, 0, most - 1)
else
  return
end
redis.call('PERSIST', history)  -- from a version that let it expire

local function count(registry, repository, more)
  for _, entry in ipairs({{all, '*'}, {all, registry}, {of(registry), repository}}) do
    set(entry[1], score(entry[1], entry[2]) + more, entry[2])
  end
end
local function forget(registry, repository, tag)
  redis.call('DEL', list(repository, tag))
  redis.call('ZREM', of(repository), tag)
  count(registry, repository, -1)
end

local there = redis.call('ZCARD', of(repository))
if there ~= score(of(registry), repository) or there > score(all, registry) then
  set(of(registry), there, repository)
  recount(registry)
end
if redis.call('ZADD', of(repository), at, tag) == 1 then count(registry, repository, 1) end
local over = redis.call('ZRANGEBYSCORE', of(repository), '-inf', long_ago, 'LIMIT', 0, 2)
for _, old in ipairs(over) do forget(registry, repository, old) end

for _ = 1, 2 do
  if score(all, '*') <= most_tags then return end
  local names = redis.call('ZREVRANGE', all, 0, 1)
  local from = names[1] ~= '*' and names[1] or names[2] or ''
  local of_from = redis.call('ZREVRANGE', sorted(of(from)), 0, 0)[1]
  local oldest = of_from and redis.call('ZRANGE', sorted(of(of_from)), 0, 0)[1]
  if oldest then
    forget(from, of_from, oldest)
    local name = of_from
    if not redis.call('ZSCORE', forgotten, name)
      and redis.call('ZCARD', forgotten) >= most_forgotten then name = from .. '/' end
    redis.call('ZADD', forgotten, at, name)
    redis.call('ZREMRANGEBYSCORE', forgotten, '-inf', long_ago)
  else
    recount(from)
  end
end
"""
"""For EVAL, with COUNTS, FORGOTTEN and what `noting` gives: notes a record.

A script, since two nodes that note at once must not lose one another's events.
"""


def noting(key: str, record: TagRecord) -> tuple[str | int, ...]:
    """The arguments of NOTE; `key` as of tag_records."""
    repository, _, tag = key.rpartition(":")
    said = "-" if record.descriptor is None else str(record.descriptor.digest)
    at = record.checked_at
    return (
        *(HISTORY, repository.partition("/")[0], repository, tag),
        *(said, repr(at), MOST, repr(at - KEPT), MOST_TAGS, MOST_FORGOTTEN),
    )


def forgotten_names(repository: Repository) -> tuple[str, str]:
    """Members of FORGOTTEN, of which one is there when history of this repository was forgotten."""
    return names_of_forgotten(str(repository))


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
