"""The calls of ModelGallery and EAS that are made here, one method each, as the vendor's SDKs make them.

Differences from the SDKs, on purpose: `true`/`false` in a query instead of Python's `True`/`False`,
`%20` instead of `+`, fewer signed headers, no SDK telemetry. Paths, parameters and bodies:
alibabacloud-paimodelgallery20250630 1.0.0, alibabacloud-paimodelgallery20260603 1.1.0 and
alibabacloud-eas20210701 7.0.0, read and captured 2026-11-21.

Answers are returned as parsed objects; what they hold is read in `mapping`, `services` and `catalog`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from app.kit import json
from app.providers._alibaba.acs3 import Action, path_of, signed_headers
from app.providers.base import OpenConnection
from app.providers.client import INVALID_ANSWER, PlatformClient
from app.providers.errors import ProviderError, ProviderRefused, ProviderUnclear
from app.providers.platforms.pai.config import PaiCredentials, PaiSettings
from app.providers.platforms.pai.refusals import judge

TITLE = "Alibaba PAI"
PAGE_SIZE = 100
"""EAS's default; the gallery states no maximum. A page may come back shorter than asked for."""
PAGES_LIMIT = 1000

Entry = Mapping[str, Any]
_EAS = "2021-07-01"
_SPECS = "2026-06-03"
_LISTS = {"2025-06-30": "v1", "2026-06-03": "v2"}


@dataclass(frozen=True, slots=True)
class PaiApi:
    """Both APIs of one connection."""

    settings: PaiSettings
    credentials: PaiCredentials
    client: PlatformClient

    @classmethod
    def of(cls, opened: OpenConnection) -> PaiApi:
        connection = opened.connection
        credentials = PaiCredentials.model_validate(dict(connection.credentials))
        settings = PaiSettings.model_validate(dict(connection.settings))
        return cls(settings, credentials, PlatformClient(TITLE, opened.http, credentials.secrets))

    # ModelGallery

    async def list_models(self, query: Mapping[str, str]) -> Entry:
        """One page, `{TotalCount, Models}`; `query` holds the platform's own parameters."""
        version = self.settings.gallery_version
        path = path_of("api", _LISTS[version], "modelgallery", "models")
        return await self._gallery("ListModelGalleryModels", path, query, version=version)

    async def list_profiles(self, model_id: str, query: Mapping[str, str]) -> Entry:
        path = _model_path(model_id, "deployment-profiles")
        return await self._gallery("ListModelDeploymentProfiles", path, query)

    async def get_resources(self, model_id: str, query: Mapping[str, str]) -> Entry:
        path = _model_path(model_id, "deployment-resources")
        return await self._gallery("GetModelDeploymentResources", path, query)

    async def get_spec(self, model_id: str, query: Mapping[str, str]) -> Entry:
        path = _model_path(model_id, "deployment-spec")
        return await self._gallery("GetModelDeploymentSpec", path, query)

    # EAS

    async def create_service(self, body: Entry, query: Mapping[str, str]) -> Entry:
        return await self._eas("CreateService", "POST", path_of("api", "v2", "services"), query=query, body=body)

    async def list_services(self, query: Mapping[str, str]) -> Entry:
        return await self._eas("ListServices", "GET", path_of("api", "v2", "services"), query=query)

    async def services(self, query: Mapping[str, str]) -> AsyncIterator[Entry]:
        """Every service that matches, page after page, each once. Raises ProviderRefused for more than can be read:
        half a list must not look like a whole one."""
        seen: set[str] = set()
        for page in range(1, PAGES_LIMIT + 1):
            answer = await self.list_services({**query, "PageNumber": str(page), "PageSize": str(PAGE_SIZE)})
            services = [one for one in objects(answer, "Services") if one.get("ServiceName") not in seen]
            for service in services:
                seen.add(str(service.get("ServiceName")))
                yield service
            if not services or is_whole(answer, len(seen)):
                return
        raise too_long()

    async def describe_service(self, name: str) -> Entry:
        return await self._eas("DescribeService", "GET", self._service_path(name))

    async def describe_endpoints(self, name: str) -> Entry:
        return await self._eas("DescribeServiceEndpoints", "GET", self._service_path(name, "endpoints"))

    async def list_events(self, name: str, query: Mapping[str, str]) -> Entry:
        return await self._eas("DescribeServiceEvent", "GET", self._service_path(name, "events"), query=query)

    async def list_instances(self, name: str) -> Entry:
        query = {"PageNumber": "1", "PageSize": str(PAGE_SIZE)}
        return await self._eas("ListServiceInstances", "GET", self._service_path(name, "instances"), query=query)

    async def merge_service(self, name: str, body: Entry) -> None:
        query = {"UpdateType": "merge"}
        await self._eas("UpdateService", "PUT", self._service_path(name), query=query, body=body)

    async def start_service(self, name: str) -> None:
        await self._eas("StartService", "PUT", self._service_path(name, "start"))

    async def stop_service(self, name: str) -> None:
        await self._eas("StopService", "PUT", self._service_path(name, "stop"))

    async def restart_service(self, name: str) -> None:
        await self._eas("RestartService", "PUT", self._service_path(name, "restart"))

    async def delete_service(self, name: str) -> None:
        await self._eas("DeleteService", "DELETE", self._service_path(name))

    async def describe_autoscaler(self, name: str) -> Entry:
        return await self._eas("DescribeServiceAutoScaler", "GET", self._service_path(name, "autoscaler"))

    async def create_autoscaler(self, name: str, body: Entry) -> None:
        await self._eas("CreateServiceAutoScaler", "POST", self._service_path(name, "autoscaler"), body=body)

    async def update_autoscaler(self, name: str, body: Entry) -> None:
        await self._eas("UpdateServiceAutoScaler", "PUT", self._service_path(name, "autoscaler"), body=body)

    async def delete_autoscaler(self, name: str) -> None:
        await self._eas("DeleteServiceAutoScaler", "DELETE", self._service_path(name, "autoscaler"))

    def _service_path(self, name: str, *more: str) -> str:
        """The cluster's id is the region's."""
        return path_of("api", "v2", "services", self.settings.region, name, *more)

    async def _gallery(self, name: str, path: str, query: Mapping[str, str], *, version: str = _SPECS) -> Entry:
        return await self._call(Action(name, version), "GET", self.settings.gallery_url + path, query=query)

    async def _eas(
        self, name: str, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Entry | None = None
    ) -> Entry:
        return await self._call(Action(name, _EAS), method, self.settings.eas_url + path, query=query, body=body)

    async def _call(
        self,
        action: Action,
        method: str,
        url: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Entry | None = None,
    ) -> Entry:
        write = method != "GET"
        content = None if body is None else json.dumps(body)
        headers = signed_headers(self.credentials.key, action, method=method, url=url, query=query or {}, body=content)
        client = replace(self.client, judge=partial(judge, self.client, write=write))
        answer = await client.call(method, url, write=write, headers=headers, query=query, body=content)
        return _object(answer, write=write)


