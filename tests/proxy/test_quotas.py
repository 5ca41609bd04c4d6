"""Limits in front of a real data plane: what is admitted, what a refused caller is told, and what is written down."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from app.domain.limits import Limit
from app.errors import StoreUnavailable
from app.http1.response import headers_of
from app.kit.clock import utc_now
from app.proxy.rate_headers import duration, rate_lines
from app.store import changes
from app.store.tables import PriceRow
from tests.ledger.support import limit, rows, set_limits, until
from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import Gateway, chat, error_of, request
from tests.support.raw_client import RawResponse
from tests.support.raw_server import Carrier
from tests.support.raw_upstream import CHUNKED_HEAD, Peer, RawUpstream, Script, always_answer, chunked, plain, upstream

JSON = b"content-type: application/json\r\n"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
_BUSY_TRIES = 50
_CLEAR = timedelta(seconds=30)
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def carrier() -> Carrier:
    """Metering is above the carriers."""
    return "direct"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine's Postgres may need longer than a caller is made to wait."""
    monkeypatch.setattr("app.ledger.admission.WAIT_SECONDS", 30.0)
    monkeypatch.setattr("app.ledger.leaseholder.SILENCE_SECONDS", 60.0)


@pytest.fixture(autouse=True)
def _well_within_an_hour() -> None:
    """No window but a minute ends within a test: days and months end with an hour."""
    ends = (utc_now() + _CLEAR).replace(minute=0, second=0, microsecond=0)
    time.sleep(max((ends - utc_now()).total_seconds(), 0))


def whole(usage: Any = USAGE) -> Script:
    """Every request of every connection is answered with this usage; none where it is None."""
    members = {"model": "served-model", "choices": [], **({} if usage is None else {"usage": usage})}
    answer = plain(json.dumps(members).encode(), headers=JSON)

    async def script(peer: Peer) -> None:
        await always_answer(peer, answer)

    return script


def chunk(**more: Any) -> bytes:
    delta = {"index": 0, "delta": {"content": "a"}}
    return b"data: %b\n\n" % json.dumps({"model": "served-model", "choices": [delta], **more}).encode()


@asynccontextmanager
async def metered(gateway: Gateway, caller: Caller, script: Script, *own: Limit) -> AsyncIterator[RawUpstream]:
    """A deployment `bot` behind the script, limits in force, and a ledger that counts."""
    async with upstream(script) as server, gateway.counting():
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await set_limits(gateway.registry.store, caller.tenant_id, *own)
        await gateway.follow()
        yield server


async def set_price(gateway: Gateway, **columns: Decimal) -> None:
    """Of the model behind `bot`, since long ago."""
    effective_from = datetime(2026, 1, 1, tzinfo=UTC)
    async with gateway.registry.store.write() as session:
        session.add(
            PriceRow(id="pri_1", currency="USD", model="served-model", effective_from=effective_from, **columns)
        )
        await session.flush()
        await changes.record(session, "price", "pri_1")


async def ask(gateway: Gateway, caller: Caller, *, max_tokens: int = 20, **more: Any) -> RawResponse:
    """One call; again while a busy machine's Postgres needs longer than a call waits for its slice."""
    for _ in range(_BUSY_TRIES):
        answer = await gateway.call(chat("bot", max_tokens=max_tokens, **more), key=caller.key)
        if answer.status_code != 503 or error_of(answer)["code"] != "store_unavailable":
            break
        await asyncio.sleep(0.1)
    return answer


async def records(gateway: Gateway) -> list[dict[str, Any]]:
    """Every usage record, once nothing waits to be written."""
    await until(lambda: _written(gateway))
    found = await rows(gateway.registry.store, "SELECT * FROM usage_records ORDER BY admitted_at, hold_id")
    return [dict(row._mapping) for row in found]


async def _written(gateway: Gateway) -> bool:
    if gateway.ledger.figures().open_holds:
        return False
    await gateway.ledger.flush()
    return gateway.ledger.figures().backlog == 0


def _has_room(gateway: Gateway) -> bool:
    """Whether its slices last for another call: how much they get ahead depends on the pace of those before."""
    return all(one.free >= 2 * one.call for one in gateway.ledger._shelf.slices.values())


async def explained(gateway: Gateway) -> list[Any]:
    await gateway.explaining.flush()
    return await rows(gateway.registry.store, "SELECT * FROM explanations ORDER BY request_id")


