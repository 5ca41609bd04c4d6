"""One catalog over all connections: what a tenant finds, how fresh it is, and what a create may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import httpx
import pytest
from sqlalchemy import text, update
from typing_extensions import override

from app.domain.catalog import CatalogModel, Plan
from app.domain.connection import ProviderKind
from app.domain.tenant import Scope
from app.kit import json
from app.kit.net import AddressPolicy
from app.kit.secrets import Keyring
from app.providers.base import (
    Capabilities,
    CapacityForm,
    CredentialsModel,
    OpenConnection,
    Provider,
    SettingsModel,
)
from app.providers.errors import CredentialsRefused, ProviderBusy, ProviderThrottled
from app.providers.platforms.pai.catalog import PARAMETERS
from app.providers.platforms.pai.provider import PaiProvider
from app.store import catalog_sync, connections
from app.store.rows import ALL_TENANTS
from app.store.session import Store
from app.store.tables import ConnectionRow
from tests.control.support import World, connection_body, deployment_body, error_of, made, make_world, sync_catalog
from tests.emulators import pai

CATALOG = "/api/v1/catalog/models"


@dataclass
class Shelf(Provider):
    """A platform whose list is what the test says."""

    kind: ClassVar[ProviderKind] = ProviderKind("shelf")
    title: ClassVar[str] = "Shelf"
    capabilities: ClassVar[Capabilities] = Capabilities(
        scale=True,
        catalog=True,
        catalog_is_complete=True,
        capacity_forms=(CapacityForm.UNITS, CapacityForm.PREFILL_DECODE, CapacityForm.TPM),
        plans=("mu", "ptu"),
    )
    settings_model: ClassVar[type[SettingsModel]] = SettingsModel
    credentials_model: ClassVar[type[CredentialsModel]] = CredentialsModel
    shown: list[CatalogModel] = field(default_factory=list)
    failure: Exception | None = None
    meanwhile: Callable[[], Awaitable[object]] | None = None
    """What happens while the next reading of the list is under way."""

    @override
    async def models(self, opened: OpenConnection, query: Mapping[str, str]) -> Sequence[CatalogModel]:
        happens, self.meanwhile = self.meanwhile, None
        if happens:
            await happens()
        if self.failure:
            raise self.failure
        return self.shown


QWEN = CatalogModel(
    name="qwen3-8b",
    title="通义千问3-8B",
    series="Qwen",
    task="large-language-model",
    plans=(Plan("mu", capacity_form="units", step=4, minimum=0, maximum=999), Plan("ptu", capacity_form="tpm")),
    templates=(
        {"name": "MU1", "plan": "mu", "capacity_form": "units", "step": 4, "roles": {"unified": {"step": 4}}},
        {
            "name": "MU1-PD",
            "plan": "mu",
            "capacity_form": "prefill_decode_units",
            "roles": {"prefill": {"step": 4}, "decode": {"step": 8}},
        },
    ),
    capabilities=("deploy", "function_call"),
    tags=("license=apache-2.0", "lang=zh"),
    parameter_size=8000,
    raw={"of": "the platform"},
)
BGE = CatalogModel(name="BAAI/bge-m3", task="embedding", parameter_size=560, capabilities=("deploy",))


@dataclass
class Fixture:
    world: World
    shelf: Shelf
    client: httpx.AsyncClient

    async def list(self, **query: Any) -> dict[str, Any]:
        answer = await self.client.get(CATALOG, params=query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def names(self, **query: Any) -> list[str]:
        return [one["model"] for one in (await self.list(**query))["data"]]


@pytest.fixture
async def shop(store: Store, keyring: Keyring) -> AsyncIterator[Fixture]:
    """A tenant with connections `shelf` and `elastic-prod`, both read."""
    shelf = Shelf([QWEN, BGE])
    world = await make_world(store, keyring, shelf)
    client = await world.caller(await world.tenant())
    await made(client, "/api/v1/connections", {"name": "shelf", "provider": "shelf", "credentials": {}})
    await made(client, "/api/v1/connections", connection_body())
    await sync_catalog(world)
    yield Fixture(world, shelf, client)
    for one in world.clients:
        await one.aclose()


async def test_where_can_i_run_it_is_one_call(shop: Fixture) -> None:
    body = await shop.list(q="qwen3-8b")
    found = {one["connection"]: one for one in body["data"]}
    assert found.keys() == {"shelf", "elastic-prod"}
    assert [plan["name"] for plan in found["shelf"]["plans"]] == ["mu", "ptu"]
    assert found["shelf"]["plans"][0]["step"] == 4
    assert found["shelf"]["templates"][1]["roles"]["decode"]["step"] == 8
    assert found["shelf"]["raw"] == {"of": "the platform"}
    assert body["errors"] == []
    assert {one["connection"] for one in body["connections"]} == {"shelf", "elastic-prod"}
    assert all(one["synced_at"] for one in body["connections"])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"q": "bge m3"}, ["BAAI/bge-m3"]),
        ({"q": "baai/BGE-m3"}, ["BAAI/bge-m3"]),
        ({"q": "千问"}, ["qwen3-8b"]),
        ({"q": "%"}, []),
        ({"q": "':*&|!("}, []),
        ({"task": "Embedding"}, ["BAAI/bge-m3"]),
        ({"series": "qwen"}, ["qwen3-8b"]),
        ({"plan": "PTU"}, ["qwen3-8b"]),
        ({"tag": ["LICENSE=Apache-2.0", "lang=zh"]}, ["qwen3-8b"]),
        ({"tag": ["license=apache-2.0", "lang=en"]}, []),
        ({"capability": ["deploy", "function_call"]}, ["qwen3-8b"]),
        ({"parameter_size_gte": 560, "parameter_size_lte": 7999}, ["BAAI/bge-m3"]),
        ({"sort": "parameter_size"}, ["BAAI/bge-m3", "qwen3-8b"]),
        ({"sort": "parameter_size", "order": "desc"}, ["qwen3-8b", "BAAI/bge-m3"]),
        ({"provider": "shelf", "sort": "name"}, ["BAAI/bge-m3", "qwen3-8b"]),
    ],
)
async def test_filters(shop: Fixture, query: dict[str, Any], expected: list[str]) -> None:
    assert await shop.names(connection="shelf", **query) == expected


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sort", ["name", "parameter_size", "released_at", "revised_at", "rank"])
async def test_pages_show_every_model_once(shop: Fixture, sort: str, order: str) -> None:
    shop.shelf.shown = [
        CatalogModel(name=f"model-{number}", parameter_size=number % 3 or None, rank=number % 2 or None)
        for number in range(23)
    ]
    await _read_again(shop)
    seen: list[str] = []
    token: str | None = None
    while True:
        page = {"page_token": token} if token else {}
        body = await shop.list(connection="shelf", page_size=5, sort=sort, order=order, **page)
        seen += [one["model"] for one in body["data"]]
        token = body["next_page_token"]
        if token is None:
            break
    assert sorted(seen) == sorted(model.name for model in shop.shelf.shown)


async def test_a_page_of_a_catalog_that_has_changed_meanwhile_says_so(shop: Fixture) -> None:
    first = await shop.list(connection="shelf", page_size=1)
    shop.shelf.shown = [QWEN]
    await _read_again(shop)
    answer = await shop.client.get(
        CATALOG, params={"connection": "shelf", "page_size": 1, "page_token": first["next_page_token"]}
    )
    error_of(answer, 400, "page_token_expired")


async def test_ids_stay_and_what_is_gone_goes(shop: Fixture) -> None:
    before = {one["model"]: one["id"] for one in (await shop.list(connection="shelf"))["data"]}
    shop.shelf.shown = [QWEN]
    await _read_again(shop)
    (left,) = (await shop.list(connection="shelf"))["data"]
    assert left["id"] == before["qwen3-8b"]
    assert (await shop.client.get(f"{CATALOG}/{left['id']}")).json() == left
    error_of(await shop.client.get(f"{CATALOG}/{before['BAAI/bge-m3']}"), 404)


async def test_labels_change_whatever_the_catalog_says_meanwhile(shop: Fixture) -> None:
    """They are only ours: what was deployed once is not checked anew for them."""
    wish = deployment_body(connection="shelf", plan="mu", template="MU1", capacity={"units": 8})
    path = f"/api/v1/deployments/{(await made(shop.client, '/api/v1/deployments', wish))['id']}"
    shop.shelf.shown = [replace(QWEN, plans=(Plan("ptu", capacity_form="tpm"),), templates=())]
    await _read_again(shop)
    answer = await shop.client.patch(path, json={"labels": {"team": "a"}, "max_concurrency": 3, "plan": "mu"})
    assert (answer.status_code, answer.json()["labels"]) == (200, {"team": "a"})
    error_of(await shop.client.patch(path, json={"labels": {}, "capacity": {"units": 16}}), 400, "unknown_plan")


async def test_a_platform_that_is_down_is_told_and_hides_nothing(shop: Fixture) -> None:
    shop.shelf.failure = ProviderBusy("Shelf is closed for today.", provider_request_id="r-1")
    await _read_again(shop)
    body = await shop.list()
    assert len(body["data"]) == 3
    (error,) = body["errors"]
    assert (error["connection"], error["message"]) == ("shelf", "Shelf is closed for today.")
    assert error["provider_request_id"] == "r-1"
    shop.shelf.failure = None
    await _read_again(shop)
    assert (await shop.list())["errors"] == []


async def test_a_throttle_is_the_accounts_and_refused_credentials_end_the_reading(shop: Fixture) -> None:
    shop.shelf.failure = ProviderThrottled("Too many calls.", retry_after_seconds=900)
    await _read_again(shop)
    (connection,) = (await shop.client.get("/api/v1/connections", params={"provider": "shelf"})).json()["data"]
    live = await shop.client.get(f"/api/v1/connections/{connection['id']}/catalog")
    assert 0 < int(live.headers["retry-after"]) <= 900
    error_of(live, 503)
    async with shop.world.store.write() as session:
        await session.execute(update(ConnectionRow).values(throttled_until=None))
    shop.shelf.failure = CredentialsRefused("The key is not valid.")
    await _read_again(shop)
    path = f"/api/v1/connections/{connection['id']}"
    assert (await shop.client.get(path)).json()["status"] == "auth_failed"
    shop.shelf.failure = None
    await shop.client.patch(path, json={"credentials": {}})
    await sync_catalog(shop.world)
    assert (await shop.list())["errors"] == []


async def test_what_an_older_key_was_told_is_not_kept_for_the_one_that_came_meanwhile(shop: Fixture) -> None:
    """The list of the account before, or its refusal, is no reason not to read the new one at once."""
    (connection,) = (await shop.client.get("/api/v1/connections", params={"provider": "shelf"})).json()["data"]
    path = f"/api/v1/connections/{connection['id']}"
    for failure in (CredentialsRefused("The key is not valid."), None):
        shop.shelf.shown, shop.shelf.failure = [QWEN], failure
        shop.shelf.meanwhile = lambda: shop.client.patch(path, json={"credentials": {}})
        await _read_again(shop)
        assert (await shop.client.get(path)).json()["status"] == "unchecked"
        shop.shelf.shown, shop.shelf.failure = [QWEN, BGE], None
        await sync_catalog(shop.world)
        assert sorted(await shop.names(connection="shelf")) == ["BAAI/bge-m3", "qwen3-8b"]
        assert (await shop.list())["errors"] == []


async def test_a_failed_reading_and_a_change_of_its_connection_wait_for_each_other_in_one_order(shop: Fixture) -> None:
    (connection,) = (await shop.client.get("/api/v1/connections", params={"provider": "shelf"})).json()["data"]
    await shop.client.patch(f"/api/v1/connections/{connection['id']}", json={"settings": {}})
    shop.shelf.failure = ProviderThrottled("Too many calls.", retry_after_seconds=900)
    async with shop.world.store.write() as session:
        await connections.lock(session, ALL_TENANTS, connection["id"])
        reading = asyncio.create_task(sync_catalog(shop.world))
        while not (await session.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))).scalar_one():
            await asyncio.sleep(0.01)
        await catalog_sync.due_now(session, connection["id"])
    await reading
    assert [error["connection"] for error in (await shop.list())["errors"]] == ["shelf"]


async def test_a_defect_of_an_adapter_is_an_error_of_its_connection_only(shop: Fixture) -> None:
    shop.shelf.failure = KeyError("models")
    await _read_again(shop)
    (error,) = (await shop.list())["errors"]
    assert "could not be understood" in error["message"]


async def test_a_tenant_sees_its_own_connections_and_the_shared_ones(shop: Fixture) -> None:
    await made(shop.world.admin, "/api/v1/connections", {"name": "common", "provider": "shelf", "credentials": {}})
    await sync_catalog(shop.world)
    other = await shop.world.caller(await shop.world.tenant("other"), Scope.READ)
    body = (await other.get(CATALOG)).json()
    assert {one["connection"] for one in body["data"]} == {"common"}
    assert {one["connection"] for one in body["connections"]} == {"common"}
    error_of(await other.get(CATALOG, params={"connection": "shelf"}), 404)
    everything = (await shop.world.admin.get(CATALOG)).json()
    assert {one["connection"] for one in everything["connections"]} == {"common", "shelf", "elastic-prod"}


@pytest.mark.parametrize(
    ("wish", "code", "says"),
    [
        ({"model": "qwen3-8"}, "unknown_model", "'qwen3-8b'"),
        ({"plan": "ptu", "template": "MU1"}, "unknown_template", "none"),
        ({"template": "MU9"}, "unknown_template", "MU1, MU1-PD"),
        ({"plan": "mu", "template": "MU1", "capacity": {"units": 6}}, "wrong_capacity_step", "4 or 8"),
        ({"plan": "mu", "template": "MU1", "capacity": {"units": 1000}}, "capacity_too_large", "999"),
        (
            {"plan": "mu", "template": "MU1-PD", "capacity": {"prefill_units": 4, "decode_units": 4}},
            "wrong_capacity_step",
            "8",
        ),
        (
            {"plan": "mu", "template": "MU1-PD", "capacity": {"units": 8}},
            "unsupported_capacity",
            "prefill_decode_units",
        ),
        ({"plan": "ptu", "capacity": {"units": 8}}, "unsupported_capacity", "tpm"),
    ],
)
@pytest.mark.parametrize("validate_only", [True, False])
async def test_a_wish_that_the_catalog_knows_to_be_wrong_costs_nothing(
    shop: Fixture, wish: dict[str, Any], code: str, says: str, validate_only: bool
) -> None:
    body = deployment_body(connection="shelf", **wish)
    answer = await shop.client.post("/api/v1/deployments", json=body, params={"validate_only": validate_only})
    assert says in error_of(answer, 400, code)["message"]
    assert (await shop.client.get("/api/v1/deployments")).json()["data"] == []


async def test_a_right_wish_is_taken_and_a_scale_keeps_to_the_step(shop: Fixture) -> None:
    wish = {"plan": "mu", "template": "MU1", "capacity": {"units": 8}}
    deployment = await made(shop.client, "/api/v1/deployments", deployment_body(connection="shelf", **wish))
    path = f"/api/v1/deployments/{deployment['id']}/scale"
    error_of(await shop.client.post(path, json={"capacity": {"units": 9}}), 400, "wrong_capacity_step")
    assert (await shop.client.post(path, json={"capacity": {"units": 12}})).status_code == 202


async def test_an_unread_catalog_refuses_nothing(shop: Fixture) -> None:
    await made(shop.client, "/api/v1/connections", {"name": "new", "provider": "shelf", "credentials": {}})
    await made(shop.client, "/api/v1/deployments", deployment_body(connection="new", model="anything"))


async def test_new_credentials_and_a_good_check_read_the_catalog_again(shop: Fixture) -> None:
    (connection,) = (await shop.client.get("/api/v1/connections", params={"provider": "elastic"})).json()["data"]
    path = f"/api/v1/connections/{connection['id']}"
    before = (await shop.list(connection="elastic-prod"))["connections"][0]["synced_at"]
    for method, address, body in (
        ("POST", f"{path}/check", {}),
        ("PATCH", path, {"credentials": {"api_key": "new"}}),
    ):
        answer = await shop.client.request(method, address, json=body)
        assert answer.status_code == 200, answer.text
        await sync_catalog(shop.world)
        after = (await shop.list(connection="elastic-prod"))["connections"][0]["synced_at"]
        assert after > before
        before = after


_TAG = json.dumps([{"Key": "k1", "Value": "v1"}]).decode()
_SIZE = '[{{"Column": "ParameterSize", "Operator": "{}", "Value": "8000"}}]'
LIVE_AND_SYNCED: dict[str, tuple[str, dict[str, Any]]] = {
    "ModelName": ("Qwen3", {"q": "Qwen3"}),
    "Query": ("embedding", {"q": "embedding"}),
    "Domain": ("nlp", {"domain": "nlp"}),
    "Task": ("embedding", {"task": "embedding"}),
    "Origin": ("PAI", {"origin": "PAI"}),
    "ModelType": ("Endpoint", {"model_type": "Endpoint"}),
    "Collections": ("QuickStart", {"collection": "QuickStart"}),
    "ModelSeries": ("DeepSeek", {"series": "DeepSeek"}),
    "Deployable": ("true", {"capability": "deploy"}),
    "Trainable": ("true", {"capability": "train"}),
    "Evaluable": ("true", {"capability": "evaluate"}),
    "Compressible": ("true", {"capability": "compress"}),
    "Distillable": ("true", {"capability": "distill"}),
    "Demonstrable": ("true", {"capability": "demo"}),
    "DeepThink": ("true", {"capability": "deep_think"}),
    "FunctionCall": ("true", {"capability": "function_call"}),
    "SupportedInferenceResource": ("GPU", {"resource": "GPU"}),
    "SupportedTrainingResource": ("GPU", {"resource": "training:GPU"}),
    "SupportedEvaluationResource": ("GPU", {"resource": "evaluation:GPU"}),
    "SupportedCompressionResource": ("GPU", {"resource": "compression:GPU"}),
    "SupportedDistillationResource": ("GPU", {"resource": "distillation:GPU"}),
    "Tag": (_TAG, {"tag": "k1=v1"}),
    "Conditions": (_SIZE.format("GreaterThanOrEqualTo"), {"parameter_size_gte": 8000}),
    "SortBy": ("OrderNumber", {"sort": "rank"}),
    "Order": ("DESC", {"order": "desc"}),
    "PageSize": ("2", {"page_size": 2}),
    "PageNumber": ("1", {}),
}
"""Each parameter of ModelGallery's list with a value, and what asks the synced catalog for the same."""


