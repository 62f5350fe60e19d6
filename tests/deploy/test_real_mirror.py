"""The dashboard and the alerts, by a real Prometheus that scrapes a real mirror in trouble."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from pathlib import Path

import aiohttp

from mirror.app import ask
from mirror.oci.digest import Digest
from mirror.oci.manifests import OCI_MANIFEST

from ..faults.house import ADMIN_PORT, House, Mirror
from ..waiting import eventually
from .prometheus import Prometheus, scraping
from .test_queries import dashboard, faults

MIB = 1 << 20
HOSTED_PORT = 5002
KEYS = {
    "storage": {"max_size": "8MiB", "scrub": "100s"},
    "tags": {"store": "redis://127.0.0.1:9"},  # nobody is there
    "sync": [{"images": ["redis:7"], "every": "1m"}],
}


def troubled(house: House, hubs: dict[str, str], password: Path) -> Mirror:
    quick_to_age = {"freshness": {"ttl": "0s", "stale": "1h"}}
    login = {"username": "ann", "password_file": str(password)}
    mirror = house.prepare(
        {"url": house.hub.url, "trust": "tags"},
        docker_io=quick_to_age,
        workers=2,
        quick=True,
        registries={
            "dead.example": {"endpoints": [{"url": "http://127.0.0.1:9", "trust": "tags"}]},
            "locked.example": {"endpoints": [{"url": hubs["locked"], "credentials": login}]},
            "spent.example": {"endpoints": [{"url": hubs["spent"]}]},
        },
        **KEYS,
    )
    hosted = {"listen": f"{mirror.address}:{HOSTED_PORT}", "gc": {"every": "1s", "grace": "1s"}}
    hosted |= {"webhooks": {"allow_private": ["127.0.0.0/8"]}}
    written = json.loads(mirror.config.read_text())
    mirror.config.write_text(json.dumps({**written, "hosted": hosted}))
    return mirror


async def pushes(mirror: Mirror) -> None:
    """What a collection finds something in, and a webhook whose receiver is down; again and
    again."""
    await ask(mirror.storage, "user-add", name="ann", password="secret123", administrator=True)
    nobody = "http://127.0.0.1:9/"
    await ask(
        mirror.storage, "webhook-add", namespace="ann", url=nobody, pattern="*", subjects=["push"]
    )
    url = f"http://{mirror.address}:{HOSTED_PORT}/v2/ann/app"
    async with aiohttp.ClientSession(auth=aiohttp.BasicAuth("ann", "secret123")) as client:
        while True:
            data = os.urandom(1000)
            digest = str(Digest.of(data))
            async with client.post(f"{url}/blobs/uploads/?digest={digest}", data=data) as answer:
                assert answer.status == 201
            part = {"mediaType": "text/plain", "digest": digest, "size": len(data)}
            manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": part, "layers": []}
            async with client.put(f"{url}/manifests/1", json=manifest) as answer:
                pushed = answer.headers["Docker-Content-Digest"]
            await (await client.delete(f"{url}/manifests/{pushed}")).read()
            await asyncio.sleep(0.1)


async def pulls(mirror: Mirror, house: House) -> None:
    """Hits, misses, what is evicted for others, and what nobody can bring; again and again."""
    number = 0
    while True:
        number += 1
        layer = os.urandom(2 * MIB)
        digest = house.hub.add_blob(layer)
        for _ in range(2):
            await mirror.blob(digest)
        for tag in ("7", "none"):
            await mirror.manifest(tag)
        await mirror.ask("/v2/library/redis/tags/list")
        for registry in ("dead.example", "locked.example", "spent.example"):
            await mirror.ask(f"/v2/app/manifests/v{number}?ns={registry}")
        await mirror.ask("/v2/", headers={"Authorization": "Basic aGk6aG8="})
        await asyncio.sleep(0.1)


async def all_is_shown(prometheus: Prometheus) -> None:
    """But for other nodes, and a tier behind the disk, which this mirror has not: panels of those
    are asked in test_queries.py."""
    shown = [each for each in dashboard() if not re.search("_(peer|fleet|second_tier)", each.expr)]
    found: dict[str, str] = {}

    def asked() -> bool:
        nonlocal found
        found = faults(prometheus.ask, shown, empty={"registry", "login"})
        return not found

    try:
        await eventually(lambda: asyncio.to_thread(asked), 60)
    except AssertionError:
        raise AssertionError(str(found)) from None


async def test_every_panel_and_alert_of_a_real_mirror_in_trouble(program, tmp_path: Path) -> None:
    """Of two workers, which show all that one process does."""
    executable = program("prometheus", "Debian's prometheus")
    password = tmp_path / "password"
    password.write_text("wrong\n")
    (tmp_path / "prometheus").mkdir()
    async with House(tmp_path) as house:
        house.failed = True  # it is left in the midst of its trouble
        house.hub.add_image("library/redis", "7", b"layer" * 1000)
        locked, spent = await house.another_hub(), await house.another_hub()
        locked.login, locked.anonymous = ("ann", "right"), False
        for number in range(1000):
            spent.add_image("app", f"v{number}", b"layer %d" % number)
        spent.limit, house.hub.limit = 3, 10_000
        hubs = {"locked": locked.url, "spent": spent.url}
        mirror = await troubled(house, hubs, password).start()
        at_work = [asyncio.create_task(each) for each in (pulls(mirror, house), pushes(mirror))]
        try:
            with scraping(
                tmp_path / "prometheus", executable, f"{mirror.address}:{ADMIN_PORT}"
            ) as prometheus:
                await all_is_shown(prometheus)
                written = json.loads(mirror.config.read_text())
                mirror.config.write_text(json.dumps({**written, "lisen": 5000}))
                os.kill(mirror.pid, signal.SIGHUP)
                os.kill(mirror.processes()[-1], signal.SIGKILL)
                expected = {
                    "RegistryMirrorEndpointsDown",
                    "RegistryMirrorLoginRefused",
                    "RegistryMirrorQuotaLow",
                    "RegistryMirrorPullsSpent",
                    "RegistryMirrorEvictedSoon",
                    "RegistryMirrorTagStoreDown",
                    "RegistryMirrorConfigurationNotTaken",
                    "RegistryMirrorCredentialsReceived",
                    "RegistryMirrorWorkersReplaced",
                }
                rules = await eventually(lambda: told(prometheus, expected), 60)
                assert {rule["health"] for rule in rules.values()} == {"ok"}
                assert rules["RegistryMirrorDown"]["state"] == "inactive"
        finally:
            for each in at_work:
                each.cancel()
            ended = await asyncio.gather(*at_work, return_exceptions=True)
            print("what was at work ended by", ended)


async def told(prometheus: Prometheus, expected: set[str]) -> dict:
    """The rules, once these are about to fire, and none is without an evaluation."""
    rules = await asyncio.to_thread(prometheus.rules)
    active = {name for name, rule in rules.items() if rule["state"] != "inactive"}
    evaluated = all(rule["health"] != "unknown" for rule in rules.values())
    return rules if expected <= active and evaluated else {}
