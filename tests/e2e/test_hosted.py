"""Repositories of one's own, by the clients that people push and pull with.

Two registries run for all tests: `plain` is one process with a port of its own, `tls` two workers
with a Host name at the mirror's port and a certificate by an authority of the test's own.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..commands import run
from ..deploy.kubernetes_programs import NotAvailable as NoHelm
from ..deploy.kubernetes_programs import program
from ..waiting import until
from .certificates import Certificate, issue
from .images import OCI, build_thin, write_archive
from .mirror import Mirror, endpoint
from .newer_clients import NotAvailable, root_of
from .programs import Programs, accepts, needs, unavailable
from .pushers import (
    BuildahPusher,
    ContainerdPusher,
    DockerPusher,
    DockerSidContainerdPusher,
    DockerSidPusher,
    HelmPusher,
    PodmanPusher,
    Pusher,
    Refused,
    SkopeoPusher,
)
from .receivers import Receiver, receiving

NAME = "registry.corp.test"
MIRRORED = "images.corp.test"  # what a mirror's clients call the registry of one's own
PASSWORD = "correct horse battery"
NOWHERE = endpoint("http://127.0.0.1:1")
INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPT = ", ".join([INDEX, OCI["manifest"], "application/vnd.docker.distribution.manifest.v2+json"])

PUSHERS: Mapping[str, type[Pusher]] = {
    "docker": DockerPusher,
    "docker-sid": DockerSidPusher,
    "docker-sid-containerd-store": DockerSidContainerdPusher,
    "containerd": ContainerdPusher,
    "podman": PodmanPusher,
    "skopeo": SkopeoPusher,
    "buildah": BuildahPusher,
    "helm": HelmPusher,
}

BOTH = ("plain", "tls")
SPARED = {("plain", "docker-sid")}  # its other store is there, and an older dockerd with this one


@dataclass(frozen=True)
class Registry:
    """`name` is what references begin with. ann maintains the organisation team; bob has nothing
    but his own repositories."""

    name: str
    url: str
    context: ssl.SSLContext | None
    mirror: Mirror

    def ask(
        self,
        method: str,
        path: str,
        user: str = "ann",
        data: bytes | None = None,
        **headers: str,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request, with no client's ways about it; "" shows no login."""
        login = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
        shown = {"Authorization": f"Basic {login}"} if user else {}
        headers = {"Host": self.name, "Accept": ACCEPT, **shown, **headers}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        handler = urllib.request.HTTPSHandler(context=self.context)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), handler)
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def push(self, repository: str, tag: str) -> str:
        """A small artifact, by three requests; the digest of its manifest."""
        data = tag.encode()
        blob = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for path in (f"/v2/{repository}/blobs/uploads/?digest={blob}",):
            assert self.ask("POST", path, data=data)[0] == 201
        part = {"mediaType": "text/plain", "digest": blob, "size": len(data)}
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI["manifest"],
            "artifactType": "text/plain",
            "config": part,
            "layers": [part],
        }
        path, kind = f"/v2/{repository}/manifests/{tag}", {"Content-Type": OCI["manifest"]}
        status, headers, body = self.ask("PUT", path, data=json.dumps(manifest).encode(), **kind)
        assert status == 201, body
        return headers["Docker-Content-Digest"]

    def asked(self, kind: str, repository: str) -> list[tuple[str, int]]:
        """Method and status of what the mirror's log has of these requests."""
        lines = [json.loads(line) for line in self.mirror.words().splitlines() if line[:1] == "{"]
        return [
            (line["method"], line["status"])
            for line in lines
            if line.get("kind") == kind and line.get("repository") == repository
        ]

    def has(self, repository: str, tag: str) -> bool:
        return self.ask("HEAD", f"/v2/{repository}/manifests/{tag}")[0] == 200

    def command(self, *words: str) -> str:
        """One of the mirror's own commands."""
        done = run(*words, "--config", self.mirror.configuration)
        assert done.status == 0, done.stderr
        return done.stdout


def _start(programs: Programs, certificate: Certificate | None) -> Registry:
    """With its users, as an operator makes them."""
    mirror = Mirror(programs, NOWHERE)
    port = 5002
    hosted: dict[str, Any] = {"listen": f"{mirror.address}:{port}"}
    keys: dict[str, Any] = {}
    context = None
    if certificate is not None:
        port = 5000
        hosted = {"hosts": [NAME]}
        keys = {"tls": {"cert": str(certificate.server)}, "workers": 2}
        context = ssl.create_default_context(cafile=certificate.authority)
        context.check_hostname = False
    hosted["webhooks"] = {"allow_private": ["127.0.0.0/8"]}
    registries = {"docker.io": NOWHERE, MIRRORED: {"hosted": True}}
    mirror.configure(hosted=hosted, registries=registries, **keys)
    mirror.start()
    mirror.program.wait_until(lambda: accepts(mirror.address, port), "it listens for pushes")
    scheme = "https" if certificate else "http"
    host = NAME if certificate else mirror.address
    registry = Registry(f"{host}:{port}", f"{scheme}://{mirror.address}:{port}", context, mirror)
    password = programs.folder / "password"
    password.write_text(PASSWORD)
    for user in ("ann", "bob"):
        registry.command("user", "add", user, "--password-file", str(password))
    registry.command("org", "add", "team")
    registry.command("org", "member", "team", "ann", "maintainer")
    return registry


