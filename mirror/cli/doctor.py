"""doctor: what is wrong here, and what to do."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ..config import Config, ConfigError, load
from .console import (
    CONFIGURATION_WRONG,
    ConfigOption,
    FoundMirror,
    err,
    explained,
    find_mirror,
    give_up,
    log_nothing,
    out,
)

if TYPE_CHECKING:
    from ..app.doctor import Diagnosis

FAILED = 1

_STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}
_ANSWERS_WITHIN = 5.0  # seconds, a port
_FEW = 0.2  # of the pulls that an endpoint grants

SubjectArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[REGISTRY|IMAGE]",
        help="Looked at step by step: ghcr.io, or redis:7, which is asked for by a HEAD.",
    ),
]


@explained("doctor", "doctor ghcr.io", "doctor redis:7", failed="something is wrong")
def doctor(
    subject: SubjectArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config: ConfigOption = None,
) -> None:
    """Look at the mirror and at all that it needs, and say what is wrong and what to do: its
    configuration, store, ports, registries, logins, and the clients of this host. The mirror that
    runs looks itself, as its own user; where none does, this command looks."""
    log_nothing()
    found = find_mirror(config)
    loaded, problems = _load(found)
    told: list[Diagnosis] = []

    async def look() -> None:
        async for each in _examined(found, loaded, problems, subject):
            told.append(each)
            if not as_json:
                _print(each)

    from ..app import CommandFailed, NotAnswered

    try:
        if as_json:
            asyncio.run(look())
        else:
            with err.status("looking …"):
                asyncio.run(look())
    except (CommandFailed, NotAnswered) as error:
        raise give_up(str(error), error.status) from None
    wrong = sum(each.mark == "FAIL" for each in told)
    if as_json:
        out.print_json(json.dumps([each.as_json() for each in told]), ensure_ascii=True)
    else:
        warned = sum(each.mark == "warn" for each in told)
        out.print(f"\n{wrong} wrong, {warned} to know of, {len(told) - wrong - warned} good.")
    if problems and not found.is_running:
        raise typer.Exit(CONFIGURATION_WRONG)
    if wrong:
        raise typer.Exit(FAILED)


def _print(found: Diagnosis) -> None:
    mark = Text(f"{found.mark.value:<6}", style=_STYLES[found.mark.value])
    out.print(mark + Text(f"{found.subject}: {found.words}"))
    if found.mend:
        out.print(f"      → {found.mend}", markup=False)


def _load(found: FoundMirror) -> tuple[Config, list[str]]:
    """The configuration, and its mistakes: with some, it is the default one."""
    try:
        return load(found.config), []
    except ConfigError as error:
        return Config(), [str(problem) for problem in error.problems]


async def _examined(
    found: FoundMirror, config: Config, problems: list[str], subject: str | None
) -> AsyncIterator[Diagnosis]:
    if subject is None:
        for each in (*_configuration(found, problems), *_service(found)):
            yield each
        if not problems:
            async for each in _ports(found, config):
                yield each
    is_asked = False
    if found.is_running:
        async for each in _asked(found, subject):
            is_asked = True
            yield each
    if is_asked and subject is None:
        async for each in _seen(found):
            yield each
    if not is_asked and not problems:
        from ..app.doctor import examined

        async for each in examined(config, subject, None):
            yield each
    if subject is None and not problems:
        for each in _clients(found, config):
            yield each


def _configuration(found: FoundMirror, problems: list[str]) -> Iterator[Diagnosis]:
    from ..app.doctor.findings import bad, good

    for problem in problems:
        what, _, mend = problem.partition(", write ")
        yield bad("configuration", what, f"write {mend}")
    if not problems:
        where = str(found.config) if found.config else "no file: the defaults serve Docker Hub"
        yield good("configuration", where)


def _service(found: FoundMirror) -> Iterator[Diagnosis]:
    from ..app.doctor.findings import bad, good

    if found.is_running:
        yield good("mirror", f"runs, and serves {found.store}")
        return
    begin = (
        f"registry-mirror serve --config {found.config}"
        if found.config
        else "registry-mirror serve"
    )
    if Path("/run/systemd/system").is_dir():
        begin = f"systemctl start registry-mirror, or {begin}"
    yield bad("mirror", f"none runs that serves {found.store}", begin)


async def _asked(found: FoundMirror, subject: str | None) -> AsyncGenerator[Diagnosis, None]:
    """What the mirror says that runs. Raises NotAnswered for a subject that is none."""
    from ..app import NotAnswered, ask_lines
    from ..app.doctor import Diagnosis
    from ..app.doctor.findings import warn

    parameters = {} if subject is None else {"subject": subject}
    try:
        async for line in ask_lines(found.store, "doctor", parameters):
            yield Diagnosis.of_json(line)
    except NotAnswered as error:
        if error.status != 1:
            raise
        user = _owner(found.store)
        who = "root" if user == "root" else f"root, or as {user}"
        yield warn("control socket", str(error), f"run this as {who}")


async def _seen(found: FoundMirror) -> AsyncGenerator[Diagnosis, None]:
    """What the mirror that runs has met at its endpoints, and what they still grant to it."""
    from ..app import NotAnswered, ask
    from ..app.doctor.findings import good, warn

    try:
        status = await ask(found.store, "status")
    except NotAnswered:
        return  # it was told already why
    for each in status["endpoints"]:
        subject = f"{each['registry']} {each['endpoint']}"
        if each["state"] in ("banned", "down"):
            words = f"{each['state']} to the mirror that runs: {each['reason']}"
            yield warn(subject, words, f"registry-mirror doctor {each['registry']}")
        for limit in each["limits"]:
            whose = f"the login {limit['login']!r}" if limit["login"] else "this address"
            words = f"{limit['remaining']} of {limit['limit']} pulls are left to {whose}"
            if limit["remaining"] < limit["limit"] * _FEW:
                yield warn(subject, words, "add a login, or another: credentials may be a list")
            else:
                yield good(subject, words)


def _owner(store: Path) -> str:
    try:
        return store.owner()
    except (OSError, KeyError):
        return "the mirror's user"


async def _ports(found: FoundMirror, config: Config) -> AsyncGenerator[Diagnosis, None]:
    from ..app import own_reach
    from ..app.doctor.findings import bad, good
    from ..clients.urls import reach

    here = own_reach(config).here
    admin = reach([(config.admin.listen.host, config.admin.listen.port)]).here
    for subject, url in (("port", f"{here}/v2/"), ("admin port", f"{admin}/readyz")):
        answer = await asyncio.to_thread(_answer, url)
        if found.is_running and answer == "200":
            yield good(subject, f"{url} answers")
        elif found.is_running:
            yield bad(
                subject, f"{url}: {answer}", "see the mirror's log, and who else listens: ss -ltnp"
            )
        elif "refused" not in answer:
            yield bad(
                subject, f"another program is at {url}: {answer}", "stop it, or write another port"
            )


def _answer(url: str) -> str:
    """The status, or why there is none."""
    import ssl
    import urllib.error
    import urllib.request

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(url, timeout=_ANSWERS_WITHIN) as answer:
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return str(getattr(reason, "strerror", None) or reason).lower()


def _clients(found: FoundMirror, config: Config) -> Iterator[Diagnosis]:
    """Those of this host that are told of no mirror, or of this one."""
    from ..app import own_reach
    from ..app.doctor.findings import good, warn
    from ..clients import daemon_json, hosts_toml, registries_conf
    from ..clients.files import HostFiles
    from ..clients.plan import Served, Unusable

    served = Served(
        own_reach(config).here,
        sorted(config.registries),
        config.default_registry,
    )
    programs = {
        "docker": ("dockerd", daemon_json.plan),
        "containerd": ("ctr", hosts_toml.plan),
        "podman": ("podman", registries_conf.plan),
    }
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    for client, (program, plan) in programs.items():
        if not shutil.which(program, path=path):
            continue
        option = f" --config {found.config}" if found.config else ""
        show = f"registry-mirror setup {client}{option}"
        try:
            pending = plan(served, HostFiles()).pending
        except Unusable as error:
            yield warn(client, str(error).splitlines()[0], show)
            continue
        if pending:
            yield warn(client, f"{client} of this host is not told of {served.url}", show)
        else:
            yield good(client, f"told of {served.url}; {show} --check proves it")
