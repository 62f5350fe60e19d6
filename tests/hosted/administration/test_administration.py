"""What people do with repositories of one's own, and who may."""

from __future__ import annotations

import json

import pytest

from mirror.contracts.administration import (
    AdministrationError,
    AlreadyThere,
    NotAllowed,
    NotThere,
    NotValid,
    rendered,
)
from mirror.contracts.context import ANONYMOUS, PrincipalKind, RequestContext
from mirror.contracts.events import RepositoryChanged
from mirror.contracts.hosted import HostedManifest, HostedRecords, TagOrder, Visibility
from mirror.contracts.identity import Action, Grant, Right, Role, secret_hash
from mirror.contracts.webhooks import Subject
from mirror.oci.digest import Digest
from mirror.oci.manifests import OCI_INDEX, Platform

from .conftest import BY_COMMAND, World

HOUR = 3600.0
BCRYPT = "$2y$05$" + "a" * 53

NOBODY = RequestContext("3", "192.0.2.9", ANONYMOUS)

EVERYBODY = ("root", "maintainer", "writer", "reader", "mallory", "anonymous", "robot", "token")

ADMINISTRATORS = "root"
MAINTAINERS = "root maintainer"
MEMBERS = "root maintainer writer reader"

WHO_MAY = {
    "user list": ADMINISTRATORS,
    "user add": ADMINISTRATORS,
    "user change": ADMINISTRATORS,
    "user remove": ADMINISTRATORS,
    "other's password": ADMINISTRATORS,
    "import": ADMINISTRATORS,
    "org add": ADMINISTRATORS,
    "org quota": ADMINISTRATORS,
    "org remove": ADMINISTRATORS,
    "org show": MEMBERS,
    "org members": MEMBERS,
    "org member": MAINTAINERS,
    "robot list": MAINTAINERS,
    "robot add": MAINTAINERS,
    "robot remove": MAINTAINERS,
    "other's tokens": ADMINISTRATORS,
    "other's token": "",
    "repo show": MEMBERS + " robot token",
    "repo tags": MEMBERS + " robot token",
    "repo add": "root maintainer writer",
    "repo set": MAINTAINERS,
    "repo remove": MAINTAINERS,
    "retention": MAINTAINERS,
    "untag": MAINTAINERS,
    "webhooks": MAINTAINERS,
    "webhook add": MAINTAINERS,
    "webhooks of all": ADMINISTRATORS,
    "audit": ADMINISTRATORS,
    "audit of acme": MAINTAINERS,
}


def deeds(world: World, by: RequestContext):
    on = world.administration
    return {
        "user list": lambda: on.users.list(by),
        "user add": lambda: on.users.add(by, "eve", "a long password"),
        "user change": lambda: on.users.change(by, "reader", disabled=True),
        "user remove": lambda: on.users.remove(by, "reader"),
        "other's password": lambda: on.users.set_password(by, "nemo", "a long password"),
        "import": lambda: on.users.import_htpasswd(by, f"eve:{BCRYPT}"),
        "org add": lambda: on.organisations.add(by, "umbrella"),
        "org quota": lambda: on.organisations.set_quota(by, "acme", 5),
        "org remove": lambda: on.organisations.remove(by, "empty"),
        "org show": lambda: on.organisations.one(by, "acme"),
        "org members": lambda: on.organisations.members(by, "acme"),
        "org member": lambda: on.organisations.set_member(by, "acme", "nemo", Role.READER),
        "robot list": lambda: on.robots.list(by, "acme"),
        "robot add": lambda: on.robots.add(by, "acme", "new", [Grant("*", Right.PULL)]),
        "robot remove": lambda: on.robots.remove(by, "acme", "ci"),
        "other's tokens": lambda: on.tokens.list(by, "nemo"),
        "other's token": lambda: on.tokens.add(by, "nemo", "mine", Right.PUSH),
        "repo show": lambda: on.repositories.one(by, "acme/app"),
        "repo tags": lambda: on.images.tags(by, "acme/app"),
        "repo add": lambda: on.repositories.add(by, "acme/new", Visibility.PRIVATE),
        "repo set": lambda: on.repositories.change(by, "acme/app", visibility=Visibility.PUBLIC),
        "repo remove": lambda: on.repositories.remove(by, "acme/app"),
        "retention": lambda: on.repositories.apply_retention(by, "acme/app", is_trial=True),
        "untag": lambda: on.images.remove_tag(by, "acme/app", "v1"),
        "webhooks": lambda: on.webhooks.list(by, "acme"),
        "webhook add": lambda: on.webhooks.add(
            by, "acme", "https://ci.example.com/x", [Subject.PUSH]
        ),
        "webhooks of all": lambda: on.webhooks.list(by, ""),
        "audit": lambda: on.audit(by),
        "audit of acme": lambda: on.audit(by, target="acme/app"),
    }


