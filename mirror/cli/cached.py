"""The images that are here: listed, and purged."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..clock import Clock
from ..config import Mistake, seconds
from ..contracts.images import Sort
from ..quantities import ago, moment, size
from .asking import last_line, lines
from .console import (
    CONFIGURATION_WRONG,
    ConfigOption,
    JsonOption,
    err,
    explained,
    give_up,
    out,
    print_json,
    print_table,
)
from .named import names_of

Line = Mapping[str, Any]

PatternArgument = Annotated[
    str,
    typer.Argument(
        metavar="[PATTERN]",
        help="redis:7, redis (all its tags), 'ghcr.io/acme/*', '*:latest'. Without one, all.",
        show_default=False,
    ),
]
PatternsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATTERN…]",
        help="redis:7, redis (all its tags), 'ghcr.io/acme/*', or @list.txt (one a line).",
        show_default=False,
    ),
]

_PAGE = 500
_HEADS = ("IMAGE", "DIGEST", "PLATFORMS", "SIZE", "OWN", "CHECKED", "USED", "PULLS", "STATE")


@explained(
    "images",
    "images 'ghcr.io/acme/*' --sort size --limit 20",
    "images --json | jq -r 'select(.missing > 0) | .name'",
    failed="what is here could not be said, or the image that is named is not here",
)
def images(
    pattern: PatternArgument = "",
    sort: Annotated[
        Sort, typer.Option("--sort", help="By name, or the largest, latest, most pulled first.")
    ] = Sort.NAME,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="So many at most; 0: all.", show_default=True)
    ] = 0,
    pieces: Annotated[
        bool, typer.Option("--pieces", help="Of one image: its manifests, layers and signatures.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the images that are here: what they take, OWN of it with no other image, when the
    registry last said what the tag points to (CHECKED), the last pull, and what is missing.

    PLATFORMS are those that are here. A pinned tag stays what it is, whatever its registry says
    (pin, unpin); what is never evicted is kept whatever its age (storage.pin, or pinned)."""
    if pieces:
        asyncio.run(_show(pattern, config, as_json))
    else:
        asyncio.run(_list(pattern, sort, limit, config, as_json))


