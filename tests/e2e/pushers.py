"""Real clients that log in, push and pull at a registry of one's own.

Each is for several registries at once, as a user's is. A registry at a loopback address is spoken
to in plain HTTP, one with a name in TLS by an authority that the client's system trusts.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from abc import ABC, abstractmethod
from pathlib import Path

from ..deploy.kubernetes_programs import program
from .machines import Machine
from .newer_clients import root_of
from .programs import PATH, Programs


def is_plain(registry: str) -> bool:
    return registry.startswith("127.")


class Refused(Exception):
    """The client says no, in these words."""


class Pusher(ABC):
    """`hosts` is a file as /etc/hosts. References are `registry/repository:tag`."""

    programs: tuple[str, ...]
    suite = ""

    def __init__(self, programs: Programs, hosts: Path, authority: Path) -> None:
        self.folder = programs.folder
        self.started = programs
        self.machine = Machine(hosts, root_of(self.suite) if self.suite else None)
        self.environment = {
            "PATH": PATH,
            "HOME": str(self.folder),
            "SSL_CERT_FILE": str(authority),
            "REGISTRY_AUTH_FILE": str(self.folder / "auth.json"),
            "DOCKER_CONFIG": str(self.folder / "docker"),
            "HTTP_PROXY": "",
            "HTTPS_PROXY": "",
        }
        # A client that has kept a login in a file keeps the next one there, and asks no helper that
        # this machine happens to have.
        kept = json.dumps({"auths": {"elsewhere.test": {"auth": "bmFtZTpwYXNz"}}})
        (self.folder / "docker").mkdir()
        for path in ("auth.json", "docker/config.json", "helm.json"):
            (self.folder / path).write_text(kept)
        self.start()

    def start(self) -> None:
        """What it takes before its first command."""
        return

    def call(self, *words: str | Path, given: str = "") -> str:
        """What a command prints. Raises Refused with its words where it fails."""
        done = subprocess.run(
            self.machine.argv(*words),
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **self.environment},
        )
        if done.returncode:
            raise Refused(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
        return done.stdout

    @abstractmethod
    def log_in(self, registry: str, user: str, password: str) -> None: ...

    @abstractmethod
    def log_out(self, registry: str) -> None: ...

    def load(self, archive: Path) -> None:
        """Takes an image out of an OCI image layout in a tar; one that builds its own does not."""
        return

    @abstractmethod
    def push(self, reference: str) -> None:
        """Pushes a small image that the client has."""

    @abstractmethod
    def pull(self, reference: str) -> None:
        """Pulls it, with nothing of it kept from before."""


class DockerPusher(Pusher):
    programs = ("dockerd", "docker", "containerd", "runc")
    containerd_store = False

    def start(self) -> None:
        self._docker = ["docker", "--host", f"unix://{self.folder}/docker.sock"]
        configuration = {
            "data-root": f"{self.folder}/docker-data",
            "exec-root": f"{self.folder}/docker-exec",
            "pidfile": f"{self.folder}/docker.pid",
            "hosts": [f"unix://{self.folder}/docker.sock"],
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
            "features": {"containerd-snapshotter": self.containerd_store},
        }
        path = self.folder / "daemon.json"
        path.write_text(json.dumps(configuration))
        argv = self.machine.argv("dockerd", "--config-file", path)
        daemon = self.started.start("dockerd", *argv, env=self.environment)
        daemon.wait_until(self._answers, "dockerd answers", 60)
        archive = self.folder / "files.tar"
        with tarfile.open(archive, "w") as tar:
            name = self.folder / "name"
            name.write_text(type(self).__name__)
            tar.add(name, "name")
        self.docker("import", str(archive), "local:1")

    def _answers(self) -> bool:
        try:
            self.docker("version")
        except Refused:
            return False
        return True

    def docker(self, *words: str, given: str = "") -> str:
        return self.call(*self._docker, *words, given=given)

    def log_in(self, registry: str, user: str, password: str) -> None:
        self.docker("login", "--username", user, "--password-stdin", registry, given=password)

    def log_out(self, registry: str) -> None:
        self.docker("logout", registry)

    def push(self, reference: str) -> None:
        self.docker("tag", "local:1", reference)
        self.docker("push", reference)

    def pull(self, reference: str) -> None:
        self.docker("rmi", "--force", reference)
        self.docker("pull", reference)

    def search(self, registry: str, term: str) -> list[str]:
        shown = self.docker("search", "--format", "{{.Name}}", f"{registry}/{term}")
        return shown.split()


class DockerSidPusher(DockerPusher):
    suite = "sid"


class DockerSidContainerdPusher(DockerPusher):
    suite = "sid"
    containerd_store = True


class ContainerdPusher(Pusher):
    """ctr, which keeps no login: it is given with each command."""

    programs = ("containerd", "ctr")

    def start(self) -> None:
        self._ctr = ["ctr", "--address", f"{self.folder}/containerd.sock"]
        self._logins: dict[str, str] = {}
        path = self.folder / "containerd.toml"
        path.write_text(
            f'version = 2\nroot = "{self.folder}/containerd"\nstate = "{self.folder}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\n  address = "{self.folder}/containerd.sock"\n'
        )
        argv = self.machine.argv("containerd", "--config", path)
        daemon = self.started.start("containerd", *argv, env=self.environment)
        daemon.wait_until(self._answers, "containerd answers")

    def _answers(self) -> bool:
        try:
            self.call(*self._ctr, "version")
        except Refused:
            return False
        return True

    def _options(self, reference: str) -> list[str]:
        registry = reference.partition("/")[0]
        login = self._logins.get(registry)
        return [
            *(["--plain-http"] if is_plain(registry) else []),
            *(["--user", login] if login else []),
        ]

    def log_in(self, registry: str, user: str, password: str) -> None:
        self._logins[registry] = f"{user}:{password}"

    def log_out(self, registry: str) -> None:
        self._logins.pop(registry, None)

    def load(self, archive: Path) -> None:
        self.call(*self._ctr, "images", "import", "--all-platforms", archive)

    def push(self, reference: str) -> None:
        images = self.call(*self._ctr, "images", "list", "--quiet").split()
        if reference not in images:
            self.call(*self._ctr, "images", "tag", images[0], reference)
        self.call(*self._ctr, "images", "push", *self._options(reference), reference)

    def pull(self, reference: str) -> None:
        self.call(*self._ctr, "images", "remove", "--sync", reference)
        self.call(*self._ctr, "images", "pull", *self._options(reference), reference)


class PodmanPusher(Pusher):
    programs = ("podman",)

    def start(self) -> None:
        self._podman = [
            *("podman", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"),
            *("--root", f"{self.folder}/podman", "--runroot", f"{self.folder}/podman-run"),
        ]
        policy = self.folder / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def podman(self, *words: str | Path, given: str = "") -> str:
        return self.call(*self._podman, *words, given=given)

    def _tls(self, reference: str) -> str:
        return f"--tls-verify={'false' if is_plain(reference) else 'true'}"

    def log_in(self, registry: str, user: str, password: str) -> None:
        words = ("login", self._tls(registry), "--username", user, "--password-stdin", registry)
        self.podman(*words, given=password)

    def log_out(self, registry: str) -> None:
        self.podman("logout", registry)

    def load(self, archive: Path) -> None:
        self.podman("pull", "--quiet", f"oci-archive:{archive}")
        self._local = self.podman("images", "--quiet", "--no-trunc").split()[0]

    def push(self, reference: str) -> None:
        self.podman("push", self._tls(reference), self._local, reference)

    def pull(self, reference: str) -> None:
        self.podman("pull", "--quiet", self._tls(reference), reference)

    def search(self, registry: str, term: str) -> list[str]:
        words = ("search", self._tls(registry), "--format", "{{.Name}}", f"{registry}/{term}")
        return [name.removeprefix(f"{registry}/") for name in self.podman(*words).split()]


class SkopeoPusher(Pusher):
    programs = ("skopeo",)

    def skopeo(self, *words: str | Path, given: str = "") -> str:
        return self.call("skopeo", "--insecure-policy", *words, given=given)

    def _tls(self, reference: str, side: str = "") -> str:
        return f"--{side}tls-verify={'false' if is_plain(reference) else 'true'}"

    def log_in(self, registry: str, user: str, password: str) -> None:
        words = ("login", self._tls(registry), "--username", user, "--password-stdin", registry)
        self.skopeo(*words, given=password)

    def log_out(self, registry: str) -> None:
        self.skopeo("logout", registry)

    def load(self, archive: Path) -> None:
        self._archive = archive

    def push(self, reference: str) -> None:
        to = (
            self._tls(reference, "dest-"),
            f"oci-archive:{self._archive}",
            f"docker://{reference}",
        )
        self.skopeo("copy", "--all", "--quiet", *to)

    def pull(self, reference: str) -> None:
        to = self.folder / "pulled"
        self.skopeo(
            "copy", "--quiet", self._tls(reference, "src-"), f"docker://{reference}", f"dir:{to}"
        )

    def tags(self, repository: str) -> list[str]:
        shown = self.skopeo("list-tags", self._tls(repository), f"docker://{repository}")
        return [str(tag) for tag in json.loads(shown)["Tags"]]

    def copy(self, reference: str, other: str) -> None:
        tls = (self._tls(reference, "src-"), self._tls(other, "dest-"))
        self.skopeo("copy", "--all", "--quiet", *tls, f"docker://{reference}", f"docker://{other}")

    def delete(self, reference: str) -> None:
        self.skopeo("delete", self._tls(reference), f"docker://{reference}")

    def sync(self, repository: str) -> Path:
        to = self.folder / "synced" / repository.replace("/", "-")
        words = ("--src", "docker", "--dest", "dir", "--all", self._tls(repository, "src-"))
        to.mkdir(parents=True)
        self.skopeo("sync", *words, repository, to)
        return to


class BuildahPusher(Pusher):
    """Builds what it pushes: an image of its own, and an index of it."""

    programs = ("buildah",)

    def start(self) -> None:
        self._buildah = [
            *("buildah", "--storage-driver", "vfs"),
            *("--root", f"{self.folder}/buildah", "--runroot", f"{self.folder}/buildah-run"),
        ]
        self._elsewhere = [
            *("buildah", "--storage-driver", "vfs"),
            *("--root", f"{self.folder}/pulled", "--runroot", f"{self.folder}/pulled-run"),
        ]
        context = self.folder / "context"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
        (context / "file").write_text("built here")
        build = ("bud", "--isolation", "chroot", "--quiet", "--manifest", "both", context)
        self.buildah(*build)

    def buildah(self, *words: str | Path, given: str = "") -> str:
        return self.call(*self._buildah, *words, given=given)

    def _tls(self, reference: str) -> str:
        return f"--tls-verify={'false' if is_plain(reference) else 'true'}"

    def log_in(self, registry: str, user: str, password: str) -> None:
        words = ("login", self._tls(registry), "--username", user, "--password-stdin", registry)
        self.buildah(*words, given=password)

    def log_out(self, registry: str) -> None:
        self.buildah("logout", registry)

    def push(self, reference: str) -> None:
        words = ("manifest", "push", "--all", "--quiet", self._tls(reference), "both")
        self.buildah(*words, f"docker://{reference}")

    def pull(self, reference: str) -> None:
        words = ("pull", "--policy", "always", "--quiet", self._tls(reference), reference)
        self.call(*self._elsewhere, *words)


class HelmPusher(Pusher):
    """A chart: its name and version are the repository's last part and the tag."""

    programs = ()

    def start(self) -> None:
        self._helm = program("helm")
        self.environment["HELM_REGISTRY_CONFIG"] = str(self.folder / "helm.json")

    def _chart(self, name: str, version: str) -> Path:
        chart = self.folder / name
        chart.mkdir(exist_ok=True)
        (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: {name}\nversion: {version}\n")
        self.call(self._helm, "package", chart, "--destination", self.folder)
        return self.folder / f"{name}-{version}.tgz"

    def _plain(self, registry: str) -> list[str]:
        return ["--plain-http"] if is_plain(registry) else []

    def log_in(self, registry: str, user: str, password: str) -> None:
        words = ("--username", user, "--password-stdin", *self._plain(registry))
        self.call(self._helm, "registry", "login", registry, *words, given=password)

    def log_out(self, registry: str) -> None:
        self.call(self._helm, "registry", "logout", registry)

    def push(self, reference: str) -> None:
        repository, _, version = reference.rpartition(":")
        folder, _, name = repository.rpartition("/")
        chart = self._chart(name, version)
        self.call(self._helm, "push", chart, f"oci://{folder}", *self._plain(reference))

    def pull(self, reference: str) -> None:
        repository, _, version = reference.rpartition(":")
        to = self.folder / "charts"
        to.mkdir(exist_ok=True)
        words = ("--version", version, "--destination", to, *self._plain(reference))
        self.call(self._helm, "pull", f"oci://{repository}", *words)
