"""The mirror, its peers and the upstream, each with a configuration that does it justice."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .corpus import INDEX_TYPE, MANIFEST_TYPE, Blob, Manifest
from .programs import ROOT, Cost, Program, drayage, find, free_port

if TYPE_CHECKING:
    from tests.e2e.certificates import Certificate

# As dockerd asks: docker-registry hides OCI manifests from who does not name them.
ACCEPT = f"{MANIFEST_TYPE}, {INDEX_TYPE}, */*"


class WrongAnswer(Exception):
    """A server gave something else than it was asked for: its figures are worth nothing."""


def connected(port: int, authority: str | None, timeout: float | None = None) -> socket.socket:
    """A connection to a server here; `authority`: PEM, of one that speaks TLS."""
    client = socket.create_connection(("127.0.0.1", port), timeout)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if authority is None:
        return client
    return _trust(authority).wrap_socket(client, server_hostname="127.0.0.1")


@cache
def _trust(authority: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority)


@dataclass
class Server:
    """One that answers on a port of 127.0.0.1. `name` is what tables call it. `authority`: whom
    its clients have to trust; None: it speaks no TLS."""

    name: str
    port: int
    program: Program
    authority: str | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.authority else 'http'}://127.0.0.1:{self.port}"

    def connection(self) -> http.client.HTTPConnection:
        if self.authority is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        trust = _trust(self.authority)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=120, context=trust)

    @contextmanager
    def cost(self) -> Iterator[Cost]:
        with self.program.cost() as cost:
            yield cost

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body; on a connection of its own."""
        connection = self.connection()
        try:
            connection.request(method, path, body, {"Accept": ACCEPT, **(headers or {})})
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, fields, answer.read()
        finally:
            connection.close()

    def prove(self, path: str, digest: str, login: Mapping[str, str] | None = None) -> None:
        """Takes the whole body, and raises WrongAnswer unless it is what the digest names."""
        connection = self.connection()
        try:
            connection.request("GET", path, headers={"Accept": ACCEPT, **(login or {})})
            answer, seen = connection.getresponse(), hashlib.sha256()
            while piece := answer.read(1 << 20):
                seen.update(piece)
        finally:
            connection.close()
        if answer.status != 200 or f"sha256:{seen.hexdigest()}" != digest:
            raise WrongAnswer(f"{self.name} answered {answer.status} and wrong bytes for {path}")

    def answers(self) -> bool:
        with suppress(OSError, http.client.HTTPException):
            return self.ask("/v2/")[0] in (200, 401)
        return False


@dataclass
class Upstream(Server):
    """The registry that all others pull from."""

    def offer(self, blobs: Iterable[Blob] = (), *manifests: Manifest) -> None:
        offered: dict[str, dict[str, Any]] = {"blobs": {}, "manifests": {}}
        for blob in blobs:
            offered["blobs"] |= blob.offer()
        for manifest in manifests:
            offered["manifests"] |= manifest.offer()
        self.ask("/_offer", "PUT", body=json.dumps(offered).encode())

    def given(self, digest: str) -> tuple[int, int]:
        """How many downloads of this were begun, and how many bytes of it were sent."""
        given = json.loads(self.ask("/_given")[2])
        return given["downloads"].get(digest, 0), given["bytes"].get(digest, 0)


class Content(Protocol):
    """What a static server is to have of small things."""

    @property
    def config(self) -> Blob: ...

    @property
    def manifests(self) -> Sequence[Manifest]: ...


