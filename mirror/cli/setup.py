"""setup: a container client of this host is told of the mirror, and proves that it asks it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ..clients import daemon_json, hosts_toml, k3s, registries_conf
from ..clients.files import HostFiles
from ..clients.plan import Plan, Served, Unusable
from ..clients.trial import Trial, docker_mirrors, try_client
from ..clock import Clock
from ..config import Config, Mistake, mirror_url, registry_name
from ..frozen import dataclass
from ..oci.probe_image import REPOSITORY
from ..oci.registries import DOCKER_HUB
from .console import (
    CONFIGURATION_WRONG,
    ConfigOption,
    err,
    explained,
    find_mirror,
    give_up,
    load_or_exit,
    out,
)

if TYPE_CHECKING:
    from ..clients.plan import Change

FAILED = 1

_ANSWERS_WITHIN = 10.0  # seconds, the mirror
_STYLES = {"ok": "green", "FAIL": "bold red"}


class Client(StrEnum):
    DOCKER = "docker"
    CONTAINERD = "containerd"
    PODMAN = "podman"
    K3S = "k3s"
    CRIO = "crio"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a client's files are."""

    files: HostFiles
    root: Path
    file: Path | None

    def plan(self, client: Client, served: Served) -> Plan:
        """Raises Unusable."""
        if client is Client.DOCKER:
            return daemon_json.plan(served, self.files, self.file or daemon_json.FILE)
        if client is Client.CONTAINERD:
            return hosts_toml.plan(served, self.files, self.file or hosts_toml.FOLDER)
        if client is Client.K3S:
            return k3s.plan(served, self.files, self.file or k3s.FILE)
        reload = "systemctl reload crio" if client is Client.CRIO else ""
        return registries_conf.plan(served, self.files, self.file or registries_conf.FILE, reload)

    def real(self, path: Path) -> Path:
        """Where a file of that host is on this one."""
        return self.root / path.relative_to(path.anchor)

    @property
    def certs_d(self) -> Path:
        return self.real(self.file or hosts_toml.FOLDER)


