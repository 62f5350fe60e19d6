"""The image of deploy/image/build.sh: built and run without root, as a user of podman has it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from mirror.app import GRACE

from ..e2e.hub import Origin
from ..e2e.images import HERE, OCI, build
from ..e2e.programs import Programs, accepts, loopback_address, run, unavailable
from ..waiting import until
from .checkout import copy_of_checkout
from .someone import Someone, someone

pytestmark = pytest.mark.xdist_group("image")  # the image is built once for all

IMAGE = "registry-mirror:tried"
MB = 1_000_000


@pytest.fixture(scope="module")
def user(program) -> Iterator[Someone]:
    for name, package in (
        ("mmdebstrap", "mmdebstrap"),
        ("buildah", "buildah"),
        ("podman", "podman"),
        ("newuidmap", "uidmap"),
        ("runc", "runc"),
    ):
        program(name, f"Debian's {package}")
    if os.geteuid() != 0:
        unavailable("to make a user, be root")
    with someone() as user:
        yield user


@pytest.fixture(scope="module")
def checkout(root, user) -> Path:
    """As the user's own."""
    copy = copy_of_checkout(root, user.home / "registry-mirror")
    run("chown", "-R", f"{user.name}:", copy)
    return copy


@pytest.fixture(scope="module")
def image(user, checkout) -> str:
    user.do(checkout / "deploy/image/build.sh", IMAGE, seconds=600)
    return IMAGE


@pytest.fixture(scope="module")
def configuration(user, image) -> dict:
    """What the image says of itself."""
    inspected = json.loads(user.do("podman", "image", "inspect", image))[0]
    return {**inspected["Config"], "Size": inspected["Size"], "Check": inspected["Healthcheck"]}


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs() as programs:
        yield programs