async def _ready(world: World) -> dict[str, RequestContext]:
    on = world.administration
    await on.users.add(BY_COMMAND, "nemo", "password of nemo")
    await on.organisations.add(BY_COMMAND, "empty")
    await on.repositories.add(BY_COMMAND, "acme/app", Visibility.PRIVATE)
    await _image(world, "acme/app", "v1")
    await on.robots.add(BY_COMMAND, "acme", "ci", [Grant("*", Right.PUSH)])
    world.audit.noted.clear()
    named = {name: world.by(name) for name in EVERYBODY}
    named["anonymous"] = NOBODY
    named["robot"] = world.by("acme+ci", PrincipalKind.ROBOT)
    named["token"] = world.by("root", by_token=True)
    return named


async def _image(world: World, repository: str, tag: str | None, **how) -> Digest:
    digest = Digest.of(f"{repository}:{tag}{how}".encode())
    made = HostedManifest(digest, "application/vnd.oci.image.manifest.v1+json", 500, **how)
    await world.records.put_manifest(repository, made, tag, world.clock.wall, "writer")
    return digest


async def _pushed_index(world: World, tag: str, children: list[Digest]) -> None:
    """One whose bytes are held, too, in acme/app."""
    kind = "application/vnd.oci.image.manifest.v1+json"
    described = [{"mediaType": kind, "digest": str(each), "size": 500} for each in children]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described}
    data = json.dumps(document).encode()
    made = HostedManifest(Digest.of(data), OCI_INDEX, len(data), manifests=tuple(children))
    await world.content.put(made.digest, data)
    await world.records.put_manifest("acme/app", made, tag, world.clock.wall, "writer")


@pytest.mark.parametrize("deed", WHO_MAY)
async def test_each_deed_needs_its_right_and_what_is_refused_is_noted(
    team: World, deed: str
) -> None:
    contexts = await _ready(team)
    refused = set(EVERYBODY) - set(WHO_MAY[deed].split())
    for name in refused:
        before = len(team.audit.noted)
        with pytest.raises((NotAllowed, NotThere)):
            await deeds(team, contexts[name])[deed]()
        assert all(each.outcome == "refused" for each in team.audit.noted[before:])
    changed = [each for each in team.audit.noted if each.outcome == "done"]
    assert changed == []
    for name in WHO_MAY[deed].split()[:1]:
        await deeds(team, contexts[name])[deed]()


@pytest.mark.parametrize("deed", ["repo set", "org member", "robot add", "webhook add"])
async def test_a_maintainer_may_and_it_is_noted(team: World, deed: str) -> None:
    contexts = await _ready(team)
    await deeds(team, contexts["maintainer"])[deed]()
    entry = team.audit.noted[-1]
    assert (entry.actor, entry.outcome) == ("maintainer", "done")
    assert entry.target.startswith("acme")


async def test_what_is_not_seen_is_told_of_as_what_is_not_there(team: World) -> None:
    await team.administration.repositories.add(BY_COMMAND, "acme/app", Visibility.PRIVATE)
    told = []
    for name in ("acme/app", "acme/none"):
        with pytest.raises(NotThere) as error:
            await team.administration.repositories.one(team.by("mallory"), name)
        told.append(error.value.message.replace(name, "X"))
    assert told[0] == told[1]
    for name in ("acme", "nowhere"):
        with pytest.raises(NotThere) as error:
            await team.administration.organisations.one(team.by("mallory"), name)
        told.append(error.value.message.replace(name, "X"))
    assert told[2] == told[3]


async def test_what_was_taken_away_counts(team: World) -> None:
    on, maintainer = team.administration, team.by("maintainer")
    await on.robots.list(maintainer, "acme")
    await on.organisations.set_member(BY_COMMAND, "acme", "maintainer", Role.READER)
    with pytest.raises(NotAllowed):
        await on.robots.list(maintainer, "acme")
    await on.users.change(BY_COMMAND, "root", administrator=True)
    await on.users.add(BY_COMMAND, "second", "password of second", administrator=True)
    await on.users.change(BY_COMMAND, "root", disabled=True)
    with pytest.raises(NotAllowed):
        await on.users.list(team.by("root"))


