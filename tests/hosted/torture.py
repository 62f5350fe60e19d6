"""Many clients push, mount, delete and pull at random, collections run all the time, processes are
killed: no image whose push was answered with 201, and that nobody deleted, ever lacks a byte.

    SECONDS=300 SEED=7 WORKERS=2 RECORDS=postgresql python -m tests.hosted.torture
    SECONDS=300 NODES=3 python -m tests.hosted.torture

With NODES there are so many mirrors, with their records in PostgreSQL and their content in S3: each
request goes to any of them.

Without SEED one is chosen, and printed: with it the clients begin the same way again (what the
processes make of it is not repeated). Grace is seconds instead of a day, so that collections find
something, and pushes are caught between a HEAD and the manifest that relies on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import stat
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from mirror.oci.digest import Digest

from ..faults.house import House, Mirror
from ..postgres import running as postgresql
from ..redis_server import RedisServer
from ..seaweed import seaweed_running
from ..waiting import eventually
from .nodes import LOGIN, PORT, Engines, HostedNodes, hosted_nodes, hosting

REPOSITORIES = ("team/app", "team/base", "team/tools/build", "other/app")
TAGS = ("latest", "1", "2", "nightly")
CLIENTS = 8
_SLOW = "tests.hosted.slow_removal"

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True)
class Image:
    """`blobs` by their digests; `children` are pushed before it."""

    data: bytes
    media_type: str
    blobs: Mapping[str, bytes]
    children: Sequence[Image] = ()

    @property
    def digest(self) -> str:
        return str(Digest.of(self.data))


@dataclass
class Pushed:
    """What is known of one manifest of one repository. `deletes`: how many were ever begun;
    `deleting`: how many are on their way."""

    image: Image
    is_sure: bool = False
    deletes: int = 0
    deleting: int = 0


class Lost(AssertionError):
    pass


@dataclass
class Plan:
    seconds: float
    seed: int
    workers: int = 1
    records: str = "embedded"
    nodes: int = 1
    grace: float = 2.0
    kill_every: tuple[float, float] = (4.0, 12.0)


@dataclass
class Torture:
    """`far`: where the mirrors keep content for one another."""

    mirrors: Sequence[Mirror]
    plan: Plan
    far: HostedNodes | None = None
    chance: random.Random = field(init=False)
    images: list[Image] = field(init=False)
    rare: list[Image] = field(init=False)
    """Share nothing, and are pushed again long after they were collected, or just then."""
    known: dict[tuple[str, str], Pushed] = field(init=False, default_factory=dict)
    blob_deletes: Counter[tuple[str, str]] = field(init=False, default_factory=Counter)
    blobs_deleting: Counter[tuple[str, str]] = field(init=False, default_factory=Counter)
    done: Counter[str] = field(init=False, default_factory=Counter)
    disturbed: list[tuple[float, float]] = field(init=False, default_factory=list)
    """When processes were down, or had just been: from, to."""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.plan.seed)
        self.images = pool(self.chance)
        self.rare = [
            _image(self.chance, [self.chance.randbytes(self.chance.randint(1, 9_000))])
            for _ in range(200 if self.far is None else 12)  # else hardly two meet
        ]

    # What is true.

    def url(self, chance: random.Random) -> str:
        """Of any node."""
        return f"http://{chance.choice(self.mirrors).address}:{PORT}"

    def at(self, repository: str, image: Image) -> Pushed:
        return self.known.setdefault((repository, image.digest), Pushed(image))

    def was_disturbed(self, since: float) -> bool:
        now = self.now()
        return any(start <= now and end >= since for start, end in self.disturbed)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def sure(self) -> list[tuple[str, Pushed]]:
        known = self.known.items()
        return [(name, one) for (name, _), one in known if one.is_sure and not one.deleting]

    # Clients.

    async def run(self) -> None:
        """Raises Lost as soon as anything is."""
        stop = self.now() + self.plan.seconds
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                client = Client(self, random.Random(f"{self.plan.seed} {number}"))
                group.create_task(client.run(stop))
            group.create_task(self.kill(stop))
            if self.far is not None:
                group.create_task(self.evict(stop))

    async def evict(self, stop: float) -> None:
        """What is on the nodes' disks hides nothing that is lost in the object store."""
        while self.now() < stop:
            await asyncio.sleep(0.5)
            self.forget()

    def forget(self) -> None:
        for mirror in self.mirrors:
            for path in mirror.blobs():
                with contextlib.suppress(FileNotFoundError):
                    if not path.stat().st_mode & stat.S_ISVTX:  # that it is held
                        path.unlink()
                        self.done["evicted"] += 1

    async def kill(self, stop: float) -> None:
        """kill -9, of all processes or of one worker, and a restart."""
        chance = random.Random(f"{self.plan.seed} kills")
        while True:
            pause = chance.uniform(*self.plan.kill_every)
            if self.now() + pause > stop:
                return
            await asyncio.sleep(pause)
            began = self.now()
            self.disturbed.append((began, began + 3600))
            mirror = chance.choice(self.mirrors)
            if self.far is not None and chance.random() < 0.35:
                await self.freeze_far(chance)
            elif self.plan.workers > 1 and chance.random() < 0.5:
                await self.kill_worker(mirror, chance)
            else:
                mirror.kill()
                await asyncio.sleep(chance.choice((0.0, 2.0)) if self.plan.nodes > 1 else 0.0)
                await mirror.start()
                self.done["kills"] += 1
            await eventually(lambda: self.answers(mirror), 60)  # noqa: B023 - it is awaited
            self.disturbed[-1] = (began, self.now() + 1.0)

    async def freeze_far(self, chance: random.Random) -> None:
        """What was sent to the object store meanwhile comes to it later, in whatever order."""
        assert self.far is not None
        seaweed = self.far.engines.seaweed
        seaweed.pause()
        try:
            await asyncio.sleep(chance.uniform(1.0, 6.0))
        finally:
            seaweed.resume()
        self.done["freezes"] += 1

    async def kill_worker(self, mirror: Mirror, chance: random.Random) -> None:
        def lives() -> int:
            return len(mirror.events("serving"))

        started = {one["worker"]: one["pid"] for one in mirror.events("worker_started")}
        before = lives()
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice([*started.values()]), signal.SIGKILL)
        await eventually(lambda: lives() > before, 60)
        self.done["workers killed"] += 1

    async def answers(self, mirror: Mirror) -> bool:
        async with aiohttp.ClientSession(headers=LOGIN) as session:
            try:
                async with session.get(f"http://{mirror.address}:{PORT}/v2/") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

    # The end.

    async def verify(self) -> None:
        """Each image of which 201 was said, and that nobody deleted, is whole."""
        client = Client(self, self.chance)
        if self.far is not None:
            self.forget()
        async with client.session():
            for repository, one in self.sure():
                await client.pull(repository, one)
        assert [path for mirror in self.mirrors for path in mirror.rotten()] == []

    async def empty(self) -> None:
        """Everything is deleted, and collections bring the store back to nothing."""
        client = Client(self, self.chance)
        async with client.session():
            for (repository, _), one in self.known.items():
                await client.delete_manifest(repository, one)
        await eventually(lambda: not self.left(), self.plan.grace * 4 + 60 * self.plan.nodes)

    def left(self) -> Sequence[object]:
        if self.far is not None:  # what is on the nodes' disks are copies
            return [*self.far.objects()]
        return [path for mirror in self.mirrors for path in mirror.blobs()]


