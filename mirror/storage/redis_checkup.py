"""What a Redis says of itself, and its sentinels of it, to somebody who wants to know."""

from __future__ import annotations

from collections.abc import Mapping

from redis.exceptions import ResponseError

from ..frozen import dataclass
from ..redis_url import RedisAccess
from .redis_client import asked_sentinels, failure_kind, redis_client


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """`fault`: why it is of no use, "" where it answers. `sentinels`: each one's fault, or "".
    `master`: whether it takes writes. `policy`: its maxmemory-policy, "" where it has no limit.
    Of what its user may not ask for, the best is believed."""

    fault: str
    sentinels: Mapping[str, str]
    master: bool = True
    policy: str = ""


async def redis_facts(access: RedisAccess, within: float) -> RedisFacts:
    """Takes `within` seconds for each step. Raises ValueError for a URL of another form."""
    sentinels = await asked_sentinels(access, within)
    try:
        async with redis_client(access, within) as client:
            pipeline = client.pipeline(transaction=False)
            pipeline.ping()
            pipeline.info("replication")
            pipeline.info("memory")
            pong, replication, memory = await pipeline.execute(raise_on_error=False)
    except Exception as error:  # whatever is at the other end
        return RedisFacts(failure_kind(error), sentinels)
    if isinstance(pong, ResponseError):
        return RedisFacts(failure_kind(pong), sentinels)
    limited = isinstance(memory, dict) and memory.get("maxmemory")
    return RedisFacts(
        "",
        sentinels,
        not isinstance(replication, dict) or replication.get("role", "master") == "master",
        str(memory.get("maxmemory_policy", "")) if limited else "",
    )
