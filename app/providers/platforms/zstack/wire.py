"""ZStack's REST API, one method for each call that is made here; bodies are made in `rules`.

Queries answer at once. Changes answer 202 with the location of a job, whose result is the answer: a
change is sent with a job id of our choice (`X-Job-UUID`, 32 hex), and looked at by that id under the
connection's own address, because the location that the server prints names the address it knows itself by.

A lost session shows itself differently in the two: a query is refused at once and asked again here; a
change is accepted, and its job fails (`RestServer` hands the session over unchecked). See `jobs`.

Sources: zstackio/zstack `RestServer` and the SDK's action classes; captures of the Java SDK (2026-11-21).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from app.kit import json
from app.kit.clock import Now, utc_now
from app.kit.http import VendorFailure, VendorResponse
from app.providers.base import OpenConnection
from app.providers.client import INVALID_ANSWER, PlatformClient
from app.providers.errors import ProviderError, ProviderRefused
from app.providers.platforms.zstack.auth import DEFAULT_LIFE_SECONDS, Login, Sessions, account_key, signed_headers
from app.providers.platforms.zstack.config import ZStackCredentials, ZStackSettings
from app.providers.platforms.zstack.dates import moment
from app.providers.platforms.zstack.refusals import (
    DuplicateJob,
    SessionLost,
    business_error,
    error_of,
    judge,
    plain_text,
)

TITLE = "ZStack AIOS"
PAGE_SIZE = 100
_PAGES_LIMIT = 200
_SERVICES = "/ai/model-services"
_MODELS = "/ai/models"
_GROUPS = "/ai/model-services/instances/groups"
_CHANGED_GROUPS = "/model-service-instance-groups"
_MACHINES = "/vm-instances"
_JSON = "application/json; charset=utf-8"

Entry = Mapping[str, Any]
Pairs = Sequence[tuple[str, str]]


class JobState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Job:
    """A change as its job shows it. `unknown`: never begun, or done for longer than results are kept (3 h)."""

    state: JobState
    result: Entry = field(default_factory=dict)
    error: ProviderError | None = None

    @property
    def session_lost(self) -> bool:
        """It was refused for the session alone, so nothing of it has happened."""
        return isinstance(self.error, SessionLost)


@dataclass(frozen=True, slots=True)
class ZStackApi:
    """The API as one connection sees it. Only ProviderErrors leave it."""

    settings: ZStackSettings
    credentials: ZStackCredentials
    client: PlatformClient
    sessions: Sessions
    now: Now = utc_now

    @classmethod
    def of(cls, opened: OpenConnection, sessions: Sessions, now: Now = utc_now) -> ZStackApi:
        credentials = ZStackCredentials.model_validate(dict(opened.connection.credentials))
        settings = ZStackSettings.model_validate(dict(opened.connection.settings))
        return cls(settings, credentials, PlatformClient(TITLE, opened.http, credentials.secrets), sessions, now)

    # What exists

    async def services_page(self, query: Pairs) -> list[Entry]:
        """Model services as the query says, one page."""
        return _inventories(await self._read(_SERVICES, query))

    async def services(self, query: Pairs = ()) -> list[Entry]:
        """Every model service that matches."""
        return await self._all(_SERVICES, query)

    async def models(self, query: Pairs = ()) -> list[Entry]:
        """Every model that matches; services are bound to them by their `modelServiceRefs`."""
        return await self._all(_MODELS, query)

    async def groups(self, query: Pairs = ()) -> list[Entry]:
        """Every model service instance group that matches: what is deployed."""
        return await self._all(f"{_GROUPS}/", query)

    async def group(self, uuid: str) -> Entry | None:
        """One group; an unknown one is an empty list to ZStack, not a 404."""
        found = _inventories(await self._read(f"{_GROUPS}/", [("q", f"uuid={uuid}")]))
        return next((one for one in found if one.get("uuid") == uuid), None)

    async def count_groups(self) -> int | None:
        answer = await self._read(f"{_GROUPS}/", [("count", "true")])
        total = answer.get("total")
        return total if isinstance(total, int) else None

    async def machine(self, uuid: str) -> Entry | None:
        """A virtual machine, also one in the recycle bin."""
        found = _inventories(await self._read(f"{_MACHINES}/{_segment(uuid)}"))
        return next((one for one in found if one.get("uuid") == uuid), None)

    # Changes: True when accepted, False when a job of that id exists already

    async def deploy(self, service_uuid: str, body: Entry, job: str) -> bool:
        return await self._change("PUT", f"{_SERVICES}/{_segment(service_uuid)}", job, {"deployModelService": body})

    async def update_group(self, uuid: str, body: Entry, job: str) -> bool:
        """Without `/ai` in front, unlike everything else about groups."""
        action = {"updateModelServiceInstanceGroup": body}
        return await self._change("PUT", f"{_CHANGED_GROUPS}/{_segment(uuid)}", job, action)

    async def restart_group(self, uuid: str, job: str) -> bool:
        return await self._change("PUT", _CHANGED_GROUPS, job, {"restartModelServiceGroups": {"uuids": [uuid]}})

    async def delete_group(self, uuid: str, job: str) -> bool:
        query = [("deleteMode", "Permissive")]
        return await self._change("DELETE", f"{_GROUPS}/{_segment(uuid)}", job, query=query)

    async def expunge_machine(self, uuid: str, job: str) -> bool:
        return await self._change("PUT", f"{_MACHINES}/{_segment(uuid)}/actions", job, {"expungeVmInstance": {}})

    async def job(self, uuid: str) -> Job:
        """202 runs · 200 done · 503 with an error failed · 404 in words of its own unknown."""
        path = f"/api-jobs/{_segment(uuid)}"
        headers, session = await self._authorized("GET", path)
        try:
            response = await self.client.http.request("GET", self.settings.api_url + path, headers=headers)
        except VendorFailure as failure:
            raise self.client.failed(failure) from failure
        return _job(self._judged(session, write=False), response)

    def forget_session(self) -> None:
        """The next call logs in. A change learns only from its job that the session was lost."""
        self.sessions.forget(self._account)

    async def _change(self, method: str, path: str, job: str, body: Entry | None = None, *, query: Pairs = ()) -> bool:
        try:
            await self._call(method, path, write=True, query=query, body=body, headers={"x-job-uuid": job})
        except DuplicateJob:
            return False
        return True

    async def _all(self, path: str, query: Pairs) -> list[Entry]:
        """All pages, in an order that does not change between them. Raises ProviderRefused for more than can
        be read: half a list must not look like a whole one."""
        asked = [*query, *([] if any(name == "sort" for name, _ in query) else [("sort", "+uuid")])]
        found: dict[str, Entry] = {}
        read = 0
        for _ in range(_PAGES_LIMIT):
            paging = [("start", str(read)), ("limit", str(PAGE_SIZE)), ("replyWithCount", "true")]
            answer = await self._read(path, [*asked, *paging])
            page, total = _inventories(answer), answer.get("total")
            read += len(page)
            found |= {str(entry["uuid"]): entry for entry in page if entry.get("uuid")}
            if not page or (read >= total if isinstance(total, int) else len(page) < PAGE_SIZE):
                return list(found.values())
        raise ProviderRefused(f"{TITLE} lists more than {_PAGES_LIMIT * PAGE_SIZE} entries.", code=INVALID_ANSWER)

    async def _read(self, path: str, query: Pairs = ()) -> Entry:
        answer = await self._call("GET", path, write=False, query=query)
        if not isinstance(answer, dict):
            raise ProviderRefused(f"{TITLE} answered with something other than an object.", code=INVALID_ANSWER)
        return answer

    async def _call(
        self,
        method: str,
        path: str,
        *,
        write: bool,
        query: Pairs = (),
        body: Entry | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One call; once more with a new session where the first one is not known any more."""
        url = self.settings.api_url + path + (f"?{urlencode(query, quote_via=quote)}" if query else "")
        content = {} if body is None else {"content-type": _JSON}
        payload = None if body is None else json.dumps(body)
        for last in (False, True):
            own, session = await self._authorized(method, path)
            try:
                return await self._judged(session, write=write).call(
                    method, url, write=write, headers={**own, **content, **(headers or {})}, body=payload
                )
            except SessionLost:
                self.sessions.forget(self._account, session)
                if last or not session:
                    raise
        raise AssertionError("the second time returns or raises")

    async def _authorized(self, method: str, path: str) -> tuple[dict[str, str], str]:
        """The headers that say who asks, and the session in them where there is one."""
        given = self.credentials
        if given.access_key_id and given.access_key_secret:
            now = self.now().astimezone(self.settings.zone)
            signed = f"/v1{path}"
            return signed_headers(given.access_key_id, given.access_key_secret, method=method, path=signed, now=now), ""
        session = await self.sessions.get(self._account, self._login)
        return {"authorization": f"OAuth {session}"}, session

    def _judged(self, session: str, *, write: bool) -> PlatformClient:
        """The client for one call: it knows what a refusal means, and keeps the session out of its words."""
        client = replace(self.client, secrets=(*self.client.secrets, session))
        return replace(client, judge=partial(judge, client, write=write))

    @property
    def _account(self) -> str:
        return account_key(self.settings.base_url, self.credentials.account_name or "", self.credentials.password_hash)

    async def _login(self) -> Login:
        given = {"accountName": self.credentials.account_name, "password": self.credentials.password_hash}
        answer = await self._judged("", write=False).call(
            "PUT",
            f"{self.settings.api_url}/accounts/login",
            write=False,
            headers={"content-type": _JSON},
            body=json.dumps({"logInByAccount": given}),
        )
        inventory = answer.get("inventory") if isinstance(answer, dict) else None
        session = inventory.get("uuid") if isinstance(inventory, dict) else None
        if not isinstance(session, str) or not session.isalnum() or not session.isascii():
            raise ProviderRefused(f"{TITLE} answered a login without a session.", code=INVALID_ANSWER)
        return Login(session, _life_seconds(inventory or {}))


