"""What retention rules take away of a repository, and why: pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from ..contracts.hosted import HostedManifest, HostedTag, RetentionRule
from ..frozen import dataclass
from ..oci.digest import Digest
from ..oci.referrers import fallback_tag
from ..quantities import lasted


@dataclass(frozen=True, slots=True)
class Expiring:
    """A tag that goes, or, where `tag` is None, a manifest; `why` names the rule. `had_tag`: it, or
    that for whose sake it is here, had one until now; else somebody may rely on its digest."""

    digest: Digest
    why: str
    tag: HostedTag | None = None
    had_tag: bool = True


@dataclass(frozen=True, slots=True)
class Expiry:
    """`tags`, and `manifests` that go with them or had none."""

    tags: Sequence[Expiring] = ()
    manifests: Sequence[Expiring] = ()


def expiring(
    rules: Sequence[RetentionRule],
    immutable: Sequence[str],
    tags: Sequence[HostedTag],
    manifests: Sequence[HostedManifest],
    now: float,
) -> Expiry:
    """`tags` and `manifests`: all of the repository.

    Immutable tags stay, whatever the rules say: they are promised to. A tag that stands for a
    manifest's referrers (distribution-spec, "Referrers Tag Schema"; cosign's end in `.sig`, `.att`
    or `.sbom`) goes and stays with that manifest, and no rule counts it. With a manifest
    go, but for those that have a tag or are part of what stays, its parts, and its referrers.
    """
    found = _Repository(tags, manifests)
    reasons = _tags_that_go(rules, immutable, found.ordinary, now)
    going = found.going(reasons, _untagged(rules), now)
    leaving = [Expiring(tag.digest, reasons[tag.name], tag) for tag in tags if tag.name in reasons]
    leaving += [
        Expiring(tag.digest, f"it refers to {found.fallback[tag.name]}, which goes", tag)
        for tag in tags
        if found.fallback.get(tag.name) in going
    ]
    return Expiry(leaving, list(going.values()))


def _tags_that_go(
    rules: Sequence[RetentionRule],
    immutable: Sequence[str],
    tags: Sequence[HostedTag],
    now: float,
) -> Mapping[str, str]:
    """Why, by the tags' names."""
    of_tags = [rule for rule in rules if not _is_of_manifests_only(rule)]
    if not of_tags:
        return {}
    newest = sorted(tags, key=lambda tag: (-tag.moved_at, tag.name))
    why: dict[str, list[str]] = {tag.name: [] for tag in newest}
    kept = {tag.name for tag in newest if _matches(tag.name, immutable)}
    for rule in of_tags:
        matching = [tag for tag in newest if _matches(tag.name, rule.match)]
        for place, tag in enumerate(matching):
            if _keeps(rule, place, tag, now):
                kept.add(tag.name)
            else:
                moved = f"it is number {place + 1}, moved {lasted(now - tag.moved_at)} ago"
                why[tag.name].append(f"{in_words(rule)}: {moved}")
    no_rule = f"no rule means it: {'; '.join(in_words(rule) for rule in of_tags)}"
    return {
        name: "; ".join(reasons) or no_rule for name, reasons in why.items() if name not in kept
    }


def _keeps(rule: RetentionRule, place: int, tag: HostedTag, now: float) -> bool:
    if rule.keep is None and rule.younger is None:
        return True
    is_among_newest = rule.keep is not None and place < rule.keep
    return is_among_newest or (rule.younger is not None and now - tag.moved_at < rule.younger)


def _is_of_manifests_only(rule: RetentionRule) -> bool:
    return rule.untagged is not None and rule.keep is None and rule.younger is None


