"""What is in a repository: its tags, and what they point to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from ...contracts.administration import (
    Child,
    ImageConfig,
    Layer,
    ManifestDetail,
    NotAllowed,
    NotThere,
    NotValid,
    TagEntry,
    TagList,
)
from ...contracts.context import RequestContext
from ...contracts.hosted import HostedManifest, HostedRepository, HostedTag, TagMove, TagOrder
from ...contracts.identity import Action
from ...contracts.registry import Deleter, Reader
from ...oci.digest import Digest
from ...oci.errors import Denied, RegistryError, Unknown, quoted
from ...oci.manifests import Child as ChildManifest
from ...oci.manifests import Manifest, read_manifest
from ...oci.reference import Repository, parse_reference
from ...threads import aside, read_aside
from ..image_configs import CONFIG_TYPES, LARGEST, image_config
from . import names
from .gate import Gate

_MOST_CHILDREN = 200  # of an index whose sizes are summed up


class HostedImages:
    def __init__(self, gate: Gate, registry: str, reader: Reader, deleter: Deleter) -> None:
        """`reader` and `deleter` do what they are asked to: who may is asked here."""
        self._gate = gate
        self._records = gate.hosted
        self._registry = registry
        self._reader = reader
        self._deleter = deleter

    async def tags(
        self,
        context: RequestContext,
        repository: str,
        count: int = 100,
        after: str | None = None,
        order: TagOrder = TagOrder.NAME,
    ) -> TagList:
        settings = await self._gate.sees_repository(context, repository)
        count = names.count(count)
        marker = None if after is None else _marked(after, order)
        found = await self._records.tagged(repository, order, count + 1, marker)
        shown = found[:count]
        sizes = await self._sizes(repository, [manifest for _, manifest in shown])
        entries = [_entry(settings, tag, manifest, sizes) for tag, manifest in shown]
        return TagList(tuple(entries), _mark(shown[-1][0], order) if len(found) > count else None)

    async def history(
        self, context: RequestContext, repository: str, tag: str, count: int = 100
    ) -> Sequence[TagMove]:
        await self._gate.sees_repository(context, repository)
        found = await self._records.history(repository, tag, names.count(count))
        if not found:
            raise NotThere("tag", tag, f"{repository} has never had a tag {tag}")
        return found

    async def manifest(
        self, context: RequestContext, repository: str, reference: str
    ) -> ManifestDetail:
        await self._gate.sees_repository(context, repository)
        digest = await self._digest(repository, reference)
        found = await self._records.manifest(repository, digest)
        if found is None:
            raise NotThere("manifest", str(digest), f"{repository} has no manifest {digest}")
        read = await self._read(context, repository, found)
        children = read.children if read is not None else ()
        sizes = await self._records.image_sizes(
            repository, {*_summed(found), *(each.descriptor.digest for each in children)}
        )
        return ManifestDetail(
            found,
            _size(found, sizes),
            tuple(await self._records.tags_of(repository, digest)),
            tuple(_layers(read)),
            tuple(_child(each, sizes) for each in children),
            tuple(await self._records.referrers(repository, digest)),
            await self._config(context, repository, read),
        )

    async def remove_tag(self, context: RequestContext, repository: str, tag: str) -> None:
        target = f"{repository}:{tag}"
        await self._gate.acts(context, repository, Action.DELETE, "tag remove", target)
        try:
            await self._deleter.delete_tag(context, Repository(self._registry, repository), tag)
        except Unknown:
            raise NotThere("tag", tag, f"{repository} has no tag {tag}") from None
        except Denied as error:
            raise NotAllowed(error.message) from None
        self._gate.done(context, "tag remove", target)

    async def remove_manifest(self, context: RequestContext, repository: str, digest: str) -> None:
        target = f"{repository}@{digest}"
        await self._gate.acts(context, repository, Action.DELETE, "manifest remove", target)
        parsed = await self._digest(repository, digest)
        try:
            await self._deleter.delete_manifest(
                context, Repository(self._registry, repository), parsed
            )
        except Unknown:
            raise NotThere("manifest", digest, f"{repository} has no manifest {digest}") from None
        except Denied as error:
            raise NotAllowed(error.message) from None
        self._gate.done(context, "manifest remove", target)

    async def _digest(self, repository: str, reference: str) -> Digest:
        try:
            parsed = parse_reference(reference)
        except RegistryError as error:
            raise NotValid(error.message) from None
        if isinstance(parsed, Digest):
            return parsed
        found = await self._records.resolve(repository, parsed)
        if found is None:
            raise NotThere("tag", parsed, f"{repository} has no tag {parsed}")
        return found.digest

    async def _sizes(
        self, repository: str, manifests: Sequence[HostedManifest]
    ) -> Mapping[Digest, int]:
        """Of what these list, asked for together."""
        listed = {digest for manifest in manifests for digest in _summed(manifest)}
        return await self._records.image_sizes(repository, listed) if listed else {}

    async def _read(
        self, context: RequestContext, repository: str, manifest: HostedManifest
    ) -> Manifest | None:
        """The manifest's own words; None where its bytes are lost."""
        try:
            content = await self._reader.manifest(
                context, Repository(self._registry, repository), manifest.digest
            )
            return read_manifest(content.data, manifest.media_type)
        except RegistryError:
            return None

    async def _config(
        self, context: RequestContext, repository: str, manifest: Manifest | None
    ) -> ImageConfig | None:
        """None where it is none of an image, or cannot be read."""
        found = None if manifest is None else manifest.config
        if found is None or found.media_type not in CONFIG_TYPES:
            return None
        if found.size is None or found.size > LARGEST:
            return None
        try:
            content = await self._reader.blob(
                context, Repository(self._registry, repository), found.digest
            )
        except RegistryError:
            return None
        try:
            data = await aside(content.pread, found.size, 0)
        except OSError:
            return None
        finally:
            content.close()
        return await read_aside(image_config, data)


