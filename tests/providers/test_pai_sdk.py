"""The vendor's own SDKs, and OpenAI's, through a service's whole life on the emulator.

They prove that the emulator speaks the dialect which real clients expect, not what the vendor does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from alibabacloud_eas20210701 import client as eas
from alibabacloud_eas20210701 import models as eas_models
from alibabacloud_paimodelgallery20250630 import client as gallery
from alibabacloud_paimodelgallery20250630 import models as gallery_models
from alibabacloud_paimodelgallery20260603 import client as specs
from alibabacloud_paimodelgallery20260603 import models as specs_models
from alibabacloud_tea_openapi import models as openapi

from tests.emulators.canned import WORDS
from tests.emulators.pai import Switches
from tests.support.pai import CONTAINERS, Cloud, timed_platform

REGION, NAME = "cn-hangzhou", "gw_qwen3_8b"
SERVICE = {"metadata": {"name": NAME, "instance": 1}, "containers": CONTAINERS}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDKs take proxies from the environment; loopback needs none."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def config(cloud: Cloud) -> Any:
    account = cloud.account
    return openapi.Config(
        access_key_id=account.access_key_id,
        access_key_secret=account.access_key_secret,
        security_token=account.security_token,
        endpoint=cloud.authority,
        protocol="http",
        region_id=REGION,
    )


async def run(work: Callable[[], Any]) -> Any:
    """The SDKs block; the emulator runs on this loop."""
    return (await asyncio.to_thread(work)).body


async def test_the_eas_sdk_goes_through_a_life() -> None:
    async with timed_platform() as cloud:
        client = eas.Client(config(cloud))

        async def status() -> str:
            return str((await run(lambda: client.describe_service(REGION, NAME))).status)

        create = eas_models.CreateServiceRequest(body=json.dumps(SERVICE), labels={"owner": "gateway"})
        made = await run(lambda: client.create_service(create))
        assert (made.service_name, made.status) == (NAME, "Creating")
        cloud.clock.now += 60
        shown = await run(lambda: client.describe_service(REGION, NAME))
        assert (shown.status, shown.running_instance) == ("Running", 1)
        await _infers(f"{shown.internet_endpoint}/v1", shown.access_token)
        scale = eas_models.UpdateServiceRequest(body='{"metadata":{"instance":2}}', update_type="merge")
        await run(lambda: client.update_service(REGION, NAME, scale))
        assert await status() == "Scaling"
        cloud.clock.now += 3
        listed = await run(lambda: client.list_services(eas_models.ListServicesRequest(filter="gw_", page_size=100)))
        assert [(one.service_name, one.running_instance) for one in listed.services] == [(NAME, 2)]
        await run(lambda: client.stop_service(REGION, NAME))
        cloud.clock.now += 3
        assert await status() == "Stopped"
        await run(lambda: client.start_service(REGION, NAME))
        cloud.clock.now += 60
        assert await status() == "Running"
        await run(lambda: client.delete_service(REGION, NAME))
        cloud.clock.now += 2
        with pytest.raises(Exception, match="ServiceNotFound"):
            await status()
        assert cloud.account.ledger.still_billed(cloud.clock.now) == set()


@pytest.mark.parametrize(("sdk", "models"), [(gallery, gallery_models), (specs, specs_models)], ids=["first", "second"])
async def test_a_gallery_sdk_lists_models_where_they_are_one_object(sdk: Any, models: Any) -> None:
    """Neither can read an array, which is how the definition describes the member."""
    async with timed_platform(switches=Switches(models_shape="object"), security_token="FakeStsToken==") as cloud:
        client = sdk.Client(config(cloud))
        request = models.ListModelGalleryModelsRequest(model_name='"Qwen3-8B"', deployable=True, page_size=10)
        found = await run(lambda: client.list_model_gallery_models(request))
    assert (found.total_count, found.models.model_name) == ("1", "Qwen3-8B")


async def test_the_second_gallery_sdk_leads_from_a_model_to_a_spec() -> None:
    async with timed_platform() as cloud:
        client = specs.Client(config(cloud))
        versioned = {"model_version": "1.0.0"}
        request = specs_models.ListModelDeploymentProfilesRequest(**versioned)
        offered = await run(lambda: client.list_model_deployment_profiles("model-1", request))
        chosen = {**versioned, "profile_id": offered.profiles[0].profile_id, "workspace_id": "295949"}
        fitting = specs_models.GetModelDeploymentResourcesRequest(**chosen)
        matches = await run(lambda: client.get_model_deployment_resources("model-1", fitting))
        wanted = specs_models.GetModelDeploymentSpecRequest(**chosen)
        spec = await run(lambda: client.get_model_deployment_spec("model-1", wanted))
    assert [one.quota_id for one in matches.member_matches[0].quotas] == ["quota1"]
    assert spec.inference_spec["containers"][0]["port"] == 8000


async def test_a_wrong_secret_is_the_sdks_own_error() -> None:
    async with timed_platform() as cloud:
        client = eas.Client(config(cloud))
        cloud.account.access_key_secret = "another"
        with pytest.raises(Exception, match="SignatureDoesNotMatch"):
            await run(lambda: client.describe_regions())


async def _infers(base_url: str, token: str) -> None:
    """Whole and streamed, with the token as OpenAI's SDK sends a key."""
    messages: Any = [{"role": "user", "content": "hello"}]
    async with openai.AsyncOpenAI(base_url=base_url, api_key=token, max_retries=0) as client:
        whole = await client.chat.completions.create(model="/model", messages=messages)
        assert whole.choices[0].message.content == "".join(WORDS)
        options = {"include_usage": True}
        stream = await client.chat.completions.create(
            model="/model", messages=messages, stream=True, stream_options=options
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "".join(WORDS)
    assert chunks[-1].usage is not None
