"""Calls that reach no upstream: who is refused, with what, and how soon."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from app.kit.secrets import new_api_key
from app.store.tables import TenantRow
from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import ADMIN_KEY, CHAT, Gateway, chat, error_of, request
from tests.support.raw_client import RawResponse
from tests.support.raw_server import Carrier
from tests.support.raw_upstream import plain, upstream


@pytest.fixture
def carrier() -> Carrier:
    """What is refused does not depend on the carrier; that it is sent properly is shown in `test_chat`."""
    return "direct"


def told(response: RawResponse) -> tuple[int, str | None, str | None]:
    error = error_of(response)
    assert response.header(b"x-request-id")
    assert response.header(b"cache-control") == b"no-store"
    return response.status_code, error["code"], error["param"]


async def test_every_bad_key_gets_the_same_401(gateway: Gateway, caller: Caller) -> None:
    expired = await gateway.registry.key(caller.tenant_id, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    revoked = await gateway.registry.key(caller.tenant_id, revoked_at=datetime.now(UTC))
    await gateway.follow()
    forged = new_api_key().text
    keys = [None, "", "junk", "sk-abc", caller.key[:-1], caller.key + "x", forged, expired.text, revoked.text, "mp_ü"]
    answers = [await gateway.call(chat("bot"), key=key) for key in keys]
    assert {told(answer) for answer in answers} == {(401, "invalid_api_key", None)}
    assert {error_of(answer)["message"] for answer in answers} == {error_of(answers[0])["message"]}
    assert all(answer.header(b"www-authenticate") == b"Bearer" for answer in answers)


async def test_a_known_public_id_with_another_secret_is_refused(gateway: Gateway, caller: Caller) -> None:
    other = new_api_key().text
    mixed = caller.key[:15] + other[15:]
    assert (await gateway.call(chat("bot"), key=mixed)).status_code == 401


async def test_a_bad_key_is_refused_before_the_body_has_come(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await client.send(request(b"x" * 5_000_000, key="junk")[:200])
        assert (await client.response()).status_code == 401


async def test_a_key_that_cannot_be_verified_is_503_and_never_401(gateway: Gateway, caller: Caller) -> None:
    gateway.follower._read_at -= 31
    for key in (caller.key, "junk", None):
        response = await gateway.call(chat("bot"), key=key)
        assert told(response) == (503, "store_unavailable", None)
        assert response.header(b"retry-after")
    await gateway.follow()
    assert (await gateway.call(chat("bot"), key=caller.key)).status_code == 404


@pytest.mark.parametrize(
    ("scopes", "message"), [(["read", "write"], "inference"), (["admin"], "inference"), ([], "inference")]
)
async def test_a_key_without_the_scope_is_refused(
    gateway: Gateway, caller: Caller, scopes: list[str], message: str
) -> None:
    made = await gateway.registry.key(caller.tenant_id, scopes=scopes)
    await gateway.follow()
    response = await gateway.call(chat("bot"), key=made.text)
    assert told(response) == (403, "permission_denied", None)
    assert message in error_of(response)["message"]


async def test_the_platforms_keys_have_no_tenant_to_bill(gateway: Gateway) -> None:
    made = await gateway.registry.key(None, scopes=["admin", "inference"])
    await gateway.follow()
    for key in (ADMIN_KEY, made.text):
        for path, method in ((CHAT, "POST"), ("/v1/models", "GET")):
            response = await gateway.call(chat("bot") if method == "POST" else None, key=key, path=path, method=method)
            assert told(response) == (403, "permission_denied", None)
            assert "tenant's key" in error_of(response)["message"]


async def test_a_suspended_tenant_is_told_so(gateway: Gateway, caller: Caller) -> None:
    await gateway.registry.change(TenantRow, caller.tenant_id, suspended=True)
    await gateway.follow()
    assert told(await gateway.call(chat("bot"), key=caller.key)) == (403, "tenant_suspended", None)


async def test_a_key_calls_only_the_models_it_was_made_for(gateway: Gateway, caller: Caller) -> None:
    made = await gateway.registry.key(caller.tenant_id, models=["bot"])
    async with upstream(lambda peer: peer.answer(plain(b"{}"))) as server:
        for name in ("bot", "other"):
            await gateway.registry.deployment(caller.tenant_id, name, base_url(server))
        await gateway.follow()
        assert (await gateway.call(chat("bot"), key=made.text)).status_code == 200
        response = await gateway.call(chat("other"), key=made.text)
    assert told(response) == (403, "permission_denied", "model")
    assert "'other'" in error_of(response)["message"]


async def test_an_unknown_model_and_another_tenants_get_the_same_404(gateway: Gateway, caller: Caller) -> None:
    stranger = await gateway.registry.tenant()
    await gateway.registry.deployment(stranger, "theirs", "http://127.0.0.1:9/v1")
    await gateway.registry.route(stranger, "theirs-too", [], shared_with=[stranger])
    await gateway.follow()
    for name in ("nobodys", "theirs", "theirs-too", "theirs:lora"):
        response = await gateway.call(chat(name), key=caller.key)
        assert told(response) == (404, "model_not_found", "model")
        assert error_of(response)["message"].replace(name, "…") == error_of(
            await gateway.call(chat("…"), key=caller.key)
        )["message"]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "word", "again"),
    [
        ({"status": "pending"}, "pending", b"true"),
        ({"status": "deploying"}, "deploying", b"true"),
        ({"status": "stopping"}, "stopping", b"true"),
        ({"status": "stopped"}, "stopped", b"false"),
        ({"status": "failed"}, "failed", b"false"),
        ({"status": "unknown"}, "unknown", b"true"),
        ({"status": "running", "draining_since": datetime.now(UTC)}, "stopping", b"true"),
        ({"status": "running", "base_url": None}, "address", b"true"),
        ({"status": "running", "base_url": "ftp://nowhere"}, "address", b"true"),
    ],
)
async def test_a_deployment_that_is_not_running_is_503_with_its_status(
    gateway: Gateway, caller: Caller, row: dict[str, object], word: str, again: bytes
) -> None:
    columns = {"base_url": "http://127.0.0.1:9/v1", **row}
    await gateway.registry.deployment(caller.tenant_id, "bot", **columns)  # type: ignore[arg-type]
    await gateway.follow()
    response = await gateway.call(chat("bot"), key=caller.key)
    assert told(response) == (503, "deployment_not_running", None)
    assert word in error_of(response)["message"]
    assert response.header(b"x-should-retry") == again
    assert int(response.header(b"retry-after") or b"") > 0


async def test_unknown_paths_and_methods_are_refused_in_the_one_shape(gateway: Gateway, caller: Caller) -> None:
    for path in ("/v1", "/v1/", "/v1/nothing", "/v1/chat/completions/", "/v1/models/", "/v1/%2e%2e/chat"):
        response = await gateway.call({}, key=caller.key, path=path)
        assert told(response) == (404, "not_found", None)
        assert CHAT in error_of(response)["message"]
    for path, method, allowed in (
        (CHAT, "GET", b"POST"),
        ("/v1/models", "POST", b"GET"),
        ("/v1/models/a", "PUT", b"GET"),
    ):
        response = await gateway.call(None, key=caller.key, path=path, method=method)
        assert told(response) == (405, "method_not_allowed", None)
        assert response.header(b"allow") == allowed
        assert (await gateway.call(None, key=None, path=path, method=method)).status_code == 401
    assert (await gateway.call({}, key=None, path="/v1/nothing")).status_code == 401


async def test_what_is_not_under_v1_is_not_the_data_planes(gateway: Gateway) -> None:
    assert [gateway.plane.dispatch("GET", path) for path in ("/", "/v11/models", "/api/v1/me")] == [None] * 3


BODIES = {
    "empty": b"",
    "white space": b"  ",
    "no JSON": b"hello",
    "cut off": b'{"model":"bot"',
    "trailing": b'{"model":"bot"} x',
    "BOM": b'\xef\xbb\xbf{"model":"bot"}',
    "UTF-16": '{"model":"bot"}'.encode("utf-16"),
    "not UTF-8": b'{"model":"bot","x":"\xff"}',
    "NaN": b'{"model":"bot","x":NaN}',
    "infinite": b'{"model":"bot","x":1e999}',
    "5000 digits": b'{"model":"bot","x":' + b"9" * 5000 + b"}",
    "lone surrogate": b'{"model":"bot","x":"\\ud800"}',
    "NUL byte": b'{"model":"bot","x":"\x00"}',
    "NUL in the model": b'{"model":"b\\u0000t"}',
    "65 deep": b'{"model":"bot","x":' + b"[" * 64 + b"]" * 64 + b"}",
    "100000 deep": b'{"model":"bot","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "list": b'["model"]',
    "string": b'"bot"',
    "null": b"null",
    "no model": b"{}",
    "model null": b'{"model":null}',
    "model number": b'{"model":5}',
    "model empty": b'{"model":""}',
    "model object": b'{"model":{}}',
    "stream text": b'{"model":"bot","stream":"true"}',
    "stream number": b'{"model":"bot","stream":1}',
}


async def test_every_body_that_is_not_a_call_is_400(gateway: Gateway, caller: Caller) -> None:
    for what, body in BODIES.items():
        response = await gateway.call(body, key=caller.key)
        assert response.status_code == 400, what
        error = error_of(response)
        assert error["type"] == "invalid_request_error", what
        assert error["param"] == ("stream" if "stream" in what else "model" if "model" in what else None), what


async def test_a_call_as_deep_as_allowed_and_with_an_escaped_nul_in_its_text_goes_through(
    gateway: Gateway, caller: Caller
) -> None:
    async with upstream(lambda peer: peer.answer(plain(b"{}"))) as server:
        await gateway.registry.deployment(caller.tenant_id, "bot", base_url(server))
        await gateway.follow()
        body = b'{"model":"bot","y":"\\u0000","x":' + b"[" * 63 + b"]" * 63 + b"}"
        assert (await gateway.call(body, key=caller.key)).status_code == 200
        assert body[14:-1] in server.requests[0]


async def test_the_media_type_must_be_json_where_there_is_one(gateway: Gateway, caller: Caller) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert told(await gateway.call(chat("x"), key=caller.key, headers=form))[0] == 415
    packed = {"content-encoding": "gzip"}
    assert told(await gateway.call(chat("x"), key=caller.key, headers=packed))[0] == 415
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"):
        response = await gateway.call(chat("x"), key=caller.key, headers={"content-type": kind})
        assert response.status_code == 404


async def test_a_body_over_the_limit_is_413_without_being_read(gateway: Gateway, caller: Caller) -> None:
    async with await gateway.connect() as client:
        head = request(None, key=caller.key, headers={"content-length": str(33 << 20)})
        await client.send(head)
        assert told(await client.response())[0] == 413


async def test_the_error_body_is_json_of_the_one_shape(gateway: Gateway, caller: Caller) -> None:
    response = await gateway.call(chat("nope"), key=caller.key)
    assert json.loads(response.body).keys() == {"error"}
    assert json.loads(response.body)["error"].keys() == {"message", "type", "code", "param"}
