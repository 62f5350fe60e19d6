"""A stand-in for Docker Hub: a real registry behind a front that behaves as Docker Hub does."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .certificates import Certificate
from .front import Settings
from .images import Image, push
from .programs import Program, Programs, accepts, loopback_address

PORT = 5000


def serve_registry(
    programs: Programs, name: str, storage: Path, path: str = "", address: str = "", **keys: Any
) -> str:
    """Debian's `docker-registry` over this folder, with these keys of its configuration, below this
    path, at this address or a new one; its URL."""
    address = address or loopback_address()
    configuration = programs.folder / f"{name}.yml"
    configuration.write_text(
        json.dumps(
            {
                "version": 0.1,
                "log": {"level": "warn", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(storage)}},
                "http": {"addr": f"{address}:{PORT}", "prefix": f"{path}/"},
                **keys,
            }
        )
    )
    program = programs.start(name, "docker-registry", "serve", configuration)
    program.wait_until(lambda: accepts(address, PORT), "docker-registry listens")
    return f"http://{address}:{PORT}{path}"


class Origin:
    """A real registry that asks nobody for a login. `storage` is its folder."""

    def __init__(self, programs: Programs) -> None:
        self.storage = programs.folder / "origin"
        self.url = serve_registry(programs, "origin", self.storage)

    def push(self, image: Image, *repositories: str) -> None:
        """Puts the image into each repository, as its tag `latest`."""
        for repository in repositories:
            push(image, self.url, repository)


@dataclass(frozen=True)
class Request:
    """One request that reached the hub.

    `length` is its answer's Content-Length in bytes, `digest` its Docker-Content-Digest or "".
    """

    role: str  # registry, realm or blobs
    method: str
    path: str
    headers: list[tuple[str, str]]
    status: int
    length: int
    digest: str

    def header(self, name: str) -> str:
        """The header's value, or ""; names compare as HTTP's do."""
        return next((v for n, v in self.headers if n.lower() == name.lower()), "")


class Hub:
    """A front with a process of its own, to be stopped and started again at the same address.

    `url` is the registry's, `realm` that of its realm's host. `requests()` are all of its
    life, across its stops, but for those before `forget_requests()`.
    """

    def __init__(
        self,
        programs: Programs,
        origin: Origin,
        certificate: Certificate | None = None,
        bytes_per_second: float | None = None,
    ) -> None:
        self.address = loopback_address()
        self._programs = programs
        name = f"hub-{self.address}"
        self._requests = programs.folder / f"{name}.jsonl"
        self._gate = programs.folder / f"{name}.gate"
        self._settings = programs.folder / f"{name}.json"
        if certificate:
            # All three on the HTTPS port, by the names that Docker's own clients know.
            port = 443
            listen = [(self.address, port)]
            registry, realm, blobs = (f"https://{host}" for host in certificate.names)
        else:
            port = PORT
            elsewhere = loopback_address()
            listen = [(self.address, PORT), (self.address, PORT + 1), (elsewhere, PORT)]
            registry, realm, blobs = (f"http://{host}:{number}" for host, number in listen)
        self._port = port
        self.url, self.realm = registry, realm
        settings = Settings(
            origin=origin.url,
            listen=listen,
            registry=registry,
            realm=realm,
            blobs=blobs,
            requests=str(self._requests),
            gate=str(self._gate),
            certificate=str(certificate.server) if certificate else None,
            bytes_per_second=bytes_per_second,
        )
        self._settings.write_text(json.dumps(asdict(settings)))
        self._program: Program | None = None
        self.start()

    def start(self) -> None:
        """Starts it, unless it runs already. Tokens and signatures of a former run are void."""
        if self._program is None:
            self._program = self._programs.start(
                self._settings.stem, sys.executable, "-m", "tests.e2e.front", self._settings
            )
            self._program.wait_until(lambda: accepts(self.address, self._port), "the hub listens")

    def stop(self) -> None:
        """Ends it: connections to it are refused from now on."""
        if self._program is not None:
            self._program.kill()
            self._program = None

    def requests(self) -> list[Request]:
        """What was asked, in order of the answers."""
        if not self._requests.exists():
            return []
        return [Request(**json.loads(line)) for line in self._requests.read_text().splitlines()]

    def forget_requests(self) -> None:
        """Counts from zero."""
        self._requests.unlink(missing_ok=True)

    def downloads(self) -> Counter[str]:
        """How often each blob's bytes were asked of the blob host."""
        return Counter(
            each.path.partition("?")[0].rsplit("/", 1)[1]
            for each in self.requests()
            if each.role == "blobs" and each.method == "GET"
        )

    def manifests(self) -> Counter[str]:
        """How often each manifest was fetched by GET, which Docker Hub counts as a pull."""
        return Counter(
            each.digest
            for each in self.requests()
            if each.role == "registry"
            and each.method == "GET"
            and each.status == 200
            and "/manifests/" in each.path
        )

    def close_gate(self) -> None:
        """From now on every blob of a MB or more stops before its second half."""
        self._gate.touch()

    def open_gate(self) -> None:
        """Lets the waiting blobs end."""
        self._gate.unlink(missing_ok=True)


def written_below(folder: Path) -> bytes:
    """All bytes of all files below a folder: to look for what must not be there."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
