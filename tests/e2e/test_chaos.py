"""Three registries through one port, pulled by real clients while endpoints are killed, revived and
made to lie at random: every pull succeeds.

`CHAOS_SECONDS=600 pytest tests/e2e/test_chaos.py` goes on for longer; `CHAOS_SEED=…`, as a failed
run prints it, begins the same way again (what the processes make of it is not repeated).

Of each registry one endpoint trusted with tags is well at any time. Nothing that a client could go
to beside the mirror is there: where it gives the mirror up, its pull fails.

A registry's own blob that is given out while it comes may turn out wrong when a client has most of
it. dockerd asks for it again, containerd does not: so the own endpoints of the registries that
containerd asks tell no lies about such blobs. Those of others, which nobody vouches for, do.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import math
import os
import random
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from mirror.pullthrough.fills.fill import SMALL

from .clients import Containerd, Dockerd
from .conftest import MB
from .images import DOCKER, OCI, Image, build
from .machines import Hosts, no_hub
from .mirror import Mirror
from .moods import Endpoint, Registry
from .programs import Programs, loopback_address, needs, run

SECONDS = float(os.environ.get("CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("CHAOS_SEED", str(random.randrange(1 << 32))))

REPOSITORIES = 5
AT_ONCE = 2  # pulls by one client

# Less than half of what the images take: what was evicted is fetched again.
ROOM = "24MiB"


@dataclass(frozen=True)
class Published:
    """How an image is called, without its registry, and the digest that it has."""

    name: str
    digest: str


@dataclass(frozen=True)
class Shelf:
    """Images that these registries carry. Their layers are few, their manifests ever new."""

    owner: str
    registries: Sequence[Registry]
    chance: random.Random
    images: dict[str, Image] = field(default_factory=dict)  # by repository
    published: list[Published] = field(default_factory=list)

    def fill(self) -> None:
        for number in range(REPOSITORIES):
            sizes = [self.chance.randrange(most) for most in (MB // 10, MB, 3 * MB, 6 * MB)]
            repository = f"{self.owner}/app-{number}"
            kind = self.chance.choice((OCI, DOCKER))
            self.images[repository] = build(repository, kind, sizes)

    def some_image(self) -> Published:
        """Mostly one that nobody has asked for so far."""
        if self.published and self.chance.random() < 0.3:
            return self.chance.choice(self.published[-40:])
        repository = self.chance.choice([*self.images])
        tag = f"v{len(self.published)}"
        image = with_other_manifests(self.images[repository], tag)
        for registry in self.registries:
            registry.publish(image, repository, tag)
        reference = f"@{image.digest}" if self.chance.random() < 0.2 else f":{tag}"
        self.published.append(Published(repository + reference, image.digest))
        return self.published[-1]


def with_other_manifests(image: Image, word: str) -> Image:
    """The same layers and configs, by manifests that hold this word."""
    manifests: dict[str, bytes] = {}
    other: dict[str, str] = {}
    for digest, data in image.manifests.items():  # the index is the last
        document = json.loads(data) | {"annotations": {"word": word}}
        for platform in document.get("manifests", ()):
            platform["digest"] = other[platform["digest"]]
            platform["size"] = len(manifests[platform["digest"]])
        changed = json.dumps(document).encode()
        other[digest] = f"sha256:{hashlib.sha256(changed).hexdigest()}"
        manifests[other[digest]] = changed
    return replace(
        image,
        digest=other[image.digest],
        manifests=manifests,
        manifest_of={name: other[digest] for name, digest in image.manifest_of.items()},
    )


class DockerdThatLists(Dockerd):
    def listing(self) -> str:
        """What it has, with digests."""
        return self.command(*self._docker("images", "--digests"))


class ContainerdOfMany(Containerd):
    """One for which this mirror has these registries; they themselves are out of its reach."""

    def __init__(self, programs: Programs, mirror: str, suite: str, hosts: Hosts) -> None:
        super().__init__(programs, mirror, suite, hosts)
        for name in ("ghcr.io", "quay.io"):
            folder = programs.folder / "hosts.d" / name
            folder.mkdir(exist_ok=True)
            (folder / "hosts.toml").write_text(
                f'server = "http://{loopback_address()}"\n'
                f'[host."{mirror}"]\n  capabilities = ["pull", "resolve"]\n'
            )

    def listing(self) -> str:
        return self.command(*self._ctr, "images", "list")


class Pulls:
    """A client that pulls, looks at what it got, and forgets it, again and again."""

    def __init__(self, client: DockerdThatLists | ContainerdOfMany, shelf: Shelf) -> None:
        self.client = client
        self.shelf = shelf
        self.done: Counter[str] = Counter()
        self._turns = itertools.cycle(shelf.registries)

    async def run(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            chosen = [(next(self._turns), self.shelf.some_image()) for _ in range(AT_ONCE)]
            results = await asyncio.gather(
                *(self._pull(*one) for one in set(chosen)), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            listing = await asyncio.to_thread(self.client.listing)
            for registry, image in chosen:
                assert image.digest in listing, f"{image} is not what was pulled:\n{listing}"
                self.done[registry.name] += 1
            await asyncio.to_thread(self.client.forget)

    async def _pull(self, registry: Registry, image: Published) -> None:
        began = asyncio.get_running_loop().time()
        try:
            await asyncio.to_thread(self.client.pull, f"{registry.name}/{image.name}")
        except Exception as error:
            strikes = (
                f"{at - began:8.2f} s: {url} {what}" for at, url, what in registry.strikes[-20:]
            )
            raise AssertionError("\n".join((str(error), *strikes))) from None


async def test_every_pull_succeeds_while_endpoints_come_and_go(programs: Programs) -> None:
    needs("busybox", *Dockerd.programs, *Containerd.programs)
    print(f"CHAOS_SEED={SEED}")
    chance = random.Random(SEED)
    async with AsyncExitStack() as stack:

        async def endpoints(count: int, honest_from: float = math.inf) -> list[Endpoint]:
            made = (Endpoint(chance, honest_from) for _ in range(count))
            return [await stack.enter_async_context(endpoint) for endpoint in made]

        docker_io = Registry("docker.io", await endpoints(2), await endpoints(1))
        ghcr_io = Registry("ghcr.io", await endpoints(3, SMALL), [])
        quay_io = Registry("quay.io", await endpoints(1, SMALL), await endpoints(2))
        registries = (docker_io, ghcr_io, quay_io)
        shelves = Shelf("library", [docker_io], chance), Shelf("acme", [ghcr_io, quay_io], chance)
        for shelf in shelves:
            shelf.fill()
        mirror = Mirror(
            programs,
            {},
            registries={each.name: each.configuration() for each in registries},
            storage={"path": str(programs.folder / "storage"), "max_size": ROOM},
        )
        await asyncio.to_thread(mirror.start)
        dockerd = await asyncio.to_thread(DockerdThatLists, programs, mirror.url, "", no_hub())
        containerd = await asyncio.to_thread(ContainerdOfMany, programs, mirror.url, "", no_hub())
        pulls = [Pulls(dockerd, shelves[0]), Pulls(containerd, shelves[1])]

        chaos = [asyncio.create_task(registry.suffer(chance)) for registry in registries]
        try:
            await asyncio.gather(*(each.run(SECONDS) for each in pulls))
        finally:
            for task in chaos:
                task.cancel()
            ends = await asyncio.gather(*chaos, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
            moods = Counter(what for each in registries for _, _, what in each.strikes)
            print([dict(each.done) for each in pulls], dict(moods))
        assert {name for each in pulls for name in each.done} == {each.name for each in registries}
        for registry in registries:
            for endpoint in registry.others:  # its word on a tag is nothing to go by
                assert not endpoint.count("registry", path="/manifests/v")
        assert await asyncio.to_thread(mirror.stop) == 0

    for line in mirror.words().splitlines():
        assert '"exception":' not in line, line
        assert "event" in json.loads(line), line
    done = run(
        sys.executable, "-m", "mirror", "verify", "--config", programs.folder / "mirror.yaml"
    ).stdout
    assert ", 0 damaged" in done
