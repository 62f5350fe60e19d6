"""What goes on in the mirror that runs: status, why, and how it logs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from ..config import Mistake, seconds
from ..contracts.activity import (
    EndpointState,
    ImageHere,
    Limit,
    LogState,
    Pull,
    PullRequest,
    Status,
    Why,
)
from ..logs.text import printable
from ..quantities import binary_size, lasted, size
from ..told import read_as
from .asking import asked_of_running
from .console import (
    CONFIGURATION_WRONG,
    ConfigOption,
    JsonOption,
    explained,
    give_up,
    out,
    print_json,
)

_DEBUG = 600.0  # seconds for which debug is told where no time is given
_MOST = 20  # pulls that `why` tells
_LEVELS = ("debug", "info", "warning", "error")


@explained(
    "status",
    "status --json | jq .cache.bytes",
    failed="no mirror runs here, or an upstream refuses a login, lies, or is down",
)
def status(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Tell how the mirror that runs is doing: its ports, cache, last 24 hours and upstreams."""
    told = asked_of_running(config, "status")
    found = read_as(Status, told)
    if as_json:
        print_json(told)
    else:
        for line in status_lines(found):
            out.print(line, markup=False)
    if any(one.state in ("login_refused", "banned", "down") for one in found.endpoints):
        raise typer.Exit(1)


def status_lines(status: Status) -> Sequence[str]:
    workers = f"{status.serving} worker{'s' * (status.serving != 1)}, "
    if status.pids == [status.pid]:
        workers = "" if status.serving else "starting, "
    up = lasted(status.now - status.started_at)
    return [
        f"serving {', '.join(status.listen)} ({workers}up {up}, {status.version})   "
        f"{_config(status)}",
        f"cache   {_cache(status)}",
        f"{_day(status)}",
        f"now     {size(status.rates.bytes_out)}/s out, {size(status.rates.bytes_in)}/s in, "
        f"{status.rates.requests_running} requests, {status.rates.downloads_running} downloads, "
        f"{status.rates.downloads_queued} queued",
        f"log     {_log(status.log)}",
        *_endpoints(status),
    ]


def _config(status: Status) -> str:
    config = status.config
    if not config.path:
        return "no configuration file, the defaults"
    words = f"config {config.path}, loaded {_clock(config.loaded_at, status.now)}"
    reload = config.last_reload
    if reload is not None and reload.result != "applied":
        return f"{words}, LAST RELOAD {reload.result.upper()} {_clock(reload.at, status.now)}"
    if config.is_gone:
        return f"{words}, the file is GONE since"
    if config.changed_at is not None:
        changed = _clock(config.changed_at, status.now)
        return f"{words}, CHANGED {changed} and not loaded → registry-mirror reload"
    return f"{words}, unchanged since"


def _cache(status: Status) -> str:
    cache, day = status.cache, status.day
    parts = [f"{binary_size(cache.bytes)} of {binary_size(cache.max_bytes)}"]
    if cache.images is not None:
        parts.append(f"{cache.images} image{'s' * (cache.images != 1)}")
    if cache.oldest_used_at:
        parts.append(f"oldest used {lasted(status.now - cache.oldest_used_at)} ago")
    text = ", ".join(parts)
    if cache.disk_free is not None:
        text += f"; disk {binary_size(cache.disk_free)} free"
    if day.evicted:
        text += f"; evicted {binary_size(day.evicted_bytes)} in {_since(status)}"
    return text


def _day(status: Status) -> str:
    day = status.day
    if not day.pulls and not day.requests:
        return f"{_since(status):<7} nothing was asked for yet"
    text = f"{_since(status):<7} {day.pulls} pull{'s' * (day.pulls != 1)}"
    if day.pulls:
        text += f", {day.without_upstream * 100 // day.pulls} % without upstream"
    text += f", {size(day.bytes_served)} served, {size(day.bytes_fetched)} fetched"
    return text if day.p50 is None else f"{text}, p50 {lasted(day.p50)}"


def _since(status: Status) -> str:
    length = status.now - status.day.since
    return "24 h" if length > 86000 else lasted(length)


def _log(log: LogState) -> str:
    text = f"{log.format}, {log.level}, requests {log.requests}"
    if log.until is not None:
        text += f" (back to {log.configured_level} at {_clock(log.until, log.until)})"
    return text


def _endpoints(status: Status) -> Sequence[str]:
    registries = max((len(one.registry) for one in status.endpoints), default=0)
    names = max((len(one.endpoint) for one in status.endpoints), default=0)
    return [
        f"{one.registry:<{registries}}  {one.endpoint:<{names}}  {_endpoint(one, status.now)}"
        for one in status.endpoints
    ]


def _endpoint(one: EndpointState, now: float) -> str:
    if one.state in ("ok", "unknown"):
        text = "ok" if one.state == "ok" else "not asked yet"
    else:
        text = one.state.upper().replace("_", " ")
        if one.since is not None:
            text += f" since {_clock(one.since, now)}"
        if one.reason:
            text += f": {printable(one.reason, 200)}"
        text += f"   → registry-mirror doctor {one.registry}"
    if one.latency is not None:
        text += f" {lasted(one.latency)}"
    return "".join([text, *(_limit(limit, now) for limit in one.limits)])


def _limit(limit: Limit, now: float) -> str:
    login = f"login {limit.login}" if limit.login else "no login"
    resets = f", resets {_clock(limit.resets_at, now)}" if limit.resets_at else ""
    if not limit.limit:
        return f"   no pulls left ({login}{resets})" if resets else ""
    return f"   pulls left {limit.remaining} of {limit.limit} ({login}{resets})"


