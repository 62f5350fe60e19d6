"""Asks small things, one after the other on each of many connections, and counts the answers.

`wrk` where it can: it is the cheapest client there is here. It cannot wait for the answer to a HEAD
(it expects a body), so a loop of our own does those; `calibration` shows both on one server.
"""

from __future__ import annotations

import json
import re
import resource
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..programs import find
from ..servers import ACCEPT, Server, WrongAnswer
from .child import Children, Job, obey


@dataclass(frozen=True)
class Asking:
    """`rate`: answers a second. `busy`: the share of a core that asking took: near 1 the client is
    what was measured. `p99`: in milliseconds, None when it was not taken."""

    rate: float
    requests: int
    busy: float
    p99: float | None = None


_SCRIPT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"bytes":%d,"microseconds":%d,"errors":%d,"p99":%f}',
    summary.requests, summary.bytes, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(99)))
end
"""


def wrk(
    server: Server,
    path: str,
    connections: int,
    seconds: float,
    headers: dict[str, str] | None = None,
    expect: int = 200,
) -> Asking:
    """Raises WrongAnswer when an answer had another status or length than one asked alone."""
    headers = {"Accept": ACCEPT, **(headers or {})}
    status, fields, body = server.ask(path, headers=headers)
    if status != expect:
        raise WrongAnswer(f"{server.name} answered {status} for {path}, not {expect}")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT)
        script.flush()
        argv = [find("wrk"), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        for name, value in headers.items():
            argv += ["-H", f"{name}: {value}"]
        url = f"{server.url}{path}"
        before = _children_cpu()
        words = subprocess.run(
            [*argv, "-s", script.name, url], capture_output=True, text=True, check=True
        ).stdout
        used = _children_cpu() - before
    found = re.search(r"RESULT (\{.*\})", words)
    if found is None:
        raise RuntimeError(f"wrk said:\n{words}")
    result = json.loads(found[1])
    # Without a body the whole answer is its head, whose length is not known to the byte.
    least = len(body)
    most = least + 100 + sum(len(name) + len(value) + 4 for name, value in fields.items())
    requests, came = result["requests"], result["bytes"]
    # At the end one answer of each connection may have come in part.
    if result["errors"] or not least * requests <= came <= most * (requests + connections):
        raise WrongAnswer(
            f"{server.name}, {path}: {result['errors']} errors, and {came} bytes in {requests} "
            f"answers of {least} to {most}"
        )
    seconds = result["microseconds"] / 1e6
    return Asking(requests / seconds, requests, used / seconds, result["p99"] / 1000)


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ask(
    server: Server, path: str, connections: int, seconds: float, method: str = "HEAD"
) -> Asking:
    """As `wrk`, by a loop of our own. Raises WrongAnswer."""
    status, fields, body = server.ask(path, method)
    if status != 200:
        raise WrongAnswer(f"{server.name} answered {status} for {method} {path}")
    job = {
        "method": method,
        "path": path,
        "connections": connections,
        "seconds": seconds,
        "body": len(body),
        "length": fields["content-length"],
    }
    children = Children("bench.load.asking", server, [job])
    children.go()
    (report,) = children.reports()
    seconds = report["seconds"]
    return Asking(report["requests"] / seconds, report["requests"], report["cpu"] / seconds)


def _work(job: Job, start: Callable[[], float]) -> Job:
    request = (
        f"{job['method']} {job['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {ACCEPT}\r\n\r\n"
    ).encode()
    length, body = f"content-length: {job['length']}\r\n".encode(), job["body"]
    poller, by_fd = select.epoll(), {}
    arrived: dict[int, bytes] = {}
    usual = 0  # the length of the last answer: most are as long, and need less looking at
    for _ in range(job["connections"]):
        client = socket.create_connection(("127.0.0.1", job["port"]))
        by_fd[client.fileno()] = client
        poller.register(client, select.EPOLLIN)
    began = start()
    deadline, requests = began + job["seconds"], 0
    errors: list[str] = []
    for client in by_fd.values():
        client.sendall(request)
    while not errors and time.monotonic() < deadline:
        for fd, _ in poller.poll(1):
            client = by_fd[fd]
            answer = client.recv(65536)
            if len(answer) == usual and answer.startswith(b"HTTP/1.1 200") and fd not in arrived:
                requests += 1
                client.send(request)
                continue
            answer = arrived.pop(fd, b"") + answer
            end = answer.find(b"\r\n\r\n") + 4
            if end == 3 or len(answer) < end + body:
                arrived[fd] = answer
                continue
            if (
                len(answer) != end + body
                or not answer.startswith(b"HTTP/1.1 200")
                or length not in answer[:end].lower()
            ):
                errors.append(answer[:200].decode("latin-1"))
                break
            usual = len(answer)
            requests += 1
            client.send(request)
    return {"requests": requests, "seconds": time.monotonic() - began, "errors": errors}


if __name__ == "__main__":
    obey(_work)