class House:
    """Servers with their files in one folder; they are stopped when the context ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._count = 0

    def __enter__(self) -> House:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def certificate(self) -> Certificate:
        """What all servers here that speak TLS show."""
        from tests.e2e.certificates import issue  # slow to import, and clients import this module

        return issue(self.folder, ("127.0.0.1",))

    def upstream(
        self, *, rate: float | None = None, delay: float = 0.0, tls: bool = False
    ) -> Upstream:
        """`rate`: of its link, in bytes a second. `delay`: seconds before each answer."""
        folder, port = self._room("upstream"), free_port()
        argv = [sys.executable, "-m", "bench.upstream", "--port", str(port), "--delay", str(delay)]
        if rate:
            argv += ["--rate", str(rate)]
        if tls:
            argv += ["--certificate", str(self.certificate.server)]
        program = self.started(argv, folder)
        upstream = Upstream("upstream, direct", port, program, self._authority(tls))
        upstream.program.wait_until(upstream.answers)
        return upstream

    def mirror(
        self,
        upstream: Server,
        name: str = "mirror",
        *,
        workers: int | Literal["auto"] = 1,
        durability: str = "full",
        tls: bool = False,
        others: Sequence[Server] = (),
        more: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Server:
        """`tls`: at its own port. `others`: more endpoints of the registry. `more`: keys of
        sections of mirror.yaml."""
        folder, port = self._room("mirror"), free_port()
        configuration = folder / "mirror.yaml"
        sections: dict[str, Any] = {
            "listen": f"127.0.0.1:{port}",
            "admin": f"127.0.0.1:{free_port()}",
            "workers": workers,
            "storage": {
                "path": str(folder / "data"),
                "max_size": "100GiB",
                "durability": durability,
            },
            "registries": {
                "docker.io": {
                    "endpoints": [{"url": each.url} for each in (upstream, *others)],
                    "freshness": {"ttl": "1h"},
                    **({"ca_file": upstream.authority} if upstream.authority else {}),
                }
            },
        }
        if tls:
            sections["tls"] = {"cert": str(self.certificate.server)}
        for section, keys in (more or {}).items():
            given = sections.get(section)
            sections[section] = {**given, **keys} if isinstance(given, dict) else keys
        configuration.write_text(json.dumps(sections))  # JSON is YAML too
        argv = [sys.executable, "-m", "mirror", "serve", "--config", str(configuration)]
        server = Server(name, port, self.started(argv, folder), self._authority(tls))
        server.program.wait_until(server.answers)
        return server

    def hosted(self, name: str = "mirror") -> Server:
        """The mirror's repositories of one's own, which the user `bench` may push to."""
        folder, port = self._room("hosted"), free_port()
        configuration = folder / "mirror.yaml"
        configuration.write_text(
            json.dumps(
                {
                    "listen": f"127.0.0.1:{free_port()}",
                    "admin": f"127.0.0.1:{free_port()}",
                    "storage": {"path": str(folder / "data"), "max_size": "100GiB"},
                    "hosted": {"listen": f"127.0.0.1:{port}"},
                }
            )
        )
        program = [sys.executable, "-m", "mirror"]
        argv = [*program, "serve", "--config", str(configuration)]
        server = Server(name, port, self.started(argv, folder))
        server.program.wait_until(server.answers)
        password = folder / "password"
        password.write_text("bench-bench-bench")
        add = [*program, "user", "add", "bench", "--password-file", str(password)]
        subprocess.run(
            [*add, "--config", str(configuration)], cwd=ROOT, check=True, capture_output=True
        )
        return server

    def docker_registry(
        self, upstream: Server | None, bucket: Mapping[str, object] | None = None
    ) -> Server:
        """Debian's docker-registry as a pull-through cache, or to push to. `bucket`: where it keeps
        content; None: in files. It passes the bytes on, and sends nobody to the bucket."""
        folder, port = self._room("docker-registry"), free_port()
        proxy = {} if upstream is None else {"remoteurl": upstream.url}
        files = {"filesystem": {"rootdirectory": str(folder / "data"), "maxthreads": 100}}
        configuration = folder / "config.yml"
        configuration.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "log": {"level": "error", "accesslog": {"disabled": True}},
                    "storage": {
                        **({"s3": bucket, "redirect": {"disable": True}} if bucket else files),
                        "cache": {"blobdescriptor": "inmemory"},
                    },
                    "http": {"addr": f"127.0.0.1:{port}"},
                    **({"proxy": proxy} if proxy else {}),
                }
            )
        )
        # An authority that AWS_CA_BUNDLE names is nothing that its old client takes.
        environment = {"AWS_CA_BUNDLE": ""} if bucket else {}
        if upstream is not None and upstream.authority:
            environment["SSL_CERT_FILE"] = upstream.authority
        argv = [find("docker-registry"), "serve", str(configuration)]
        program = self.started(argv, folder, environment)
        server = Server("docker-registry", port, program)
        server.program.wait_until(server.answers)
        return server

    def drayage(self, upstream: Server) -> Server:
        """drayage as a pull-through cache, with one thread for its event loop. Raises Unavailable
        where it cannot be installed."""
        folder, port = self._room("drayage"), free_port()
        (folder / "data").mkdir()
        configuration = folder / "config.toml"
        configuration.write_text(
            f'listen = "127.0.0.1:{port}"\ncache_dir = "{folder}/data"\n'
            "manifest_ttl_seconds = 3600\n"
            f'[upstreams.docker_io]\nregistry = "http://127.0.0.1:{upstream.port}"\n'
        )
        argv = [drayage(), "serve", "--config", str(configuration)]
        environment = {"TOKIO_WORKER_THREADS": "1", "RUST_LOG": "error"}
        server = Server("drayage", port, self.started(argv, folder, environment))
        server.program.wait_until(server.answers)
        return server

    def nginx(
        self, content: Content, blobs: Iterable[Blob] = (), *, workers: int, tls: bool = False
    ) -> Server:
        """nginx with the same content in files: sendfile, open files remembered, no access log."""
        folder, port = self._room("nginx"), free_port()
        files = folder / "www/v2/bench/app"
        (files / "blobs").mkdir(parents=True)
        (files / "manifests").mkdir()
        for blob in (content.config, *blobs):
            blob.write(files / "blobs" / blob.digest)
        types = ""
        for manifest in content.manifests:
            for name in filter(None, (manifest.digest, manifest.tag)):
                (files / "manifests" / name).write_bytes(manifest.data)
                types += _NGINX_MANIFEST.format(
                    name=name, media_type=manifest.media_type, digest=manifest.digest
                )
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _NGINX.format(
                workers=workers,
                user="user root;" if os.geteuid() == 0 else "",
                folder=folder,
                port=port,
                manifests=types,
                tls=_NGINX_TLS.format(pem=self.certificate.server) if tls else "",
            )
        )
        argv = [find("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(configuration)]
        name = "nginx, 1 worker" if workers == 1 else f"nginx, {workers} workers"
        server = Server(name, port, self.started(argv, folder), self._authority(tls))
        server.program.wait_until(server.answers)
        return server

    def _authority(self, tls: bool) -> str | None:
        return str(self.certificate.authority) if tls else None

    def forget(self, digest: str) -> None:
        """Removes this content from everybody's disk: what they keep files of it in."""
        for found in self.folder.rglob(digest.partition(":")[2]):
            (found / "data" if found.is_dir() else found).unlink(missing_ok=True)

    def _room(self, name: str) -> Path:
        self._count += 1
        folder = self.folder / f"{self._count}-{name}"
        folder.mkdir()
        return folder

    def started(
        self, argv: list[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> Program:
        program = Program(argv, folder / "log", environment)
        self._stack.callback(program.stop)
        return program


_NGINX = """
daemon off;
{user}
worker_processes {workers};
pid {folder}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    open_file_cache max=1000;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    types {{ }}
    server {{
        listen 127.0.0.1:{port} backlog=1024 {tls};
        root {folder}/www;
        location = /v2/ {{ return 200; }}
        location /v2/bench/app/blobs/ {{ default_type application/octet-stream; }}
        {manifests}
    }}
}}
"""

_NGINX_TLS = """ssl;
        ssl_certificate {pem};
        ssl_certificate_key {pem};
        ssl_protocols TLSv1.3"""

_NGINX_MANIFEST = """
        location = /v2/bench/app/manifests/{name} {{
            default_type {media_type};
            add_header Docker-Content-Digest {digest};
        }}
"""
