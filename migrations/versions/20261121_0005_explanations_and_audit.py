"""explanations of calls, and the audit of the control plane

Revision ID: 20261121_0005
Revises: 20261121_0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "20261121_0005"
down_revision = "20261121_0004"
branch_labels = None
depends_on = None

_ID = sa.String(40, collation="C")
_WHEN = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "explanations",
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("api_key_id", _ID, nullable=False),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("detail", JSONB(none_as_null=True), nullable=False),
        sa.Column("created_at", _WHEN, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_explanations"),
    )
    op.create_index(
        "ix_explanations_tenant_id_reason_created_at", "explanations", ["tenant_id", "reason", "created_at"]
    )
    op.create_index("ix_explanations_created_at", "explanations", ["created_at"])
    op.create_table(
        "audit_events",
        sa.Column("id", _ID, nullable=False),
        sa.Column("tenant_id", _ID, nullable=True),
        sa.Column("api_key_id", _ID, nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("resource_type", sa.String(32), nullable=False),
        sa.Column("resource_id", sa.String(128), nullable=False),
        sa.Column("request_id", _ID, nullable=True),
        sa.Column("changes", JSONB(none_as_null=True), nullable=False),
        sa.Column("created_at", _WHEN, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_events"),
    )
    op.create_index("ix_audit_events_tenant_id_id", "audit_events", ["tenant_id", "id"])
    op.create_index("ix_audit_events_created_at", "audit_events", ["created_at"])


def downgrade() -> None:
    op.drop_table("audit_events")
    op.drop_table("explanations")