def _clock(at: float, now: float) -> str:
    """The local time, with its day where that is another."""
    there = time.localtime(at)
    is_today = time.localtime(now)[:3] == there[:3]
    return time.strftime("%H:%M" if is_today else "%F %H:%M", there)


@explained(
    "why redis:7",
    "why 2d90dccdbc86e833",
    "why ghcr.io/acme/app:v1 --json",
    failed="no mirror runs here, or nothing is known of that",
)
def why(
    subject: Annotated[
        str, typer.Argument(metavar="IMAGE | REQUEST-ID", help="An image; or an X-Request-Id.")
    ],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Tell why an image, or a request, was slow, missed or stale: what was asked for of late, what
    each request met with, and what a pull would meet with now.

    The id of a request is in the X-Request-Id of its answer, in the log and in errors."""
    told = asked_of_running(config, "why", subject=subject)
    found = read_as(Why, told)
    if as_json:
        print_json(told)
    else:
        for line in why_lines(found):
            out.print(line, markup=False)
    if not found.pulls and (found.here is None or not found.here.digest):
        raise typer.Exit(1)


def why_lines(why: Why) -> Sequence[str]:
    lines: list[str] = []
    if not why.pulls:
        lines.append(f"Nobody asked for {printable(why.subject)} of late.")
    for pull in reversed(why.pulls[:_MOST]):
        lines.append(pull_line(pull))
        lines += [
            f"  {request_line(one)}"
            for one in pull.requests
            if why.here is not None or one.request_id == why.subject
        ]
        if pull.more and why.here is not None:
            lines.append(f"  and {pull.more} requests more")
    if why.here is not None:
        lines += _here_lines(why.here)
    return lines


def pull_line(pull: Pull) -> str:
    at = time.strftime("%T", time.localtime(pull.began_at))
    times = f" ({pull.pulls} times)" if pull.pulls > 1 else ""
    state = "goes on" if pull.ended_at is None else lasted(pull.seconds)
    failure = f"  ({printable(pull.failure)})" if pull.failure else ""
    agent = f" {printable(pull.agent)}" if pull.agent else ""
    return (
        f"{at} {printable(pull.client)}{agent} {printable(pull.image)}{times}  {pull.summary}  "
        f"{size(pull.bytes)}  {state}{failure}"
    )


_SHOWN = {"filled": "MISS", "joined": "MISS", "revalidated": "HIT", "": "goes on"}


def request_line(one: PullRequest) -> str:
    at = time.strftime("%T", time.localtime(one.at))
    reference = one.reference
    if ":" in reference:
        reference = reference.partition(":")[2][:12]
    outcome = _SHOWN.get(one.outcome, one.outcome.upper())
    words = [f"{one.method} {one.kind} {printable(reference)}", outcome]
    if one.count > 1:
        words[0] += f" ×{one.count}"
    details = [one.why] if one.why else []
    if one.error:
        details.append(printable(one.error))
    if one.endpoint:
        asked = f" in {lasted(one.upstream)}" if one.upstream is not None else ""
        details.append(f"{one.endpoint} answered{asked}")
    if one.queued is not None:
        details.append(f"queued {lasted(one.queued)}")
    details.append(f"first byte {lasted(one.first_byte)}, all {lasted(one.last_byte)}")
    if one.speed is not None:
        details.append(f"{size(one.speed)}/s from upstream")
    if one.left:
        details.append("the client left")
    sent = f" {size(one.sent)}" if one.sent else ""
    identity = f"  [{one.request_id}]" if one.request_id else ""
    return f"{at} {words[0]}{sent}  {words[1]}: {'; '.join(details)}{identity}"


def _here_lines(here: ImageHere) -> Sequence[str]:
    lines = []
    if here.digest:
        age = f", as the upstream said {lasted(here.age)} ago" if here.age is not None else ""
        lines.append(f"{printable(here.image)} is {here.digest}{age}")
    lines.append(f"now: {printable(here.would)}")
    for piece in here.missing:
        how_much = f" {size(piece.size)}" if piece.size is not None else ""
        name = piece.digest.partition(":")[2][:12]
        lines.append(f"  missing: {piece.role} {name}{how_much}: {printable(piece.why)}")
    if here.digest and not here.missing:
        lines.append("  all of it is here (for this machine's platform)")
    return lines


@explained(
    "log debug 10m",
    "log info",
    "log --requests misses",
    failed="no mirror runs here",
)
def log(
    level: Annotated[
        str,
        typer.Argument(metavar="[LEVEL]", help=", ".join(_LEVELS), show_default=False),
    ] = "",
    lasting: Annotated[
        str,
        typer.Argument(
            metavar="[TIME]",
            help="For how long: 10m, 2h. debug lasts 10m where none is given, the others until "
            "the configuration is read again.",
            show_default=False,
        ),
    ] = "",
    requests: Annotated[
        str, typer.Option("--requests", help="Which are told: all, misses or none.")
    ] = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Change how the mirror that runs logs, in all of its processes, for a while; or, with nothing
    given, tell how it does."""
    asked: dict[str, object] = {}
    if level:
        asked["level"] = level
        asked["seconds"] = _DEBUG if level == "debug" else None
    if lasting:
        try:
            asked["seconds"] = seconds(lasting)
        except Mistake as mistake:
            raise give_up(f"{lasting}: {mistake}", CONFIGURATION_WRONG) from None
    if requests:
        asked["requests"] = requests
    told = asked_of_running(config, "log", **asked)
    if as_json:
        print_json(told)
    else:
        out.print(_log(read_as(LogState, told)), markup=False)
