"""`/v1/models`: what a key can call now, and nothing that belongs to somebody else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.store.tables import DeploymentRow
from tests.proxy.conftest import Caller, base_url
from tests.support.data_plane import Gateway, chat, error_of
from tests.support.raw_server import Carrier
from tests.support.raw_upstream import always_answer, plain, upstream

NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture
def carrier() -> Carrier:
    return "direct"


async def listed(gateway: Gateway, key: str) -> dict[str, dict[str, Any]]:
    response = await gateway.call(None, key=key, path="/v1/models", method="GET")
    assert response.status_code == 200
    body = json.loads(response.body)
    assert body["object"] == "list"
    return {model["id"]: model for model in body["data"]}


async def test_running_deployments_their_adapters_and_routes_are_listed(gateway: Gateway, caller: Caller) -> None:
    served = {"": "base", "maths": "adapters/maths"}
    bot = await gateway.registry.deployment(caller.tenant_id, "bot", NOWHERE, served_models=served)
    await gateway.registry.deployment(caller.tenant_id, "asleep", NOWHERE, status="stopped")
    await gateway.registry.route(caller.tenant_id, "best", [bot])
    await gateway.registry.route(caller.tenant_id, "empty", [])
    await gateway.follow()
    models = await listed(gateway, caller.key)
    assert list(models) == ["best", "bot", "bot:maths"]
    assert models["bot"].keys() == {"id", "object", "created", "owned_by"}
    assert models["bot"]["object"] == "model"
    assert models["bot"]["owned_by"] == "acme"
    assert models["bot"]["created"] > 1_700_000_000


async def test_one_model_is_found_by_its_id_also_with_slashes_and_colons(gateway: Gateway, caller: Caller) -> None:
    served = {"": "base", "org/maths": "x"}
    await gateway.registry.deployment(caller.tenant_id, "bot", NOWHERE, served_models=served)
    await gateway.follow()
    for name, path in (("bot", "bot"), ("bot:org/maths", "bot:org/maths"), ("bot:org/maths", "bot%3Aorg%2Fmaths")):
        response = await gateway.call(None, key=caller.key, path=f"/v1/models/{path}", method="GET")
        assert json.loads(response.body)["id"] == name
    response = await gateway.call(None, key=caller.key, path="/v1/models/org/unknown", method="GET")
    assert response.status_code == 404
    assert error_of(response)["code"] == "model_not_found"
    assert "org/unknown" in error_of(response)["message"]


async def test_a_key_sees_only_the_models_it_was_made_for(gateway: Gateway, caller: Caller) -> None:
    for name in ("bot", "other"):
        await gateway.registry.deployment(caller.tenant_id, name, NOWHERE)
    made = await gateway.registry.key(caller.tenant_id, models=["other"])
    await gateway.follow()
    assert list(await listed(gateway, made.text)) == ["other"]
    response = await gateway.call(None, key=made.text, path="/v1/models/bot", method="GET")
    assert response.status_code == 404


async def test_a_shared_route_is_listed_and_works_and_its_deployments_stay_unseen(
    gateway: Gateway, caller: Caller
) -> None:
    owner = await gateway.registry.tenant("owner")
    outsider = await gateway.registry.key(await gateway.registry.tenant("outsider"))
    async with upstream(lambda peer: always_answer(peer, plain(b'{"model":"served-model"}'))) as server:
        hidden = await gateway.registry.deployment(owner, "hidden", base_url(server))
        await gateway.registry.route(owner, "friends", [hidden], shared_with=[caller.tenant_id])
        await gateway.registry.route(None, "everyone", [hidden], shared_with=["*"])
        await gateway.registry.route(None, "nobody", [hidden])
        await gateway.follow()
        models = await listed(gateway, caller.key)
        assert {name: model["owned_by"] for name, model in models.items()} == {
            "everyone": "modelport",
            "friends": "owner",
        }
        assert list(await listed(gateway, outsider.text)) == ["everyone"]
        for name in ("everyone", "friends"):
            response = await gateway.call(chat(name), key=caller.key)
            assert response.body == b'{"model":"%b"}' % name.encode()
        assert (await gateway.call(chat("hidden"), key=caller.key)).status_code == 404
        assert (await gateway.call(chat("nobody"), key=caller.key)).status_code == 404
        assert (await gateway.call(chat("friends"), key=outsider.text)).status_code == 404

        await gateway.registry.change(DeploymentRow, hidden, status="stopped")
        await gateway.follow()
        response = await gateway.call(chat("friends"), key=caller.key)
    assert response.status_code == 503
    assert "hidden" not in error_of(response)["message"]
    assert await listed(gateway, caller.key) == {}