async def test_the_last_administrator_stays(team: World) -> None:
    users = team.administration.users
    for change in ({"administrator": False}, {"disabled": True}):
        with pytest.raises(NotAllowed, match="last administrator"):
            await users.change(BY_COMMAND, "root", **change)
    with pytest.raises(NotAllowed, match="last administrator"):
        await users.remove(BY_COMMAND, "root")
    await users.change(BY_COMMAND, "writer", administrator=True)
    await users.remove(BY_COMMAND, "root")
    with pytest.raises(NotAllowed, match="last administrator"):
        await users.change(BY_COMMAND, "writer", disabled=True)


@pytest.mark.parametrize(
    "name", ["", "Ada", "a/b", "-a", "a-", "a..b", "a+b", "ä", "a b", "a" * 65, "v2", "operator"]
)
async def test_a_name_is_the_first_part_of_repositories_names(team: World, name: str) -> None:
    on = team.administration
    for made in (
        on.users.add(BY_COMMAND, name, "a long password"),
        on.organisations.add(BY_COMMAND, name),
        on.robots.add(BY_COMMAND, "acme", name, [Grant("*", Right.PULL)]),
    ):
        with pytest.raises(NotValid):
            await made


async def test_users_and_organisations_share_their_names(team: World) -> None:
    on = team.administration
    with pytest.raises(AlreadyThere, match="an organisation acme"):
        await on.users.add(BY_COMMAND, "acme", "a long password")
    with pytest.raises(AlreadyThere, match="a user root"):
        await on.organisations.add(BY_COMMAND, "root")


async def test_a_user_shows_its_password_to_set_another(team: World) -> None:
    users, writer = team.administration.users, team.by("writer")
    with pytest.raises(NotAllowed):
        await users.set_password(writer, "writer", "another password", before="guessed")
    assert team.audit.noted[-1].outcome == "refused"
    with pytest.raises(NotValid, match="8 characters"):
        await users.set_password(writer, "writer", "short", before="password of writer")
    await users.set_password(writer, "writer", "another password", before="password of writer")
    assert await team.identity.password_hash("writer") == "hash of another password"


async def test_htpasswd_is_imported_line_by_line(team: World) -> None:
    lines = [
        "# made by htpasswd -B",
        f"eve:{BCRYPT}",
        "",
        f"writer:{BCRYPT}",
        "md5:$apr1$abc$def",
        f"acme:{BCRYPT}",
        "no colon",
    ]
    found = await team.administration.users.import_htpasswd(BY_COMMAND, "\n".join(lines))
    assert (found.added, found.updated) == (("eve",), ("writer",))
    assert [number for number, _ in found.refused] == [5, 6, 7]
    assert "htpasswd -B" in found.refused[0][1]
    assert await team.identity.password_hash("eve") == BCRYPT


async def test_a_robots_secret_is_shown_once_and_kept_as_a_hash(team: World) -> None:
    on, maintainer = team.administration, team.by("maintainer")
    grants = [Grant("acme/app", Right.PUSH), Grant("team/*", Right.PULL)]
    made = await on.robots.add(maintainer, "acme", "ci", grants, 90 * 86400.0)
    assert made.login == "acme+ci"
    assert await team.identity.robot_secret("acme+ci") == secret_hash(made.secret)
    (listed,) = await on.robots.list(maintainer, "acme")
    assert listed.grants == (Grant("app", Right.PUSH), Grant("team/*", Right.PULL))
    assert listed.expires_at == team.clock.wall + 90 * 86400
    assert made.secret not in json.dumps([rendered(listed), str(team.audit.noted)])
    with pytest.raises(AlreadyThere):
        await on.robots.add(maintainer, "acme", "ci", grants)
    for wrong in ([], [Grant("App", Right.PULL)], [Grant("a b", Right.PULL)]):
        with pytest.raises(NotValid):
            await on.robots.add(maintainer, "acme", "other", wrong)


