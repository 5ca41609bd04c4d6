"""The emulator refuses what the platform would: otherwise a test over it would prove nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.kit.http import VendorResponse
from app.providers._alibaba.acs3 import AccessKey, Action, signed_headers
from tests.emulators.pai import Forward
from tests.support.pai import NAME, OWN, Cloud, timed_platform

LIST = "/api/v2/services"


def signed(cloud: Cloud, body: bytes | None = None, *, method: str = "GET", **more: Any) -> dict[str, str]:
    key = AccessKey(cloud.account.access_key_id, cloud.account.access_key_secret)
    action = Action("CreateService" if body else "ListServices", "2021-07-01")
    url = f"http://{cloud.authority}{LIST}"
    return signed_headers(key, action, method=method, url=url, query={}, body=body, **more)


async def send(
    cloud: Cloud, headers: dict[str, str], body: bytes | None = None, *, method: str = "GET", path: str = LIST
) -> VendorResponse:
    url = f"http://{cloud.authority}{path}"
    return await cloud.opened.http.request(method, url, headers=headers, body=body)


async def test_a_nonce_is_taken_once() -> None:
    async with timed_platform() as cloud:
        headers = signed(cloud)
        first, second = await send(cloud, headers), await send(cloud, headers)
    assert first.status_code == 200
    assert (second.status_code, second.json()["Code"]) == (400, "SignatureNonceUsed")


@pytest.mark.parametrize("body", [b'{"a":2}', b""])
async def test_a_body_that_was_not_signed_is_refused(body: bytes) -> None:
    async with timed_platform() as cloud:
        refused = await send(cloud, signed(cloud, b'{"a":1}', method="POST"), body, method="POST")
    assert (refused.status_code, refused.json()["Code"]) == (400, "SignatureDoesNotMatch")


@pytest.mark.parametrize("query", ["?PageSize=1", "?a"])
async def test_a_query_that_was_not_signed_is_refused(query: str) -> None:
    async with timed_platform() as cloud:
        refused = await send(cloud, signed(cloud), path=LIST + query)
    assert refused.json()["Code"] == "SignatureDoesNotMatch"


async def test_a_header_that_must_be_signed_cannot_be_added_later() -> None:
    async with timed_platform() as cloud:
        refused = await send(cloud, {**signed(cloud), "x-acs-something": "1"})
    assert refused.json()["Code"] == "IncompleteSignature"


async def test_a_request_without_a_signature_is_refused() -> None:
    async with timed_platform() as cloud:
        assert (await send(cloud, {})).json()["Code"] == "IncompleteSignature"


@pytest.mark.parametrize(("token", "status"), [("{}", 200), ("Bearer {}", 200), ("EAS {}", 401), ("FAKEother", 401)])
async def test_the_gateway_takes_the_token_alone_or_as_a_bearer(token: str, status: int) -> None:
    async with timed_platform() as cloud:
        await cloud.created()
        held = cloud.account.held[0]
        headers = {"authorization": token.format(held.token)}
        answered = await send(cloud, headers, path=f"/api/predict/{NAME}/v1/models")
    assert answered.status_code == status


async def test_a_chat_may_be_answered_by_a_real_server() -> None:
    """Here another emulated service plays the real one."""
    async with timed_platform() as behind:
        await behind.created(OWN)
        url = f"http://{behind.authority}/api/predict/{NAME}/v1"
        forward = Forward(url, "/model", behind.account.held[0].token)
        async with timed_platform(forward=forward) as front:
            await front.created()
            body = json.dumps({"model": "Qwen3-8B", "messages": []}).encode()
            headers = {"authorization": front.account.held[0].token}
            path = f"/api/predict/{NAME}/v1/chat/completions"
            answered = await send(front, headers, body, method="POST", path=path)
    assert answered.status_code == 200
    assert answered.json()["model"] == "/model"
