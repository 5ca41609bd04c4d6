"""the catalog, and what adoption needs

Revision ID: 20261121_0002
Revises: 20261121_0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261121_0002"
down_revision = "20261121_0001"
branch_labels = None
depends_on = None

_NUMBERS = ("parameter_size", "size_bytes", "context_length")
_SYNC_TIMES = ("locked_until", "synced_at", "attempted_at")
_LIVING = sa.text("external_id IS NOT NULL AND status <> 'deleted'")


def upgrade() -> None:
    op.create_table(
        "catalog_models",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("connection_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=1024), nullable=False),
        sa.Column("name", sa.String(length=512), nullable=False),
        sa.Column("title", sa.String(length=512), nullable=True),
        sa.Column("description", sa.String(length=4000), nullable=True),
        *(
            sa.Column(name, sa.String(length=256), nullable=True)
            for name in ("task", "domain", "origin", "series", "model_type", "source")
        ),
        *(
            sa.Column(name, postgresql.ARRAY(sa.String()), server_default=sa.text("'{}'"), nullable=False)
            for name in ("collections", "tags", "capabilities", "resources", "plan_names")
        ),
        *(
            sa.Column(name, postgresql.JSONB(none_as_null=True), server_default=sa.text("'[]'::jsonb"), nullable=False)
            for name in ("plans", "templates")
        ),
        *(
            sa.Column(name, sa.BigInteger(), nullable=True)
            for name in ("parameter_size", "size_bytes", "context_length")
        ),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revised_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rank", sa.BigInteger(), nullable=True),
        sa.Column("raw", postgresql.JSONB(none_as_null=True), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("search_text", sa.String(length=8000), server_default="", nullable=False),
        sa.Column(
            "search",
            postgresql.TSVECTOR(),
            sa.Computed(
                "to_tsvector('simple'::regconfig, regexp_replace(search_text, '[-/_.:@+]+', ' ', 'g'))", persisted=True
            ),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name=op.f("fk_catalog_models_connection_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalog_models")),
    )
    op.create_index("uq_catalog_models_connection_id_key", "catalog_models", ["connection_id", "key"], unique=True)
    op.create_index("ix_catalog_models_connection_id_name", "catalog_models", ["connection_id", "name"])
    op.create_index("ix_catalog_models_search", "catalog_models", ["search"], postgresql_using="gin")
    op.create_table(
        "catalog_syncs",
        sa.Column("connection_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        *(sa.Column(name, sa.DateTime(timezone=True), nullable=True) for name in _SYNC_TIMES),
        sa.Column("models", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name=op.f("fk_catalog_syncs_connection_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("connection_id", name=op.f("pk_catalog_syncs")),
    )
    op.create_index("ix_catalog_syncs_due_at", "catalog_syncs", ["due_at"])
    op.add_column("connections", sa.Column("throttled_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("deployments", sa.Column("adopted", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_index(
        "uq_deployments_connection_id_external_id",
        "deployments",
        ["connection_id", "external_id"],
        unique=True,
        postgresql_where=_LIVING,
    )


def downgrade() -> None:
    op.drop_index("uq_deployments_connection_id_external_id", table_name="deployments", postgresql_where=_LIVING)
    op.drop_column("deployments", "adopted")
    op.drop_column("connections", "throttled_until")
    op.drop_table("catalog_syncs")
    op.drop_table("catalog_models")