async def test_a_token_is_its_users(team: World) -> None:
    tokens, writer = team.administration.tokens, team.by("writer")
    made = await tokens.add(writer, "writer", "laptop", Right.PUSH, HOUR)
    found = await team.identity.token(secret_hash(made.secret))
    assert found is not None
    assert (found.user, found.expires_at) == ("writer", team.clock.wall + HOUR)
    with pytest.raises(AlreadyThere):
        await tokens.add(writer, "writer", "laptop", Right.PULL)
    with pytest.raises(NotThere):
        await tokens.list(team.by("maintainer"), "writer")
    with pytest.raises(NotAllowed, match="writer alone"):
        await tokens.add(team.by("root"), "writer", "spy", Right.PULL)
    await tokens.remove(team.by("root"), "writer", "laptop")
    assert list(await tokens.list(writer, "writer")) == []


async def test_repositories_are_listed_by_what_is_seen_in_pages(team: World) -> None:
    on = team.administration
    for name in ("acme/a", "acme/b", "acme/c", "writer/own"):
        await on.repositories.add(BY_COMMAND, name, Visibility.PRIVATE)
    await on.repositories.add(BY_COMMAND, "root/shown", Visibility.PUBLIC)
    first = await on.repositories.list(team.by("reader"), count=2)
    assert [each.repository.name for each in first.repositories] == ["acme/a", "acme/b"]
    assert first.repositories[0].may == (Action.PULL,)
    rest = await on.repositories.list(team.by("reader"), count=2, after=first.after)
    assert [each.repository.name for each in rest.repositories] == ["acme/c", "root/shown"]
    assert rest.after is None
    seen = await on.repositories.list(NOBODY)
    assert [each.repository.name for each in seen.repositories] == ["root/shown"]
    found = await on.repositories.list(team.by("writer"), "r/own")
    assert found.repositories[0].may == tuple(Action)


async def test_settings_are_changed_one_by_one_and_told_of(team: World) -> None:
    on, maintainer = team.administration, team.by("maintainer")
    await on.repositories.add(BY_COMMAND, "acme/app", Visibility.PRIVATE)
    await on.repositories.change(maintainer, "acme/app", description="It sells.")
    changed = await on.repositories.change(maintainer, "acme/app", visibility=Visibility.PUBLIC)
    assert changed.repository.description == "It sells."
    assert changed.repository.visibility is Visibility.PUBLIC
    assert [str(each.repository) for each in team.events.of(RepositoryChanged)] == [
        "hosted/acme/app"
    ] * 3
    with pytest.raises(NotValid):
        await on.repositories.change(maintainer, "acme/app", immutable=["a b"])


@pytest.mark.parametrize("name", ["app", "Acme/app", "acme/", "acme//app", "nowhere/app"])
async def test_a_repository_is_made_below_what_there_is(team: World, name: str) -> None:
    with pytest.raises((NotValid, NotThere)):
        await team.administration.repositories.add(BY_COMMAND, name, Visibility.PRIVATE)


async def test_an_organisation_with_repositories_stays(team: World) -> None:
    on = team.administration
    await on.repositories.add(BY_COMMAND, "acme/app", Visibility.PRIVATE)
    team.identity.remove_organisation = _not_removed  # as a database does while it has some
    with pytest.raises(AlreadyThere, match="acme/app"):
        await on.organisations.remove(BY_COMMAND, "acme")


async def _not_removed(name: str) -> bool:
    return False


async def test_tags_tell_sizes_platforms_and_what_stays(team: World) -> None:
    on = team.administration
    arm, amd = Platform("linux", "arm64"), Platform("linux", "amd64")
    await on.repositories.add(BY_COMMAND, "acme/app", Visibility.PRIVATE)
    one = await _image(team, "acme/app", None, image_size=1000, platforms=(arm,))
    two = await _image(team, "acme/app", None, image_size=3000, platforms=(amd,))
    await _image(team, "acme/app", "v1", manifests=(one, two), platforms=(arm, amd))
    await _image(team, "acme/app", "latest")
    await on.repositories.change(BY_COMMAND, "acme/app", immutable=["v*"])
    latest, v1 = (await on.images.tags(team.by("reader"), "acme/app")).tags
    assert (v1.size, v1.platforms, v1.immutable) == (4000, (arm, amd), True)
    assert (latest.size, latest.immutable, latest.moved_by) == (0, False, "writer")
    newest = await on.images.tags(team.by("reader"), "acme/app", 1, None, TagOrder.NEWEST)
    rest = await on.images.tags(team.by("reader"), "acme/app", 9, newest.after, TagOrder.NEWEST)
    assert {*newest.tags, *rest.tags} == {latest, v1}
    assert newest.tags[0].moved_at >= rest.tags[0].moved_at
    with pytest.raises(NotValid, match="is no place"):
        await on.images.tags(team.by("reader"), "acme/app", 9, "v1", TagOrder.NEWEST)
    shown = rendered(await on.images.tags(team.by("reader"), "acme/app", count=1))
    assert shown["after"] == "latest"
    detail = await on.images.manifest(team.by("reader"), "acme/app", "v1")
    assert detail.tags == ("v1",)
    assert detail.size == 4000
    with pytest.raises(NotAllowed, match="immutable"):
        await on.images.remove_tag(team.by("maintainer"), "acme/app", "v1")
    await on.images.remove_manifest(team.by("maintainer"), "acme/app", str(latest.digest))
    moves = await on.images.history(team.by("reader"), "acme/app", "latest")
    assert [move.digest for move in moves] == [None, latest.digest]