@dataclass
class Client:
    torture: Torture
    chance: random.Random
    http: aiohttp.ClientSession = field(init=False)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(
            headers=LOGIN, timeout=aiohttp.ClientTimeout(total=60)
        ) as self.http:
            # aiohttp sends a PUT again whose connection broke: of an upload whose process was
            # killed after it had taken the bytes, they would come twice.
            self.http._retry_connection = False
            yield

    async def run(self, stop: float) -> None:
        actions = {
            self.push: 60,
            self.pull_one: 40,
            self.delete_some_manifest: 30,
            self.delete_tag: 6,
            self.delete_blob: 8,
            self.retag: 8,
            self.leave_blobs: 6,
        }
        async with self.session():
            while self.torture.now() < stop:
                action = self.chance.choices([*actions], [*actions.values()])[0]
                began = self.torture.now()
                try:
                    await action()
                except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                    if not self.torture.was_disturbed(began):
                        raise Lost(
                            f"{action.__name__}: {error!r}, and nothing was killed"
                        ) from error
                    await asyncio.sleep(0.2)

    async def ask(
        self,
        method: str,
        path: str,
        *expected: int,
        body: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One of these statuses, or an error of a mirror that is going down or coming up."""
        began = self.torture.now()
        url = self.torture.url(self.chance) + (path if path.startswith("/") else f"/v2/{path}")
        async with self.http.request(method, url, data=body, headers=headers) as answer:
            data = await answer.read()
        if answer.status in expected:
            return answer.status, answer.headers, data
        # The session of a node that was killed is gone with it as long as it is away.
        is_gone = answer.status == 404 and b"BLOB_UPLOAD_UNKNOWN" in data
        if (answer.status >= 500 or is_gone) and self.torture.was_disturbed(began):
            raise ConnectionError(f"{answer.status}, while the mirror restarts")
        raise Lost(f"{method} {path}: {answer.status} {data[:500]!r}, not {expected}")

    # Pushes.

    async def push(self) -> None:
        repository = self.chance.choice(REPOSITORIES)
        image = self.chance.choice(self.torture.images)
        if self.chance.random() < 0.5:
            image = self.chance.choice(self.torture.rare)
        for child in image.children:
            if not await self.push_image(repository, child, child.digest):
                return
        reference = self.chance.choice((image.digest, *TAGS))
        await self.push_image(repository, image, reference)

    async def push_image(self, repository: str, image: Image, reference: str) -> bool:
        began, torture = self.torture.now(), self.torture
        deletes = self._blob_deletes(repository, image)
        for digest, data in image.blobs.items():
            await self.push_blob(repository, digest, data)
        if self.chance.random() < 0.1:
            await asyncio.sleep(self.chance.uniform(0, torture.plan.grace / 2))
        status, words = await self.put(repository, image, reference)
        if status == 201:
            torture.done["pushes"] += 1
            return True
        # What it relied on is gone: right only if it was slow, or somebody deleted it.
        took = torture.now() - began
        is_deleted = deletes != self._blob_deletes(repository, image) or any(
            torture.blobs_deleting[repository, digest] for digest in image.blobs
        )
        child_deleted = bool(image.children)
        is_excused = is_deleted or child_deleted or torture.was_disturbed(began)
        if took < torture.plan.grace * 0.9 and not is_excused:
            raise Lost(f"a push of {took:.1f} s to {repository} lost a blob: {status} {words!r}")
        torture.done["pushes refused"] += 1
        return False

    def _blob_deletes(self, repository: str, image: Image) -> int:
        return sum(self.torture.blob_deletes[repository, digest] for digest in image.blobs)

    async def put(self, repository: str, image: Image, reference: str) -> tuple[int, bytes]:
        known = self.torture.at(repository, image)
        deletes = known.deletes
        status, headers, words = await self.ask(
            "PUT",
            f"{repository}/manifests/{reference}",
            201,
            400,
            404,
            body=image.data,
            headers={"Content-Type": image.media_type},
        )
        if status == 201:
            if headers.get("Docker-Content-Digest") not in (None, image.digest):
                raise Lost(f"201 of another digest: {headers}")
            if known.deletes == deletes:
                known.is_sure = True
        return status, words

    async def push_blob(self, repository: str, digest: str, data: bytes) -> None:
        if self.chance.random() < 0.6:
            status, _, _ = await self.ask("HEAD", f"{repository}/blobs/{digest}", 200, 404)
            if status == 200:
                self.torture.done["blobs skipped"] += 1
                return
        way = self.chance.choice((self.whole, self.in_one, self.chunks, self.stream, self.mount))
        await way(repository, digest, data)
        self.torture.done[f"blobs, {way.__name__}"] += 1

    async def begin(self, repository: str, query: str = "") -> str:
        _, headers, _ = await self.ask("POST", f"{repository}/blobs/uploads/{query}", 202)
        return self.location(headers)

    def location(self, headers: Mapping[str, str]) -> str:
        """It is relative: any node may be asked."""
        return headers["Location"]

    async def finish(self, location: str, digest: str, data: bytes = b"") -> None:
        sign = "&" if "?" in location else "?"
        status, _, _ = await self.ask(
            "PUT", f"{location}{sign}digest={digest}", 201, 404, body=data,
            headers={"Content-Type": "application/octet-stream"},
        )  # fmt: skip
        if status == 404:
            raise ConnectionError("the session is gone with the process that was killed")

    async def whole(self, repository: str, digest: str, data: bytes) -> None:
        await self.finish(await self.begin(repository), digest, data)

    async def in_one(self, repository: str, digest: str, data: bytes) -> None:
        path = f"{repository}/blobs/uploads/?digest={digest}"
        status, headers, _ = await self.ask(
            "POST", path, 201, 202, body=data, headers={"Content-Type": "application/octet-stream"}
        )
        if status == 202:
            await self.finish(self.location(headers), digest, data)

    async def chunks(self, repository: str, digest: str, data: bytes) -> None:
        location = await self.begin(repository)
        at = 0
        while at < len(data):
            stop = min(len(data), at + self.chance.randint(1, len(data)))
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{at}-{stop - 1}",
            }
            _, answered, _ = await self.ask(
                "PATCH", location, 202, body=data[at:stop], headers=headers
            )
            location, at = self.location(answered), stop
        await self.finish(location, digest)

    async def stream(self, repository: str, digest: str, data: bytes) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(data), 50_000):
                yield data[at : at + 50_000]

        location = await self.begin(repository)
        _, answered, _ = await self.ask("PATCH", location, 202, body=pieces())
        await self.finish(self.location(answered), digest)

    async def mount(self, repository: str, digest: str, data: bytes) -> None:
        query = f"?mount={digest}"
        if self.chance.random() < 0.8:
            query += f"&from={self.chance.choice(REPOSITORIES)}"
        path = f"{repository}/blobs/uploads/{query}"
        status, headers, _ = await self.ask("POST", path, 201, 202)
        if status == 202:
            await self.finish(self.location(headers), digest, data)
        else:
            self.torture.done["mounted"] += 1

    async def leave_blobs(self) -> None:
        """Of pushes that end before their manifest, or before a blob's end."""
        repository = self.chance.choice((*REPOSITORIES, f"team/left{self.chance.randrange(5)}"))
        image = self.chance.choice(self.torture.images)
        for digest, data in image.blobs.items():
            await self.push_blob(repository, digest, data)
        location = await self.begin(repository)
        if self.chance.random() < 0.5:
            await self.ask("PATCH", location, 202, 404, body=b"some")
        if self.chance.random() < 0.8:
            await self.ask("DELETE", location, 204, 202, 404)

    async def retag(self) -> None:
        sure = self.torture.sure()
        if sure:
            repository, one = self.chance.choice(sure)
            await self.push_image_again(repository, one)

    async def push_image_again(self, repository: str, one: Pushed) -> None:
        deletes = one.deletes
        status, words = await self.put(repository, one.image, self.chance.choice(TAGS))
        children = any(self.torture.at(repository, each).deletes for each in one.image.children)
        if status != 201 and one.deletes == deletes and one.is_sure and not children:
            raise Lost(f"{repository}@{one.image.digest} is here and takes no tag: {words!r}")
        self.torture.done["tags moved"] += 1

    # Deletes.

    async def delete_some_manifest(self) -> None:
        known = [*self.torture.known.items()]
        if known:
            (repository, _), one = self.chance.choice(known)
            await self.delete_manifest(repository, one)

    async def delete_manifest(self, repository: str, one: Pushed) -> None:
        one.deletes += 1
        one.deleting += 1
        one.is_sure = False
        try:
            await self.ask("DELETE", f"{repository}/manifests/{one.image.digest}", 202, 404)
        finally:
            one.deletes += 1  # a PUT that began meanwhile may have been before it, or after
            one.deleting -= 1
            one.is_sure = False
        self.torture.done["manifests deleted"] += 1

    async def delete_tag(self) -> None:
        path = f"{self.chance.choice(REPOSITORIES)}/manifests/{self.chance.choice(TAGS)}"
        await self.ask("DELETE", path, 202, 404)
        self.torture.done["tags deleted"] += 1

    async def delete_blob(self) -> None:
        """Refused where a manifest needs it."""
        repository = self.chance.choice(REPOSITORIES)
        digest = self.chance.choice([*self.chance.choice(self.torture.images).blobs, ""])
        if digest:
            self.torture.blob_deletes[repository, digest] += 1
            self.torture.blobs_deleting[repository, digest] += 1
            try:
                await self.ask("DELETE", f"{repository}/blobs/{digest}", 202, 404, 405)
            finally:
                self.torture.blobs_deleting[repository, digest] -= 1
                self.torture.blob_deletes[repository, digest] += 1
            self.torture.done["blobs deleted"] += 1

    # Pulls.

    async def pull_one(self) -> None:
        sure = self.torture.sure()
        if sure:
            await self.pull(*self.chance.choice(sure))

    async def pull(self, repository: str, one: Pushed) -> None:
        deletes, image = one.deletes, one.image
        wanted = [(f"manifests/{image.digest}", image.data)]
        wanted += [(f"blobs/{digest}", data) for digest, data in image.blobs.items()]
        for path, data in wanted:
            status, _, found = await self.ask("GET", f"{repository}/{path}", 200, 404)
            if one.deletes != deletes:
                return
            if status != 200 or found != data:
                raise Lost(f"{repository}/{path}: {status}, {len(found)} of {len(data)} bytes")
        self.torture.done["pulls"] += 1


def pool(chance: random.Random) -> list[Image]:
    """Images that share blobs; some are an index, or refer to another one."""
    sizes = [0, 1, 100, 5_000, 70_000, 300_000, 3_000_000]
    blobs = [chance.randbytes(chance.choice(sizes)) for _ in range(24)]
    images = [_image(chance, chance.sample(blobs, chance.randint(0, 4))) for _ in range(24)]
    indexes = [_index(chance.sample(images, 2)) for _ in range(4)]
    referrers = [_image(chance, chance.sample(blobs, 1), subject) for subject in images[:4]]
    return [*images, *indexes, *referrers]


def _image(chance: random.Random, layers: Iterable[bytes], subject: Image | None = None) -> Image:
    config = json.dumps({"os": "linux", "architecture": "amd64", "n": chance.random()}).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor(config, CONFIG),
        "layers": [_descriptor(layer, LAYER, chance) for layer in layers],
    }
    if subject is not None:
        document["subject"] = _descriptor(subject.data, subject.media_type)
    blobs = {str(Digest.of(config)): config}
    blobs |= {
        str(each["digest"]): layer
        for each, layer in zip(document["layers"], layers, strict=True)  # type: ignore[call-overload]
    }
    return Image(json.dumps(document).encode(), OCI_MANIFEST, blobs)