def _untagged(rules: Sequence[RetentionRule]) -> float | None:
    """The longest that any rule gives to manifests without a tag; None: they stay."""
    return max((rule.untagged for rule in rules if rule.untagged is not None), default=None)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def in_words(rule: RetentionRule) -> str:
    """As people say it.

    >>> in_words(RetentionRule(("v*",), keep=3, younger=86400.0))
    'of v* the last 3 and those younger than 1 d stay'
    >>> in_words(RetentionRule())
    'of * all stay'
    """
    stay = []
    if rule.keep is not None:
        stay.append(f"the last {rule.keep}")
    if rule.younger is not None:
        stay.append(f"those younger than {lasted(rule.younger)}")
    return f"of {', '.join(rule.match)} {' and '.join(stay) or 'all'} stay"


class _Repository:
    """What refers to what."""

    def __init__(self, tags: Sequence[HostedTag], manifests: Sequence[HostedManifest]) -> None:
        self.manifests = {one.digest: one for one in manifests}
        subjects = {fallback_tag(digest): digest for digest in self.manifests}
        self.fallback = {
            tag.name: subjects[stem]
            for tag in tags
            if (stem := tag.name.partition(".")[0]) in subjects
        }
        """The subjects of tags that stand for referrers, by their names."""
        self.ordinary = [tag for tag in tags if tag.name not in self.fallback]
        self._names: dict[Digest, list[str]] = defaultdict(list)
        for tag in self.ordinary:
            self._names[tag.digest].append(tag.name)
        self._subjects: dict[Digest, set[Digest]] = defaultdict(set)
        """Of what each manifest is a referrer."""
        for tag in tags:
            if tag.name in self.fallback:
                self._subjects[tag.digest].add(self.fallback[tag.name])
        for one in manifests:
            if one.subject is not None and one.subject in self.manifests:
                self._subjects[one.digest].add(one.subject)
        self._referrers: dict[Digest, list[Digest]] = defaultdict(list)
        for referrer, its_subjects in self._subjects.items():
            for subject in its_subjects:
                self._referrers[subject].append(referrer)

    def going(
        self, tags: Mapping[str, str], untagged: float | None, now: float
    ) -> Mapping[Digest, Expiring]:
        """Manifests that go where these tags do."""
        going: dict[Digest, Expiring] = {}
        for digest, names in self._names.items():
            if digest in self.manifests and all(name in tags for name in names):
                why = f"its tag {names[0]} goes ({tags[names[0]]})"
                going[digest] = Expiring(digest, why)
        self._take_along(going, list(going))
        old = []
        for digest, one in self.manifests.items():
            age = now - one.pushed_at
            is_loose = digest not in self._names and not self._subjects[digest]
            if untagged is not None and age >= untagged and is_loose and digest not in going:
                why = f"without a tag it stays for {lasted(untagged)}, and is {lasted(age)} old"
                going[digest] = Expiring(digest, why, had_tag=False)
                old.append(digest)
        self._take_along(going, old)
        self._spare(going)
        return going

    def _take_along(self, going: dict[Digest, Expiring], left: list[Digest]) -> None:
        """Adds what is here for the sake of what goes, and has no tag: parts and referrers."""
        while left:
            digest = left.pop()
            had_tag = going[digest].had_tag
            along = [
                (part, f"it is a part of {digest}, which goes") for part in self._parts(digest)
            ]
            along += [
                (one, f"it refers to {digest}, which goes") for one in self._referrers[digest]
            ]
            for each, why in along:
                if each in self.manifests and each not in going and each not in self._names:
                    going[each] = Expiring(each, why, had_tag=had_tag)
                    left.append(each)

    def _spare(self, going: dict[Digest, Expiring]) -> None:
        """Takes out what stays for the sake of what stays: its parts, its referrers."""
        left = [digest for digest in self.manifests if digest not in going]
        while left:
            digest = left.pop()
            kept = (*self._parts(digest), *self._referrers[digest])
            left += [each for each in kept if going.pop(each, None) is not None]

    def _parts(self, digest: Digest) -> Sequence[Digest]:
        return self.manifests[digest].manifests
