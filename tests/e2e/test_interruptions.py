"""What happens to a pull when the mirror, or its Redis, goes away in the middle of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from ..redis_server import RedisServer
from .clients import Client, Containerd, Dockerd, Flavour
from .conftest import Published, Shelf, have
from .hub import Hub
from .images import HERE
from .mirror import Mirror, endpoint
from .programs import Programs, accepts, wait_until

DOCKER = pytest.mark.parametrize("flavour", [Flavour(Dockerd)], ids=["docker"])


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def pull_halfway(
    pool: ThreadPoolExecutor, client: Client, hub: Hub, image: Published
) -> Future[None]:
    """A running pull: all of its blobs are asked of the hub, and no layer can end until its gate
    opens.

    The image has three layers: a client asks for them and the config at the same time.
    """
    hub.close_gate()
    pull = pool.submit(client.pull, image.by_tag)
    blobs = image.image.blobs_of(HERE)

    def running() -> bool:
        if pull.done():
            pull.result()
            raise AssertionError("the pull has ended before it was to be interrupted")
        return blobs <= set(hub.downloads())

    try:
        wait_until(running, "every blob is on its way")
    except BaseException:
        hub.open_gate()
        raise
    return pull


def large_files(folder: Path) -> int:
    """How many files hold 400 kB or more: each of the three layers is of more than twice that."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size >= 400_000 for path in files)


@pytest.mark.parametrize(
    "flavour", [Flavour(Dockerd), Flavour(Containerd)], ids=["docker", "containerd"]
)
def test_f41_sigterm_lets_a_running_pull_end(
    client: Client, hub: Hub, mirror: Mirror, shelf: Shelf, pool: ThreadPoolExecutor
) -> None:
    pull = pull_halfway(pool, client, hub, shelf.few)
    # The hub is asked ahead of the client, which has one connection for each layer that comes.
    layers = len(shelf.few.image.blobs_of(HERE)) - 1
    wait_until(lambda: connections_to(mirror) >= layers, "the client has asked for every layer")
    stopped = pool.submit(mirror.stop)
    try:
        wait_until(lambda: not accepts(mirror.address, mirror.port), "the mirror takes nobody new")
    finally:
        hub.open_gate()
    pull.result()
    assert stopped.result() == 0
    assert hub.downloads() == dict.fromkeys(shelf.few.image.blobs_of(HERE), 1)


def connections_to(mirror: Mirror) -> int:
    """Connections that clients have to its port now (proc(5), /proc/net/tcp: state 01)."""
    address = socket.inet_aton(mirror.address)[::-1].hex().upper()
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1] == f"{address}:{mirror.port:04X}" and row[3] == "01" for row in rows)


@DOCKER
def test_f30_a_pull_outlives_kill_9_of_the_mirror_and_its_blobs_are_resumed(
    client: Client, hub: Hub, mirror: Mirror, shelf: Shelf, pool: ThreadPoolExecutor
) -> None:
    pull = pull_halfway(pool, client, hub, shelf.few)
    try:
        # dockerd asks for layers for minutes, but for the config for a few seconds only.
        wait_until(lambda: mirror.metric("responses_total", kind="blob") > 0, "it has the config")
        wait_until(lambda: large_files(mirror.storage) == 3, "halves of all layers are on the disk")
        mirror.kill()
        hub.forget_requests()
        mirror.start()
    finally:
        hub.open_gate()
    pull.result()
    after = [each for each in hub.requests() if each.role == "blobs"]
    assert after
    assert all(each.header("Range") for each in after)
    assert client.run(shelf.few.by_tag) == f"hello from {shelf.few.repository}\n"


@DOCKER
def test_f45_pulls_go_on_while_redis_is_stopped_and_started(
    flavour: Flavour, hub: Hub, programs: Programs, shelf: Shelf, pool: ThreadPoolExecutor
) -> None:
    with RedisServer(programs.folder / "redis") as server:
        server.start()
        mirror = Mirror(programs, endpoint(hub.url), tags={"store": server.url}).start()
        client = have(flavour).start(programs, mirror.url)

        pull = pull_halfway(pool, client, hub, shelf.few)
        assert tags_in(server), "the tag is remembered in Redis"
        server.stop()
        hub.open_gate()
        pull.result()

        client.forget()
        client.pull(shelf.few.by_tag)  # from the cache
        client.pull(shelf.official.by_tag)  # from the hub
        assert mirror.metric("tag_store_errors_total", store="redis") > 0

        client.forget()
        server.start()
        client.pull(shelf.official.by_tag)

        def remembered() -> bool:
            path = f"/v2/{shelf.official.repository}/manifests/latest"
            assert mirror.get(path)[0] == 200
            return bool(tags_in(server))

        wait_until(remembered, "the mirror has come back to Redis by itself")

        # Redis is the whole of the tag memory: a mirror that starts anew knows the tag from there.
        mirror.kill()
        hub.stop()
        mirror.start()
        client.forget()
        client.pull(shelf.official.by_tag)


def tags_in(server: RedisServer) -> list[bytes]:
    """The keys in Redis."""
    with redis.Redis(host=server.host, port=server.port) as asked:
        return list(asked.scan_iter())
