"""An upstream that refuses us is looked at again: at once, once in a while, and never by the call itself."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, update

from app.proxy.relook import EVERY_SECONDS, Relook
from app.store.session import Store
from app.store.tables import DeploymentRow
from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import Gateway, chat
from tests.support.raw_server import Carrier
from tests.support.raw_upstream import Peer, plain, upstream


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def carrier() -> Carrier:
    return "direct"


async def waits(store: Store, deployment_id: str) -> bool:
    """Whether its next look lies ahead."""
    async with store.read() as session:
        row = await session.get_one(DeploymentRow, deployment_id)
        assert row.due_at is not None
        return row.due_at > row.created_at + timedelta(minutes=30)


async def look_in_an_hour(store: Store) -> None:
    async with store.write() as session:
        await session.execute(update(DeploymentRow).values(due_at=func.now() + timedelta(hours=1)))


@pytest.mark.parametrize(("status", "asks"), [(401, True), (403, True), (404, True), (429, False), (500, False)])
async def test_a_refusal_that_may_mean_a_new_key_or_address_asks_for_a_look(
    gateway: Gateway, caller: Caller, store: Store, status: int, asks: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(plain(b"{}", status=b"%d No" % status))

    async with upstream(script) as server:
        deployment_id = await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        await look_in_an_hour(store)
        await gateway.call(chat("bot"), key=caller.key)
    await gateway.relook.flush()
    assert await waits(store, deployment_id) is not asks


async def test_a_deployment_is_asked_for_once_in_a_while(gateway: Gateway, caller: Caller, store: Store) -> None:
    clock = Clock()
    relook = Relook(store, clock=clock)
    deployment_id = await gateway.registry.deployment(caller.tenant_id, "bot", "https://models.example/v1")
    for seconds, asked in ((0.0, True), (EVERY_SECONDS - 1, False), (2.0, True)):
        clock.now += seconds
        await look_in_an_hour(store)
        for _ in range(100):
            relook.note(deployment_id, 401)
        await relook.flush()
        assert await waits(store, deployment_id) is not asked


async def test_what_is_not_to_be_looked_at_at_all_stays_so(gateway: Gateway, caller: Caller, store: Store) -> None:
    relook = Relook(store)
    deployment_id = await gateway.registry.deployment(caller.tenant_id, "bot", "https://models.example/v1")
    async with store.write() as session:
        await session.execute(update(DeploymentRow).values(due_at=None))
    relook.note(deployment_id, 404)
    relook.note("dep_of_nobody", 404)
    await relook.flush()
    async with store.read() as session:
        assert (await session.get_one(DeploymentRow, deployment_id)).due_at is None
