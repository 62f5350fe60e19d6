"""What repositories have in an object store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "contents",
        sa.Column(
            "digest",
            sa.String(135).with_variant(sa.String(135, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("held_at", sa.Double(), nullable=False),
        sa.Column("removing_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name="pk_contents"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_contents_held_at", "contents", ["held_at"], unique=False)