@pytest.fixture(scope="module")
def certificate() -> Iterator[Certificate]:
    with Programs() as programs:
        yield issue(programs.folder, (NAME,))


@pytest.fixture(scope="module")
def registries(certificate: Certificate) -> Iterator[Mapping[str, Registry]]:
    with Programs() as one, Programs() as other, ThreadPoolExecutor(2) as threads:
        plain = threads.submit(_start, one, None)
        tls = threads.submit(_start, other, certificate)
        yield {"plain": plain.result(), "tls": tls.result()}
        for each in (one, other):
            for log in each.folder.glob("*.log"):
                print(f"--- {log}\n{log.read_text(errors='replace')[-20_000:]}")


@pytest.fixture(scope="module", params=BOTH)
def registry(registries: Mapping[str, Registry], request: pytest.FixtureRequest) -> Registry:
    return registries[request.param]


@pytest.fixture(scope="module")
def hosts(registries: Mapping[str, Registry], certificate: Certificate) -> Path:
    path = certificate.authority.parent / "hosts"
    path.write_text(f"127.0.0.1 localhost\n{registries['tls'].mirror.address} {NAME}\n")
    return path


@pytest.fixture(scope="module")
def pushers(hosts: Path, certificate: Certificate) -> Iterator[Mapping[str, Pusher]]:
    """Every client, begun when it is first asked for."""
    archive = certificate.authority.parent / "image.tar"
    write_archive(build_thin("pushed", OCI), archive)
    begun: list[Programs] = []

    class Begun(dict[str, Pusher]):
        def __missing__(self, name: str) -> Pusher:
            kind = PUSHERS[name]
            _have(kind)
            programs = Programs()
            begun.append(programs)
            self[name] = kind(programs.__enter__(), hosts, certificate.authority)
            self[name].load(archive)
            return self[name]

    try:
        yield Begun()
    finally:
        for programs in begun:
            for log in programs.folder.glob("*.log"):
                print(f"--- {log}\n{log.read_text(errors='replace')[-20_000:]}")
            programs.__exit__()


def _have(kind: type[Pusher]) -> None:
    try:
        if kind.suite:
            root_of(kind.suite)
        else:
            needs(*kind.programs)
        if kind is HelmPusher:
            program("helm")
    except (NotAvailable, NoHelm) as error:
        unavailable(str(error))


@pytest.mark.parametrize(
    ("registry", "name"),
    [(registry, name) for registry in BOTH for name in PUSHERS if (registry, name) not in SPARED],
    indirect=["registry"],
)
def test_log_in_push_pull_again_and_log_out(
    name: str, registry: Registry, pushers: Mapping[str, Pusher]
) -> None:
    client, repository = pushers[name], f"team/{name}"
    reference = f"{registry.name}/{repository}:1.0.0"
    with pytest.raises(Refused):
        client.push(reference)
    client.log_in(registry.name, "ann", PASSWORD)
    client.push(reference)
    assert registry.has(repository, "1.0.0")
    client.push(reference)
    client.pull(reference)
    client.log_out(registry.name)
    with pytest.raises(Refused):
        client.pull(reference)


def test_a_wrong_password_and_another_organisation_are_refused(
    registry: Registry, pushers: Mapping[str, Pusher]
) -> None:
    skopeo = pushers["skopeo"]
    with pytest.raises(Refused, match=r"(?i)unauthorized|invalid username"):
        skopeo.log_in(registry.name, "ann", "wrong")
    skopeo.log_in(registry.name, "bob", PASSWORD)
    with pytest.raises(Refused, match=r"(?i)denied|403"):
        skopeo.push(f"{registry.name}/team/bobs:1")
    skopeo.push(f"{registry.name}/bob/own:1")
    assert registry.has("bob/own", "1") is False  # ann
    skopeo.log_out(registry.name)