@pytest.fixture(scope="module")
def origin(programs) -> Origin:
    origin = Origin(programs)
    origin.push(build("library/demo", OCI, (MB // 10, 2 * MB)), "library/demo")
    return origin


@dataclass(frozen=True)
class Container:
    """The container of deploy/README.md, on this machine's own network."""

    user: Someone
    address: str
    check: list[str]
    name: str = "registry-mirror"

    def podman(self, *words: str, **more: float) -> str:
        # crun wants cgroups that not every machine has.
        return self.user.do("podman", "--runtime", "runc", *words, **more)

    def is_healthy(self) -> bool:
        words = ("podman", "--runtime", "runc", "exec", self.name, *self.check)
        return self.user.run(*words).returncode == 0

    def pull(self, into: Path) -> None:
        image = f"docker://{self.address}:5000/library/demo:latest"
        words = ("copy", "--quiet", "--src-tls-verify=false", image, f"dir:{into}")
        run("skopeo", "--insecure-policy", *words)


@pytest.fixture(scope="module")
def container(user, image, configuration, origin) -> Iterator[Container]:
    address = loopback_address()
    mirror = {
        "listen": f"{address}:5000",
        "admin": f"{address}:5001",
        "storage": {"path": "/var/lib/registry-mirror", "max_size": "1GiB"},
        "registries": {"docker.io": {"endpoints": [{"url": origin.url, "trust": "tags"}]}},
    }
    file = user.home / "mirror.yaml"
    file.write_text(json.dumps(mirror))
    file.chmod(0o644)
    # Its words, asked at the address that this test's mirror has.
    check = [word.replace("127.0.0.1", address) for word in configuration["Check"]["Test"][1:]]
    container = Container(user, address, check)
    container.podman(
        # Without systemd nothing asks podman's health checks.
        *("run", "--detach", "--name", container.name, "--network", "host", "--no-healthcheck"),
        *("--volume", "registry-mirror:/var/lib/registry-mirror"),
        *("--volume", f"{file}:/etc/registry-mirror/mirror.yaml:ro"),
        *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--stop-timeout", "40"),
        image,
    )
    try:
        until(container.is_healthy, lambda: container.podman("logs", container.name))
        yield container
    finally:  # its processes have ids of their own, and do not end with the user's
        container.podman("rm", "--force", "--time", "0", container.name)


def test_the_image_runs_as_a_number_and_says_what_it_is(configuration, root):
    assert configuration["User"] == "10001:10001"  # Kubernetes' runAsNonRoot needs numbers
    assert set(configuration["ExposedPorts"]) == {"5000/tcp", "5001/tcp"}
    assert set(configuration["Volumes"]) == {"/var/lib/registry-mirror"}
    assert configuration["StopSignal"] == "SIGTERM"
    labels = configuration["Labels"]
    version = json.dumps(labels["org.opencontainers.image.version"])
    assert f"version = {version}" in (root / "pyproject.toml").read_text()
    assert labels["org.opencontainers.image.title"] == "registry-mirror"
    assert configuration["Size"] < 160 * MB


def test_the_image_checks_its_health_as_the_dockerfile_s_does(configuration, deploy):
    check = configuration["Check"]["Test"]
    assert check[0] == "CMD"
    assert check[-1] in (deploy / "Dockerfile").read_text()
    port = yaml.safe_load((deploy / "container.yaml").read_text())["admin"].rpartition(":")[2]
    assert f"127.0.0.1:{port}/healthz" in check[-1]


def test_nothing_in_the_image_is_its_user_s_own_but_the_store(container):
    """With no shell in the image, its Python looks."""
    look = (
        "import json, os; print(json.dumps([folder for top in ('/etc', '/opt', '/usr', '/var')"
        " for folder, _, _ in os.walk(top) if os.access(folder, os.W_OK)]))"
    )
    seen = set(json.loads(container.podman("exec", container.name, "python3", "-c", look)))
    seen -= {"/var/tmp"}  # podman's, in memory
    assert "/var/lib/registry-mirror" in seen
    assert [each for each in seen if not each.startswith("/var/lib/registry-mirror")] == []
    for program in ("sh", "apt-get", "openssl"):
        done = container.user.run("podman", "--runtime", "runc", "exec", container.name, program)
        assert done.returncode != 0


def test_every_library_that_the_libraries_want_is_in_the_image(container):
    """Wheels were chosen by the image's own Python: none is for another one, none is missing."""
    wanted = (
        "import importlib.metadata as m, re\n"
        "from aiohttp import _http_parser, _http_writer\n"
        "import apsw, yaml._yaml, multidict._multidict, yarl._quoting_c\n"
        "for d in m.distributions():\n"
        "    for r in d.requires or []:\n"
        "        if ';' not in r: m.distribution(re.match(r'[\\w.-]+', r)[0])\n"
        "print('whole')"
    )
    assert container.podman("exec", container.name, "python3", "-c", wanted) == "whole"


def test_the_container_pulls_reloads_stops_within_its_time_and_keeps_its_cache(
    container, origin, tmp_path
):
    container.pull(tmp_path / "first")
    container.podman(
        *("exec", container.name, "registry-mirror", "reload"),
        *("--config", "/etc/registry-mirror/mirror.yaml"),
    )
    container.podman("stop", container.name, seconds=GRACE + 15)
    inspected = json.loads(container.podman("inspect", container.name))[0]
    assert inspected["State"]["ExitCode"] == 0
    assert not accepts(container.address, 5000)

    blobs = origin.storage / "docker/registry/v2/blobs"
    blobs.rename(blobs.with_name("away"))  # what comes now is the cache's
    try:
        container.podman("start", container.name)
        until(container.is_healthy, lambda: container.podman("logs", container.name))
        container.pull(tmp_path / "second")
    finally:
        blobs.with_name("away").rename(blobs)
    different = subprocess.run(["diff", "-r", tmp_path / "first", tmp_path / "second"])
    assert different.returncode == 0


def test_the_image_is_for_this_machine(user, image):
    inspected = json.loads(user.do("podman", "image", "inspect", image))[0]
    assert (inspected["Os"], inspected["Architecture"]) == ("linux", HERE)
