"""user, org: accounts, and who belongs together."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ...quantities import binary_size
from ..console import (
    CONFIGURATION_WRONG,
    ConfigOption,
    JsonOption,
    err,
    explained,
    give_up,
    out,
    print_json,
    register,
)
from .asked import (
    NameArgument,
    OrganisationArgument,
    PasswordOption,
    UserArgument,
    YesOption,
    answered,
    confirm,
    one,
    password_of,
    shown,
    since,
    size_of,
    text_of,
)

_LEAST = 8  # characters


class RoleWord(StrEnum):
    """A Role, or that there is none."""

    READER = "reader"
    WRITER = "writer"
    MAINTAINER = "maintainer"
    NONE = "none"


# Users.


@explained(
    "user add ada --administrator --password-file ada.txt",
    "user add ben --password-file - < ben.txt",
    failed="the name is taken",
)
def user_add(
    name: NameArgument,
    administrator: Annotated[
        bool, typer.Option("--administrator", help="May do everything here.")
    ] = False,
    password_file: PasswordOption = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make an account. The first administrator may be made before the mirror's first start."""
    password = password_of(password_file)
    words = {"name": name, "password": password, "administrator": administrator}
    user = one(config, "user-add", **words)
    if len(password) < _LEAST:
        err.print(f"The password has less than {_LEAST} characters: it is soon guessed.")
    if as_json:
        print_json(user)
    else:
        out.print(f"{name} is a user{', and an administrator' if administrator else ''}.")


