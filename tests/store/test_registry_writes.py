"""The registry's own rules, below any HTTP: reach, names, versions, wishes, and what may be deleted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from app.domain.operation import OperationStatus, OperationType
from app.errors import Conflict, NotFound
from app.kit.ids import new_id
from app.kit.pagination import cut, page_request
from app.store import changes, connections, deployments, names, operations, routes, tenants
from app.store.rows import ALL_TENANTS, revise
from app.store.session import Session, Store
from app.store.tables import ChangeRow, ConnectionRow, DeploymentRow, NameRow, OperationRow, RouteRow, TenantRow
from tests.support.database import transaction


async def make_tenant(session: Session, name: str) -> TenantRow:
    return await tenants.create(session, new_id("ten"), {"name": name})


async def make_connection(session: Session, tenant_id: str | None, name: str = "prod") -> ConnectionRow:
    row = ConnectionRow(
        id=new_id("con"), tenant_id=tenant_id, name=name, provider="elastic", settings={}, credentials_sealed=b"sealed"
    )
    await connections.create(session, row)
    return row


async def make_deployment(session: Session, tenant_id: str, connection: ConnectionRow, name: str) -> DeploymentRow:
    row = DeploymentRow(
        id=new_id("dep"),
        tenant_id=tenant_id,
        connection_id=connection.id,
        provider="elastic",
        name=name,
        model="m",
        wanted="running",
        status="pending",
    )
    await deployments.create(session, row)
    return row


async def count(session: Session, table: Any) -> int:
    return (await session.scalar(select(func.count()).select_from(table))) or 0


async def test_a_query_sees_its_reach_and_the_fleet_only_when_it_says_so(store: Store) -> None:
    async with store.write() as session:
        one, two = await make_tenant(session, "one"), await make_tenant(session, "two")
        made = [
            await make_deployment(session, tenant.id, await make_connection(session, tenant.id), "bot")
            for tenant in (one, two)
        ]
        everyone = page_request(20, None)
        for tenant, deployment, foreign in [(one, made[0], made[1]), (two, made[1], made[0])]:
            seen = await deployments.list_page(session, tenant.id, everyone)
            assert [found.id for found in seen] == [deployment.id]
            assert await deployments.find(session, tenant.id, foreign.id) is None
            assert await deployments.lock(session, tenant.id, foreign.id) is None
            assert await deployments.version(session, tenant.id, foreign.id) is None
        assert len(await deployments.list_page(session, ALL_TENANTS, everyone)) == 2
        by_name = await deployments.find_by_reference(session, two.id, "bot")
        assert by_name is not None
        assert by_name.id == made[1].id
        assert await deployments.find_by_reference(session, ALL_TENANTS, "bot") is None


async def test_pages_come_newest_first_and_end(store: Store) -> None:
    async with store.write() as session:
        for number in range(5):
            await make_tenant(session, f"tenant-{number}")
        seen: list[str] = []
        token: str | None = None
        while True:
            page = page_request(2, token, "tenants")
            rows, token = cut(await tenants.list_page(session, page), page)
            seen += [row.id for row in rows]
            if token is None:
                break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 5


async def test_a_revision_is_the_next_version_and_comes_back_fresh(store: Store) -> None:
    async with store.write() as session:
        row = await make_tenant(session, "acme")
        first = row.updated_at
    async with store.write() as session:
        locked = await tenants.lock(session, row.id)
        assert locked is not None
        revised = await revise(session, locked, {"suspended": True})
        assert (revised.version, revised.suspended) == (2, True)
        assert revised.updated_at > first


async def test_a_taken_name_is_a_conflict_of_the_client(store: Store) -> None:
    async with store.write() as session:
        tenant = await make_tenant(session, "acme")
        await make_tenant(session, "other")
        await make_connection(session, tenant.id)
        await make_connection(session, None)

    async def again(session: Session) -> None:
        await make_tenant(session, "acme")

    async def rename(session: Session) -> None:
        row = await session.get_one(TenantRow, tenant.id)
        await revise(session, row, {"name": "other"})

    async def same_connection(session: Session) -> None:
        await make_connection(session, tenant.id)

    async def same_shared_connection(session: Session) -> None:
        await make_connection(session, None)

    for work in (again, rename, same_connection, same_shared_connection):
        with pytest.raises(Conflict) as refused:
            await store.retry(work)
        assert refused.value.code == "name_taken"


async def test_what_is_made_for_a_tenant_that_is_gone_is_not_found(store: Store) -> None:
    async def connection(session: Session) -> None:
        await make_connection(session, new_id("ten"))

    async def route(session: Session) -> None:
        await routes.create(session, RouteRow(id=new_id("rte"), tenant_id=new_id("ten"), name="chat", targets=[]))

    async def deployment(session: Session) -> None:
        shared = await make_connection(session, None)
        await make_deployment(session, new_id("ten"), shared, "bot")

    for work in (connection, route, deployment):
        with pytest.raises(NotFound):
            await store.retry(work)


async def test_of_many_that_race_for_a_name_one_gets_it(store: Store) -> None:
    async def take(number: int) -> bool:
        try:
            async with store.write() as session:
                kind: Any = "route" if number % 2 else "deployment"
                await names.take(session, tenant_id="ten_1", name="chat", kind=kind, resource_id=f"r{number}")
        except Conflict:
            return False
        return True

    assert sum(await asyncio.gather(*(take(number) for number in range(20)))) == 1
    async with store.write() as session:
        await names.take(session, tenant_id=None, name="chat", kind="route", resource_id="platform-route")
        await names.take(session, tenant_id="ten_2", name="chat", kind="route", resource_id="other")
        owner = (await session.scalars(select(NameRow.resource_id).where(NameRow.owner == "ten_1"))).one()
        await names.release(session, owner)
        await names.take(session, tenant_id="ten_1", name="chat", kind="route", resource_id="new")


async def test_a_name_given_back_by_a_rollback_is_free_for_whoever_waited(store: Store) -> None:
    async def waiting() -> None:
        async with store.write() as session:
            await names.take(session, tenant_id="ten_1", name="chat", kind="route", resource_id="second")

    async with transaction(store) as first, store.engine.connect() as watching:
        await first.execute(text("INSERT INTO names VALUES ('ten_1', 'chat', 'route', 'first')"))
        async with asyncio.TaskGroup() as group:
            group.create_task(waiting())
            blocked = text(
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
                "WHERE NOT granted AND datname = current_database()"
            )
            while not (await watching.execute(blocked)).scalar_one():
                await asyncio.sleep(0.01)
            await first.rollback()
    async with store.read() as session:
        assert (await session.scalars(select(NameRow.resource_id))).all() == ["second"]


async def test_a_connection_is_found_by_id_or_name_ones_own_before_the_platforms(store: Store) -> None:
    async with store.write() as session:
        tenant, other = await make_tenant(session, "acme"), await make_tenant(session, "other")
        shared = await make_connection(session, None)
        own = await make_connection(session, tenant.id)
        foreign = await make_connection(session, other.id, "foreign")

        async def meant(name_or_id: str) -> str | None:
            row = await connections.find_for_use(session, tenant.id, name_or_id)
            return None if row is None else row.id

        assert await meant("prod") == own.id
        assert await meant(shared.id) == shared.id
        assert await meant("foreign") is None
        assert await meant(foreign.id) is None


async def test_a_connection_that_a_create_has_found_cannot_be_deleted_before_it_ends(store: Store) -> None:
    async with store.write() as session:
        tenant = await make_tenant(session, "acme")
        connection = await make_connection(session, tenant.id)
    deleted = asyncio.Event()

    async def delete() -> list[str]:
        async with store.write() as session:
            locked = await connections.lock(session, tenant.id, connection.id)
            deleted.set()
            assert locked is not None
            return [row.id for row in await deployments.left_on_connection(session, connection.id)]

    async with store.write() as session:
        assert await connections.find_for_use(session, tenant.id, "prod") is not None
        deleting = asyncio.ensure_future(delete())
        deployment = await make_deployment(session, tenant.id, connection, "bot")
        assert not deleted.is_set()
    assert await deleting == [deployment.id]


async def test_a_wish_is_the_next_generation_and_due_at_once(store: Store) -> None:
    async with store.write() as session:
        tenant = await make_tenant(session, "acme")
        row = await make_deployment(session, tenant.id, await make_connection(session, tenant.id), "bot")
        row = await revise(session, row, {"due_at": None})
        wished = await deployments.wish(session, row, {"capacity": {"units": 2}})
        assert (wished.generation, wished.version, wished.capacity) == (2, 3, {"units": 2})
        assert wished.due_at is not None
        cleared = await deployments.wish(session, wished, {"capacity": None})
        nulls = select(func.count()).where(DeploymentRow.capacity.is_(None))
        assert cleared.capacity is None
        assert await session.scalar(nulls) == 1, "SQL's NULL, not JSON's"


async def test_a_deployment_has_one_active_operation_and_its_end_makes_room(store: Store) -> None:
    async with store.write() as session:
        tenant = await make_tenant(session, "acme")
        row = await make_deployment(session, tenant.id, await make_connection(session, tenant.id), "bot")
        first = await operations.create(session, row, operation_id=new_id("op"), type_=OperationType.CREATE)
    with pytest.raises(IntegrityError):
        async with store.write() as session:
            await operations.create(session, row, operation_id=new_id("op"), type_=OperationType.SCALE)
    async with store.write() as session:
        await operations.end_active(session, row.id, OperationStatus.SUPERSEDED)
        second = await operations.create(session, row, operation_id=new_id("op"), type_=OperationType.SCALE)
        active = await operations.find_active(session, row.id)
        assert active is not None
        assert active.id == second.id
        ended = await session.get_one(OperationRow, first.id, populate_existing=True)
        assert (ended.status, ended.finished_at is not None) == ("superseded", True)
        page = page_request(20, None)
        found = await operations.list_page(session, tenant.id, page, deployment_id=row.id, status="pending")
        assert [one.id for one in found] == [second.id]
        assert await operations.find(session, new_id("ten"), second.id) is None


async def test_new_credentials_wake_only_the_deployments_that_are_left(store: Store) -> None:
    async with store.write() as session:
        tenant = await make_tenant(session, "acme")
        connection = await make_connection(session, tenant.id)
        alive = await make_deployment(session, tenant.id, connection, "alive")
        gone = await make_deployment(session, tenant.id, connection, "gone")
        await revise(session, gone, {"deleted_at": func.now(), "status": "deleted", "due_at": None})
        assert await deployments.look_again(session, connection.id) == [alive.id]


async def test_removing_a_tenant_leaves_the_others_alone_and_tells_the_directories(store: Store) -> None:
    async with store.write() as session:
        doomed, kept = await make_tenant(session, "doomed"), await make_tenant(session, "kept")
        for tenant in (doomed, kept):
            connection = await make_connection(session, tenant.id)
            deployment = await make_deployment(session, tenant.id, connection, "bot")
            await operations.create(session, deployment, operation_id=new_id("op"), type_=OperationType.CREATE)
            await names.take(session, tenant_id=tenant.id, name="bot", kind="deployment", resource_id=deployment.id)
            row = RouteRow(id=new_id("rte"), tenant_id=tenant.id, name="chat", targets=[])
            await routes.create(session, row)
            await revise(session, deployment, {"deleted_at": func.now(), "status": "deleted"})
    async with store.write() as session:
        locked = await tenants.lock(session, doomed.id)
        assert locked is not None
        await tenants.remove(session, locked)
        assert session.info[changes.CHANGED]
    async with store.read() as session:
        for table in (TenantRow, ConnectionRow, DeploymentRow, OperationRow, RouteRow, NameRow):
            assert await count(session, table) == 1, table.__name__
        told = (await session.execute(select(ChangeRow.kind, ChangeRow.resource_id))).all()
        assert ("tenant", doomed.id) in told
        assert await tenants.find(session, kept.id) is not None
