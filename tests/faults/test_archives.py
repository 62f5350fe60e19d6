"""Images that leave one mirror in a file, and are served by another that has no registry."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from mirror.oci.manifests import OCI_INDEX

from ..commands import Done, ran
from ..waiting import eventually
from .house import House, Mirror, digest_of

MIB = 1 << 20
NAME = "library/redis"


async def command(mirror: Mirror, *words: str | Path) -> Done:
    done = await ran(*words, "--config", mirror.config)
    assert "Traceback" not in done.stderr, done.stderr
    return done


async def pull(mirror: Mirror, tag: str, name: str = NAME) -> None:
    """The whole image, of its first platform."""
    answer = await mirror.manifest(tag, name=name)
    assert answer.status == 200, answer.body
    manifest = json.loads(answer.body)
    if "manifests" in manifest:
        await pull(mirror, manifest["manifests"][0]["digest"], name)
        return
    for blob in (manifest["config"], *manifest["layers"]):
        assert (await mirror.blob(blob["digest"], name=name)).is_whole(blob["digest"])


def add_index(house: House, tag: str) -> str:
    """Of two platforms, of which the second is in no registry."""
    manifest = house.hub.add_image(NAME, f"{tag}-amd64", os.urandom(MIB), os.urandom(5 * MIB))
    size = len(house.hub.manifests[manifest][0])
    entries = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": size,
            "platform": {"os": "linux", "architecture": architecture},
        }
        for digest, architecture in ((manifest, "amd64"), ("sha256:" + "5" * 64, "arm64"))
    ]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return house.hub.add_manifest(NAME, tag, json.dumps(index, indent=3).encode(), OCI_INDEX)


async def test_what_is_exported_here_is_served_there_without_a_registry(
    house: House, tmp_path: Path
) -> None:
    here = await house.mirror()
    index = add_index(house, "7")
    house.hub.add_image("acme/app", "v1", os.urandom(20 * MIB))
    site = tmp_path / "site.tar"
    done = await command(
        here, "export", "redis:7", "acme/app:v1", "--platform", "linux/amd64", "-o", site
    )
    assert done.status == 0, done.stderr
    assert done.stdout == ""
    again = tmp_path / "again.tar"
    words = ("export", "redis:7", "acme/app:v1", "--platform", "linux/amd64", "--offline")
    done = await command(here, *words, "-o", again)
    assert done.status == 0, done.stderr
    assert again.read_bytes() == site.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*.part")) == []

    there = await house.mirror(offline=True, workers=2)
    done = await command(there, "import", site, "--json")
    assert done.status == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in told] == ["redis:7", "acme/app:v1"]
    assert told[0]["digest"] == index
    house.hub.requests.clear()
    for _ in range(4):
        await pull(there, "7")
        await pull(there, "v1", "acme/app")
    assert list(house.hub.requests) == []
    # It is served in its own repository, and in no other.
    layer = json.loads((await there.manifest("v1", name="acme/app")).body)["layers"][0]["digest"]
    assert (await there.blob(layer, name="library/redis")).status != 200
    done = await command(there, "import", again, "--json")
    assert done.status == 0, done.stderr
    assert [json.loads(line)["new"] for line in done.stdout.splitlines()] == [0, 0]
    listed = await command(there, "images", "--json")
    states = [json.loads(line)["state"] for line in listed.stdout.splitlines()]
    assert states == ["whole", "whole"]


async def test_what_is_missing_and_cannot_be_fetched_leaves_no_file(
    house: House, tmp_path: Path
) -> None:
    mirror = await house.mirror()
    house.hub.add_image(NAME, "7", os.urandom(MIB))
    for words in (("redis:7", "--offline"), ("redis:none",)):
        done = await command(mirror, "export", *words, "-o", tmp_path / "site.tar")
        assert done.status == 1
        assert "registry-mirror: " in done.stderr
    assert list(tmp_path.glob("*.tar*")) == []


async def test_only_a_file_is_replaced_by_an_export(house: House, tmp_path: Path) -> None:
    mirror = await house.mirror()
    house.hub.add_image(NAME, "7", os.urandom(1000))
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "site.tar.part").symlink_to(tmp_path / "theirs")
    (tmp_path / "link.tar").symlink_to("site.tar")
    os.mkfifo(tmp_path / "pipe")
    reading = asyncio.create_task(asyncio.to_thread((tmp_path / "pipe").read_bytes))
    for name in ("site.tar", "link.tar", "pipe"):
        done = await command(mirror, "export", "redis:7", "-o", tmp_path / name)
        assert done.status == 0, done.stderr
    assert (tmp_path / "pipe").is_fifo()
    assert await reading == (tmp_path / "site.tar").read_bytes()
    assert (tmp_path / "link.tar").is_symlink()
    assert (tmp_path / "theirs").read_text() == "theirs"
    for folder in (".", tmp_path):
        done = await command(mirror, "export", "redis:7", "-o", folder)
        assert done.status == 2
        assert "is a folder" in done.stderr


# What strangers write.


def blob(data: bytes) -> tuple[str, bytes]:
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}", data


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(data), **more}


def layout(name: str = "redis:9", layer: bytes = b"a layer") -> dict[str, bytes]:
    """The files of an archive, the index last."""
    config = json.dumps({"os": "linux", "architecture": "amd64"}).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(layer, "application/vnd.oci.image.layer.v1.tar")],
        }
    ).encode()
    noted = {"org.opencontainers.image.ref.name": name} if name else {}
    top = descriptor(manifest, "application/vnd.oci.image.manifest.v1+json", annotations=noted)
    index = {"schemaVersion": 2, "manifests": [top]}
    return dict(
        [
            blob(layer),
            blob(config),
            blob(manifest),
            ("index.json", json.dumps(index).encode()),
            ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        ]
    )


def tar(files: dict[str, bytes], *more: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format) as archive:
        for info in more:
            archive.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1.5  # which pax says in a header of its own
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def linked(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/passwd"
    return info


GOOD = layout()
LAYER = next(iter(GOOD))

REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "ends early"),
    "text": (b"x" * 2048, "no tar archive"),
    "cut": (tar(GOOD)[:1700], "ends early"),
    "compressed": (gzip.compress(tar(GOOD)), "gunzip"),
    "another": (tar({**GOOD, LAYER: b"another"}), "the 7 bytes that came are not sha256:"),
    "without its layer": (tar({k: v for k, v in GOOD.items() if k != LAYER}), "it lacks sha256:"),
    "without an index": (tar({LAYER: GOOD[LAYER]}), "no OCI image layout"),
    "of docker": (tar({"manifest.json": b"[]"}), "docker-archive"),
    "without a name": (tar(layout("")), "--as"),
    "elsewhere": (tar(layout("ghcr.io/acme/app:v1")), "ghcr.io is not mirrored"),
    "a name of no use": (tar(layout("../../etc:v1")), "a name of no use"),
    "leading out": (tar({**GOOD, "../../etc/cron.d/x": b"x"}), "leads out"),
    "absolute": (tar({**GOOD, "/etc/cron.d/x": b"x"}), "leads out"),
    "a link": (tar(GOOD, linked("blobs/sha256/x", tarfile.SYMTYPE)), "a symbolic link"),
    "a device": (tar(GOOD, linked("tty", tarfile.CHRTYPE)), "a device"),
    "twice": (tar(GOOD)[:-10240] + tar(GOOD), "twice|behind its end|checksum"),
    "deep": (tar({**GOOD, "index.json": b"[" * 100_000}), "JSON|nested"),
    "much behind": (tar(GOOD) + b"more", "behind its end"),
}


async def test_what_strangers_write_is_refused_and_nothing_of_it_is_kept(
    house: House, tmp_path: Path
) -> None:
    mirror = await house.mirror()
    file = tmp_path / "site.tar"
    for name, (data, told) in REFUSED.items():
        file.write_bytes(data)
        done = await command(mirror, "import", file)
        assert done.status == 1, (name, done)
        assert any(words in done.stderr for words in told.split("|")), (name, done.stderr)
        assert mirror.kept() == {}, name
        assert (await command(mirror, "images", "--json")).stdout == "", name
    for made in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file.write_bytes(tar({f"./{name}": data for name, data in GOOD.items()}, format=made))
        done = await command(mirror, "import", file)
        assert done.status == 0, done.stderr
    await pull(mirror, "9")
    junk = {**layout("redis:10", b"another"), **dict([blob(b"in no index")])}
    file.write_bytes(tar(junk))
    before = len(mirror.kept())
    assert (await command(mirror, "import", file, "--as", "redis:11")).status == 0
    assert len(mirror.kept()) == before + 2  # its layer and its manifest
    await pull(mirror, "11")


async def test_thousands_of_names_for_one_manifest_take_the_memory_of_one(
    house: House, tmp_path: Path
) -> None:
    mirror = await house.mirror()
    files = layout()
    index = json.loads(files["index.json"])
    [top] = index["manifests"]
    old = f"blobs/sha256/{top['digest'].partition(':')[2]}"
    path, manifest = blob(files.pop(old).rstrip() + b" " * (3 * MIB))
    top |= descriptor(manifest, top["mediaType"])
    index["manifests"] = [
        {**top, "annotations": {"org.opencontainers.image.ref.name": f"app:{number}"}}
        for number in range(150)
    ]
    files |= {path: manifest, "index.json": json.dumps(index).encode()}
    (tmp_path / "site.tar").write_bytes(tar(files))
    done = await command(mirror, "import", tmp_path / "site.tar")
    assert done.status == 0, done.stderr
    status = Path(f"/proc/{mirror.pid}/status").read_text()
    most = int(status.partition("VmHWM:")[2].split()[0]) << 10
    assert most < 300 * MIB
    await pull(mirror, "149", "library/app")


async def test_an_archive_opens_no_content_that_it_only_names(house: House, tmp_path: Path) -> None:
    mirror = await house.mirror()
    secret = os.urandom(1000)
    house.hub.add_image("acme/private", "v1", secret)
    await pull(mirror, "v1", "acme/private")
    files = layout("acme/mine:v1", secret)
    name, _ = blob(secret)
    digest = digest_of(secret)
    house.hub.lacking.add(("acme/mine", digest))
    for forged in ({**files, name: bytes(1000)}, {k: v for k, v in files.items() if k != name}):
        (tmp_path / "site.tar").write_bytes(tar(forged))
        assert (await command(mirror, "import", tmp_path / "site.tar")).status == 1
        assert (await mirror.blob(digest, name="acme/mine")).status != 200
        assert (await mirror.blob(digest, name="acme/private")).is_whole(digest)


async def test_an_import_that_is_stopped_leaves_nothing(house: House, tmp_path: Path) -> None:
    mirror = await house.mirror()
    whole = tar(layout("redis:9", os.urandom(8 * MIB)))
    argv = [sys.executable, "-m", "mirror", "import", "-", "--config", mirror.config]
    process = await asyncio.create_subprocess_exec(*argv, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(whole[: 6 * MIB])
    await eventually(lambda: bool(mirror.partials()), 20)
    process.kill()
    await process.wait()
    await mirror.at_rest()
    assert mirror.kept() == {}
