"""`registry-mirror setup … --write --check` with real clients: told of the mirror, and proven."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .machines import Machine, no_hub
from .mirror import Mirror, endpoint
from .programs import Programs, loopback_address, needs


@dataclass
class Host:
    """Where the clients are, and a mirror whose upstream is dead."""

    programs: Programs
    mirror: Mirror
    machine: Machine
    environment: dict[str, str] = field(default_factory=dict)

    def setup(self, *words: str | Path) -> tuple[int, str]:
        argv = [sys.executable, "-m", "mirror", "setup", *words]
        done = subprocess.run(
            self.machine.argv(*argv, "--config", self.mirror.configuration),
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=100,
        )
        print(done.stdout, done.stderr)
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Programs() as programs:
        dead = endpoint(f"http://{loopback_address()}:9")
        mirror = Mirror(
            programs,
            dead,
            registries={"docker.io": dead, "ghcr.io": dead},
        ).start()
        hosts = no_hub()
        environment = {"HOME": str(programs.folder), **hosts.environment()}
        yield Host(programs, mirror, Machine(hosts.write(programs.folder / "hosts")), environment)


def test_docker_asks_the_mirror_once_it_has_read_its_file_again(host: Host) -> None:
    needs("dockerd", "docker", "containerd", "runc")
    folder = host.programs.folder
    socket, file = f"unix://{folder}/docker.sock", folder / "daemon.json"
    keys = {
        "data-root": f"{folder}/docker-data",
        "exec-root": f"{folder}/docker-exec",
        "pidfile": f"{folder}/docker.pid",
        "hosts": [socket],
        "bridge": "none",
        "iptables": False,
        "ip6tables": False,
    }
    file.write_text(json.dumps(keys, indent=2))
    host.environment["DOCKER_HOST"] = socket
    argv = host.machine.argv("dockerd", "--config-file", file)
    daemon = host.programs.start("dockerd", *argv, env=host.environment)
    ask = ["docker", "--host", socket, "version"]
    daemon.wait_until(
        lambda: subprocess.run(ask, capture_output=True).returncode == 0, "dockerd answers", 60
    )
    status, said = host.setup("docker", "--file", file, "--check")
    assert status == 1
    assert "docker.io: went through the mirror: no (docker)" in said
    assert f"{file} does not name {host.mirror.url} yet: --write" in said
    status, said = host.setup("docker", "--file", file, "--write", "--check")
    assert status == 1
    assert f"dockerd runs without {host.mirror.url}: systemctl reload docker" in said
    assert json.loads(file.read_text()) == {**keys, "registry-mirrors": [host.mirror.url]}
    os.kill(int((folder / "docker.pid").read_text()), signal.SIGHUP)
    info = [*ask[:3], "info"]
    daemon.wait_until(
        lambda: host.mirror.url in subprocess.run(info, capture_output=True, text=True).stdout,
        "dockerd has read its file again",
    )
    status, said = host.setup("docker", "--file", file, "--check")
    assert status == 0
    assert "docker.io: went through the mirror: yes (docker)" in said
    images = subprocess.run([*ask[:3], "images", "--quiet"], capture_output=True, text=True)
    assert images.stdout == ""


def test_containerd_asks_the_mirror_for_each_registry(host: Host) -> None:
    needs("containerd", "ctr")
    folder = host.programs.folder
    (folder / "containerd.toml").write_text(
        f'version = 2\nroot = "{folder}/containerd"\nstate = "{folder}/containerd-state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\n  address = "{folder}/containerd.sock"\n'
    )
    host.environment["CONTAINERD_ADDRESS"] = f"{folder}/containerd.sock"
    argv = host.machine.argv("containerd", "--config", folder / "containerd.toml")
    daemon = host.programs.start("containerd", *argv, env=host.environment)
    daemon.wait_until((folder / "containerd.sock").exists, "containerd answers")
    status, said = host.setup("containerd", "--file", folder / "certs.d", "--check")
    assert status == 1
    assert "ghcr.io: went through the mirror: no (ctr)" in said
    status, said = host.setup("containerd", "--file", folder / "certs.d", "--write", "--check")
    assert status == 0
    for registry in ("docker.io", "ghcr.io"):
        assert f"{registry}: went through the mirror: yes (ctr)" in said


def test_podman_and_skopeo_ask_the_mirror_for_each_registry(host: Host) -> None:
    needs("podman", "skopeo")
    folder = host.programs.folder
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/podman"\nrunroot = "{folder}/run"\n'
    )
    host.environment["CONTAINERS_STORAGE_CONF"] = str(folder / "storage.conf")
    file = folder / "podman.conf"
    host.environment["CONTAINERS_REGISTRIES_CONF"] = str(file)
    file.write_text("")
    status, said = host.setup("podman", "--file", file, "--check")
    assert status == 1
    assert "docker.io: went through the mirror: no (podman)" in said
    status, said = host.setup("podman", "--file", file, "--write", "--check")
    assert status == 0
    for registry in ("docker.io", "ghcr.io"):
        assert f"{registry}: went through the mirror: yes (podman)" in said
    image = "docker://ghcr.io/registry-mirror/check:skopeo"
    skopeo = ["skopeo", "--registries-conf", str(file), "--insecure-policy"]
    copied = subprocess.run(
        [*skopeo, "copy", image, f"dir:{folder}/copy"],
        env={**os.environ, **host.environment},
    )
    assert copied.returncode == 0