def ratelimit(response: RawResponse) -> dict[str, str]:
    found = [(name.decode(), value.decode()) for name, value in response.headers]
    return {name.removeprefix("x-ratelimit-"): value for name, value in found if name.startswith("x-ratelimit-")}


# Refusals, and what is told of limits.


async def test_five_an_hour_are_five_and_the_sixth_is_told_when_to_come_again(gateway: Gateway, caller: Caller) -> None:
    async with metered(gateway, caller, whole(), limit("requests", 5, "hour")) as server:
        answers = [await ask(gateway, caller) for _ in range(6)]
    assert [one.status_code for one in answers] == [200] * 5 + [429]
    assert [ratelimit(one)["remaining-requests"] for one in answers] == ["4", "3", "2", "1", "0", "0"]
    assert {ratelimit(one)["limit-requests"] for one in answers} == {"5"}
    assert all(re.fullmatch(r"(\d+m)?\d+s|1h0m0s|\d+ms", ratelimit(one)["reset-requests"]) for one in answers)
    assert len(server.requests) == 5
    error = error_of(answers[5])
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert re.search(r"requests per hour: limit 5, remaining 0, requested 1\. It resets in \d+ s\.", error["message"])
    wait = int(answers[5].header(b"retry-after") or b"0")
    assert 1 <= wait <= 3600
    assert abs(int(answers[5].header(b"retry-after-ms") or b"0") - wait * 1000) <= 1000
    assert answers[5].header(b"x-should-retry") == (b"false" if wait > 60 else b"true")
    assert gateway.plane.counters.answers["chat_completions", 429] == 1


async def test_a_minute_is_a_rate_limit_and_worth_waiting_for(gateway: Gateway, caller: Caller) -> None:
    async with metered(gateway, caller, whole(), limit("requests", 1, "minute")):
        answers = [await ask(gateway, caller) for _ in range(3)]  # the minute may end between two of them
    refused = next(one for one in answers if one.status_code == 429)
    assert error_of(refused)["code"] == "rate_limit_exceeded"
    assert refused.header(b"x-should-retry") == b"true"
    assert 1 <= int(refused.header(b"retry-after") or b"0") <= 60


@pytest.mark.parametrize("window", ["day", "month", "none"])
async def test_what_a_short_wait_does_not_cure_is_an_exhausted_quota(
    gateway: Gateway, caller: Caller, window: str
) -> None:
    async with metered(gateway, caller, whole(), limit("requests", 1, window)):
        answers = [await ask(gateway, caller) for _ in range(2)]
    assert (answers[1].status_code, error_of(answers[1])["code"]) == (429, "insufficient_quota")
    assert answers[1].header(b"x-should-retry") == b"false"
    assert ("reset-requests" in ratelimit(answers[1])) is (window != "none")
    assert (answers[1].header(b"retry-after") is None) is (window == "none")


async def test_tokens_are_put_aside_for_the_most_and_the_rest_is_free_again(gateway: Gateway, caller: Caller) -> None:
    async with metered(gateway, caller, whole(), limit("tokens", 100, "day")):
        first = await ask(gateway, caller)
        assert (first.status_code, ratelimit(first)["remaining-tokens"]) == (200, "90")
        too_much = await ask(gateway, caller, max_tokens=95)
        assert (too_much.status_code, error_of(too_much)["code"]) == (429, "insufficient_quota")
        assert "tokens per day: limit 100" in error_of(too_much)["message"]
        never = await ask(gateway, caller, max_tokens=10**12)
        assert "ask for fewer tokens" in error_of(never)["message"]
        assert never.header(b"retry-after") is None
        assert (await ask(gateway, caller)).status_code == 200
        (one, other) = await records(gateway)
    assert (one["input_tokens"], one["output_tokens"], one["estimated"]) == (7, 3, False)
    assert other["reserved_output_tokens"] == 20


