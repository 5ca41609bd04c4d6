"""routing: affinity of routes, concurrency of deployments

Revision ID: 20261121_0004
Revises: 20261121_0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261121_0004"
down_revision = "20261121_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    affinity = sa.Column("affinity", sa.String(length=16), server_default=sa.text("'none'"), nullable=False)
    op.add_column("routes", affinity)
    op.add_column("deployments", sa.Column("max_concurrency", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("deployments", "max_concurrency")
    op.drop_column("routes", "affinity")
