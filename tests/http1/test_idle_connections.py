"""Connections that say nothing, or stop in the middle of a head; and what a server that ends does with them."""

from __future__ import annotations

import asyncio
import json

import pytest
from typing_extensions import override

from app.http1.deadlines import Owed
from app.http1.exchange import Exchange
from app.http1.limits import ServerLimits
from app.http1.timers import NEVER, Wheel
from tests.http1.conftest import Serve
from tests.http1.handlers import LIMIT_BYTES, echo, request
from tests.support.raw_client import GUARD_SECONDS
from tests.support.raw_server import Served
from tests.support.wheel_clock import WheelClock

SHORT = ServerLimits(head_seconds=0.1, idle_seconds=0.1, linger_seconds=0.1)
one_loop = pytest.mark.asyncio(loop_factories=["uvloop"])


async def all_closed(served: Served) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        while served.open_connections:
            await asyncio.sleep(0.01)


async def has_begun(served: Served) -> None:
    """Until a part of a head has been read, on the only connection."""
    async with asyncio.timeout(GUARD_SECONDS):
        while [connection._read_clock.owed for connection in served.connections] != [Owed.HEAD]:
            await asyncio.sleep(0)


@one_loop
async def test_a_connection_that_never_says_anything_is_closed_without_a_word(serve: Serve) -> None:
    served = await serve(echo, limits=SHORT)
    async with await served.connect() as client:
        assert await client.until_closed() == b""
    await all_closed(served)


@one_loop
@pytest.mark.parametrize("start", [b"G", b"GET /v1/x HTTP/1.1\r\nHost: a\r\nX: "])
async def test_a_head_that_does_not_end_is_408(serve: Serve, start: bytes, wheel_clock: WheelClock) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(start)
        await has_begun(served)
        await wheel_clock.pass_by(2 * ServerLimits().head_seconds)
        response = await client.response()
        assert (response.status_code, json.loads(response.body)["error"]["code"]) == (408, "head_timeout")
        assert await client.until_closed() == b""
    await all_closed(served)


@one_loop
async def test_a_head_that_trickles_is_408_all_the_same(serve: Serve, wheel_clock: WheelClock) -> None:
    served = await serve(echo, limits=ServerLimits(linger_seconds=3600))
    async with await served.connect() as client:

        async def trickle() -> None:
            await client.send(b"GET /v1/x HTTP/1.1\r\nHost: a\r\nX: ")
            await has_begun(served)
            while True:
                await client.send(b"x")
                await wheel_clock.pass_by(ServerLimits().head_seconds / 5)

        trickling = asyncio.ensure_future(trickle())
        assert (await client.response()).status_code == 408
        trickling.cancel()


@one_loop
@pytest.mark.parametrize("path", [b"/v1/x", b"/other"])
async def test_an_idle_connection_is_closed_without_a_word(serve: Serve, path: bytes, wheel_clock: WheelClock) -> None:
    served = await serve(echo)
    async with await served.connect() as client:
        await client.send(request(path=path))
        assert (await client.response()).status_code == 200
        await wheel_clock.pass_by(2 * ServerLimits().idle_seconds)
        assert await client.until_closed() == b""
    await all_closed(served)


@one_loop
async def test_a_crowd_leaves_idle_connections_less_time(serve: Serve) -> None:
    """The first stays, being alone; those beyond the crowd go soon."""
    served = await serve(echo, limits=ServerLimits(crowded_connections=1, crowded_idle_seconds=0.1))
    async with await served.connect() as first, await served.connect() as second:
        await second.send(request())
        await second.response()
        assert await second.until_closed() == b""
        await first.send(request())
        assert (await first.response()).status_code == 200


