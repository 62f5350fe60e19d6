"""webhook, audit: who is told of what happens, and what did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ...contracts.webhooks import Subject
from ...quantities import moment
from ..console import ConfigOption, JsonOption, err, explained, out, print_json, register
from .asked import YesOption, answered, confirm, one, shown, since, text_of

IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="As webhook list tells.", show_default=False)
]
OrgOption = Annotated[
    str,
    typer.Option(
        "--org",
        metavar="ORG",
        help="Of this organisation's repositories, or a user's. Without it, of all.",
        show_default=False,
    ),
]


@explained(
    "webhook add https://ci.example.com/hook --org acme --on push",
    "webhook add https://ci.example.com/hook --on push --on delete --repository 'acme/*'",
    failed="no webhook may lead there",
)
def webhook_add(
    url: Annotated[str, typer.Argument(metavar="URL", show_default=False)],
    on: Annotated[
        list[Subject],
        typer.Option("--on", help="What it is told of; may be repeated.", show_default=False),
    ],
    org: OrgOption = "",
    repository: Annotated[
        str, typer.Option("--repository", metavar="PATTERN", help="Such as app, or team/*.")
    ] = "*",
    secret_file: Annotated[
        str,
        typer.Option(
            "--secret-file",
            metavar="FILE",
            help="What deliveries are signed by; -: standard input. Without it, one is made.",
            show_default=False,
        ),
    ] = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Have an address told of what happens, signed by HMAC-SHA256."""
    secret = text_of(secret_file).strip() if secret_file else ""
    made = one(
        config,
        "webhook-add",
        namespace=org,
        url=url,
        subjects=[each.value for each in on],
        pattern=repository,
        secret=secret,
    )
    if as_json:
        print_json(made)
        return
    out.print(f"id      {made['webhook']['id']}", markup=False)
    if not secret:
        out.print(f"secret  {made['secret']}", markup=False)
        err.print("The secret is not shown again.")


@explained("webhook list --org acme")
def webhook_list(
    org: OrgOption = "", as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Tell of webhooks: of an organisation's, or those that are told of all."""
    found = answered(config, "webhook-list", namespace=org)
    shown(
        found,
        ("ID", "URL", "ON", "OF", "WAITING", "STATE"),
        lambda webhook: (
            webhook["id"],
            webhook["url"],
            ",".join(webhook["subjects"]),
            webhook["pattern"],
            str(webhook["waiting"]),
            _state(webhook),
        ),
        as_json=as_json,
        right="WAITING",
    )
    if not found:
        err.print("There are no webhooks " + (f"of {org}." if org else "of all: --org ORG?"))


def _state(webhook: Mapping[str, Any]) -> str:
    if webhook["is_disabled"]:
        return "disabled"
    failures = webhook["failures"]
    return f"failed {failures} times in a row" if failures else "good"


@explained("webhook remove 5f0c9d1e2a3b4c5d", failed="there is none of this id")
def webhook_remove(id: IdArgument, yes: YesOption = False, config: ConfigOption = None) -> None:
    """Remove a webhook, with what it has not been told yet."""
    confirm(f"Remove the webhook {id}?", yes=yes)
    one(config, "webhook-remove", id=id)
    out.print(f"{id} is removed.", markup=False)


@explained("webhook disable 5f0c9d1e2a3b4c5d", failed="there is none of this id")
def webhook_disable(id: IdArgument, config: ConfigOption = None) -> None:
    """Tell a webhook nothing, until `enable`: what waits stays."""
    one(config, "webhook-switch", id=id, disabled=True)
    out.print(f"{id} is disabled.", markup=False)


@explained("webhook enable 5f0c9d1e2a3b4c5d", failed="there is none of this id")
def webhook_enable(id: IdArgument, config: ConfigOption = None) -> None:
    """Tell a disabled webhook again."""
    one(config, "webhook-switch", id=id, disabled=False)
    out.print(f"{id} is enabled.", markup=False)


@explained("webhook ping 5f0c9d1e2a3b4c5d", failed="there is none of this id")
def webhook_ping(id: IdArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Try a webhook: `webhook deliveries` tells what came of it."""
    delivery = one(config, "webhook-ping", id=id)
    if as_json:
        print_json(delivery)
    else:
        out.print(f"{delivery['id']} is on its way.", markup=False)


@explained("webhook deliveries 5f0c9d1e2a3b4c5d", failed="there is none of this id")
def webhook_deliveries(
    id: IdArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=200)] = 50,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Tell what a webhook was told, the newest first."""
    found = answered(config, "webhook-deliveries", id=id, count=count)
    shown(
        found,
        ("ID", "MADE", "ON", "REPOSITORY", "STATE", "TRIES", "ANSWER"),
        lambda each: (
            each["id"],
            since(each["created_at"]),
            each["happening"]["subject"],
            each["happening"]["repository"] or "-",
            each["state"],
            str(each["attempts"]),
            " ".join(filter(None, (str(each["status"] or ""), each["words"]))) or "-",
        ),
        as_json=as_json,
        right="TRIES",
    )
    if not found:
        err.print("It has been told nothing yet.")


@explained("webhook redeliver 5f0c9d1e2a3b4c5d 0a1b2c3d", failed="there is no such delivery")
def webhook_redeliver(
    id: IdArgument,
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", show_default=False)],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Tell it once more."""
    found = one(config, "webhook-redeliver", id=id, delivery=delivery)
    if as_json:
        print_json(found)
    else:
        out.print(f"{delivery} is on its way.", markup=False)


@explained("audit", "audit --actor ada", "audit --target acme --json")
def audit(
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000)] = 100,
    actor: Annotated[
        str, typer.Option("--actor", metavar="NAME", help="Who did it.", show_default=False)
    ] = "",
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="NAME",
            help="To what it was done, or below it: acme, acme/app, ada.",
            show_default=False,
        ),
    ] = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Tell who has signed in, pushed, deleted and changed what, the newest first."""
    found = answered(config, "audit", count=count, actor=actor, target=target)
    shown(
        found,
        ("AT", "WHO", "FROM", "WHAT", "OF", "OUTCOME", "MORE"),
        lambda entry: (
            moment(entry["at"]),
            entry["actor"] or "-",
            entry["client"],
            entry["action"],
            entry["target"] or "-",
            entry["outcome"],
            entry["detail"],
        ),
        as_json=as_json,
    )
    if not found:
        err.print("Nothing is in the audit log" + (" of that." if actor or target else " yet."))


webhook = typer.Typer(no_args_is_help=True, help="Webhooks: who is told of pushes and deletes.")
register(
    webhook,
    webhook_add,
    webhook_deliveries,
    webhook_disable,
    webhook_enable,
    webhook_list,
    webhook_ping,
    webhook_redeliver,
    webhook_remove,
    without="webhook_",
)