def objects(answer: Entry, name: str) -> list[Entry]:
    """A member that should be a list of objects; one object alone counts as a list of one."""
    value = answer.get(name)
    listed = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [one for one in listed if isinstance(one, dict)]


def text(entry: Entry, name: str) -> str | None:
    """A member that is text, or a number written as one; None where there is none."""
    value = entry.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def count(value: Any) -> int:
    """A count, which the gallery writes as text and EAS as a number; 0 where it is neither."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    return value if isinstance(value, int) and value > 0 else 0


def is_whole(answer: Entry, seen: int) -> bool:
    """Whether a list says that no more than the entries seen so far is in it; one that says nothing ends by a page
    without anything new."""
    total = answer.get("TotalCount")
    return total is not None and seen >= count(total)


def too_long() -> ProviderRefused:
    return ProviderRefused(f"{TITLE} lists more than {PAGES_LIMIT} pages.", code=INVALID_ANSWER)


def _model_path(model_id: str, what: str) -> str:
    return path_of("api", "v2", "modelgallery", "models", model_id, what)


def _object(answer: Any, *, write: bool) -> Entry:
    """An accepted write may answer with nothing at all; a read has to answer with an object."""
    if isinstance(answer, dict):
        return answer
    if answer is None and write:
        return {}
    kind: type[ProviderError] = ProviderUnclear if write else ProviderRefused
    raise kind(f"{TITLE} answered with something other than an object.", code=INVALID_ANSWER)