@explained(
    "setup docker",
    "setup docker --write --check",
    "setup containerd --url http://mirror.lan:5000 --registry docker.io --registry ghcr.io --write",
    failed="a file cannot be edited, or the client does not ask the mirror",
)
def setup(
    client: Annotated[Client, typer.Argument(help="Which client of this host.")],
    url: Annotated[
        str | None,
        typer.Option(
            help="The mirror's, as the client reaches it. Left out: the one of this host."
        ),
    ] = None,
    registries: Annotated[
        list[str] | None,
        typer.Option(
            "--registry", help="One that the mirror serves; may be repeated. Left out: all."
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            "--ca", metavar="FILE", help="The authority of an https mirror's certificate."
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write it, with a copy of each file that was there.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Prove it: the client pulls an image that only a mirror has."),
    ] = False,
    root: Annotated[
        Path, typer.Option(metavar="FOLDER", help="The root of the host: an image that is built.")
    ] = Path("/"),
    file: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Another file than the usual; of containerd, a folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config: ConfigOption = None,
) -> None:
    """Show what tells a container client of the mirror, as a diff of the files that it reads; with
    --write, write it into them; with --check, have the client pull through the mirror.

    What is there stays: other keys, other mirrors, comments. A file that cannot be read whole is
    left alone."""
    served = _served(url, registries or (), ca, config)
    place = _Place(HostFiles(root), root, file.absolute() if file else None)
    told: dict[str, Any] = {"client": client.value, "url": served.url}
    try:
        plan = place.plan(client, served)
        told |= _plan_as_json(plan)
        if not as_json:
            _show(client, served, plan, place, will_write=write)
        if write:
            told["written"] = _write(place, plan.pending, quiet=as_json)
    except Unusable as error:
        raise give_up(
            f"{error}\nNothing {'more ' if told.get('written') else ''}was written."
        ) from None
    if write and plan.pending and plan.reload and not as_json:
        err.print(f"Then have it counted: {plan.reload}", markup=False)
    is_proven = True
    if check:
        pending = () if write else plan.pending
        trials = _try(client, served, place, replace(plan, changes=pending))
        is_proven = all(each["through"] for each in trials)
        told["check"] = trials
        if not as_json:
            _show_trials(trials)
    if as_json:
        out.print_json(json.dumps(told), ensure_ascii=True)
    if not is_proven:
        raise typer.Exit(FAILED)


def _served(
    url: str | None, registries: Sequence[str], ca: Path | None, config: Path | None
) -> Served:
    """The mirror that is meant. Ends the command where it cannot be one."""
    found = find_mirror(config)
    is_known = config is not None or found.is_running or url is None
    loaded = load_or_exit(found.config) if is_known else Config()
    try:
        names = [registry_name(name) for name in registries] or sorted(loaded.registries)
        given = _own_url(loaded) if url is None else mirror_url(url)
    except Mistake as mistake:
        raise give_up(str(mistake), CONFIGURATION_WRONG) from None
    if not names:
        raise give_up("the mirror serves no registry", CONFIGURATION_WRONG)
    if ca is not None and not given.startswith("https://"):
        raise give_up("--ca is for a mirror whose URL begins with https", CONFIGURATION_WRONG)
    names.sort(key=lambda name: (name != DOCKER_HUB, name))
    default = loaded.default_registry if is_known else DOCKER_HUB
    return Served(given, names, default, ca.absolute() if ca else None)


def _own_url(config: Config) -> str:
    from ..app import own_reach

    found = own_reach(config)
    if found.elsewhere and found.elsewhere != found.here:
        err.print(f"On other hosts: --url {found.elsewhere}", markup=False)
    return found.here


def _plan_as_json(plan: Plan) -> dict[str, Any]:
    return {
        "files": [
            {
                "path": str(change.path),
                "exists": change.before is not None,
                "content": change.after,
                "diff": change.diff(),
            }
            for change in plan.changes
        ],
        "notes": list(plan.notes),
        "reload": plan.reload,
        "written": [],
    }


def _show(client: Client, served: Served, plan: Plan, place: _Place, *, will_write: bool) -> None:
    for change in plan.changes:
        if change.is_one:
            out.print(change.diff(), markup=False, end="")
        else:
            err.print(f"{place.real(change.path)}: has {served.url} already.", markup=False)
    for note in plan.notes:
        err.print(f"note: {note}", markup=False)
    if not plan.pending:
        err.print(f"{client.value} is told of {served.url}: nothing to do.", markup=False)
    elif not will_write:
        then = f"; then {plan.reload}" if plan.reload else ""
        err.print(f"Nothing was written: --write does it, with a copy of what is there{then}.")


def _write(place: _Place, changes: Sequence[Change], *, quiet: bool) -> list[dict[str, Any]]:
    """Raises Unusable."""
    written = []
    for change in changes:
        copy = place.files.write(change, Clock().wall())
        written.append({"path": str(change.path), "backup": str(copy) if copy else None})
        if not quiet:
            was = f" (as it was: {place.real(copy)})" if copy else ""
            err.print(f"{place.real(change.path)}: written{was}.", markup=False)
    return written


def _try(client: Client, served: Served, place: _Place, plan: Plan) -> list[dict[str, Any]]:
    trials = []
    registries = [
        name for name in served.registries if client is not Client.DOCKER or name == DOCKER_HUB
    ]
    for registry in registries:
        answer = _refusal(served, registry)
        if answer:
            trial = Trial(registry, "", False, answer)
        else:
            with err.status(f"{client.value} pulls {registry}/{REPOSITORY} …"):
                trial = try_client(client.value, registry, place.certs_d)
        trials.append(
            {
                "registry": registry,
                "through": trial.went_through,
                "program": trial.program,
                "words": trial.words,
                "mend": "" if trial.went_through or answer else _mend(client, served, plan, trial),
            }
        )
    return trials


def _refusal(served: Served, registry: str) -> str:
    """Why no client can get the image of this registry there; "" where this process gets it."""
    import ssl  # only here: other commands need none of them
    import urllib.error
    import urllib.request

    asked = f"{served.url}/v2/{REPOSITORY}/manifests/latest?ns={registry}"
    context = None
    if served.ca is not None:
        context = ssl.create_default_context(cafile=str(served.ca))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(asked, timeout=_ANSWERS_WITHIN) as answer:
            answer.read(1 << 20)
    except urllib.error.HTTPError as error:
        return f"{served.url} answers {error.code} for {registry}: is it a mirror, and serves that?"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"{served.url} does not answer: {getattr(reason, 'strerror', None) or reason}"
    return ""


def _mend(client: Client, served: Served, plan: Plan, trial: Trial) -> str:
    if not trial.program:
        return "run this where the client is"
    if plan.pending:
        return f"{plan.pending[0].path} does not name {served.url} yet: --write"
    if client is Client.DOCKER:
        mirrors = docker_mirrors()
        if mirrors is None:
            return "dockerd does not answer: start it"
        if not any(each.rstrip("/").startswith(served.url) for each in mirrors):
            return f"dockerd runs without {served.url}: {plan.reload}"
    return f"have it read its files again: {plan.reload}" if plan.reload else ""


def _show_trials(trials: Sequence[dict[str, Any]]) -> None:
    for each in trials:
        mark = "ok" if each["through"] else "FAIL"
        answer = "yes" if each["through"] else "no"
        words = f"{each['registry']}: went through the mirror: {answer}"
        by = f" ({each['program']})" if each["program"] else ""
        out.print(Text(f"{mark:<6}", style=_STYLES[mark]) + Text(words + by))
        for more in (each["words"], each["mend"]):
            if more:
                out.print(f"        {more}", markup=False)
