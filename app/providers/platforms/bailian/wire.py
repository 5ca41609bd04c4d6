"""Bailian's deployment API as it goes over the wire: requests out, deployments and models in.

Requests have the shapes that the vendor's SDK sends (dashscope 2.0.2, captured), minus its telemetry
and without repeating `deployed_model` in a body whose path names it. Answers are read leniently:
`output` or `data` around the result, one deployment flat or as a list of one, totals as text.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from app.domain.deployment import DeploymentSpec
from app.providers.base import CapacityForm, OpenConnection, capacity_form
from app.providers.client import INVALID_ANSWER, PlatformClient
from app.providers.errors import ProviderError, ProviderMissing, ProviderRefused, ProviderUnclear
from app.providers.platforms.bailian.config import BailianCredentials, BailianSettings
from app.providers.platforms.bailian.refusals import judge

TITLE = "Alibaba Cloud Bailian"
PAGE_SIZE = 100
_PAGE_LIMIT = 200
_READ_SECONDS = 10.0
_WRITE_SECONDS = 25.0
"""Longer than a read: the SDK waits 300 s, and an answer that is missed leaves a create's outcome open."""
_LORA_CAPACITY = 1
_PLAN_DEFAULTS: Mapping[str | None, Mapping[str, Any]] = {
    "mu": {"billing_method": "POST_PAY"},
    "ptu": {"charge_type": "post_paid"},
}
"""What a create of that plan is refused without, and a person may choose otherwise in provider_options."""
_SCALE_OPTIONS = ("instance_id", "order_type", "pre_paid_info")
_LIMITS = ("rpm_limit", "tpm_limit")

Entry = Mapping[str, Any]
"""One deployment or model as the platform shows it."""


