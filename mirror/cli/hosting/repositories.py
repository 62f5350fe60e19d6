"""repo, retention: repositories, what is in them, and what stays of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...quantities import lasted, moment, size
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
    Line,
    RepositoryArgument,
    YesOption,
    answered,
    confirm,
    one,
    shown,
    since,
    time_of,
)

_PAGE = 500

TagArgument = Annotated[
    str, typer.Argument(metavar="ORG/NAME:TAG", help="With its tag.", show_default=False)
]


@explained("repo list", "repo list acme/ --json")
def repo_list(
    query: Annotated[
        str,
        typer.Argument(
            metavar="[TEXT]", help="Of the name or the description.", show_default=False
        ),
    ] = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Tell of all repositories."""
    found = _pages(config, "repo-list", "repositories", query=query)
    repositories = [line["repository"] for line in found]
    shown(
        repositories,
        ("NAME", "VISIBILITY", "PUSHED", "DESCRIPTION"),
        lambda line: (
            line["name"],
            line["visibility"],
            since(line["pushed_at"]),
            line["description"].partition("\n")[0][:60],
        ),
        as_json=as_json,
    )
    if not found:
        err.print(
            f"No repository has {query} in its name."
            if query
            else "There are no repositories: "
            "the first push makes one, or registry-mirror repo add ORG/NAME.",
            markup=False,
        )