async def test_a_stream_tells_limits_too_and_gives_its_place_back_before_its_last_event(
    gateway: Gateway, caller: Caller
) -> None:
    events = (chunk(), chunk(), b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":2}}\n\n')

    async def script(peer: Peer) -> None:
        await always_answer(peer, CHUNKED_HEAD + chunked(*events, b"data: [DONE]\n\n"))

    async with metered(gateway, caller, script, limit("concurrency", 1), limit("requests", 100, "day")):
        answers = [await ask(gateway, caller, stream=True) for _ in range(5)]
    assert [one.status_code for one in answers] == [200] * 5
    assert ratelimit(answers[-1])["remaining-requests"] == "95"
    found = await records(gateway)
    assert [(one["input_tokens"], one["output_tokens"], one["outcome"]) for one in found] == [(4, 2, "complete")] * 5
    assert {one["response_bytes"] for one in found} == {len(answers[0].body)}


async def test_only_so_many_at_once(gateway: Gateway, caller: Caller) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await go_on.wait()
        await peer.send(plain(b"{}", headers=JSON))

    async with metered(gateway, caller, script, limit("concurrency", 1)):
        first = asyncio.create_task(ask(gateway, caller))
        await asked.wait()
        second = await ask(gateway, caller)
        go_on.set()
        assert (await first).status_code == 200
        assert (await ask(gateway, caller)).status_code == 200
    assert (second.status_code, error_of(second)["code"]) == (429, "rate_limit_exceeded")
    assert (second.header(b"retry-after"), second.header(b"x-should-retry")) == (b"1", b"true")


async def test_two_hundred_at_once_against_a_budget_of_ten_are_ten(gateway: Gateway, caller: Caller) -> None:
    await set_price(gateway, per_request=Decimal(1))
    async with metered(gateway, caller, whole(), limit("cost", 10 * 10**6, "month")):
        answers = await asyncio.gather(*(ask(gateway, caller) for _ in range(200)))
        found = await records(gateway)
    assert sorted(one.status_code for one in answers) == [200] * 10 + [429] * 190
    assert sum(one["cost"] for one in found) == 10


async def test_nothing_is_told_where_there_are_no_limits_and_never_the_upstreams(
    gateway: Gateway, caller: Caller
) -> None:
    theirs = plain(b"{}", headers=JSON + b"x-ratelimit-limit-requests: 3\r\n")

    async def script(peer: Peer) -> None:
        await always_answer(peer, theirs)

    async with metered(gateway, caller, script):
        assert ratelimit(await ask(gateway, caller)) == {}
        models = await gateway.call(None, key=caller.key, path="/v1/models", method="GET")
    assert (models.status_code, ratelimit(models)) == (200, {})
    assert len(await records(gateway)) == 1


async def test_the_tightest_of_several_limits_is_told(gateway: Gateway, caller: Caller) -> None:
    own = (limit("requests", 1000, "day"), limit("requests", 9, "hour"), limit("tokens", 10**6, "day"))
    async with metered(gateway, caller, whole(), *own):
        found = ratelimit(await ask(gateway, caller))
    assert (found["limit-requests"], found["remaining-requests"]) == ("9", "8")
    assert (found["limit-tokens"], found["remaining-tokens"]) == ("1000000", str(10**6 - 10))


# The SDK.


@asynccontextmanager
async def sdk(gateway: Gateway, caller: Caller, **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{gateway.served.port}/v1", api_key=caller.key, **options
    ) as client:
        yield client


@pytest.mark.parametrize("window", ["day", "none"])
async def test_openai_python_reads_the_code_and_does_not_try_again_in_vain(
    gateway: Gateway, caller: Caller, window: str
) -> None:
    async with metered(gateway, caller, whole(), limit("requests", 1, window)), sdk(gateway, caller) as client:
        await client.chat.completions.create(model="bot", messages=HELLO)
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model="bot", messages=HELLO)
    assert refused.value.code == "insufficient_quota"
    assert gateway.plane.counters.answers["chat_completions", 429] == 1


async def test_openai_python_waits_as_it_is_told_and_goes_on(gateway: Gateway, caller: Caller) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await go_on.wait()
        await peer.send(plain(b'{"choices":[]}', headers=JSON))

    patient = sdk(gateway, caller, max_retries=10)
    async with metered(gateway, caller, script, limit("concurrency", 1)), patient as client:
        first = asyncio.create_task(ask(gateway, caller))
        await asked.wait()
        second = asyncio.create_task(client.chat.completions.create(model="bot", messages=HELLO))
        await until(lambda: _refused(gateway))
        go_on.set()
        await second
        assert (await first).status_code == 200


async def _refused(gateway: Gateway) -> bool:
    return gateway.plane.counters.answers["chat_completions", 429] >= 1


