"""What TLS costs on the mirror's port, beside nginx with the same certificate and file.

    .venv/bin/python -m bench.tls

One process of the mirror, one worker of nginx, on one machine with the client (wrk), which decrypts
on the same cores: so figures are to be read as ratios of one run.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.certificates import issue
from tests.e2e.programs import REPOSITORY, loopback_address
from tests.fakes.hub import Hub

SECONDS = 6
_UNITS = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


@dataclass(frozen=True)
class Measured:
    """Answers and bytes a second, and the seconds of a core that the server took for each."""

    rate: float
    bytes: float
    cpu: float


def cpu_of(pid: int) -> float:
    """Seconds of a process and of those it has started, so far."""
    total = 0.0
    for each in [str(pid), *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]:
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def measure(pid: int, url: str, connections: int, *, closes: bool = False) -> Measured:
    before = cpu_of(pid)
    began = time.monotonic()
    header = ["-H", "Connection: close"] if closes else []
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", *header, url]
    printed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    lasted = time.monotonic() - began
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", printed)[1])  # type: ignore[index]
    moved = re.search(r"Transfer/sec:\s+([\d.]+)(\w+)", printed)
    assert moved is not None
    if "Non-2xx" in printed:
        raise SystemExit(f"{url}: {printed}")
    return Measured(rate, float(moved[1]) * _UNITS[moved[2]], (cpu_of(pid) - before) / lasted)


NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; keepalive_requests 1000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  ssl_certificate {pem}; ssl_certificate_key {pem}; ssl_session_tickets on;
  server {{ listen {address}:5443 ssl; listen {address}:5080; root {folder}/root; }}
}}
"""


async def main() -> None:
    contents = {"1 kB": os.urandom(1000), "100 MiB": os.urandom(100 << 20)}
    async with Hub() as hub:
        paths = {
            size: f"/v2/library/redis/blobs/{hub.add_blob(data)}" for size, data in contents.items()
        }
        await asyncio.to_thread(compare, hub.url, paths, contents)


def compare(hub: str, paths: dict[str, str], contents: dict[str, bytes]) -> None:
    """Both serve the same; the mirror has fetched it before it is measured."""
    with tempfile.TemporaryDirectory() as name:
        folder, ours, theirs = Path(name), loopback_address(), loopback_address()
        folder.chmod(0o755)  # nginx's worker is another user
        pem = issue(folder, (ours, theirs)).server
        for size, path in paths.items():
            file = folder / "root" / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(contents[size])
        configuration = {
            "listen": [f"{ours}:5443", {"address": f"{ours}:5080", "tls": False}],
            "admin": f"{ours}:5001",
            "tls": {"cert": str(pem)},
            "storage": {"path": str(folder / "store")},
            "registries": {"docker.io": {"endpoints": [{"url": hub}]}},
        }
        (folder / "mirror.yaml").write_text(json.dumps(configuration))
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, pem=pem, address=theirs))
        commands = (
            [sys.executable, "-m", "mirror", "serve", "-c", str(folder / "mirror.yaml")],
            ["nginx", "-c", str(folder / "nginx.conf")],
        )
        with (folder / "log").open("wb") as log:
            servers = [
                subprocess.Popen(argv, cwd=REPOSITORY, stdout=log, stderr=log) for argv in commands
            ]
        try:
            for path in paths.values():
                again = ("--retry", "30", "--retry-connrefused", "--retry-delay", "1")
                url = f"http://{ours}:5080{path}"
                subprocess.run(["curl", "-sf", *again, "-o", "/dev/null", url], check=True)
            table((servers[0].pid, ours), (servers[1].pid, theirs), paths)
        finally:
            for server in servers:
                server.terminate()
                server.wait()


Place = tuple[int, str]  # a process, and the address at which it serves


def table(mirror: Place, nginx: Place, paths: dict[str, str]) -> None:
    print("| what | mirror | nginx | mirror / nginx | cores: mirror, nginx |")
    print("|---|---|---|---|---|")
    for what, size, connections, closes in (
        ("100 MiB, 1 client", "100 MiB", 1, False),
        ("100 MiB, 8 clients", "100 MiB", 8, False),
        ("1 kB, 16 kept connections", "1 kB", 16, False),
        ("1 kB, a connection each", "1 kB", 16, True),
    ):
        for scheme, port in (("https", 5443), ("http", 5080)):
            ours, theirs = (
                measure(pid, f"{scheme}://{at}:{port}{paths[size]}", connections, closes=closes)
                for pid, at in (mirror, nginx)
            )
            if size == "1 kB":
                shown = f"{ours.rate:.0f}/s | {theirs.rate:.0f}/s | {ours.rate / theirs.rate:.2f}"
            else:
                quick = (ours.bytes / 1e6, theirs.bytes / 1e6)
                shown = f"{quick[0]:.0f} MB/s | {quick[1]:.0f} MB/s | {quick[0] / quick[1]:.2f}"
            print(f"| {what}, {scheme} | {shown} | {ours.cpu:.2f}, {theirs.cpu:.2f} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