def _index(children: Sequence[Image]) -> Image:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [_descriptor(child.data, child.media_type) for child in children],
    }
    return Image(json.dumps(document).encode(), OCI_INDEX, {}, children)


def _descriptor(
    data: bytes, media_type: str, chance: random.Random | None = None
) -> dict[str, object]:
    algorithm = "sha512" if chance is not None and chance.random() < 0.1 else "sha256"
    digest = str(Digest.of(data, algorithm))
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


# A run.


async def torture(folder: Path, plan: Plan) -> Torture:
    """Raises where anything was lost, is left over, or was answered as it must not be."""
    print(f"seed {plan.seed}", flush=True)
    collections = {"every": "1s", "grace": f"{plan.grace:g}s"}
    async with contextlib.AsyncExitStack() as stack:
        house = await stack.enter_async_context(House(folder))
        if plan.nodes > 1:
            engines = stack.enter_context(_engines(folder))
            nodes = await stack.enter_async_context(
                hosted_nodes(house, engines, collections, plan.nodes, plan.workers, _SLOW)
            )
            return await _tortured(Torture(nodes.mirrors, plan, nodes), house)
        records = "embedded"
        if plan.records == "postgresql":
            server = stack.enter_context(postgresql())
            records = server.url(server.make())
        mirror = await hosting(house, collections, plan.workers, records)
        return await _tortured(Torture([mirror], plan), house)


