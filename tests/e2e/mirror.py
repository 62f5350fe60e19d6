"""The mirror, run as its users run it: one process and one configuration file."""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request
from typing import Any

from .machines import Hosts, Machine
from .programs import Program, Programs, accepts, loopback_address, run

PORT = 5000
ADMIN_PORT = 5001
START = 20  # seconds

_SAMPLE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")


class Mirror:
    """One mirror at an address and a folder of its own, to be killed and started again.

    `docker_io` is the part `registries: docker.io:` of the configuration, `keys` is what stands
    beside it. With `hosts` it runs where the network looks like that: that needs root.
    """

    def __init__(
        self, programs: Programs, docker_io: dict[str, Any], hosts: Hosts | None = None, **keys: Any
    ) -> None:
        self.address = loopback_address()
        self.port = PORT
        self.url = f"http://{self.address}:{PORT}"
        self.admin = f"http://{self.address}:{ADMIN_PORT}"
        self.storage = programs.folder / "storage"
        self._programs = programs
        self._machine = Machine(hosts.write(programs.folder / "mirror-hosts")) if hosts else None
        self._environment = hosts.environment() if hosts else {}
        self.configuration = programs.folder / "mirror.yaml"
        self._keys: dict[str, Any] = {
            "listen": f"{self.address}:{PORT}",
            "admin": f"{self.address}:{ADMIN_PORT}",
            "storage": {"path": str(self.storage), "max_size": "2GiB"},
            "registries": {"docker.io": docker_io},
            **keys,
        }
        self.configuration.write_text(json.dumps(self._keys))  # YAML contains JSON
        self._program: Program | None = None

    def configure(self, **keys: Any) -> None:
        """With these keys, too, when it is started next."""
        self._keys |= keys
        self.configuration.write_text(json.dumps(self._keys))

    def start(self) -> Mirror:
        """Starts it, and waits until it answers."""
        arguments = ("serve", "--config", str(self.configuration))
        if self._machine is None:
            self._program = self._programs.start_mirror(*arguments)
        else:
            argv = self._machine.argv(sys.executable, "-m", "mirror", *arguments)
            self._program = self._programs.start("mirror", *argv, env=self._environment)
        self._program.wait_until(
            lambda: accepts(self.address, PORT) and accepts(self.address, ADMIN_PORT),
            "the mirror listens",
            START,
        )
        return self

    def reload(self, docker_io: dict[str, Any]) -> None:
        """Docker Hub is configured like this from now on, as the operator's command has it."""
        self._keys["registries"]["docker.io"] = docker_io
        self.configuration.write_text(json.dumps(self._keys))
        run(sys.executable, "-m", "mirror", "reload", "--config", self.configuration)

    @property
    def program(self) -> Program:
        """The running process."""
        assert self._program is not None, "the mirror was not started"
        return self._program

    def kill(self) -> None:
        """kill -9."""
        self.program.kill()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        return self.program.stop()

    def words(self) -> str:
        """All that it wrote, over all its lives."""
        return self.program.log.read_text()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; the name without its prefix."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        total = 0.0
        for line in lines:
            sample = _SAMPLE.fullmatch(line)
            if sample and sample["name"] == f"registry_mirror_{name}":
                carried = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"] or ""))
                if labels.items() <= carried.items():
                    total += float(sample["value"])
        return total

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """GET of a path, with no client's ways about it: the status and the body."""
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def endpoint(url: str, **keys: Any) -> dict[str, Any]:
    """The configuration of docker.io with one endpoint, at that URL.

    A tag is fresh for a millisecond: so every pull asks the upstream again, or finds it dead.
    """
    return {
        "endpoints": [{"url": url, "trust": "tags"}],
        "freshness": {"ttl": "1ms", "stale": "24h"},
        **keys,
    }
