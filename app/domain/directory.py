"""What a directory holds: the registry as the data plane needs it, one immutable value a row.

Each value carries the `version` of the row it was made from, so that an older one can never replace
a newer one. Values compare by content alone: a new version that says the same changes nothing.
Times are Unix seconds of the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.domain.deployment import Status, UpstreamSpec
from app.domain.route import Affinity, Target
from app.domain.tenant import Principal

EVERYONE = "*"
"""In a route's `shared_with`: every tenant."""

SERVING = frozenset({Status.RUNNING, Status.UPDATING})
"""A platform that scales or updates a deployment goes on serving it meanwhile."""


@dataclass(frozen=True, slots=True)
class TenantEntry:
    id: str
    name: str
    suspended: bool
    version: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class KeyProof:
    """One secret that proves an api key, found by the public id in its text; a rotated key has two."""

    public_id: str
    pepper_id: str
    digest: bytes = field(repr=False)
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class ApiKeyEntry:
    """An api key that is neither revoked nor deleted; its principal is made once, not per request."""

    id: str
    principal: Principal
    proofs: tuple[KeyProof, ...]
    version: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class DeploymentEntry:
    """A deployment, routable or not: a caller is told why its model does not answer.

    `model` is what was deployed, by its platform's name. `served_models` maps what callers write after
    `name:` to the name that the server knows; the deployment's own name is the key "". `trusted`: an
    admin made the connection, so its addresses may lie in the operator's allow-listed private ranges.
    `max_concurrency` counts this process's calls.
    """

    id: str
    tenant_id: str
    name: str
    provider: str
    status: Status
    draining: bool
    upstream: UpstreamSpec | None = field(repr=False)
    served_models: Mapping[str, str]
    trusted: bool
    created_at: float
    version: int = field(compare=False)
    max_concurrency: int | None = None
    model: str = ""

    @property
    def routable(self) -> bool:
        """Whether new calls may go there; open ones go on in any case."""
        return self.status in SERVING and not self.draining and self.upstream is not None


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A route; `tenant_id` None is the platform's."""

    id: str
    tenant_id: str | None
    name: str
    targets: tuple[Target, ...]
    shared_with: frozenset[str]
    created_at: float
    version: int = field(compare=False)
    affinity: Affinity = Affinity.NONE

    def is_shared_with(self, tenant_id: str) -> bool:
        return EVERYONE in self.shared_with or tenant_id in self.shared_with


Entry = TenantEntry | ApiKeyEntry | DeploymentEntry | RouteEntry
