"""indexes: sums of one tenant, events of a deleted one; records are found by their key alone

Revision ID: 20261121_0007
Revises: 20261121_0006
"""

from __future__ import annotations

from alembic import op

revision = "20261121_0007"
down_revision = "20261121_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_usage_hours_tenant_id_hour", "usage_hours", ["tenant_id", "hour"])
    op.create_index("ix_events_tenant_id", "events", ["tenant_id"])
    op.drop_index("ix_usage_records_request_id", table_name="usage_records")


def downgrade() -> None:
    op.create_index("ix_usage_records_request_id", "usage_records", ["request_id"])
    op.drop_index("ix_events_tenant_id", table_name="events")
    op.drop_index("ix_usage_hours_tenant_id_hour", table_name="usage_hours")
