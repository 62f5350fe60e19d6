"""The commands on tags, beside a mirror that has the same tag memory open."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mirror.cli.program import app
from mirror.clock import Clock
from mirror.contracts.tags import TagRecord
from mirror.events import Events
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.storage.tags.embedded import EmbeddedTags

from .commands import Done, run
from .redis_server import RedisServer

REDIS = Repository("docker.io", "library/redis")
OLD, NEW = Digest.of(b"old"), Digest.of(b"new")
DAY = timedelta(days=1)
TODAY = datetime.now(UTC).replace(microsecond=0)

Command = Callable[..., Done]


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[EmbeddedTags]:
    """As a mirror that serves has it: redis:7 was OLD from ten days ago, and is NEW since two."""
    memory = EmbeddedTags(tmp_path / "store" / "tags.db", Clock(), Events())
    await note(memory, OLD, TODAY - 10 * DAY)
    await note(memory, OLD, TODAY - 3 * DAY)
    await note(memory, NEW, TODAY - 2 * DAY)
    yield memory
    await memory.close()


async def note(memory: EmbeddedTags, digest: Digest | None, at: datetime) -> None:
    descriptor = None if digest is None else Descriptor("a/b", digest, 1)
    await memory.put(REDIS, "7", TagRecord(descriptor, at.timestamp()), 3600)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    def command(*words: str, more: str = "") -> Done:
        config = tmp_path / "mirror.yaml"
        config.write_text(f"storage: {{path: {tmp_path / 'store'}}}\n{more}")
        done = run(*words, "--config", config)
        assert "Traceback" not in done.stderr
        return done

    return command


def written(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_tags_shows_what_a_tag_pointed_to(memory: EmbeddedTags, command: Command) -> None:
    shown = command("tags", "redis:7")
    assert shown.status == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["docker.io/library/redis:7"] in lines
    rows = [
        [word for word in line if word not in "│|┃"] for line in lines if "sha256:" in str(line)
    ]
    assert rows == [
        [str(NEW), written(TODAY - 2 * DAY), written(TODAY - 2 * DAY)],
        [str(OLD), written(TODAY - 10 * DAY), written(TODAY - 3 * DAY)],
    ]


async def test_tags_tells_programs_the_same(memory: EmbeddedTags, command: Command) -> None:
    told = json.loads(command("tags", "redis:7", "--json").stdout)
    assert told["name"] == "docker.io/library/redis:7"
    assert {event["digest"] for event in told["history"]} == {str(OLD), str(NEW)}
    assert told["pinned"] is None
    await memory.freeze(REDIS, "7", OLD)
    assert json.loads(command("tags", "redis:7", "--json").stdout)["pinned"] == str(OLD)
    nothing = command("tags", "nope:1", "--json")
    assert (nothing.status, json.loads(nothing.stdout)["history"]) == (1, [])


async def test_tags_shows_that_a_tag_was_gone(memory: EmbeddedTags, command: Command) -> None:
    await note(memory, None, TODAY)
    assert "nothing: it was gone" in command("tags", "redis:7").stdout


async def test_tags_of_an_image_that_nobody_pulled(memory: EmbeddedTags, command: Command) -> None:
    shown = command("tags", "bob/app")
    assert shown.status == 1
    assert "nothing is known of docker.io/bob/app:latest" in shown.stderr


async def test_a_tag_is_frozen_and_unfrozen_beside_a_mirror(
    memory: EmbeddedTags, command: Command
) -> None:
    pinned = command("pin", "redis:7", str(OLD))
    assert (pinned.status, pinned.stdout) == (
        0,
        f"docker.io/library/redis:7 is frozen to {OLD}.\n",
    )
    assert await memory.frozen(REDIS, "7") == OLD
    assert f"redis:7 is frozen to {OLD}, by command." in command("tags", "redis:7").stdout
    unpinned = command("unpin", "redis:7")
    assert unpinned.status == 0
    assert await memory.frozen(REDIS, "7") is None
    again = command("unpin", "redis:7")
    assert again.status == 1
    assert "redis:7 was not frozen" in again.stderr


async def test_a_tag_is_frozen_to_what_it_was(memory: EmbeddedTags, command: Command) -> None:
    assert command("pin", "redis:7", written(TODAY - 5 * DAY)).status == 0
    assert await memory.frozen(REDIS, "7") == OLD
    assert command("pin", "redis:7", (TODAY - DAY).strftime("%Y-%m-%d")).status == 0
    assert await memory.frozen(REDIS, "7") == NEW


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("redis:7", "2999-01-01"), "2999-01-01 is yet to come"),
        (("redis:7", "yesterday"), "DIGEST|DATE: found 'yesterday', write sha256:…"),
        (("redis:7", "sha256:12"), "write sha256: and 64 lower-case hex digits"),
        (("redis:7", "sha256:abc:"), "found 'sha256:abc:'"),  # no picture of letters
        (("Redis", str(OLD)), "IMAGE: found 'Redis', write an image such as redis:7"),
        ((f"redis@{OLD}", str(OLD)), "IMAGE: found an image with a digest"),
        (("ghcr.io/acme/app", str(OLD)), "IMAGE: ghcr.io is not mirrored; docker.io is"),
    ],
)
def test_words_of_no_use_are_told(words: tuple[str, ...], told: str) -> None:
    failed = CliRunner().invoke(app, ["pin", *words])
    assert failed.exit_code == 2
    assert told in failed.stderr
    assert failed.stdout == ""


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("redis:7", "docker.io/library/redis:7 was at 2001-01-01 is not known: it is first known"),
        ("bob/app", "docker.io/bob/app:latest was at 2001-01-01 is not known: nothing is"),
    ],
)
async def test_a_time_of_which_nothing_is_known_freezes_nothing(
    memory: EmbeddedTags, command: Command, image: str, told: str
) -> None:
    failed = command("pin", image, "2001-01-01")
    assert failed.status == 1
    assert told in failed.stderr
    assert await memory.frozen(REDIS, "7") is None


async def test_what_the_configuration_freezes_is_shown(
    memory: EmbeddedTags, command: Command
) -> None:
    frozen = "pin: {redis:7: 2026-11-01}\n"
    assert (
        "docker.io/library/redis:7 is frozen to what it was at 2026-11-01, by the configuration."
        in command("tags", "docker.io/redis:7", more=frozen).stdout
    )
    assert "still frozen" in command("unpin", "redis:7", more=frozen).stderr


def test_without_a_tag_memory_nothing_is_made(tmp_path: Path, command: Command) -> None:
    failed = command("pin", "redis:7", str(OLD))
    assert failed.status == 1
    assert f"there is no {tmp_path / 'store' / 'tags.db'}" in failed.stderr
    assert not (tmp_path / "store").exists()


def test_f45_a_redis_that_is_away_is_told(tmp_path: Path, command: Command) -> None:
    with RedisServer(tmp_path / "redis") as server:
        more = f"tags: {{store: '{server.url}'}}\n"
        failed = command("pin", "redis:7", str(OLD), more=more)
        assert failed.status == 1
        assert failed.stderr.splitlines() == [
            "registry-mirror: the tag memory does not answer: connection refused"
        ]
        server.start()
        assert command("pin", "redis:7", str(OLD), more=more).status == 0
        assert f"frozen to {OLD}" in command("tags", "redis:7", more=more).stdout
