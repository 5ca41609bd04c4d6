"""An upstream that fails is left alone, found well again by one call, and never takes the others with it."""

from __future__ import annotations

import asyncio

import pytest

from app.http1.pool import Deadlines
from app.proxy.breaker import DOUBTFUL_AFTER, FIRST_WAIT_SECONDS, OPEN_AFTER, State
from app.proxy.budget import AT_LEAST
from app.proxy.limits import ProxyLimits
from app.store.tables import DeploymentRow
from tests.proxy.conftest import Caller, base_url
from tests.proxy.test_failover import GUARD_SECONDS, Scene, Stage, says, silent, stage, well
from tests.proxy.test_relook import Clock
from tests.support.data_plane import Gateway, chat, error_of, request
from tests.support.raw_server import Carrier
from tests.support.raw_upstream import Peer, Script, plain, upstream

__all__ = ["stage"]


@pytest.fixture
def carrier() -> Carrier:
    """How the caller is served makes no difference to what the upstream is."""
    return "direct"


@pytest.fixture
def clock(gateway: Gateway) -> Clock:
    clock = Clock()
    gateway.plane.routing.health._clock = clock
    return clock


class Moody:
    """An upstream that answers what it is told to, from the next request on."""

    def __init__(self) -> None:
        self.answer = plain(b"{}", status=b"500 Oops")
        self.requests = 0

    async def script(self, peer: Peer) -> None:
        while True:
            await peer.request()
            self.requests += 1
            await peer.send(self.answer)

    def recover(self) -> None:
        self.answer = plain(b'{"model":"served-model"}')


FAILS = {
    "500": says(b"500 Oops"),
    "503": says(b"503 Later"),
    "no connection": None,
    "silence": silent,
}


@pytest.mark.parametrize("limits", [ProxyLimits(deadlines=Deadlines(first_byte_seconds=0.1))], ids=["short"])
@pytest.mark.parametrize("why", FAILS)
async def test_five_failures_in_a_row_open_the_breaker(stage: Stage, clock: Clock, why: str) -> None:
    scene = await stage(FAILS[why])
    told = [await scene.call("d0") for _ in range(OPEN_AFTER)]
    assert all(response.status_code in {502, 504} or why == "no connection" for response in told)
    before = scene.asked()
    response = await scene.call("d0")
    assert response.status_code == 503
    assert error_of(response)["code"] == "upstream_unavailable"
    assert response.header(b"retry-after") == b"%d" % FIRST_WAIT_SECONDS
    assert response.header(b"x-should-retry") == b"true"
    assert scene.asked() == before, "nobody was asked"


@pytest.mark.parametrize("status", [b"400 Bad", b"401 Who", b"404 Nope", b"429 Busy", b"501 Never"])
async def test_what_only_refuses_lives(stage: Stage, clock: Clock, status: bytes) -> None:
    scene = await stage(says(status))
    for _ in range(OPEN_AFTER + 2):
        assert (await scene.call("d0")).status_code != 503
    assert scene.asked() == [OPEN_AFTER + 2]


async def test_one_call_probes_and_its_answer_closes_the_breaker(
    gateway: Gateway, caller: Caller, clock: Clock
) -> None:
    moody = Moody()
    health = gateway.plane.routing.health
    async with upstream(moody.script) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        for _ in range(OPEN_AFTER):
            await gateway.call(chat("bot"), key=caller.key)
        clock.now += FIRST_WAIT_SECONDS - 1
        assert (await gateway.call(chat("bot"), key=caller.key)).header(b"retry-after") == b"1"
        clock.now += 1
        assert (await gateway.call(chat("bot"), key=caller.key)).status_code == 502, "the probe"
        refused = await gateway.call(chat("bot"), key=caller.key)
        assert refused.header(b"retry-after") == b"%d" % (2 * FIRST_WAIT_SECONDS)
        assert moody.requests == OPEN_AFTER + 1
        moody.recover()
        clock.now += 2 * FIRST_WAIT_SECONDS
        for _ in range(3):
            assert (await gateway.call(chat("bot"), key=caller.key)).status_code == 200
    assert (health.opened, health.probes, health.closed) == (1, 2, 1)
    assert health.troubled == {}, "whoever is well has no entry"