@dataclass(frozen=True, slots=True)
class BailianApi:
    """The API of one account."""

    client: PlatformClient
    settings: BailianSettings
    credentials: BailianCredentials = field(repr=False)

    @classmethod
    def of(cls, opened: OpenConnection) -> BailianApi:
        settings = BailianSettings.model_validate(dict(opened.connection.settings))
        credentials = BailianCredentials.model_validate(dict(opened.connection.credentials))
        client = PlatformClient(TITLE, opened.http, (credentials.api_key,))
        return cls(replace(client, judge=functools.partial(judge, client)), settings, credentials)

    async def create(self, payload: Mapping[str, Any]) -> Entry:
        """POST /deployments; the deployment that was made, with its id."""
        entry = _result(await self._call("POST", "/deployments", payload), ProviderUnclear)
        if identifier(entry) is None:
            raise _invalid("without the new deployment's id", ProviderUnclear)
        return entry

    async def get(self, deployed_model: str) -> Entry | None:
        """GET /deployments/{id}; None when the platform says that there is no such deployment."""
        try:
            output = _result(await self._call("GET", _path(deployed_model)), ProviderRefused)
        except ProviderMissing:
            return None
        if "deployments" in output:
            return next((one for one in _entries(output, "deployments") if identifier(one) == deployed_model), None)
        if identifier(output) != deployed_model:
            raise _invalid("for another deployment than the one asked for", ProviderRefused)
        return output

    def deployments(self) -> AsyncIterator[Entry]:
        """GET /deployments, page after page, each deployment once."""
        return self._pages("/deployments", "deployments", "deployed_model", {})

    def models(self, query: Mapping[str, str]) -> AsyncIterator[Entry]:
        """GET /deployments/models, page after page, each model once."""
        return self._pages("/deployments/models", "models", "model_name", query)

    async def models_page(self, query: Mapping[str, str]) -> list[Entry]:
        """GET /deployments/models once, with exactly that query."""
        return _entries(await self._page("/deployments/models", query), "models")

    async def count(self) -> int | None:
        """How many deployments the account has, where the platform says it."""
        return _total(await self._page("/deployments", {"page_no": "1", "page_size": "1"}))

    async def scale(self, deployed_model: str, payload: Mapping[str, Any]) -> None:
        await self._call("PUT", _path(deployed_model, "/scale"), payload)

    async def update_limits(self, deployed_model: str, payload: Mapping[str, Any]) -> None:
        await self._call("PUT", _path(deployed_model, "/update"), payload)

    async def delete(self, deployed_model: str) -> None:
        await self._call("DELETE", _path(deployed_model))

    async def _pages(self, path: str, member: str, key: str, query: Mapping[str, str]) -> AsyncIterator[Entry]:
        """Ends at the total, or at a page with nothing new: a server may cap pages or ignore their number."""
        seen: set[str] = set()
        for number in range(1, _PAGE_LIMIT + 1):
            page = await self._page(path, {**query, "page_no": str(number), "page_size": str(PAGE_SIZE)})
            fresh = {text: one for one in _entries(page, member) if (text := identifier(one, key)) and text not in seen}
            for entry in fresh.values():
                yield entry
            seen |= fresh.keys()
            total = _total(page)
            if not fresh or (total is not None and len(seen) >= total):
                return
        raise ProviderRefused(f"{TITLE} lists more than {_PAGE_LIMIT} pages.", code=INVALID_ANSWER)

    async def _page(self, path: str, query: Mapping[str, str]) -> Entry:
        return _result(await self._call("GET", path, query=query), ProviderRefused)

    async def _call(
        self,
        method: str,
        path: str,
        payload: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        headers = {"authorization": self.credentials.bearer, **self.settings.workspace_headers}
        write = method != "GET"
        return await self.client.call(
            method,
            self.settings.api_url + path,
            write=write,
            headers=headers,
            query=query,
            payload=payload,
            timeout_seconds=_WRITE_SECONDS if write else _READ_SECONDS,
        )


def create_payload(spec: DeploymentSpec, suffix: str, template_field: str) -> dict[str, Any]:
    """The body of a create. What the adapter sets itself stands last, so that nothing can replace it."""
    plan = {"plan": spec.plan} if spec.plan else {}
    template = {template_field: spec.template} if spec.template else {}
    return {
        **_PLAN_DEFAULTS.get(spec.plan, {}),
        **spec.provider_options,
        "model_name": spec.model,
        "name": spec.name,
        "suffix": suffix,
        **plan,
        **template,
        **capacity_payload(spec),
    }


def scale_payload(spec: DeploymentSpec) -> dict[str, Any]:
    """The body of a scale: the new size, and the options that belong to one; the others were for the create."""
    return {**_chosen(spec, _SCALE_OPTIONS), **capacity_payload(spec)}


def limits_payload(spec: DeploymentSpec) -> dict[str, Any]:
    """The body of an update: rate limits are all that can be changed in place. Empty where none is wanted."""
    return _chosen(spec, _LIMITS)


def capacity_payload(spec: DeploymentSpec) -> dict[str, Any]:
    """A size in the platform's words. TPM go as they are: older pages count tokens, newer ones thousands."""
    size = spec.capacity or {}
    form = capacity_form(size)
    if form is CapacityForm.UNITS:
        return {"capacity": int(size["units"])}
    if form is CapacityForm.PREFILL_DECODE:
        return {"prefill_capacity": int(size["prefill_units"]), "decode_capacity": int(size["decode_units"])}
    if form is CapacityForm.TPM:
        return {"ptu_capacity": {name: int(amount) for name, amount in size.items()}}
    return {"capacity": _LORA_CAPACITY} if spec.plan == "lora" else {}  # ignored, but refused without


def identifier(entry: Entry, key: str = "deployed_model") -> str | None:
    """The id of a deployment, or the name of a model under its own key."""
    text = entry.get(key)
    return text if isinstance(text, str) and text else None


def number(value: Any) -> float | None:
    """A count that the platform writes as a number or as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= 15):
        return None
    return int(value) if float(value).is_integer() else float(value)


def _chosen(spec: DeploymentSpec, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: spec.provider_options[name] for name in names if name in spec.provider_options}


def _path(deployed_model: str, verb: str = "") -> str:
    return f"/deployments/{quote(deployed_model, safe='')}{verb}"


def _result(answer: Any, kind: type[ProviderError]) -> Entry:
    """The object in the envelope; `kind` is raised where there is none."""
    if isinstance(answer, dict):
        for name in ("output", "data"):
            if isinstance(answer.get(name), dict):
                found: dict[str, Any] = answer[name]
                return found
    raise _invalid("without a result", kind)


def _entries(output: Entry, member: str) -> list[Entry]:
    listed = output.get(member) or []
    if not isinstance(listed, list):
        raise _invalid(f"without a list of {member}", ProviderRefused)
    return [entry for entry in listed if isinstance(entry, dict)]


def _total(output: Entry) -> int | None:
    count = number(output.get("total"))
    return None if count is None else int(count)


def _invalid(what: str, kind: type[ProviderError]) -> ProviderError:
    return kind(f"{TITLE} answered {what}.", code=INVALID_ANSWER)