def _entry(
    repository: HostedRepository,
    tag: HostedTag,
    manifest: HostedManifest,
    sizes: Mapping[Digest, int],
) -> TagEntry:
    return TagEntry(
        tag.name,
        tag.digest,
        manifest.media_type,
        _size(manifest, sizes),
        manifest.platforms,
        tag.moved_at,
        tag.moved_by,
        manifest.artifact_type,
        any(fnmatchcase(tag.name, pattern) for pattern in repository.immutable),
    )


def _summed(manifest: HostedManifest) -> Sequence[Digest]:
    """What it lists, and is counted with it."""
    return manifest.manifests[:_MOST_CHILDREN]


def _size(manifest: HostedManifest, sizes: Mapping[Digest, int]) -> int:
    return manifest.image_size + sum(sizes.get(each, 0) for each in _summed(manifest))


def _child(child: ChildManifest, sizes: Mapping[Digest, int]) -> Child:
    digest = child.descriptor.digest
    return Child(digest, child.descriptor.media_type, child.platform, sizes.get(digest))


def _layers(manifest: Manifest | None) -> Iterable[Layer]:
    for each in manifest.blobs if manifest is not None else ():
        yield Layer(each.digest, each.media_type, each.size or 0)


def _mark(tag: HostedTag, order: TagOrder) -> str:
    """Where the next page begins: the tag's name, after the time when it moved where that counts.
    A colon is in no tag."""
    return tag.name if order is TagOrder.NAME else f"{tag.moved_at!r}:{tag.name}"


def _marked(after: str, order: TagOrder) -> tuple[str, float]:
    """The name and the time. Raises NotValid."""
    moved_at, _, name = ("0", "", after) if order is TagOrder.NAME else after.partition(":")
    try:
        return name, float(moved_at)
    except ValueError:
        raise NotValid(f"{quoted(after)} is no place in the tags: begin at the first") from None
