"""Accounts: who was asked to wait is left alone by everybody, who is refused is only tried, and nobody starves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import func, update

from app.background.reconcile import Reconciler
from app.domain.connection import ConnectionStatus
from app.domain.operation import OperationType
from app.kit.hints import Hint
from app.kit.ids import new_id
from app.kit.secrets import Keyring
from app.providers.errors import CredentialsRefused, ProviderBusy, ProviderError, ProviderThrottled, throttle_seconds
from app.store import connections, due, places
from app.store.session import Store
from app.store.tables import ConnectionRow, DeploymentRow
from tests.background.conftest import PACE, WORKER, Bench, opened
from tests.control.support import made
from tests.emulators.bailian import Account, Delays, running_emulator
from tests.support.cloud import Cloud, CloudProvider
from tests.support.platform_world import (
    DEPLOYMENTS,
    bailian_body,
    connect,
    connection_row,
    platform_world,
    read,
    reconciling,
    until,
    until_status,
)


async def connection(bench: Bench) -> ConnectionRow:
    async with bench.store.read() as session:
        return await session.get_one(ConnectionRow, bench.connection_id)


async def lift(bench: Bench) -> None:
    async with bench.store.write() as session:
        await session.execute(update(ConnectionRow).values(throttled_until=None))


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ProviderThrottled("slow down", retry_after_seconds=600), id="429"),
        pytest.param(ProviderBusy("busy", retry_after_seconds=600), id="503 with Retry-After"),
    ],
)
async def test_what_one_deployment_was_told_holds_for_the_whole_account_on_every_replica(
    bench: Bench, error: ProviderError
) -> None:
    cloud = Cloud()
    first = await bench.deploy("first")
    async with bench.reconciling(CloudProvider(cloud), copies=3):
        await bench.until_status(first, "running")
        cloud.fail("get", error)
        await bench.until(first, lambda row: row.failures == 1)
        second = await bench.deploy("second")
        asked = len(cloud.calls)
        await asyncio.sleep(0.5)
        assert len(cloud.calls) == asked
        assert (await bench.row(second)).status == "pending"
        await lift(bench)
        await bench.until_status(second, "running")
    assert len(cloud.ever_made) == 2


async def test_deletes_go_on_while_their_account_waits(bench: Bench) -> None:
    cloud = Cloud()
    first, second = await bench.deploy("first"), await bench.deploy("second")
    async with bench.reconciling(CloudProvider(cloud), copies=2):
        for one in (first, second):
            await bench.until_status(one, "running")
        cloud.fail("get", ProviderThrottled("slow down", retry_after_seconds=600))
        async with asyncio.timeout(20):
            while (await connection(bench)).throttled_until is None:
                await asyncio.sleep(0.01)
        await bench.until_ended(await bench.delete(second))
    assert (await bench.row(second)).status == "deleted"
    assert (await connection(bench)).throttled_until is not None


async def test_a_delete_that_is_throttled_itself_comes_back_long_before_it_was_asked_to(bench: Bench) -> None:
    cloud = Cloud()
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud)):
        await bench.until_status(deployment, "running")
        cloud.fail("delete", ProviderThrottled("slow down", retry_after_seconds=3600))
        await bench.delete(deployment)
        row = await bench.until(deployment, lambda row: row.failures == 1)
    assert row.due_at is not None
    assert (row.due_at - row.updated_at).total_seconds() < 120


async def test_the_longest_wait_counts_and_an_ordinary_busy_is_nobody_elses(bench: Bench) -> None:
    cloud = Cloud()
    cloud.fail("create", ProviderBusy("this one is being changed"))
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud)):
        await bench.until_status(deployment, "running")
    assert (await connection(bench)).throttled_until is None
    async with bench.store.write() as session:
        for seconds in (500, 5):
            await connections.throttle(session, bench.connection_id, seconds)
        left = await connections.throttled_seconds(session, bench.connection_id)
    assert left is not None
    assert 400 < left <= 500


async def test_a_throttle_without_a_time_is_waited_for_by_our_own_estimate(bench: Bench) -> None:
    cloud = Cloud()
    cloud.fail("create", ProviderThrottled("slow down"))
    deployment = await bench.deploy()
    async with bench.reconciling(CloudProvider(cloud)):
        await bench.until_status(deployment, "running")
    assert (await connection(bench)).throttled_until is not None


async def test_a_platform_that_hangs_takes_half_of_a_replica_and_the_others_go_on(bench: Bench) -> None:
    """Forty creates hang at one platform; a deployment on another becomes running meanwhile."""
    hung, prompt = Cloud(gate=asyncio.Event()), Cloud()
    for number in range(40):
        await bench.deploy(f"hung-{number}")
    other = await bench.deploy("prompt")
    await _move(bench, other, "prompt")
    async with _reconciling(bench, {"cloud": CloudProvider(hung), "prompt": CloudProvider(prompt)}):
        await hung.until(lambda: hung.calls.count("create") == due.PER_CONNECTION)
        await bench.until_status(other, "running")
        await asyncio.sleep(0.2)
        assert hung.calls.count("create") == due.PER_CONNECTION
        assert hung.gate is not None
        hung.gate.set()
        await hung.until(lambda: len(hung.ever_made) == 40)


async def test_of_an_account_whose_credentials_are_refused_one_deployment_at_a_time_is_tried(bench: Bench) -> None:
    cloud = Cloud()
    many = [await bench.deploy(f"bot-{number}") for number in range(6)]
    async with bench.reconciling(CloudProvider(cloud), copies=3):
        for one in many:
            await bench.until_status(one, "running")
        cloud.revoked = True
        await _until_refused(lambda: connection(bench))
    begun, cloud.most_at_once = cloud.refused, 0
    async with bench.reconciling(CloudProvider(cloud), copies=3):  # with nothing on its way from before the refusal
        await cloud.until(lambda: cloud.refused >= begun + 2)
        assert cloud.most_at_once == 1
        rows = [await bench.row(one) for one in many]
        assert {row.status for row in rows} == {"running"}
        assert all(row.upstream is not None for row in rows)
        cloud.revoked = False
        for one in many:
            await bench.until(one, lambda row: row.failures == 0)
    assert (await connection(bench)).status == ConnectionStatus.OK


async def test_new_credentials_resume_a_revoked_account_at_once(store: Store, keyring: Keyring) -> None:
    """Over the emulator: few calls while it is refused, everything stays known, and one PATCH is enough."""
    account = Account(delays=Delays().scaled(0.01))
    async with platform_world(store, keyring) as world, running_emulator(account) as authority:
        client = await world.caller(await world.tenant())
        path = await connect(client, bailian_body(authority, account.api_key))
        wish = {"connection": "cloud", "model": "qwen3-8b", "plan": "mu", "template": "MU1", "capacity": {"units": 8}}
        bots = [(await made(client, DEPLOYMENTS, {"name": f"bot-{one}", **wish}))["id"] for one in range(5)]
        async with reconciling(world, copies=2):
            for bot in bots:
                await until_status(client, bot, "running")
            account.api_key = "sk-renewed"
            for bot in bots:
                await _due_now(store, bot)
            await _until_refused(lambda: connection_row(world, path))
        asked = len(account.journal)
        async with reconciling(world, copies=2, poll_seconds=1):  # one try in twelve seconds
            await asyncio.sleep(0.5)
            assert len(account.journal) == asked
            late = (await made(client, DEPLOYMENTS, {"name": "late", **wish}))["id"]
            for bot in bots:
                found = await read(client, bot)
                assert (found["status"], found["service_url"] is not None) == ("running", True)
            await client.patch(path, json={"credentials": {"api_key": account.api_key}})
            await until_status(client, late, "running")
            for bot in bots:
                await until(client, bot, lambda found: found["status_reason"] is None)
        assert (await connection_row(world, path)).status == "unchecked"


async def test_the_accounts_deletes_are_its_probes_first(bench: Bench) -> None:
    """Of a refused account, what costs money is what is tried."""
    cloud = Cloud()
    deployments = [await bench.deploy(f"bot-{number}") for number in range(3)]
    async with bench.reconciling(CloudProvider(cloud)):
        for one in deployments:
            await bench.until_status(one, "running")
    async with bench.store.write() as session:
        row = await session.get_one(ConnectionRow, bench.connection_id)
        await connections.mark_auth_failed(session, row, "revoked")
        await session.execute(update(ConnectionRow).values(checked_at=None))
    await bench.wish(deployments[2], OperationType.DELETE, wanted="deleted", status="deleting")
    async with bench.store.read() as session:
        (turn,) = (await session.scalars(due.WHOSE_TURN, due.ANYBODY.parameters("nod_test"))).all()
    assert turn == deployments[2]


def test_what_is_no_throttle_makes_nobody_wait() -> None:
    assert throttle_seconds(CredentialsRefused("no", retry_after_seconds=9), estimate_seconds=5) is None
    assert throttle_seconds(ProviderBusy("later"), estimate_seconds=5) is None
    assert throttle_seconds(ProviderBusy("later", retry_after_seconds=9), estimate_seconds=5) == 9
    assert throttle_seconds(ProviderThrottled("later"), estimate_seconds=5) == 5


async def _move(bench: Bench, deployment_id: str, provider: str) -> None:
    """To a connection of its own, of that provider."""
    connection_id = new_id("con")
    sealed = bench.keyring.seal(b"{}", places.credentials(connection_id, bench.tenant_id))
    async with bench.store.write() as session:
        session.add(
            ConnectionRow(
                id=connection_id,
                tenant_id=bench.tenant_id,
                name=provider,
                provider=provider,
                settings={},
                credentials_sealed=sealed,
            )
        )
        await session.flush()
        mine = update(DeploymentRow).where(DeploymentRow.id == deployment_id)
        await session.execute(mine.values(connection_id=connection_id, provider=provider))


@asynccontextmanager
async def _reconciling(bench: Bench, providers: dict[str, Any]) -> AsyncIterator[None]:
    reconciler = Reconciler(
        store=bench.store,
        provider_of=providers.__getitem__,
        keyring=bench.keyring,
        open_connection=opened,
        worker_id=WORKER,
        node_id="nod_test",
        pace=PACE,
        hint=Hint(),
    )
    task = asyncio.get_running_loop().create_task(reconciler.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _due_now(store: Store, deployment_id: str) -> None:
    async with store.write() as session:
        mine = update(DeploymentRow).where(DeploymentRow.id == deployment_id)
        await session.execute(mine.values(due_at=func.now()))


async def _until_refused(look: Callable[[], Awaitable[ConnectionRow]]) -> None:
    async with asyncio.timeout(20):
        while (await look()).status != ConnectionStatus.AUTH_FAILED:
            await asyncio.sleep(0.01)