# What is written down.


@pytest.mark.parametrize(
    ("usage", "counts", "estimated"),
    [
        ({"prompt_tokens": -5, "completion_tokens": 3}, (None, 3), True),
        ({"prompt_tokens": 10**12, "completion_tokens": 3}, (None, 3), True),
        ({"prompt_tokens": "7", "completion_tokens": 3}, (None, 3), True),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (0, 0), False),
        ("lots", (None, 0), True),
        (None, (None, 0), True),
    ],
    ids=["negative", "huge", "text", "zero", "no object", "missing"],
)
async def test_usage_that_cannot_be_is_estimated_and_zero_is_zero(
    gateway: Gateway, caller: Caller, usage: Any, counts: tuple[int | None, int], estimated: bool
) -> None:
    async with metered(gateway, caller, whole(usage)):
        assert (await ask(gateway, caller)).status_code == 200
        (one,) = await records(gateway)
    expected = one["reserved_input_tokens"] if counts[0] is None else counts[0]
    assert (one["input_tokens"], one["charged_output_tokens"], one["estimated"]) == (expected, counts[1], estimated)
    assert one["reserved_input_tokens"] > 0
    assert one["marks"] == (["usage_implausible"] if estimated and usage is not None else [])


async def test_a_stream_whose_counts_cannot_be_is_charged_its_events_and_marked(
    gateway: Gateway, caller: Caller
) -> None:
    async def script(peer: Peer) -> None:
        wrong = chunk(usage={"prompt_tokens": 4, "completion_tokens": -1})
        await always_answer(peer, CHUNKED_HEAD + chunked(chunk(), wrong, b"data: [DONE]\n\n"))

    async with metered(gateway, caller, script):
        assert (await ask(gateway, caller, stream=True)).status_code == 200
        (one,) = await records(gateway)
    assert (one["input_tokens"], one["output_tokens"], one["estimated"]) == (4, 2, True)
    assert one["marks"] == ["usage_implausible"]


async def test_usage_that_is_given_twice_counts_once_and_the_last_stands(gateway: Gateway, caller: Caller) -> None:
    first, last = {"prompt_tokens": 4, "completion_tokens": 1}, {"prompt_tokens": 4, "completion_tokens": 2}

    async def script(peer: Peer) -> None:
        events = (chunk(usage=first), chunk(usage=last), b"data: [DONE]\n\n")
        await always_answer(peer, CHUNKED_HEAD + chunked(*events))

    async with metered(gateway, caller, script):
        assert (await ask(gateway, caller, stream=True)).status_code == 200
        (one,) = await records(gateway)
    assert (one["input_tokens"], one["output_tokens"], one["estimated"]) == (4, 2, False)


async def test_a_stream_that_is_left_half_way_is_charged_what_was_passed_on(gateway: Gateway, caller: Caller) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED_HEAD, *(b"%x\r\n%b\r\n" % (len(chunk()), chunk()) for _ in range(5)))
        await peer.until_dropped()

    async with metered(gateway, caller, script, limit("tokens", 10**6, "day"), limit("concurrency", 1)):
        async with await gateway.connect() as client:
            await client.send(request(chat("bot", stream=True, max_tokens=50), key=caller.key))
            await client.head()
            received = b""
            while received.count(b"data: ") < 5:
                received += await client.read_exactly(1)
        (one,) = await records(gateway)
    assert (one["outcome"], one["status_code"]) == ("client_left", 200)
    assert (one["output_tokens"], one["input_tokens"]) == (5, one["reserved_input_tokens"])
    assert one["estimated"]
    used = await rows(gateway.registry.store, "SELECT sum(used) FROM limit_counters WHERE used > 0")
    assert used[0][0] == 5 + one["reserved_input_tokens"]


@pytest.mark.parametrize(
    ("answer", "outcome", "status_code"),
    [
        (plain(b"{}", status=b"400 Bad Request"), "upstream_failed_before_content", 400),
        (plain(b"<html>", headers=JSON), "upstream_failed_before_content", 502),
        (CHUNKED_HEAD + b"%x\r\n%b\r\n" % (len(chunk()), chunk()), "upstream_failed_after_content", 200),
    ],
    ids=["refused", "nonsense", "cut"],
)
async def test_failures_are_recorded_once_and_charged_by_what_came(
    gateway: Gateway, caller: Caller, answer: bytes, outcome: str, status_code: int
) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(answer)
        peer.finish()

    async with metered(gateway, caller, script, limit("requests", 100, "day")):
        await ask(gateway, caller, stream=status_code == 200)
        (one,) = await records(gateway)
    assert (one["outcome"], one["status_code"]) == (outcome, status_code)
    after = outcome == "upstream_failed_after_content"
    assert (one["charged_requests"], one["charged_output_tokens"]) == ((1, 1) if after else (0, 0))