def _job(client: PlatformClient, response: VendorResponse) -> Job:
    if response.status_code == 202:
        return Job(JobState.RUNNING)
    if response.status_code == 404 and "expired" in plain_text(response):
        return Job(JobState.UNKNOWN)
    error = error_of(_parsed(response))
    if error is not None:
        return Job(JobState.FAILED, error=business_error(client, response, error, write=True))
    answer = client.read(response, write=False)
    return Job(JobState.DONE, answer if isinstance(answer, dict) else {})


def _parsed(response: VendorResponse) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _life_seconds(inventory: Entry) -> float:
    """Between the two dates, which are both the platform's own."""
    begin, end = moment(inventory.get("createDate")), moment(inventory.get("expiredDate"))
    seconds = (end - begin).total_seconds() if begin and end else 0.0
    return seconds if seconds > 0 else DEFAULT_LIFE_SECONDS


def _inventories(answer: Entry) -> list[Entry]:
    """Raises ProviderRefused for what is no list: what is not understood is never an absence."""
    listed = answer.get("inventories")
    if listed is None and isinstance(answer.get("inventory"), dict):
        return [answer["inventory"]]
    if not isinstance(listed, list):
        raise ProviderRefused(f"{TITLE} answered a query without a list.", code=INVALID_ANSWER)
    return [one for one in listed if isinstance(one, dict)]


def _segment(text: str) -> str:
    return quote(text, safe="")