@one_loop
async def test_no_clock_runs_while_a_request_is_answered(serve: Serve, wheel_clock: WheelClock) -> None:
    async def slow(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        for _ in range(3):
            await wheel_clock.pass_by(2 * ServerLimits().idle_seconds)
        await echo(exchange)

    served = await serve(slow)
    async with await served.connect() as client:
        await client.send(request(b"x"))
        assert (await client.response()).status_code == 200


async def test_a_closed_connection_leaves_no_timer_behind(serve: Serve) -> None:
    served = await serve(echo)
    clients = [await served.connect() for _ in range(20)]
    for client in clients:
        await client.send(request() + b"GET /half")
        await client.response()
        await client.close()
    await all_closed(served)
    assert Wheel.of_running_loop().filed == 0


async def test_a_server_that_ends_lets_a_running_answer_finish(serve: Serve) -> None:
    """Idle connections close at once; the one that is busy says that it closes, and does."""
    go_on, arrived = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        arrived.set()
        await go_on.wait()
        await echo(exchange)

    served = await serve(slow)
    async with await served.connect() as idle, await served.connect() as busy:
        await idle.send(request(path=b"/other"))
        await idle.response()
        await busy.send(request(b"x"))
        await arrived.wait()
        ending = asyncio.ensure_future(served.server.shutdown())
        assert await idle.until_closed() == b""
        assert not ending.done()
        go_on.set()
        response = await busy.response()
        assert (response.status_code, response.header(b"connection")) == (200, b"close")
        assert await busy.until_closed() == b""
        await ending


@pytest.mark.parametrize("path", [b"/v1/x", b"/other"])
async def test_a_server_that_ends_answers_who_was_about_to_ask(
    serve: Serve, wheel_clock: WheelClock, path: bytes
) -> None:
    """Their connections were taken before it ended; only who says nothing for a moment is closed."""
    served = await serve(echo)
    asked = request(b"x", path=path)
    async with await served.connect() as begun, await served.connect() as silent, await served.connect() as mute:
        await begun.send(asked[:20])
        async with asyncio.timeout(GUARD_SECONDS):
            while sorted(one._read_clock.owed for one in served.connections) != [Owed.REQUEST, Owed.REQUEST, Owed.HEAD]:
                await asyncio.sleep(0)
        ending = asyncio.ensure_future(served.server.shutdown())
        await asyncio.sleep(0)
        await begun.send(asked[20:])
        await silent.send(asked)
        for client in (begun, silent):
            response = await client.response()
            assert (response.status_code, response.header(b"connection")) == (200, b"close")
            assert await client.until_closed() == b""
        assert not ending.done()
        await wheel_clock.pass_by(2 * ServerLimits().farewell_seconds)
        assert await mute.until_closed() == b""
        await ending


@pytest.mark.parametrize("path", [b"/v1/x", b"/other"])
async def test_a_server_that_will_end_says_so_with_every_answer(serve: Serve, path: bytes) -> None:
    """And goes on listening: who has read `connection: close` meets no connection that is just being closed."""
    served = await serve(echo)
    async with await served.connect() as known:
        await known.send(request(b"x", path=path))
        assert (await known.response()).header(b"connection") is None
        served.ending.has_begun = True
        await known.send(request(b"x", path=path))
        response = await known.response()
        assert (response.status_code, response.header(b"connection")) == (200, b"close")
        assert await known.until_closed() == b""
    async with await served.connect() as new:
        await new.send(request(b"x", path=path))
        response = await new.response()
        assert (response.status_code, response.header(b"connection")) == (200, b"close")


async def test_a_server_that_ends_closes_also_after_an_answer_whose_body_was_still_coming(serve: Serve) -> None:
    served = await serve(echo)
    for path in (b"/v1/x", b"/other"):
        async with await served.connect() as client:
            await client.send(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab" % path)
            async with asyncio.timeout(GUARD_SECONDS):
                while not any(connection._is_answering() for connection in served.connections):
                    await asyncio.sleep(0)
            for connection in served.connections:
                connection.shutdown()
            await client.send(b"cd")
            response = await client.response()
            assert (response.status_code, response.header(b"connection")) == (200, b"close")
            assert await client.until_closed() == b""


async def test_an_answer_that_outlasts_the_grace_is_ended_with_an_error(serve: Serve) -> None:
    arrived = asyncio.Event()

    async def endless(exchange: Exchange) -> None:
        await exchange.read_body(LIMIT_BYTES)
        arrived.set()
        await asyncio.Event().wait()

    served = await serve(endless, timeout_graceful_shutdown=0)
    async with await served.connect() as client:
        await client.send(request(b"x"))
        await arrived.wait()
        await served.server.shutdown()
        response = await client.response()
        assert (response.status_code, response.header(b"connection")) == (503, b"close")
        assert await client.until_closed() == b""


class Alarm:
    """A timed thing that notes when it was asked, and answers from a list."""

    def __init__(self, *answers: float) -> None:
        self.wake_at = NEVER
        self.asked: list[float] = []
        self.answers = list(answers)
        self.done = asyncio.Event()

    def on_tick(self, now: float) -> float:
        self.asked.append(now)
        if self.answers:
            return now + self.answers.pop(0)
        self.done.set()
        return NEVER


async def rung(*alarms: Alarm) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        for alarm in alarms:
            await alarm.done.wait()


async def test_the_wheel_is_never_early_and_asks_again_when_told() -> None:
    wheel = Wheel()
    alarm = Alarm(0.03, 0.1)
    due = wheel.after(0.05)
    wheel.wake_by(alarm, due)
    await rung(alarm)
    assert alarm.asked[0] >= due
    assert alarm.asked[1] - alarm.asked[0] >= 0.03
    assert alarm.asked[2] - alarm.asked[1] >= 0.1
    assert wheel.filed == 0


async def test_the_wheel_moves_a_deadline_forward_only_when_asked_to() -> None:
    wheel = Wheel()
    alarm = Alarm()
    wheel.wake_by(alarm, wheel.after(3600))
    wheel.wake_by(alarm, wheel.after(7200))
    wheel.wake_by(alarm, wheel.after(0))
    assert wheel.filed == 1
    await rung(alarm)
    assert len(alarm.asked) == 1


async def test_the_wheel_forgets_what_is_dropped_also_by_another() -> None:
    wheel = Wheel()
    alarms = [Alarm() for _ in range(3)]

    class Dropping(Alarm):
        @override
        def on_tick(self, now: float) -> float:
            for alarm in alarms:
                wheel.drop(alarm)
            return super().on_tick(now)

    dropping = [Dropping() for _ in range(2)]
    due = wheel.after(0)
    for alarm in [*alarms[:1], *dropping, *alarms[1:]]:
        wheel.wake_by(alarm, due)
    await rung(*dropping)
    assert wheel.filed == 0
    assert sum(len(alarm.asked) for alarm in alarms) <= len(alarms)


async def test_a_defect_of_one_timer_does_not_stop_the_others() -> None:
    wheel = Wheel()

    class Defective(Alarm):
        @override
        def on_tick(self, now: float) -> float:
            raise ZeroDivisionError

    defective, sound = Defective(), Alarm()
    wheel.wake_by(defective, wheel.after(0))
    wheel.wake_by(sound, wheel.after(0.1))
    await rung(sound)
    assert wheel.filed == 0


async def test_a_loop_that_stood_still_reads_before_it_declares_anybody_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a jump of an hour the first tick asks nobody. By a clock that moves only when the wheel looks at it."""
    looks = [1_000.0]

    def look() -> float:
        looks.append(looks[-1] + 0.02)
        return looks[-1]

    monkeypatch.setattr("app.http1.timers.monotonic", look)
    wheel = Wheel()
    ticks: list[float] = []

    class Watching(Alarm):
        @override
        def on_tick(self, now: float) -> float:
            ticks.append(now)
            return super().on_tick(now)

    alarm = Watching()
    wheel.wake_by(alarm, wheel.after(60))
    before = len(looks)
    looks[-1] += 3600.0
    await rung(alarm)
    assert ticks == [looks[before + 1]]