async def test_every_parameter_of_the_model_gallery_has_a_filter_and_goes_through_live(
    store: Store, keyring: Keyring
) -> None:
    assert LIVE_AND_SYNCED.keys() == PARAMETERS
    account = pai.Account()
    async with pai.running_emulator(account) as authority:
        world = await make_world(store, keyring, PaiProvider(), policy=AddressPolicy(allow_private=True))
        client = await world.caller(await world.tenant())
        key = {"access_key_id": account.access_key_id, "access_key_secret": account.access_key_secret}
        if account.security_token:
            key["security_token"] = account.security_token
        body = {"name": "pai", "provider": "pai", "credentials": key, "settings": {"base_url": f"http://{authority}"}}
        connection = await made(client, "/api/v1/connections", body)
        await sync_catalog(world)
        for parameter, (value, query) in LIVE_AND_SYNCED.items():
            live = await client.get(f"/api/v1/connections/{connection['id']}/catalog", params={parameter: value})
            assert live.status_code == 200, live.text
            synced = await client.get(CATALOG, params=query)
            expected, found = ({one["model"] for one in answer.json()["data"]} for answer in (live, synced))
            if parameter == "PageSize":
                assert len(expected) == len(found) == 2
            else:
                assert expected == found, parameter
        for one in world.clients:
            await one.aclose()


async def _read_again(shop: Fixture) -> None:
    """As if every connection had just become due."""
    for connection in (await shop.client.get("/api/v1/connections")).json()["data"]:
        answer = await shop.client.patch(f"/api/v1/connections/{connection['id']}", json={"settings": {}})
        assert answer.status_code == 200, answer.text
    await sync_catalog(shop.world)
