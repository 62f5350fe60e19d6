"""Many clients pull many blobs through a fleet, while nodes, Redis and the object store are killed,
held still and cut off at random: no byte is wrong, no pull fails, and in the end all is far.

    SECONDS=300 SEED=7 WORKERS=2 python -m tests.faults.fleet.torture

Without SEED one is chosen, and printed: with it the same is done again at the same times (what the
processes make of it is not repeated).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from ...waiting import eventually
from ..bodies import MIB
from .lines import Line
from .nodes import Fleet, Node
from .pulls import Pull, pull

CLIENTS = 6
TRIES = 12  # a client that is told nothing tries for longer than all is down
SLACK = 0.1  # of a blob's bytes: what was in buffers when connections were given up


@dataclass
class Blob:
    """`harms`: nodes that were killed or held still before it was far. `everyone`: Redis was, or a
    line, so that each node may have fetched for itself."""

    digest: str
    size: int
    tag: str
    harms: int = 0
    everyone: bool = False
    pulled: int = 0


@dataclass
class Torture:
    fleet: Fleet
    seconds: float
    chance: random.Random
    blobs: list[Blob] = field(default_factory=list)
    going: Counter[str] = field(default_factory=Counter)
    """Digests of which a pull runs."""
    done: Counter[str] = field(default_factory=Counter)
    pulls: list[Pull] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    """What is harmed now: node, redis, far, lines."""
    far: set[str] = field(default_factory=set)
    """Digests that the object store had when it was asked last."""

    async def run(self) -> None:
        end = asyncio.get_running_loop().time() + self.seconds
        chaos = [asyncio.create_task(self._chaos(end)) for _ in range(2)]
        await asyncio.gather(*(self._client(end, number) for number in range(CLIENTS)))
        await asyncio.gather(*chaos)

    # Clients.

    async def _client(self, end: float, number: int) -> None:
        chance = random.Random(self.chance.random())
        while asyncio.get_running_loop().time() < end:
            blob = self._some(chance)
            self.going[blob.digest] += 1
            for name in self.broken:
                _suffers(blob, name)
            try:
                pulled = await pull(self.fleet.front.url, blob.digest, tries=TRIES)
            finally:
                self.going[blob.digest] -= 1
            self.done["pulls"] += 1
            self.done["cuts"] += len(pulled.cuts)
            assert not pulled.wrong, f"WRONG BYTES: {pulled}"
            assert pulled.whole, f"failed: {pulled}, while {self.broken} was broken"
            blob.pulled += 1
            self.pulls.append(pulled)

    def _some(self, chance: random.Random) -> Blob:
        if self.blobs and chance.random() < 0.6:
            return chance.choice(self.blobs[-8:] if chance.random() < 0.7 else self.blobs)
        number = len(self.blobs)
        size = chance.choice([1, 2000, 70_000, MIB // 2, 3 * MIB, 9 * MIB, 24 * MIB])
        digest = self.fleet.origin.blob(size, f"{chance.random()}", f"v{number}")
        self.blobs.append(Blob(digest, size, f"v{number}"))
        return self.blobs[-1]

    # What goes wrong.

    async def _chaos(self, end: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < end - 5:
            await asyncio.sleep(self.chance.uniform(0.5, 3))
            name, harm = self._some_harm()
            if name in self.broken:
                continue
            self.broken.add(name)
            await self._note(name)
            self.done[name.rstrip("0123456789")] += 1
            try:
                async with harm():
                    await asyncio.sleep(self.chance.uniform(0.2, 5))
            finally:
                await self._note(name)
                self.broken.discard(name)

    async def _note(self, name: str) -> None:
        """This happens to what is pulled now, and to what is only on the disks of nodes."""
        with contextlib.suppress(Exception):  # the store is the one that is harmed
            async with asyncio.timeout(1):
                self.far = await self.fleet.far_names()
        for blob in self.blobs:
            if self.going[blob.digest] or blob.digest not in self.far:
                _suffers(blob, name)

    def _some_harm(self) -> tuple[str, Callable[[], AbstractAsyncContextManager[None]]]:
        fleet, chance = self.fleet, self.chance
        node = chance.choice(fleet.nodes)
        number = fleet.nodes.index(node)
        kind = chance.choice(["kill", "kill", "freeze", "freeze", "redis", "far", "line"])
        if kind in ("kill", "freeze"):
            # One at a time: the front has somebody to go to.
            return "node", lambda: (_killed if kind == "kill" else _frozen)(node)
        if kind == "line":
            line = chance.choice([node.peers, node.redis, node.far])
            return f"line{number}", lambda: _cut(line)
        return kind, self._redis if kind == "redis" else self._far

    @contextlib.asynccontextmanager
    async def _redis(self) -> AsyncIterator[None]:
        if self.chance.random() < 0.5:
            self.fleet.redis.pause()
            yield
            self.fleet.redis.resume()
        else:
            self.fleet.redis.kill()
            yield
            self.fleet.redis.start()

    @contextlib.asynccontextmanager
    async def _far(self) -> AsyncIterator[None]:
        far = self.fleet.far
        assert far is not None
        if self.chance.random() < 0.5:
            far.pause()
            yield
            far.resume()
        else:
            far.kill()
            yield
            await asyncio.to_thread(far.start)

    # What must hold.

    async def verify(self) -> None:
        over = []
        for blob in self.blobs:
            sent = self.fleet.origin.sent(blob.digest)
            bound = max(1 + blob.harms, len(self.fleet.nodes) if blob.everyone else 0)
            if blob.size >= MIB and sent > bound + SLACK:
                over.append(f"{blob}: {sent:.2f} x")
        assert not over, "\n".join(over)
        proven = {blob.digest for blob in self.blobs if blob.pulled}

        async def missing() -> bool:
            self.lacking = proven - (await self.fleet.far_content()).keys()
            return not self.lacking

        try:
            await eventually(missing, 180)
        except AssertionError:
            raise AssertionError(f"not far: {len(self.lacking)}: {self.lacking}") from None
        assert all((await self.fleet.far_content()).values()), "WRONG in the object store"
        assert self.fleet.near_content_is_right(), "WRONG on a node's disk"

    def told(self) -> str:
        once = [blob for blob in self.blobs if blob.size >= MIB and not blob.harms]
        sent = [self.fleet.origin.sent(blob.digest) for blob in once]
        gaps = sorted(max(each.gap, each.first) for each in self.pulls)
        return (
            f"{dict(self.done)}; {len(self.blobs)} blobs; gap p50 {gaps[len(gaps) // 2]:.2f} "
            f"p99 {gaps[len(gaps) * 99 // 100]:.2f} s; of {len(once)} large ones that nothing "
            f"happened to {sum(sent) / max(1, len(sent)):.3f} x was sent"
        )


def _suffers(blob: Blob, name: str) -> None:
    blob.harms += name == "node"
    blob.everyone |= name == "redis" or name.startswith("line")


@contextlib.asynccontextmanager
async def _killed(node: Node) -> AsyncIterator[None]:
    node.kill()
    yield
    await node.start()


@contextlib.asynccontextmanager
async def _frozen(node: Node) -> AsyncIterator[None]:
    node.freeze()
    try:
        yield
    finally:
        node.thaw()


@contextlib.asynccontextmanager
async def _cut(line: Line) -> AsyncIterator[None]:
    line.silence()
    yield
    line.mend()


async def torture(folder: Path, seconds: float, seed: int, workers: int) -> None:
    print(f"seed {seed}", flush=True)
    async with Fleet(folder, workers=workers, speed=40e6) as fleet:
        run = Torture(fleet, seconds, random.Random(seed))
        try:
            await run.run()
            await fleet.at_rest()
            await run.verify()
            for node in fleet.nodes:
                node.wrote_well()
        finally:
            print(run.told(), flush=True)


def main() -> None:
    seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
    seconds, workers = float(os.environ.get("SECONDS", "120")), int(os.environ.get("WORKERS", "1"))
    with tempfile.TemporaryDirectory(prefix="fleet") as folder:
        try:
            asyncio.run(torture(Path(folder), seconds, seed, workers))
        except BaseException:
            if keep := os.environ.get("KEEP"):
                shutil.copytree(folder, keep, ignore=shutil.ignore_patterns("*.sock", "far"))
            raise


if __name__ == "__main__":
    main()
