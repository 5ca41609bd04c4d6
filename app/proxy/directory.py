"""The directory: the registry in memory, as calls need it; no I/O.

One dict a kind, values immutable. A change replaces one value and its index entries and rebuilds
nothing else. An older version of a value never replaces a newer one, and what was removed stays
removed, so that a read that took long cannot bring back a revoked key.

    proofs     public id of a key ─▶ api key      names   owner ─▶ name ─▶ deployment or route
    tenants    tenant id ─▶ tenant                shared  name ─▶ routes shared with other tenants
    upstreams  deployment id ─▶ upstream, its URL taken apart and its headers encoded
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from app.domain.directory import ApiKeyEntry, DeploymentEntry, Entry, KeyProof, RouteEntry, TenantEntry
from app.kit.logging import get_logger
from app.proxy.upstream import Upstream, upstream_from
from app.store.changes import Loaded

PLATFORM = "platform"
"""The owner of the platform's own routes."""

Named = DeploymentEntry | RouteEntry
AnyEntry = TypeVar("AnyEntry", TenantEntry, ApiKeyEntry, DeploymentEntry, RouteEntry)

log = get_logger(__name__)


class Shelf(Generic[AnyEntry]):
    """The values of one kind by id, and the ids that were removed."""

    def __init__(self) -> None:
        self.entries: dict[str, AnyEntry] = {}
        self._gone: set[str] = set()

    def admits(self, entry: AnyEntry) -> bool:
        """Whether `entry` may be stored: not removed before, and not older than what is here."""
        if entry.id in self._gone:
            return False
        held = self.entries.get(entry.id)
        return held is None or held.version <= entry.version

    def put(self, entry: AnyEntry) -> AnyEntry | None:
        """Store it; the value that it replaces."""
        held = self.entries.get(entry.id)
        self.entries[entry.id] = entry
        return held

    def remove(self, identifier: str) -> AnyEntry | None:
        self._gone.add(identifier)
        return self.entries.pop(identifier, None)