@pytest.mark.parametrize("name", ["docker", "docker-sid-containerd-store", "podman"])
def test_a_layer_that_another_repository_has_is_mounted(
    name: str, registry: Registry, pushers: Mapping[str, Pusher]
) -> None:
    client = pushers[name]
    client.log_in(registry.name, "ann", PASSWORD)
    client.push(f"{registry.name}/team/{name}-first:1")
    client.push(f"{registry.name}/team/{name}-second:1")
    assert registry.has(f"team/{name}-second", "1")
    assert ("POST", 201) in registry.asked("upload", f"team/{name}-second")
    client.pull(f"{registry.name}/team/{name}-second:1")
    client.log_out(registry.name)


def test_skopeo_copies_lists_syncs_and_deletes(
    registry: Registry, pushers: Mapping[str, Pusher]
) -> None:
    skopeo = pushers["skopeo"]
    assert isinstance(skopeo, SkopeoPusher)
    skopeo.log_in(registry.name, "ann", PASSWORD)
    first, second = f"{registry.name}/team/copied", f"{registry.name}/team/copy"
    skopeo.push(f"{first}:b")
    skopeo.push(f"{first}:a")
    skopeo.copy(f"{first}:a", f"{second}:1")
    assert skopeo.tags(first) == ["a", "b"]
    assert len(list(skopeo.sync(first).iterdir())) == 2
    skopeo.delete(f"{first}:a")  # the manifest, and so both
    assert not registry.has("team/copied", "b")
    assert registry.has("team/copy", "1")
    skopeo.log_out(registry.name)


def test_an_index_that_buildah_has_built_has_its_parts(
    registry: Registry, pushers: Mapping[str, Pusher]
) -> None:
    buildah = pushers["buildah"]
    buildah.log_in(registry.name, "ann", PASSWORD)
    buildah.push(f"{registry.name}/team/both:1")
    status, headers, body = registry.ask("GET", "/v2/team/both/manifests/1")
    assert (status, headers["Content-Type"]) == (200, INDEX)
    for part in json.loads(body)["manifests"]:
        assert registry.has("team/both", part["digest"])
    buildah.log_out(registry.name)


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_search_finds_what_one_may_see(
    name: str, registry: Registry, pushers: Mapping[str, Pusher]
) -> None:
    skopeo, client = pushers["skopeo"], pushers[name]
    skopeo.log_in(registry.name, "ann", PASSWORD)
    for repository in ("findable-open", "findable-closed"):
        skopeo.push(f"{registry.name}/team/{repository}:1")
    skopeo.log_out(registry.name)
    registry.command("repo", "set", "team/findable-open", "--public")
    assert isinstance(client, DockerPusher | PodmanPusher)
    assert client.search(registry.name, "findable") == ["team/findable-open"]
    client.log_in(registry.name, "ann", PASSWORD)
    both = ["team/findable-closed", "team/findable-open"]
    if name != "podman":  # which shows /v1/search no login
        assert sorted(client.search(registry.name, "findable")) == both
    assert client.search(registry.name, "findable-closed") == both[:1]
    client.log_out(registry.name)


def test_the_catalog_is_in_pages_and_by_rights(
    registry: Registry, pushers: Mapping[str, Pusher]
) -> None:
    skopeo = pushers["skopeo"]
    skopeo.log_in(registry.name, "ann", PASSWORD)
    for repository in ("catalog/a", "catalog/b", "catalog/c"):
        skopeo.push(f"{registry.name}/team/{repository}:1")
    skopeo.log_out(registry.name)
    _, headers, body = registry.ask("GET", "/v2/_catalog?n=2&last=team/catalog/")
    assert json.loads(body)["repositories"] == ["team/catalog/a", "team/catalog/b"]
    assert headers["Link"].endswith('>; rel="next"')
    following = headers["Link"].partition("<")[2].partition(">")[0]
    _, _, body = registry.ask("GET", following)
    assert json.loads(body)["repositories"][0] == "team/catalog/c"
    registry.command("repo", "set", "team/catalog/c", "--public")
    for user in ("bob", ""):
        _, _, body = registry.ask("GET", "/v2/_catalog", user)
        shown = json.loads(body)["repositories"]
        assert "team/catalog/c" in shown
        assert "team/catalog/a" not in shown


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def webhook(registry: Registry, receiver: Receiver, pattern: str) -> tuple[str, str]:
    """Its id and its secret."""
    of = ("--org", "team", "--repository", pattern, "--on", "push", "--on", "delete")
    made = json.loads(registry.command("webhook", "add", receiver.url, *of, "--json"))
    return made["webhook"]["id"], made["secret"]


