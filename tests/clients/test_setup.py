"""The command setup, on a host that is a folder: what it shows, writes and refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mirror.clients.urls import Reach, reach

from ..commands import run

DAEMON = "etc/docker/daemon.json"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "root/etc/docker").mkdir(parents=True)
    (tmp_path / "mirror.yaml").write_text("registries: {docker.io: , ghcr.io: }\n")
    return tmp_path / "root"


def setup(host: Path, *words: str) -> tuple[int, str, str]:
    config = host.parent / "mirror.yaml"
    done = run("setup", *words, "--root", host, "--config", config)
    return done.status, done.stdout, done.stderr


def test_it_shows_a_diff_and_writes_nothing(host: Path) -> None:
    status, out, err = setup(host, "docker")
    assert status == 0
    assert '+++ /etc/docker/daemon.json\n@@ -0,0 +1,5 @@\n+{\n+  "registry-mirrors": [' in out
    assert "Nothing was written: --write does it" in err
    assert "systemctl reload docker" in err
    assert list(host.rglob("*.json")) == []


def test_it_writes_with_a_copy_that_has_the_same_owner_and_mode(host: Path) -> None:
    file = host / DAEMON
    file.write_bytes(b'{\r\n  "debug": true\r\n}\r\n')
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 12345, 23456)
    before = file.stat()
    assert setup(host, "docker", "--write")[0] == 0
    (copy,) = file.parent.glob("daemon.json.*Z.bak")
    assert copy.read_bytes() == b'{\r\n  "debug": true\r\n}\r\n'
    for each in (file, copy):
        now = each.stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (
            before.st_mode,
            before.st_uid,
            before.st_gid,
        )
    assert json.loads(file.read_text()) == {
        "debug": True,
        "registry-mirrors": ["http://127.0.0.1:5000"],
    }
    status, out, err = setup(host, "docker", "--write")
    assert (status, out) == (0, "")
    assert "nothing to do" in err
    assert sorted(file.parent.iterdir()) == sorted([file, copy])


def test_new_files_can_be_read_by_all_whatever_the_umask(host: Path) -> None:
    old = os.umask(0o077)
    try:
        assert setup(host, "containerd", "--write")[0] == 0
    finally:
        os.umask(old)
    file = host / "etc/containerd/certs.d/ghcr.io/hosts.toml"
    assert file.stat().st_mode & 0o777 == 0o644
    assert file.parent.stat().st_mode & 0o777 == 0o755


def test_a_broken_file_is_left_alone_and_named_with_its_place(host: Path) -> None:
    file = host / DAEMON
    file.write_text('{\n  "debug": true,\n  1}\n')
    status, _, err = setup(host, "docker", "--write")
    assert status == 1
    assert "/etc/docker/daemon.json:3:3: it is no JSON" in err
    assert "Nothing was written." in err
    assert file.read_text() == '{\n  "debug": true,\n  1}\n'
    assert os.listdir(file.parent) == ["daemon.json"]


def test_bytes_that_are_no_text_are_left_alone(host: Path) -> None:
    (host / DAEMON).write_bytes(b'{"a":\n "\xff"}')
    status, _, err = setup(host, "docker", "--write")
    assert status == 1
    assert "/etc/docker/daemon.json:2:3: there are bytes that are no UTF-8" in err


def test_links_are_followed_and_stay_but_not_out_of_the_root(host: Path) -> None:
    file, real = host / DAEMON, host / "etc/real.json"
    real.write_text("{}")
    file.symlink_to("../real.json")
    assert setup(host, "docker", "--write")[0] == 0
    assert file.is_symlink()
    assert "registry-mirrors" in real.read_text()
    outside = host.parent / "outside.json"
    outside.write_text("{}")
    file.unlink()
    file.symlink_to(outside)
    status, _, err = setup(host, "docker", "--write")
    assert status == 1
    assert "leads out of" in err
    assert outside.read_text() == "{}"


def test_programs_are_told_the_same_as_people(host: Path) -> None:
    status, out, _ = setup(host, "podman", "--json", "--write", "--registry", "ghcr.io")
    told = json.loads(out)
    (file,) = told["files"]
    assert status == 0
    assert file["path"] == told["written"][0]["path"]
    assert "127.0.0.1:5000/ghcr.io" in file["content"]
    assert "docker.io" not in file["content"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--url", "mirror.lan:5000"], "write a URL such as http://mirror.lan:5000"),
        (["--url", "http://mirror.lan:5000/x"], "without a path"),
        (["--url", "http://me:pw@mirror.lan"], "without a login"),
        (["--registry", "https://ghcr.io"], "write ghcr.io"),
        (["--ca", "x.pem"], "begins with https"),
    ],
)
def test_a_mistake_among_the_arguments_is_told(host: Path, words: list[str], said: str) -> None:
    status, _, err = setup(host, "podman", *words)
    assert status == 2
    assert said in " ".join(err.split())
    assert "pw" not in err


def test_a_mirror_that_does_not_answer_proves_nothing(host: Path) -> None:
    status, out, _ = setup(host, "podman", "--check", "--url", "http://127.0.0.1:9")
    assert status == 1
    assert "docker.io: went through the mirror: no" in out
    assert "does not answer: Connection refused" in out


@pytest.mark.parametrize(
    ("listens", "expected"),
    [
        ([("127.0.0.1", 5000)], Reach("http://127.0.0.1:5000", "")),
        ([("", 5082)], Reach("http://127.0.0.1:5082", "http://10.1.2.3:5082")),
        ([("0.0.0.0", 5082)], Reach("http://127.0.0.1:5082", "http://10.1.2.3:5082")),
        ([("::", 80)], Reach("http://127.0.0.1:80", "http://10.1.2.3:80")),
        ([("10.9.9.9", 80)], Reach("http://10.9.9.9:80", "http://10.9.9.9:80")),
        ([("::1", 80), ("fd00::1", 80)], Reach("http://[::1]:80", "http://[fd00::1]:80")),
    ],
)
def test_clients_are_told_urls_that_they_can_reach(
    listens: list[tuple[str, int]], expected: Reach
) -> None:
    assert reach(listens, outward=lambda: "10.1.2.3") == expected


def test_a_pipe_in_a_files_place_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "etc/docker").mkdir(parents=True)
    os.mkfifo(tmp_path / "etc/docker/daemon.json")
    done = run("setup", "docker", "--root", tmp_path, "--url", "http://mirror.lan:5000")
    assert done.status == 1
    assert "/etc/docker/daemon.json: it is no file" in done.stderr