class Directory:
    """Read by every call, written only by `apply` and `replace_all`, between two calls."""

    def __init__(self) -> None:
        self.tenants: Shelf[TenantEntry] = Shelf()
        self.keys: Shelf[ApiKeyEntry] = Shelf()
        self.deployments: Shelf[DeploymentEntry] = Shelf()
        self.routes: Shelf[RouteEntry] = Shelf()
        self.edition = 0
        """Another number after every change; what is made from the values is good for one edition."""
        self.proofs: dict[str, tuple[ApiKeyEntry, KeyProof]] = {}
        self.upstreams: dict[str, Upstream] = {}
        self.resolved: dict[tuple[str, str], Any] = {}
        """What tenants' names lead to in this edition (`resolve`)."""
        self._names: dict[str, dict[str, Named]] = {}
        self._shared: dict[str, tuple[RouteEntry, ...]] = {}

    def tenant(self, tenant_id: str) -> TenantEntry | None:
        return self.tenants.entries.get(tenant_id)

    def deployment(self, deployment_id: str) -> DeploymentEntry | None:
        return self.deployments.entries.get(deployment_id)

    def named(self, owner: str, name: str) -> Named | None:
        """What a tenant (or `PLATFORM`) calls by that name; its routes and deployments share one namespace."""
        return self._names.get(owner, _NOTHING).get(name)

    def all_named(self, owner: str) -> Iterable[Named]:
        return self._names.get(owner, _NOTHING).values()

    def shared(self, name: str) -> tuple[RouteEntry, ...]:
        """Routes of that name that are shared: the platform's first, then by id."""
        return self._shared.get(name, ())

    def all_shared(self) -> Iterable[tuple[RouteEntry, ...]]:
        return self._shared.values()

    def is_callable(self, deployment: DeploymentEntry) -> bool:
        """Whether new calls can go there: it is routable, and its upstream can be used."""
        return deployment.routable and deployment.id in self.upstreams

    def is_draining(self, deployment_id: str) -> bool:
        deployment = self.deployment(deployment_id)
        return deployment is None or deployment.draining

    def apply(self, loaded: Loaded) -> bool:
        """Take in what changed; whether a deployment has begun to drain, or is gone."""
        if loaded.entries or loaded.gone:
            self.edition += 1
            self.resolved.clear()
        drains = [self._put(entry) for entry in loaded.entries]
        drains += [self._remove(kind, identifier) for kind, identifier in loaded.gone]
        return any(drains)

    def replace_all(self, loaded: Loaded) -> bool:
        """Take in a whole registry: what it does not hold is removed."""
        kept = {entry.id for entry in loaded.entries}
        held: dict[str, Iterable[str]] = {
            "tenant": self.tenants.entries,
            "api_key": self.keys.entries,
            "deployment": self.deployments.entries,
            "route": self.routes.entries,
        }
        gone = frozenset((kind, one) for kind, ids in held.items() for one in ids if one not in kept)
        return self.apply(Loaded(loaded.entries, gone))

    def _put(self, entry: Entry) -> bool:
        if isinstance(entry, DeploymentEntry):
            return self.deployments.admits(entry) and self._put_deployment(entry)
        if isinstance(entry, RouteEntry):
            if self.routes.admits(entry):
                self._unlist_route(self.routes.put(entry))
                self._list_route(entry)
        elif isinstance(entry, ApiKeyEntry):
            if self.keys.admits(entry):
                self._unlist_key(self.keys.put(entry))
                self.proofs |= {proof.public_id: (entry, proof) for proof in entry.proofs}
        elif self.tenants.admits(entry):
            self.tenants.put(entry)
        return False

    def _remove(self, kind: str, identifier: str) -> bool:
        if kind == "deployment":
            deployment = self.deployments.remove(identifier)
            self._unlist_deployment(deployment)
            return deployment is not None
        if kind == "route":
            self._unlist_route(self.routes.remove(identifier))
        elif kind == "api_key":
            self._unlist_key(self.keys.remove(identifier))
        elif kind == "tenant":
            self.tenants.remove(identifier)
        return False

    def _put_deployment(self, entry: DeploymentEntry) -> bool:
        before = self.deployments.put(entry)
        self._unlist_deployment(before)
        self._names.setdefault(entry.tenant_id, {})[entry.name] = entry
        if entry.upstream is not None:
            self._list_upstream(entry)
        return entry.draining and (before is None or not before.draining)

    def _list_upstream(self, entry: DeploymentEntry) -> None:
        try:
            self.upstreams[entry.id] = upstream_from(entry)
        except ValueError:
            log.warning("upstream_unusable", deployment_id=entry.id, provider=entry.provider)

    def _unlist_deployment(self, entry: DeploymentEntry | None) -> None:
        if entry is not None:
            self.upstreams.pop(entry.id, None)
            self._unlist_name(entry.tenant_id, entry)

    def _list_route(self, entry: RouteEntry) -> None:
        self._names.setdefault(entry.tenant_id or PLATFORM, {})[entry.name] = entry
        if entry.shared_with:
            self._shared[entry.name] = tuple(sorted((*self.shared(entry.name), entry), key=_precedence))

    def _unlist_route(self, entry: RouteEntry | None) -> None:
        if entry is None:
            return
        self._unlist_name(entry.tenant_id or PLATFORM, entry)
        others = tuple(route for route in self.shared(entry.name) if route.id != entry.id)
        if others:
            self._shared[entry.name] = others
        else:
            self._shared.pop(entry.name, None)

    def _unlist_name(self, owner: str, entry: Named) -> None:
        """Free a name, unless a newer resource has taken it meanwhile."""
        names = self._names.get(owner, {})
        if names.get(entry.name) is entry:
            del names[entry.name]

    def _unlist_key(self, entry: ApiKeyEntry | None) -> None:
        for proof in entry.proofs if entry else ():
            self.proofs.pop(proof.public_id, None)


_NOTHING: Mapping[str, Named] = {}


def _precedence(route: RouteEntry) -> tuple[bool, str]:
    return (route.tenant_id is not None, route.id)
