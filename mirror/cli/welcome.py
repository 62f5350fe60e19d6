"""What somebody at a terminal who has just started a mirror needs to know."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import __version__
from ..clients.urls import Reach
from ..config import Config, HostedConfig
from ..oci.probe_image import REPOSITORY
from ..oci.registries import DOCKER_HUB
from .console import err


def welcome(config: Config, path: Path | None) -> None:
    from ..app import facts, forewarned, own_reach

    for words in forewarned(config):
        err.print(f"warning: {words}", markup=False)
    text = "\n".join(lines(config, path, own_reach(config), facts(config)["page"]))
    err.print(f"\n{text}\n", markup=False)


def own_name() -> str:
    """By which this program is started from a shell here."""
    name = Path(sys.argv[0]).name
    found = shutil.which(name)
    if found and os.path.realpath(found) == os.path.realpath(sys.argv[0]):
        return name
    return sys.argv[0] if name == "registry-mirror" else f"{sys.executable} -m mirror"


def lines(config: Config, path: Path | None, reach: Reach, page: str) -> Iterator[str]:
    """`path`: where the configuration was read. `page`: of the admin port."""
    registries = sorted(config.registries, key=lambda name: (name != DOCKER_HUB, name))
    url = reach.elsewhere or reach.here
    yield f"registry-mirror {__version__} serves {', '.join(registries)}."
    yield f"  on this host      {reach.here}"
    if reach.elsewhere:
        yield f"  on other hosts    {reach.elsewhere}"
    else:
        yield '  on other hosts    not reachable: write listen: ":5000" for that'
    if config.hosted is not None:
        yield f"  hosted, to push   {hosted_at(config.hosted)}: see {own_name()} user, org, robot"
    yield f"  page and metrics  {page}"
    yield f"  store             {config.storage.path.absolute()}"
    yield f"  configuration     {path or 'none: the defaults'}"
    yield "Tell a client:"
    yield from _clients(config, registries, url)
    yield "  or by command, which shows a diff first, and proves it (also: podman, crio, k3s):"
    client = "docker" if DOCKER_HUB in registries else "containerd"
    yield f"    {own_name()} setup {client} --url {url} --write --check"
    yield "See that it works, with no client told of anything; the second time it is a hit:"
    if DOCKER_HUB in registries and reach.here.startswith("http://127."):
        prefix = "" if config.default_registry == DOCKER_HUB else f"{DOCKER_HUB}/"
        yield f"    docker pull {reach.here.removeprefix('http://')}/{prefix}library/busybox"
    registry = registries[0] if registries else ""
    yield f"    curl -i '{reach.here}/v2/{REPOSITORY}/manifests/1?ns={registry}'"


def hosted_at(config: HostedConfig) -> str:
    """Where repositories of one's own are: `127.0.0.1:5002, registry.corp.lan`."""
    return config.url or ", ".join([*map(str, config.listen), *config.hosts])


def _clients(config: Config, registries: Sequence[str], url: str) -> Iterator[str]:
    if DOCKER_HUB in registries:
        path = "" if config.default_registry == DOCKER_HUB else f"/{DOCKER_HUB}"
        yield "  Docker, in /etc/docker/daemon.json; then systemctl reload docker:"
        yield f'    {{"registry-mirrors": ["{url}{path}"]}}'
    if list(registries) == [DOCKER_HUB]:
        return
    names = ", ".join(registries)
    yield f"  containerd, in /etc/containerd/certs.d/<registry>/hosts.toml, for {names}:"
    yield f'    [host."{url}"]'
    yield '      capabilities = ["pull", "resolve"]'
    place = url.partition("://")[2]
    plain = ", insecure = true" if url.startswith("http://") else ""
    yield "  podman, in /etc/containers/registries.conf.d/registry-mirror.conf:"
    for registry in registries:
        location = place if registry == config.default_registry else f"{place}/{registry}"
        mirror = f'{{location = "{location}"{plain}}}'
        yield f'    [[registry]]\n    location = "{registry}"\n    mirror = [{mirror}]'
