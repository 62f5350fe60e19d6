"""A registry, the mirror before it, a real client: a miss, a hit, a hit without the registry.

`python -m demo`, from the root. It needs no internet and leaves nothing behind: the
registry is the stand-in for Docker Hub of the end-to-end tests.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from http import HTTPStatus
from http.client import HTTPConnection
from urllib.parse import urlsplit

from tests.e2e.clients import Client, Dockerd, Skopeo
from tests.e2e.hub import Hub, Origin, Request
from tests.e2e.images import HERE, OCI, build
from tests.e2e.machines import no_hub
from tests.e2e.mirror import Mirror, endpoint
from tests.e2e.programs import Programs, missing

MB = 1_000_000
REPOSITORY = "library/demo"
LAYERS = (MB // 10, 8 * MB, 20 * MB)  # bytes, above a layer with busybox
LINE_SPEED = 10 * MB  # bytes a second of each blob


class Plain(Client):
    """Where neither docker nor skopeo is: the requests of a pull, and every digest proven."""

    programs = ()

    def pull(self, image: str) -> None:
        repository, _, tag = image.removeprefix("docker.io/").partition(":")
        index = json.loads(self._get(repository, "manifests", tag))
        (digest,) = (
            each["digest"]
            for each in index["manifests"]
            if each["platform"]["architecture"] == HERE
        )
        manifest = json.loads(self._get(repository, "manifests", digest))
        for part in (manifest["config"], *manifest["layers"]):
            self._get(repository, "blobs", part["digest"])

    def _get(self, repository: str, kind: str, reference: str) -> bytes:
        accept = {"Accept": ", ".join((OCI["index"], OCI["manifest"]))}
        connection = HTTPConnection(urlsplit(self.mirror).netloc, timeout=60)
        connection.request("GET", f"/v2/{repository}/{kind}/{reference}", headers=accept)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(f"the mirror answers {answer.status}: {body[:500]!r}")
        if ":" in reference and reference != f"sha256:{hashlib.sha256(body).hexdigest()}":
            raise RuntimeError(f"the bytes of {reference} are others")
        return body

    def forget(self) -> None:
        """It keeps nothing."""

    def log_in(self) -> None:
        raise NotImplementedError("it has no user")


def main() -> int:
    wanted = missing("docker-registry", "busybox")
    if wanted:
        print(f"The demo needs a registry and an image's content: {wanted}", file=sys.stderr)
        return 1
    with Programs() as programs:
        tell(programs)
    return 0


def tell(programs: Programs) -> None:
    """Plays the story, and prints a line for each pull."""
    origin = Origin(programs)
    image = build(REPOSITORY, OCI, LAYERS)
    origin.push(image, REPOSITORY)
    hub = Hub(programs, origin, bytes_per_second=LINE_SPEED)
    mirror = Mirror(programs, endpoint(hub.url)).start()
    client = next(kind for kind in (Dockerd, Skopeo, Plain) if not missing(*kind.programs))(
        programs, mirror.url, "", no_hub()
    )
    name = f"docker.io/{REPOSITORY}:latest"
    size = sum(len(image.blobs[digest]) for digest in image.blobs_of(HERE))
    print(
        f"Upstream  {hub.url} wants a token, and sends {LINE_SPEED / MB:g} MB/s a blob\n"
        f"Mirror    {mirror.url}\n"
        f"Client    {client.__class__.__name__.lower()} pulls {name}: "
        f"{len(image.blobs_of(HERE)) - 1} layers, {size / MB:.1f} MB\n\n"
        f"{'':<28}{'time':>8}{'from upstream':>16}  asked of it"
    )

    def pull(what: str) -> None:
        hub.forget_requests()
        begun = time.monotonic()
        client.pull(name)
        seconds = time.monotonic() - begun
        asked = [each for each in hub.requests() if each.status < HTTPStatus.MULTIPLE_CHOICES]
        received = sum(each.length for each in asked if each.method == "GET") / MB
        print(f"{what:<28}{seconds:>6.2f} s{received:>13.1f} MB  {kinds_of(asked)}", flush=True)

    pull("miss")
    client.forget()
    pull("hit")
    client.forget()
    hub.stop()
    pull("hit, the upstream stopped")
    printed = client.run(name)
    if printed is not None:
        print(f"\nIts container says: {printed.strip()}")


def kinds_of(asked: list[Request]) -> str:
    """What the upstream was asked for, in words."""
    counts = {
        "token": sum(each.role == "realm" for each in asked),
        "check of the tag": sum(each.method == "HEAD" for each in asked),
        "manifest": sum(each.role == "registry" and each.method == "GET" for each in asked),
        "blob": sum(each.role == "blobs" for each in asked),
    }
    words = [f"{n} {what}{'s' * (n > 1)}" for what, n in counts.items() if n]
    return ", ".join(words) or "nothing"