@explained("user list")
def user_list(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Tell of all users."""
    found = answered(config, "user-list")
    shown(
        found,
        ("NAME", "ADMINISTRATOR", "MADE", "STATE"),
        lambda user: (
            user["name"],
            "yes" if user["is_administrator"] else "-",
            since(user["created_at"]),
            "disabled" if user["is_disabled"] else "good",
        ),
        as_json=as_json,
    )
    if not found:
        err.print(
            "There are no users: registry-mirror user add NAME --administrator makes the first."
        )


@explained("user show ada", failed="there is no such user")
def user_show(name: NameArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Tell of one user, and its organisations."""
    found = one(config, "user-show", name=name)
    if as_json:
        print_json(found)
        return
    user = found["user"]
    words = ["an administrator"] if user["is_administrator"] else []
    words += ["disabled"] if user["is_disabled"] else []
    words += [f"{role} of {organisation}" for organisation, role in found["memberships"]]
    out.print(f"{name}: {', '.join(words) or 'no administrator, and no member'}.", markup=False)


@explained("user passwd ada --password-file new.txt", failed="there is no such user")
def user_passwd(
    name: NameArgument, password_file: PasswordOption = "", config: ConfigOption = None
) -> None:
    """Set a password. Who has signed in by the old one is signed out."""
    one(config, "user-passwd", name=name, password=password_of(password_file))
    out.print(f"{name} has a new password.", markup=False)


@explained("user set ada --administrator", failed="no administrator would be left")
def user_set(
    name: NameArgument,
    administrator: Annotated[
        bool | None, typer.Option("--administrator/--no-administrator", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a user an administrator, or an ordinary user."""
    if administrator is None:
        raise give_up("write --administrator or --no-administrator", CONFIGURATION_WRONG)
    user = one(config, "user-set", name=name, administrator=administrator)
    if as_json:
        print_json(user)
    else:
        words = "an administrator" if user["is_administrator"] else "an ordinary user"
        out.print(f"{name} is {words}.", markup=False)


@explained("user disable ada", failed="no administrator would be left")
def user_disable(name: NameArgument, config: ConfigOption = None) -> None:
    """Take all of a user's rights away, until `enable`: its tokens are good for nothing either."""
    one(config, "user-set", name=name, disabled=True)
    out.print(f"{name} is disabled.", markup=False)


@explained("user enable ada")
def user_enable(name: NameArgument, config: ConfigOption = None) -> None:
    """Give a disabled user its rights back."""
    one(config, "user-set", name=name, disabled=False)
    out.print(f"{name} is enabled.", markup=False)


@explained("user remove ada", failed="no administrator would be left")
def user_remove(name: NameArgument, yes: YesOption = False, config: ConfigOption = None) -> None:
    """Remove a user, with its memberships and tokens. Its repositories stay."""
    confirm(f"Remove the user {name}?", yes=yes)
    one(config, "user-remove", name=name)
    out.print(f"{name} is removed.", markup=False)


@explained("user import-htpasswd users.htpasswd", failed="lines were not taken; the others were")
def user_import_htpasswd(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="-: standard input.", show_default=False)
    ],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Take the users of a file that `htpasswd -B` has written, with their passwords. Users that
    are there get the file's passwords."""
    found = one(config, "user-import-htpasswd", text=text_of(file))
    if as_json:
        print_json(found)
    else:
        out.print(f"{len(found['added'])} users added, {len(found['updated'])} updated.")
        for number, reason in found["refused"]:
            err.print(f"{file}:{number}: {reason}", markup=False)
    if found["refused"]:
        raise typer.Exit(1)


# Organisations.

QuotaOption = Annotated[
    str,
    typer.Option(
        "--quota", metavar="SIZE", help="Such as 50GiB. Without it, none.", show_default=False
    ),
]


@explained("org add acme", "org add acme --quota 50GiB", failed="the name is taken")
def org_add(
    name: NameArgument,
    quota: QuotaOption = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make an organisation: the first part of its repositories' names."""
    found = one(config, "org-add", name=name, quota=size_of(quota, "--quota"))
    if as_json:
        print_json(found)
    else:
        out.print(f"{name} is an organisation.", markup=False)


@explained("org list")
def org_list(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Tell of all organisations, and what they use."""
    found = answered(config, "org-list")
    shown(
        found,
        ("NAME", "USED", "QUOTA", "MADE"),
        lambda line: (
            line["organisation"]["name"],
            binary_size(line["used"]),
            binary_size(line["organisation"]["quota"]),
            since(line["organisation"]["created_at"]),
        ),
        as_json=as_json,
        right="USED QUOTA",
    )
    if not found:
        err.print("There are no organisations: registry-mirror org add NAME makes one.")


@explained("org quota acme 50GiB", "org quota acme none")
def org_quota(
    name: NameArgument,
    quota: Annotated[str, typer.Argument(metavar="SIZE", help="Such as 50GiB; or none.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Set how many bytes an organisation's repositories may have, each digest counted once."""
    found = one(config, "org-quota", name=name, quota=size_of(quota, "SIZE"))
    if as_json:
        print_json(found)
        return
    limit = found["organisation"]["quota"]
    words = "has no quota" if limit is None else f"may have {binary_size(limit)}"
    out.print(f"{name} {words}; it has {binary_size(found['used'])}.", markup=False)


@explained("org remove acme", failed="it has repositories, or there is none")
def org_remove(name: NameArgument, yes: YesOption = False, config: ConfigOption = None) -> None:
    """Remove an organisation that has no repositories, with its members and robots."""
    confirm(f"Remove the organisation {name}, with its members and robots?", yes=yes)
    one(config, "org-remove", name=name)
    out.print(f"{name} is removed.", markup=False)


@explained("org members acme")
def org_members(
    name: NameArgument, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Tell who is a member."""
    found = answered(config, "org-members", name=name)
    shown(found, ("USER", "ROLE"), lambda line: (line["user"], line["role"]), as_json=as_json)
    if not found:
        err.print(f"{name} has no members: registry-mirror org member {name} USER writer adds one.")


@explained("org member acme ada writer", "org member acme ada none", failed="there is no such user")
def org_member(
    organisation: OrganisationArgument,
    user: UserArgument,
    role: Annotated[
        RoleWord,
        typer.Argument(
            help="reader pulls, writer pushes, maintainer deletes and sets; none: no member.",
            show_default=False,
        ),
    ],
    config: ConfigOption = None,
) -> None:
    """Make a user a member of an organisation, in this role from now on; or no member."""
    chosen = None if role is RoleWord.NONE else role.value
    one(config, "org-member", name=organisation, user=user, role=chosen)
    words = f"is {chosen} of" if chosen else "is no member any more of"
    out.print(f"{user} {words} {organisation}.", markup=False)


user = typer.Typer(no_args_is_help=True, help="Users: who may sign in.")
org = typer.Typer(no_args_is_help=True, help="Organisations: whose repositories are.")
for _group, _prefix, _commands in (
    (
        user,
        "user_",
        (
            user_add,
            user_list,
            user_show,
            user_passwd,
            user_set,
            user_disable,
            user_enable,
            user_remove,
            user_import_htpasswd,
        ),
    ),
    (org, "org_", (org_add, org_list, org_member, org_members, org_quota, org_remove)),
):
    register(_group, *_commands, without=_prefix)
