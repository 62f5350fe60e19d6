"""The units of deploy/, installed as deploy/README.md says and run by a real systemd."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..e2e.hub import Origin
from ..e2e.images import OCI, build
from ..e2e.programs import Programs, run, unavailable
from ..waiting import until
from .booted import Machine, booted
from .checkout import copy_of_checkout

pytestmark = pytest.mark.xdist_group("systemd")  # one machine is booted for all

UNIT = "registry-mirror.service"
CONFIGURATION = "/etc/registry-mirror/mirror.yaml"
MB = 1_000_000


def recipe(deploy: Path) -> list[str]:
    """The commands of deploy/README.md, a line each."""
    section = (deploy / "README.md").read_text().split("## A service of the host")[1]
    block = re.search(r"(?:^    .*\n)+", section, re.MULTILINE)
    assert block is not None
    return [line.strip() for line in block[0].splitlines()]


@pytest.fixture(scope="module")
def machine(deploy, program) -> Iterator[Machine]:
    """The commands of the README have been typed there."""
    for name, package in (("systemctl", "systemd"), ("nsenter", "util-linux"), ("ip", "iproute2")):
        program(name, f"Debian's {package}")
    if os.geteuid() != 0:
        unavailable("to boot systemd, be root")
    with booted() as machine:
        copy_of_checkout(deploy.parent, machine.shared / "checkout")
        for line in recipe(deploy):
            fetches = "pip install" in line
            machine.do("sh", "-euc", f"cd /shared/checkout; {line}", network=not fetches)
        yield machine


@pytest.fixture(scope="module")
def origin(machine) -> Iterator[str]:
    """A registry in the machine; the name of an image in it."""
    with Programs() as programs:
        outside = Origin(programs)
        outside.push(build("library/demo", OCI, (MB // 10, 2 * MB, MB)), "library/demo")
        (machine.shared / "registry").mkdir()
        run("cp", "-a", outside.storage, machine.shared / "registry/storage")
    (machine.shared / "registry.yml").write_text(
        "{version: 0.1, log: {level: error}, http: {addr: '127.0.0.1:5050'},"
        " storage: {filesystem: {rootdirectory: /shared/registry/storage}}}"
    )
    machine.do("systemd-run", "--unit=origin", "docker-registry", "serve", "/shared/registry.yml")
    configure(machine, "")
    machine.do("systemctl", "reload", UNIT)
    return "library/demo:latest"


def configure(machine: Machine, more: str, workers: int = 1) -> None:
    """Writes mirror.yaml as it was installed, but for the registry: `more` is of docker.io's."""
    path = f"/proc/{machine.first}/root{CONFIGURATION}"
    text = Path(path).read_text().split("registries:")[0]
    text = re.sub(r"^workers: .*\n", "", text, flags=re.MULTILINE) + f"workers: {workers}\n"
    text += "registries:\n  docker.io:\n    endpoints:\n"
    text += f"      - {{url: http://127.0.0.1:5050, trust: tags}}\n{more}"
    Path(path).write_text(text)


def pull(image: str, into: str) -> list[str]:
    source = f"docker://127.0.0.1:5000/{image}"
    words = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]
    return [*words, source, f"dir:/tmp/{into}"]


def main_process(machine: Machine) -> str:
    return machine.property(UNIT, "MainPID")


def test_what_the_readme_says_gives_a_service_that_is_ready(machine):
    assert machine.property(UNIT, "ActiveState") == "active"
    assert machine.property(UNIT, "StatusText") != ""  # it speaks to systemd
    assert machine.property("registry-mirror.socket", "ActiveState") == "active"
    owner = machine.do("stat", "-c", "%a %U", "/var/lib/private/registry-mirror/")
    assert owner == "700 registry-mirror"


def test_a_pull_goes_through_and_is_kept(machine, origin):
    machine.do(*pull(origin, "first"))
    machine.do("systemctl", "stop", "origin")
    machine.do(*pull(origin, "second"))
    machine.do("systemd-run", "--unit=origin", "docker-registry", "serve", "/shared/registry.yml")


