"""The tables of hosted records, as they are now. How they came to be so: migrations/.

What a manifest needs is kept by a foreign key: it refers (`refs`) to blobs of its repository
(`links`), so that no transaction takes a blob away from under a manifest, on either engine.

Times are seconds since the epoch. Text that is compared or sorted is so by code points, as SQLite
does by itself. What is only ever read whole is JSON in a text.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeEngine


def _words(length: int) -> TypeEngine[str]:
    return String(length).with_variant(String(length, collation="C"), "postgresql")


NAME = _words(64)  # of a user, an organisation, a robot
LOGIN = _words(129)
REPOSITORY = _words(255)
TAG = _words(128)
DIGEST = _words(135)  # sha512:…
ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts in INTEGER columns only

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# The first parts of repositories' names. `kind`: user, organisation, or "" where there are
# repositories only. `used`: bytes of all content of the namespace, each digest once. Its row is
# locked by whatever changes what the namespace has: that is done one after the other.
namespaces = Table(
    "namespaces",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", NAME, nullable=False, unique=True),
    Column("kind", String(12), nullable=False, default=""),
    Column("created_at", Double, nullable=False),
    Column("used", BigInteger, nullable=False, default=0),
    Column("quota", BigInteger),
)

repositories = Table(
    "repositories",
    metadata,
    Column("id", ID, primary_key=True),
    Column("namespace_id", ID, ForeignKey("namespaces.id"), nullable=False, index=True),
    Column("name", REPOSITORY, nullable=False, unique=True),
    Column("visibility", String(8), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", LOGIN, nullable=False, default=""),
    Column("pushed_at", Double),
    Column("description", Text, nullable=False, default=""),
    Column("immutable", Text, nullable=False, default="[]"),
    Column("retention", Text, nullable=False, default="[]"),
)

# Blobs of repositories. `relied_at`: when somebody last pushed it, mounted it, referred to it, or
# was told, in order to push, that it is here.
links = Table(
    "links",
    metadata,
    Column("repository_id", ID, ForeignKey("repositories.id"), primary_key=True),
    Column("digest", DIGEST, primary_key=True),
    Column("namespace_id", ID, ForeignKey("namespaces.id"), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("relied_at", Double, nullable=False),
    Column("linked_by", LOGIN, nullable=False, default=""),
    Index(None, "digest", "namespace_id"),
    sqlite_with_rowid=False,
)

# `details`: JSON of what HostedManifest has besides.
manifests = Table(
    "manifests",
    metadata,
    Column("repository_id", ID, ForeignKey("repositories.id"), primary_key=True),
    Column("digest", DIGEST, primary_key=True),
    Column("namespace_id", ID, ForeignKey("namespaces.id"), nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("image_size", BigInteger, nullable=False),
    Column("subject", DIGEST),
    Column("artifact_type", Text),
    Column("pushed_at", Double, nullable=False),
    Column("pushed_by", LOGIN, nullable=False, default=""),
    Column("relied_at", Double, nullable=False),
    Column("details", Text, nullable=False),
    Index(None, "digest", "namespace_id"),
    # Most have none.
    Index(
        None,
        "repository_id",
        "subject",
        sqlite_where=text("subject IS NOT NULL"),
        postgresql_where=text("subject IS NOT NULL"),
    ),
)

# Which blobs of its repository a manifest needs.
refs = Table(
    "refs",
    metadata,
    Column("repository_id", ID, primary_key=True),
    Column("manifest", DIGEST, primary_key=True),
    Column("digest", DIGEST, primary_key=True),
    ForeignKeyConstraint(
        ["repository_id", "manifest"],
        ["manifests.repository_id", "manifests.digest"],
        ondelete="CASCADE",
    ),
    ForeignKeyConstraint(["repository_id", "digest"], ["links.repository_id", "links.digest"]),
    Index(None, "repository_id", "digest"),
    sqlite_with_rowid=False,
)

# Which manifests an index lists: they may go before it does, so this is no foreign key.
children = Table(
    "children",
    metadata,
    Column("repository_id", ID, primary_key=True),
    Column("manifest", DIGEST, primary_key=True),
    Column("digest", DIGEST, primary_key=True),
    ForeignKeyConstraint(
        ["repository_id", "manifest"],
        ["manifests.repository_id", "manifests.digest"],
        ondelete="CASCADE",
    ),
    Index(None, "digest", "repository_id"),
    sqlite_with_rowid=False,
)

tags = Table(
    "tags",
    metadata,
    Column("repository_id", ID, primary_key=True),
    Column("name", TAG, primary_key=True),
    Column("digest", DIGEST, nullable=False),
    Column("moved_at", Double, nullable=False),
    Column("moved_by", LOGIN, nullable=False, default=""),
    ForeignKeyConstraint(
        ["repository_id", "digest"], ["manifests.repository_id", "manifests.digest"]
    ),
    Index(None, "repository_id", "digest"),
    sqlite_with_rowid=False,
)

tag_moves = Table(
    "tag_moves",
    metadata,
    Column("id", ID, primary_key=True),
    Column("repository_id", ID, ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("tag", TAG, nullable=False),
    Column("digest", DIGEST),
    Column("at", Double, nullable=False),
    Column("by", LOGIN, nullable=False, default=""),
    Index(None, "repository_id", "tag", "id"),
)

# Accounts.

users = Table(
    "users",
    metadata,
    Column("name", NAME, ForeignKey("namespaces.name"), primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("is_administrator", Boolean(create_constraint=False), nullable=False),
    Column("is_disabled", Boolean(create_constraint=False), nullable=False),
    Column("created_at", Double, nullable=False),
)

members = Table(
    "members",
    metadata,
    Column("organisation", NAME, ForeignKey("namespaces.name"), primary_key=True),
    Column(
        "user", NAME, ForeignKey("users.name", ondelete="CASCADE"), primary_key=True, index=True
    ),
    Column("role", String(12), nullable=False),
)

# `grants`: JSON, a list of [pattern, right].
robots = Table(
    "robots",
    metadata,
    Column("organisation", NAME, ForeignKey("namespaces.name"), primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("grants", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("used_at", Double),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("user", NAME, ForeignKey("users.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("access", String(8), nullable=False),
    Column("secret_hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("used_at", Double),
)

# Of browsers; `key`: SHA-256 of what is in the cookie.
sessions = Table(
    "sessions",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("user", NAME, ForeignKey("users.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("password_mark", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    Column("made_at", Double, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", ID, primary_key=True),
    Column("at", Double, nullable=False, index=True),
    Column("actor", LOGIN, nullable=False),
    Column("client", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", Text, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("detail", Text, nullable=False),
)

# Webhooks. `namespace` is no foreign key: "" is that of administrators.

webhooks = Table(
    "webhooks",
    metadata,
    Column("number", ID, primary_key=True),  # the order in which they were made
    Column("id", String(64), nullable=False, unique=True),
    Column("namespace", NAME, nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("subjects", Text, nullable=False),  # joined by blanks
    Column("pattern", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", LOGIN, nullable=False),
    Column("is_disabled", Boolean(create_constraint=False), nullable=False),
    Column("secret", Text, nullable=False),
    Column("waiting", Integer, nullable=False, default=0),
    Column("dropped", BigInteger, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    Column("rests_until", Double, nullable=False, default=0.0),
)

# `happening`: JSON. `next_at` is None for what is over.
deliveries = Table(
    "deliveries",
    metadata,
    Column("number", ID, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("webhook", String(64), ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("happening", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("state", String(12), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_at", Double, index=True),
    Column("status", Integer),
    Column("words", Text, nullable=False, default=""),
    Column("ended_at", Double),
    CheckConstraint("(next_at IS NULL) = (state <> 'waiting')", name="waits_for_a_time"),
    Index(None, "webhook", "state", "number"),
)

# What may be in the object store, where there is one. `held_at`: when somebody last brought it
# there, or relied on it being there; `removing_at`: when somebody began to remove it. It is of that
# store, and no part of a copy of the records.
contents = Table(
    "contents",
    metadata,
    Column("digest", DIGEST, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("held_at", Double, nullable=False, index=True),
    Column("removing_at", Double),
    sqlite_with_rowid=False,
)
