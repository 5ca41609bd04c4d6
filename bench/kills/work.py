"""What people do meanwhile: they create, change and delete deployments, and look after what is unknown."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from typing import Any

import httpx

from bench.kills.modes import Mode
from tests.support.gateway import ADMIN_KEY

Deployment = dict[str, Any]
CHANGING = frozenset({"pending", "deploying", "updating", "stopping", "deleting"})
_LIVING = 7
_LEFT_UNKNOWN = 60
_PATIENCE_SECONDS = 120.0
_AGAIN = frozenset({"idempotency_in_progress"})


class Api:
    """Whichever process answers. A POST is repeated with its key, so that an answer which was lost comes again."""

    def __init__(self, urls: list[str], dice: random.Random) -> None:
        self._urls, self._dice = urls, dice
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        self._client = httpx.AsyncClient(headers=headers, timeout=10, trust_env=False)
        self.defects: Counter[str] = Counter()

    async def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = {"idempotency-key": uuid.uuid4().hex} if method == "POST" else {}
        end, last = asyncio.get_running_loop().time() + _PATIENCE_SECONDS, ""
        while asyncio.get_running_loop().time() < end:
            try:
                url = f"{self._dice.choice(self._urls)}/api/v1{path}"
                answer = await self._client.request(method, url, json=body, headers=headers)
            except httpx.TransportError as away:
                last = repr(away)
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 500:
                self.defects[f"{method} {path.partition('?')[0]}: {answer.text[:200]}"] += 1
            if answer.status_code != 503 and _code(answer) not in _AGAIN:
                return answer
            last = answer.text
            await asyncio.sleep(0.1)
        raise RuntimeError(f"no gateway took {method} {path} for {_PATIENCE_SECONDS:g} s; the last one said: {last}")

    async def made(self, path: str, body: Any) -> str:
        """The id of something new. Raises RuntimeError when it is refused."""
        answer = await self.call("POST", path, body)
        if answer.status_code != 201:
            raise RuntimeError(f"POST {path}: {answer.status_code} {answer.text}")
        identifier: str = answer.json()["id"]
        return identifier

    async def all(self, path: str) -> list[dict[str, Any]]:
        """Every page of a list."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            mark = "&" if "?" in path else "?"
            page = (await self.call("GET", f"{path}{mark}page_size=100{token}")).json()
            found += page["data"]
            if page["next_page_token"] is None:
                return found
            token = f"&page_token={page['next_page_token']}"

    async def aclose(self) -> None:
        await self._client.aclose()


class Work:
    """On one account. `asked` counts the wishes that were taken, by verb."""

    def __init__(self, api: Api, mode: Mode, tenant_id: str, dice: random.Random, asked: Counter[str]) -> None:
        self._api, self._mode, self._tenant_id, self._dice, self._asked = api, mode, tenant_id, dice, asked
        self._number = 0

    async def go_on(self) -> None:
        """For ever."""
        while True:
            shown = await self._api.all("/deployments")
            await self._step([one for one in shown if one["connection"] == self._mode.slug])
            await asyncio.sleep(self._dice.uniform(0, 0.1))

    async def _step(self, mine: list[Deployment]) -> None:
        unknown = [one for one in mine if one["status"] == "unknown"]
        living = [one for one in mine if one["status"] != "unknown"]
        if unknown and self._mode.proves_absence and self._dice.random() < 0.5:
            await self._look_after(self._dice.choice(unknown))
        elif len(living) < _LIVING and len(unknown) < _LEFT_UNKNOWN and self._dice.random() < 0.7:
            await self._create()
        elif living:
            await self._change(self._dice.choice(living))

    async def _create(self) -> None:
        self._number += 1
        mode = self._mode
        name = f"{mode.slug}-{self._number}"
        wish = {"name": name, "connection": mode.slug, "tenant_id": self._tenant_id, **mode.body(name)}
        self._count("create", await self._api.call("POST", "/deployments", wish))

    async def _look_after(self, one: Deployment) -> None:
        """A person who sees nothing on the account says so, or forgets what was to be deleted anyway; what is there
        is left to be found by the verdict."""
        if one["name"] in self._mode.billed().values():
            return
        path = f"/deployments/{one['id']}"
        said = {"outcome": "absent", "retry": self._dice.random() < 0.5}
        answer = await self._api.call("POST", f"{path}/resolve", said)
        self._count("resolve", answer)
        if _code(answer) == "nothing_to_resolve" and one["name"] not in self._mode.billed().values():
            self._count("abandon", await self._api.call("DELETE", f"{path}?abandon=true"))

    async def _change(self, one: Deployment) -> None:
        mode = self._mode
        verb = self._dice.choice(self._verbs(one["status"]))
        path = f"/deployments/{one['id']}"
        if verb == "delete":
            self._count(verb, await self._api.call("DELETE", path))
        elif verb == "scale" and mode.capacity is not None:
            wish = {"capacity": mode.capacity(self._dice)}
            self._count(verb, await self._api.call("POST", f"{path}/scale", wish))
        elif verb in mode.verbs:
            self._count(verb, await self._api.call("POST", f"{path}/{verb}", {}))

    def _verbs(self, status: str) -> tuple[str, ...]:
        if status == "running":
            return ("scale", "scale", "stop", "restart", "delete", "delete", "rest")
        if status in {"stopped", "failed"}:
            return ("start", "start", "delete")
        return ("delete", "scale", "rest", "rest", "rest", "rest")

    def _count(self, verb: str, answer: httpx.Response) -> None:
        if answer.status_code < 300:
            self._asked[verb] += 1
        elif answer.status_code not in {404, 409}:
            self._api.defects[f"{verb}: {answer.status_code} {answer.text[:300]}"] += 1


def _code(answer: httpx.Response) -> str | None:
    if answer.status_code < 400:
        return None
    try:
        code: str | None = answer.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return code