async def test_while_one_call_probes_the_others_are_told_to_wait(
    gateway: Gateway, caller: Caller, clock: Clock
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def held(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await go_on.wait()
        await peer.send(plain(b'{"model":"served-model"}'))

    scripts: list[Script] = [lambda peer: peer.answer(plain(b"{}", status=b"500 Oops"))] * OPEN_AFTER
    async with upstream(*scripts, held) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        for _ in range(OPEN_AFTER):
            await gateway.call(chat("bot"), key=caller.key)
        clock.now += FIRST_WAIT_SECONDS
        probe = asyncio.ensure_future(gateway.call(chat("bot"), key=caller.key))
        await asked.wait()
        assert gateway.plane.routing.health.states() == {State.HALF_OPEN: 1}
        assert [(await gateway.call(chat("bot"), key=caller.key)).status_code for _ in range(3)] == [503] * 3
        go_on.set()
        assert (await probe).status_code == 200
        assert len(server.requests) == OPEN_AFTER + 1


async def test_a_probe_whose_caller_leaves_makes_way_for_the_next(
    gateway: Gateway, caller: Caller, clock: Clock
) -> None:
    asked = asyncio.Event()

    async def held(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.until_dropped()

    fails: list[Script] = [lambda peer: peer.answer(plain(b"{}", status=b"500 Oops"))] * OPEN_AFTER
    async with upstream(*fails, held, well) as server, asyncio.timeout(GUARD_SECONDS):
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        for _ in range(OPEN_AFTER):
            await gateway.call(chat("bot"), key=caller.key)
        clock.now += FIRST_WAIT_SECONDS
        async with await gateway.connect() as client:
            await client.send(request(chat("bot"), key=caller.key))
            await asked.wait()
            client.reset()
            while gateway.plane.open_streams_total:
                await asyncio.sleep(0)
        assert (await gateway.call(chat("bot"), key=caller.key)).status_code == 200


async def test_a_route_leaves_out_who_is_broken_and_takes_it_back_when_it_is_well(
    stage: Stage, gateway: Gateway, clock: Clock
) -> None:
    moody = Moody()
    scene = await stage(moody.script, well)
    for _ in range(10):
        assert (await scene.call()).status_code == 200
    assert moody.requests == DOUBTFUL_AFTER, "two callers find out, and others are chosen for a while"
    while not gateway.plane.routing.health.opened:
        clock.now += FIRST_WAIT_SECONDS
        gateway.plane.routing._budgets.clear()
        for _ in range(3):
            assert (await scene.call()).status_code == 200
    assert moody.requests == OPEN_AFTER
    moody.recover()
    clock.now += FIRST_WAIT_SECONDS
    for _ in range(5):
        assert (await scene.call()).header(b"x-modelport-deployment") == scene.ids[0].encode()


async def test_one_failure_now_and_then_takes_nobody_out_of_a_route(
    stage: Stage, gateway: Gateway, clock: Clock
) -> None:
    moody = Moody()
    scene = await stage(moody.script, well)
    for _ in range(AT_LEAST):
        moody.answer = plain(b"{}", status=b"500 Oops")
        assert (await scene.call()).header(b"x-modelport-deployment") == scene.ids[1].encode()
        moody.recover()
        assert (await scene.call()).header(b"x-modelport-deployment") == scene.ids[0].encode()


async def test_a_doubtful_target_is_better_than_none(stage: Stage, clock: Clock) -> None:
    moody = Moody()
    scene = await stage(moody.script)
    for _ in range(DOUBTFUL_AFTER):
        assert (await scene.call()).status_code == 502
    moody.recover()
    assert (await scene.call()).status_code == 200


async def test_when_all_are_broken_the_earliest_probe_is_told(stage: Stage, gateway: Gateway, clock: Clock) -> None:
    scene = await stage(says(b"500 One"), says(b"500 Two"))
    for name, seconds in (("d0", 2.0), ("d1", 0.0)):
        for _ in range(OPEN_AFTER):
            await scene.call(name)
        clock.now += seconds
    response = await scene.call()
    assert (response.status_code, response.header(b"retry-after")) == (503, b"3")
    assert error_of(response)["type"] == "unavailable_error"
    assert scene.asked() == [OPEN_AFTER, OPEN_AFTER]
    (line,) = [line for line in await gateway.access() if line["model"] == "all"]
    assert line["outcome"] == "refused"
    assert "deployment_id" not in line


async def test_a_deployment_with_another_address_begins_anew(
    stage: Stage, gateway: Gateway, caller: Caller, clock: Clock
) -> None:
    scene = await stage(says(b"500 One"), well)
    for _ in range(OPEN_AFTER):
        await scene.call("d0")
    assert (await scene.call("d0")).status_code == 503
    moved = {"base_url": base_url(scene.servers[1])}
    async with gateway.registry.store.read() as session:
        row = await session.get_one(DeploymentRow, scene.ids[0])
        assert row.upstream is not None
        spec = {**row.upstream, **moved}
    await gateway.registry.change(DeploymentRow, scene.ids[0], upstream=spec)
    await gateway.follow()
    assert (await scene.call("d0")).status_code == 200


async def test_what_is_gone_is_forgotten(stage: Stage, gateway: Gateway, clock: Clock) -> None:
    scene: Scene = await stage(says(b"500 One"))
    for _ in range(OPEN_AFTER):
        await scene.call()
    await gateway.registry.remove(DeploymentRow, scene.ids[0])
    await gateway.follow()
    gateway.plane.routing.tidy()
    assert gateway.plane.routing.health.troubled == {}
