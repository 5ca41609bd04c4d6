"""What Bailian's adapter refuses before any call: sizes, templates, addresses, keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from app.domain.deployment import DeploymentSpec
from app.errors import InvalidRequest
from app.providers.platforms.bailian.config import BailianCredentials, BailianSettings
from tests.emulators.bailian import running_emulator
from tests.support.bailian import BAILIAN, PTU, SPEC, SPLIT, connected, made, stopped_account


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"template": None}, "template", "needs a template"),
        ({"plan": "lora"}, "template", "Only the plans 'mu' and 'cu'"),
        ({"plan": None}, "template", "Only the plans"),
        ({"capacity": None}, "capacity", "{units} or {decode_units, prefill_units}"),
        ({"capacity": {"input_tpm": 1, "output_tpm": 1}}, "capacity", "'mu' takes this capacity"),
        ({"capacity": {"units": 1.5}}, "capacity.units", "whole number"),
        ({"capacity": {"units": 1000}}, "capacity.units", "less than 1000"),
        ({"capacity": {"prefill_units": 4, "decode_units": 1000}}, "capacity.decode_units", "less than 1000"),
        ({"plan": "lora", "template": None, "capacity": {"units": 2}}, "capacity", "has no size"),
        ({"plan": "ptu", "template": None}, "capacity", "{input_tpm, output_tpm}"),
        ({"plan": "ptu_v2"}, "plan", "Its plans: mu, cu, ptu, lora"),
        ({"provider_options": {"suffix": "x"}}, "provider_options.suffix", "set by Modelport"),
    ],
)
def test_a_wrong_wish_is_refused_before_it_costs_anything(change: dict[str, Any], param: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        BAILIAN.validate(connected("127.0.0.1:9").connection, replace(SPEC, **change))
    assert raised.value.param == param
    assert said in raised.value.message


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        SPLIT,
        PTU,
        replace(PTU, capacity={"input_tpm": 1, "output_tpm": 1, "thinking_output_tpm": 5_000_000}),
        DeploymentSpec("bot", "qwen3-8b", plan="lora"),
        DeploymentSpec("bot", "qwen3-8b", plan="lora", capacity={"units": 1}),
        DeploymentSpec("bot", "qwen-plus", capacity={"units": 8}),
        DeploymentSpec("bot", "qwen-plus", plan="cu", template="light", capacity={"units": 2}),
        replace(SPEC, provider_options={"billing_method": "POST_PAY", "enable_thinking": True}),
    ],
)
async def test_every_plan_has_a_form_that_is_taken(spec: DeploymentSpec) -> None:
    account, _ = stopped_account()
    async with running_emulator(account) as authority:
        opened = connected(authority)
        BAILIAN.validate(opened.connection, spec)
        assert await made(opened, spec) == account.ever_made[0].id


@pytest.mark.parametrize(
    ("given_url", "api_url"),
    [
        ("https://dashscope-intl.aliyuncs.com", "https://dashscope-intl.aliyuncs.com/api/v1"),
        ("https://dashscope.aliyuncs.com/api/v1/", "https://dashscope.aliyuncs.com/api/v1"),
        ("https://dashscope.aliyuncs.com/compatible-mode/v1", "https://dashscope.aliyuncs.com/api/v1"),
        ("https://proxy.example:8443/bailian", "https://proxy.example:8443/bailian/api/v1"),
    ],
)
def test_the_address_may_be_pasted_in_any_of_its_forms(given_url: str, api_url: str) -> None:
    assert BailianSettings(base_url=given_url).api_url == api_url


@pytest.mark.parametrize("url", ["", "dashscope", "ftp://a", "https://", "https://a@b", "https://a?b", "https://a b"])
def test_an_address_that_could_be_misread_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        BailianSettings(base_url=url)


def test_a_region_has_its_host() -> None:
    assert BAILIAN.urls({}) == ("https://dashscope.aliyuncs.com",)
    assert BAILIAN.urls({"region": "ap-southeast-1"}) == ("https://dashscope-intl.aliyuncs.com",)


@pytest.mark.parametrize("key", ["", "sk with space", "sk-\n", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ValidationError):
        BailianCredentials(api_key=key)
