"""AlayaNeW's HTTP API, one method for each documented call (docs.alayanew.com, read 2025-07).

Bodies are made in `request.py`. Every call carries the content type of the vendor's own examples,
also where it has no body.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from app.domain.connection import Connection
from app.providers.base import OpenConnection
from app.providers.client import INVALID_ANSWER, PlatformClient
from app.providers.errors import ProviderRefused
from app.providers.platforms.alayanew.config import AlayaNewCredentials, AlayaNewSettings
from app.providers.platforms.alayanew.envelope import Page, judge, read_object, read_page, text
from app.providers.platforms.alayanew.plans import Plan

TITLE = "AlayaNeW"
PAGE_SIZE = 100
_PAGES_LIMIT = 100
_CREATE_SECONDS = 25.0
_SERVICES = "/api/serverless-infer/v1/deployment"
_MODELS = "/api/model/v1/list"
_DATA_CENTRES = "/api/aidc/v1/list"
_BELOW: Mapping[Plan, str] = {Plan.QUICK_START: "", Plan.EXPERT: "/expert", Plan.LORA: "/lora"}


def settings_of(connection: Connection) -> AlayaNewSettings:
    return AlayaNewSettings.model_validate(dict(connection.settings))


@dataclass(frozen=True, slots=True)
class Api:
    """The API as one connection sees it. Only ProviderErrors leave it."""

    settings: AlayaNewSettings
    client: PlatformClient
    authorization: str

    @classmethod
    def of(cls, opened: OpenConnection) -> Api:
        credentials = AlayaNewCredentials.model_validate(dict(opened.connection.credentials))
        client = PlatformClient(TITLE, opened.http, (credentials.secret_key, credentials.access_key))
        judged = replace(client, judge=functools.partial(judge, client))
        return cls(settings_of(opened.connection), judged, credentials.header())

    async def create(self, plan: Plan, body: Mapping[str, Any]) -> str | None:
        """The new service's id; None where the answer names none, as is documented for LoRA."""
        answer = await self._call("POST", _SERVICES + _BELOW[plan], body=body, timeout_seconds=_CREATE_SECONDS)
        return text(read_object(answer, TITLE), "serviceId")

    async def update(self, plan: Plan, service_id: str, body: Mapping[str, Any]) -> None:
        """The "offline update", for a stopped service."""
        await self._call("PUT", f"{_SERVICES}{_BELOW[plan]}/{_segment(service_id)}", body=body)

    async def scale(self, service_id: str, body: Mapping[str, Any]) -> None:
        """The "online update" of an autoscaling range."""
        await self._call("PUT", f"{_SERVICES}/{_segment(service_id)}/scale", body=body)

    async def cancel(self, service_id: str) -> None:
        """The vendor's word for stop."""
        await self._call("POST", f"{_SERVICES}/{_segment(service_id)}/cancel")

    async def delete(self, service_id: str) -> None:
        await self._call("DELETE", f"{_SERVICES}/{_segment(service_id)}")

    async def detail(self, service_id: str) -> Mapping[str, Any]:
        """Empty where the platform answers with nothing."""
        return read_object(await self._call("GET", f"{_SERVICES}/{_segment(service_id)}"), TITLE)

    async def services(self, query: Mapping[str, str]) -> list[Mapping[str, Any]]:
        """Every service on the account, all pages."""
        return await self._all(f"{_SERVICES}/list", query, "serviceId")

    async def count_services(self) -> int | None:
        page = await self._page(f"{_SERVICES}/list", {"page": "1", "size": "1"})
        return page.total

    async def models(self, query: Mapping[str, str]) -> list[Mapping[str, Any]]:
        """Models of one data centre; one page where the query asks for a page, else all."""
        if "page" in query:
            return list((await self._page(_MODELS, query)).rows)
        return await self._all(_MODELS, query, "id")

    async def data_centres(self) -> list[str]:
        page = await self._page(_DATA_CENTRES, {})
        return [name for row in page.rows if (name := text(row, "id"))]

    async def _all(self, path: str, query: Mapping[str, str], key: str) -> list[Mapping[str, Any]]:
        """All pages; an entry that moved to a later page meanwhile is there once. Raises ProviderRefused for
        more than can be read: half a list must not look like a whole one."""
        found: dict[str, Mapping[str, Any]] = {}
        seen = 0
        for number in range(1, _PAGES_LIMIT + 1):
            page = await self._page(path, {"size": str(PAGE_SIZE), **query, "page": str(number)})
            seen += len(page.rows)
            found |= {name: row for row in page.rows if (name := text(row, key))}
            if _is_last(page, seen):
                return list(found.values())
        raise ProviderRefused(f"{TITLE} lists more than {_PAGES_LIMIT * PAGE_SIZE} entries.", code=INVALID_ANSWER)

    async def _page(self, path: str, query: Mapping[str, str]) -> Page:
        return read_page(await self._call("GET", path, query=query), TITLE)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout_seconds: float = 10.0,
    ) -> Any:
        return await self.client.call(
            method,
            self.settings.base_url + path,
            write=method != "GET",
            headers={"authorization": self.authorization, "content-type": "application/json"},
            query=query,
            payload=body,
            timeout_seconds=timeout_seconds,
        )


def _is_last(page: Page, seen: int) -> bool:
    """A short page is the last one unless the total says that the platform gives smaller pages than it was
    asked for. A total alone ends nothing: nobody says whether it counts all matches or the page's."""
    if not page.rows:
        return True
    return len(page.rows) < PAGE_SIZE and (page.total is None or seen >= page.total)


def _segment(service_id: str) -> str:
    return quote(service_id, safe="")
