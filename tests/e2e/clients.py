"""Real clients, each told of one mirror of Docker Hub in its own way.

Every client has its files in a folder of its own, takes nothing from this machine's configuration,
and runs in a mount namespace where /etc/hosts names Docker Hub's hosts as the test wants them.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .machines import Hosts, Machine, no_hub
from .newer_clients import root_of
from .programs import Program, Programs, run

ACCOUNT, PASSWORD = "bob", "hunter2"  # of the hub's accounts
LOGIN = base64.b64encode(f"{ACCOUNT}:{PASSWORD}".encode()).decode()


class Client(ABC):
    """One client on one machine. Images are named in full: `docker.io/library/demo:latest`."""

    programs: tuple[str, ...]
    # Whether it asks for every platform's manifest and config, but for one platform's layers.
    asks_all_platforms = False

    def __init__(self, programs: Programs, mirror: str, suite: str, hosts: Hosts) -> None:
        self.programs = programs
        self.mirror = mirror
        self.machine = Machine(
            hosts.write(programs.folder / "hosts"), root_of(suite) if suite else None
        )
        self.environment = {"HOME": str(programs.folder), **hosts.environment()}

    def command(self, *words: str | Path) -> str:
        """Runs one of the client's commands to its end, and returns what it printed.

        Raises AssertionError with its words when it fails.
        """
        return run(*self.machine.argv(*words), env=self.environment).stdout

    def daemon(self, name: str, *words: str | Path) -> Program:
        return self.programs.start(name, *self.machine.argv(*words), env=self.environment)

    def answers(self, *words: str | Path) -> bool:
        """Whether a command succeeds by now."""
        argv = self.machine.argv(*words)
        environment = {**os.environ, **self.environment}
        return subprocess.run(argv, capture_output=True, env=environment).returncode == 0

    @abstractmethod
    def pull(self, image: str) -> None: ...

    @abstractmethod
    def forget(self) -> None:
        """Removes all that was pulled: the next pull begins from nothing."""

    def load(self, archive: Path, image: str) -> None:
        """Takes an image out of an OCI image layout in a tar."""
        raise NotImplementedError

    def save(self, image: str, archive: Path) -> None:
        """Writes an image that was pulled into such a tar."""
        raise NotImplementedError

    @abstractmethod
    def log_in(self) -> None:
        """Makes the user one who is logged in to Docker Hub as ACCOUNT."""

    def run(self, image: str) -> str | None:
        """What the image's command prints; None from a client that runs nothing."""
        return None


class Dockerd(Client):
    """The Docker daemon with `registry-mirrors`, and its classic store."""

    programs = ("dockerd", "docker", "containerd", "runc")
    containerd_store = False

    def __init__(self, programs: Programs, mirror: str, suite: str, hosts: Hosts) -> None:
        super().__init__(programs, mirror, suite, hosts)
        folder = programs.folder
        self.socket = f"unix://{folder}/docker.sock"
        self.login = folder / "docker"
        self.environment["DOCKER_CONFIG"] = str(self.login)
        configuration = {
            "registry-mirrors": [mirror],
            "data-root": f"{folder}/docker-data",
            "exec-root": f"{folder}/docker-exec",
            "pidfile": f"{folder}/docker.pid",
            "hosts": [self.socket],
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
            "features": {"containerd-snapshotter": self.containerd_store},
        }
        (folder / "daemon.json").write_text(json.dumps(configuration))
        daemon = self.daemon("dockerd", "dockerd", "--config-file", folder / "daemon.json")
        daemon.wait_until(lambda: self.answers(*self._docker("version")), "dockerd answers", 60)

    def _docker(self, *words: str) -> list[str]:
        return ["docker", "--host", self.socket, *words]

    def pull(self, image: str) -> None:
        self.command(*self._docker("pull", "--quiet", image))

    def forget(self) -> None:
        images = self.command(*self._docker("images", "--quiet", "--no-trunc")).split()
        self.command(*self._docker("rmi", "--force", *set(images)))

    def save(self, image: str, archive: Path) -> None:
        own = archive.with_suffix(".docker")
        self.command(*self._docker("save", "--output", str(own), image))
        copy = ("skopeo", "--insecure-policy", "copy", "--quiet")
        self.command(*copy, f"docker-archive:{own}", f"oci-archive:{archive}:{image}")

    def log_in(self) -> None:
        self.login.mkdir(exist_ok=True)
        logins = {"auths": {"https://index.docker.io/v1/": {"auth": LOGIN}}}
        (self.login / "config.json").write_text(json.dumps(logins))

    def run(self, image: str) -> str:
        return self.command(*self._docker("run", "--rm", "--net", "none", image))


class DockerdWithContainerd(Dockerd):
    """The Docker daemon that keeps its images in containerd's store."""

    containerd_store = True


