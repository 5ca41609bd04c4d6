"""the registry

Revision ID: 20261121_0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261121_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("resource_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column(
            "xid", sa.BigInteger(), server_default=sa.text("(pg_current_xact_id()::text)::bigint"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
    )
    op.create_index("ix_changes_xid", "changes", ["xid"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("api_key_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("body_digest", postgresql.BYTEA(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("answer_sealed", postgresql.BYTEA(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("api_key_id", "path", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "names",
        sa.Column("owner", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("resource_id", sa.String(length=40, collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("owner", "name", name=op.f("pk_names")),
    )
    op.create_index(op.f("ix_names_resource_id"), "names", ["resource_id"], unique=False)
    op.create_table(
        "peppers",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("sealed", postgresql.BYTEA(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_peppers")),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("currency", sa.String(length=3), server_default="USD", nullable=False),
        sa.Column("time_zone", sa.String(length=64), server_default="UTC", nullable=False),
        sa.Column("suspended", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "settlement", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("on_store_loss", sa.String(length=8), server_default="closed", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.CheckConstraint("on_store_loss IN ('closed', 'open')", name=op.f("ck_tenants_on_store_loss")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
    )
    op.create_table(
        "usage_records",
        sa.Column("admitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("hold_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("request_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("client_request_id", sa.String(length=128), nullable=True),
        sa.Column("tenant_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("api_key_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("route", sa.String(length=128), nullable=False),
        sa.Column("deployment_id", sa.String(length=40, collation="C"), nullable=True),
        sa.Column("provider", sa.String(length=32), nullable=True),
        sa.Column("model", sa.String(length=512), nullable=False),
        sa.Column("endpoint", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=40), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cached_input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=True),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("cost", sa.Numeric(precision=24, scale=12), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.Column("queue_ms", sa.Integer(), nullable=True),
        sa.Column("connect_ms", sa.Integer(), nullable=True),
        sa.Column("first_byte_ms", sa.Integer(), nullable=True),
        sa.Column("total_ms", sa.Integer(), nullable=True),
        sa.Column("request_bytes", sa.BigInteger(), nullable=True),
        sa.Column("response_bytes", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("admitted_at", "hold_id", name=op.f("pk_usage_records")),
        postgresql_partition_by="RANGE (admitted_at)",
    )
    op.create_index("ix_usage_records_request_id", "usage_records", ["request_id"], unique=False)
    op.create_index(
        "ix_usage_records_tenant_id_admitted_at", "usage_records", ["tenant_id", "admitted_at"], unique=False
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("node_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("directory_xmin", sa.BigInteger(), nullable=True),
        sa.Column(
            "open_streams",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_index(op.f("ix_workers_node_id"), "workers", ["node_id"], unique=False)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("tenant_id", sa.String(length=40, collation="C"), nullable=True),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("public_id", sa.String(length=16), nullable=False),
        sa.Column("digest", postgresql.BYTEA(), nullable=False),
        sa.Column("pepper_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("previous_public_id", sa.String(length=16), nullable=True),
        sa.Column("previous_digest", postgresql.BYTEA(), nullable=True),
        sa.Column("previous_pepper_id", sa.String(length=40, collation="C"), nullable=True),
        sa.Column("previous_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("scopes", postgresql.ARRAY(sa.String()), nullable=False),
        sa.Column("models", postgresql.ARRAY(sa.String()), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(["pepper_id"], ["peppers.id"], name=op.f("fk_api_keys_pepper_id"), ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(
            ["previous_pepper_id"], ["peppers.id"], name=op.f("fk_api_keys_previous_pepper_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id"), ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("previous_public_id", name=op.f("uq_api_keys_previous_public_id")),
        sa.UniqueConstraint("public_id", name=op.f("uq_api_keys_public_id")),
    )
    op.create_index(op.f("ix_api_keys_tenant_id"), "api_keys", ["tenant_id"], unique=False)
    op.create_table(
        "connections",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("tenant_id", sa.String(length=40, collation="C"), nullable=True),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("credentials_sealed", postgresql.BYTEA(), nullable=False),
        sa.Column("trusted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("node_id", sa.String(length=40, collation="C"), nullable=True),
        sa.Column("status", sa.String(length=16), server_default="unchecked", nullable=False),
        sa.Column("status_reason", sa.String(length=2000), nullable=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_connections_tenant_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connections")),
    )
    op.create_index(op.f("ix_connections_tenant_id"), "connections", ["tenant_id"], unique=False)
    op.create_index(
        "uq_connections_owner_name",
        "connections",
        [sa.literal_column("coalesce(tenant_id, 'platform')"), "name"],
        unique=True,
    )
    op.create_table(
        "routes",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("tenant_id", sa.String(length=40, collation="C"), nullable=True),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("targets", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("shared_with", postgresql.ARRAY(sa.String()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_routes_tenant_id"), ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_routes")),
    )
    op.create_index(op.f("ix_routes_tenant_id"), "routes", ["tenant_id"], unique=False)
    op.create_table(
        "deployments",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("tenant_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("connection_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("node_id", sa.String(length=40, collation="C"), nullable=True),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("model", sa.String(length=512), nullable=False),
        sa.Column("plan", sa.String(length=128), nullable=True),
        sa.Column("template", sa.String(length=256), nullable=True),
        sa.Column("capacity", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("served_names", postgresql.ARRAY(sa.String()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column(
            "resources", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "engine", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "lora_adapters",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "labels", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("provider_options_sealed", postgresql.BYTEA(), nullable=True),
        sa.Column("wanted", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("operation_id", sa.String(length=40, collation="C"), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("status_since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("status_reason", sa.String(length=4000), nullable=True),
        sa.Column("provider_status", sa.String(length=256), nullable=True),
        sa.Column("external_id", sa.String(length=512), nullable=True),
        sa.Column("ready_capacity", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("service_url", sa.String(length=2048), nullable=True),
        sa.Column("served_models", postgresql.ARRAY(sa.String()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column(
            "instances", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
        sa.Column("upstream", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("upstream_key_sealed", postgresql.BYTEA(), nullable=True),
        sa.Column(
            "raw", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("create_token", sa.String(length=64), nullable=True),
        sa.Column("intended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("absences", sa.Integer(), server_default="0", nullable=False),
        sa.Column("draining_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("drain_xid", sa.BigInteger(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("lock_token", sa.String(length=64), nullable=True),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name=op.f("fk_deployments_connection_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_deployments_tenant_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployments")),
    )
    op.create_index("ix_deployments_connection_id", "deployments", ["connection_id"], unique=False)
    op.create_index(
        "ix_deployments_due", "deployments", ["due_at"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_index(op.f("ix_deployments_tenant_id"), "deployments", ["tenant_id"], unique=False)
    op.create_index("ix_deployments_tenant_id_id", "deployments", ["tenant_id", "id"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("tenant_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("deployment_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("operation_id", sa.String(length=40, collation="C"), nullable=True),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("message", sa.String(length=4000), nullable=False),
        sa.Column(
            "data", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name=op.f("fk_events_deployment_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_events_tenant_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_deployment_id_id", "events", ["deployment_id", "id"], unique=False)
    op.create_table(
        "operations",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("tenant_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("deployment_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployments.id"], name=op.f("fk_operations_deployment_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_operations_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    op.create_index("ix_operations_deployment_id_id", "operations", ["deployment_id", "id"], unique=False)
    op.create_index("ix_operations_tenant_id_id", "operations", ["tenant_id", "id"], unique=False)
    op.create_index(
        "uq_operations_active",
        "operations",
        ["deployment_id"],
        unique=True,
        postgresql_where=sa.text("status IN ('pending', 'running')"),
    )


def downgrade() -> None:
    op.drop_index(
        "uq_operations_active", table_name="operations", postgresql_where=sa.text("status IN ('pending', 'running')")
    )
    op.drop_index("ix_operations_tenant_id_id", table_name="operations")
    op.drop_index("ix_operations_deployment_id_id", table_name="operations")
    op.drop_table("operations")
    op.drop_index("ix_events_deployment_id_id", table_name="events")
    op.drop_table("events")
    op.drop_index("ix_deployments_tenant_id_id", table_name="deployments")
    op.drop_index(op.f("ix_deployments_tenant_id"), table_name="deployments")
    op.drop_index("ix_deployments_due", table_name="deployments", postgresql_where=sa.text("due_at IS NOT NULL"))
    op.drop_index("ix_deployments_connection_id", table_name="deployments")
    op.drop_table("deployments")
    op.drop_index(op.f("ix_routes_tenant_id"), table_name="routes")
    op.drop_table("routes")
    op.drop_index("uq_connections_owner_name", table_name="connections")
    op.drop_index(op.f("ix_connections_tenant_id"), table_name="connections")
    op.drop_table("connections")
    op.drop_index(op.f("ix_api_keys_tenant_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_index(op.f("ix_workers_node_id"), table_name="workers")
    op.drop_table("workers")
    op.drop_index("ix_usage_records_tenant_id_admitted_at", table_name="usage_records")
    op.drop_index("ix_usage_records_request_id", table_name="usage_records")
    op.drop_table("usage_records")
    op.drop_table("tenants")
    op.drop_table("peppers")
    op.drop_index(op.f("ix_names_resource_id"), table_name="names")
    op.drop_table("names")
    op.drop_index(op.f("ix_idempotency_keys_created_at"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_index("ix_changes_xid", table_name="changes")
    op.drop_table("changes")
