"""The control plane under test: the real app on a real database, with real providers and one more.

`World` plays the lifespan: it makes the context. Callers are httpx clients with a key each.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar

import httpx
from fastapi import FastAPI
from starlette.datastructures import State
from typing_extensions import override

from app.background.sync_catalog import CatalogSync
from app.control.app import create_control_app
from app.control.context import ControlContext, Readiness
from app.control.deployments.watch import Pace, Watchers
from app.domain.catalog import CatalogModel
from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice
from app.domain.tenant import Scope
from app.kit.hints import Hint
from app.kit.http import HttpVendorClient
from app.kit.ids import new_id
from app.kit.net import AddressPolicy
from app.kit.secrets import Keyring, new_api_key
from app.providers.base import (
    Capabilities,
    CapacityForm,
    ConnectionCheck,
    CredentialsModel,
    OpenConnection,
    Provider,
    SettingsModel,
)
from app.providers.errors import CredentialsRefused
from app.providers.platforms.local.provider import LocalProvider
from app.providers.platforms.openai_compatible.provider import OpenAICompatibleProvider
from app.providers.registry import Registry
from app.settings import SecuritySettings, Settings
from app.store import api_keys, catalog_sync
from app.store.peppers import Peppers
from app.store.session import Store

ADMIN_KEY = "an-admin-key-of-the-operator-" + secrets.token_hex(8)
BASE_URL = "https://models.example.com/v1"


class ElasticSettings(SettingsModel):
    region: str = "here"


class ElasticCredentials(CredentialsModel):
    api_key: str


class ElasticProvider(Provider):
    """A platform that can do everything, so that every verb of the API can be asked for."""

    kind: ClassVar[ProviderKind] = ProviderKind("elastic")
    title: ClassVar[str] = "Elastic"
    capabilities: ClassVar[Capabilities] = Capabilities(
        scale=True,
        update=True,
        start=True,
        stop=True,
        restart=True,
        catalog=True,
        lora=True,
        served_names=True,
        resources=True,
        engine=True,
        provider_options=True,
        capacity_forms=(CapacityForm.UNITS, CapacityForm.REPLICAS),
        plans=("mu", "cu"),
        create_device=CreateDevice.TOKEN,
    )
    settings_model: ClassVar[type[SettingsModel]] = ElasticSettings
    credentials_model: ClassVar[type[CredentialsModel]] = ElasticCredentials
    owned_options: ClassVar[frozenset[str]] = frozenset({"token"})
    origin_settings: ClassVar[frozenset[str]] = frozenset({"region"})

    @override
    async def check(self, opened: OpenConnection) -> ConnectionCheck:
        if opened.connection.credentials["api_key"] == "wrong":
            raise CredentialsRefused("Elastic does not accept the key.")
        return ConnectionCheck(ok=True, message="Elastic answers.")

    @override
    async def models(self, opened: OpenConnection, query: Mapping[str, str]) -> Sequence[CatalogModel]:
        return [CatalogModel(name="qwen3-8b", raw={"query": dict(query)})]


@dataclass
class World:
    """One installation; `refreshed` counts how often its own directory was told of a commit."""

    store: Store
    keyring: Keyring
    context: ControlContext
    app: FastAPI
    refreshed: list[None] = field(default_factory=list)
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    def client(self, key: str | None, **headers: str) -> httpx.AsyncClient:
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        transport = httpx.ASGITransport(self.app)
        client = httpx.AsyncClient(transport=transport, base_url="http://modelport", headers=headers)
        self.clients.append(client)
        return client

    @property
    def admin(self) -> httpx.AsyncClient:
        return self.client(ADMIN_KEY)

    async def tenant(self, name: str = "acme") -> str:
        answer = await self.admin.post("/api/v1/tenants", json={"name": name})
        assert answer.status_code == 201, answer.text
        tenant_id: str = answer.json()["id"]
        return tenant_id

    async def key(self, tenant_id: str | None, *scopes: Scope, **more: Any) -> str:
        """A key straight from the store, for any tenant and scope."""
        secret = new_api_key()
        values = {"name": "test", "scopes": list(scopes), "models": None, "expires_at": None, **more}
        async with self.store.write() as session:
            await api_keys.create(
                session,
                key_id=new_id("key"),
                tenant_id=tenant_id,
                secret=secret,
                peppers=self.context.peppers,
                values=values,
            )
        return secret.text

    async def caller(self, tenant_id: str, *scopes: Scope) -> httpx.AsyncClient:
        return self.client(await self.key(tenant_id, *(scopes or (Scope.READ, Scope.WRITE))))


async def make_world(store: Store, keyring: Keyring, *more: Provider, policy: AddressPolicy | None = None) -> World:
    """`more` providers beside the usual ones; `policy` says where connections may lead."""
    peppers = Peppers(keyring)
    async with store.write() as session:
        await peppers.ensure_one(session)
    policy = policy or AddressPolicy()
    refreshed: list[None] = []

    def open_connection(connection: Connection) -> OpenConnection:
        return OpenConnection(connection, HttpVendorClient(policy.for_connection(trusted=connection.trusted)))

    async def refresh() -> None:
        refreshed.append(None)

    async def readiness() -> Readiness:
        return Readiness(ready=True, database="ok")

    async def metrics() -> bytes:
        return b""

    context = ControlContext(
        settings=replace(Settings(), security=SecuritySettings(admin_key=ADMIN_KEY)),
        node_id=new_id("nod"),
        store=store,
        keyring=keyring,
        peppers=peppers,
        registry=Registry([OpenAICompatibleProvider(), LocalProvider(None), ElasticProvider(), *more]),
        address_policy=policy,
        open_connection=open_connection,
        refresh_directory=refresh,
        readiness=readiness,
        metrics=metrics,
    )
    return World(store, keyring, context, _app_of(context), refreshed)


def _app_of(context: ControlContext) -> FastAPI:
    """An app with a state of its own over shared routes: FastAPI prepares each when it first meets it, for 3 ms."""
    app = copy(_shared_app())
    own = {"context_provider": lambda: context, "watchers": Watchers(Pace())}
    app.state = State({**app.state._state, **own})
    return app


@cache
def _shared_app() -> FastAPI:
    return create_control_app(lambda: None)


async def sync_catalog(world: World) -> None:
    """Read every connection that is due, once, as the background does."""
    context = world.context
    sync = CatalogSync(
        store=context.store,
        provider_of=context.registry.get,
        keyring=context.keyring,
        open_connection=context.open_connection,
        node_id=context.node_id,
        hint=Hint(),
    )
    async with context.store.write() as session:
        due = await catalog_sync.claim_due(session, node_id=context.node_id, limit=100)
    for connection in due:
        await sync.sync(connection)


def error_of(answer: httpx.Response, status_code: int, code: str | None = None) -> dict[str, Any]:
    """The error of an answer, after checking that it has the one shape."""
    assert answer.status_code == status_code, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() - {"details"} == {"message", "type", "code", "param"}
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    assert code is None or error["code"] == code, error
    return error


def connection_body(name: str = "elastic-prod", **more: Any) -> dict[str, Any]:
    return {"name": name, "provider": "elastic", "credentials": {"api_key": "sk-elastic-secret"}, **more}


def deployment_body(name: str = "support-bot", **more: Any) -> dict[str, Any]:
    return {"name": name, "connection": "elastic-prod", "model": "qwen3-8b", **more}


async def made(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST, expecting 201."""
    answer = await client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found
