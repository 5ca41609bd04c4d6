"""The gateway behind a real PgBouncer in transaction mode: both planes, exact limits, and nothing it does not carry."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from app.store.embedded.binaries import find_binaries
from tests.journeys.world import answering, chat, opened
from tests.ledger.checks import wrong_sums
from tests.ledger.support import limit
from tests.support.gateway import free_port
from tests.support.raw_upstream import upstream

pytestmark = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="needs PgBouncer (`.ci/run` installs it)")


@contextmanager
def pooled(dsn: str, directory: Path) -> Iterator[str]:
    """A URL of that database through a PgBouncer that knows no more of us than a default installation would."""
    parts = urlsplit(dsn)
    host, port = parse_qs(parts.query)["host"][0], free_port()
    config = directory / "pgbouncer.ini"
    config.write_text(
        f"""
        [databases]
        * = host={host} port=5432 user={parts.username or "postgres"}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = transaction
        default_pool_size = 6
    """.replace("\n        ", "\n")
    )
    pooler = subprocess.Popen([*find_binaries(None).server_prefix, "pgbouncer", "--quiet", str(config)])
    try:
        yield f"postgresql://modelport@127.0.0.1:{port}{parts.path}?pgbouncer=true"
    finally:
        pooler.terminate()
        pooler.wait(timeout=30)


async def test_both_planes_work_through_a_pooler_and_limits_hold(dsn: str, data_dir: Path) -> None:
    async with upstream(answering) as server, opened(dsn, server, limit("requests", 20, "month")) as world:
        with pooled(dsn, data_dir.parent) as url:
            world.env |= {"MODELPORT_DATABASE_URL": url, "MODELPORT_DATABASE_DIRECT_URL": dsn}
            async with world.serving(data_dir, "--workers", "2") as gateway, world.client(gateway) as client:
                made = await asyncio.to_thread(gateway.create, "/tenants", name="another")
                found = await asyncio.to_thread(gateway.api, "GET", f"/tenants/{made['id']}")
                answers = [await chat(client) for _ in range(15)]
                while (told := Counter(one.status_code for one in answers))[200] < 20 or not told[429]:
                    answers += await asyncio.gather(*(chat(client) for _ in range(15)))
        assert found.json()["name"] == "another"
        status_codes = {one.status_code for one in answers}
        assert {200, 429} <= status_codes <= {200, 429, 503}, "503: a worker is not up yet"
        assert len(await world.records()) == 20
        assert not await wrong_sums(world.store)
