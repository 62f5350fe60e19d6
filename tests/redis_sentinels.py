"""A Redis that fails over: master, replicas and sentinels, all real processes of a test's own."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from .e2e.certificates import issue
from .redis_server import RedisServer
from .waiting import until

MASTER = "mymaster"

# Milliseconds of silence after which a sentinel takes a Redis to be gone.
_GONE_AFTER = 1000


@dataclass(frozen=True, slots=True)
class Guarded:
    """`servers`: the first of them begins as the master."""

    servers: list[RedisServer]
    sentinels: list[RedisServer]

    @property
    def url(self) -> str:
        scheme = "redis" if self.servers[0].certificate is None else "rediss"
        hosts = ",".join(f"{each.host}:{each.port}" for each in self.sentinels)
        return f"{scheme}+sentinel://{hosts}/{MASTER}/0"

    @property
    def authority(self) -> Path | None:
        certificate = self.servers[0].certificate
        return None if certificate is None else certificate.authority

    def master(self) -> RedisServer:
        """As the first sentinel that answers says."""
        for sentinel in self.sentinels:
            with contextlib.suppress(redis.RedisError), client(sentinel) as asked:
                host = asked.sentinel_get_master_addr_by_name(MASTER)[0].decode()
                return next(each for each in self.servers if each.host == host)
        raise AssertionError("no sentinel answers")

    def fails_over_from(self, old: RedisServer) -> RedisServer:
        """Waits until another one is the master, and is written to; returns it."""
        until(lambda: self.master() is not old, seconds=60)
        until(lambda: _is_master(self.master()), seconds=60)
        return self.master()


def client(server: RedisServer) -> redis.Redis:
    tls = {} if server.certificate is None else {"ssl": True, "ssl_cert_reqs": "none"}
    return redis.Redis(
        host=server.host, port=server.port, password=server.password, socket_timeout=5, **tls
    )


@contextlib.contextmanager
def guarded(
    folder: Path,
    replicas: int = 2,
    sentinels: int = 3,
    password: str = "of redis",
    sentinel_password: str = "of sentinels",
    *,
    tls: bool = False,
) -> Iterator[Guarded]:
    """All of them, running, and the replicas in step with the master."""
    with contextlib.ExitStack() as stack:
        servers, watching = (
            [stack.enter_context(RedisServer(folder / f"{name}{n}", secret)) for n in range(count)]
            for name, secret, count in (
                ("redis", password, 1 + replicas),
                ("sentinel", sentinel_password, sentinels),
            )
        )
        if tls:
            certificate = issue(folder, tuple(each.host for each in (*servers, *watching)))
            for each in (*servers, *watching):
                each.certificate = certificate
        first = servers[0]
        for server in servers:
            settings = {
                "masterauth": f'"{password}"',
                "requirepass": f'"{password}"',
                "replica_announce_ip": server.host,
                "repl_diskless_sync_delay": "0",
                "tls_replication": "yes" if tls else "no",
            }
            if server is not first:
                settings["replicaof"] = f"{first.host} {first.port}"
            server.start(**settings)
        for replica in servers[1:]:
            until(lambda replica=replica: _is_in_step(replica))
        for sentinel in watching:
            sentinel.start_sentinel(_sentinel_conf(sentinel, watching, servers, password))
        yield Guarded(servers, watching)


def _sentinel_conf(
    own: RedisServer, all_: list[RedisServer], servers: list[RedisServer], password: str
) -> dict[str, str]:
    """They know one another from the start: else they find that out in some seconds."""
    first = servers[0]
    lines = {
        "requirepass": f'"{own.password}"',
        "dir": str(own.folder),
        "sentinel myid": _id(own),
        "sentinel announce-ip": own.host,
        f"sentinel monitor {MASTER}": f"{first.host} {first.port} {len(all_) // 2 + 1}",
        f"sentinel down-after-milliseconds {MASTER}": str(_GONE_AFTER),
        f"sentinel failover-timeout {MASTER}": "6000",
        f"sentinel auth-pass {MASTER}": f'"{password}"',
        "tls-replication": "no" if own.certificate is None else "yes",
    }
    for replica in servers[1:]:
        lines[f"sentinel known-replica {MASTER} {replica.host}"] = str(replica.port)
    for other in all_:
        if other is not own:
            lines[f"sentinel known-sentinel {MASTER} {other.host}"] = f"{other.port} {_id(other)}"
    return lines


def _id(sentinel: RedisServer) -> str:
    return hashlib.sha1(sentinel.host.encode()).hexdigest()


def _is_in_step(replica: RedisServer) -> bool:
    with client(replica) as asked:
        return asked.info("replication").get("master_link_status") == "up"


def _is_master(server: RedisServer) -> bool:
    with contextlib.suppress(redis.RedisError), client(server) as asked:
        return asked.role()[0] in (b"master", "master")
    return False