@pytest.mark.parametrize("registry", ["tls"], indirect=True)
def test_a_webhook_is_told_of_pushes_and_deletes(registry: Registry, receiver: Receiver) -> None:
    """The workers record, their parent sends."""
    id, secret = webhook(registry, receiver, "told*")
    registry.push("team/elsewhere", "1")
    digest = registry.push("team/told", "1")
    until(lambda: receiver.events("push") != [], registry.mirror.words)
    (event,) = receiver.events("push")
    target = event["target"]
    assert (target["repository"], target["tag"]) == ("team/told", "1")
    assert (target["digest"], event["actor"]["name"]) == (digest, "ann")
    assert registry.ask("DELETE", "/v2/team/told/manifests/1")[0] == 202
    assert registry.ask("DELETE", f"/v2/team/told/manifests/{digest}")[0] == 202
    until(lambda: len(receiver.events("delete")) == 2, registry.mirror.words)
    told = {event["target"].get("tag") for event in receiver.events("delete")}
    assert told == {"1", None}
    registry.command("webhook", "ping", id)
    until(lambda: receiver.events("ping") != [], registry.mirror.words)
    assert receiver.is_signed(secret)
    registry.command("webhook", "remove", id, "--yes")


@pytest.mark.parametrize("registry", ["plain"], indirect=True)
def test_what_a_receiver_did_not_take_survives_kill_9(
    registry: Registry, receiver: Receiver
) -> None:
    id, _ = webhook(registry, receiver, "waits")
    receiver.status = 503
    registry.push("team/waits", "2")
    until(lambda: receiver.events("push") != [], registry.mirror.words)
    registry.mirror.kill()
    registry.mirror.start()
    waits = json.loads(registry.command("webhook", "deliveries", id, "--json").splitlines()[0])
    assert waits["state"] == "waiting"  # however often it was tried meanwhile
    receiver.status, before = 200, len(receiver.events("push"))
    registry.command("webhook", "redeliver", id, waits["id"])
    until(lambda: len(receiver.events("push")) > before, registry.mirror.words)
    assert {event["id"] for event in receiver.events("push")} == {waits["id"]}
    registry.command("webhook", "remove", id, "--yes")


def test_a_mirror_gives_what_is_public_to_whom_pulls_by_the_registry_s_name(
    registry: Registry,
) -> None:
    """What CI has pushed, clusters pull through the mirror, which takes no login and asks none."""
    digest = registry.push("team/shown", "1")
    through = f"/v2/team/shown/manifests/1?ns={MIRRORED}"
    mirror = f"{registry.mirror.address}:5000"
    at_mirror = dataclasses.replace(
        registry, name=mirror, url=registry.url.rpartition("//")[0] + "//" + mirror
    )
    status, headers, _ = at_mirror.ask("GET", through)
    assert (status, headers["WWW-Authenticate"]) == (403, None)
    registry.command("repo", "set", "team/shown", "--public")
    until(lambda: at_mirror.ask("GET", through, user="")[0] == 200, registry.mirror.words)
    status, headers, _ = at_mirror.ask("GET", through, user="")
    assert (status, headers["Docker-Content-Digest"]) == (200, digest)
    assert at_mirror.ask("GET", f"/v2/team/nothing/manifests/1?ns={MIRRORED}")[0] in (403, 404)
    status, _, _ = at_mirror.ask("PUT", through, data=b"{}")
    assert status == 405


def test_a_robot_pushes_what_it_may_until_it_is_removed(
    registry: Registry, pushers: Mapping[str, Pusher]
) -> None:
    """Clients that have a token already are refused, too, within seconds."""
    robot = json.loads(
        registry.command(
            "robot", "add", "team", "ci", "--repository", "ci/*", "--right", "push", "--json"
        )
    )
    app = f"{registry.name}/team/ci/app"
    clients = [pushers[name] for name in ("docker", "containerd", "podman")]
    for client in clients:
        client.log_in(registry.name, robot["login"], robot["secret"])
        client.push(f"{app}:1")
        with pytest.raises(Refused, match=r"(?i)denied|unauthorized|insufficient|40[13]"):
            client.push(f"{registry.name}/team/other:1")
    token = registry.ask("GET", "/token?scope=repository:team/ci/app:pull", user="ann")[2]
    shown = {"Authorization": f"Bearer {json.loads(token)['token']}"}
    assert registry.ask("HEAD", "/v2/team/ci/app/manifests/1", user="", **shown)[0] == 200
    registry.command("repo", "set", "team/ci/app", "--public")
    registry.command("robot", "remove", "team", "ci", "--yes")
    until(lambda: _is_refused(clients[0], f"{app}:2"), registry.mirror.words)
    for client in clients[1:]:
        assert _is_refused(client, f"{app}:2")
    for client in clients:
        client.log_out(registry.name)
        client.pull(f"{app}:1")  # which is anybody's


def _is_refused(client: Pusher, reference: str) -> bool:
    try:
        client.push(reference)
    except Refused:
        return True
    return False
