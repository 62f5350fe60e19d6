"""A house for one test: a hub, mirrors as real processes, and what has to be true when all is over.

    async def test_…(house: House) -> None:
        digest = house.hub.add_blob(data)
        mirror = await house.mirror()
        answer = await mirror.blob(digest)
        assert answer.is_whole(digest)

When the test ends the hub is closed, and every mirror that still runs must come to rest (see
`Mirror.at_rest`): that is the part which all faults have in common.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
import sqlite3
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from mirror.storage.disk import proof_marks

from ..e2e.programs import REPOSITORY, loopback_address
from ..fakes.hub import Hub
from ..waiting import eventually
from .client import DOCKERD, Answer, Wire, fetch
from .client import digest_of as digest_of
from .nursery import NO_AUTHORITIES, Forked

PORT, ADMIN_PORT = 5000, 5001
START = 30  # seconds, on a busy machine
END = 40  # seconds: more than a mirror's grace, and less than for ever

_SAMPLE = re.compile(r"registry_mirror_(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")


@dataclass
class Mirror:
    """`mirror serve` in a process of its own, at an address of its own.

    `keys` are those of mirror.yaml beside listen, admin and storage.path. `module` is what is run:
    mirror, or one that changes it first (see quick.py). `wrap` is put before the command, as in
    `prlimit …`.
    """

    folder: Path
    keys: dict[str, Any]
    module: str = "mirror"
    wrap: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    storage: Path = field(init=False)
    address: str = field(init=False, default_factory=loopback_address)
    process: subprocess.Popen[bytes] | Forked | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        storage = {"path": str(self.folder / "storage"), **self.keys.get("storage", {})}
        self.storage = Path(storage["path"])
        self.url = f"http://{self.address}:{PORT}"
        self.admin = f"http://{self.address}:{ADMIN_PORT}"
        self.log = self.folder / "mirror.log"
        self.log.touch()
        self.config = self.folder / "mirror.yaml"
        admin = {"listen": f"{self.address}:{ADMIN_PORT}", **self.keys.get("admin", {})}
        addresses = {"listen": f"{self.address}:{PORT}", "admin": admin}
        # YAML contains JSON.
        self.config.write_text(json.dumps({**self.keys, **addresses, "storage": storage}))
        self._rest: Counter[str] = Counter()
        self._held: dict[str, object] = {}

    # Its life.

    async def start(self) -> Self:
        """Starts it, and waits until `/v2/` answers. Also again, after it was stopped or killed."""
        lives = len(self.events("serving"))
        self.launch()
        await eventually(self._answers, START)
        # The other workers too: what they have open now is what they need at rest.
        workers = self.keys.get("workers", 1)
        await eventually(lambda: len(self.events("serving")) == lives + workers, START)
        self._rest = self.descriptors()
        return self

    def launch(self) -> None:
        """Starts it, and waits for nothing."""
        arguments = ["serve", "--config", str(self.config)]
        env = {**NO_AUTHORITIES, **self.env}
        if not self.wrap:
            self.process = Forked(self.module, arguments, self.log, env)
            return
        argv = [*self.wrap, sys.executable, "-m", self.module, *arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **env},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None, "the mirror was not started"
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """kill -9, with all its workers. Does nothing when it does not run."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()

    def terminate(self) -> None:
        """SIGTERM, and does not wait."""
        os.kill(self.pid, signal.SIGTERM)

    async def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.terminate()
        return await self.ended()

    async def ended(self) -> int:
        """Waits until it has ended; returns the exit status."""
        assert self.process is not None, "the mirror was not started"
        return await asyncio.to_thread(self.process.wait, END)

    async def _answers(self) -> bool:
        assert self.running, f"the mirror has ended:\n{self.words()}"
        try:
            return (await self.ask("/v2/")).status == 200
        except aiohttp.ClientError:
            return False

    async def is_ready(self) -> bool:
        """Whether the admin port says so, of all workers."""
        try:
            answer = await fetch(f"{self.admin}/readyz")
        except aiohttp.ClientError:
            return False
        workers = self.keys.get("workers", 1)
        return answer.status == 200 and json.loads(answer.body).get("workers", 1) == workers

    # What clients do.

    async def ask(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own, as dockerd and podman ask; what it has brought
        has its place in the store then, or will have none. Raises ClientError when there is no head
        of an answer."""
        answer = await fetch(self.url + path, method, headers or DOCKERD)
        _, is_blob, name = path.partition("/blobs/sha256:")
        if is_blob:
            await eventually(lambda: not self._is_being_kept(name[:64]), START)
        return answer

    def _is_being_kept(self, name: str) -> bool:
        """Whether a file of this content is proven and not recorded yet."""
        blob = self.storage / "blobs" / "sha256" / name[:2] / name
        for path in (*self.storage.glob(f"partials/sha256/{name}*"), blob):
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if proof_marks.is_shown(fd):
                        return True
                finally:
                    os.close(fd)
        return False

    async def blob(
        self, digest: str, headers: Mapping[str, str] | None = None, *, name: str = "library/redis"
    ) -> Answer:
        return await self.ask(f"/v2/{name}/blobs/{digest}", headers=headers)

    async def manifest(
        self,
        reference: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        *,
        name: str = "library/redis",
    ) -> Answer:
        return await self.ask(f"/v2/{name}/manifests/{reference}", method, headers)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Wire]:
        """A client's bare connection."""
        reader, writer = await asyncio.open_connection(self.address, PORT)
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    # What an operator sees.

    async def metrics(self) -> str:
        answer = await fetch(f"{self.admin}/metrics")
        assert answer.status == 200
        return answer.body.decode()

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples that carry these labels; the name without registry_mirror_."""
        total = 0.0
        for line in (await self.metrics()).splitlines():
            sample = _SAMPLE.fullmatch(line)
            if sample and sample["name"] == name:
                carried = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"] or ""))
                if labels.items() <= carried.items():
                    total += float(sample["value"])
        return total

    def words(self) -> str:
        """All that it wrote, over all its lives."""
        return self.log.read_text(errors="replace")

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log that tell of this."""
        whole = self.words().rpartition("\n")[0].splitlines()  # the last one may be half written
        lines = (json.loads(line) for line in whole if line.startswith("{"))
        return [line for line in lines if line["event"] == event]

    # What the machine sees.

    def processes(self) -> list[int]:
        """Its process id, and those of its workers."""
        found = [self.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(FileNotFoundError):
                    found += map(int, children.read_text().split())
        return found

    def memory(self) -> int:
        """Bytes that all its processes hold (resident, anonymous)."""
        status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in self.processes())
        return sum(int(kib) << 10 for kib in re.findall(r"RssAnon:\s+(\d+) kB", status))

    def descriptors(self) -> Counter[str]:
        """What its processes hold open, but for its databases, and a bucket, whose connections come
        and go."""
        found: Counter[str] = Counter()
        for pid in self.processes():
            descriptors: list[Path] = []
            with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
                descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
            for descriptor in descriptors:
                with contextlib.suppress(OSError):  # closed meanwhile
                    target = os.readlink(descriptor)
                    kept = re.search(r"\.db(-\w+)?( \(deleted\))?$", target)
                    if not kept and not self._is_of_the_bucket(target):
                        found[re.sub(r":\[\d+\]$", "", target)] += 1
        return found

    def of_threads(self) -> Counter[str]:
        """What threads hold that receive from upstreams: begun with the first large body, they
        stay, no more than a few."""
        threads = min(4, os.cpu_count() or 1) * len(self.processes())
        return Counter({"anon_inode:[eventpoll]": threads, "anon_inode:[eventfd]": threads})

    def _is_of_the_bucket(self, target: str) -> bool:
        """Or may be: what speaks to it keeps connections for a while, and waits for them."""
        has_bucket = "s3" in self.keys.get("storage", {})
        return has_bucket and bool(re.match(r"socket:|anon_inode:\[event", target))

    def partials(self) -> list[Path]:
        return _files(self.storage / "partials")

    def blobs(self) -> list[Path]:
        """Of small content there are `rows`, unless it was pushed."""
        return _files(self.storage / "blobs")

    def rows(self) -> dict[str, bytes]:
        """Small content, by its digests."""
        database = self.storage / "small.db"
        if not database.exists():
            return {}
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            made = db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'small'").fetchall()
            # A process that was killed may have made the file, and nothing in it.
            return dict(db.execute("SELECT digest, data FROM small").fetchall()) if made else {}

    def kept(self) -> dict[str, int]:
        """All visible content: its sizes, by digests."""
        files = {
            f"{path.relative_to(self.storage / 'blobs').parts[0]}:{path.name}": path.stat().st_size
            for path in self.blobs()
        }
        return files | {digest: len(data) for digest, data in self.rows().items()}

    def rotten(self) -> list[str]:
        """Visible content whose bytes are not those of its name."""
        files = [
            path.name
            for path in self.blobs()
            if hashlib.new(path.relative_to(self.storage / "blobs").parts[0], path.read_bytes())
            .hexdigest() != path.name
        ]  # fmt: skip
        rows = [
            digest
            for digest, data in self.rows().items()
            if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest
            and f"sha512:{hashlib.sha512(data).hexdigest()}" != digest
        ]
        return files + rows

    def locks(self) -> list[str]:
        """The locks on partials that its processes hold."""
        holders = {str(pid) for pid in self.processes()}
        rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
        return [" ".join(row) for row in rows if row[1] == "FLOCK" and holders & {row[4]}]

    async def at_rest(self, *, partials: bool = False, seconds: float = 20) -> None:
        """What holds after every fault, as soon as its clients and its upstream are gone: it runs,
        nothing of it went wrong unseen, and it holds nothing that it does not need.

        `partials`: some may be left, to be resumed.
        """
        assert self.running, f"the mirror has ended:\n{self.words()}"
        try:
            await eventually(self._holds_nothing, seconds)
        except AssertionError:
            raise AssertionError(f"after {seconds:g} s it still holds {self._held}") from None
        self.wrote_well()
        assert self.rotten() == []
        assert partials or self.partials() == []

    async def _holds_nothing(self) -> bool:
        reserved = await self.metric("cache_reserved_bytes")
        kept = sum(map(taken, self.partials()))
        held = {
            "descriptors": dict(self.descriptors() - self._rest - self.of_threads()),
            "locks": self.locks(),
            "fills": await self.metric("fills_running"),
            "reserved": reserved - kept,  # a partial that stays keeps its room
        }
        self._held = {what: value for what, value in held.items() if value}
        return not self._held

    def wrote_well(self) -> None:
        """Its log has one JSON object a line, and no traceback in it."""
        for line in self.words().rpartition("\n")[0].splitlines():
            assert "event" in json.loads(line), line
            assert '"exception":' not in line, line
            assert "Traceback" not in line, line


class House:
    """See the module. Use as a context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub = Hub()
        self.hubs = [self.hub]
        self.mirrors: list[Mirror] = []
        self.partials = False  # whether the mirrors may keep some, to be resumed
        self.failed = False

    async def __aenter__(self) -> Self:
        await self.hub.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for hub in self.hubs:  # with it goes what mirrors keep open towards it
                await hub.__aexit__(None, None, None)
            for mirror in self.mirrors:
                if mirror.running and not self.failed:
                    await mirror.at_rest(partials=self.partials)
        finally:
            for mirror in self.mirrors:
                mirror.kill()
                print(mirror.words()[-20_000:])  # shown when the test has failed

    async def another_hub(self, tls: ssl.SSLContext | None = None) -> Hub:
        hub = Hub()
        hub.tls = tls
        self.hubs.append(hub)
        return await hub.__aenter__()

    def prepare(
        self,
        *hubs: Hub | str | dict[str, str],
        quick: bool = False,
        module: str = "mirror",
        wrap: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        docker_io: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> Mirror:
        """A mirror that is not started yet. Its docker.io is `hubs`, in this order, all trusted
        with tags, or the house's hub; `docker_io` adds keys to that registry."""
        endpoints = [_endpoint(hub) for hub in hubs or (self.hub,)]
        registries = {"docker.io": {"endpoints": endpoints, **(docker_io or {})}}
        registries |= keys.pop("registries", {})
        mirror = Mirror(
            self.folder / f"mirror{len(self.mirrors)}",
            {"registries": registries, **keys},
            "tests.faults.quick" if quick else module,
            wrap,
            env or {},
        )
        self.mirrors.append(mirror)
        return mirror

    async def mirror(self, *hubs: Hub | str | dict[str, str], **keys: Any) -> Mirror:
        """As `prepare`, started."""
        return await self.prepare(*hubs, **keys).start()


def _endpoint(hub: Hub | str | dict[str, str]) -> dict[str, str]:
    if isinstance(hub, Hub):
        hub = hub.url
    return {"url": hub, "trust": "tags"} if isinstance(hub, str) else hub


def taken(file: Path) -> int:
    """Bytes that it takes on the disk: whole blocks, none for its holes, nor when it has gone."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return 0
    return -(-min(found.st_size, found.st_blocks * 512) // 4096) * 4096


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]
