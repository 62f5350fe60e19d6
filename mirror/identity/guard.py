"""The guard around the hosted registry: who may do what with which repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from ..contracts.context import Principal, PrincipalKind, RequestContext
from ..contracts.identity import Action, AuditLog, Rights
from ..contracts.registry import (
    Body,
    BytesContent,
    Deleter,
    FileContent,
    Lister,
    Reader,
    RepositoryPage,
    Resolved,
    Stored,
    TagPage,
    Writer,
)
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.errors import Denied, RegistryError, Unauthorized
from ..oci.ranges import ByteRange
from ..oci.reference import Repository
from ..oci.scopes import CATALOG, CATALOG_ACTIONS, scope_of, scope_of_mount

_ASKED: Mapping[Action, tuple[str, ...]] = {
    Action.PULL: ("pull",),
    Action.PUSH: ("pull", "push"),
    Action.DELETE: ("delete",),
}
"""What a token is to be for, as a challenge asks it of the client."""


class Hosted(Reader, Writer, Deleter, Lister, Protocol):
    """All four contracts."""


class Guard:
    """A Reader, Writer, Deleter and Lister that passes on what the request's principal may do. Each
    method is written here: one that the contracts get and this class lacks passes nothing on.

    Who has shown no login is told to log in (Unauthorized), and so is who shows a token that is for
    something else. Who has shown one is denied, in the same words whether there is such a
    repository or not.
    """

    def __init__(self, inner: Hosted, rights: Rights, audit: AuditLog) -> None:
        """`audit` is told of manifests that are pushed, of what is deleted, and of who may not."""
        self._inner = inner
        self._rights = rights
        self._audit = audit

    # Reader.

    async def resolve(self, context: RequestContext, repository: Repository, tag: str) -> Resolved:
        await self._admit(context, repository, Action.PULL)
        return await self._inner.resolve(context, repository, tag)

    async def manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> BytesContent:
        await self._admit(context, repository, Action.PULL)
        return await self._inner.manifest(context, repository, digest)

    async def stat(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> Descriptor:
        await self._admit(context, repository, Action.PULL)
        return await self._inner.stat(context, repository, digest)

    async def blob(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        part: ByteRange | None = None,
    ) -> FileContent:
        await self._admit(context, repository, Action.PULL)
        return await self._inner.blob(context, repository, digest, part)

    async def referrers(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        artifact_type: str | None = None,
    ) -> BytesContent:
        await self._admit(context, repository, Action.PULL)
        return await self._inner.referrers(context, repository, digest, artifact_type)

    async def tags(
        self,
        context: RequestContext,
        repository: Repository,
        count: int | None = None,
        last: str | None = None,
    ) -> TagPage:
        await self._admit(context, repository, Action.PULL)
        return await self._inner.tags(context, repository, count, last)

    # Lister.

    async def repositories(
        self,
        context: RequestContext,
        registry: str,
        count: int | None = None,
        last: str | None = None,
    ) -> RepositoryPage:
        """Those that the principal may pull from. Who shows a token that is not for listings is
        told to have another: podman asks for one then, and not before. Who has shown no login is
        told to log in when there is nothing that is public."""
        principal, asked = context.principal, (CATALOG, CATALOG_ACTIONS[0])
        scope = ":".join(asked)
        if principal.scopes is not None and asked not in principal.scopes:
            raise Unauthorized("the token is not for listings", scope=scope)
        page = await self._inner.repositories(context, registry, count, last)
        if principal.kind is PrincipalKind.ANONYMOUS and not page.repositories and last is None:
            raise Unauthorized("log in first", scope=scope)
        return page

    # Writer.

    async def begin_upload(self, context: RequestContext, repository: Repository) -> str:
        await self._admit_new(context, repository)
        return await self._inner.begin_upload(context, repository)

    async def append(
        self,
        context: RequestContext,
        repository: Repository,
        session: str,
        start: int | None,
        data: Body,
    ) -> int:
        await self._admit(context, repository, Action.PUSH)
        return await self._inner.append(context, repository, session, start, data)

    async def uploaded(self, context: RequestContext, repository: Repository, session: str) -> int:
        await self._admit(context, repository, Action.PUSH)
        return await self._inner.uploaded(context, repository, session)

    async def finish_upload(
        self, context: RequestContext, repository: Repository, session: str, digest: Digest
    ) -> None:
        await self._admit_new(context, repository)
        await self._inner.finish_upload(context, repository, session, digest)

    async def cancel_upload(
        self, context: RequestContext, repository: Repository, session: str
    ) -> None:
        await self._admit(context, repository, Action.PUSH)
        await self._inner.cancel_upload(context, repository, session)

    async def mount(
        self,
        context: RequestContext,
        repository: Repository,
        digest: Digest,
        source: Repository | None,
    ) -> bool:
        """A source that may not be read is answered as one that is not there: the client sends the
        blob itself. For one that only the token is not for, it is to get another (as Docker's
        registry has it). Who is to log in is told both scopes at once: clients that ask for a
        token at the first 401, and not at a second, would be left with one that is of no use."""
        try:
            await self._admit_new(context, repository)
        except Unauthorized as error:
            if source is None:
                raise
            scope = scope_of_mount(repository.name, source.name)
            raise Unauthorized(error.message, scope=scope) from error
        may, principal = self._rights.may, context.principal
        if source is not None and not await may(principal, Action.PULL, source.name):
            if principal.scopes is not None and await may(
                replace(principal, scopes=None), Action.PULL, source.name
            ):
                raise Unauthorized(
                    f"the token is not for {source.name}",
                    scope=scope_of_mount(repository.name, source.name),
                )
            return False
        return await self._inner.mount(context, repository, digest, source)

    async def put_manifest(
        self,
        context: RequestContext,
        repository: Repository,
        reference: str | Digest,
        data: bytes,
        media_type: str,
    ) -> Stored:
        await self._admit_new(context, repository)
        stored = await self._inner.put_manifest(context, repository, reference, data, media_type)
        digest = str(stored.descriptor.digest)
        self._audit.note(context, "push", _image(repository, reference), detail=digest)
        return stored

    # Deleter.

    async def delete_tag(self, context: RequestContext, repository: Repository, tag: str) -> None:
        await self._admit(context, repository, Action.DELETE)
        await self._inner.delete_tag(context, repository, tag)
        self._audit.note(context, "delete tag", _image(repository, tag))

    async def delete_manifest(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> None:
        await self._admit(context, repository, Action.DELETE)
        await self._inner.delete_manifest(context, repository, digest)
        self._audit.note(context, "delete manifest", _image(repository, digest))

    async def delete_blob(
        self, context: RequestContext, repository: Repository, digest: Digest
    ) -> None:
        await self._admit(context, repository, Action.DELETE)
        await self._inner.delete_blob(context, repository, digest)
        self._audit.note(context, "delete blob", _image(repository, digest))

    # Inside.

    async def _admit(self, context: RequestContext, repository: Repository, action: Action) -> None:
        if not await self._rights.may(context.principal, action, repository.name):
            if action is not Action.PULL and context.principal.name:
                self._audit.note(context, action, repository.name, "refused")
            raise refusal(context.principal, repository.name, action)

    async def _admit_new(self, context: RequestContext, repository: Repository) -> None:
        """To what makes a repository where there is none of that name."""
        await self._admit(context, repository, Action.PUSH)
        if not await self._rights.may_create(context.principal, repository.name):
            raise Denied(
                f"{repository.name!r} cannot be pushed to: a repository's name begins with an "
                "organisation that there is, or a user, as in team/app"
            )


def _image(repository: Repository, reference: str | Digest) -> str:
    return f"{repository.name}{'@' if isinstance(reference, Digest) else ':'}{reference}"


def refusal(principal: Principal, repository: str, action: Action) -> RegistryError:
    """What a principal is told that may not do this. It does not depend on whether there is such a
    repository."""
    asked = _ASKED[action]
    words = f"{principal.name} may not {action} {repository}" if principal.name else ""
    if principal.kind is PrincipalKind.ANONYMOUS:
        return Unauthorized("log in first", scope=scope_of(repository, asked))
    scopes = principal.scopes
    if scopes is not None and (repository, action.value) not in scopes:
        return Unauthorized(
            f"the token is not for this: {words}", scope=scope_of(repository, asked)
        )
    return Denied(f"{words}, or there is no such repository")
