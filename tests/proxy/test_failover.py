"""A route goes on to another target where that is safe, and only there, and only so often."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import pytest

from app.http1.pool import Deadlines
from app.proxy.budget import AT_LEAST
from app.store.tables import DeploymentRow
from tests.proxy.conftest import Caller, base_url
from tests.proxy.test_media import FORM_TYPE, TRANSCRIPTIONS
from tests.support.clock import Clock
from tests.support.data_plane import Gateway, chat, error_of
from tests.support.raw_client import RawResponse
from tests.support.raw_upstream import (
    CHUNKED_HEAD,
    Peer,
    RawUpstream,
    Script,
    always_answer,
    closed_port,
    plain,
    upstream,
)
from tests.support.wheel_clock import WheelClock
from tests.unit.test_form import FILE, MODEL, form

GUARD_SECONDS = 60.0
ANSWER = plain(b'{"model":"served-model","choices":[]}', headers=b"content-type: application/json\r\n")


async def well(peer: Peer) -> None:
    await always_answer(peer, ANSWER)


def says(status: bytes, headers: bytes = b"", body: bytes = b'{"error":{"message":"no"}}') -> Script:
    async def script(peer: Peer) -> None:
        await always_answer(peer, plain(body, status=status, headers=headers))

    return script


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.until_dropped()


async def resets(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def babbles(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"I am no HTTP server\r\n\r\n")


async def breaks_off(peer: Peer) -> None:
    await peer.request()
    event = b'data: {"id":"c1","model":"served-model","choices":[]}\n\n'
    await peer.send(CHUNKED_HEAD, b"%x\r\n%b\r\n" % (len(event), event))
    peer.reset()


class Scene:
    """Deployments `d0`, `d1` … behind a route `all`, tried in that order; a script of None is a closed port."""

    def __init__(self, gateway: Gateway, caller: Caller) -> None:
        self.gateway = gateway
        self.caller = caller
        self.servers: list[RawUpstream] = []
        self.ids: list[str] = []

    def asked(self) -> list[int]:
        return [len(server.requests) for server in self.servers]

    async def call(self, name: str = "all", **more: object) -> RawResponse:
        return await self.gateway.call(chat(name, **more), key=self.caller.key)


Stage = Callable[..., Awaitable[Scene]]


@pytest.fixture
async def stage(gateway: Gateway, caller: Caller) -> object:
    async with AsyncExitStack() as stack, asyncio.timeout(GUARD_SECONDS):

        async def begin(*scripts: Script | None, priorities: Sequence[int] | None = None, **more: object) -> Scene:
            scene = Scene(gateway, caller)
            for number, script in enumerate(scripts):
                if script is None:
                    server = RawUpstream(())
                    server.port = stack.enter_context(closed_port())
                else:
                    server = await stack.enter_async_context(upstream(script))
                scene.servers.append(server)
                url = base_url(server)
                scene.ids.append(await gateway.registry.deployment(caller.tenant_id, f"d{number}", url))
            order = list(range(len(scripts))) if priorities is None else priorities
            await gateway.registry.route(caller.tenant_id, "all", scene.ids, priorities=order, **more)
            await gateway.follow()
            return scene

        yield begin


GOES_ON = {
    "no connection": None,
    "429": says(b"429 Busy", b"retry-after: 60\r\n"),
    "429 without a wait": says(b"429 Busy"),
    "500": says(b"500 Oops"),
    "503": says(b"503 Later"),
    "529": says(b"529 Overloaded"),
}


@pytest.mark.parametrize("why", GOES_ON)
@pytest.mark.parametrize("stream", [False, True])
async def test_before_the_first_byte_another_target_answers_in_its_place(
    stage: Stage, gateway: Gateway, why: str, stream: bool
) -> None:
    scene = await stage(GOES_ON[why], streams if stream else well)
    response = await scene.call(stream=stream)
    assert response.status_code == 200
    assert response.header(b"x-modelport-deployment") == scene.ids[1].encode()
    assert response.header(b"x-modelport-attempts") == b"2"
    assert scene.asked() == [0 if GOES_ON[why] is None else 1, 1]
    assert gateway.open_streams.counts == {}
    (line,) = await gateway.access()
    assert (line["attempts"], line["deployment_id"], line["outcome"]) == (2, scene.ids[1], "complete")


async def streams(peer: Peer) -> None:
    event = b'data: {"id":"c1","model":"served-model","choices":[]}\n\ndata: [DONE]\n\n'
    await always_answer(peer, CHUNKED_HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))


async def test_a_target_that_does_not_begin_to_answer_is_left_for_another(
    stage: Stage, gateway: Gateway, wheel_clock: WheelClock
) -> None:
    scene = await stage(silent, well)
    calling = asyncio.ensure_future(scene.call())
    while scene.asked() != [1, 0]:
        await asyncio.sleep(0)
    await wheel_clock.pass_by(Deadlines().first_byte_seconds + 1)
    assert (await calling).status_code == 200
    assert scene.asked() == [1, 1]
    assert gateway.pool.open_connections == 1, "the first is not left to work on it"


STAYS = {
    "400": (says(b"400 Bad"), 400),
    "context overflow": (says(b"400 Bad", body=b'{"error":{"message":"long","code":"context_length_exceeded"}}'), 400),
    "content filter": (says(b"400 Bad", body=b'{"error":{"message":"no","code":"content_filter"}}'), 400),
    "context overflow as 500": (
        says(b"500 Oops", body=b'{"error":{"message":"long","type":"exceed_context_size_error","code":500}}'),
        400,
    ),
    "content filter as 503": (says(b"503 No", body=b'{"error":{"message":"no","code":"content_filter"}}'), 400),
    "401": (says(b"401 Who"), 502),
    "404": (says(b"404 Nope", body=b'{"error":{"message":"no such model"}}'), 502),
    "408": (says(b"408 Slow"), 504),
    "413": (says(b"413 Large"), 413),
    "501": (says(b"501 Never"), 501),
    "307": (says(b"307 There", b"location: http://other.test/\r\n"), 502),
    "reset after the request": (resets, 502),
    "no HTTP": (babbles, 502),
}


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize("why", STAYS)
async def test_what_is_about_the_request_or_may_have_been_carried_out_is_told_as_it_is(stage: Stage, why: str) -> None:
    script, status_code = STAYS[why]
    scene = await stage(script, well)
    response = await scene.call()
    assert (response.status_code, scene.asked()[1]) == (status_code, 0)
    assert response.header(b"x-modelport-attempts") == b"1"
    if why.startswith(("context overflow", "content filter")):
        assert error_of(response)["code"] == ("context_length_exceeded" if "overflow" in why else "content_filter")
        assert error_of(response)["message"] in {"long", "no"}


@pytest.mark.parametrize("carrier", ["direct"])
async def test_failures_that_one_callers_requests_make_open_no_breaker(stage: Stage, gateway: Gateway) -> None:
    too_long = says(b"500 Oops", body=b'{"error":{"message":"long","code":"context_length_exceeded"}}')
    scene = await stage(too_long)
    for _ in range(6):
        assert (await scene.call("d0")).status_code == 400
    assert scene.asked() == [6]
    assert gateway.plane.routing.health.troubled == {}


@pytest.mark.parametrize("carrier", ["direct"])
@pytest.mark.parametrize(
    "head", [b"content-length: 9\r\n", b"transfer-encoding: chunked\r\n"], ids=["length", "chunked"]
)
async def test_a_failure_whose_reason_does_not_come_is_not_waited_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr("app.proxy.attempts._REASON_SECONDS", 0.05)

    async def falls_silent(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 500 Oops\r\n" + head + b"\r\n")
        await peer.until_dropped()

    scene = await stage(falls_silent, well)
    assert (await scene.call()).status_code == 200
    assert scene.asked() == [1, 1]


async def test_after_the_first_byte_nobody_else_is_asked(stage: Stage) -> None:
    scene = await stage(breaks_off, streams)
    response = await scene.call(stream=True)
    assert response.status_code == 200
    assert b'"error"' in response.body
    assert b"[DONE]" not in response.body
    assert scene.asked() == [1, 0]


@pytest.mark.parametrize("carrier", ["direct"])
async def test_each_target_is_tried_once_and_then_the_last_failure_is_told(stage: Stage) -> None:
    scene = await stage(says(b"500 One"), None, says(b"502 Three"))
    response = await scene.call()
    assert response.status_code == 502
    assert response.header(b"x-modelport-attempts") == b"3"
    assert response.header(b"x-should-retry") == b"false", "the gateway has tried again already"
    assert scene.asked() == [1, 0, 1]


@pytest.mark.parametrize("carrier", ["direct"])
async def test_a_total_outage_is_not_multiplied(stage: Stage, gateway: Gateway) -> None:
    gateway.plane.routing.health._clock = Clock()  # no wait of a breaker ends meanwhile
    scene = await stage(says(b"500 One"), says(b"500 Two"))
    for _ in range(100):
        assert (await scene.call()).status_code in {502, 503}
    assert sum(scene.asked()) <= 100 + AT_LEAST
    assert gateway.plane.counters.retries <= AT_LEAST
    assert gateway.plane.routing.retries_denied > 0


@pytest.mark.parametrize("carrier", ["direct"])
async def test_a_target_that_asked_for_a_wait_is_not_chosen_until_then(stage: Stage) -> None:
    scene = await stage(says(b"429 Busy", b"retry-after: 60\r\n"), well)
    for _ in range(10):
        assert (await scene.call()).status_code == 200
    assert scene.asked() == [1, 10]


@pytest.mark.parametrize("carrier", ["direct"])
async def test_when_all_have_asked_for_a_wait_the_shortest_is_told(stage: Stage, gateway: Gateway) -> None:
    gateway.plane.routing.health._clock = Clock()
    scene = await stage(says(b"429 Busy", b"retry-after: 60\r\n"), says(b"429 Busy", b"retry-after: 30\r\n"))
    for asked in ([1, 1], [1, 1]):
        response = await scene.call()
        assert response.status_code == 429
        assert response.header(b"retry-after") == b"30"
        assert error_of(response)["type"] == "rate_limit_error"
        assert scene.asked() == asked


@pytest.mark.parametrize(("script", "attempts"), [(says(b"500 Oops"), b"1"), (None, b"2")])
async def test_a_form_that_was_passed_on_is_never_sent_twice(
    stage: Stage, script: Script | None, attempts: bytes
) -> None:
    """As long as nothing was sent it is still whole, and may go to another target."""
    scene = await stage(script, well)
    body = form((MODEL, b"all"), (FILE, b"sound" * 1000))
    response = await scene.gateway.call(body, key=scene.caller.key, path=TRANSCRIPTIONS, headers=FORM_TYPE)
    assert response.header(b"x-modelport-attempts") == attempts
    assert response.status_code == (502 if script else 200)
    assert sum(scene.asked()) == 1


@pytest.mark.parametrize("carrier", ["direct"])
async def test_priorities_are_left_only_when_nobody_in_them_can_answer(stage: Stage, gateway: Gateway) -> None:
    scene = await stage(well, well, well, priorities=[0, 0, 1])
    for _ in range(20):
        await scene.call()
    assert scene.asked()[2] == 0
    assert sum(scene.asked()) == 20


@pytest.mark.parametrize("carrier", ["direct"])
async def test_affinity_keeps_a_key_with_one_target_and_moves_it_only_while_that_one_is_away(
    stage: Stage, gateway: Gateway
) -> None:
    scene = await stage(well, well, well, priorities=[0, 0, 0], affinity="user")

    async def homes() -> dict[str, str]:
        found = {}
        for user in map(str, range(40)):
            answers = {(await scene.call(user=user)).header(b"x-modelport-deployment") for _ in range(2)}
            found[user] = b"".join(one or b"" for one in answers).decode()
        return found

    before = await homes()
    assert set(before.values()) == set(scene.ids), "each key has one home, and they are shared out"
    away = before["0"]
    await gateway.registry.change(DeploymentRow, away, status="stopped")
    await gateway.follow()
    meanwhile = await homes()
    assert all((meanwhile[user] != home) == (home == away) for user, home in before.items())
    await gateway.registry.change(DeploymentRow, away, status="running")
    await gateway.follow()
    assert await homes() == before
