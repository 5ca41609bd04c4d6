"""Jobs: every change of ZStack's is one, and its id, which we choose, is what keeps it from happening twice.

    create, delete     ids made from the deployment's own uuid, so that a later look, by another process,
                       can ask what became of it; a second one of that id is refused
    update, restart    any id: they may be repeated

A change with a lost session is accepted, takes its id, and fails. So each change has several ids in a
row: the next one counts only where the one before failed for the session alone.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence

from app.providers.errors import ProviderBusy, ProviderError
from app.providers.platforms.zstack.wire import Job, JobState, ZStackApi

ATTEMPTS = 5
_NAMESPACE = uuid.UUID("6d6f6465-6c70-5f72-8174-7a737461636b")


def group_uuid(token: str) -> str:
    """The uuid that a create with this token gives its group; the form that ZStack's own have."""
    return _derived("group", token)


def job_uuid(purpose: str, group: str, attempt: int) -> str:
    return _derived(purpose, group, str(attempt))


def fresh_uuid() -> str:
    return uuid.uuid4().hex


async def follow(api: ZStackApi, job: str, looks: Sequence[float]) -> Job:
    """Look at a job until it has ended or the looks are used up; each is the pause before it, in seconds."""
    seen = Job(JobState.RUNNING)
    for pause in looks:
        await asyncio.sleep(pause)
        seen = await api.job(job)
        if seen.state is not JobState.RUNNING:
            break
    return seen


async def changed(api: ZStackApi, send: Callable[[str], Awaitable[bool]], looks: Sequence[float]) -> Job:
    """Send a change that may be repeated, once more where the session was lost. Raises its job's error."""
    for _ in range(2):
        job = fresh_uuid()
        await send(job)
        ended = await follow(api, job, looks)
        if not ended.session_lost:
            break
        api.forget_session()
    raise_failed(ended)
    return ended


def raise_failed(ended: Job) -> None:
    if ended.state is JobState.FAILED:
        raise ended.error or ProviderBusy("The job failed.")


async def recorded(api: ZStackApi, purpose: str, group: str) -> Job:
    """What became of the create or delete of this group, as far as its jobs are remembered."""
    seen = Job(JobState.UNKNOWN)
    for attempt in range(ATTEMPTS):
        seen = await api.job(job_uuid(purpose, group, attempt))
        if not seen.session_lost:
            break
    return seen


def failure(job: Job) -> ProviderError | None:
    return job.error if job.state is JobState.FAILED else None


def _derived(*parts: str) -> str:
    return uuid.uuid5(_NAMESPACE, ":".join(parts)).hex
