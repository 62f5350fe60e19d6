"""robot, token: logins for programs."""

from __future__ import annotations

from typing import Annotated

import typer

from ...contracts.identity import Right
from ..console import ConfigOption, JsonOption, err, explained, out, print_json, register
from .asked import (
    ExpiresOption,
    Line,
    NameArgument,
    OrganisationArgument,
    UserArgument,
    YesOption,
    answered,
    confirm,
    one,
    shown,
    since,
    time_of,
    until,
)

RightOption = Annotated[Right, typer.Option("--right", help="push pulls, too.", show_default=False)]


@explained(
    "robot add acme ci --repository app --right push --expires 90d",
    "robot add acme cluster --repository '*' --right pull --json",
    failed="there is one of this name, or no such organisation",
)
def robot_add(
    organisation: OrganisationArgument,
    name: NameArgument,
    repository: Annotated[
        list[str],
        typer.Option(
            "--repository",
            metavar="PATTERN",
            help="Without the organisation: app, team/*, or * for all; may be repeated.",
            show_default=False,
        ),
    ],
    right: RightOption,
    expires: ExpiresOption = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a login for a program. Its secret is shown this once."""
    made = one(
        config,
        "robot-add",
        organisation=organisation,
        name=name,
        grants=[{"pattern": each, "right": right.value} for each in repository],
        expires_in=time_of(expires, "--expires"),
    )
    _show_secret(made, "robot", as_json=as_json)


@explained("robot list acme")
def robot_list(
    organisation: OrganisationArgument, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Tell of an organisation's robots: never of their secrets."""
    found = answered(config, "robot-list", organisation=organisation)
    shown(
        found,
        ("LOGIN", "RIGHTS", "ENDS", "USED"),
        lambda robot: (
            robot["login"],
            ", ".join(f"{each['right']} {each['pattern']}" for each in robot["grants"]),
            until(robot["expires_at"]),
            since(robot["used_at"]),
        ),
        as_json=as_json,
    )
    if not found:
        err.print(f"{organisation} has no robots.", markup=False)


@explained("robot remove acme ci", failed="there is none of this name")
def robot_remove(
    organisation: OrganisationArgument,
    name: NameArgument,
    yes: YesOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove a robot: its secret is good for nothing within a second."""
    confirm(f"Remove the robot {organisation}+{name}?", yes=yes)
    one(config, "robot-remove", organisation=organisation, name=name)
    out.print(f"{organisation}+{name} is removed.", markup=False)


@explained(
    "token add ada laptop --right push --expires 30d",
    failed="there is one of this name, or no such user",
)
def token_add(
    user: UserArgument,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What it is for.", show_default=False)
    ],
    right: RightOption,
    expires: ExpiresOption = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a personal access token: it stands for the user's password with docker login, and may no
    more than the user may. It is shown this once."""
    made = one(
        config,
        "token-add",
        user=user,
        name=name,
        right=right.value,
        expires_in=time_of(expires, "--expires"),
    )
    _show_secret(made, "token", as_json=as_json)


@explained("token list ada")
def token_list(
    user: UserArgument, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Tell of a user's tokens: never of what they are."""
    found = answered(config, "token-list", user=user)
    shown(
        found,
        ("ID", "NAME", "RIGHT", "ENDS", "USED"),
        lambda token: (
            token["id"],
            token["name"],
            token["right"],
            until(token["expires_at"]),
            since(token["used_at"]),
        ),
        as_json=as_json,
    )
    if not found:
        err.print(f"{user} has no tokens.", markup=False)


@explained("token remove ada laptop", failed="there is none of this name")
def token_remove(
    user: UserArgument,
    token: Annotated[str, typer.Argument(metavar="ID", help="Or its name.", show_default=False)],
    config: ConfigOption = None,
) -> None:
    """Remove a personal access token: it is good for nothing within a second."""
    one(config, "token-remove", user=user, id=token)
    out.print(f"{token} is removed.", markup=False)


def _show_secret(made: Line, kind: str, *, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    out.print(f"login   {made['login']}", markup=False)
    out.print(f"secret  {made['secret']}", markup=False)
    ends = made[kind]["expires_at"]
    err.print(
        "The secret is not shown again" + ("." if ends is None else f"; its end is {until(ends)}.")
    )


robot = typer.Typer(no_args_is_help=True, help="Robots: logins of an organisation's programs.")
token = typer.Typer(no_args_is_help=True, help="Personal access tokens.")
register(robot, robot_add, robot_list, robot_remove, without="robot_")
register(token, token_add, token_list, token_remove, without="token_")
