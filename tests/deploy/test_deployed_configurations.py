"""The configurations that deploy/ ships: each is taken, and each serves."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from mirror import config

from ..waiting import until

CONFIGURATIONS = ("service.yaml", "container.yaml", "compose-mirror.yaml")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def get(port: int, path: str) -> int | None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_shipped_configuration_is_taken_as_it_is(name, deploy):
    assert config.load(deploy / name).registries


def test_what_the_service_offers_in_comments_is_ready_to_be_used(deploy, tmp_path):
    shipped = (deploy / "service.yaml").read_text()
    opened = re.sub(r"(?m)^#(?= {2,}\S)", "", shipped)
    secret = tmp_path / "login_hub"
    secret.write_text("secret")
    used = opened.replace("/run/credentials/registry-mirror.service/login_hub", str(secret))
    assert used != opened != shipped
    (tmp_path / "mirror.yaml").write_text(used)
    config.load(tmp_path / "mirror.yaml")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_mirror_so_configured_serves_and_stops_cleanly(name, deploy, tmp_path):
    """With nothing behind it: neither an upstream nor, where it is named, Redis."""
    settings = yaml.safe_load((deploy / name).read_text())
    listen, admin = free_ports(2)
    settings["listen"] = settings["listen"].rpartition(":")[0] + f":{listen}"
    settings["admin"] = settings["admin"].rpartition(":")[0] + f":{admin}"
    settings["storage"]["path"] = str(tmp_path / "store")
    (tmp_path / "mirror.yaml").write_text(yaml.safe_dump(settings))
    log: Path = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mirror", "serve", "--config", str(tmp_path / "mirror.yaml")],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: get(listen, "/v2/") == 200 or process.poll() is not None, log.read_text)
        assert process.poll() is None, log.read_text()
        assert get(admin, "/healthz") == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(45) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
