"""Bailian's deployable models in our words: from the vendor's own example to lists without an end."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.catalog import CatalogModel, Plan
from app.providers.errors import ProviderRefused
from app.providers.platforms.bailian.catalog import read_model
from tests.emulators.bailian import Switches, running_emulator
from tests.emulators.bailian.catalog import split, unified
from tests.support.bailian import BAILIAN, connected, stopped_account


def read(entry: dict[str, Any]) -> CatalogModel:
    model = read_model(entry, "base")
    assert model is not None
    return model


def test_the_vendors_example_keeps_plans_templates_roles_and_steps() -> None:
    """The response of the page list-deployable-models-api, as far as it describes one model."""
    entry = {
        "model_name": "qwen3-8b",
        "plans": [{"plan": "mu", "templates": [unified("MU1"), split("MU1-PD", "MU1")]}, {"plan": "lora"}],
    }
    model = read(entry)
    assert (model.name, model.source, model.raw) == ("qwen3-8b", "base", entry)
    assert model.plans == (
        Plan("mu", "Model units", "units", minimum=0, maximum=999),
        Plan("lora", "Shared LoRA", "units", step=1, minimum=1, maximum=1),
    )
    coupled, disaggregated = model.templates
    assert coupled == {
        "name": "MU1",
        "plan": "mu",
        "title": "单机部署-标准推理型",
        "type": "coupled",
        "version": "v1",
        "description": "适用于标准推理场景",
        "charge_type": "post_paid",
        "capacity_form": "units",
        "roles": {"unified": {"unit_spec": "MU1", "step": 4}},
        "step": 4,
    }
    assert (disaggregated["type"], disaggregated["capacity_form"]) == ("disaggregated", "prefill_decode_units")
    assert disaggregated["roles"] == {
        "prefill": {"unit_spec": "MU1", "step": 4},
        "decode": {"unit_spec": "MU1", "step": 4, "initial": 4},
    }
    assert "step" not in disaggregated


@pytest.mark.parametrize(
    ("templates", "plan"),
    [
        ([unified("MU1", 4), unified("MU2", 4)], Plan("mu", "Model units", "units", 4, 0, 999)),
        ([unified("MU1", 4), unified("MU2", 8)], Plan("mu", "Model units", "units", None, 0, 999)),
        ([split("PD", "MU1")], Plan("mu", "Model units", "prefill_decode_units")),
        ([], Plan("mu", "Model units", "units", None, 0, 999)),
    ],
)
def test_a_plan_says_of_its_templates_what_holds_for_all(templates: list[dict[str, Any]], plan: Plan) -> None:
    assert read({"model_name": "m", "plans": [{"plan": "mu", "templates": templates}]}).plans == (plan,)


@pytest.mark.parametrize(
    ("entry", "plans"),
    [
        ({"plans": [{"plan": "ptu"}]}, (Plan("ptu", "Provisioned throughput", "tpm"),)),
        ({"plans": [{"plan": "ptu_v2", "x": 1}]}, (Plan("ptu_v2"),)),
        ({"plans": ["hourly"]}, (Plan("hourly"),)),
        ({"base_capacity": "8"}, (Plan("cu", "Compute units", "units", 8, 0, 999),)),
        (
            {"supported_plans": ["mu", "lora"]},
            (Plan("mu", "Model units", "units", None, 0, 999), Plan("lora", "Shared LoRA", "units", 1, 1, 1)),
        ),
        ({"plans": None}, ()),
        ({"plans": [None, 7, {}]}, ()),
    ],
)
def test_plans_are_read_in_every_place_and_unknown_ones_are_kept(
    entry: dict[str, Any], plans: tuple[Plan, ...]
) -> None:
    assert read({"model_name": "m", **entry}).plans == plans


def test_specs_of_compute_units_are_templates() -> None:
    model = read({"model_name": "m", "plans": [{"plan": "cu", "cu_specs": ["light", None, "basic"]}]})
    assert [(one["name"], one["plan"]) for one in model.templates] == [("light", "cu"), ("basic", "cu")]


def test_a_template_of_a_new_type_keeps_the_platforms_word() -> None:
    entry = {"template_id": "T", "template_type": "TRIPLE", "roles": {"a": {"model_unit_spec": "MU9"}, "b": 1}}
    (template,) = read({"model_name": "m", "plans": [{"plan": "mu", "templates": [entry, {}, 3]}]}).templates
    assert (template["type"], template["roles"]) == ("triple", {"a": {"unit_spec": "MU9"}})


def test_an_entry_without_a_name_is_no_model() -> None:
    assert read_model({"plans": []}, "base") is None


async def test_base_and_fine_tuned_models_are_listed_together_page_after_page() -> None:
    account, _ = stopped_account(switches=Switches(totals_as_text=True))
    account.base_models += [{"model_name": f"base-{number}", "plans": [{"plan": "lora"}]} for number in range(246)]
    async with running_emulator(account) as authority:
        models = await BAILIAN.models(connected(authority), {})
    assert len({model.name for model in models}) == len(models) == 251
    assert {model.source for model in models} == {"base", "custom"}
    assert [model.name for model in models if model.source == "custom"] == ["qwen3-8b-ft-202511132025-0260"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"model_source": "custom"}, ["qwen3-8b-ft-202511132025-0260"]),
        ({"model_source": "base", "page_no": "2", "page_size": "1"}, ["qwen-flash-2025-07-28"]),
    ],
)
async def test_a_live_query_reaches_the_platform_as_it_is(query: dict[str, str], names: list[str]) -> None:
    account, _ = stopped_account()
    async with running_emulator(account) as authority:
        models = await BAILIAN.models(connected(authority), query)
        asked = dict(pair.split("=") for pair in account.journal[-1]["query"].split("&"))
    assert [model.name for model in models] == names
    assert query.items() <= asked.items()


async def test_the_list_of_the_older_version_still_tells_steps() -> None:
    account, _ = stopped_account()
    async with running_emulator(account) as authority:
        models = await BAILIAN.models(connected(authority), {"model_source": "base", "version": "v0"})
    assert {model.name: model.plans for model in models}["emo"] == (Plan("cu", "Compute units", "units", 1, 0, 999),)


async def test_a_page_that_the_platform_refuses_is_refused() -> None:
    account, _ = stopped_account()
    async with running_emulator(account) as authority:
        with pytest.raises(ProviderRefused, match="page_size"):
            await BAILIAN.models(connected(authority), {"page_size": "101"})


async def test_nothing_that_looks_like_a_secret_stands_in_raw() -> None:
    account, _ = stopped_account()
    account.base_models = [
        {"model_name": "m", "nested": [{"api_key": "s3cr3t", "note": account.api_key, "max_tokens": 1}]}
    ]
    async with running_emulator(account) as authority:
        (model,) = await BAILIAN.models(connected(authority), {"model_source": "base", "version": "v1.0"})
    assert model.raw == {"model_name": "m", "nested": [{"note": "***", "max_tokens": 1}]}