def test_a_mistake_fails_the_reload_and_changes_nothing(machine, origin):
    before = main_process(machine)
    configure(machine, "    freshnes: {ttl: 1m}\n")
    assert machine.run("systemctl", "reload", UNIT).returncode != 0
    assert machine.property(UNIT, "ActiveState") == "active"
    assert "freshnes" in machine.journal(UNIT)
    machine.do(*pull(origin, "third"))
    configure(machine, "    freshness: {ttl: 1m}\n")
    machine.do("systemctl", "reload", UNIT)
    assert main_process(machine) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_restart_fails_no_pull(machine, origin, workers):
    """Pulls go on, each on connections of its own, while the service restarts a few times."""
    configure(machine, "", workers)
    machine.do("systemctl", "restart", UNIT)
    ended = threading.Event()
    failures: list[str] = []
    pulls = [0, 0]

    def go_on(number: int) -> None:
        while not ended.is_set() and not failures:
            done = machine.run(*pull(origin, f"loop{number}-{pulls[number]}"))
            pulls[number] += 1
            if done.returncode != 0:
                failures.append(done.stderr)

    threads = [threading.Thread(target=go_on, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3 if workers == 1 else 2):
            before, seen = main_process(machine), list(pulls)
            machine.do("systemctl", "restart", UNIT)
            assert main_process(machine) != before
            until(lambda seen=seen: bool(failures) or all(map(int.__gt__, pulls, seen)))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_credential_is_handed_to_the_service_alone(machine, origin):
    login = "    credentials: {username: me, password_file: /run/credentials/%s/login_hub}\n"
    configure(machine, login % UNIT)
    assert machine.run("systemctl", "reload", UNIT).returncode != 0  # there is no such file yet
    secret = f"/proc/{machine.first}/root/etc/registry-mirror/credentials/hub"
    Path(secret).write_text("first\n")
    done = machine.run("systemctl", "restart", UNIT)
    assert done.returncode == 0, machine.run("journalctl", "--no-pager", "-n", "40").stdout
    handed = f"/run/credentials/{UNIT}/login_hub"
    assert machine.do("cat", handed) == "first"
    assert machine.run("runuser", "-u", "nobody", "--", "cat", handed).returncode != 0
    Path(secret).write_text("second\n")
    machine.do("systemctl", "restart", UNIT)
    assert machine.do("cat", handed) == "second"
    machine.do(*pull(origin, "with-login"))


def test_what_is_killed_or_stuck_is_started_again(machine, origin):
    killed = main_process(machine)
    machine.do("kill", "-KILL", killed)
    machine.do(*pull(origin, "after-kill"))  # waits at the socket
    stuck = main_process(machine)
    assert stuck != killed
    override = Path(f"/proc/{machine.first}/root/run/systemd/system/{UNIT}.d")
    override.mkdir(parents=True)
    (override / "watchdog.conf").write_text("[Service]\nWatchdogSec=1s\n")
    machine.do("systemctl", "daemon-reload")
    machine.do("systemctl", "restart", UNIT)
    stuck = main_process(machine)
    machine.do("kill", "-STOP", stuck)
    until(lambda: main_process(machine) not in ("0", stuck), lambda: machine.journal(UNIT))
    machine.do(*pull(origin, "after-stuck"))


def test_a_mistake_at_the_start_is_not_tried_again(machine, origin):
    configure(machine, "    freshnes: {ttl: 1m}\n")
    assert machine.run("systemctl", "restart", UNIT).returncode != 0
    until(lambda: machine.property(UNIT, "ActiveState") == "failed")
    assert machine.property(UNIT, "ExecMainStatus") == "2"
    assert "freshnes" in machine.journal(UNIT)
    # Clients that wait would have it tried for ever. They are refused, and go elsewhere.
    socket = "registry-mirror.socket"
    ask = machine.argv("curl", "--silent", "--max-time", "60", "http://127.0.0.1:5000/v2/")
    assert subprocess.run(ask, capture_output=True, timeout=70).returncode not in (0, 28)
    until(lambda: machine.property(socket, "ActiveState") == "failed")
    assert machine.property(socket, "Result") == "trigger-limit-hit"
    configure(machine, "")
    machine.do("systemctl", "restart", socket, UNIT)
    assert machine.property(socket, "ActiveState") == "active"
    machine.do(*pull(origin, "mended"))


def test_a_stop_ends_with_success(machine, origin):
    words = ("systemctl", "stop", "registry-mirror.socket", UNIT)
    done = subprocess.run(machine.argv(*words), timeout=40)
    assert done.returncode == 0
    assert machine.property(UNIT, "Result") == "success"
    assert machine.property(UNIT, "ActiveState") == "inactive"
