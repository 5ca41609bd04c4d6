"""A real model server behind an emulated service: the answer is its own, only the model's name differs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
from starlette.responses import Response, StreamingResponse


@dataclass(frozen=True)
class Forward:
    """A real OpenAI-compatible server: base URL up to `/v1`, its model's name, and its key where it wants one."""

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)


async def forwarded(to: Forward, body: dict[str, Any]) -> Response | None:
    """The real server's answer to a chat, part by part as it comes; None when it does not answer."""
    client = httpx2.AsyncClient(timeout=120, trust_env=False)
    headers = {"authorization": f"Bearer {to.api_key}"} if to.api_key else {}
    url = f"{to.base_url}/chat/completions"
    request = client.build_request("POST", url, json={**body, "model": to.model}, headers=headers)
    try:
        answer = await client.send(request, stream=True)
    except httpx2.HTTPError:
        await client.aclose()
        return None

    async def parts() -> AsyncIterator[bytes]:
        try:
            async for part in answer.aiter_bytes():
                yield part
        finally:
            await answer.aclose()
            await client.aclose()

    kind = answer.headers.get("content-type", "application/json")
    return StreamingResponse(parts(), answer.status_code, headers={"content-type": kind})
