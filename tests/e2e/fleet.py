"""Machines with real clients, all of which pull one cold image from a fleet at once.

    python -m tests.e2e.fleet [scene ...]

prints a row for each thing that happens meanwhile (see tests/faults/fleet/scenes.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..faults.fleet.nodes import Fleet
from ..faults.fleet.scenes import AFTER, SCENES, Going, Scene
from .clients import Client, Containerd, Dockerd
from .images import HERE, OCI, build
from .machines import no_hub
from .programs import Programs

_NUMBERS = itertools.count()
REPOSITORY = "library/{}"


@dataclass(frozen=True)
class MachineOf:
    """A client, and where it asks: the front's URL, or a node's."""

    client: Client
    url: str


@contextlib.asynccontextmanager
async def machines(fleet: Fleet, *, at_front: int, at_nodes: int) -> AsyncIterator[list[MachineOf]]:
    """So many dockerds, and as many containerds, that ask the front; so many that ask each of the
    nodes, of either kind in turn."""
    urls = [(kind, fleet.front.url) for kind in (Dockerd, Containerd) for _ in range(at_front)]
    kinds = itertools.cycle((Dockerd, Containerd))
    urls += [(next(kinds), node.url) for node in fleet.nodes for _ in range(at_nodes)]
    with contextlib.ExitStack() as stack:

        def begin(kind: type[Client], url: str, programs: Programs) -> MachineOf:
            return MachineOf(kind(programs, url, "", no_hub()), url)

        folders = [stack.enter_context(Programs()) for _ in urls]
        yield await asyncio.gather(
            *(
                asyncio.to_thread(begin, kind, url, folder)
                for (kind, url), folder in zip(urls, folders, strict=True)
            )
        )


@dataclass(frozen=True)
class Pulled:
    """`failed`: what the clients said that were not those of a harmed node, by their URL.
    `sent`: of this image's content, how many times each was sent; `longest` s the slowest pull
    took."""

    count: int
    failed: Sequence[str]
    sent: dict[str, float]
    seconds: float


async def pulled(
    fleet: Fleet, at: Sequence[MachineOf], scene: Scene, layers: Sequence[int]
) -> Pulled:
    """All of them pull one new image while that happens. What they have then is removed again."""
    repository = REPOSITORY.format(f"app{next(_NUMBERS)}")
    image = await asyncio.to_thread(build, repository, OCI, layers)
    fleet.origin.publish(image, repository)
    blobs = image.blobs_of(HERE)
    largest = max(blobs, key=lambda digest: len(image.blobs[digest]))
    loop = asyncio.get_running_loop()
    began = loop.time()

    name = f"docker.io/{repository}:latest"
    pulls = {asyncio.create_task(asyncio.to_thread(one.client.pull, name)): one for one in at}
    holder = await fleet.holder(largest, int(len(image.blobs[largest]) * AFTER))
    going = Going(fleet, largest, holder)
    async with scene(going):
        others = [task for task, one in pulls.items() if one.url not in going.harmed]
        said = await asyncio.gather(*others, return_exceptions=True)
        seconds = loop.time() - began
    await asyncio.gather(*pulls, return_exceptions=True)
    await fleet.at_rest()
    for task, one in pulls.items():
        if task.exception() is None:
            await asyncio.to_thread(one.client.forget)
    failed = [
        f"{type(pulls[task].client).__name__} at {pulls[task].url}: {words}"
        for task, words in zip(others, said, strict=True)
        if isinstance(words, BaseException)
    ]
    sent = {digest: fleet.origin.sent(digest) for digest in sorted(blobs)}
    return Pulled(len(others), failed, sent, seconds)


async def _main(folder: Path, names: Sequence[str]) -> bool:
    good = True
    async with (
        Fleet(folder, speed=15e6) as fleet,
        machines(fleet, at_front=2, at_nodes=2) as at,
    ):
        for name in names or SCENES:
            saw = await pulled(fleet, at, SCENES[name], [2_000_000, 20_000_000, 40_000_000])
            far = await fleet.far_content()
            whole = f"{saw.count - len(saw.failed)}/{saw.count}"
            sent = " ".join(f"{times:.2f}" for times in saw.sent.values())
            right = f"{sum(far.values())} of {len(far)} right"
            print(f"{name:32} {whole:>8} {saw.seconds:6.1f} s  x {sent}  far {right}", flush=True)
            for words in saw.failed:
                print("    failed:", words[-600:], flush=True)
            good &= not saw.failed and all(far.values())
        good &= fleet.near_content_is_right()
    return good


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="fleet") as its:
        sys.exit(0 if asyncio.run(_main(Path(its), sys.argv[1:])) else 1)
