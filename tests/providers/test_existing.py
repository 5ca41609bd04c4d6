"""What the platforms show of a service that exists, read back as the spec it was made from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.deployment import DeploymentSpec
from app.providers.base import Discovered
from tests.emulators.bailian import running_emulator as running_bailian
from tests.support import alayanew as alaya
from tests.support import bailian, pai

OTHER_TOKEN = "mp-" + "0" * 26


def spec_of(found: Discovered | None, like: DeploymentSpec) -> DeploymentSpec:
    """The spec of an adoption; its own name is not the platform's to know."""
    assert found is not None
    return DeploymentSpec(
        name=like.name,
        model=found.model or "",
        plan=found.plan,
        template=found.template,
        capacity=found.capacity,
        served_names=found.served_names,
        resources=found.resources,
        engine=found.engine,
        provider_options=found.provider_options,
    )


@pytest.mark.parametrize("plan", ["quickStart", "expert", "lora"])
async def test_each_plan_of_alayanew_can_be_made_again_from_what_its_detail_shows(plan: str) -> None:
    engine = {"name": "sglang", "version": "0.4.6", "args": ["--tp", "2"]}
    quick = replace(alaya.SPEC, engine=engine, resources={**alaya.SPEC.resources, "workers": 2})
    async with alaya.platform() as platform:
        base = await platform.create(quick)
        spec = {"quickStart": quick, "expert": alaya.EXPERT, "lora": alaya.lora(base)}[plan]
        external_id = await platform.create(spec, token=OTHER_TOKEN)
        described = await alaya.PROVIDER.describe(platform.opened, external_id)
        found = spec_of(described, spec)
        assert await alaya.PROVIDER.describe(platform.opened, "nothing") is None
        alaya.PROVIDER.validate(platform.opened.connection, found)
    assert (found.model, found.plan, found.capacity) == (spec.model, spec.plan, spec.capacity)
    assert (found.resources, found.engine) == (spec.resources, spec.engine)
    for name, wished in spec.provider_options.items():
        shown = found.provider_options[name]
        assert shown == wished or wished.items() <= shown.items()


async def test_the_options_of_what_exists_are_not_in_its_repr() -> None:
    """An expert service's environment is where its secrets stand."""
    head = {**alaya.EXPERT.provider_options["headConfig"], "env": {"HF_TOKEN": "hf-canary"}}
    async with alaya.platform() as platform:
        external_id = await platform.create(replace(alaya.EXPERT, provider_options={"headConfig": head}))
        found = await alaya.PROVIDER.describe(platform.opened, external_id)
    assert found is not None
    assert found.provider_options["headConfig"]["env"] == {"HF_TOKEN": "hf-canary"}
    assert "canary" not in repr(found)


async def test_bailian_tells_plan_and_size_but_not_the_template() -> None:
    account, _ = bailian.stopped_account()
    async with running_bailian(account) as authority:
        opened = bailian.connected(authority)
        for spec in (bailian.SPEC, bailian.SPLIT, bailian.PTU):
            device = replace(bailian.DEVICE, value=f"{bailian.DEVICE.value}{spec.template}")
            found = await bailian.BAILIAN.describe(opened, await bailian.made(opened, spec, device))
            assert spec_of(found, spec) == replace(spec, template=None)
        assert await bailian.BAILIAN.describe(opened, "nothing") is None


async def test_eas_tells_size_machine_and_range() -> None:
    resources = {"cpu": 8, "memory_bytes": 2**34, "gpu": {"type": "ml.gu8is.c16m128.1-gu60", "count": 1}}
    capacity = {"min_replicas": 1, "max_replicas": 3, "target_rps": 10}
    spec = replace(pai.OWN, resources=resources, capacity=capacity, plan="public")
    async with pai.timed_platform() as cloud:
        name = await cloud.created(spec)
        found = await pai.PROVIDER.describe(cloud.opened, name)
        assert found is not None
        assert (found.plan, found.resources) == ("public", resources)
        assert found.capacity == {"min_replicas": 1, "max_replicas": 3}
        assert found.device == pai.TOKEN
        assert await pai.PROVIDER.describe(cloud.opened, "nothing") is None


async def test_an_orphan_of_ours_on_eas_can_be_updated_once_it_is_adopted() -> None:
    """Its label tells what it was built from; what describes it leads to the same label."""
    async with pai.timed_platform() as cloud:
        name = await cloud.created(pai.SPEC)
        found = spec_of(await pai.PROVIDER.describe(cloud.opened, name), pai.SPEC)
        assert found.model == pai.SPEC.model
        await pai.PROVIDER.update(cloud.opened, name, replace(found, resources={"cpu": 16}))
        assert cloud.account.held[0].config["metadata"]["cpu"] == 16
