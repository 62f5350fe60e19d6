"""How Redis is reached: by its address or by sentinels, and what becomes of connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ReadOnlyError

from mirror.clock import Clock
from mirror.events import Events
from mirror.redis_url import RedisAccess, parse_redis_url
from mirror.storage.redis_checkup import redis_facts
from mirror.storage.redis_client import failure_kind, redis_client
from mirror.storage.tags.redis import LIMIT, RedisTags

from ..redis_sentinels import Guarded, client, guarded
from ..redis_server import RedisServer
from ..waiting import eventually
from .tag_contract import REDIS, found

KEY = "registry-mirror:1:tag:docker.io/library/redis:"

# A limit that a Redis which answers meets however busy this machine is.
PATIENT = 10.0

# What a request may be slowed by at most, with as much for a busy machine.
UNSEEN = 2 * 0.5


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("guarded")) as redis:
        yield redis


@pytest.fixture
async def store(redis: Guarded) -> AsyncIterator[RedisTags]:
    store = RedisTags(access(redis), Events(), Clock(), pauses=(0.2, 0.5))
    yield store
    await store.close()


def access(redis: Guarded, **changed: str) -> RedisAccess:
    secrets = {"password": "of redis", "sentinel_password": "of sentinels"} | changed
    return RedisAccess(redis.url, ca_file=redis.authority, **secrets)


async def test_a_url_of_sentinels_leads_to_the_master(redis: Guarded) -> None:
    async with redis_client(access(redis), PATIENT) as asked:
        assert (await asked.role())[0] == b"master"
        await asked.set("there", "x")
    with client(redis.master()) as master:
        assert master.get("there") == b"x"


async def test_sentinels_role_and_policy_are_looked_at(redis: Guarded) -> None:
    master = redis.master()
    replica = next(each for each in redis.servers if each is not master and each.is_running)
    with client(master) as asked:
        asked.config_set("maxmemory", "1gb")
        asked.config_set("maxmemory-policy", "allkeys-lru")
    wrong = access(redis, sentinel_password="another")
    facts, of_wrong, of_replica = await asyncio.gather(
        redis_facts(access(redis), PATIENT),
        redis_facts(wrong, PATIENT),
        redis_facts(RedisAccess(replica.url, replica.password), PATIENT),
    )
    assert (facts.fault, facts.master, facts.policy) == ("", True, "allkeys-lru")
    assert list(facts.sentinels.values()) == ["", "", ""]
    assert set(of_wrong.sentinels.values()) == {"wrong user or password"}
    assert "no sentinel tells of a master" in of_wrong.fault
    assert (of_replica.fault, of_replica.master) == ("", False)


async def _goes_on(store: RedisTags, until_done: asyncio.Future[object]) -> float:
    """Puts and gets as pulls do; the longest that one took."""
    longest, number = 0.0, 0
    await store.put(REDIS, "before", found(), 3600)
    while not until_done.done():
        number += 1
        began = time.perf_counter()
        assert await store.get(REDIS, "before") == found()
        await store.put(REDIS, f"during{number}", found(), 3600)
        assert await store.get(REDIS, f"during{number}") == found()
        longest = max(longest, time.perf_counter() - began)
        await asyncio.sleep(0.02)
    assert number > 10
    return longest


@pytest.mark.parametrize("what", ["killed", "frozen"])
async def test_f45_a_fail_over_is_not_seen_and_the_new_master_has_all_of_it(
    redis: Guarded, store: RedisTags, what: str
) -> None:
    old = redis.master()
    going = asyncio.create_task(asyncio.to_thread(redis.fails_over_from, old))
    await store.put(REDIS, "warm", found(), 3600)
    if what == "killed":
        old.kill()
    else:
        old.pause()
    try:
        assert await _goes_on(store, going) < UNSEEN
        new = going.result()
        await store.put(REDIS, f"after a master is {what}", found(), 3600)

        def has_all() -> bool:
            with client(new) as master:
                names = [KEY + "during1", KEY + f"after a master is {what}", KEY + "before"]
                return bool(master.exists(*names) == len(names))

        await eventually(has_all, 30)
    finally:
        if what == "frozen":
            old.resume()
    if what == "frozen":  # it takes itself for the master, until sentinels tell it otherwise
        await store.put(REDIS, "later", found(), 3600)

        def has_later() -> bool:
            with client(new) as master:
                return bool(master.exists(KEY + "later"))

        await eventually(has_later, 30)


async def test_sentinels_that_are_lost_are_passed_over(redis: Guarded) -> None:
    frozen = redis.sentinels[0]
    frozen.pause()
    try:
        async with redis_client(access(redis), 3.0) as asked:
            began = time.perf_counter()
            await asked.ping()
            assert time.perf_counter() - began < 1.0  # no wait for the one that is silent
            for sentinel in redis.sentinels[1:]:
                sentinel.pause()
            await asked.connection_pool.disconnect()
            await asked.ping()  # it is where it was last
    finally:
        for sentinel in redis.sentinels:
            sentinel.resume()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sentinel_password": "another"}, "no sentinel tells of a master: wrong user or password"),
        ({"password": "another"}, "wrong user or password"),
    ],
)
async def test_what_is_wrong_is_said(redis: Guarded, wrong: dict[str, str], words: str) -> None:
    async with redis_client(access(redis, **wrong), PATIENT) as asked:
        with pytest.raises(Exception) as raised:
            await asked.ping()
    assert failure_kind(raised.value) == words


async def test_a_name_that_sentinels_do_not_know_is_said(redis: Guarded) -> None:
    other = RedisAccess(redis.url.replace("mymaster", "other"), "of redis", None, "of sentinels")
    async with redis_client(other, PATIENT) as asked:
        with pytest.raises(Exception) as raised:
            await asked.ping()
    assert failure_kind(raised.value) == "the sentinels know no master of this name"


async def test_sentinels_that_are_all_away_are_said_in_time() -> None:
    gone = RedisAccess("redis+sentinel://127.9.9.9:1,127.9.9.9:2/mymaster")
    async with redis_client(gone, LIMIT) as asked:
        with pytest.raises(Exception) as raised:
            await asked.ping()
    assert failure_kind(raised.value) == "no sentinel tells of a master: connection refused"


async def test_tls_is_spoken_with_sentinels_and_master(tmp_path: Path) -> None:
    with guarded(tmp_path, replicas=0, sentinels=1, tls=True) as redis:
        async with redis_client(access(redis), PATIENT) as asked:
            await asked.set("there", "x")
        nobodys = RedisAccess(redis.url, "of redis", None, "of sentinels")
        async with redis_client(nobodys, PATIENT) as asked:
            with pytest.raises(Exception) as raised:
                await asked.ping()
        assert "the certificate is not one to trust" in failure_kind(raised.value)


async def test_a_connection_to_what_has_become_a_replica_is_not_used_again(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        async with redis_client(RedisAccess(server.start().url), PATIENT) as asked:
            first = await asked.client_id()
            assert await asked.client_id() == first
            await _become_replica(asked)
            with pytest.raises(ReadOnlyError):
                await asked.set("there", "x")
            assert await asked.client_id() != first


async def test_whoever_is_cancelled_ends_whenever_that_is(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        access = RedisAccess(server.start().url)
        for steps in range(60):
            async with redis_client(access, PATIENT) as asked:
                task = asyncio.create_task(_ask_for_ever(asked))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                done, _ = await asyncio.wait([task], timeout=30)
                assert done


async def _ask_for_ever(asked: Redis) -> None:
    while True:
        await asked.ping()
        await asyncio.Event().wait()


async def _become_replica(asked: Redis) -> None:
    await asked.execute_command("REPLICAOF", "127.9.9.9", "1")


@pytest.mark.parametrize(
    ("text", "places", "master", "database"),
    [
        ("redis://h", (("h", 6379),), None, 0),
        ("rediss://u:p@[::1]:7000/3", (("::1", 7000),), None, 3),
        ("redis+sentinel://a,b:1,[::1]/m", (("a", 26379), ("b", 1), ("::1", 26379)), "m", 0),
        ("rediss+sentinel://u:p@a:2/my-master/12", (("a", 2),), "my-master", 12),
    ],
)
def test_urls_are_read(
    text: str, places: tuple[tuple[str, int], ...], master: str | None, database: int
) -> None:
    url = parse_redis_url(text)
    assert (url.places, url.master, url.database) == (places, master, database)
    assert url.tls is text.startswith("rediss")
    assert "p" not in (url.password or "") or "password" not in repr(url)


@pytest.mark.parametrize(
    "text",
    [
        "redis+sentinel://:secret@a:26379,b:26379",  # no master
        "redis+sentinel://:secret@a,/m",
        "redis+sentinel://:secret@a:0/m",
        "redis+sentinel://:secret@a/m/x",
        "redis+sentinel://:secret@a/m/0?socket_timeout=9",
        "redis+sentinel://:secret@a/mé",
        "redis://:secret@a,b/0",
        "redis://:secret@a/0/1",
        "sentinel://:secret@a/m",
        "redis+sentinel://:secret@" + ",".join(["a"] * 17) + "/m",
    ],
)
def test_urls_of_another_form_are_refused_without_their_password(text: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_redis_url(text)
    assert "secret" not in str(raised.value)
