"""Running time at the upgrade: what runs already is metered from the status that it has."""

from __future__ import annotations

import asyncpg

from app.kit.ids import new_id
from app.store import migrate

_BEFORE = "20261121_0005"
_INSERT_DEPLOYMENT = """
    INSERT INTO deployments
        (id, tenant_id, connection_id, provider, name, model, wanted, status, status_since, capacity)
    VALUES ($1, $2, $3, 'local', $4, 'm', 'running', $5, '2026-11-01T00:00:00Z', '{"units": 2}')
"""


async def test_what_runs_at_the_upgrade_has_run_since_its_status_began(empty_dsn: str) -> None:
    await migrate.upgrade(empty_dsn, _BEFORE)
    tenant, account = new_id("ten"), new_id("con")
    connection = await asyncpg.connect(empty_dsn)
    try:
        await connection.execute("INSERT INTO tenants (id, name) VALUES ($1, 'acme')", tenant)
        await connection.execute(
            "INSERT INTO connections (id, tenant_id, name, provider, settings, credentials_sealed, trusted, status)"
            " VALUES ($1, $2, 'c', 'local', '{}', '', true, 'unchecked')",
            account,
            tenant,
        )
        for status in ("running", "stopped", "stopping", "pending"):
            await connection.execute(_INSERT_DEPLOYMENT, new_id("dep"), tenant, account, status, status)
        await migrate.upgrade(empty_dsn)
        rows = await connection.fetch(
            "SELECT name, started_at, ended_at, p.capacity FROM deployment_periods p"
            " JOIN deployments d ON d.id = p.deployment_id ORDER BY name"
        )
        assert [(row["name"], row["started_at"].isoformat(), row["ended_at"]) for row in rows] == [
            ("running", "2026-11-01T00:00:00+00:00", None),
            ("stopping", "2026-11-01T00:00:00+00:00", None),
        ]
        await connection.execute("DELETE FROM deployments")
        assert await connection.fetchval("SELECT count(*) FROM deployment_periods WHERE ended_at IS NULL") == 0
    finally:
        await connection.close()