@contextlib.contextmanager
def _engines(folder: Path) -> Iterator[Engines]:
    with (
        postgresql() as postgres,
        seaweed_running() as seaweed,
        RedisServer(folder / "redis") as redis,
    ):
        redis.start()
        yield Engines(postgres, seaweed, redis)


async def _tortured(found: Torture, house: House) -> Torture:
    try:
        await found.run()
        await found.verify()
        await found.empty()
    except BaseException:
        house.failed = True
        raise
    finally:
        waits = [mirror.events("push_waits_for_removal") for mirror in found.mirrors]
        found.done["pushes that waited for a removal"] = sum(map(len, waits))
        print(dict(found.done), flush=True)
    for mirror in found.mirrors:
        told = ["hosted_content_missing", "hosted_content_lost"]
        if not found.done["freezes"]:
            told.append("collection_failed")
        for event in told:
            assert not mirror.events(event), mirror.events(event)[:3]
        mirror.wrote_well()
        await mirror.stop()
    return found


def main() -> None:
    seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
    plan = Plan(
        float(os.environ.get("SECONDS", "300")),
        seed,
        int(os.environ.get("WORKERS", "1")),
        os.environ.get("RECORDS", "embedded"),
        int(os.environ.get("NODES", "1")),
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            asyncio.run(torture(Path(folder), plan))
        except BaseException:
            if keep := os.environ.get("KEEP"):
                shutil.copytree(folder, keep, ignore=shutil.ignore_patterns("*.sock"))
            raise


if __name__ == "__main__":
    main()
