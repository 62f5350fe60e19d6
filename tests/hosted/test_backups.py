"""Backups: all that is hosted as one tar, and out of it; of a broken one nothing is kept."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mirror.app import CommandFailed
from mirror.app.hosted import Hosted
from mirror.app.hosting_alone import hosted_alone
from mirror.config import Config, parse
from mirror.contracts.context import OPERATOR, RequestContext
from mirror.contracts.identity import Role
from mirror.oci.digest import Digest
from mirror.oci.manifests import OCI_MANIFEST
from mirror.oci.reference import Repository

from ..postgres import running

BY = RequestContext("1", "a test", OPERATOR)
APP = Repository("hosted", "acme/app")
LAYER = b"a layer" * 100_000
IMAGE_CONFIG = b'{"os": "linux", "architecture": "arm64"}'


class Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size: int | None = len(data)

    async def read(self) -> bytes:
        data, self._data = self._data, b""
        return data

    async def pour(self, take: Callable[[bytes | memoryview], None]) -> None:
        take(await self.read())


def config(folder: Path, records: str = "embedded") -> Config:
    return parse(
        f"""
storage: {{path: {folder}, max_size: 1GiB, min_free: 0}}
hosted: {{listen: "127.0.0.1:5002", records: "{records}"}}
""",
        "mirror.yaml",
    )


async def push(hosted: Hosted) -> Digest:
    described = []
    for data in (IMAGE_CONFIG, LAYER):
        digest = Digest.of(data)
        session = await hosted.registry.begin_upload(BY, APP)
        await hosted.registry.append(BY, APP, session, 0, Bytes(data))
        await hosted.registry.finish_upload(BY, APP, session, digest)
        described.append({"mediaType": "x/y", "digest": str(digest), "size": len(data)})
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described[0],
        "layers": described[1:],
    }
    data = json.dumps(manifest).encode()
    stored = await hosted.registry.put_manifest(BY, APP, "v1", data, OCI_MANIFEST)
    return stored.descriptor.digest


async def backup_of(folder: Path) -> tuple[bytes, Digest]:
    async with hosted_alone(config(folder)) as hosted:
        on = hosted.administration
        await on.users.add(BY, "ada", "a long password")
        await on.organisations.add(BY, "acme")
        await on.organisations.set_member(BY, "acme", "ada", Role.WRITER)
        digest = await push(hosted)
        pieces = []
        async for piece in hosted.backups.backup({}):
            if not pieces:  # what is deleted while it goes on is in it
                await on.repositories.remove(BY, "acme/app")
            pieces.append(piece)
        return b"".join(pieces), digest


async def cut(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 50_000):
        yield data[at : at + 50_000]


async def test_what_was_backed_up_is_restored(tmp_path: Path) -> None:
    data, digest = await backup_of(tmp_path / "one")
    async with hosted_alone(config(tmp_path / "two")) as hosted:
        told = [line async for line in hosted.backups.restore(cut(data))]
        assert told[-1]["content"] == 3
        on = hosted.administration
        assert (await on.users.one(BY, "ada")).memberships == (("acme", Role.WRITER),)
        (tag,) = (await on.images.tags(BY, "acme/app")).tags
        assert (tag.digest, str(tag.platforms[0])) == (digest, "linux/arm64")
        content = await hosted.registry.blob(BY, APP, Digest.of(LAYER))
        assert content.pread(len(LAYER), 0) == LAYER
        content.close()
        with pytest.raises(CommandFailed, match="empty"):
            async for _ in hosted.backups.restore(cut(data)):
                pass
        assert len((await on.images.tags(BY, "acme/app")).tags) == 1


async def test_records_go_from_sqlite_into_postgresql_and_back(tmp_path: Path) -> None:
    data, digest = await backup_of(tmp_path / "one")
    with running() as server:
        there = config(tmp_path / "two", server.url(server.make()))
        async with hosted_alone(there) as hosted:
            told = [line async for line in hosted.backups.restore(cut(data))]
            assert told[-1]["content"] == 3
            await hosted.administration.organisations.add(BY, "after")
            again = b"".join([piece async for piece in hosted.backups.backup({})])
            with pytest.raises(CommandFailed):
                async for _ in hosted.backups.restore(cut(data)):
                    pass
    async with hosted_alone(config(tmp_path / "three")) as hosted:
        assert [line async for line in hosted.backups.restore(cut(again))]
        (tag,) = (await hosted.administration.images.tags(BY, "acme/app")).tags
        assert tag.digest == digest
        names = [
            each.organisation.name for each in await hosted.administration.organisations.list(BY)
        ]
        assert names == ["acme", "after"]


def made_anew(data: bytes, change: Callable[[str, bytes], list[tuple[str, bytes]]]) -> bytes:
    """The archive with each of its files replaced by these."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for info in old:
            file = old.extractfile(info)
            assert file is not None
            for name, content in change(info.name, file.read()):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                new.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def without_layers(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [] if content == LAYER else [(name, content)]


def with_other_bytes(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [(name, content.replace(b"layer", b"LAYER") if content == LAYER else content)]


def with_more(name: str, content: bytes) -> list[tuple[str, bytes]]:
    more = b"nobody needs this"
    path = f"blobs/sha256/{Digest.of(more).hex}"
    return [(name, content), *([(path, more)] if content == LAYER else [])]


def with_fewer_records(name: str, content: bytes) -> list[tuple[str, bytes]]:
    lines = content.splitlines(keepends=True)
    return [(name, b"".join(lines[:-1]) if name == "records.jsonl" else content)]


def of_other_records(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [(name, b'["links", {"digest": "x"}]\n' if name == "records.jsonl" else content)]


def of_a_newer_program(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [(name, b'{"version": 9, "lost": []}' if name == "backup.json" else content)]


def twice(name: str, content: bytes) -> list[tuple[str, bytes]]:
    return [(name, content)] * (2 if content == LAYER else 1)


async def test_of_a_broken_backup_nothing_is_kept(tmp_path: Path) -> None:
    data, _ = await backup_of(tmp_path / "one")
    broken = {
        "not an archive": b"nothing" * 1000,
        "cut": data[: len(data) // 2],
        "cut before its end": data[:-1024],
    }
    for change in (
        without_layers,
        with_other_bytes,
        with_more,
        with_fewer_records,
        of_other_records,
        of_a_newer_program,
        twice,
    ):
        broken[change.__name__] = made_anew(data, change)
    async with hosted_alone(config(tmp_path / "two")) as hosted:
        for what, each in broken.items():
            with pytest.raises(CommandFailed, match="not taken"):
                async for _ in hosted.backups.restore(cut(each)):
                    pass
            assert await hosted.administration.users.list(BY) == [], what
            held = hosted.backups.store.held
            assert list(await held.held(float("inf"), None, 10)) == [], what
        told = [line async for line in hosted.backups.restore(cut(data))]
        assert told[-1]["content"] == 3
