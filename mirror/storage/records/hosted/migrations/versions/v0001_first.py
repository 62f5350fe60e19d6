"""The first tables of hosted records."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _words(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", _ID, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", _words(129), nullable=False),
        sa.Column("client", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_at", "audit", ["at"], unique=False)
    op.create_table(
        "namespaces",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", _words(64), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("quota", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_namespaces"),
        sa.UniqueConstraint("name", name="uq_namespaces_name"),
    )
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_signing_keys"),
    )
    op.create_table(
        "webhooks",
        sa.Column("number", _ID, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("namespace", _words(64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("subjects", sa.Text(), nullable=False),
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", _words(129), nullable=False),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("rests_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_webhooks"),
        sa.UniqueConstraint("id", name="uq_webhooks_id"),
    )
    op.create_index("ix_webhooks_namespace", "webhooks", ["namespace"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("number", _ID, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("webhook", sa.String(length=64), nullable=False),
        sa.Column("happening", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "(next_at IS NULL) = (state <> 'waiting')", name="ck_deliveries_waits_for_a_time"
        ),
        sa.ForeignKeyConstraint(
            ["webhook"], ["webhooks.id"], name="fk_deliveries_webhook", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name="pk_deliveries"),
        sa.UniqueConstraint("id", name="uq_deliveries_id"),
    )
    op.create_index("ix_deliveries_next_at", "deliveries", ["next_at"], unique=False)
    op.create_index(
        "ix_deliveries_webhook_state_number",
        "deliveries",
        ["webhook", "state", "number"],
        unique=False,
    )
    op.create_table(
        "repositories",
        sa.Column("id", _ID, nullable=False),
        sa.Column("namespace_id", _ID, nullable=False),
        sa.Column("name", _words(255), nullable=False),
        sa.Column("visibility", sa.String(length=8), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", _words(129), nullable=False),
        sa.Column("pushed_at", sa.Double(), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("immutable", sa.Text(), nullable=False),
        sa.Column("retention", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace_id"], ["namespaces.id"], name="fk_repositories_namespace_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_repositories"),
        sa.UniqueConstraint("name", name="uq_repositories_name"),
    )
    op.create_index("ix_repositories_namespace_id", "repositories", ["namespace_id"], unique=False)
    op.create_table(
        "robots",
        sa.Column("organisation", _words(64), nullable=False),
        sa.Column("name", _words(64), nullable=False),
        sa.Column("grants", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organisation"], ["namespaces.name"], name="fk_robots_organisation"
        ),
        sa.PrimaryKeyConstraint("organisation", "name", name="pk_robots"),
    )
    op.create_table(
        "users",
        sa.Column("name", _words(64), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("is_administrator", sa.Boolean(), nullable=False),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["name"], ["namespaces.name"], name="fk_users_name"),
        sa.PrimaryKeyConstraint("name", name="pk_users"),
    )
    op.create_table(
        "links",
        sa.Column("repository_id", _ID, nullable=False),
        sa.Column("digest", _words(135), nullable=False),
        sa.Column("namespace_id", _ID, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("relied_at", sa.Double(), nullable=False),
        sa.Column("linked_by", _words(129), nullable=False),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespaces.id"], name="fk_links_namespace_id"),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name="fk_links_repository_id"
        ),
        sa.PrimaryKeyConstraint("repository_id", "digest", name="pk_links"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_links_digest_namespace_id", "links", ["digest", "namespace_id"], unique=False
    )
    op.create_table(
        "manifests",
        sa.Column("repository_id", _ID, nullable=False),
        sa.Column("digest", _words(135), nullable=False),
        sa.Column("namespace_id", _ID, nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("image_size", sa.BigInteger(), nullable=False),
        sa.Column("subject", _words(135), nullable=True),
        sa.Column("artifact_type", sa.Text(), nullable=True),
        sa.Column("pushed_at", sa.Double(), nullable=False),
        sa.Column("pushed_by", _words(129), nullable=False),
        sa.Column("relied_at", sa.Double(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace_id"], ["namespaces.id"], name="fk_manifests_namespace_id"
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name="fk_manifests_repository_id"
        ),
        sa.PrimaryKeyConstraint("repository_id", "digest", name="pk_manifests"),
    )
    op.create_index(
        "ix_manifests_digest_namespace_id", "manifests", ["digest", "namespace_id"], unique=False
    )
    op.create_index(
        "ix_manifests_repository_id_subject",
        "manifests",
        ["repository_id", "subject"],
        unique=False,
        sqlite_where=sa.text("subject IS NOT NULL"),
        postgresql_where=sa.text("subject IS NOT NULL"),
    )
    op.create_table(
        "members",
        sa.Column("organisation", _words(64), nullable=False),
        sa.Column("user", _words(64), nullable=False),
        sa.Column("role", sa.String(length=12), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation"], ["namespaces.name"], name="fk_members_organisation"
        ),
        sa.ForeignKeyConstraint(
            ["user"], ["users.name"], name="fk_members_user", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("organisation", "user", name="pk_members"),
    )
    op.create_index("ix_members_user", "members", ["user"], unique=False)
    op.create_table(
        "sessions",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("user", _words(64), nullable=False),
        sa.Column("password_mark", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user"], ["users.name"], name="fk_sessions_user", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", name="pk_sessions"),
    )
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"], unique=False)
    op.create_index("ix_sessions_user", "sessions", ["user"], unique=False)
    op.create_table(
        "tag_moves",
        sa.Column("id", _ID, nullable=False),
        sa.Column("repository_id", _ID, nullable=False),
        sa.Column("tag", _words(128), nullable=False),
        sa.Column("digest", _words(135), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("by", _words(129), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name="fk_tag_moves_repository_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tag_moves"),
    )
    op.create_index(
        "ix_tag_moves_repository_id_tag_id",
        "tag_moves",
        ["repository_id", "tag", "id"],
        unique=False,
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("user", _words(64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("access", sa.String(length=8), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user"], ["users.name"], name="fk_tokens_user", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("secret_hash", name="uq_tokens_secret_hash"),
    )
    op.create_index("ix_tokens_user", "tokens", ["user"], unique=False)
    op.create_table(
        "children",
        sa.Column("repository_id", _ID, nullable=False),
        sa.Column("manifest", _words(135), nullable=False),
        sa.Column("digest", _words(135), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id", "manifest"],
            ["manifests.repository_id", "manifests.digest"],
            name="fk_children_repository_id_manifest",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "manifest", "digest", name="pk_children"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_children_digest_repository_id", "children", ["digest", "repository_id"], unique=False
    )
    op.create_table(
        "refs",
        sa.Column("repository_id", _ID, nullable=False),
        sa.Column("manifest", _words(135), nullable=False),
        sa.Column("digest", _words(135), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id", "digest"],
            ["links.repository_id", "links.digest"],
            name="fk_refs_repository_id_digest",
        ),
        sa.ForeignKeyConstraint(
            ["repository_id", "manifest"],
            ["manifests.repository_id", "manifests.digest"],
            name="fk_refs_repository_id_manifest",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "manifest", "digest", name="pk_refs"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_refs_repository_id_digest", "refs", ["repository_id", "digest"], unique=False
    )
    op.create_table(
        "tags",
        sa.Column("repository_id", _ID, nullable=False),
        sa.Column("name", _words(128), nullable=False),
        sa.Column("digest", _words(135), nullable=False),
        sa.Column("moved_at", sa.Double(), nullable=False),
        sa.Column("moved_by", _words(129), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id", "digest"],
            ["manifests.repository_id", "manifests.digest"],
            name="fk_tags_repository_id_digest",
        ),
        sa.PrimaryKeyConstraint("repository_id", "name", name="pk_tags"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_tags_repository_id_digest", "tags", ["repository_id", "digest"], unique=False
    )