@explained(
    "purge redis:7",
    "purge 'ghcr.io/acme/*' --dry-run",
    "purge --older 30d --yes",
    failed="a name means nothing that is here, or only what is pinned",
)
def purge(
    patterns: PatternsArgument = None,
    older: Annotated[
        str,
        typer.Option(
            "--older", metavar="TIME", help="Only what was not used for so long: 12h, 30d."
        ),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would go, and remove nothing.")
    ] = False,
    pinned: Annotated[
        bool, typer.Option("--pinned", help="Also what is pinned or never evicted; it stays so.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, on a terminal.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove images from the cache: the next pull fetches them anew.

    What other images need stays; running pulls and downloads go on. Pinned images stay, and so does
    a second tier: what it has comes from there. On a terminal it asks first, unless each image is
    named with its tag."""
    names = names_of(patterns or [])
    asked: dict[str, object] = {"patterns": names, "with_pinned": pinned, "is_trial": dry_run}
    if older:
        try:
            asked["used_before"] = Clock().wall() - seconds(older)
        except Mistake as mistake:
            raise give_up(f"--older: {mistake}", CONFIGURATION_WRONG) from None
    if not names and not older:
        raise give_up("nothing is named: write an image, a pattern or --older", CONFIGURATION_WRONG)
    if not (yes or dry_run or as_json) and _is_broad(names) and sys.stdin.isatty():
        total = asyncio.run(_purge({**asked, "is_trial": True}, config, as_json=False))
        if not total["images"]:
            raise typer.Exit(_status(total))
        if not typer.confirm("Purge them?", err=True):
            raise give_up("nothing was purged")
    total = asyncio.run(_purge(asked, config, as_json))
    raise typer.Exit(_status(total))


async def _list(pattern: str, sort: Sort, limit: int, config: Path | None, as_json: bool) -> None:
    found: list[Line] = []
    after: str | None = ""
    count = 0
    while after is not None and (count < limit or not limit):
        most = min(_PAGE, limit - count) if limit else _PAGE
        parameters = {"pattern": pattern, "sort": str(sort), "after": after, "limit": most}
        page = await last_line(config, "images", parameters)
        after = page["following"]
        count += len(page["images"])
        for image in page["images"]:
            if as_json:
                print_json(image)
            else:
                found.append(image)
    if not count and pattern and not any(sign in pattern for sign in "*?["):
        raise give_up(f"{pattern}: no such image is here")
    if not as_json:
        _print_images(found, Clock().wall())


def _print_images(found: Sequence[Line], now: float) -> None:
    print_table(_HEADS, [_row(image, now) for image in found], right="SIZE OWN PULLS")


def _row(image: Line, now: float) -> tuple[str, ...]:
    platforms = [name.removeprefix("linux/") for name in image["platforms"]]
    name, at, digest = image["image"].partition("@")
    return (
        f"{name}@{_short(digest)}" if at else name,
        _short(image["digest"]),
        ",".join(platforms) or "-",
        size(image["size"]),
        size(image["own"]),
        "-" if image["checked_at"] is None else _ago(image["checked_at"], now),
        _ago(image["used_at"], now),
        str(image["pulls"]),
        image["state"],
    )


def _ago(at: float | None, now: float) -> str:
    age = ago(at, now)
    return age if age in ("now", "never") else f"{age} ago"


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]


async def _show(name: str, config: Path | None, as_json: bool) -> None:
    if not name:
        raise give_up("--pieces is of one image: name it", CONFIGURATION_WRONG)
    found = await last_line(config, "image", {"image": name})
    if as_json:
        print_json(found)
        return
    image = found["image"]
    _print_images([image], Clock().wall())
    out.print(f"\ndigest   {image['digest']}", markup=False)
    if image["checked_at"] is not None:
        out.print(f"checked  {moment(image['checked_at'])}", markup=False)
    if found["platforms"]:
        out.print(f"made for {', '.join(found['platforms'])}", markup=False)
    out.print("")
    for piece in found["pieces"]:
        others = piece["shared_with"]
        words = [
            f"{piece['role']:<8}",
            piece["digest"],
            f"{size(piece['size']):>9}",
            "" if piece["is_here"] else "not here",
            piece["platform"],
            f"shared with {', '.join(others[:3])}{' …' if others[3:] else ''}" if others else "",
        ]
        sys.stdout.write("  ".join(word for word in words if word) + "\n")


async def _purge(asked: Mapping[str, object], config: Path | None, as_json: bool) -> Line:
    """Its last line, the total."""
    line: Line = {}
    would = "would free" if asked["is_trial"] else "freed"
    async with contextlib.aclosing(lines(config, "purge", asked)) as answers:
        async for line in answers:
            if as_json:
                print_json(line)
            elif "shared" not in line:
                out.print(f"{line['image']}: {would} {size(line['freed'])}", markup=False)
    if as_json:
        return line
    for name in line["skipped"]:
        err.print(f"{name} stays: it is pinned or never evicted (--pinned)", markup=False)
    for pattern in line["unknown"]:
        err.print(f"{pattern}: no such image is here", markup=False)
    count = line["images"]
    shared = line["shared"]
    stays = f", {size(shared)} shared with others stay" if shared else ""
    out.print(
        f"{count} {'image' if count == 1 else 'images'}, {size(line['freed'])} "
        f"{'would be freed' if asked['is_trial'] else 'freed'}{stays}.",
        markup=False,
    )
    return line


def _status(total: Line) -> int:
    return int(bool(total["unknown"]) or (not total["images"] and bool(total["skipped"])))


def _is_broad(names: Sequence[str]) -> bool:
    """Whether others may be meant than those that are named."""
    return not names or any(
        any(sign in name for sign in "*?[") or ":" not in name.rpartition("/")[2] for name in names
    )
