"""Where a call goes: from the model name that the caller wrote to one running deployment, or to a route.

    1. the tenant's own deployment or route of that name
    2. `deployment:name`, a LoRA adapter or other served name of the tenant's own deployment
    3. a route shared with the tenant: the platform's first, then by the route's id

A name found first hides the later ones, running or not, so that the same name never leads to two
owners by turns. What is not found and what belongs to others give the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from app.domain.deployment import Status
from app.domain.directory import DeploymentEntry, RouteEntry
from app.domain.route import Target
from app.errors import DeploymentNotRunning, ModelNotFound
from app.proxy.directory import Directory
from app.proxy.upstream import Upstream

_SHOWN_LENGTH = 200
_RETRY_SECONDS = {Status.RUNNING: 2.0, Status.UPDATING: 5.0, Status.DEPLOYING: 10.0, Status.PENDING: 10.0}
_HOPELESS = frozenset({Status.STOPPED, Status.FAILED, Status.DELETING, Status.DELETED})
"""Only a person changes these: a retry is not worth it."""
_LIKELIEST = (
    Status.RUNNING,
    Status.UPDATING,
    Status.DEPLOYING,
    Status.PENDING,
    Status.STOPPING,
    Status.UNKNOWN,
    Status.FAILED,
    Status.STOPPED,
    Status.DELETING,
    Status.DELETED,
)
"""What to tell about several deployments of which none can be called: the one nearest to running."""


class CallTarget(NamedTuple):
    """One attempt's destination. `route` is None when the deployment was named itself."""

    deployment: DeploymentEntry
    upstream: Upstream
    served_model: str
    route: RouteEntry | None = None


def resolve(directory: Directory, tenant_id: str, model: str) -> CallTarget | RouteEntry:
    """The deployment that was named, or the route that has several (`routing` chooses).

    What was found is found again at once, as long as the directory stays as it is. Raises ModelNotFound, and
    DeploymentNotRunning for a deployment.
    """
    key = (tenant_id, model)
    found: CallTarget | RouteEntry | None = directory.resolved.get(key)
    if found is None:
        found = directory.resolved[key] = _resolve(directory, tenant_id, model)
    return found


def _resolve(directory: Directory, tenant_id: str, model: str) -> CallTarget | RouteEntry:
    named = directory.named(tenant_id, model)
    if isinstance(named, DeploymentEntry):
        return _direct(directory, named, "", model)
    if named is not None:
        return named
    name, _, served_name = model.partition(":")
    owner = directory.named(tenant_id, name) if served_name else None
    if isinstance(owner, DeploymentEntry) and served_name in owner.served_models:
        return _direct(directory, owner, served_name, model)
    route = _first_shared(directory.shared(model), tenant_id)
    if route is not None:
        return route
    shown = model[:_SHOWN_LENGTH]
    message = f"The model '{shown}' does not exist, or this key has no access to it. See GET /v1/models."
    raise ModelNotFound(message, param="model")


def targets_of(directory: Directory, route: RouteEntry) -> list[tuple[Target, CallTarget]]:
    """Where a route leads now: its targets whose deployments can be called."""
    return [
        (target, CallTarget(one, directory.upstreams[one.id], one.served_models[""], route))
        for target, one in _usable(directory, route)
    ]


def none_runs(directory: Directory, route: RouteEntry) -> DeploymentNotRunning:
    """The error for a route that leads nowhere now."""
    return _not_running(route.name, [deployment for _, deployment in _known(directory, route)])


class CallableModel(NamedTuple):
    """A name that a tenant can call now, and who answers for it; `owner` None is the platform."""

    name: str
    owner: str | None
    created_at: float


def callable_models(directory: Directory, tenant_id: str) -> list[CallableModel]:
    """Every name that `resolve` would find a running deployment for, each once, in order of name."""
    found = {model.name: model for model in _shared_models(directory, tenant_id)}
    hidden = {named.name for named in directory.all_named(tenant_id)}
    own = {model.name: model for model in _own_models(directory, tenant_id)}
    visible = {name: model for name, model in found.items() if name not in hidden} | own
    return [visible[name] for name in sorted(visible)]


def _own_models(directory: Directory, tenant_id: str) -> Iterator[CallableModel]:
    for named in directory.all_named(tenant_id):
        if isinstance(named, RouteEntry):
            if _usable(directory, named):
                yield CallableModel(named.name, tenant_id, named.created_at)
        elif directory.is_callable(named):
            for served_name in named.served_models:
                name = f"{named.name}:{served_name}" if served_name else named.name
                yield CallableModel(name, tenant_id, named.created_at)


def _shared_models(directory: Directory, tenant_id: str) -> Iterator[CallableModel]:
    for routes in directory.all_shared():
        route = _first_shared(routes, tenant_id)
        if route is not None and _usable(directory, route):
            yield CallableModel(route.name, route.tenant_id, route.created_at)


def _first_shared(routes: Iterable[RouteEntry], tenant_id: str) -> RouteEntry | None:
    others = (route for route in routes if route.tenant_id != tenant_id and route.is_shared_with(tenant_id))
    return next(others, None)


def _direct(directory: Directory, deployment: DeploymentEntry, served_name: str, model: str) -> CallTarget:
    if not directory.is_callable(deployment):
        raise _not_running(model, [deployment])
    upstream = directory.upstreams[deployment.id]
    return CallTarget(deployment, upstream, deployment.served_models[served_name])


def _usable(directory: Directory, route: RouteEntry) -> list[tuple[Target, DeploymentEntry]]:
    known = _known(directory, route)
    return [(target, one) for target, one in known if target.weight > 0 and directory.is_callable(one)]


def _known(directory: Directory, route: RouteEntry) -> list[tuple[Target, DeploymentEntry]]:
    """A tenant's route leads to its own deployments only, whatever its row says."""
    pairs = ((target, directory.deployment(target.deployment_id)) for target in route.targets)
    return [(target, one) for target, one in pairs if one and route.tenant_id in {None, one.tenant_id}]


def _not_running(model: str, deployments: Sequence[DeploymentEntry]) -> DeploymentNotRunning:
    likeliest = min(map(_status_told, deployments), key=_LIKELIEST.index, default=Status.DELETED)
    return DeploymentNotRunning(
        f"The model '{model[:_SHOWN_LENGTH]}' cannot be called now: it is {_WORDS.get(likeliest, likeliest.value)}.",
        retryable=likeliest not in _HOPELESS,
        retry_after_seconds=_RETRY_SECONDS.get(likeliest, 30.0),
    )


def _status_told(deployment: DeploymentEntry) -> Status:
    return Status.STOPPING if deployment.draining else deployment.status


_WORDS = {Status.RUNNING: "running, but its address is not known yet"}
