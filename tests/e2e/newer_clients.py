"""Clients newer than this system's: a Debian suite's packages, unpacked beside it.

`python -m tests.e2e.newer_clients` fetches them ahead of time. Nothing of the machine's own
packages changes: apt works here with state and sources of its own. A suite is fetched once (about
15 s and 400 MB) into the user's cache folder, and shared by all later runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# What is wanted of each suite. sid has Docker 28 or newer, containerd 2.1 and skopeo 1.22; trixie
# has podman 5.4.
SUITES = {
    "sid": ("docker.io", "docker-cli", "containerd", "runc", "skopeo"),
    "trixie": ("podman",),
}

# Folders that programs expect, and links of a merged /usr.
FOLDERS = ("proc", "sys", "dev", "tmp", "run", "root", "etc/containers", "var/lib", "var/tmp")
MERGED = ("bin", "sbin", "lib", "lib64")


class NotAvailable(Exception):
    """The suite cannot be had here; says why."""


def root_of(suite: str) -> Path:
    """The root folder of a suite's unpacked packages; fetched first when it is not there.

    Safe to call from several processes. Raises NotAvailable.
    """
    if os.geteuid() != 0:
        raise NotAvailable("another suite's programs run in a root of their own: be root")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "registry-mirror-tests"
    home.mkdir(parents=True, exist_ok=True)
    root = home / suite
    wanted = json.dumps(SUITES[suite])
    with (home / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = root / ".complete"
        if not complete.exists() or complete.read_text() != wanted:
            shutil.rmtree(root, ignore_errors=True)
            _unpack(suite, root)
            complete.write_text(wanted)
    return root


def _unpack(suite: str, root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for path in ("state/lists/partial", "cache/archives/partial"):
            (work / path).mkdir(parents=True)
        (work / "status").touch()  # nothing is installed: every dependency is fetched too
        archive = _archive()
        (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {archive} {suite} main\n")
        settings = {
            "Dir::State": work / "state",
            "Dir::State::status": work / "status",
            "Dir::Cache": work / "cache",
            "Dir::Etc::SourceList": work / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
        _run(*apt, "update")
        _run(*apt, "install", "-y", "--download-only", "--no-install-recommends", *SUITES[suite])
        for path in (*FOLDERS, *(f"usr/{name}" for name in MERGED)):
            (root / path).mkdir(parents=True, exist_ok=True)
        for name in MERGED:
            (root / name).symlink_to(f"usr/{name}")
        for package in sorted((work / "cache/archives").glob("*.deb")):
            files = subprocess.Popen(
                ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
            )
            subprocess.run(
                ["tar", "-x", "--keep-directory-symlink", "-C", str(root)],
                stdin=files.stdout,
                check=True,
            )
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", root / "etc" / name)
    (root / "etc/hosts").touch()
    (root / "etc/nsswitch.conf").write_text("hosts: files\n")
    policy = {"default": [{"type": "insecureAcceptAnything"}]}
    (root / "etc/containers/policy.json").write_text(json.dumps(policy))


def _archive() -> str:
    """The Debian archive that this machine uses already."""
    sites = _run("apt-get", "indextargets", "--format", "$(SITE)", "Label: Debian").split()
    if not sites:
        raise NotAvailable("apt knows no Debian archive here: run apt-get update, on Debian")
    return sites[0]


def _run(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=600)
    except FileNotFoundError as error:
        raise NotAvailable(f"there is no {argv[0]} here: {error}") from None
    except subprocess.TimeoutExpired:
        raise NotAvailable(f"{argv[0]} took too long to fetch the newer clients") from None
    except subprocess.CalledProcessError as error:
        words = str(error.stderr)[-500:]
        raise NotAvailable(f"{argv[0]} could not fetch the newer clients: {words}") from None
    return done.stdout


if __name__ == "__main__":
    for each in SUITES:
        print(root_of(each))
