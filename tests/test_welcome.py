"""What a terminal shows when the mirror has started: URLs that clients reach, and how to see that
it works."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

from mirror.cli.welcome import lines
from mirror.clients.urls import Reach
from mirror.config import parse

from .e2e.programs import loopback_address


def said(text: str, reach: Reach) -> str:
    config = parse(text, "mirror.yaml")
    return "\n".join(lines(config, Path("mirror.yaml"), reach, "http://127.0.0.1:5001/"))


def test_clients_of_other_hosts_are_given_an_address_that_they_reach() -> None:
    text = said("listen: ':5082'", Reach("http://127.0.0.1:5082", "http://10.1.2.3:5082"))
    assert '{"registry-mirrors": ["http://10.1.2.3:5082"]}' in text
    assert "http://:5082" not in text
    assert "docker pull 127.0.0.1:5082/library/busybox" in text
    assert "containerd, in" not in text  # Docker Hub alone is served: Docker's line is enough


def test_a_mirror_of_this_host_alone_says_how_to_open_it() -> None:
    text = said("", Reach("http://127.0.0.1:5000", ""))
    assert 'not reachable: write listen: ":5000"' in text


def test_where_other_registries_are_served_their_clients_are_told_too() -> None:
    text = said("registries: {docker.io: , ghcr.io: }", Reach("https://10.1.2.3:5000", ""))
    assert "/etc/containerd/certs.d/<registry>/hosts.toml, for docker.io, ghcr.io:" in text
    assert 'location = "10.1.2.3:5000/ghcr.io"' in text
    assert "insecure" not in text


def test_docker_is_told_nothing_of_what_it_cannot_have() -> None:
    text = said(
        "default_registry: ghcr.io\nregistries: {ghcr.io: }", Reach("http://127.0.0.1:5000", "")
    )
    assert "registry-mirrors" not in text
    assert "docker pull" not in text
    assert "setup containerd" in text
    assert 'mirror = [{location = "127.0.0.1:5000", insecure = true}]' in text


def test_it_is_said_once_the_mirror_answers_and_not_when_it_cannot_start(tmp_path: Path) -> None:
    address, file = loopback_address(), tmp_path / "mirror.yaml"
    file.write_text(
        f"listen: {address}:5000\nadmin: {address}:5001\nstorage: {{path: '{tmp_path}/store'}}\n"
        "offline: true\n"
    )
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "mirror", "serve", "--config", str(file)]
    mirror = subprocess.Popen(argv, stderr=theirs, stdin=subprocess.DEVNULL)
    try:
        text, deadline = "", time.monotonic() + 30
        while "See that it works" not in text:
            assert time.monotonic() < deadline, text
            text += os.read(ours, 65536).decode()
        assert f"on this host      http://{address}:5000" in text
        second = subprocess.Popen(argv, stderr=theirs, stdin=subprocess.DEVNULL)
        assert second.wait(30) == 1
    finally:
        mirror.send_signal(signal.SIGTERM)
        mirror.wait(30)
        os.close(theirs)
    rest = os.read(ours, 65536).decode()
    os.close(ours)
    assert "is served by another mirror already" in rest
    assert "See that it works" not in rest


def test_where_is_pushed_to_is_told() -> None:
    hosted = 'hosted: {listen: "127.0.0.1:5002", hosts: [registry.corp.lan]}'
    text = said(hosted, Reach("http://127.0.0.1:5000", ""))
    assert "hosted, to push   127.0.0.1:5002, registry.corp.lan" in text
