"""Create, find and delete: the changes that money hangs on.

create   group uuid and job id come from our token, so a second one is refused and the first one's
         job tells its outcome. A job that ends soon is looked at to its end: most refusals of ZStack's
         (no such zone, no quota, no host) come in there, after the 202
find     the group by its uuid, then by its name, then its create's job
look     a group that is not there: being made, never made (its job failed), or gone
delete   the job's id comes from the group's uuid as well. It is what tells a deployment that was
         deleted from one whose create failed; both have no group
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from app.domain.deployment import DeploymentSpec, Observation
from app.providers.base import Created
from app.providers.errors import CredentialsRefused, ProviderBusy, ProviderError, ProviderRefused, ProviderUnclear
from app.providers.platforms.zstack import jobs, mapping, rules
from app.providers.platforms.zstack.catalog import text
from app.providers.platforms.zstack.naming import group_name
from app.providers.platforms.zstack.query import equals
from app.providers.platforms.zstack.target import resolve
from app.providers.platforms.zstack.wire import TITLE, Job, JobState, ZStackApi

_DESTROYED = "Destroyed"
_ENDED = frozenset({JobState.DONE, JobState.FAILED, JobState.UNKNOWN})


async def create(api: ZStackApi, spec: DeploymentSpec, token: str, looks: Sequence[float]) -> Created:
    target = await resolve(api, spec, rules.type_of(api.settings, spec))
    group, name = jobs.group_uuid(token), group_name(spec.name, token)
    body = rules.deploy_body(api.settings, spec, target.members, name=name, group=group, token=token)
    ended = Job(JobState.UNKNOWN)
    for attempt in range(jobs.ATTEMPTS):
        job = jobs.job_uuid("create", group, attempt)
        await api.deploy(target.service_uuid, body, job)
        ended = await _followed(api, job, looks)
        if not ended.session_lost:
            break
        api.forget_session()
    return await _created(api, group, ended)


async def find(api: ZStackApi, spec: DeploymentSpec, token: str) -> str | None:
    group = jobs.group_uuid(token)
    if await api.group(group) is not None:
        return group
    asked = equals("name", group_name(spec.name, token))
    named = await api.groups([asked]) if asked else []
    if named:
        return text(named[0], "uuid")
    made = await jobs.recorded(api, "create", group)
    if made.state is JobState.RUNNING:
        return group
    return _uuid_of(made) or group if made.state is JobState.DONE else None


async def look_for_absent(api: ZStackApi, group: str) -> Observation | None:
    """What a deployment without a group is; None when it does not exist."""
    made = await jobs.recorded(api, "create", group)
    if made.state is JobState.RUNNING:
        return mapping.being_made(group)
    if made.state is not JobState.FAILED or made.session_lost:
        return None
    if (await _earlier_delete(api, group)).state is not JobState.UNKNOWN:
        return None
    return mapping.never_made(group, made.error)


async def delete(api: ZStackApi, group: str, looks: Sequence[float]) -> None:
    """Returns once the group is gone, and its virtual machines are out of the recycle bin.

    Raises ProviderBusy while its job runs, so that it is asked again: only as long as there is a group can
    be told which machines are its own.
    """
    shown = await api.group(group)
    if shown is None and await _needs_no_delete(api, group):
        return
    ended = await _deleted(api, group, looks)
    if ended.state is JobState.RUNNING:
        raise ProviderBusy(f"{TITLE} is still deleting it.")
    if ended.state is JobState.FAILED and await api.group(group) is not None:
        jobs.raise_failed(ended)
    if shown is not None and api.settings.expunge:
        await _expunge(api, mapping.machines(shown), looks)


async def _followed(api: ZStackApi, job: str, looks: Sequence[float]) -> Job:
    """From here on every failure of ours leaves the outcome open: the create was accepted."""
    try:
        return await jobs.follow(api, job, looks)
    except ProviderError as failed:
        raise ProviderUnclear(f"The create was accepted. {failed.message}") from failed


async def _created(api: ZStackApi, group: str, ended: Job) -> Created:
    if ended.state is JobState.DONE:
        return Created(_uuid_of(ended) or group)
    if ended.state is JobState.RUNNING:
        return Created(group)
    try:
        there = await api.group(group) is not None
    except ProviderError as failed:
        raise ProviderUnclear(f"The create was accepted. {failed.message}") from failed
    if there:
        return Created(group)
    raise _final(ended.error) if ended.error else ProviderUnclear("The create was accepted, and its job is not known.")


def _final(error: ProviderError) -> ProviderError:
    """Waiting or other credentials would not help: the job of this token has ended, and will not run again."""
    if not isinstance(error, ProviderBusy | CredentialsRefused):
        return error
    return ProviderRefused(
        error.message,
        provider_request_id=error.provider_request_id,
        provider_status_code=error.provider_status_code,
    )


async def _deleted(api: ZStackApi, group: str, looks: Sequence[float]) -> Job:
    """The end of a delete. A second one gets an id of its own once the first has ended."""
    ended = Job(JobState.UNKNOWN)
    for job in (jobs.job_uuid("delete", group, 0), jobs.fresh_uuid(), jobs.fresh_uuid()):
        fresh = await api.delete_group(group, job)
        ended = await jobs.follow(api, job, looks)
        if ended.session_lost:
            api.forget_session()
        elif fresh or ended.state not in _ENDED:
            break
    return ended


async def _needs_no_delete(api: ZStackApi, group: str) -> bool:
    """Of a group that is not there: whether it was deleted before. Raises ProviderBusy while it is being made."""
    if (await jobs.recorded(api, "create", group)).state is JobState.RUNNING:
        raise ProviderBusy(f"{TITLE} is still making it.")
    earlier = await _earlier_delete(api, group)
    return earlier.state in {JobState.DONE, JobState.FAILED} and not earlier.session_lost


async def _earlier_delete(api: ZStackApi, group: str) -> Job:
    return await api.job(jobs.job_uuid("delete", group, 0))


async def _expunge(api: ZStackApi, machines: Sequence[str], looks: Sequence[float]) -> None:
    """A destroyed machine keeps its disks until it is expunged."""
    for uuid in machines:
        machine = await api.machine(uuid)
        if machine is not None and text(machine, "state") == _DESTROYED:
            await jobs.changed(api, partial(api.expunge_machine, uuid), looks)


def _uuid_of(made: Job) -> str | None:
    inventory = made.result.get("inventory")
    return text(inventory, "uuid") if isinstance(inventory, dict) else None