class Containerd(Client):
    """containerd with `hosts.toml`, and its own command `ctr`."""

    programs = ("containerd", "ctr", "runc")

    def __init__(self, programs: Programs, mirror: str, suite: str, hosts: Hosts) -> None:
        super().__init__(programs, mirror, suite, hosts)
        folder = programs.folder
        self.asks_all_platforms = bool(suite)  # containerd 2 does
        self.login: list[str] = []
        self._ctr = ["ctr", "--address", f"{folder}/containerd.sock"]
        (folder / "hosts.d/docker.io").mkdir(parents=True)
        (folder / "hosts.d/docker.io/hosts.toml").write_text(
            f'server = "https://registry-1.docker.io"\n'
            f'[host."{mirror}"]\n  capabilities = ["pull", "resolve"]\n'
        )
        (folder / "containerd.toml").write_text(
            f'version = 2\nroot = "{folder}/containerd"\nstate = "{folder}/containerd-state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\n  address = "{folder}/containerd.sock"\n'
        )
        daemon = self.daemon("containerd", "containerd", "--config", folder / "containerd.toml")
        daemon.wait_until(lambda: self.answers(*self._ctr, "version"), "containerd answers")

    def pull(self, image: str) -> None:
        hosts = f"{self.programs.folder}/hosts.d"
        self.command(*self._ctr, "images", "pull", "--hosts-dir", hosts, *self.login, image)

    def forget(self) -> None:
        images = self.command(*self._ctr, "images", "list", "--quiet").split()
        self.command(*self._ctr, "images", "remove", "--sync", *images)

    def load(self, archive: Path, image: str) -> None:
        self.command(*self._ctr, "images", "import", archive)
        assert image in self.command(*self._ctr, "images", "list", "--quiet").split()

    def save(self, image: str, archive: Path) -> None:
        self.command(*self._ctr, "images", "export", archive, image)

    def log_in(self) -> None:
        self.login = ["--user", f"{ACCOUNT}:{PASSWORD}"]

    def run(self, image: str) -> str:
        container = f"container-{os.getpid()}"  # all containerds here share runc's folder
        return self.command(*self._ctr, "run", "--rm", image, container)


class Podman(Client):
    """podman with `registries.conf`. It runs nothing here: what it would need of cgroups and limits
    is not on every machine, and a pull says all there is to say."""

    programs = ("podman",)

    def __init__(self, programs: Programs, mirror: str, suite: str, hosts: Hosts) -> None:
        super().__init__(programs, mirror, suite, hosts)
        folder = programs.folder
        registries = registries_conf(folder, mirror)
        self.environment["CONTAINERS_REGISTRIES_CONF"] = str(registries)
        self._podman = [
            *("podman", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"),
            *("--root", f"{folder}/podman", "--runroot", f"{folder}/podman-run"),
        ]

    def pull(self, image: str) -> None:
        self.command(*self._podman, "pull", "--quiet", image)

    def forget(self) -> None:
        self.command(*self._podman, "rmi", "--all", "--force")

    def load(self, archive: Path, image: str) -> None:
        self.command(*self._podman, "pull", f"oci-archive:{archive}:{image}")

    def save(self, image: str, archive: Path) -> None:
        words = ("save", "--quiet", "--format", "oci-archive", "--output", archive, image)
        self.command(*self._podman, *words)

    def log_in(self) -> None:
        self.environment["REGISTRY_AUTH_FILE"] = str(write_login(self.programs.folder))


class Skopeo(Client):
    """skopeo with `registries.conf`, copying to a folder."""

    programs = ("skopeo",)

    def __init__(self, programs: Programs, mirror: str, suite: str, hosts: Hosts) -> None:
        super().__init__(programs, mirror, suite, hosts)
        registries = registries_conf(programs.folder, mirror)
        self._skopeo = ["skopeo", "--registries-conf", str(registries), "--insecure-policy"]
        self._copies = programs.folder / "copies"

    def pull(self, image: str) -> None:
        self._copies.mkdir(exist_ok=True)
        copy = self._copies / str(len(list(self._copies.iterdir())))
        self.command(*self._skopeo, "copy", "--quiet", f"docker://{image}", f"dir:{copy}")

    def load(self, archive: Path, image: str) -> None:
        copy = self.programs.folder / "loaded"
        self.command(*self._skopeo, "copy", f"oci-archive:{archive}:{image}", f"dir:{copy}")

    def save(self, image: str, archive: Path) -> None:
        to = f"oci-archive:{archive}:{image}"
        self.command(*self._skopeo, "copy", "--quiet", f"docker://{image}", to)

    def tags(self, repository: str) -> list[str]:
        """All that `skopeo list-tags` shows, which asks no mirror: the name begins with one."""
        words = ("list-tags", "--tls-verify=false", f"docker://{repository}")
        shown = json.loads(self.command(*self._skopeo, *words))
        return [str(tag) for tag in shown["Tags"]]

    def forget(self) -> None:
        shutil.rmtree(self._copies)

    def log_in(self) -> None:
        self.environment["REGISTRY_AUTH_FILE"] = str(write_login(self.programs.folder))


def registries_conf(folder: Path, mirror: str) -> Path:
    """The configuration of podman and skopeo: Docker Hub, and its mirror."""
    path = folder / "registries.conf"
    path.write_text(
        'unqualified-search-registries = ["docker.io"]\n'
        '[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n'
        f'[[registry.mirror]]\nlocation = "{urlsplit(mirror).netloc}"\n'
        f"insecure = {'false' if mirror.startswith('https:') else 'true'}\n"
    )
    return path


def write_login(folder: Path) -> Path:
    """What `podman login docker.io` leaves."""
    path = folder / "logins.json"
    path.write_text(json.dumps({"auths": {"docker.io": {"auth": LOGIN}}}))
    return path


@dataclass(frozen=True)
class Flavour:
    """A client, and the Debian suite that it comes from: "" for this system's own."""

    client: type[Client]
    suite: str = ""

    def start(self, programs: Programs, mirror: str, hosts: Hosts | None = None) -> Client:
        return self.client(programs, mirror, self.suite, hosts or no_hub())


# By the name that pytest shows.
DOCKERS = {
    "docker": Flavour(Dockerd),
    "docker-sid": Flavour(Dockerd, "sid"),
    "docker-sid-containerd-store": Flavour(DockerdWithContainerd, "sid"),
}
FLAVOURS = DOCKERS | {
    "containerd": Flavour(Containerd),
    "containerd-sid": Flavour(Containerd, "sid"),
    "podman": Flavour(Podman),
    "podman-trixie": Flavour(Podman, "trixie"),
    "skopeo": Flavour(Skopeo),
    "skopeo-sid": Flavour(Skopeo, "sid"),
}
