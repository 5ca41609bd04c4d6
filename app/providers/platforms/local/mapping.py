"""From what the supervisor sees and the probe hears to an `Observation`."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.deployment import DeploymentSpec, Observation, Status, UpstreamSpec, Wanted
from app.providers.errors import ProviderBusy
from app.providers.local_host import LocalHost
from app.providers.platforms.local.probe import Health, authority
from app.providers.platforms.local.state import ServerPlace
from app.providers.platforms.local.steps import CRASH_LIMIT, Sight

_TAIL_LINES = 6
_TAIL_LIMIT = 600
_SHORTEST_SECRET = 4


@dataclass(frozen=True, slots=True)
class _Seen:
    status: Status
    provider_status: str
    reason: str | None = None


def observe(host: LocalHost, place: ServerPlace, sight: Sight, health: Health, spec: DeploymentSpec) -> Observation:
    """Raises ProviderBusy for a server that served and now does not answer: it may only be at its limit."""
    seen = _seen(host, place, sight, health)
    running = seen.status is Status.RUNNING and health.port is not None
    upstream = _upstream(host, sight, health.port, spec) if running and health.port else None
    run = sight.run
    restarts = run.crashes if run else 0
    return Observation(
        external_id=place.token,
        status=seen.status,
        provider_status=seen.provider_status,
        status_reason=seen.reason,
        service_url=upstream.base_url if upstream else None,
        served_models=(sight.record.plan.model,),
        instances=({"node_id": host.node_id, "status": seen.provider_status, "crashes": restarts},),
        upstream=upstream,
        raw={"engine": sight.record.plan.engine, "generation": sight.record.generation, "crashes": restarts},
    )


def _seen(host: LocalHost, place: ServerPlace, sight: Sight, health: Health) -> _Seen:
    if sight.record.wanted is Wanted.DELETED:
        return _Seen(Status.STOPPING, "deleting")
    if sight.record.wanted is Wanted.STOPPED:
        return _Seen(Status.STOPPING, "stopping") if sight.alive else _Seen(Status.STOPPED, "stopped")
    if sight.given_up:
        return _Seen(Status.FAILED, "crashed", _death(host, place, sight, given_up=True))
    if not sight.current:
        return _Seen(Status.UPDATING, "restarting")
    if not sight.alive:
        return _Seen(Status.DEPLOYING, "crashed", _death(host, place, sight, given_up=False))
    if health.ready:
        return _Seen(Status.RUNNING, "serving")
    if sight.run and sight.run.ready:
        raise ProviderBusy("The model server does not answer its health check.")
    return _Seen(Status.DEPLOYING, "loading")


def _death(host: LocalHost, place: ServerPlace, sight: Sight, *, given_up: bool) -> str:
    run = sight.run
    if run and run.refused:
        return run.refused
    ended = f" ({run.exit_text})" if run and run.exit_text else ""
    done = f"after {CRASH_LIMIT} starts it is left alone" if given_up else "it is started again"
    tail = _shown(host, place, sight)
    return f"The model server ended{ended}; {done}." + (f" Its last words: {tail}" if tail else "")


def _shown(host: LocalHost, place: ServerPlace, sight: Sight) -> str:
    """The end of the log for people: without the key, and without where things are on this host."""
    text = place.log_tail()
    model = host.models.get(sight.record.plan.model)
    hidden = {sight.record.api_key: "***", str(place.directory): "…", str(host.data_dir): "…"}
    if model is not None:
        hidden = {str(model.path): model.name, str(model.path.parent): "…", **hidden}
    for secret, instead in hidden.items():
        text = text.replace(secret, instead) if len(secret) >= _SHORTEST_SECRET else text
    lines = ["".join(c if c.isprintable() else " " for c in line).strip() for line in text.splitlines()]
    return " | ".join(line for line in lines[-_TAIL_LINES:] if line)[-_TAIL_LIMIT:]


def _upstream(host: LocalHost, sight: Sight, port: int, spec: DeploymentSpec) -> UpstreamSpec:
    model = sight.record.plan.model
    return UpstreamSpec(
        base_url=f"http://{authority(host, port)}/v1",
        auth_header="Authorization",
        auth_value=f"Bearer {sight.record.api_key}",
        served_models={"": model, **dict.fromkeys(spec.served_names, model)},
        exempt=authority(host, port),
    )