async def test_what_asks_for_too_many_tokens_is_marked(gateway: Gateway, caller: Caller) -> None:
    async with metered(gateway, caller, whole()):
        for most in (None, 0, -1, 10**12, "many"):
            await gateway.call(chat("bot", max_tokens=most), key=caller.key)
        found = await records(gateway)
    reserved = [one["reserved_output_tokens"] for one in found]
    assert reserved == [8192, 0, 8192, 131_072, 8192]
    assert [one["marks"] == ["max_tokens_clamped"] for one in found] == [False, False, True, True, True]


async def test_a_call_that_moves_before_anything_was_sent_is_counted_for_who_answers(
    gateway: Gateway, caller: Caller
) -> None:
    async with upstream(whole()) as server, gateway.counting():
        registry = gateway.registry
        down = await registry.deployment(caller.tenant_id, "down", "http://127.0.0.1:9/v1")
        up = await registry.deployment(caller.tenant_id, "up", base_url(server))
        await registry.route(caller.tenant_id, "bot", [down, up], priorities=[0, 1])
        await set_limits(registry.store, caller.tenant_id, limit("requests", 10, "day"))
        await gateway.follow()
        assert (await ask(gateway, caller)).status_code == 200
        (one,) = await records(gateway)
    assert (one["deployment_id"], one["attempts"], one["route"]) == (up, 2, "bot")
    used = await rows(gateway.registry.store, "SELECT used FROM limit_counters")
    assert [row.used for row in used] == [1]


# The store, and statements.


async def test_a_warm_call_with_limits_makes_no_statement_of_its_own(gateway: Gateway, caller: Caller) -> None:
    statements: list[str] = []
    own = (limit("requests", 10**6, "day"), limit("tokens", 10**9, "month"))
    async with upstream(whole()) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await set_limits(gateway.registry.store, caller.tenant_id, *own)
        await gateway.follow()
        async with gateway.counting():
            for _ in range(50):
                await ask(gateway, caller)
            while not _has_room(gateway):
                await ask(gateway, caller)
            await until(lambda: _written(gateway))
        under_way = gateway.ledger._holder._transaction  # which the end of the loops does not cut
        if under_way is not None:
            await asyncio.wait([under_way])
        engine = gateway.registry.store.engine.sync_engine
        event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
        answer = await ask(gateway, caller)
        assert (answer.status_code, statements) == (200, [])
        assert "remaining-requests" in ratelimit(answer)