async def test_what_a_page_of_tags_reads_does_not_grow_with_it(
    team: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read is a round trip to the database, and whoever sees the repository may ask."""
    on, reader = team.administration, team.by("reader")
    await on.repositories.add(BY_COMMAND, "acme/app", Visibility.PRIVATE)
    listed = [await _image(team, "acme/app", None, image_size=each) for each in range(1, 21)]
    for number in range(30):
        children = tuple(listed[: number % 20 + 1])
        await _image(team, "acme/app", f"v{number:02}", manifests=children, image_size=1000)
    await _pushed_index(team, "pushed", listed)
    reads: list[str] = []

    def counted(name: str):
        asked = getattr(team.records, name)

        async def ask(*arguments, **more):
            reads.append(name)
            return await asked(*arguments, **more)

        return ask

    for name in [each for each in vars(HostedRecords) if not each.startswith("_")]:
        monkeypatch.setattr(team.records, name, counted(name))
    tags = (await on.images.tags(reader, "acme/app")).tags
    assert len(reads) <= 5
    assert [tag.size for tag in tags] == [210] + [
        1000 + sum(range(1, number % 20 + 2)) for number in range(30)
    ]
    reads.clear()
    detail = await on.images.manifest(reader, "acme/app", "pushed")
    assert (detail.size, detail.tags) == (210, ("pushed",))
    assert [child.size for child in detail.children] == [*range(1, 21)]
    assert len(reads) <= 10
    assert "tags" not in reads, "all of the repository are read for those of one manifest"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://ci.example.com/",
        "https://user:secret@ci.example.com/",
        "https://",
        "ci.example.com",
        "https://ci.example.com:99999/",
        "https://10.0.0.1/",
    ],
)
async def test_a_webhook_leads_to_an_address_that_is_one(team: World, url: str) -> None:
    with pytest.raises(NotValid):
        await team.administration.webhooks.add(BY_COMMAND, "acme", url, [Subject.PUSH])


async def test_webhooks_of_others_are_not_there(team: World) -> None:
    webhooks, maintainer = team.administration.webhooks, team.by("maintainer")
    made = await webhooks.add(maintainer, "acme", "https://ci.example.com/x", [Subject.PUSH])
    assert made.secret
    for deed in (
        lambda by, id: webhooks.remove(by, id),
        lambda by, id: webhooks.ping(by, id),
        lambda by, id: webhooks.deliveries(by, id),
        lambda by, id: webhooks.switch(by, id, disabled=True),
        lambda by, id: webhooks.redeliver(by, id, "1"),
    ):
        with pytest.raises(NotThere):
            await deed(team.by("mallory"), made.webhook.id)
    await webhooks.ping(maintainer, made.webhook.id)
    (delivery,) = await webhooks.deliveries(maintainer, made.webhook.id)
    assert delivery.happening.subject is Subject.PING
    with pytest.raises(NotValid):
        await webhooks.add(maintainer, "acme", "https://ci.example.com/x", [Subject.FILL])


async def test_everything_that_is_given_is_json(team: World) -> None:
    await _ready(team)
    on = team.administration
    for told in (
        await on.users.myself(team.by("writer")),
        await on.users.one(BY_COMMAND, "writer"),
        await on.organisations.one(BY_COMMAND, "acme"),
        (await on.robots.list(BY_COMMAND, "acme"))[0],
        await on.tokens.add(BY_COMMAND, "writer", "x", Right.PULL),
        await on.repositories.list(BY_COMMAND),
        await on.images.manifest(BY_COMMAND, "acme/app", "v1"),
    ):
        assert json.loads(json.dumps(rendered(told)))
    assert issubclass(NotThere, AdministrationError)
