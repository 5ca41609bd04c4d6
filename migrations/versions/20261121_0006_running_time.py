"""the running time of deployments

Revision ID: 20261121_0006
Revises: 20261121_0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "20261121_0006"
down_revision = "20261121_0005"
branch_labels = None
depends_on = None

_ID = sa.String(40, collation="C")
_WHEN = sa.DateTime(timezone=True)

# Every writer of a status is followed, in its own transaction, and none can forget it. The row's lock puts the
# changes of a deployment in order, so the clock is read then, and not when the transaction began.
_FOLLOW = """
CREATE FUNCTION follow_running_time() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := clock_timestamp();
    runs boolean;
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.status = OLD.status AND NEW.capacity IS NOT DISTINCT FROM OLD.capacity
        AND NEW.ready_capacity IS NOT DISTINCT FROM OLD.ready_capacity THEN
        RETURN NULL;
    END IF;
    UPDATE deployment_periods SET ended_at = greatest(moment, started_at)
        WHERE deployment_id = coalesce(NEW.id, OLD.id) AND ended_at IS NULL;
    runs := TG_OP <> 'DELETE' AND (
        NEW.status IN ('running', 'updating')
        OR (FOUND AND NEW.status IN ('stopping', 'deleting', 'unknown'))
    );
    IF runs THEN
        INSERT INTO deployment_periods
            (deployment_id, started_at, tenant_id, provider, model, capacity, ready_capacity)
        VALUES (NEW.id, moment, NEW.tenant_id, NEW.provider, NEW.model, NEW.capacity, NEW.ready_capacity)
        ON CONFLICT (deployment_id, started_at) DO UPDATE SET
            ended_at = NULL, capacity = excluded.capacity, ready_capacity = excluded.ready_capacity;
    END IF;
    RETURN NULL;
END $$
"""
_TRIGGER = """
CREATE TRIGGER follow_running_time AFTER INSERT OR DELETE OR UPDATE OF status, capacity, ready_capacity ON deployments
    FOR EACH ROW EXECUTE FUNCTION follow_running_time()
"""
_BACKFILL = """
INSERT INTO deployment_periods (deployment_id, started_at, tenant_id, provider, model, capacity, ready_capacity)
SELECT id, status_since, tenant_id, provider, model, capacity, ready_capacity FROM deployments
WHERE status IN ('running', 'updating', 'stopping') AND deleted_at IS NULL
"""


def upgrade() -> None:
    op.create_table(
        "deployment_periods",
        sa.Column("deployment_id", _ID, nullable=False),
        sa.Column("started_at", _WHEN, nullable=False),
        sa.Column("ended_at", _WHEN, nullable=True),
        sa.Column("tenant_id", _ID, nullable=False),
        sa.Column("provider", sa.String(32), nullable=False),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("capacity", JSONB(none_as_null=True), nullable=True),
        sa.Column("ready_capacity", JSONB(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("deployment_id", "started_at", name="pk_deployment_periods"),
    )
    op.create_index(
        "uq_deployment_periods_open",
        "deployment_periods",
        ["deployment_id"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index("ix_deployment_periods_tenant_id_started_at", "deployment_periods", ["tenant_id", "started_at"])
    op.execute(_FOLLOW)
    op.execute(_TRIGGER)
    op.execute(_BACKFILL)


def downgrade() -> None:
    op.execute("DROP TRIGGER follow_running_time ON deployments")
    op.execute("DROP FUNCTION follow_running_time()")
    op.drop_table("deployment_periods")