@pytest.mark.parametrize("policy", ["closed", "open"])
async def test_without_the_store_a_limited_tenant_is_refused_or_goes_on_unmetered(
    gateway: Gateway, caller: Caller, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_id = await gateway.registry.tenant(on_store_loss=policy)
    other = Caller(tenant_id, (made := await gateway.registry.key(tenant_id)).text, made.id)

    async def unanswered() -> bool:
        raise StoreUnavailable("The database does not answer.")

    monkeypatch.setattr(gateway.ledger._holder, "renew", unanswered)
    async with metered(gateway, other, whole(), limit("requests", 100, "day")):
        gateway.ledger._holder.safe_until = 0.0  # as when no renewal has been answered for a lease's time
        answer = await gateway.call(chat("bot"), key=other.key)
    metrics = gateway.plane.metrics.snapshot().counters
    if policy == "open":
        assert (answer.status_code, answer.header(b"x-modelport-unmetered")) == (200, b"true")
        assert metrics["modelport_unmetered_calls_total"] == 1
    else:
        assert (answer.status_code, error_of(answer)["code"]) == (503, "store_unavailable")
        assert answer.header(b"retry-after") == b"2"
        assert metrics['modelport_quota_refusals_total{reason="store"}'] == 1


# Explanations.


async def test_a_refusal_is_explained_by_the_limit_that_bit(gateway: Gateway, caller: Caller) -> None:
    own = (limit("requests", 1, "day"), limit("tokens", 10**6, "day"))
    async with metered(gateway, caller, whole(), *own):
        answers = [await ask(gateway, caller) for _ in range(2)]
        sampled, refused = await explained(gateway)
    assert (sampled.reason, refused.reason) == ("sampled", "refused")
    assert refused.request_id == (answers[1].header(b"x-request-id") or b"").decode()
    detail = refused.detail
    assert (detail["outcome"], detail["status_code"], detail["error_code"]) == ("refused", 429, "insufficient_quota")
    bit = {one["id"]: (one["bit"], one["remaining"]) for one in detail["limits"]}
    assert bit == {own[0].id: (True, 0), own[1].id: (False, 10**6 - 10)}
    assert (detail["settlement"], detail["attempts"]) == (None, [])
    assert [(one["taken"], one["why"]) for one in detail["candidates"]] == [(True, "chosen")]


async def test_a_retried_call_is_explained_with_its_attempts_and_its_sum(gateway: Gateway, caller: Caller) -> None:
    async def broken(peer: Peer) -> None:
        await always_answer(peer, plain(b"{}", status=b"503 Busy", headers=b"x-request-id: up-1\r\n"))

    await set_price(gateway, input_per_million=Decimal("0.5"), output_per_million=Decimal(2))
    async with upstream(broken) as failing, upstream(whole()) as server, gateway.counting():
        registry = gateway.registry
        first = await registry.deployment(caller.tenant_id, "first", base_url(failing))
        second = await registry.deployment(caller.tenant_id, "second", base_url(server))
        await registry.route(caller.tenant_id, "bot", [first, second], priorities=[0, 1])
        await gateway.follow()
        assert (await ask(gateway, caller)).status_code == 200
        (one,) = await explained(gateway)
        (record,) = await records(gateway)
    detail = one.detail
    assert one.reason == "retried"
    assert [(tried["deployment_id"], tried["status_code"]) for tried in detail["attempts"]] == [
        (first, 503),
        (second, 200),
    ]
    assert detail["attempts"][0]["upstream_request_id"] == "up-1"
    assert [(tried["why"], tried["taken"]) for tried in detail["candidates"]] == [
        ("tried before", False),
        ("chosen", True),
    ]
    settlement = detail["settlement"]
    assert settlement["arithmetic"] == "7 in x 0.5 + 3 out x 2 per million"
    assert (settlement["rule"], settlement["cost"], settlement["currency"]) == ("reported", "0.0000095", "USD")
    assert record["cost"] == Decimal("0.0000095")
    assert (record["deployment_id"], record["attempts"]) == (second, 2)


async def test_a_call_that_nobody_answered_is_explained(gateway: Gateway, caller: Caller) -> None:
    await gateway.registry.deployment(caller.tenant_id, "bot", "http://127.0.0.1:9/v1")
    await gateway.follow()
    assert (await ask(gateway, caller)).status_code == 502
    (one,) = await explained(gateway)
    assert one.reason == "failed"
    assert [tried["error_code"] for tried in one.detail["attempts"]] == ["upstream_unreachable"] * 2
    assert one.detail["settlement"]["rule"] == "nothing"


# Durations.


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.1199, "120ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (3600, "1h0m0s"), (86399.5, "24h0m0s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text.encode()


@given(st.floats(min_value=0, max_value=10**7))
def test_a_duration_is_never_shorter_than_the_wait(seconds: float) -> None:
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m(?=\d))?(?:(\d+)s)?(?:(\d+)ms)?", duration(seconds).decode())
    assert found is not None
    hours, minutes, whole_seconds, milliseconds = (int(one or 0) for one in found.groups())
    told = hours * 3600 + minutes * 60 + whole_seconds + milliseconds / 1000
    assert seconds <= told + 1e-9 <= seconds + 1.001


def test_a_limit_is_told_in_three_lines_and_in_two_where_it_never_begins_again() -> None:
    assert headers_of(rate_lines((100, 4, 61.2), (10**6, 50_000, None))) == [
        (b"x-ratelimit-limit-requests", b"100"),
        (b"x-ratelimit-remaining-requests", b"4"),
        (b"x-ratelimit-reset-requests", b"1m2s"),
        (b"x-ratelimit-limit-tokens", b"1000000"),
        (b"x-ratelimit-remaining-tokens", b"50000"),
    ]
