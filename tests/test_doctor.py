"""The command doctor: what is wrong is a line with what to do, beside a mirror and without one; and
what the log tells of it once, at the start."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.app.doctor import host, network
from mirror.app.doctor.findings import Mark
from mirror.config import parse

from .commands import ran
from .e2e.programs import loopback_address
from .fakes.hub import status
from .redis_server import RedisServer
from .running import LAYER, RunningMirror
from .waiting import eventually


class Told:
    """What doctor said: marks and words by subject."""

    def __init__(self, exit_status: int, text: str) -> None:
        self.status = exit_status
        self.lines = json.loads(text)

    def marks(self, subject: str) -> list[str]:
        return [line["mark"] for line in self.lines if line["subject"].startswith(subject)]

    def words(self, subject: str) -> str:
        lines = [line for line in self.lines if line["subject"].startswith(subject)]
        return " ".join(f"{line['words']} → {line['mend']}" for line in lines)


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[RunningMirror]:
    async with RunningMirror.built(tmp_path) as mirror:
        yield mirror


async def examined(mirror: RunningMirror, *words: str) -> Told:
    done = await ran("doctor", *words, "--json", "--config", mirror.file)
    return Told(done.status, done.stdout)


async def test_a_mirror_that_is_well_is_found_well_by_itself(mirror: RunningMirror) -> None:
    await mirror.start()
    told = await examined(mirror)
    assert told.status == 0, told.lines
    for subject in ("configuration", "mirror", "port", "admin port", "reload", "store", "room"):
        assert told.marks(subject)[0] == "ok", subject
    assert told.marks("docker.io") == ["ok"]
    done = await ran("doctor", "--config", mirror.file)
    assert done.status == 0
    assert "ok    store: " in done.stdout
    assert "0 wrong" in done.stdout


async def test_where_none_runs_the_command_looks_and_says_how_to_start(
    mirror: RunningMirror,
) -> None:
    await mirror.start()
    await mirror.stop()
    told = await examined(mirror)
    assert told.status == 1
    assert told.marks("mirror") == ["FAIL"]
    assert f"registry-mirror serve --config {mirror.file}" in told.words("mirror")
    assert told.marks("store") == told.marks("docker.io") == ["ok"]


async def test_a_registry_with_trouble_is_wrong_and_looked_at_step_by_step(
    mirror: RunningMirror,
) -> None:
    await mirror.start()
    mirror.hub.fail("registry", status(503), times=100)
    told = await examined(mirror)
    assert told.status == 1
    assert told.marks("docker.io") == ["FAIL"]
    assert "whoever runs it can tell more" in told.words("docker.io")
    told = await examined(mirror, "docker.io")
    assert told.status == 1
    assert told.marks("docker.io") == ["ok", "FAIL"]
    assert {line["subject"].split()[0] for line in told.lines} == {"docker.io"}


async def test_an_image_is_asked_for_as_a_pull_does(mirror: RunningMirror) -> None:
    digest = mirror.hub.add_image("library/redis", "1", LAYER)
    await mirror.start()
    told = await examined(mirror, "redis:1")
    assert told.status == 0
    assert f"redis:1 is {digest}" in told.words("docker.io")
    assert (await examined(mirror, "redis:2")).status == 1


async def test_the_pulls_that_are_left_are_told_by_the_mirror_that_runs(
    mirror: RunningMirror,
) -> None:
    mirror.hub.add_image("library/redis", "1", LAYER)
    mirror.hub.limit = 100
    await mirror.start()
    await mirror.pull()

    async def says(words: str) -> bool:
        return words in (await examined(mirror)).words("docker.io")

    await eventually(lambda: says("99 of 100 pulls are left to this address"), seconds=30)
    mirror.hub.limit = 2
    mirror.hub.add_image("library/redis", "2", b"other" + LAYER)
    await mirror.pull("2")
    await eventually(lambda: says("credentials may be a list"), seconds=30)


@pytest.mark.parametrize("subject", ["quay.io/a/b", "a/UPPER"])
async def test_what_is_neither_a_registry_nor_an_image_is_told(
    mirror: RunningMirror, subject: str
) -> None:
    await mirror.start()
    done = await ran("doctor", subject, "--config", mirror.file)
    assert done.status == 2
    assert "quay.io is not mirrored" in done.stderr or "no repository name" in done.stderr


async def test_a_registry_that_is_not_served_is_no_image_of_docker_hub(
    mirror: RunningMirror,
) -> None:
    await mirror.start()
    done = await ran("doctor", "ghcr.io", "--config", mirror.file)
    assert done.status == 2
    assert done.stderr == "registry-mirror: ghcr.io is not mirrored; docker.io is\n"


async def test_a_file_that_was_changed_or_broken_since_it_was_loaded_is_told(
    mirror: RunningMirror,
) -> None:
    await mirror.start()
    text = mirror.file.read_text()
    mirror.file.write_text(text + "prefetch: false\n")
    told = await examined(mirror)
    assert told.words("reload").endswith("→ registry-mirror reload")
    mirror.file.write_text(text + "workers: 2\n")
    assert "other values for workers → restart" in (await examined(mirror)).words("reload")
    mirror.file.write_text(text + "prefetsch: false\n")
    told = await examined(mirror)
    assert told.status == 1
    assert "write prefetch" in told.words("configuration")
    assert "a reload would be refused" in told.words("reload")


async def test_mistakes_of_a_file_that_nobody_goes_by_are_the_configuration_s(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text(f"storage: {{path: '{tmp_path}/store'}}\nlisten: nowhere\n")
    done = await ran("doctor", "--json", "--config", file)
    assert done.status == 2
    assert Told(2, done.stdout).marks("configuration") == ["FAIL"]


def looked_at(text: str) -> dict[str, list[tuple[Mark, str, str]]]:
    found: dict[str, list[tuple[Mark, str, str]]] = {}
    for each in host.host(parse(text, "mirror.yaml"), None):
        found.setdefault(each.subject, []).append((each.mark, each.words, each.mend))
    return found


def test_a_store_that_cannot_be_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (_, words, _) = looked_at(f"storage: {{path: {tmp_path}/file}}")["store"][0]
    assert words.endswith("is no folder")
    assert looked_at(f"storage: {{path: {tmp_path}/new/store}}")["store"][0][0] is Mark.GOOD


@pytest.mark.skipif(os.geteuid() != 0, reason="to run this test: be root")
def test_files_of_somebody_else_in_the_store_are_told(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "blobs").mkdir(parents=True)
    os.chown(store, 12345, 12345)
    marks = [mark for mark, _, _ in looked_at(f"storage: {{path: {store}}}")["store"]]
    assert marks[-1] is Mark.BAD
    os.chown(store / "blobs", 12345, 12345)
    marks = [mark for mark, _, _ in looked_at(f"storage: {{path: {store}}}")["store"]]
    assert Mark.BAD not in marks


def test_more_than_fits_and_a_second_tier_that_is_gone_are_told(tmp_path: Path) -> None:
    text = f"storage: {{path: {tmp_path}, max_size: 900TiB, min_free: 900TiB"
    found = looked_at(f"{text}, second_tier: {tmp_path}/gone}}")
    assert [mark for mark, _, _ in found["room"]] == [Mark.GOOD, Mark.BAD, Mark.WARN]
    assert "nothing will be kept" in found["room"][1][1]
    assert found["second tier"][0][0] is Mark.BAD


async def test_what_cannot_work_is_in_the_log_once_the_mirror_has_started(tmp_path: Path) -> None:
    address, file, log = loopback_address(), tmp_path / "mirror.yaml", tmp_path / "log"
    secret = tmp_path / "secret"
    secret.write_text("secret")
    file.write_text(
        f"listen: {address}:5000\nadmin: {address}:5001\n"
        f"storage: {{path: '{tmp_path}/store', max_size: 900TiB, s3: {{bucket: blobs, "
        f"endpoint: 'http://{address}:3', access_key_id: a, secret_access_key_file: {secret}}}}}\n"
        f"tags: {{store: 'redis://{address}:1/0'}}\n"
        f"registries: {{docker.io: {{endpoints: [{{url: 'http://{address}:2'}}]}}}}\n"
    )
    with log.open("wb") as stream:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mirror", "serve", "--config", str(file)), stderr=stream
        )
    try:
        await eventually(lambda: '"looked_over"' in log.read_text(), seconds=30)
    finally:
        process.terminate()
        await process.wait()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = {line["subject"]: line for line in lines if line["event"] == "doctor"}
    assert set(told) == {"room", "redis", f"http://{address}:2", "bucket"}
    assert "connection refused" in told[f"http://{address}:2"]["reason"]
    assert all(line["mend"] for line in told.values())


async def test_what_is_wrong_with_a_shared_tag_memory_is_told(tmp_path: Path) -> None:
    async def told(server: RedisServer) -> list[tuple[Mark, str, str]]:
        config = parse(f"tags: {{store: '{server.url}'}}", "mirror.yaml")
        return [(each.mark, each.words, each.mend) async for each in network.tags(config)]

    with RedisServer(tmp_path / "redis") as server:
        ((mark, words, _),) = await told(server)
        assert (mark, words) == (Mark.BAD, f"{server.host}:6379: connection refused")
        server.start(maxmemory="1gb", maxmemory_policy="allkeys-lru", replicaof="127.9.9.9 1")
        replica, policy = await told(server)
        assert replica[0] is Mark.BAD
        assert "name its master" in replica[2]
        assert policy[0] is Mark.WARN
        assert "allkeys-lru" in policy[1]
