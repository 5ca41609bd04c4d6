"""The contract of `app/providers/base.py` as a suite: what holds for every provider of the registry.

A provider takes part by a `Bench`: the provider, an open connection to something real on loopback,
and a spec that can be deployed there. See `benches.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from app.domain.deployment import CreateDevice, DeploymentSpec, Observation, Status
from app.errors import InvalidRequest, NotSupported
from app.providers.base import CapacityForm, Device, OpenConnection, Provider
from app.providers.errors import ProviderBusy, ProviderError

HANG_GUARD_SECONDS = 60.0
_SCALABLE = {
    CapacityForm.UNITS: {"units": 1},
    CapacityForm.PREFILL_DECODE: {"prefill_units": 1, "decode_units": 1},
    CapacityForm.TPM: {"input_tpm": 1, "output_tpm": 1},
    CapacityForm.REPLICAS: {"replicas": 1},
    CapacityForm.AUTOSCALE: {"min_replicas": 1, "max_replicas": 1},
}


@dataclass(frozen=True)
class Bench:
    """`secrets` are what must never be seen in anything that a tenant is shown."""

    provider: Provider
    opened: OpenConnection
    spec: DeploymentSpec
    device: Device = field(default_factory=lambda: Device(CreateDevice.TOKEN, "dep_contract"))
    secrets: tuple[str, ...] = ()

    async def get(self, external_id: str) -> Observation | None:
        return await self.provider.get(self.opened, external_id, self.spec)

    async def until(self, status: Status, external_id: str) -> Observation:
        async with asyncio.timeout(HANG_GUARD_SECONDS):
            while True:
                with suppress(ProviderBusy):  # a moment without an answer; the reconciler asks again as well
                    seen = await self.get(external_id)
                    assert seen is not None
                    if seen.status is status:
                        return seen
                    assert seen.status is not Status.FAILED, seen.status_reason
                await asyncio.sleep(0.02)

    async def until_gone(self, external_id: str) -> None:
        async with asyncio.timeout(HANG_GUARD_SECONDS):
            while await self.get(external_id) is not None:
                await asyncio.sleep(0.02)


OpenBench = Callable[[Path], AbstractAsyncContextManager[Bench]]


async def a_deployment_is_made_found_run_and_deleted(bench: Bench) -> None:
    provider, opened = bench.provider, bench.opened
    provider.validate(opened.connection, bench.spec)
    created = await provider.create(opened, bench.spec, bench.device)
    assert await provider.find(opened, bench.spec, bench.device) == created.external_id
    running = await bench.until(Status.RUNNING, created.external_id)
    _is_complete(running, created.external_id, bench)
    await provider.delete(opened, created.external_id)
    if not provider.capabilities.virtual:
        await bench.until_gone(created.external_id)
    await provider.delete(opened, created.external_id)


async def a_device_makes_one_thing_however_often_create_is_called(bench: Bench) -> None:
    if not bench.device.kind.repeatable:
        return
    first = await bench.provider.create(bench.opened, bench.spec, bench.device)
    second = await bench.provider.create(bench.opened, bench.spec, bench.device)
    assert first.external_id == second.external_id
    await bench.provider.delete(bench.opened, first.external_id)


async def the_declared_verbs_work_and_may_be_repeated(bench: Bench) -> None:
    provider, opened = bench.provider, bench.opened
    external_id = (await provider.create(opened, bench.spec, bench.device)).external_id
    await bench.until(Status.RUNNING, external_id)
    if provider.capabilities.stop:
        for _ in range(2):
            await provider.stop(opened, external_id)
        await bench.until(Status.STOPPED, external_id)
    if provider.capabilities.start:
        for _ in range(2):
            await provider.start(opened, external_id, bench.spec)
        await bench.until(Status.RUNNING, external_id)
    if provider.capabilities.restart:
        await provider.restart(opened, external_id, bench.spec)
        await bench.until(Status.RUNNING, external_id)
    if provider.capabilities.update:
        await provider.update(opened, external_id, bench.spec)
        await bench.until(Status.RUNNING, external_id)
    await provider.delete(opened, external_id)


async def a_verb_that_is_not_declared_is_not_supported(bench: Bench) -> None:
    provider, opened = bench.provider, bench.opened
    able = provider.capabilities
    calls: dict[str, Callable[[], Any]] = {
        "scale": lambda: provider.scale(opened, "x", bench.spec),
        "update": lambda: provider.update(opened, "x", bench.spec),
        "start": lambda: provider.start(opened, "x", bench.spec),
        "stop": lambda: provider.stop(opened, "x"),
        "restart": lambda: provider.restart(opened, "x", bench.spec),
        "catalog": lambda: provider.models(opened, {}),
    }
    for verb, call in calls.items():
        if not getattr(able, verb):
            with pytest.raises(NotSupported) as raised:
                await call()
            assert raised.value.code == "capability_not_supported"


async def a_check_is_harmless_and_the_catalog_holds_the_model(bench: Bench) -> None:
    assert (await bench.provider.check(bench.opened)).ok
    if bench.provider.capabilities.catalog:
        names = [model.name for model in await bench.provider.models(bench.opened, {})]
        assert bench.spec.model in names


async def what_a_platform_has_no_use_for_is_refused_before_any_call(bench: Bench) -> None:
    provider, able = bench.provider, bench.provider.capabilities
    fields: list[tuple[str, Any, bool]] = [
        ("plan", "no-such-plan", False),
        ("resources", {"cpu": 1}, able.resources),
        ("engine", {"name": "x"}, able.engine),
        ("lora_adapters", ({"name": "a", "model": "b"},), able.lora),
        ("served_names", ("other",), able.served_names),
        ("provider_options", {"anything": 1}, able.provider_options),
        *(("capacity", _SCALABLE[form], form in able.capacity_forms) for form in CapacityForm),
        ("capacity", {"units": 1, "replicas": 1}, False),
    ]
    for name, value, usable in fields:
        if not usable:
            with pytest.raises(InvalidRequest) as raised:
                provider.validate(bench.opened.connection, replace(bench.spec, **{name: value}))
            assert raised.value.param == name
    for option in provider.owned_options:
        with pytest.raises(InvalidRequest):
            provider.validate(bench.opened.connection, replace(bench.spec, provider_options={option: 1}))


async def a_model_that_is_not_there_is_refused_and_makes_nothing(bench: Bench) -> None:
    """At validation where the provider can know, else by the platform, certainly without an effect."""
    spec = replace(bench.spec, model="no-such-model")
    try:
        bench.provider.validate(bench.opened.connection, spec)
    except InvalidRequest:
        return
    with pytest.raises(ProviderError) as raised:
        await bench.provider.create(bench.opened, spec, bench.device)
    assert not raised.value.effect_unknown


CONTRACT = [
    a_deployment_is_made_found_run_and_deleted,
    a_device_makes_one_thing_however_often_create_is_called,
    the_declared_verbs_work_and_may_be_repeated,
    a_verb_that_is_not_declared_is_not_supported,
    a_check_is_harmless_and_the_catalog_holds_the_model,
    what_a_platform_has_no_use_for_is_refused_before_any_call,
    a_model_that_is_not_there_is_refused_and_makes_nothing,
]


def _is_complete(seen: Observation, external_id: str, bench: Bench) -> None:
    assert seen.external_id == external_id
    assert seen.provider_status
    assert seen.upstream is not None
    assert seen.service_url == seen.upstream.base_url
    assert seen.upstream.served_models[""]
    shown = (seen.raw, seen.instances, seen.status_reason, seen.service_url, repr(seen))
    assert not any(secret in str(part) for secret in bench.secrets for part in shown)
