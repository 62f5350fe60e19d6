"""The proof that a client asks the mirror: it pulls the image that only a mirror has.

Each trial asks for a tag that no client can have: what it gets was asked for just now. Blocking.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..frozen import dataclass
from ..oci.probe_image import REPOSITORY

_WITHIN = 90.0  # seconds: dockerd gives up a mirror that hangs after 15, and asks the registry
_TAG_BYTES = 6
_NAMESPACE = "registry-mirror-check"
_SHOWN = 300  # characters of what a client says


@dataclass(frozen=True, slots=True)
class Trial:
    """`program`: which asked, "" where none is here. `words`: what it said when it failed."""

    registry: str
    program: str
    went_through: bool
    words: str = ""


def try_client(client: str, registry: str, folder: Path) -> Trial:
    """`folder` is containerd's certs.d."""
    image = f"{registry}/{REPOSITORY}:{os.urandom(_TAG_BYTES).hex()}"
    programs = _PROGRAMS[client]
    found = next((name for name in programs if shutil.which(name)), None)
    if found is None:
        return Trial(registry, "", False, f"{' or '.join(programs)} is not on the PATH here")
    with tempfile.TemporaryDirectory() as room:
        pull, forget = _commands(found, client, image, folder, room)
        failure = _run(pull)
        if failure is None and forget:
            _run(forget)
    return Trial(registry, found, failure is None, failure or "")


_PROGRAMS = {
    "docker": ("docker",),
    "containerd": ("ctr",),
    "podman": ("podman", "skopeo"),
    "crio": ("crictl",),
    "k3s": ("k3s",),
}


def _commands(
    program: str, client: str, image: str, folder: Path, room: str
) -> tuple[Sequence[str], Sequence[str]]:
    """By which it pulls the image, and forgets it."""
    if program == "ctr":
        ctr = ("ctr", "--namespace", _NAMESPACE, "images")
        return (*ctr, "pull", "--hosts-dir", str(folder), image), (*ctr, "rm", "--sync", image)
    if program == "skopeo":
        return ("skopeo", "copy", "--quiet", f"docker://{image}", f"dir:{room}"), ()
    if program in ("crictl", "k3s"):
        crictl = ("crictl",) if program == "crictl" else ("k3s", "crictl")
        return (*crictl, "pull", image), (*crictl, "rmi", image)
    return (program, "pull", "--quiet", image), (program, "rmi", image)


def _run(words: Sequence[str]) -> str | None:
    """What it said last if it failed, None if it did not."""
    try:
        done = subprocess.run(  # noqa: S603 - without a shell; an image's name is of our making
            words, capture_output=True, timeout=_WITHIN, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it has not ended within {_WITHIN:g} s"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    if done.returncode == 0:
        return None
    said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
    return said[-1][:_SHOWN] if said else f"it ended with {done.returncode}"


def docker_mirrors() -> Sequence[str] | None:
    """The mirrors that the running dockerd goes by; None where it does not answer."""
    words = ("docker", "info", "--format", "{{json .RegistryConfig.Mirrors}}")
    try:
        done = subprocess.run(  # noqa: S603 - fixed words, without a shell
            words, capture_output=True, timeout=_WITHIN, check=True
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return [str(each) for each in found or ()]
