"""Redis as the tag memory, against a real redis-server and all that may befall it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from redis.asyncio import Redis

from mirror.clock import Clock
from mirror.contracts.events import TagStoreFailed
from mirror.contracts.tags import TagStoreError
from mirror.events import Events
from mirror.oci.reference import Repository
from mirror.redis_url import RedisAccess
from mirror.storage.tags import redis as tags_redis
from mirror.storage.tags import redis_history
from mirror.storage.tags.redis import LIMIT, RedisTags

from ..fakes import HandClock, Recorder
from ..redis_server import RedisServer
from ..strict_tls import be_strict
from ..waiting import eventually
from .tag_contract import (
    REDIS,
    HistoryContract,
    ListingContract,
    T,
    TagStoreContract,
    digest,
    event,
    found,
    listed,
    missing,
)

KEY = "registry-mirror:1:tag:docker.io/library/redis:"

HISTORY = "registry-mirror:1:history:docker.io/library/redis:"
FROZEN = "registry-mirror:1:frozen"

# Pauses between two tries to reach a Redis that is away: short, for the tests' sake.
PAUSES = (0.05, 0.1)

# Long enough that nothing here is tried again by itself.
NEVER = (3600.0, 3600.0)

# A limit that a Redis which answers never meets, however busy this machine is.
PATIENT = 30.0


class Errors(Recorder):
    """Which operations failed, in order."""

    @property
    def operations(self) -> list[tuple[str, str]]:
        return [(each.store, each.operation) for each in self.of(TagStoreFailed)]


Connect = Callable[..., RedisTags]


@pytest.fixture
def errors() -> Errors:
    return Errors()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def connect(server: RedisServer, errors: Errors) -> AsyncIterator[Connect]:
    """Makes stores on the server, each as another node has one; closes them."""
    stores: list[RedisTags] = []

    def connect(
        url: str | None = None,
        password: str | None = None,
        clock: Clock | None = None,
        limit: float = PATIENT,
        pauses: tuple[float, float] = PAUSES,
        ca_file: Path | None = None,
    ) -> RedisTags:
        store = RedisTags(
            RedisAccess(url or server.url, password, ca_file),
            errors,
            clock or Clock(),
            limit=limit,
            pauses=pauses,
        )
        stores.append(store)
        return store

    yield connect
    for store in stores:
        await store.close()


@pytest.fixture
async def raw(server: RedisServer) -> AsyncIterator[Redis]:
    """The server itself, without our store."""
    client = Redis.from_url(server.url, password=server.password)
    yield client
    await client.aclose()


def holds(raw: Redis, tag: str) -> Callable[[], Awaitable[bool]]:
    async def is_there() -> bool:
        return bool(await raw.exists(KEY + tag))

    return is_there


class TestRedisTags(TagStoreContract, ListingContract, HistoryContract):
    @pytest.fixture
    def store(self, server: RedisServer, connect: Connect) -> RedisTags:
        server.start()
        return connect()


class TestRedisTagsWithoutRedis(TagStoreContract):
    """What one node sees when Redis is away all the time is the contract too."""

    @pytest.fixture
    def store(self, connect: Connect) -> RedisTags:
        return connect()


async def test_nodes_share_what_one_has_put(server: RedisServer, connect: Connect) -> None:
    server.start()
    await connect().put(REDIS, "7", found(), 3600)
    assert await connect().get(REDIS, "7") == found()


async def test_redis_itself_forgets_in_time(
    server: RedisServer, connect: Connect, raw: Redis
) -> None:
    server.start()
    await connect().put(REDIS, "7", found(), 60)
    assert 50_000 < await raw.pttl(KEY + "7") <= 60_000


async def test_what_one_node_deletes_no_other_remembers(
    server: RedisServer, connect: Connect
) -> None:
    server.start()
    here, there = connect(), connect()
    await here.put(REDIS, "7", found(), 3600)
    assert await there.get(REDIS, "7") == found()
    await here.delete(REDIS, "7")
    assert await there.get(REDIS, "7") is None
    server.kill()
    assert await there.get(REDIS, "7") is None


async def test_f45_down_at_start(
    server: RedisServer, connect: Connect, raw: Redis, errors: Errors
) -> None:
    store = connect()
    assert await store.get(REDIS, "7") is None
    await store.put(REDIS, "7", found(), 3600)
    assert await store.get(REDIS, "7") == found()
    assert ("redis", "get") in errors.operations
    server.start()
    await eventually(holds(raw, "7"))
    assert await connect().get(REDIS, "7") == found()


async def test_f45_dies_and_comes_back_empty(
    server: RedisServer, connect: Connect, raw: Redis
) -> None:
    server.start()
    store = connect()
    await store.put(REDIS, "before", found("before"), 3600)
    await store.put(REDIS, "deleted", found("deleted"), 3600)
    server.kill()
    assert await store.get(REDIS, "before") == found("before")
    await store.put(REDIS, "during", found("during"), 3600)
    await store.delete(REDIS, "deleted")
    assert await store.get(REDIS, "during") == found("during")
    assert await store.get(REDIS, "deleted") is None
    server.start()
    await eventually(holds(raw, "during"))
    # What Redis lost is brought back by whoever still knows it, when it is asked for.
    assert await store.get(REDIS, "before") == found("before")
    await eventually(holds(raw, "before"))
    assert await connect().get(REDIS, "before") == found("before")
    assert await store.get(REDIS, "deleted") is None


async def test_f45_what_was_deleted_while_it_was_away_is_deleted_there(
    server: RedisServer, connect: Connect, raw: Redis
) -> None:
    server.start()
    store = connect(limit=LIMIT)
    await store.put(REDIS, "7", found(), 3600)
    await eventually(holds(raw, "7"))
    server.pause()
    await store.delete(REDIS, "7")
    assert await store.get(REDIS, "7") is None
    server.resume()
    await eventually(lambda: _is_gone(raw, "7"))
    assert await store.get(REDIS, "7") is None


async def _is_gone(raw: Redis, tag: str) -> bool:
    return not await raw.exists(KEY + tag)


async def test_f45_emptied_while_it_runs(server: RedisServer, connect: Connect, raw: Redis) -> None:
    server.start()
    store = connect()
    await store.put(REDIS, "7", found(), 3600)
    await raw.flushall()
    assert await store.get(REDIS, "7") == found()
    await eventually(holds(raw, "7"))


async def test_f45_hangs(server: RedisServer, connect: Connect, raw: Redis, errors: Errors) -> None:
    server.start()
    await connect().put(REDIS, "elsewhere", found("elsewhere"), 3600)
    store = connect(limit=LIMIT)
    await store.put(REDIS, "7", found(), 3600)
    await eventually(holds(raw, "7"))
    server.pause()
    async with asyncio.timeout(10):
        assert await store.get(REDIS, "7") == found()
        assert await store.get(REDIS, "elsewhere") is None
        await store.put(REDIS, "8", found("8"), 3600)
    assert errors.operations
    server.resume()
    await eventually(holds(raw, "8"))

    async def asks_redis_again() -> bool:
        return await store.get(REDIS, "elsewhere") == found("elsewhere")

    await eventually(asks_redis_again)


async def test_f45_only_the_first_pull_waits_for_a_redis_that_hangs(
    server: RedisServer, connect: Connect, errors: Errors
) -> None:
    server.start()
    store = connect(limit=2, pauses=NEVER)
    await store.put(REDIS, "7", found(), 3600)
    server.pause()
    for _ in range(100):
        assert await store.get(REDIS, "7") == found()
        await store.put(REDIS, "8", found(), 3600)
    assert errors.operations == [("redis", "get")]


async def test_f45_each_answer_is_of_its_own_question_after_a_hang(
    server: RedisServer, connect: Connect
) -> None:
    server.start()
    store = connect()
    for number in range(40):
        await store.put(REDIS, str(number), found(str(number)), 3600)
    other = connect(limit=LIMIT)

    async def right(number: int) -> bool:
        record = await other.get(REDIS, str(number))
        assert record in (None, found(str(number)))
        return record is not None

    async def all_right() -> bool:
        return all(await asyncio.gather(*(right(number) for number in range(40))))

    server.pause()
    early = await asyncio.gather(*(other.get(REDIS, str(number)) for number in range(40)))
    assert early == [None] * 40
    server.resume()
    await eventually(all_right)


async def test_f45_slow(server: RedisServer, connect: Connect, raw: Redis, errors: Errors) -> None:
    server.start()
    store = connect(limit=LIMIT)
    await store.put(REDIS, "7", found(), 3600)
    await eventually(holds(raw, "7"))
    await raw.client_pause(2000)
    assert await store.get(REDIS, "7") == found()
    assert errors.operations  # not waited for
    await store.put(REDIS, "8", found("8"), 3600)
    await eventually(holds(raw, "8"))


async def test_f45_read_only_replica(
    server: RedisServer, connect: Connect, raw: Redis, errors: Errors
) -> None:
    server.start()
    await connect().put(REDIS, "elsewhere", found("elsewhere"), 3600)
    store = connect()
    await store.put(REDIS, "7", found("old"), 3600)
    await raw.replicaof("127.0.0.1", "1")
    await store.put(REDIS, "7", found("new"), 3600)
    assert ("redis", "put") in errors.operations
    assert await store.get(REDIS, "7") == found("new")
    assert await store.get(REDIS, "elsewhere") == found("elsewhere")  # reads go on
    await raw.replicaof("NO", "ONE")

    async def written() -> bool:
        return await connect().get(REDIS, "7") == found("new")

    await eventually(written)


async def test_f45_out_of_memory(
    server: RedisServer, connect: Connect, raw: Redis, errors: Errors
) -> None:
    server.start()
    store = connect()
    await store.put(REDIS, "7", found("old"), 3600)
    await raw.config_set("maxmemory", "1")
    await store.put(REDIS, "7", found("new"), 3600)
    assert ("redis", "put") in errors.operations
    assert await store.get(REDIS, "7") == found("new")
    await raw.config_set("maxmemory", "0")

    async def written() -> bool:
        return await connect().get(REDIS, "7") == found("new")

    await eventually(written)


async def test_f45_wrong_password(tmp_path: Path, connect: Connect) -> None:
    with RedisServer(tmp_path / "locked", password="right-secret").start() as server:
        with structlog.testing.capture_logs() as logs:
            url = server.url.replace("redis://", "redis://default:wrong-secret@")
            store = connect(url)
            assert await store.get(REDIS, "7") is None
            await store.put(REDIS, "7", found(), 3600)
            assert await store.get(REDIS, "7") == found()
            async with Redis.from_url(server.url, password="right-secret") as raw:
                await raw.config_set("requirepass", "wrong-secret")
                await eventually(holds(raw, "7"))
        assert [entry["reason"] for entry in logs if entry["log_level"] == "warning"] == [
            "wrong user or password"
        ]
        assert "secret" not in str(logs)


@pytest.mark.parametrize("where", ["argument", "url"])
async def test_logs_in_with_the_password(tmp_path: Path, connect: Connect, where: str) -> None:
    with RedisServer(tmp_path / "locked", password="s3cret/@:").start() as server:
        if where == "url":
            stores = [connect(server.url.replace("://", "://:s3cret%2F%40%3A@")) for _ in range(2)]
        else:
            stores = [connect(server.url, "s3cret/@:") for _ in range(2)]
        await stores[0].put(REDIS, "7", found(), 3600)
        assert await stores[1].get(REDIS, "7") == found()


async def test_f45_not_a_redis_at_all(connect: Connect) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        store = connect(f"redis://127.0.0.1:{port}/0")
        await store.put(REDIS, "7", found(), 3600)
        assert await store.get(REDIS, "7") == found()
        assert await store.get(REDIS, "8") is None


async def test_f45_says_once_that_it_is_away_and_once_that_it_is_back(
    server: RedisServer, connect: Connect, raw: Redis, errors: Errors
) -> None:
    server.start()
    store = connect()
    with structlog.testing.capture_logs() as logs:
        server.kill()
        for number in range(50):
            await store.put(REDIS, str(number), found(), 3600)
            await store.get(REDIS, str(number))
        await eventually(lambda: len(errors.operations) > 3)
        server.start()
        await eventually(holds(raw, "49"))
        await eventually(lambda: len(logs) >= 2)
        await store.put(REDIS, "7", found(), 3600)
    assert [(entry["log_level"], entry.get("reason")) for entry in logs] == [
        ("warning", "connection refused"),
        ("info", None),
    ]


async def test_a_caller_that_leaves_loses_nothing(
    server: RedisServer, connect: Connect, raw: Redis
) -> None:
    server.start()
    store = connect()
    server.pause()  # it is connected to, but nothing is written before it has answered
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.put(REDIS, "7", found(), 3600), 0.05)
    assert await store.get(REDIS, "7") == found()
    server.resume()
    await eventually(holds(raw, "7"))


async def test_an_older_answer_of_redis_does_not_replace_what_was_put_meanwhile(
    server: RedisServer, connect: Connect
) -> None:
    server.start()
    await connect().put(REDIS, "7", found("old"), 3600)
    store = connect()
    assert await store.get(REDIS, "7") == found("old")
    server.pause()
    reading = asyncio.create_task(store.get(REDIS, "7"))
    await asyncio.sleep(0)  # it has asked
    writing = asyncio.create_task(store.put(REDIS, "7", found("new"), 3600))
    await asyncio.sleep(0)
    server.resume()
    await asyncio.gather(reading, writing)
    server.kill()
    assert await store.get(REDIS, "7") == found("new")


async def test_connections_that_redis_closed_are_no_error(
    server: RedisServer, connect: Connect, raw: Redis, errors: Errors
) -> None:
    server.start()
    store = connect()
    await store.put(REDIS, "7", found(), 3600)
    await raw.client_kill_filter(_type="normal", skipme=True)
    assert await store.get(REDIS, "7") == found()
    assert errors.operations == []


async def test_what_is_remembered_here_ends_in_time_too(
    server: RedisServer, connect: Connect
) -> None:
    server.start()
    monotonic = HandClock(0)
    writer = connect()
    await writer.put(REDIS, "seen", found("seen"), 60)
    store = connect(clock=Clock(monotonic=monotonic))
    assert await store.get(REDIS, "seen") == found("seen")
    server.kill()
    await store.put(REDIS, "put", missing(), 60)
    monotonic.now = 50.0
    assert await store.get(REDIS, "seen") == found("seen")
    assert await store.get(REDIS, "put") == missing()
    monotonic.now = 61.0
    assert await store.get(REDIS, "seen") is None
    assert await store.get(REDIS, "put") is None


async def test_a_record_that_ended_while_redis_was_away_is_not_brought_back(
    server: RedisServer, connect: Connect, raw: Redis
) -> None:
    monotonic = HandClock(0)
    store = connect(clock=Clock(monotonic=monotonic))
    await store.put(REDIS, "short", found(), 60)
    await store.put(REDIS, "long", found(), 3600)
    monotonic.now = 61.0
    server.start()
    await eventually(holds(raw, "long"))
    assert await raw.exists(KEY + "short") == 0


async def test_f45_all_that_was_put_meanwhile_is_brought(
    server: RedisServer, connect: Connect, raw: Redis
) -> None:
    store = connect()
    for number in range(250):
        await store.put(REDIS, str(number), found(), 3600)
    server.start()

    async def all_are_there() -> bool:
        return await raw.exists(*(KEY + str(number) for number in range(250))) == 250

    await eventually(all_are_there)


async def test_f55_a_flood_while_redis_is_away_is_bounded(connect: Connect) -> None:
    store = connect(pauses=NEVER)
    await store.put(REDIS, "first", found(), 3600)
    for number in range(10_000):
        await store.put(REDIS, str(number), missing(), 3600)
    assert await store.get(REDIS, "first") is None
    assert await store.get(REDIS, "9999") == missing()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"garbage",
        b"\x80\x04",
        b"{}",
        b'{"version":2}',
        b'{"version":1,"tag":"docker.io/library/redis:8","checked_at":1,"descriptor":null}',
    ],
)
async def test_f46_garbage_is_absent_and_overwritten(
    server: RedisServer, connect: Connect, raw: Redis, garbage: bytes, errors: Errors
) -> None:
    server.start()
    await raw.set(KEY + "7", garbage)
    store = connect()
    assert await store.get(REDIS, "7") is None
    await store.put(REDIS, "7", found(), 3600)
    assert await connect().get(REDIS, "7") == found()
    assert errors.operations == []


async def test_f46_a_value_of_another_type_is_absent_and_overwritten(
    server: RedisServer, connect: Connect, raw: Redis, errors: Errors
) -> None:
    server.start()
    await raw.rpush(KEY + "7", "a", "b")
    store = connect()
    assert await store.get(REDIS, "7") is None
    await store.put(REDIS, "7", found(), 3600)
    assert await connect().get(REDIS, "7") == found()
    assert errors.operations == []


@pytest.mark.parametrize("kind", ["hash", "list"])
async def test_f46_an_epoch_of_another_type_is_absent_and_overwritten(
    server: RedisServer, connect: Connect, raw: Redis, errors: Errors, kind: str
) -> None:
    server.start()
    epoch = KEY.partition("tag:")[0] + "epoch"
    if kind == "hash":
        await raw.hset(epoch, "a", "b")
    else:
        await raw.rpush(epoch, "a")
    store = connect()
    assert await store.get(REDIS, "7") is None
    await store.put(REDIS, "7", found(), 3600)
    assert await connect().get(REDIS, "7") == found()
    assert await raw.type(epoch) == b"string"
    assert errors.operations == []


async def test_redis_drops_records_where_it_has_no_room_and_neither_history_nor_pins(
    server: RedisServer, connect: Connect, raw: Redis, errors: Errors
) -> None:
    server.start(maxmemory="2mb", maxmemory_policy="volatile-ttl")
    store = connect(limit=PATIENT)
    await store.freeze(REDIS, "7", digest("pinned"))
    await store.put(REDIS, "7", found("old", checked_at=T), 60)
    many = [Repository("docker.io", f"library/{number}") for number in range(8)]
    for number in range(5_000):
        await store.put(many[number % 8], str(number), missing(T), 3600)  # it has no history
    again = connect(limit=PATIENT)
    assert await again.frozen(REDIS, "7") == digest("pinned")
    assert list(await again.history(REDIS, "7")) == [event("old", T, T)]
    assert (await raw.info("stats"))["evicted_keys"] > 100
    assert errors.operations == []


async def test_the_history_of_one_repository_pushes_out_no_others_in_redis(
    server: RedisServer, connect: Connect, raw: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_history, "MOST_TAGS", 100)
    server.start()
    store = connect(limit=PATIENT)
    quay = Repository("quay.io", "app")
    for number in range(20):
        await store.put(REDIS, str(number), found(checked_at=T + number), 3600)
        await store.put(quay, str(number), found(checked_at=T + number), 3600)
    flood = Repository("docker.io", "library/flood")
    for number in range(300):
        await store.put(flood, str(number), found(checked_at=T + 1000 + number), 3600)
    for repository in (REDIS, quay):
        assert all([await store.history(repository, str(number)) for number in range(20)])
        assert not await store.has_forgotten(repository)
    assert await connect().has_forgotten(flood)
    # Who has little adds to it at the cost of who has most.
    await store.put(quay, "more", found(checked_at=T + 1500), 3600)
    for tag in ("more", *map(str, range(20))):
        assert await store.history(quay, tag)
    assert not await store.has_forgotten(quay)
    # Many repositories of its registry push out nothing of another's.
    for number in range(300):
        some = Repository("docker.io", f"flood/{number}")
        await store.put(some, "1", found(checked_at=T + 2000 + number), 3600)
    assert all([await store.history(quay, str(number)) for number in range(20)])
    assert not await store.has_forgotten(quay)
    assert len(await raw.keys(f"{redis_history.HISTORY}*")) == 100


async def test_what_was_not_said_for_long_is_removed_from_the_history_in_redis(
    server: RedisServer, connect: Connect, raw: Redis
) -> None:
    server.start()
    store = connect()
    await store.put(REDIS, "7", found("old", checked_at=T), 60)
    await store.put(REDIS, "8", found("old", checked_at=T + 399 * 86400), 60)
    assert await store.history(REDIS, "7")
    assert await raw.ttl(HISTORY + "7") == -1
    await store.put(REDIS, "8", found("old", checked_at=T + 401 * 86400), 60)
    assert list(await store.history(REDIS, "7")) == []
    assert await store.history(REDIS, "8")
    assert not await store.has_forgotten(REDIS)


async def test_of_too_many_repositories_redis_remembers_whose_registry_forgot(
    server: RedisServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_history, "MOST_TAGS", 10)
    monkeypatch.setattr(redis_history, "MOST_FORGOTTEN", 5)
    server.start()
    store = connect(limit=PATIENT)
    for number in range(100):
        flood = Repository("docker.io", f"flood/{number}")
        await store.put(flood, "1", found(checked_at=T + number), 3600)
    for number in range(90):
        assert await store.has_forgotten(Repository("docker.io", f"flood/{number}"))
    assert not await store.has_forgotten(Repository("quay.io", "app"))


@pytest.mark.parametrize("depth", [0, 1, 2], ids=["of-all", "of-registries", "of-repositories"])
@pytest.mark.parametrize("garbage", [False, True], ids=["deleted", "garbage"])
async def test_f46_the_counts_of_the_history_may_be_gone_or_garbage(
    server: RedisServer,
    connect: Connect,
    raw: Redis,
    monkeypatch: pytest.MonkeyPatch,
    depth: int,
    garbage: bool,
) -> None:
    monkeypatch.setattr(redis_history, "MOST_TAGS", 10)
    server.start()
    store = connect(limit=PATIENT)
    flood = Repository("docker.io", "flood")
    key = redis_history.COUNTS + ("", ":docker.io", ":docker.io/flood")[depth]
    with structlog.testing.capture_logs() as logs:
        for turn in range(2):
            for number in range(30):
                record = found(checked_at=T + 30 * turn + number)
                await store.put(flood, f"{turn}-{number}", record, 3600)
                assert await store.history(flood, f"{turn}-{number}")
            await raw.delete(key)
            if garbage:
                await raw.set(key, "garbage")
        for number in range(30):
            await store.put(flood, f"last-{number}", found(checked_at=T + 100 + number), 3600)
            assert await store.history(flood, f"last-{number}")
    assert logs == []
    if depth < 2:  # else nobody knows any more which there were
        assert len(await raw.keys(f"{redis_history.HISTORY}*")) == 10


async def test_the_log_says_that_redis_may_drop_what_nothing_else_remembers(
    server: RedisServer, connect: Connect
) -> None:
    server.start(maxmemory="100mb", maxmemory_policy="allkeys-lru")
    with structlog.testing.capture_logs() as logs:
        store = connect()
        for _ in range(3):
            await store.frozen(REDIS, "7")
            await store.put(REDIS, "7", found(), 60)
    assert [(entry["policy"], entry["write"]) for entry in logs] == [
        ("allkeys-lru", "maxmemory-policy volatile-ttl")
    ]


@pytest.mark.parametrize("policy", ["volatile-ttl", "volatile-lru", "noeviction"])
async def test_and_says_nothing_where_redis_does_not(
    server: RedisServer, connect: Connect, policy: str
) -> None:
    server.start(maxmemory="100mb", maxmemory_policy=policy)
    with structlog.testing.capture_logs() as logs:
        await connect().frozen(REDIS, "7")
    assert logs == []


async def test_nodes_note_into_one_history(server: RedisServer, connect: Connect) -> None:
    server.start()
    here, there = connect(), connect()
    await here.put(REDIS, "7", found("a", checked_at=T + 1000), 60)
    await there.put(REDIS, "7", found("a", checked_at=T + 1500), 60)
    await there.put(REDIS, "7", found("b", checked_at=T + 2000), 60)
    await here.put(REDIS, "7", found("b", checked_at=T + 2500), 60)
    assert list(await connect().history(REDIS, "7")) == [
        event("b", T + 2000, T + 2500),
        event("a", T + 1000, T + 1500),
    ]


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"a b c", b"sha256:00 1 nan", b"\xff 1 2"])
async def test_f46_garbage_in_the_history_is_absent_and_overwritten(
    server: RedisServer, connect: Connect, raw: Redis, garbage: bytes, errors: Errors
) -> None:
    server.start()
    await raw.rpush(HISTORY + "7", garbage)
    await raw.set(HISTORY + "8", garbage)
    store = connect()
    for tag in ("7", "8"):
        assert list(await store.history(REDIS, tag)) == []
        await store.put(REDIS, tag, found("a", checked_at=T + 1000), 60)
        assert list(await store.history(REDIS, tag)) == [event("a", T + 1000, T + 1000)]
    assert errors.operations == []


async def test_records_are_kept_where_scripts_are_not_allowed(
    server: RedisServer, connect: Connect, raw: Redis, errors: Errors
) -> None:
    server.start()
    await raw.execute_command("ACL SETUSER plain on >word ~* +@all -@scripting")
    store = connect(server.url.replace("redis://", "redis://plain:word@"))
    with structlog.testing.capture_logs() as logs:
        for number in range(3):
            await store.put(REDIS, "7", found(str(number)), 3600)
    assert await connect().get(REDIS, "7") == found("2")
    assert list(await store.history(REDIS, "7")) == []
    assert errors.operations == []
    assert [(entry["ability"], entry["reason"]) for entry in logs] == [
        ("history", "the user has no permission for this")
    ]


async def test_a_flood_while_redis_is_away_costs_other_repositories_nothing(
    server: RedisServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags_redis, "_REMEMBERED", 100)
    store = connect(pauses=(0.01, 0.02), limit=PATIENT)
    for number in range(20):
        await store.put(REDIS, str(number), found(checked_at=T + number), 3600)
    for number in range(500):
        flood = Repository("docker.io", f"flood/{number % 2}")
        await store.put(flood, str(number), found(checked_at=T), 3600)
    for number in range(20):
        assert await store.get(REDIS, str(number)) == found(checked_at=T + number)
    server.start()

    async def is_written() -> bool:
        return await connect().get(REDIS, "19") is not None

    await eventually(is_written)
    assert all([await connect().history(REDIS, str(number)) for number in range(19)])


async def test_f45_history_and_freezing_say_that_redis_is_away(connect: Connect) -> None:
    store = connect(pauses=NEVER)
    with pytest.raises(TagStoreError):
        await store.history(REDIS, "7")
    with pytest.raises(TagStoreError):
        await store.freeze(REDIS, "7", digest("a"))
    with pytest.raises(TagStoreError):
        await store.unfreeze(REDIS, "7")
    assert await store.frozen(REDIS, "7") is None


async def test_nodes_see_within_a_second_what_one_freezes(
    server: RedisServer, connect: Connect
) -> None:
    server.start()
    monotonic = HandClock(0)
    here, there = connect(), connect(clock=Clock(monotonic=monotonic))
    assert await there.frozen(REDIS, "7") is None
    await here.freeze(REDIS, "7", digest("a"))
    monotonic.now += 0.9
    assert await there.frozen(REDIS, "7") == digest("a")
    await here.unfreeze(REDIS, "7")
    monotonic.now += 0.9
    assert await there.frozen(REDIS, "7") is None


async def test_f45_what_was_seen_frozen_stays_so_while_redis_is_away(
    server: RedisServer, connect: Connect
) -> None:
    server.start()
    monotonic = HandClock(0)
    store = connect(clock=Clock(monotonic=monotonic), pauses=NEVER)
    await store.freeze(REDIS, "7", digest("a"))
    assert await store.frozen(REDIS, "7") == digest("a")
    server.kill()
    for _ in range(3):
        monotonic.now += 10
        assert await store.frozen(REDIS, "7") == digest("a")


async def test_f46_garbage_among_the_frozen_is_absent(
    server: RedisServer, connect: Connect, raw: Redis
) -> None:
    server.start()
    await raw.hset(FROZEN, mapping={b"\xff": b"x", "docker.io/library/redis:8": "nonsense"})
    await connect().freeze(REDIS, "7", digest("a"))
    assert await connect().frozen(REDIS, "7") == digest("a")
    assert await connect().frozen(REDIS, "8") is None


async def test_f46_frozen_tags_of_another_type_are_absent_and_overwritten(
    server: RedisServer, connect: Connect, raw: Redis, errors: Errors
) -> None:
    server.start()
    await raw.set(FROZEN, "nonsense")
    assert await connect().frozen(REDIS, "7") is None
    assert not await connect().unfreeze(REDIS, "7")
    await connect().freeze(REDIS, "7", digest("a"))
    assert await connect().frozen(REDIS, "7") == digest("a")
    assert errors.operations == []


class TestTls:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[RedisServer]:
        with RedisServer(tmp_path / "tls", tls=True).start() as server:
            yield server

    @pytest.mark.parametrize("strict", [False, True], ids=["this Python", "as 3.13"])
    async def test_speaks_tls(
        self,
        server: RedisServer,
        connect: Connect,
        errors: Errors,
        monkeypatch: pytest.MonkeyPatch,
        strict: bool,
    ) -> None:
        """Also with certificates that a strict reading refuses: other clients take them."""
        assert server.certificate is not None
        if strict:
            be_strict(monkeypatch)
        for store in (connect(ca_file=server.certificate.authority) for _ in range(2)):
            await store.put(REDIS, "7", found(), 3600)
            assert await store.get(REDIS, "7") == found()
        assert errors.operations == []

    @pytest.mark.parametrize("fault", ["unknown authority", "wrong name"])
    async def test_certificates_are_verified(
        self, server: RedisServer, connect: Connect, errors: Errors, fault: str
    ) -> None:
        assert server.certificate is not None
        if fault == "wrong name":
            url = server.url.replace("localhost", "127.0.0.1")
            store = connect(url, ca_file=server.certificate.authority, pauses=NEVER)
        else:
            store = connect(pauses=NEVER)
        with structlog.testing.capture_logs() as logs:
            await store.put(REDIS, "7", found(), 3600)
        assert errors.operations == [("redis", "put")]
        assert "certificate" in logs[0]["reason"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://",
        "http://:secret@redis:6379/0",
        "redis://:secret@redis:port/0",
        "redis://:secret@redis:99999/0",
        "redis://:secret@[redis/0",
        "redis://:secret@redis/zero",
        "rediss://:secret@redis/0?ssl_cert_reqs=none",
    ],
)
def test_a_url_of_another_form_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError) as raised:
        RedisTags(RedisAccess(url), Events(), Clock())
    assert "secret" not in str(raised.value)


class TestListing:
    async def test_what_others_keep_in_the_same_redis_is_passed_by(
        self, server: RedisServer, connect: Connect, raw: Redis
    ) -> None:
        server.start()
        store = connect()
        await store.put(REDIS, "7", found(), 3600)
        for number in range(50):
            await raw.set(f"others:{number}", "x")
        await raw.set(KEY + "garbage", b"\xff{")
        await raw.set("registry-mirror:1:tag:no key of ours", "{}")
        await raw.hset(KEY + "hash", "a", "b")
        assert [tag.tag for tag in await listed(store, 5)] == ["7"]

    async def test_a_redis_that_is_away_is_said_and_pulls_go_on(
        self, server: RedisServer, connect: Connect
    ) -> None:
        server.start()
        store = connect(pauses=NEVER)
        await store.put(REDIS, "7", found(), 3600)
        server.stop()
        with pytest.raises(TagStoreError):
            await store.page("", 10)
        assert await store.get(REDIS, "7") == found()

    async def test_a_user_who_may_list_nothing_reads_and_writes_all_the_same(
        self, server: RedisServer, connect: Connect, raw: Redis, errors: Errors
    ) -> None:
        server.start()
        store = connect(pauses=NEVER)
        await raw.execute_command("ACL", "SETUSER", "default", "-scan")
        with pytest.raises(TagStoreError):
            await store.page("", 10)
        await store.put(REDIS, "7", found(), 3600)
        assert await raw.exists(KEY + "7")
        assert errors.operations == []

    async def test_a_marker_that_no_page_gave_is_refused(
        self, server: RedisServer, connect: Connect
    ) -> None:
        server.start()
        with pytest.raises(ValueError, match="redis:7"):
            await connect().page("docker.io/library/redis:7", 10)