@explained("repo show acme/app", failed="there is none of this name")
def repo_show(
    name: RepositoryArgument, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Tell of one repository and its settings."""
    _show(one(config, "repo-show", name=name)["repository"], as_json=as_json)


@explained("repo add acme/app --public", failed="there is one of this name")
def repo_add(
    name: RepositoryArgument,
    public: Annotated[bool, typer.Option("--public/--private")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a repository before its first push, which makes one too, and private."""
    visibility = "public" if public else "private"
    made = one(config, "repo-add", name=name, visibility=visibility)["repository"]
    _show(made, as_json=as_json)


@explained(
    "repo set acme/app --public",
    "repo set acme/app --immutable 'v*' --immutable 'release-*'",
    failed="there is none of this name",
)
def repo_set(
    name: RepositoryArgument,
    public: Annotated[
        bool | None,
        typer.Option(
            "--public/--private",
            help="Whether anybody may pull, without a login.",
            show_default=False,
        ),
    ] = None,
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEXT", show_default=False)
    ] = None,
    immutable: Annotated[
        list[str] | None,
        typer.Option(
            "--immutable",
            metavar="PATTERN",
            help="Tags that never move once they are set; may be repeated; '' for none.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Change what is given of a repository's settings."""
    words: dict[str, object] = {}
    if public is not None:
        words["visibility"] = "public" if public else "private"
    if description is not None:
        words["description"] = description
    if immutable:
        words["immutable"] = [each for each in immutable if each]
    if not words:
        raise give_up(
            "nothing to set: --public, --private, --description or --immutable", CONFIGURATION_WRONG
        )
    _show(one(config, "repo-set", name=name, **words)["repository"], as_json=as_json)


@explained("repo remove acme/app", failed="there is none of this name")
def repo_remove(
    name: RepositoryArgument, yes: YesOption = False, config: ConfigOption = None
) -> None:
    """Remove a repository with all its images. Their content goes with the next collections (gc),
    a day later at the soonest."""
    confirm(f"Remove {name}, with all its images?", yes=yes)
    one(config, "repo-remove", name=name)
    out.print(f"{name} is removed.", markup=False)


@explained("repo tags acme/app", failed="there is none of this name")
def repo_tags(
    name: RepositoryArgument, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Tell of a repository's tags."""
    found = _pages(config, "repo-tags", "tags", name=name)
    shown(
        found,
        ("TAG", "DIGEST", "PLATFORMS", "SIZE", "MOVED", "BY"),
        lambda tag: (
            tag["name"],
            _short(tag["digest"]),
            ",".join(each.removeprefix("linux/") for each in tag["platforms"]) or "-",
            size(tag["size"]),
            since(tag["moved_at"]),
            tag["moved_by"] or "-",
        ),
        as_json=as_json,
        right="SIZE",
    )
    if not found:
        err.print(f"{name} has no tags.", markup=False)


@explained("repo history acme/app:v1", failed="there has never been one of this name")
def repo_history(
    image: TagArgument, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Tell what a tag pointed to, the newest first; also of one that is gone."""
    name, tag = _tagged(image)
    shown(
        answered(config, "repo-history", name=name, tag=tag),
        ("MOVED", "DIGEST", "BY"),
        lambda move: (moment(move["at"]), move["digest"] or "deleted", move["by"] or "-"),
        as_json=as_json,
    )


@explained("repo image acme/app:v1", "repo image acme/app@sha256:…", failed="it is not there")
def repo_image(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="With its tag or digest.", show_default=False)
    ],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Tell what an image is made of, and what refers to it."""
    name, at, reference = image.partition("@")
    if not at:
        name, reference = _tagged(image)
    found = one(config, "repo-image", name=name, reference=reference)
    if as_json:
        print_json(found)
        return
    manifest = found["manifest"]
    lines = [
        f"digest     {manifest['digest']}",
        f"type       {manifest['media_type']}",
        f"size       {size(found['size'])}",
        f"pushed     {moment(manifest['pushed_at'])} by {manifest['pushed_by'] or '-'}",
        f"tags       {', '.join(found['tags']) or '-'}",
    ]
    if manifest["platforms"]:
        lines.append(f"platforms  {', '.join(manifest['platforms'])}")
    lines += [f"layer      {each['digest']}  {size(each['size'])}" for each in found["layers"]]
    lines += [
        f"image      {each['digest']}  {each['platform'] or '-'}  {size(each['size'])}"
        for each in found["children"]
    ]
    lines += [
        f"referrer   {each['digest']}  {each['artifact_type'] or each['media_type']}"
        for each in found["referrers"]
    ]
    for line in lines:
        out.print(line, markup=False)


@explained("repo untag acme/app:v1", failed="it is not there, or is immutable")
def repo_untag(image: TagArgument, config: ConfigOption = None) -> None:
    """Take a tag away, and leave what it points to."""
    name, tag = _tagged(image)
    one(config, "repo-untag", name=name, tag=tag)
    out.print(f"{image} is gone.", markup=False)


@explained("repo delete acme/app@sha256:…", failed="it is not there, or a tag of it is immutable")
def repo_delete(
    image: Annotated[
        str, typer.Argument(metavar="ORG/NAME@DIGEST", help="By digest.", show_default=False)
    ],
    config: ConfigOption = None,
) -> None:
    """Delete an image, with all tags that point to it."""
    name, at, digest = image.partition("@")
    if not at:
        raise give_up(
            f"{image}: write {image}@sha256:…; untag takes a tag away", CONFIGURATION_WRONG
        )
    one(config, "repo-delete", name=name, digest=digest)
    out.print(f"{image} is gone.", markup=False)


# Retention.


@explained("retention show acme/app", failed="there is none of this name")
def retention_show(
    name: RepositoryArgument, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Tell which tags stay."""
    _show_rules(one(config, "repo-show", name=name)["repository"], as_json=as_json)


@explained(
    "retention set acme/app --keep 10",
    "retention set acme/app --match 'v*'",
    "retention set acme/app --match 'pr-*' --younger 14d --untagged 7d --add",
    "retention set acme/app --none",
    failed="there is none of this name",
)
def retention_set(
    name: RepositoryArgument,
    match: Annotated[
        list[str] | None,
        typer.Option(
            "--match",
            metavar="PATTERN",
            help="The tags that the rule is for; may be repeated. Without it, all.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", help="The N moved last stay.", show_default=False),
    ] = None,
    younger: Annotated[
        str,
        typer.Option(
            "--younger", metavar="TIME", help="What was moved since stays.", show_default=False
        ),
    ] = "",
    untagged: Annotated[
        str,
        typer.Option(
            "--untagged",
            metavar="TIME",
            help="An image without a tag goes so long after its push.",
            show_default=False,
        ),
    ] = "",
    add: Annotated[
        bool, typer.Option("--add", help="Beside the rules that there are; without it, instead.")
    ] = False,
    none: Annotated[bool, typer.Option("--none", help="No rules: everything stays.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Write a rule of which tags stay. A tag that no rule keeps goes: try it by `retention run
    --dry-run`. A rule with neither --keep nor --younger keeps all that match."""
    if none and (match or keep is not None or younger or untagged or add):
        raise give_up("--none stands alone", CONFIGURATION_WRONG)
    if not none and not match and keep is None and not younger and not untagged:
        raise give_up(
            "write what stays: --keep 10, --younger 30d or --match 'v*'; or --none",
            CONFIGURATION_WRONG,
        )
    rule = {
        "match": match or ["*"],
        "keep": keep,
        "younger": time_of(younger, "--younger"),
        "untagged": time_of(untagged, "--untagged"),
    }
    rules = [] if none else [*(_rules(config, name) if add else ()), rule]
    changed = one(config, "repo-set", name=name, retention=rules)["repository"]
    _show_rules(changed, as_json=as_json)


@explained("retention run acme/app --dry-run", failed="there is none of this name")
def retention_run(
    name: RepositoryArgument,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would go, and take nothing away.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Take away what the rules of a repository do not keep. The mirror does it by itself, too."""
    found = one(config, "retention-run", name=name, is_trial=dry_run)
    if as_json:
        print_json(found)
        return
    for tag in found["tags"]:
        out.print(f"{name}:{tag}", markup=False)
    for digest in found["manifests"]:
        out.print(f"{name}@{digest}", markup=False)
    count = len(found["tags"]) + len(found["manifests"])
    err.print(f"{count} {'would go' if dry_run else 'are gone'}.")


def _rules(config: Path | None, name: str) -> list[Line]:
    return list(one(config, "repo-show", name=name)["repository"]["retention"])


def _show_rules(repository: Line, *, as_json: bool) -> None:
    rules = repository["retention"]
    if as_json:
        print_json({"name": repository["name"], "retention": rules})
        return
    for rule in rules:
        out.print(_spoken(rule), markup=False)
    if not rules:
        out.print(f"{repository['name']} has no rules: everything stays.", markup=False)


def _spoken(rule: Line) -> str:
    tags = f"of {', '.join(rule['match'])}"
    words = []
    if rule["keep"] is not None:
        words.append(f"the last {rule['keep']} {tags} stay")
    if rule["younger"] is not None:
        words.append(f"what was moved within {lasted(rule['younger'])} {tags} stays")
    if not words:
        words.append(f"all {tags} stay")
    if rule["untagged"] is not None:
        words.append(f"images without a tag go after {lasted(rule['untagged'])}")
    return "; ".join(words)


def _show(repository: Line, *, as_json: bool) -> None:
    if as_json:
        print_json(repository)
        return
    out.print(f"{repository['name']}: {repository['visibility']}", markup=False)
    if repository["description"]:
        out.print(repository["description"], markup=False)
    if repository["immutable"]:
        out.print(f"immutable tags: {', '.join(repository['immutable'])}", markup=False)
    for rule in repository["retention"]:
        out.print(f"retention: {_spoken(rule)}", markup=False)
    out.print(f"made {since(repository['created_at'])}, pushed {since(repository['pushed_at'])}")


def _pages(config: Path | None, command: str, key: str, **words: object) -> list[Line]:
    found: list[Line] = []
    after: str | None = None
    while True:
        page = one(config, command, **words, count=_PAGE, after=after)
        found += page[key]
        after = page["after"]
        if after is None:
            return found


def _tagged(image: str) -> tuple[str, str]:
    name, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        raise give_up(f"{image}: write its tag too: {image}:latest, say", CONFIGURATION_WRONG)
    return name, tag


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]


repo = typer.Typer(no_args_is_help=True, help="Repositories of one's own, and their images.")
retention = typer.Typer(no_args_is_help=True, help="Which tags of a repository stay.")
register(
    repo,
    repo_add,
    repo_delete,
    repo_history,
    repo_image,
    repo_list,
    repo_remove,
    repo_set,
    repo_show,
    repo_tags,
    repo_untag,
    without="repo_",
)
register(retention, retention_run, retention_set, retention_show, without="retention_")
