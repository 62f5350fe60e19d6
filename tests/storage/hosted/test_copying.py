"""All records from one engine to the other, and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.clock import Clock
from mirror.contracts.hosted import HostedManifest, Seen, Visibility
from mirror.contracts.identity import AuditEntry, Organisation, Robot, Role, User
from mirror.contracts.webhooks import Subject, Webhook
from mirror.oci.digest import Digest
from mirror.storage.records.hosted.accounts import AccountRecords
from mirror.storage.records.hosted.copying import CopyRefused, RecordsCopy
from mirror.storage.records.hosted.database import Database
from mirror.storage.records.hosted.opening import open_in
from mirror.storage.records.hosted.repositories import RepositoryRecords
from mirror.storage.records.hosted.webhooks import HookRecords

NOW = 1_000_000.0


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Database]:
    opened = open_in(tmp_path / "other", Clock(), sync=False)
    yield opened
    await opened.close()


async def fill(database: Database) -> None:
    accounts, repositories = AccountRecords(database), RepositoryRecords(database)
    await accounts.add_user(User("ann", True, NOW), "hash")
    await accounts.add_organisation(Organisation("team", NOW, 1 << 40))
    await accounts.set_member("team", "ann", Role.WRITER)
    await accounts.add_robot(Robot("team", "ci", (), NOW), b"\0\xff")
    await accounts.note_audit([AuditEntry(NOW, "ann", "::1", "login", "é")])
    await accounts.rotate_signing_key("k", b"\0\xff", NOW, 2)
    hook = Webhook("h", "team", "https://x", (Subject.PUSH,))
    await HookRecords(database).add_webhook(hook, "s")
    for number in range(30):
        layer = Digest.of(b"%d" % number)
        await repositories.add_blob("team/app", layer, 1 << 33, NOW, "ann")
        manifest = HostedManifest(Digest.of(b"m%d" % number), "a/b", 9, (layer,))
        await repositories.put_manifest("team/app", manifest, f"v{number}", NOW, "ann")


async def dumped(database: Database) -> bytes:
    return b"".join([piece async for piece in RecordsCopy(database).dump()])


async def cut(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def test_a_copy_goes_there_and_back(
    database: Database, other: Database, tmp_path: Path
) -> None:
    await fill(database)
    data = await dumped(database)
    rows = await RecordsCopy(other).restore(cut(data))
    assert rows == data.count(b"\n") - 2
    assert await dumped(other) == data
    # What is made from now on gets numbers that are free.
    await fill_again(other)


async def test_a_copy_is_taken_by_each_engine(database: Database, other: Database) -> None:
    await fill(other)
    data = await dumped(other)
    await RecordsCopy(database).restore(cut(data))
    assert await dumped(database) == data
    await fill_again(database)
    accounts = AccountRecords(database)
    assert await accounts.robot_secret("team+ci") == b"\0\xff"
    assert await accounts.user("ann") == User("ann", True, NOW)


async def fill_again(database: Database) -> None:
    repositories = RepositoryRecords(database)
    await repositories.create("new/one", Visibility.PUBLIC, NOW, "ann")
    manifest = HostedManifest(Digest.of(b"new"), "a/b", 9)
    await repositories.put_manifest("team/app", manifest, "v0", NOW, "ann")
    assert len(await repositories.history("team/app", "v0")) == 2
    assert await repositories.usage("team") == 31 * 9 + 30 * (1 << 33)


async def test_a_copy_is_as_of_its_beginning(database: Database) -> None:
    await fill(database)
    copy = RecordsCopy(database).dump()
    first = await anext(copy)
    await RepositoryRecords(database).create("late/one", Visibility.PUBLIC, NOW, "ann")
    rest = b"".join([piece async for piece in copy])
    assert b"late" not in first + rest


async def test_what_is_no_copy_is_refused_whole(database: Database, other: Database) -> None:
    await fill(other)
    data = await dumped(other)
    copy = RecordsCopy(database)
    for bad, words in (
        (b"", "not whole"),
        (data[:-20], "not whole"),
        (b"\n".join(data.split(b"\n")[:-2]) + b"\n", "not whole"),
        (b"garbage\n", "no copy"),
        (b"[]\n", "no copy"),
        (data.replace(b'"version":"', b'"version":"9'), "version 9"),
        (data.replace(b'["users"', b'["nothing"'), "no copy"),
    ):
        with pytest.raises(CopyRefused, match=words):
            await copy.restore(cut(bad))
        assert await RepositoryRecords(database).repositories(Seen(everything=True)) == []
    await copy.restore(cut(data))
    with pytest.raises(CopyRefused, match="already"):
        await copy.restore(cut(data))
