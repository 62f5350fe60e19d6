"""Leases in Redis: a key for each content that a node fetches, which lapses when the node dies.

Redis is asked once for a fill, and renews all leases of a process in one exchange, behind. It is
never on the way of bytes, and when it does not answer nobody waits for it a second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import random
from collections.abc import Coroutine
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from ...contracts.events import LeasesSwitched, TagStoreSwitched
from ...contracts.fleet import Holder, Wanted
from ...events import Events
from ...frozen import dataclass
from ...tasks import ended
from ...times import FLEET, STORES
from ..redis_client import failure_kind, is_other_type

log = structlog.get_logger()

_PREFIX = "registry-mirror:1:fleet:lease:"

# Of KEYS[1]: what stands there, unless it is free, this node's, or what is to be replaced. What
# is no text gives an error, which is none of the values.
_TAKE = """
local held = redis.pcall('GET', KEYS[1])
if held and held ~= ARGV[1] and held ~= ARGV[2] and held ~= ARGV[3] then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[4])
return false
"""
# Where it has lapsed, and nobody has taken it, it is this node's still.
_RENEW = """
local held = redis.pcall('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_GIVE_BACK = """
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
# Where the lease has lapsed meanwhile, and nobody has taken it, the note is good all the same.
_NOTE = """
local held = redis.pcall('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""

_FETCHES, _HAS = "fetches", "has"
_LATE = 0.05  # seconds
_MOST_BEHIND = 1000  # exchanges that nobody waits for; of more, leases lapse by themselves


class _Away(Exception):
    """Redis does not answer; the message says why, in a few words."""


@dataclass(frozen=True, slots=True)
class LeasePeriods:
    """Seconds. `limit`: for one exchange. `lease`: after which a lease lapses that is not renewed,
    every `renew`. `here`: for which a note is kept. `pauses`: the shortest and the longest between
    two tries to reach a Redis that is away."""

    limit: float = STORES.redis
    lease: float = FLEET.lease
    renew: float = FLEET.renew
    here: float = FLEET.here
    pauses: tuple[float, float] = (0.5, 1.0)


class RedisLeases:
    """The Leases of one process. All processes of a node write the same values: a lease is the
    node's, and whoever of them renews it keeps it.

    A value names a node by its URL, signed with the fleet's secret for this key: who can write to
    Redis and has no secret sends nobody anywhere.

    Nothing is connected before the first ask.
    """

    def __init__(
        self,
        client: Redis,
        own: str,
        secret: bytes,
        events: Events,
        periods: LeasePeriods | None = None,
    ) -> None:
        """`own`: the URL of this node. The client, which is to be more patient than an exchange may
        take, is closed with the leases."""
        self._client = client
        self._own = own
        self._key = hmac.digest(secret, b"registry-mirror leases 1", "sha256")
        self._events = events
        self._periods = periods or LeasePeriods()
        self._held: dict[str, _Lease] = {}  # by key
        self._away: str | None = None  # why
        self._keeping: asyncio.Task[None] | None = None
        self._behind: set[asyncio.Task[None]] = set()
        self._closed = False
        events.listen(TagStoreSwitched, self._tags_tell)

    async def ask(self, wanted: Wanted, instead: Holder | None = None) -> _Lease | Holder | None:
        key = f"{_PREFIX}{wanted.registry}:{wanted.digest}"
        if self._away is not None or self._closed:
            return None
        mine, has = self._value(_FETCHES, key, self._own), self._value(_HAS, key, self._own)
        replaced = b"" if instead is None else instead.note
        pipeline = self._client.pipeline(transaction=False)
        pipeline.eval(_TAKE, 1, key, mine, has, replaced, _milliseconds(self._periods.lease))
        try:
            (held,) = await self._exchange(pipeline)
        except _Away:
            return None
        if isinstance(held, bytes):
            return self._holder(key, held)
        if held is not None or self._closed:  # another type lies there, by whoever's hand
            return None
        lease = self._held.get(key)
        if lease is None:
            lease = self._held[key] = _Lease(self, key, mine, has)
            self._keep_up()
        return lease

    async def close(self) -> None:
        """Gives back what is held, so that others go on at once. May be called again."""
        self._closed = True
        held, self._held = list(self._held.values()), {}
        tasks = [*self._behind, *([self._keeping] if self._keeping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self._periods.limit):
                if held and self._away is None:
                    pipeline = self._client.pipeline(transaction=False)
                    for lease in held:
                        pipeline.eval(_GIVE_BACK, 1, lease.key, lease.mine)
                    await pipeline.execute(raise_on_error=False)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self._periods.limit):
                await self._client.aclose()

    # For leases.

    def leaves(self, lease: _Lease) -> bool:
        """From now on it is not renewed. Whether it was."""
        if self._held.get(lease.key) is not lease:
            return False
        del self._held[lease.key]
        return True

    async def note(self, lease: _Lease) -> None:
        """The node has the content of this lease."""
        pipeline = self._client.pipeline(transaction=False)
        milliseconds = _milliseconds(self._periods.here)
        pipeline.eval(_NOTE, 1, lease.key, lease.mine, lease.has, milliseconds)
        await self._unless_away(pipeline)

    def give_back(self, lease: _Lease) -> None:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.eval(_GIVE_BACK, 1, lease.key, lease.mine)
        self._do_behind(self._unless_away(pipeline))

    # Values.

    def _value(self, word: str, key: str, url: str) -> bytes:
        said = f"{word} {url}".encode()
        mac = hmac.digest(self._key, key.encode() + b"\n" + said, "sha256")
        return said + b" " + mac.hex().encode()

    def _holder(self, key: str, value: bytes) -> Holder | None:
        """None for what no node of this fleet has written."""
        try:
            word, url, _ = value.decode().split(" ")
        except ValueError:
            word = url = ""
        if not hmac.compare_digest(value, self._value(word, key, url)):
            log.warning("lease_is_not_signed", key=hashlib.sha256(value).hexdigest()[:10])
            return None
        return Holder(url, word == _HAS, value)

    # Renewing, and seeing whether Redis is there.

    def _keep_up(self) -> None:
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep(), name="leases")

    async def _keep(self) -> None:
        pause, longest = self._periods.pauses
        while not self._closed and (self._held or self._away is not None):
            if self._away is None:
                pause = self._periods.pauses[0]
                await asyncio.sleep(self._periods.renew)
            else:
                # Spread, so that many nodes do not fall upon a Redis that has just come back.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
                pause = min(pause * 2, longest)
            with contextlib.suppress(_Away):
                await self._renew()

    async def _renew(self) -> None:
        """All leases in one exchange; without any, finds out whether Redis answers."""
        held = list(self._held.values())
        pipeline = self._client.pipeline(transaction=False)
        pipeline.ping()
        for lease in held:
            pipeline.eval(_RENEW, 1, lease.key, lease.mine, _milliseconds(self._periods.lease))
        _, *answers = await self._exchange(pipeline)
        for lease, answer in zip(held, answers, strict=True):
            if answer == 0 and self.leaves(lease):
                # This process stood still, or did not reach Redis for a while.
                lease.is_lost = True
                log.info("lease_lost", key=lease.key)

    def _tags_tell(self, event: TagStoreSwitched) -> None:
        """The tag memory is in the same Redis: what it has waited for need not be waited for."""
        if event.store == "redis" and event.ability == "reach" and not event.works:
            self._is_away("the tag memory does not reach it")

    def _is_away(self, reason: str) -> None:
        if self._away is None:
            log.warning("leases_failing", reason=reason)
            self._events.emit(LeasesSwitched(works=False))
        self._away = reason
        if not self._closed:
            with contextlib.suppress(RuntimeError):  # no loop runs yet
                self._keep_up()

    def _is_there(self) -> None:
        if self._away is not None:
            log.info("leases_work_again")
            self._events.emit(LeasesSwitched(works=True))
        self._away = None

    async def _exchange(self, pipeline: Pipeline) -> list[Any]:
        """All answers; what is of another type is the error that says so. Raises _Away."""
        try:
            answers = await self._answers(pipeline)
            refused = next((one for one in answers if _is_refusal(one)), None)
            if refused is not None:  # a replica, a full one, a user who may run no scripts
                raise refused
        except Exception as error:  # whatever the client makes of whatever is at the other end
            reason = failure_kind(error)
            if not self._closed:
                self._is_away(reason)
                with contextlib.suppress(Exception):  # idle connections may be dead, and stay open
                    await self._client.connection_pool.disconnect(inuse_connections=False)
            raise _Away(reason) from error
        self._is_there()
        return answers

    async def _answers(self, pipeline: Pipeline) -> list[Any]:
        """Raises TimeoutError, and whatever the client does. Where this process was late itself, as
        it had much to do, the answer is there when time is up: it only has to be taken."""
        asked = asyncio.ensure_future(pipeline.execute(raise_on_error=False))
        try:
            for seconds in (self._periods.limit, _LATE):
                if (await asyncio.wait([asked], timeout=seconds))[0]:
                    return asked.result()
            raise TimeoutError
        finally:
            if not asked.done():
                asked.cancel()
                await ended([asked])

    async def _unless_away(self, pipeline: Pipeline) -> None:
        if self._away is None:
            with contextlib.suppress(_Away):
                await self._exchange(pipeline)

    def _do_behind(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closed or len(self._behind) >= _MOST_BEHIND:
            work.close()
            return
        task = asyncio.create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)


class _Lease:
    """A Lease. `mine` and `has` are the values that say that this node fetches, and has."""

    def __init__(self, leases: RedisLeases, key: str, mine: bytes, has: bytes) -> None:
        self.key = key
        self.mine = mine
        self.has = has
        self.is_lost = False
        self._leases = leases

    async def has_come(self) -> None:
        self._leases.leaves(self)
        await self._leases.note(self)

    async def give_back(self) -> None:
        if self._leases.leaves(self):
            self._leases.give_back(self)


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _is_refusal(answer: object) -> bool:
    return isinstance(answer, ResponseError) and not is_other_type(answer)
